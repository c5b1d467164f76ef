"""Random command lines from the configuration tree, good and bad."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fuzz_process import (
    CPU_SECONDS,
    ROOT,
    Result,
    command,
    fresh_folder,
    make_canaries,
    move_template,
    snapshot,
    touched,
)

CONF = ROOT / "conf"
COMBINED = ("regulariser", "augment", "tracker", "figures")
LARGE = {
    "fashion_mnist",
    "fashion_mnist_part",
    "cifar10",
    "mnist",
    "gene_expression",
    "wandb",
}  # options that take long
TINY = {
    "data": "iris", "epochs": "1", "checks": "off", "report": "false", "bootstrap": "2", "threads": "1",
    "model.hidden": "[8]",
}  # fmt: skip
SMALL = [  # data and networks that train in a moment
    {"data": "iris"}, {"data": "wine"}, {"data": "diabetes", "data.subset": "80"},
    {"data": "digits", "data.subset": "65"},
    {"data": "digits", "data.subset": "65", "model": "cnn", "model.channels": "[4]"},
    {"data": "shapes", "data.samples": "60", "model": "unet", "model.channels": "[4,4]"},
    {"data": "sequences", "data.samples": "60", "model": "lstm"},
    {"data": "digits_reconstruction", "data.subset": "65", "model": "autoencoder"},
    {"data": "playground"}, {"data": "toy_regression"}, {"data": "digit_pairs", "data.subset": "65",
        "model": "siamese"},
]  # fmt: skip
# more of these is more work by the user's own order, which is no hang: no large whole numbers are drawn for them
AMOUNTS = (
    "epochs", "n_trials", "samples", "size", "hidden", "channels", "width", "blocks", "heads", "features",
    "length", "layers",
    "subset", "per_class", "confirm", "seeds", "workers", "startup_trials", "epochs", "restarts",
    "accumulate", "seconds",
    "max_steps", "units", "embedding", "copies", "trees", "cells", "depth", "stages", "warm_up", "most",
    "code",
)  # fmt: skip

ENDS = ["0", "1", "-1", "2", "0.0", "1.0", "0.5", "1e-12", "0.999999999999", "-0.0", "1e-3"]
OUTSIDE = [
    "nan", "inf", "-inf", ".nan", "-.inf", "1e308", "1e400", "-1e308", "1e-320", "5e-324", "-5", "-0.5",
    "1.5", "3.7",
    "18446744073709551616", "-9223372036854775809", "1" + "0" * 40, "-1" + "0" * 400, "99999999999",
]  # fmt: skip
ODD = [
    "", "null", "true", "false", "yes", "~", "[]", "{}", "[[1]]", "[null]", "[1,[2,[3]]]", "{a:1}",
    "{a:{b:{c:[1]}}}",
    "[1,2", "{a:1", "}", "]", "'quoted'", '"quoted"', "'open", "a b", "'a,b'", "a,b", "1,2", "a=b", "=",
    "==", ":", "a:b",
    "ünï✓", "😀", "\u202eabc", "x" * 300, "y" * 5000, "[" * 60 + "]" * 60, "[" * 400 + "]" * 400,
    "${seed}", "${nope}", "${data}", "${data.nope}", "${oc.env:HOME}", "${oc.env:NO_SUCH}",
    "${oc.env:NO_SUCH,3}", "${",
    "${}", "${.}", "${..}", "${now:%Y}", "${now:}", "${unique:}", "${nope:1}", "${oc.decode:1}",
    "${oc.select:seed}",
    "${oc.create:{a:1}}", "${oc.dict.keys:data}", "${hydra:runtime.cwd}", "${hydra:nope}", "${optimiser.lr}",
    "???",
    "\\", "\\,", "1_000", "0x10", "1e3", "01", "+1", "--1", "*", "&a", "!!python/object:os.system",
    "!!python/name:os.system",
    "\t", "\n", "a\nb", "\x1b[31mred", "\x07", "\x7f", "a\rb", "$(id)", "`id`", "../..", "/etc/passwd",
    "/dev/full", "/dev/null/x",
    "mine", "mine/notes.txt", "auto", "none", "all", "hidden", "plumbline.models.mlp.MLP", "os.system",
    "inf]", "%", "%s", "{0}",
    "tag(a,1)", "int(3)", "float(x)", "str(1)", "bool(1)", "glob(*)", "shuffle(1,2)", "sort(3,1,2)",
    "extend_list(1)",
]  # fmt: skip
SWEEPS = [
    "1,2", "0,1,2", "range(0,3)", "range(0,1,0.5)", "range(3,0)", "range(0,100000000)", "range(a,b)",
    "interval(0,1)",
    "interval(1,0)", "interval(0,inf)", "interval(nan,1)", "interval(1e-4,1e-1)",
    "tag(log,interval(1e-4,1e-1))",
    "tag(log,interval(-1,1))", "tag(nope,interval(1,2))", "choice(1,2)", "choice([8],[4])", "choice()",
    "choice(a)", "glob(*)",
    "glob(a*,exclude=b*)", "glob([*])", "interval(1,5)", "int(interval(1,5))", "choice(1,1)",
    "shuffle(1,2,3)", "1,1", "a,b",
    "range(1,5,0)", "range(0,3,-1)", "interval(2,2)", "choice(null,1)", "sort(3,2,1)", "interval(0,1e400)",
    ",", "1,",
]  # fmt: skip
HYDRA = [
    "hydra.verbose=true", "hydra.job.chdir=true", "hydra.output_subdir=.hydra", "hydra.output_subdir=..",
    "hydra.run.dir=mine",
    "hydra.run.dir=.", "hydra.run.dir=", "hydra.run.dir=null", "hydra.run.dir=/dev/null/x",
    "hydra.run.dir=mine/notes.txt",
    "hydra.run.dir=mine/dangling", "hydra.run.dir=mine/below", "hydra.run.dir=run",
    "hydra.run.dir=" + "r" * 300,
    "hydra.run.dir=new/${seed}", "hydra.run.dir=~/x", "hydra.sweep.dir=mine", "hydra.sweep.subdir=x",
    "hydra.job.name=é",
    "hydra.searchpath=[nope]", "hydra.searchpath=[file://mine]", "hydra.searchpath=[pkg://os]",
    "hydra.searchpath=[1,{}]",
    "hydra.searchpath=null", "hydra.searchpath=[pkg://nope.conf]", "hydra.searchpath=[file://lab/conf]",
    "hydra.mode=MULTIRUN",
    "hydra.mode=NOPE", "hydra/launcher=basic", "hydra/launcher=nope", "hydra/sweeper=basic",
    "hydra/sweeper=nope",
    "hydra/job_logging=default", "hydra/hydra_logging=default", "hydra/job_logging=colorlog",
    "hydra/help=default",
    "hydra.job.env_set.X=1", "+hydra.job.env_set.X=1", "hydra.job.env_set={X:1}", "hydra.nope=1",
    "hydra.job.config.nope=1",
    "hydra.callbacks={}", "+hydra.callbacks.a._target_=os.system", "hydra=null", "hydra=nope", "hydra.run=1",
    "hydra.job.id=1",
    "hydra.sweeper._target_=os.system", "hydra.launcher._target_=os.system", "hydra.runtime.cwd=/",
    "hydra.job.num=3",
    "hydra.runtime.output_dir=mine", "hydra.overrides.task=[a]", "~hydra", "~hydra.run.dir",
    "hydra.run.dir=${nope}",
    "hydra.job.override_dirname=x", "hydra.help.template=x", "hydra.sweeper.params={}", "hydra.env=x",
    "hydra.output_subdir=null",
]  # fmt: skip
FLAGS = [
    ["--help"], ["-h"], ["--hydra-help"], ["--version"], ["--cfg", "job"], ["--cfg", "hydra"],
    ["--cfg", "all"],
    ["--cfg", "nope"], ["--cfg"], ["-c", "job", "--resolve"], ["-c", "job", "-p", "data"],
    ["-c", "job", "-p", "nope.x"],
    ["--resolve"], ["--info"], ["--info", "config"], ["--info", "defaults"], ["--info", "defaults-tree"],
    ["--info", "plugins"], ["--info", "searchpath"], ["--info", "nope"], ["--config-dir", "lab/conf"],
    ["--config-dir=lab/conf"],
    ["--config-dir=nope"], ["--config-dir=mine/notes.txt"], ["--config-dir"], ["-cd", "mine"],
    ["--config-name=train"],
    ["-cn", "nope"], ["-cn", "../conf/train"], ["-cn", "experiment/sam"], ["--config-path=nope"],
    ["-cp", "mine"], ["--package=x"],
    ["--run"], ["-r"], ["--shell-completion"], ["-sc", "install=bash"], ["-sc", "query=bash"],
    ["--experimental-rerun=mine"],
    ["--experimental-rerun=mine/notes.txt"], ["--nope"], ["-x"], ["--"], ["-"], ["-mm"], ["--multirun"],
    ["-m", "-m"],
    ["--cfg=job"], ["--cfg", "job", "--info", "config"], ["--hydra-help", "--cfg", "job"],
]  # fmt: skip


@cache
def tree() -> dict[str, dict[str, dict[str, Any]]]:
    """Group -> option -> key -> value in its file."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted(CONF.glob("*/[!_]*.yaml")):
        found.setdefault(file.parent.name, {})[file.stem] = leaves(file)
    return found


def leaves(file: Path) -> dict[str, Any]:
    """The keys of an option file and of those of its own folder that it stands on, with their values."""
    content = yaml.safe_load(file.read_text("utf-8")) or {}
    found: dict[str, Any] = {}
    for base in content.pop("defaults", []):
        if isinstance(base, str) and base.startswith("_") and (file.parent / f"{base}.yaml").exists():
            found |= leaves(file.parent / f"{base}.yaml")
    return found | flat(content)


def flat(node: dict[str, Any], above: str = "") -> dict[str, Any]:
    found = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


@cache
def roots() -> dict[str, Any]:
    content = yaml.safe_load((CONF / "train.yaml").read_text("utf-8"))
    return {key: value for key, value in content.items() if key not in ("defaults", "hydra")}


def misspelled(rng: random.Random, word: str) -> str:
    """A word with one mistake of the fingers in it."""
    at = rng.randrange(len(word)) if word else 0
    kind = rng.randrange(5)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + rng.choice("abcxyz.-_é/@ ") + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]
    return word.upper() if kind == 3 else word + rng.choice(["", "s", ".", "..x", ".0", "[0]", "@x", "/x"])


def value(rng: random.Random, key: str, usual: Any) -> str:
    """A value for a key whose usual one is known: near it, at an end, outside, or of another kind altogether."""
    last = key.rpartition(".")[2]
    kind = rng.random()
    if kind < 0.3:
        return near(rng, usual)
    if kind < 0.45:
        return rng.choice(ENDS)
    if kind < 0.65:
        drawn = rng.choice(OUTSIDE)
        if any(part in last for part in AMOUNTS) and drawn in ("99999999999", "1e308"):
            return "-7"
        return drawn
    if kind < 0.7 and isinstance(usual, list):
        return "[" + ",".join(rng.choice(ENDS + OUTSIDE[:9]) for _ in range(rng.randrange(4))) + "]"
    return rng.choice(ODD)


def near(rng: random.Random, usual: Any) -> str:
    if isinstance(usual, bool):
        return rng.choice(["true", "false"])
    if isinstance(usual, int):
        return str(min(abs(usual), 4) + rng.randrange(2))
    if isinstance(usual, float):
        return f"{usual * rng.choice([0.5, 1, 2, 0.1]):g}"
    if isinstance(usual, list):
        return "[" + ",".join(near(rng, item) for item in usual[:2]) + "]"
    return "null" if usual is None else str(usual)


def option(rng: random.Random) -> tuple[str, str]:
    """A group with one of its options."""
    group = rng.choice(sorted(tree()))
    names = [name for name in tree()[group] if name not in LARGE and group != "experiment"] or ["nope"]
    name = rng.choice(names)
    if rng.random() < 0.12:
        name = misspelled(rng, name)
    if rng.random() < 0.06:
        group = misspelled(rng, group)
    return group, f"[{name}]" if (group in COMBINED) != (rng.random() < 0.06) else name


def pair(rng: random.Random) -> tuple[str, str]:
    """A key with a value, and what must be chosen for it to be there."""
    if rng.random() < 0.45:
        key = rng.choice(sorted(roots()))
        return key, value(rng, key, roots()[key])
    group = rng.choice(sorted(tree()))
    names = [name for name in tree()[group] if name not in LARGE]
    keys = tree()[group][rng.choice(names)] if names else {}
    if not keys or group == "experiment":
        return "seed", value(rng, "seed", 0)
    key = rng.choice(sorted(keys))
    return f"{group}.{key}", value(rng, key, keys[key])


def written(rng: random.Random, key: str, given: str) -> str:
    """The word, now and then with a prefix or without a part."""
    kind = rng.random()
    if kind < 0.04:
        key = misspelled(rng, key)
    if kind > 0.9:
        key = rng.choice(["+", "++", "~", "+", "@", ".", "~~"]) + key
    if kind > 0.985:
        return key
    return f"{key}={given}"


def line(rng: random.Random) -> list[str]:
    """Words for train."""
    base = TINY | rng.choice(SMALL) if rng.random() < 0.35 else dict(TINY)
    if "model" in base or base["data"].startswith(("seq", "shapes")):
        base.pop("model.hidden")
    words: list[str] = []
    chosen: dict[str, str] = {}
    for _ in range(rng.choice([1, 1, 2, 2, 3, 5])):
        kind = rng.random()
        if kind < 0.3:
            group, name = option(rng)
            chosen[group] = name
            words.append(written(rng, group, name))
            options = tree().get(group, {}).get(name.strip("[]"), {})
            if options and rng.random() < 0.7:
                key = rng.choice(sorted(options))
                words.append(written(rng, f"{group}.{key}", value(rng, key, options[key])))
        elif kind < 0.85:
            key, given = pair(rng)
            words.append(written(rng, key, given))
        elif kind < 0.92:
            words.append(rng.choice(HYDRA))
        elif kind < 0.96:
            words.append(rng.choice(ODD))
        else:
            words += rng.choice(FLAGS)
    if rng.random() < 0.08:
        words.append(f"experiment={rng.choice(sorted(tree()['experiment']))}")
    multirun = rng.random() < 0.2
    if multirun:
        base |= {"search.workers": "0", "search.n_trials": "2"} if rng.random() < 0.93 else {"search.workers": "1"}
        if rng.random() < 0.8:
            base["search"] = rng.choice(["tpe", "random", "qmc", "cmaes", "gp", "nsga"])
        else:
            base.pop("search.n_trials", None)
        for _ in range(rng.choice([1, 1, 2])):
            key, _ = pair(rng)
            words.append(f"{rng.choice([key, 'optimiser.lr', 'seed', 'batch_size', 'model'])}={rng.choice(SWEEPS)}")
        if rng.random() < 0.3:
            words.append(f"study={rng.choice(NAMES)}")
        words.insert(0, "-m")
    elif rng.random() < 0.1:
        words.append(f"{rng.choice(['resume', 'parent', 'outputs', 'data.root', 'transfer.file'])}={place(rng)}")
    if "--cfg" not in words and any(name in chosen.get("data", "") for name in LARGE):
        words += ["--cfg", "job"]
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    if any(key == "epochs" for key in keys) and not multirun:
        words = [word if not is_long(word) else "epochs=2" for word in words]
    base = {key: given for key, given in base.items() if key not in keys and key.partition(".")[0] not in chosen}
    if "data" in chosen or "data" in keys:
        base["data.subset"] = base.get("data.subset", "65") if rng.random() < 0.5 else base.get("data.subset", "null")
        if base["data.subset"] == "null":
            base.pop("data.subset")
    made = [f"{key}={given}" for key, given in base.items()]
    return [*words, *made] if rng.random() < 0.5 else [*words[:1], *made, *words[1:]]


def is_long(word: str) -> bool:
    """Whether a word orders a long training, or a compiler that is run, which would be no fault."""
    key, _, given = word.lstrip("+~").partition("=")
    if (key, given) == ("compile", "true"):
        return True
    try:
        return key == "epochs" and 3 < float(given) < float("inf")
    except ValueError:
        return False


NAMES = ["s", "mine", "../x", "s" * 300, "", "a/b", "é", ".", "..", "a b", "\x1b[1m", "-", "~", "null", "*"]
PLACES = [
    "run", "run/", "./run", "stopped", "mine", "mine/notes.txt", "mine/dangling", "mine/link", "nope", "",
    ".", "..", "outputs",
    "run/run.json", "run/best.pt", "run/metrics.jsonl", "/", "/dev/null", "/proc/self", "r" * 300, "é",
    "a\nb", "\x1b[31m", "null",
    "[run]", "{a:1}", "run,run", "${oc.env:HOME}", "~", "table.csv", "table.jsonl", "studies/s", "lab", "*",
    "'", '"', "?",
]  # fmt: skip


def place(rng: random.Random) -> str:
    return rng.choice(PLACES[:8]) if rng.random() < 0.4 else rng.choice(PLACES)


def evaluate(rng: random.Random) -> list[str]:
    words = [f"run={place(rng)}"] if rng.random() < 0.9 else []
    known = {
        "on": ["val", "test", "nope", ""], "tta": ["0", "2", "-1", "1.5", "nan", "x"],
        "temperature": ["true", "maybe", "1"],
        "beside": ["[run]", "[run/best.pt]", "run", "[nope]", "[[run]]", "[]", "null", "{a:1}", "[mine]",
            "[1]", "${run}"],
        "again": ["why", "", "'a b'", "\x1b[1m", "null", "[1]"],
        "device": ["cpu", "warm", "cuda:99", "", "mps"],
        "allow": ["[torch]", "[plumbline]", "[]", "null", "x", "[1]", "[[]]"], "rnu": ["x"],
    }  # fmt: skip
    for _ in range(rng.randrange(3)):
        key = rng.choice(sorted(known))
        words.append(f"{key}={rng.choice(known[key]) if rng.random() < 0.8 else rng.choice(ODD + OUTSIDE)}")
    if "on=test" not in words and rng.random() < 0.8:
        words.append("on=val")
    return words if rng.random() < 0.95 else [*words, rng.choice(ODD)]


def journal(rng: random.Random) -> list[str]:
    words = [place(rng) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    if rng.random() < 0.3:
        words.append(f"answer={rng.choice(ODD)}")
    return words + [["--csv"], ["--cvs"], ["--help"], [], [], []][rng.randrange(6)]


def compare(rng: random.Random) -> list[str]:
    words = [place(rng) for _ in range(rng.choice([0, 1, 2, 2, 3]))]
    if rng.random() < 0.3:
        words.append(
            f"objective={rng.choice(['val/loss', 'val/accuracy', 'val/', 'nope', '', 'fit/loss', 'step', *ODD])}"
        )
    if rng.random() < 0.4:
        words.append(
            f"page={rng.choice(['page.html', 'nope/page.html', 'run', '', '/dev/full', 'new/a/b.html', 'p' * 300])}"
        )
    return words


def diagnose(rng: random.Random) -> list[str]:
    words = [place(rng)] if rng.random() < 0.9 else []
    keys = ["train_loss", "val_loss", "step", "lr", "stop_on", "objective", "direction", "epoch", "val_score", "nope"]
    for _ in range(rng.randrange(3)):
        words.append(
            f"{rng.choice(keys)}={rng.choice(['loss', 'a', 'never', 'warn', 'val/loss', 'epoch', *ODD, *OUTSIDE])}"
        )
    return [*words, "--json"] if rng.random() < 0.2 else words


def stages(rng: random.Random) -> list[str]:
    words = [rng.choice(["st", "mine", "", "a=b", "/", "nope/deep", "run", "s" * 300, "--help"])]
    if rng.random() < 0.5:
        return words + [rng.choice(["/", "epochs=1", *ODD]) for _ in range(rng.randrange(4))]
    bad, _ = pair(rng), None
    return [
        *words,
        "data=nope" if rng.random() < 0.5 else written(rng, *bad),
        "checks=off",
        "/",
        "epochs=abc",
        "/",
        "model=mpl",
    ]


def studies(rng: random.Random) -> list[str]:
    words = [f"study={rng.choice(['s', 'nope', '', 'outputs/studies/s', *PLACES])}"]
    if rng.random() < 0.4:
        words.append(f"outputs={place(rng)}")
    if rng.random() < 0.3:
        words.append(f"{rng.choice(['workers', 'until', 'nope'])}={rng.choice(['0', *ENDS, *OUTSIDE, *ODD])}")
    return words if rng.random() < 0.9 else [*words, rng.choice(["--help", "--nope", *ODD])]


def doctor(rng: random.Random) -> list[str]:
    clusters = [*sorted(set(tree()["cluster"]) - {"here"}), "nope", "", "[generic]", "mine"]
    words = [f"cluster={rng.choice(clusters)}"]
    if rng.random() < 0.5:
        words.append(f"resources={rng.choice([*sorted(tree()['resources']), 'nope', ''])}")
    if rng.random() < 0.5:
        group = rng.choice(["cluster", "resources", "launcher"])
        key = rng.choice(sorted(tree()[group][rng.choice(sorted(tree()[group]))]) or ["x"])
        words.append(written(rng, f"{group}.{key}", value(rng, key, 1)))
    return words


OTHERS = {
    "evaluate": evaluate, "journal": journal, "compare": compare, "diagnose": diagnose, "stages": stages,
    "worker": studies,
    "status": studies, "doctor": doctor,
}  # fmt: skip
WEIGHTS = {"evaluate": 5, "journal": 4, "compare": 4, "diagnose": 5, "stages": 2, "worker": 1, "status": 3, "doctor": 2}


def draw(seed: int, number: int) -> tuple[str, list[str]]:
    """The command and the words of a try."""
    rng = random.Random(f"commands {seed} {number}")
    if rng.random() < 0.72:
        return "train", clean(line(rng))
    name = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    return name, clean(OTHERS[name](rng))


def clean(words: list[str]) -> list[str]:
    """Words as the operating system takes them, without zero bytes; runs are not ordered into the root of the disk."""
    return ["outputs=/dev/null" if word == "outputs=/" else word.replace("\0", "") for word in words]


def attempt(seed: int, template: Path, was: Path, number: int, place: Path) -> Result:
    """One command line, in a folder with a run, a study and files of the user's."""
    here = fresh_folder(place, move_template(template, place, was), leave=("code",))
    make_canaries(here / "mine")
    before = snapshot(here / "mine")
    name, words = draw(seed, number)
    result = Result(number)
    quick = name != "train" or "checks=off" in words  # the checks of a U-Net alone take 10 s of a processor
    ended = command(name, words, here, cpu=CPU_SECONDS if quick else 3 * CPU_SECONDS)
    ended.calls = [call for call in ended.calls if "/etc/passwd/" not in call]  # outputs=/etc/passwd orders that
    result.add(ended)
    if changed := touched(before, here / "mine"):
        result.note("user files touched", ended.line, ", ".join(changed))
    return result
