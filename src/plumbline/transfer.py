"""Transfer: start from weights that another run, or torchvision, has learnt; freeze some; thaw them one after another."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.contract import require
from plumbline.ranges import Items, NonNegative
from plumbline.regularisers.layers import choose, is_norm, weight_layers
from plumbline.state import read

SHOWN = 6  # names in a message


class Transfer:
    """What stands still, and until when; built after the weights were loaded.

    `freeze` names layers as regularisers do (all, hidden, names, classes) or parts of the network with all they hold.
    Frozen weights have no gradient, and norms in frozen parts neither learn nor move their statistics.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        file: str | None,
        reinit: Annotated[list[str], Items(distinct=True)],
        freeze: Annotated[list[str], Items(distinct=True)],
        thaw: tuple[NonNegative, NonNegative] | None,
    ):
        if file is not None:
            load(model, Path(file).expanduser(), reinit)
        elif reinit:
            raise ConfigError(
                f"transfer.reinit={reinit}: without transfer.file nothing is loaded; name a file, or say []"
            )
        ordered = thaw is None or (len(thaw) == 2 and 0 <= thaw[0] <= thaw[1] < inf)
        require("transfer.thaw", thaw, ordered, "two growing parts of the run, such as [0.2, 0.6], or null")
        self.parts = parts(model, freeze)
        if freeze and not any(
            parameter.requires_grad for name, parameter in model.named_parameters() if not _held(name, self.parts)
        ):
            raise ConfigError(f"transfer.freeze={freeze}: leaves nothing to train; leave out the last layer")
        self.thaw = thaw
        self.still: list[str] = []
        if thaw is None:
            self.hold(model, list(self.parts))

    def at(self, model: nn.Module, progress: float) -> None:
        """Freeze what is frozen at that progress in [0, 1]: gradual unfreezing, the last layers first (Howard & Ruder 2018)."""
        if self.thaw is None:
            return
        first, last = self.thaw
        names = list(self.parts)
        times = [
            first + (last - first) * k / max(len(names) - 1, 1) for k in range(len(names))
        ]  # of the top, downwards
        frozen = [name for name, time in zip(reversed(names), times, strict=True) if progress < time]
        if frozen != self.still:
            self.hold(model, frozen)

    def hold(self, model: nn.Module, names: list[str]) -> None:
        """These parts stand still, and the other ones of `freeze` learn."""
        for name, part in self.parts.items():
            frozen = name in names
            part.requires_grad_(not frozen)
            for module in part.modules():
                if is_norm(module):
                    module.frozen = frozen
                    if frozen and _eval not in module._forward_pre_hooks.values():
                        module.register_forward_pre_hook(_eval)
        self.still = names


def _eval(module: nn.Module, inputs: Any) -> None:
    if module.frozen:  # whoever has called model.train()
        module.training = False


def _held(name: str, parts: dict[str, nn.Module]) -> bool:
    return any(part in ("", name) or name.startswith(part + ".") for part in parts)


def parts(model: nn.Module, patterns: list[str]) -> dict[str, nn.Module]:
    """Name -> module of what the patterns name, in module order: parts by name first, then layers.

    A norm belongs to the layer before it, and freezes with it.
    """
    modules = dict(model.named_modules())
    found: dict[str, nn.Module] = {name: modules[name] for name in patterns if name and name in modules}
    rest = [pattern for pattern in patterns if pattern not in found]
    if rest:
        try:
            found |= choose(model, rest, option="freeze", leave_out=-1)
        except ConfigError as error:
            raise ConfigError(str(error).replace("regulariser.freeze.layers", "transfer.freeze")) from None
    layers, last = weight_layers(model), None
    for name, module in modules.items():
        last = name if name in layers else last
        if is_norm(module) and last in found and not _held(name, found):
            found[name] = module
    return {name: modules[name] for name in modules if name in found}


def load(model: nn.Module, path: Path, reinit: list[str]) -> None:
    """Put a file's weights into the network: a run's folder or checkpoint, or a state dict as torchvision's files hold it.

    What `reinit` names (a prefix of names) keeps the weights that model and init gave it. Raises ConfigError for a
    weight that the file does not have, or has in another shape.
    """
    path = path / "best.pt" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(
            f"transfer.file={path}: there is no such file; name a run's folder, its best.pt, a .pth or experiment=…"
        )
    content, _ = read(path, word="transfer.file", spare=False)
    given = content["model"] if isinstance(content.get("model"), dict) else content
    given = {name: tensor for name, tensor in given.items() if isinstance(tensor, Tensor)}
    wanted = model.state_dict()
    for name in reinit:
        if not any(key == name or key.startswith(name + ".") for key in wanted):
            known = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(f"transfer.reinit=[{name}]: the network has no such part; its parts: {known}")
    wanted = {key: own for key, own in wanted.items() if not any(key == n or key.startswith(n + ".") for n in reinit)}
    given = renamed(given, list(wanted))
    missing = [key for key in wanted if key not in given]
    unlike = [key for key in wanted if key in given and given[key].shape != wanted[key].shape]
    if missing or unlike:
        raise ConfigError(
            f"transfer.file={path}: "
            + "; ".join(
                f"{what} {', '.join(keys[:SHOWN])}{' …' * (len(keys) > SHOWN)}"
                for what, keys in (("has no", missing), ("has in another shape", unlike))
                if keys
            )
            + f"; leave new layers out by transfer.reinit=[{','.join(tops(missing + unlike))}]"
        )
    model.load_state_dict({key: given[key] for key in wanted}, strict=False)


def renamed(given: dict[str, Tensor], wanted: list[str]) -> dict[str, Tensor]:
    """The file's weights under our names: as they are, or with the prefix that fits most (`network.`, `module.`, …)."""
    prefixes = {""} | {key.removesuffix(name) for key in wanted for name in given if key.endswith("." + name)}
    stripped = {name[: -len(key)] for name in given for key in wanted if name.endswith("." + key)}
    candidates = [{prefix + name: tensor for name, tensor in given.items()} for prefix in sorted(prefixes)]
    candidates += [{name.removeprefix(prefix): tensor for name, tensor in given.items()} for prefix in sorted(stripped)]
    return max(candidates, key=lambda names: sum(key in names for key in wanted))


def tops(keys: list[str]) -> list[str]:
    """The layers of these weights, each once."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in keys))


def named(cfg: DictConfig) -> str | None:
    """What transfer.file says, if it is an experiment (`experiment=five_classes`, and further words) and no path."""
    file = cfg.transfer.get("file") if cfg.transfer else None
    return file if isinstance(file, str) and file.startswith("experiment=") and not Path(file).exists() else None


def untrained(cfg: DictConfig) -> DictConfig:
    """What can be built before the experiment that transfer.file names was run: the same network with its own weights."""
    if named(cfg) is None:
        return cfg
    cfg = cfg.copy()
    cfg.transfer.file, cfg.transfer.reinit = None, []
    return cfg


def begun(cfg: DictConfig, directory: Path) -> DictConfig:
    """What to build where a run's own weights may be: once they are, the file that they started from is not needed."""
    cfg = cfg.copy()
    if cfg.transfer and (any(directory.glob("last.pt*")) or (directory / "best.pt").exists()):
        cfg.transfer.file, cfg.transfer.reinit = None, []
    return cfg
