"""Nothing is built, imported or executed that the configuration was not allowed to name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT, composed
from omegaconf import OmegaConf

from plumbline.config import ConfigError, build, check_config, check_values, targets
from plumbline.targets import GROUPS, locate

SHIPPED = list(OmegaConf.load(ROOT / "conf/train.yaml").allow)
WRITE = "pathlib.Path.write_text"


def test_one_function_alone_instantiates() -> None:
    """Hydra's instantiate, call and get_method are used in one place, config.build."""
    pattern = r"\binstantiate\(|hydra\.utils|get_method\(|get_class\(|pickle\.|import_module\("
    lines = sorted(
        f"{file.name}: {line.strip()}"
        for file in sorted((ROOT / "src").rglob("*.py"))
        for line in file.read_text("utf-8").splitlines()
        if re.search(pattern, line)
    )
    assert lines == [
        "ahead.py: importlib.import_module(name)",  # names that are constants
        'config.py: bound = instantiate(plain, _partial_=True, _convert_="all")',
        "config.py: from hydra.utils import instantiate",
        "prepare.py: importlib.import_module(name)",  # installed packages that a rehearsal imported
        "targets.py: return importlib.import_module(module_name)",  # after its name has passed
        "targets.py: where = importlib.import_module(parent).__path__ if parent else None",
    ]


def test_every_node_of_a_configuration_is_checked() -> None:
    """All mappings with `_target_` in a composed configuration are among the nodes that check_config looks at."""
    cfg = composed(
        "search=tpe", "pruner=median", "tracker=[wandb]", "figures=[film]", "transfer=weights", "checks=full"
    )

    def walk(value) -> int:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return (isinstance(value, dict) and "_target_" in value) + sum(map(walk, inside))

    plain = OmegaConf.to_container(cfg, resolve=False)
    assert len(list(targets("", cfg))) == walk(plain) > 100
    for path, node in targets("", cfg):
        assert callable(locate(path, node["_target_"], SHIPPED)), path


PLACES = [
    "model.hidden",
    "search.sampler.startup",
    "pruner.more",
    "checks.data.leak.more",
    "step.more",
    "cluster.more",
    "space.more",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_node_nested_anywhere_is_refused(place: str) -> None:
    """A target that is not allowed is refused wherever its node stands, and build refuses it by itself."""
    cfg = composed("search=tpe")
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, place, [{"a": {"_target_": WRITE, "self": "x", "data": "x"}}], force_add=True)
    message = rf"{place}\[0\]\.a\._target_={WRITE}: lies outside"
    with pytest.raises(ConfigError, match=message):
        check_config(cfg)
    with pytest.raises(ConfigError, match=message):
        build(OmegaConf.select(cfg, place.rpartition(".")[0]))


HARMFUL = [
    "torch.hub.load", "torch.load", "torch.save", "torch.serialization.load", "torch.jit.load", "torch.ops.load_library",
    "torch.utils.cpp_extension.load", "torch.package.PackageImporter", "torch.distributed.run.main", "torch.nn.functional.linear",
    "torchvision.datasets.MNIST", "numpy.load", "pip._internal.main", "hydra.utils.call", "omegaconf.OmegaConf.load", "os.system",
    "builtins.exec", "urllib.request.urlretrieve", "functools.partial", "operator.methodcaller", "pickle.loads",
    "yaml.unsafe_load",
]  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_allow_does_not_reach_what_can_do_harm(name: str) -> None:
    """Even where `allow` names its whole package, or the function itself, it is no target."""
    top = name.partition(".")[0]
    for allow in ([*SHIPPED, top], [*SHIPPED, name]):
        if name == "torch.nn.functional.linear" and name in allow:
            continue
        with pytest.raises(ConfigError, match=f"model._target_={name}: "):
            locate("model", name, allow)


FOREIGN = [  # what is no component of the group at whose path it stands
    ("data", "plumbline.train.main"),
    ("model", "plumbline.files.write_text"),
    ("model", "plumbline.data.tabular.iris"),
    ("pruner", "plumbline.models.mlp.MLP"),
    ("tracker.x", "plumbline.first.train"),
    ("checks.data.x", "plumbline.snapshot.snapshot"),
    ("search.sampler", "plumbline.search.worker.main"),
]


@pytest.mark.parametrize(("path", "name"), FOREIGN)
def test_a_group_is_built_from_its_own_components(path: str, name: str) -> None:
    """A function of this package that is not a component of the group is refused, with the modules that are."""
    home = GROUPS[path.partition(".")[0]].homes[0]
    with pytest.raises(ConfigError, match=rf"{path}._target_={name}: is no component of this group; .*{home}"):
        locate(path, name, SHIPPED)


def test_a_target_that_cannot_be_called_is_refused() -> None:
    """A layer of torch's takes no spec, which every model is called with: one message instead of a TypeError."""
    cfg = composed()
    OmegaConf.set_struct(cfg, False)
    cfg.model = {"_target_": "torch.nn.Identity", "in_features": 3}
    assert check_config(cfg) is None  # takes anything
    cfg.model = {"_target_": "torch.nn.Flatten", "start_dim": 1}
    with pytest.raises(ConfigError, match=r"model._target_=torch.nn.Flatten: is called with \(spec\)"):
        check_config(cfg)


def test_an_interpolated_target_is_judged_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that another key or a variable spells is the same target."""
    monkeypatch.setenv("SPELLED", WRITE)
    for spelled in ("${oc.env:SPELLED}", "${name}"):
        cfg = composed(f"name={WRITE}")
        OmegaConf.set_struct(cfg, False)
        cfg.model = {"_target_": spelled}
        with pytest.raises(ConfigError, match=f"model._target_={WRITE}: lies outside"):
            check_values(cfg)


# --- the doors of a command ------------------------------------------------------------------------------------------

EVIL = "_target_: pathlib.Path.write_text, self: {_target_: pathlib.Path, _args_: ['DONE']}, data: x"
PART = "# @package _global_\nhydra: {%s}\n"
FILES = {  # option file -> (content, words that choose it)
    "pruner/evil": ("_target_: plumbline.search.pruners.median\ntrials: {EVIL}\nepochs: 1\n", "pruner=evil"),
    "search/evil": ("defaults: [tpe, _self_]\nsampler: {startup: {EVIL}}\n", "search=evil"),
    "experiment/model": ("# @package _global_\nmodel: {more: [{EVIL}]}\n", "experiment=model"),
    "experiment/wide": ("# @package _global_\nallow: [pathlib]\npruner: {x: {EVIL}}\n", "experiment=wide"),
    "experiment/callback": (PART % "callbacks: {x: {EVIL}}", "experiment=callback"),
    "experiment/logger": (
        PART % "job_logging: {version: 1, root: {handlers: [h]}, handlers: {h: {(): os.system, command: touch DONE}}}",
        "experiment=logger",
    ),
    "experiment/variable": (PART % "job: {env_set: {PYTHONSTARTUP: DONE}}", "experiment=variable"),
    "experiment/sweeper": (PART % "sweeper: {EVIL}", "experiment=sweeper"),
}  # fmt: skip
DOORS = [["-m", "seed=0,1", "search.workers=0"], ["--info", "config"], []]


@pytest.mark.parametrize("name", FILES)
def test_an_option_file_executes_nothing(name: str, train, tmp_path: Path) -> None:
    """Under -m, in a single run and where the configuration is only shown: one message, and no file is made."""
    content, word = FILES[name]
    file = tmp_path / "lab/conf" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content.replace("EVIL", EVIL).replace("DONE", str(tmp_path / "done")))
    plugin = tmp_path / "lab/conf/hydra_plugins/evil.py"
    plugin.parent.mkdir()
    plugin.write_text(f"open({str(tmp_path / 'done')!r}, 'w')\n")
    (tmp_path / "lab/conf/numpy.py").write_text(plugin.read_text())
    for door in DOORS:
        if (door != DOORS[0] and not name.startswith("experiment")) or ("--info" in door and "hydra: " not in content):
            continue
        done = train("--config-dir=lab/conf", word, "data=iris", "epochs=1", *door)
        assert (done.returncode, done.stderr.count("\n"), done.stderr[:11]) == (2, 1, "plumbline: "), (
            door,
            done.stderr,
        )
        assert not (tmp_path / "done").exists()
    assert not (tmp_path / "outputs").exists()
