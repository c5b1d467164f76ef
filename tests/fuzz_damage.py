"""Random damage to each file of a run and of a study, and the commands that read it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fuzz_kills import differences, left
from fuzz_process import (
    Ended,
    Result,
    command,
    finish,
    fresh_folder,
    make_canaries,
    move_template,
    snapshot,
    start,
    touched,
)

RUN = ["data=iris", "epochs=2", "checks=off", "report=false", "bootstrap=2", "threads=1", "model.hidden=[8]"]
STUDY = [
    "-m",
    "study=s",
    "search=random",
    "search.n_trials=2",
    "search.workers=1",
    "optimiser.lr=interval(0.001,0.1)",
    *RUN,
]

EXPECTED: dict[str, Any] = {}  # what the stopped run leaves when it is resumed undamaged


def must(ended: Ended, status: int = 0) -> None:
    assert ended.status == status, f"{ended.line}\n{ended.out}\n{ended.err}"


@cache
def make_template(place: Path) -> tuple[Path, Path]:
    """(a folder with runs, one of them stopped, a finished study and half of one; the path that it was made at)."""
    made = place / "made" / "here"
    shutil.rmtree(place / "made", ignore_errors=True)
    made.mkdir(parents=True)
    must(command("train", [*RUN, "hydra.run.dir=run", "name=first"], made))
    must(
        command("train", [*RUN, "hydra.run.dir=other", "seed=1", "snapshots=[1]", "checks=quick", "report=true"], made)
    )
    # a constant rate: under it the epochs that are left out below change none of those before
    words = [*RUN, "epochs=100000", "schedule=constant", "hydra.run.dir=stopped", "save_minutes=0.0001"]
    process = start("train", words, made)
    while (
        not (made / "stopped" / "metrics.jsonl").exists() or (made / "stopped" / "metrics.jsonl").stat().st_size < 900
    ):
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(process, signal.SIGTERM)
    must(finish("train", words, made, process), 85)
    config = made / "stopped" / "config.yaml"
    (made / "table.csv").write_text(
        "epoch,loss,val_loss\n" + "".join(f"{k},{1 / (k + 1)},{1.1 / (k + 1)}\n" for k in range(9))
    )
    (made / "table.jsonl").write_text("".join(f'{{"epoch": {k}, "loss": {1 / (k + 1)}}}\n' for k in range(9)))
    (made / "lab" / "conf" / "model").mkdir(parents=True)
    (made / "lab" / "conf" / "model" / "mine.yaml").write_text(
        "# Mine.\n_target_: plumbline.models.mlp.MLP\nhidden: [4]\n"
    )
    shorten(config, made)
    shutil.copytree(made / "stopped", made / "whole")
    must(command("train", ["resume=whole"], made))
    EXPECTED.update(left(made / "whole"))
    shutil.rmtree(made / "whole")
    must(command("train", STUDY, made, cpu=60))
    must(command("train", [*STUDY, "study=half", "search.n_trials=1"], made, cpu=60))
    note = made / "outputs" / "studies" / "half" / "study.yaml"
    note.write_text(note.read_text().replace("n_trials: 1", "n_trials: 2"))
    return made, made


def shorten(config: Path, made: Path) -> None:
    """Let a run that was stopped early have only a few epochs left, with the words of one that was begun so."""
    epochs = len((config.parent / "metrics.jsonl").read_text().splitlines()) + 2
    for file in (config, config.with_name("overrides.yaml")):
        file.write_text(file.read_text().replace("100000", str(epochs)))
    record = json.loads((config.parent / "run.json").read_text())
    record["command"] = record["command"].replace("100000", str(epochs))
    (config.parent / "run.json").write_text(json.dumps(record, indent=1))


# --- what is done to a file ------------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
SHAPES = [
    b"", b"\n", b"null", b"[]", b"{}", b"3", b'"text"', b"true", b"[[]]", b"[1, 2]", b'{"a": 1}',
    b"- a\n- b\n", b"a: 1\n", b"NaN",
    b'{"status": "finished"}', b'{"status": 3, "best": []}',
    b'{"status": null, "data": 1, "best": 2, "process": "x"}',
    b'{"status": "running", "process": {"id": "x", "host": 3}, "heartbeat": "yesterday"}',
    b'{"a": 1}\n{"b": [}\n',
    b'{"epoch": "one", "val/loss": {"a": []}}\n', b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000,
    b"{a: " * 5000, BOMB.encode(),
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"x" * 2_000_000, b"\x00" * 100,
    b"\xff\xfe" + "a: 1".encode("utf-16-le"),
    "a: 1\n".encode("utf-32"), b"\xef\xbb\xbfa: 1\n", "é: ü\n".encode("latin-1"),
    b"\x1b]0;title\x07\x1b[2J: 1\n", b"%YAML 9.9\n---\n",
    b"!!python/object/apply:os.system ['touch CANARY']\n", b"a: !!python/name:os.system\n", b"<<: *x\n",
    b"? [a]\n: b\n", b"a: &a\n  b: *a\n",
    b"1: 2\nnull: 3\ntrue: 4\n", b"defaults: [/nope]\n", b"data: ${oc.env:HOME}\n",
    b"data: {_target_: os.system}\n", b"seed: 1e999\n",
    b"PK\x03\x04", b"\x80\x04\x95\x00", b"#!/bin/sh\ntouch CANARY\n",
    b"import os; os.system('touch CANARY')\n", b"1" * 5000, b"1e9999",
]  # fmt: skip


def truncate(rng: random.Random, path: Path, here: Path) -> None:
    content = path.read_bytes()
    replace(path, content[: rng.randrange(len(content) + 1)])


def flip(rng: random.Random, path: Path, here: Path) -> None:
    content = bytearray(path.read_bytes() or b"x")
    for _ in range(rng.choice([1, 1, 3, 20])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    replace(path, bytes(content))


def noise(rng: random.Random, path: Path, here: Path) -> None:
    replace(path, rng.randbytes(rng.choice([1, 30, 1000, 100_000])))


def patch(rng: random.Random, path: Path, here: Path) -> None:
    """Random bytes within."""
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    replace(path, content[:at] + rng.randbytes(rng.randrange(1, 20)) + content[at:])


def reshape(rng: random.Random, path: Path, here: Path) -> None:
    replace(path, rng.choice(SHAPES))


def other_value(rng: random.Random, path: Path, here: Path) -> None:
    """One value of a JSON or YAML file becomes one of another kind, or goes."""
    text = path.read_text(errors="replace")
    try:
        content = json.loads(text) if path.suffix in (".json", ".jsonl") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        try:
            lines = [json.loads(line) for line in text.splitlines()]
        except ValueError:
            return reshape(rng, path, here)
        if not lines:
            return reshape(rng, path, here)
        at = rng.randrange(len(lines))
        lines[at] = changed(rng, lines[at])
        return replace(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    content = changed(rng, content)
    replace(path, (json.dumps(content) if path.suffix != ".yaml" else yaml.safe_dump(content)).encode())


def changed(rng: random.Random, content: Any) -> Any:
    """The value with one value in it, at any depth, replaced or left out."""
    if isinstance(content, dict) and content and rng.random() < 0.85:
        key = rng.choice(list(content))
        if rng.random() < 0.25:
            return {name: value for name, value in content.items() if name != key}
        return content | {key: changed(rng, content[key])}
    if isinstance(content, list) and content and rng.random() < 0.7:
        at = rng.randrange(len(content))
        return [*content[:at], changed(rng, content[at]), *content[at + 1 :]]
    odd = [
        None,
        [],
        {},
        "",
        "text",
        -1,
        0,
        1.5,
        10**30,
        True,
        [1],
        {"a": {"b": 1}},
        [[[]]],
        "\x1b[2J",
        "${oc.env:HOME}",
        "nan",
        "é" * 50,
    ]
    return rng.choice(odd)


def delete(rng: random.Random, path: Path, here: Path) -> None:
    path.unlink()


def folder_instead(rng: random.Random, path: Path, here: Path) -> None:
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "inner.txt").write_text("mine")


def link_instead(rng: random.Random, path: Path, here: Path) -> None:
    """A link to a file of the user's, with what the file held or the user's own words in it."""
    target = here / "mine" / f"linked-{path.name}"
    target.write_bytes(path.read_bytes() if rng.random() < 0.6 else b"mine\n")
    path.unlink()
    path.symlink_to(target)


def dangling_instead(rng: random.Random, path: Path, here: Path) -> None:
    path.unlink()
    path.symlink_to(here / "mine" / "not-there")


def loop_instead(rng: random.Random, path: Path, here: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def fifo_instead(rng: random.Random, path: Path, here: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def unreadable(rng: random.Random, path: Path, here: Path) -> None:
    replace(path, path.read_bytes())
    path.chmod(rng.choice([0o000, 0o444, 0o777]))


def swapped(rng: random.Random, path: Path, here: Path) -> None:
    """The file of the same name of another run, or another file of this one."""
    others = [
        file
        for file in here.rglob("*")
        if file.is_file() and not file.is_symlink() and file != path and "code" not in file.parts
    ]
    named = [file for file in others if file.name == path.name] or others
    replace(path, rng.choice(named if rng.random() < 0.7 else others).read_bytes())


def doubled(rng: random.Random, path: Path, here: Path) -> None:
    replace(path, path.read_bytes() * 2)


def replace(path: Path, content: bytes) -> None:
    """Write a new file at the path: what was there may be a further name of the template's."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


DAMAGES = [
    truncate, truncate, flip, flip, noise, patch, reshape, reshape, reshape, other_value, other_value,
    other_value, delete,
    folder_instead, link_instead, link_instead, dangling_instead, loop_instead, fifo_instead, unreadable,
    swapped, doubled,
]  # fmt: skip


def files(template: Path) -> list[str]:
    """What may be damaged: each file of the runs and studies, and a few of a study's copy of the code."""
    found = []
    for path in sorted(template.rglob("*")):
        name = str(path.relative_to(template))
        if path.is_symlink() or not path.is_file() or name.startswith(("lab", "table", "mine")):
            continue
        if "/code/" in name and not name.endswith(
            ("snapshot.json", "conf/train.yaml", "plumbline/train.py", "model/mlp.yaml")
        ):
            continue
        found.append(name)
    return found


def importance(name: str) -> float:
    """How often a file is damaged: those that commands read most, most often; a picture hardly ever."""
    if name.endswith((".svg", ".npz", "report.html", "output.log", ".before")):
        return 0.1 if name.endswith(".svg") else 1
    if name.endswith(("run.json", "config.yaml", "study.yaml", "study.journal", "metrics.jsonl")):
        return 8
    return 3


def readers(rng: random.Random, name: str) -> list[tuple[str, list[str]]]:
    """The commands that read a file: those that take no time, and one or two that do."""
    parts = Path(name).parts
    if parts[0] == "outputs":
        study = parts[2]
        trial = next(
            (f"outputs/studies/{study}/{part}" for part in parts[3:4] if part.isdigit()),
            f"outputs/studies/{study}/0000",
        )
        quick = [("journal", ["outputs"]), ("compare", [f"outputs/studies/{study}"]),
            ("status", [f"study={study}"]),
                 ("compare", [trial, "run"]), ("evaluate", [f"run={trial}", "on=val"]),
                 ("diagnose", [f"{trial}/metrics.jsonl"]),
                 ("status", [f"study={study}", "--report"])]  # fmt: skip
        slow = [("train", [*STUDY, f"study={study}", "search.n_trials=3"]),
            ("train", [*STUDY, f"study={study}", "search.workers=0"]),
                ("worker", [f"study={study}"]), ("train", [*RUN, "hydra.run.dir=new",
                    f"parent={trial}"])]  # fmt: skip
        return [*rng.sample(quick, 3), rng.choice(slow)]
    run = parts[0]
    quick = [("journal", [run]), ("journal", [".", "--csv"]),
        ("compare", [run, "other" if run != "other" else "run"]),
             ("diagnose", [f"{run}/metrics.jsonl"]), ("diagnose", [run]),
             ("journal", [run, "answer=yes"])]  # fmt: skip
    slow = [("train", [f"resume={run}"]), ("evaluate", [f"run={run}", "on=val"]),
        ("evaluate", [f"run={run}", "again=why"]),
            ("train", [*RUN, "hydra.run.dir=new", f"parent={run}"]),
            ("train", [*RUN, "outputs=.", "name=new"]),
            ("train", [*RUN, "transfer=weights", f"transfer.file={run}", "hydra.run.dir=new"]),
            ("evaluate", ["run=other", "on=val", f"beside=[{run}]"])]  # fmt: skip
    first = [slow[0]] if run == "stopped" else [slow[1]]
    return [*rng.sample(quick, 3), *first, rng.choice(slow)]


def attempt(seed: int, template: Path, was: Path, number: int, place: Path) -> Result:
    """Damage one file, then run commands that read it."""
    rng = random.Random(f"damage {seed} {number}")
    template = move_template(template, place, was)
    of_runs = rng.random() < 0.65
    named = [name for name in files(template) if name.startswith("outputs") != of_runs]
    name = rng.choices(named, [importance(name) for name in named])[0]
    here = fresh_folder(place, template, leave=("outputs",) if of_runs else ())
    make_canaries(here / "mine")
    how = rng.choice(DAMAGES)
    how(rng, here / name, here)
    before = snapshot(here / "mine")
    result = Result(number)
    note = f"{name}: {how.__name__}"
    for command_name, words in readers(rng, name):
        ended = command(command_name, words, here, cpu=40 if words[0] == "-m" else 12)
        result.add(ended, note)
        same = name.startswith("stopped/") and not name.endswith(".yaml") and how is not swapped
        resumed = same and words == ["resume=stopped"] and ended.status == 0 and not result.faults
        if resumed and (other := differences(EXPECTED, left(here / "stopped"))):
            result.note("other bits", ended.line, "; ".join(other), note=note)
        if wrong := touched(before, here / "mine"):
            result.note("user files touched", ended.line, ", ".join(wrong), note=note)
            before = snapshot(here / "mine")
        if any((folder / "CANARY").exists() for folder in (here, place, here / "run", here / "stopped")):
            result.note("executed", ended.line, "CANARY was made", note=note)
    return result
