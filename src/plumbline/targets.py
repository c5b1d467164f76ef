"""What a configuration may build: the names that `_target_` may have, group by group.

A target must lie in a package that `allow` names, must not be one that can run programs or touch files, and must be the
kind of object that its group wants. Nothing is imported before its name has passed.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import sysconfig
import typing
from dataclasses import dataclass
from typing import Any

from plumbline.errors import ConfigError, nearest, place


@dataclass(frozen=True)
class Group:
    """Where the components of a group live in this package, and the runtime objects that one is called with."""

    homes: tuple[str, ...]
    runtime: tuple[str, ...] = ()


GROUPS = {
    "data": Group(("plumbline.data",)),
    "model": Group(("plumbline.models",), ("spec",)),
    "loss": Group(("plumbline.losses",), ("spec",)),
    "optimiser": Group(("plumbline.optimisers",), ("model",)),
    "schedule": Group(("plumbline.schedules",), ("progress", "scores")),
    "init": Group(("plumbline.init",), ("model", "prior")),
    "step": Group(("plumbline.loop", "plumbline.steps"), ("training", "batches")),
    "transfer": Group(("plumbline.transfer",), ("model",)),
    "regulariser": Group(("plumbline.regularisers",), ("spec",)),
    "augment": Group(("plumbline.augment",), ("x", "generator")),
    "tracker": Group(("plumbline.trackers",), ("directory", "configuration", "run")),
    "figures": Group(("plumbline.seeing",)),
    "checks": Group(("plumbline.checks",), ("subject",)),
    "search": Group(("plumbline.search.study", "plumbline.search.samplers")),
    "pruner": Group(("plumbline.search.pruners",)),
}
DENIED = (  # beside all of Python's own library: what runs programs, unpickles, downloads, or touches files
    "IPython", "_distutils_hack", "cloudpickle", "dill", "fsspec", "huggingface_hub", "hydra", "jinja2", "joblib", "numpy",
    "omegaconf", "optuna", "pandas.io", "pip", "pkg_resources", "psutil", "requests", "setuptools", "sqlalchemy", "tensorboard",
    "torch._dynamo", "torch._inductor", "torch.classes", "torch.compile", "torch.cuda", "torch.distributed", "torch.export",
    "torch.from_file", "torch.fx", "torch.hub", "torch.jit", "torch.library", "torch.load", "torch.monitor",
    "torch.multiprocessing", "torch.onnx", "torch.ops", "torch.package", "torch.profiler", "torch.save", "torch.serialization",
    "torch.storage", "torch.testing", "torch.utils", "torchvision.datasets", "torchvision.io", "urllib3", "wandb", "yaml",
)  # fmt: skip


def within(name: str, prefixes: tuple[str, ...] | list[str]) -> bool:
    """Whether a dotted name is one of the prefixes, or lies below one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def allowed(path: str, name: str, allow: list[str], home: str | None = None) -> None:
    """Raise ConfigError unless the dotted name, or the module that defines it, may be a target at that path.

    path: of the node in the configuration, such as `model` or `search.sampler`. Imports nothing.
    """
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{path}._target_={name}: must be a dotted path, such as package.module.Name")
    where = home or name
    borrowed = f"is borrowed from {home}, which " if home else ""
    if where.partition(".")[0] in sys.stdlib_module_names or within(where, DENIED):
        raise ConfigError(
            f"{path}._target_={name}: {borrowed}lies outside the packages that may be used ({', '.join(allow)}) and is "
            "never a target: it can run programs or touch files; write a function of your own that uses it"
        )
    if not within(where, allow):
        raise ConfigError(
            f"{path}._target_={name}: {borrowed}lies outside the packages that may "
            f"be used ({', '.join(allow)}); if you trust it, say 'allow=[{','.join([*allow, where.partition('.')[0]])}]' "
            "or add it to allow in conf/train.yaml"
        )
    if within(where, ["plumbline"]) and not within(where, homes := homes_of(path)):
        raise ConfigError(
            f"{path}._target_={name}: {borrowed}is no component of this group; its own are in {', '.join(homes)}"
        )


def homes_of(path: str) -> tuple[str, ...]:
    """The modules of this package that a target at a path may come from; of a path without a group, those of all."""
    group = GROUPS.get(path.partition(".")[0].partition("[")[0])
    return group.homes if group is not None else tuple(home for each in GROUPS.values() for home in each.homes)


def locate(path: str, name: str, allow: list[str]) -> Any:
    """The class or function of a dotted name that may be a target at that path, wherever it was imported from."""
    allowed(path, name, allow)
    module_name, _, attribute = name.rpartition(".")
    module = _imported(path, name, module_name)
    if not hasattr(module, attribute):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"{path}._target_={name}: {module_name} has no {attribute}{nearest(attribute, public)}")
    target = getattr(module, attribute)
    home = getattr(target, "__module__", None) or module_name
    if callable(target) and home != module_name:
        allowed(path, name, allow, home)
    if not (inspect.isclass(target) or inspect.isroutine(target) or hasattr(target, "__wrapped__")):
        raise ConfigError(f"{path}._target_={name}: is not a function or class")
    if _is_installed(home) and name not in allow and not _is_network_part(target):
        raise ConfigError(
            f"{path}._target_={name}: is neither a class of networks or optimisers nor a function annotated to return one; "
            f"if you trust it, name it in full: 'allow=[{','.join([*allow, name])}]'"
        )
    return target


def _imported(path: str, name: str, module_name: str) -> Any:
    if module_name in sys.modules:
        return sys.modules[module_name]
    try:
        importlib.invalidate_caches()  # a module written a moment ago is there, too
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not (module_name == missing or module_name.startswith(missing + ".")):
            why = f"{module_name} imports {missing}, which is not installed{place(error)}"
        else:
            why = (
                f"there is no module {missing}{_modules_near(missing)}; it is looked for on PYTHONPATH, in the current "
                "folder, in the --config-dir and in the folder that holds it"
            )
        raise ConfigError(f"{path}._target_={name}: {why}") from error
    except SyntaxError as error:
        raise ConfigError(f"{path}._target_={name}: {error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever a module may do when it is imported
        why = f"importing {module_name} failed: {type(error).__name__}: {error}{place(error)}"
        raise ConfigError(f"{path}._target_={name}: {why}") from error


def _is_installed(module_name: str) -> bool:
    """Whether a module is an installed package's: neither this package's nor the user's own code."""
    file = getattr(sys.modules.get(module_name), "__file__", None)
    folders = {sysconfig.get_path(key) for key in ("purelib", "platlib", "stdlib")}
    outside = file is not None and not any(file.startswith(folder + "/") for folder in folders)
    return not within(module_name, ["plumbline"]) and not outside and module_name != "__main__"


def _is_network_part(target: Any) -> bool:
    """Whether a class or function of an installed package gives a network, a layer of one, or an optimiser."""
    from torch import nn, optim

    if not inspect.isclass(target):
        try:
            target = typing.get_type_hints(target).get("return")
        except Exception:  # a name that only a type checker sees
            return False
    return inspect.isclass(target) and issubclass(target, (nn.Module, optim.Optimizer))


def runtime_of(path: str) -> tuple[str, ...]:
    """The runtime objects that a node at a path is called with; a node inside another node gets none."""
    name, *below = path.split(".")
    depth = {"checks": 2, "regulariser": 1, "augment": 1, "tracker": 1, "figures": 1}.get(name, 0)
    group = GROUPS.get(name)
    return group.runtime if group is not None and len(below) == depth and "[" not in path else ()


def check_call(path: str, name: str, target: Any, given: dict[str, Any]) -> None:
    """Raise ConfigError unless a target can be called with its group's runtime objects and the keys of its node."""
    runtime = runtime_of(path)
    try:
        inspect.signature(target).bind(*runtime, **given)
    except ValueError:  # of a function in C: nothing can be known
        return
    except TypeError as error:
        objects = f"({', '.join(runtime)})" if runtime else "nothing"
        raise ConfigError(
            f"{path}._target_={name}: is called with {objects} and the keys of its option, which it does not take ({error})"
        ) from error


def _modules_near(name: str) -> str:
    """The closest importable module to a mistyped one, among those beside it."""
    parent, _, last = name.rpartition(".")
    try:
        where = importlib.import_module(parent).__path__ if parent else None
    except (ImportError, AttributeError):
        return ""
    return nearest(last, [item.name for item in pkgutil.iter_modules(where)])
