"""Option files, configurations and folders of a stranger that try to run something; each attempt would leave a mark."""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import yaml
from fuzz_damage import BOMB, RUN, STUDY
from fuzz_process import Ended, Result, command, fresh_folder, make_canaries, move_template, snapshot, touched
from fuzz_words import tree

MARK = "CANARY"
SLOW_SECONDS = 5  # of processor, for a file that is to be refused: start-up and 2 s, on a busy machine
TOUCH = "import os; open(os.environ['MARKED'] + '-{name}', 'w').close()\n"
SHADOWS = [  # modules that a stranger's folder may hold: installed ones, the standard library's, ours
    "yaml", "torch", "numpy", "hydra", "omegaconf", "plumbline", "sitecustomize", "usercustomize", "optuna",
    "sklearn", "rich",
    "matplotlib", "secrets", "json", "resource", "difflib", "zipfile", "jinja2", "PIL", "tensorboard",
    "cmaes", "platform",
    "hydra_plugins.evil", "hydra_plugins.plumbline_study", "antlr4", "fcntl", "psycopg", "mnist1d",
    "plumbline.models.mlp",
]  # fmt: skip


def targets(here: Path) -> list[dict[str, Any]]:
    """Nodes that would leave a mark if anything instantiated them."""
    mark, evil = str(here / MARK), here / "evil"
    write = {"_target_": "pathlib.Path.write_text", "self": {"_target_": "pathlib.Path", "_args_": [mark]}, "data": "x"}
    touch, code = ["touch", mark], f"open({mark!r}, 'w').close()"
    file = (evil / "text").as_uri()
    return [
        {"_target_": "os.system", "command": f"touch {mark}"}, write,
        {"_target_": "pathlib.Path.touch", "self": write},
        {"_target_": "torch.hub.load", "repo_or_dir": str(evil), "model": "evil", "source": "local"},
        {"_target_": "torch.hub.load", "repo_or_dir": str(evil), "model": "evil", "source": "local",
            "trust_repo": True},
        {"_target_": "torch.load", "f": str(evil / "weights.pt"), "weights_only": False},
        {"_target_": "torch.serialization.load", "f": str(evil / "weights.pt"), "weights_only": False},
        {"_target_": "builtins.exec", "_args_": [code]}, {"_target_": "builtins.eval", "_args_": [code]},
        {"_target_": "subprocess.run", "args": touch}, {"_target_": "subprocess.Popen", "args": touch},
        {"_target_": "subprocess.check_output", "_args_": [touch]},
        {"_target_": "os.popen", "cmd": f"touch {mark}"},
        {"_target_": "functools.partial", "_args_": [write]},
        {"_target_": "functools.reduce", "_args_": [write, [1, 2]]},
        {"_target_": "operator.methodcaller", "_args_": ["write_text", "x"]},
        {"_target_": "operator.call", "_args_": [write]},
        {"_target_": "importlib.import_module", "name": "evil_module"}, {"_target_": "evil_module.anything"},
        {"_target_": "runpy.run_path", "path_name": str(evil / "hubconf.py")},
        {"_target_": "runpy.run_module", "mod_name": "evil_module"},
        {"_target_": "pickle.load", "file": {"_target_": "builtins.open",
            "_args_": [str(evil / "weights.pkl"), "rb"]}},
        {"_target_": "numpy.load", "file": str(evil / "array.npy"), "allow_pickle": True},
        {"_target_": "urllib.request.urlretrieve", "url": file, "filename": mark},
        {"_target_": "pip._internal.main", "args": ["download", "--no-index", "-d", mark, "x"]},
        {"_target_": "plumbline.train.main"}, {"_target_": "plumbline.evaluate.main"},
        {"_target_": "plumbline.search.worker.main"},
        {"_target_": "plumbline.files.write_text", "path": mark, "text": "x"},
        {"_target_": "plumbline.files.write_text", "path": {"_target_": "pathlib.Path", "_args_": [mark]},
            "text": "x"},
        {"_target_": "plumbline.files.write_json", "path": mark, "content": 1},
        {"_target_": "plumbline.first.train"},
        {"_target_": "plumbline.snapshot.snapshot", "folder": mark},
        {"_target_": "plumbline.run.run_to_the_end"},
        {"_target_": "plumbline.contract.importlib.import_module", "name": "evil_module"},
        {"_target_": "plumbline.contract.Any"},
        {"_target_": "plumbline.train.OmegaConf.save", "config": {}, "f": mark},
        {"_target_": "plumbline.train.sys.exit"},
        {"_target_": "plumbline.config.build", "node": write},
        {"_target_": "plumbline.search.launch.subprocess.Popen", "args": touch},
        {"_target_": "plumbline.stages.run_stage", "folder": mark, "words": []},
        {"_target_": "plumbline.state.write", "content": {}, "path": mark},
        {"_target_": "torch.nn.modules.module.functools.partial", "_args_": [write]},
        {"_target_": "torch.nn.modules.module.OrderedDict"},
        {"_target_": "torch.nn.modules.module.namedtuple", "typename": "x", "field_names": "y"},
        {"_target_": "torch.optim.optimizer.deepcopy", "x": 1},
        {"_target_": "torch.optim.lr_scheduler.warnings.warn", "message": "x"},
        {"_target_": "torch.ops.load_library", "path": str(evil / "evil.so")},
        {"_target_": "torch.classes.load_library", "path": "x"},
        {"_target_": "torch.utils.cpp_extension.load", "name": "evil", "sources": [str(evil / "evil.cpp")]},
        {"_target_": "torch.jit.load", "f": str(evil / "weights.pt")},
        {"_target_": "torch.save", "obj": 1, "f": mark},
        {"_target_": "torch.package.PackageImporter", "file_or_buffer": str(evil / "weights.pt")},
        {"_target_": "torch.hub.download_url_to_file", "url": file, "dst": mark},
        {"_target_": "torch.utils.model_zoo.load_url", "url": file, "model_dir": mark},
        {"_target_": "torch.utils.collect_env.run", "command": touch},
        {"_target_": "torch.os.system", "command": f"touch {mark}"},
        {"_target_": "torch.distributed.launch.main", "args": touch},
        {"_target_": "torch.storage.io.open", "_args_": [mark, "w"]},
        {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"},
        {"_target_": "torchvision.models.get_model", "name": "resnet18"},
        {"_target_": "torchvision.models._api.importlib.import_module", "name": "evil_module"},
        {"_target_": "torchvision.models.resnet.partial", "_args_": [write]},
        {"_target_": "torchvision.datasets.MNIST", "root": mark, "download": True},
        {"_target_": "matplotlib.pyplot.savefig", "fname": mark},
        {"_target_": "logging.FileHandler", "filename": mark},
        {"_target_": "shutil.rmtree", "path": str(here / "mine")},
        {"_target_": "shutil.copy", "src": str(evil / "text"), "dst": mark},
        {"_target_": "builtins.open", "file": mark, "mode": "w"},
        {"_target_": "io.open", "file": mark, "mode": "w"},
        {"_target_": "os.mkdir", "path": mark}, {"_target_": "os.unlink",
            "path": str(here / "mine" / "notes.txt")},
        {"_target_": "os._exit", "status": 0}, {"_target_": "sys.exit", "_args_": [0]},
        {"_target_": "ctypes.CDLL", "name": str(evil / "evil.so")},
        {"_target_": "hydra.utils.instantiate", "config": write},
        {"_target_": "hydra.utils.get_method", "path": "os.system"},
        {"_target_": "hydra.utils.call", "config": write, "_recursive_": False},
        {"_target_": "yaml.unsafe_load", "stream": "!!python/name:os.system"},
        {"_target_": "wandb.init", "dir": mark}, {"_target_": "logging.config.fileConfig",
            "fname": str(evil / "log.ini")},
        {"_target_": "tempfile.mkdtemp", "prefix": MARK, "dir": str(here)},
        {"_target_": "socket.create_connection", "address": ["127.0.0.1", 9]},
        {"_target_": "sklearn.datasets.fetch_openml", "data_home": mark, "name": "iris"},
        {"_target_": "multiprocessing.Process", "target": write},
    ]  # fmt: skip


def wrapped(rng: random.Random, node: dict[str, Any]) -> Any:
    """The node as it is, or within what may be used, or in words of Hydra's."""
    kind = rng.randrange(12)
    if kind == 0:
        return node | {"_partial_": True}
    if kind == 1:
        return node | {"_recursive_": False, "_convert_": "all"}
    if kind == 2:
        return {"_target_": "torch.nn.Sequential", "_args_": [node]}
    if kind == 3:
        return {"_target_": "plumbline.models.mlp.MLP", "hidden": [node], "norm": "none", "activation": "relu"}
    if kind == 4:
        return [node, [node]]
    if kind == 5:
        return node | {"_target_": "${oc.env:EVIL_TARGET}"}
    if kind == 6:
        return node | {"_target_": "${question}"}
    if kind == 7:
        return {"a": {"b": {"c": [{"d": node}]}}}
    if kind == 8:
        return {"_target_": "torch.optim.AdamW", "lr": node, "_call_": True}
    return node


PLACES = [
    "model", "model.hidden", "model.x", "data", "data.split_seed", "data.x", "loss", "loss.x", "optimiser",
    "optimiser.lr",
    "optimiser.options", "schedule", "schedule.x", "init", "step", "step.x", "transfer", "transfer.file",
    "regulariser.x",
    "regulariser", "augment.x", "tracker.x", "tracker.tensorboard", "figures.x", "figures.filters",
    "checks.data.x",
    "checks.baselines.x", "checks.mute", "checks.samples", "checks", "search.sampler", "search.sampler.x",
    "search", "pruner",
    *["pruner.key", "search.key"] * 5,
    "pruner.x", "pruner.wrapped.x", "space.x", "space", "search.also", "search.storage", "launcher.x",
    "cluster.x", "resources.x",
    "batch_size", "name", "allow", "seed", "snapshots", "hydra.callbacks.x", "hydra.sweeper",
    "hydra.launcher", "hydra.sweeper.x",
    "hydra.job_logging", "hydra.hydra_logging", "hydra.job.env_set", "hydra.run.dir", "hydra.output_subdir",
    "hydra.help", "hydra.x",
]  # fmt: skip


def put(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The mapping with a value at a dotted path."""
    first, _, rest = path.partition(".")
    inner = content.get(first)
    return content | {first: put(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


def logging_with(rng: random.Random, here: Path, node: dict[str, Any]) -> dict[str, Any]:
    """A configuration of logging whose handler is a file, or a factory."""
    handler: dict[str, Any] = {"class": "logging.FileHandler", "filename": str(here / MARK)}
    if rng.random() < 0.6:
        rest = {key: value for key, value in node.items() if not key.startswith("_")}
        handler = {rng.choice(["()", "class"]): node["_target_"], **rest}
    return {
        "version": 1,
        "handlers": {"h": handler},
        "root": {"handlers": ["h"], "level": "DEBUG"},
        "disable_existing_loggers": False,
    }


def hostile(rng: random.Random, here: Path, number: int) -> tuple[str, dict[str, Any], str]:
    """(place, content of a global option file, dotted target)."""
    known = targets(here)
    node = known[(number * 7) % len(known)]
    place = rng.choice(PLACES)
    content: dict[str, Any] = {}
    if place in ("hydra.job_logging", "hydra.hydra_logging"):
        content = put({}, place, logging_with(rng, here, node))
    elif place == "hydra.run.dir":
        content = put(
            {}, place, rng.choice([str(here / "mine"), str(here.parent / "home" / MARK), "../../x", "mine/below"])
        )
    elif place == "hydra.output_subdir":
        content = put({}, place, rng.choice(["../mine", str(here / "mine"), "."]))
    elif place == "hydra.job.env_set":
        content = put({}, place, {"PYTHONSTARTUP": "x", "LD_PRELOAD": "x", "PATH": str(here / "evil")})
    elif place in ("pruner.key", "search.key"):
        group = place.partition(".")[0]
        option = rng.choice([name for name in sorted(tree()[group]) if tree()[group][name]])
        keys = [
            key for key in tree()[group][option] if "_target_" not in key and (group == "pruner" or "sampler" in key)
        ]
        key = rng.choice(keys or ["sampler.seed" if group == "search" else "x"])
        content = put({"defaults": [{f"override /{group}": option}]}, f"{group}.{key}", wrapped(rng, node))
    elif place == "allow":
        content = {
            "allow": ["plumbline", "torch", "os", "pathlib", "builtins", node["_target_"].partition(".")[0]],
            "model": node,
        }
    else:
        content = put({}, place, wrapped(rng, node))
    if "${question}" in json.dumps(content):
        content["question"] = node["_target_"]
    if rng.random() < 0.2:
        content["allow"] = ["plumbline", "torch.nn", "torch.optim", node["_target_"].partition(".")[0]]
    return place, content, node["_target_"]


def written_by_a_stranger(here: Path) -> None:
    """What the targets would load: modules, weights and arrays that leave a mark."""
    evil = here / "evil"
    evil.mkdir()
    (evil / "hubconf.py").write_text(TOUCH.format(name="hub") + "def evil(*a, **k): pass\n")
    (here / "lab" / "conf" / "evil_module.py").write_text(TOUCH.format(name="module") + "def anything(*a, **k): pass\n")
    (evil / "text").write_text("x")
    (evil / "evil.so").write_text("x")
    (evil / "evil.cpp").write_text("int x;")
    parts = ["[loggers]\nkeys=root", "[handlers]\nkeys=h", "[formatters]\nkeys=", "[logger_root]\nhandlers=h"]
    parts.append(f"[handler_h]\nclass=FileHandler\nargs=({str(here / MARK)!r},)\n")
    (evil / "log.ini").write_text("\n".join(parts))

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {here / MARK}-pickle",)

    import numpy as np

    (evil / "weights.pkl").write_bytes(pickle.dumps(Payload(), 2))
    (evil / "weights.pt").write_bytes(pickle.dumps(Payload(), 2))
    np.save(evil / "array.npy", np.array([Payload()], dtype=object), allow_pickle=True)


def save(path: Path, content: Any, head: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + (content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True)))


NO_OPTIONS = [word for word in RUN if not word.startswith(("model.", "checks="))]
SMALL_STUDY = ["-m", "study=new", "search.n_trials=1", "optimiser.lr=0.01,0.02"]


def by_option_file(rng: random.Random, here: Path, content: dict[str, Any], place: str) -> list[tuple[str, list[str]]]:
    """An experiment or another option, in a folder of --config-dir or the `experiment/` of a study."""
    group = place.partition(".")[0]
    folder, lab = here / "lab" / "conf", "--config-dir=lab/conf"
    words = ["experiment=evil"]
    if rng.random() < 0.25:
        folder, lab = here / "outputs" / "studies" / "new", "--config-dir=outputs/studies/new"
        words = ["experiment=best"]
        save(folder / "experiment" / "best.yaml", content, "# @package _global_\n")
    elif (
        rng.random() < 0.3
        and group in ("model", "pruner", "search", "optimiser", "data", "step", "schedule")
        and group in content
    ):
        inner = content[group] if isinstance(content[group], dict) else {"x": content[group]}
        base = {
            "pruner": "asha",
            "search": "tpe",
            "data": "iris",
            "model": "mlp",
            "optimiser": "adamw",
            "step": "sam",
            "schedule": "cosine",
        }
        save(folder / group / "evil.yaml", {"defaults": [base[group], "_self_"], **inner}, "# Evil.\n")
        words = [f"{group}=evil"]
    else:
        save(folder / "experiment" / "evil.yaml", content, "# @package _global_\n")
    allow = rng.choice([[], [], ["allow=[plumbline,torch]"], ["allow=[plumbline,torch,torchvision]"]])
    if group in ("regulariser", "augment", "tracker", "figures"):
        words += rng.choice([[], [f"{group}=[]"]])
    both = [
        lab,
        *words,
        *allow,
        *(word for word in NO_OPTIONS if not word.startswith(f"{words[0].partition('=')[0]}=")),
    ]
    single = [("train", both), ("train", [*both, "--cfg", "job"]), ("train", [*both, "--cfg", "job", "--resolve"])]
    shown = [
        ("train", [*both, "--cfg", rng.choice(["hydra", "all"])]),
        ("train", [*both, "--info", rng.choice(["all", "defaults"])]),
    ]
    studies = [("train", [*both, *SMALL_STUDY, "search.workers=0"])]
    if rng.random() < 0.4:
        studies.append(
            ("train", [*both, *SMALL_STUDY, "search.workers=1", *rng.choice([[], ["search=tpe"], ["pruner=asha"]])])
        )
    launched = [("train", [*both, "launcher=slurm", "cluster=generic", "resources=cpu", "launcher.dry_run=true"])]
    return [*single, rng.choice(shown), *studies, *launched]


def by_folder_of_a_run(
    rng: random.Random, here: Path, content: dict[str, Any], place: str
) -> list[tuple[str, list[str]]]:
    """config.yaml, overrides.yaml or run.json of a run that a stranger gives away."""
    for run in ("run", "stopped"):
        file = here / run / "config.yaml"
        base = yaml.safe_load(file.read_text())
        for key, value in content.items():
            base[key] = base[key] | value if isinstance(base.get(key), dict) and isinstance(value, dict) else value
        file.write_text(yaml.safe_dump(base))
        if rng.random() < 0.3:
            save(here / run / "overrides.yaml", ["--config-dir=lab/conf", "experiment=evil", "allow=[os]"])
    if rng.random() < 0.3:
        for weights in ("best.pt", "last.pt", "last.pt.before"):
            (here / "stopped" / weights).write_bytes((here / "evil" / "weights.pt").read_bytes())
    return [("train", ["resume=stopped"]), ("evaluate", ["run=run", "on=val"]),
        ("train", [*RUN, "parent=run", "hydra.run.dir=new"]),
            ("train", [*RUN, "transfer=weights", "transfer.file=run"]), ("diagnose", ["run"]),
            ("journal", ["."]), ("compare", ["run", "other"]),
            ("evaluate", ["run=other", "on=val", "beside=[run]"]),
            ("stages", ["st", *RUN, "/", "transfer=weights", "transfer.file=run", "/",
                "seed=2"])]  # fmt: skip


def by_study(rng: random.Random, here: Path, content: dict[str, Any], place: str) -> list[tuple[str, list[str]]]:
    """study.yaml with the node in it, or words of a study that name the stranger's files."""
    file = here / "outputs" / "studies" / "half" / "study.yaml"
    base = yaml.safe_load(file.read_text())
    node = content[place.partition(".")[0]]
    for key in rng.sample(
        ["search.sampler", "pruner", "search", "space", "fixed", "config_dirs", "storage", "cwd", "space.0"], 2
    ):
        if key in ("fixed", "config_dirs"):
            base[key] = (
                ["allow=[os,pathlib,builtins,torch]", f"model={json.dumps(node)}"]
                if key == "fixed"
                else [str(here / "evil")]
            )
        elif key == "space.0":
            base["space"] = [node]
        else:
            base = put(base, key, node)
    file.write_text(yaml.safe_dump(base))
    going_on = [*STUDY, "study=half", "search.n_trials=2"]
    return [("train", going_on), ("status", ["study=half"]), ("status", ["study=half", "--report"]),
        ("worker", ["study=half"]),
            ("compare", ["outputs/studies/half"]), ("journal", ["outputs"])]  # fmt: skip


DEFAULTS = [
    [{"/hydra/callbacks": "evil"}], ["/etc/passwd"], ["../../../etc/passwd"], ["pkg://evil_module"],
    [{"override /hydra/job_logging": "evil"}],
    [{"override /hydra/sweeper": "evil"}], [{"override /hydra/launcher": "evil"}],
    [{"/model": "../../../evil"}], ["evil"], ["/experiment/evil"],
    [{"/hydra/env": "evil"}], [{"override /hydra/hydra_logging": "evil"}], [{"/x@_global_": "evil"}],
    [{"/model@hydra.callbacks.x": "evil"}],
    "text", [[["a"]]], [1], {"a": 1}, [{"a": {"b": 1}}], ["${oc.env:HOME}"], [{"${oc.env:HOME}": "x"}],
]  # fmt: skip


def by_defaults(rng: random.Random, here: Path, content: dict[str, Any], place: str) -> list[tuple[str, list[str]]]:
    """A defaults list that reaches elsewhere, with a hostile file where it leads."""
    folder, node = here / "lab" / "conf", targets(here)[rng.randrange(3)]
    save(folder / "experiment" / "evil.yaml", {"defaults": rng.choice(DEFAULTS), "seed": 1}, "# @package _global_\n")
    for group in ("callbacks", "job_logging", "hydra_logging", "sweeper", "launcher", "env"):
        body = logging_with(rng, here, node) if "logging" in group else {"x": node} if group == "callbacks" else node
        save(folder / "hydra" / group / "evil.yaml", body)
    save(folder / "x" / "evil.yaml", content)
    save(folder / "model" / "evil.yaml", node)
    both = ["--config-dir=lab/conf", "experiment=evil", *RUN]
    return [("train", both), ("train", [*both, "--cfg", "job"]), ("train", [*both, "--info", "all"]),
        ("train", [*both, *SMALL_STUDY, "search.workers=0"]),
            ("train", [*both, "hydra/callbacks=evil"]), ("train", [*both,
                "hydra/job_logging=evil"])]  # fmt: skip


def by_shadows(rng: random.Random, here: Path, content: dict[str, Any], place: str) -> list[tuple[str, list[str]]]:
    """Modules with the names of others, in the folder of option files and beside it."""
    for name in [*rng.sample(SHADOWS, 9), "hydra_plugins.evil", "sitecustomize"]:
        for folder in (here / "lab" / "conf", here / "lab"):
            parts = name.split(".")
            file = folder.joinpath(*parts[:-1]) / rng.choice([f"{parts[-1]}.py", f"{parts[-1]}/__init__.py"])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(TOUCH.format(name=name))
    save(here / "lab" / "conf" / "experiment" / "evil.yaml", {"seed": 1}, "# @package _global_\n")
    return [("train", ["--config-dir=lab/conf", "experiment=evil", *RUN]),
        ("train", ["--config-dir=lab/conf", "--cfg", "job"]),
            ("train", ["hydra.searchpath=[file://lab/conf]", "--cfg", "job",
                "optimiser.lr=abc"])]  # fmt: skip


def bombs() -> list[str]:
    return [
        BOMB, "model:\n  hidden: &a [1,1,1,1,1,1,1,1,1]\n  x: " + "[" * 3000 + "]" * 3000, "a: &a {b: *a}\n",
        "model: {hidden: " + "{a: " * 400 + "1" + "}" * 400 + "}\n",
        "question: " + "${question}" * 2000, "name: ${question}\nquestion: ${name}\n",
        "question: " + "".join(f"${{oc.env:X{k},a}}" for k in range(3000)),
        "question: \"\\e[2J\\a\\b\"\nname: \"\\r\"\n", "? \"\\e[31mkey\"\n: 1\n",
        "model:\n  \"\\e]0;x\\a\": 1\n", "experiment: evil\n", "defaults: [evil]\n",
        "model: {_target_: plumbline.train.main}\ndata: {_target_: plumbline.train.main}\n",
        "allow: " + "[" * 200 + "]" * 200, "seed: !!python/object/apply:os.system [touch x]\n",
        "seed: !!binary aGk=\n", "seed: 2001-01-01\n", "1: 2\n", "null: 3\n", "[a]: 3\n",
        "seed: 0b1\nepochs: 1_0\n", "a: b: c\n", "\t- x\n", "question: " + "x" * 3_000_000, "data.root: x\n",
        "model: {hidden: [" + ",".join(["8"] * 200_000) + "]}\n", "- a\n- b\n", "text\n", "3\n",
        "--- a\n--- b\n", "'\\0'", "checks: {mute: &m [a, *m]}\n",
    ]  # fmt: skip


def by_bomb(rng: random.Random, here: Path, content: dict[str, Any], place: str) -> list[tuple[str, list[str]]]:
    """Files that are small and large at once, deep, endless or full of control characters."""
    bomb = rng.choice(bombs())
    save(here / "lab" / "conf" / "experiment" / "evil.yaml", bomb, "# @package _global_\n")
    save(here / "stopped" / "config.yaml", bomb)
    save(here / "outputs" / "studies" / "half" / "study.yaml", bomb)
    for file in ("run.json", "metrics.jsonl"):
        save(
            here / "run" / file,
            rng.choice(
                [
                    "[" * 100_000,
                    '{"a":' * 50_000 + "1" + "}" * 50_000,
                    '"\\u001b[2J"',
                    '{"status": "\\u001b[2J"}',
                    "9" * 5000,
                ]
            ),
        )
    both = ["--config-dir=lab/conf", "experiment=evil", *RUN]
    return [("train", both), ("train", [*both, "--cfg", "job", "--resolve"]),
        ("train", [*both, *SMALL_STUDY, "search.workers=0"]), ("train", ["resume=stopped"]),
            ("status", ["study=half"]), ("journal", ["."]), ("compare", ["run", "other"]),
            ("diagnose", ["run/metrics.jsonl"]), ("train", [*RUN, "parent=run"])]  # fmt: skip


DOORS = (
    [by_option_file] * 10
    + [by_folder_of_a_run] * 4
    + [by_study] * 2
    + [by_defaults] * 2
    + [by_shadows] * 2
    + [by_bomb] * 4
)


def marks(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob(f"{MARK}*")]


def attempt(seed: int, template: Path, was: Path, number: int, place: Path) -> Result:
    """One hostile file, and the commands that meet it."""
    rng = random.Random(f"hostile {seed} {number}")
    here = fresh_folder(place, move_template(template, place, was))
    make_canaries(here / "mine")
    written_by_a_stranger(here)
    door = DOORS[number % len(DOORS)]
    where, content, target = hostile(rng, here, number)
    commands = door(rng, here, content, where)
    before, result = snapshot(here / "mine"), Result(number)
    note = (
        f"{door.__name__} {where} {target}" if door in (by_option_file, by_folder_of_a_run, by_study) else door.__name__
    )
    for name, words in commands:
        heavy = name in ("worker", "stages") or "search.workers=1" in words
        more = {"MARKED": str(here / MARK), "EVIL_TARGET": target}
        ended = command(name, words, here, door is by_shadows, 60 if heavy else 12, **more)
        result.add(ended, note)
        judge(result, ended, note, heavy, here, place, before)
        before = snapshot(here / "mine")
    return result


def judge(
    result: Result, ended: Ended, note: str, heavy: bool, here: Path, place: Path, before: dict[str, Any]
) -> None:
    """What only a hostile file can do."""
    if left := marks(here, place / "home"):
        result.note("executed", ended.line, f"made {', '.join(path.name for path in left)[:100]}", note=note)
        for path in left:
            path.unlink() if path.is_file() or path.is_symlink() else os.rename(path, path.with_name(f"was{path.name}"))
    if wrong := touched(before, here / "mine"):
        result.note("user files touched", ended.line, ", ".join(wrong), note=note)
    single = not heavy and "-m" not in ended.words and ended.status == 2 and not ended.hung
    if single and ended.cpu > SLOW_SECONDS:
        result.note("slow", ended.line, f"{ended.cpu:.1f} s of processor to refuse it", note=note)
