"""What comes from elsewhere is read within bounds and by one schema: a strange file is one message, never a traceback."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import affordable, composed, noted
from omegaconf import OmegaConf

from plumbline import changes, compare, config, diagnose, evaluate, journal, mistakes, parsing, stages
from plumbline.config import ConfigError
from plumbline.stored import SCHEMA, read_overrides, read_run_file, read_settings, repair_run
from plumbline.train import check_parent

QUICK = ["data=iris", "model=linear", "epochs=2", "report=false"]
LEVELS = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
MERGES = "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 9))
BOMBS = {
    "aliases": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + LEVELS, "merges": "a0: &a0 {x: 1}\n" + MERGES, "endless": "a: &a [*a]",
    "endless pair": "a: &a {b: &b [*a, 1]}", "deep": "a: " + "[" * 100_000, "closed": "a: " + "[" * 50_000 + "]" * 50_000,
    "mappings": "{a: " * 5_000 + "1" + "}" * 5_000, "block": "\n".join(" " * level + "a:" for level in range(900)),
    "compact": "- " * 50_000 + "x", "long": "a: [" + "1, " * 150_000 + "1]", "digits": "a: " + "9" * 5_000,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("long", "closed") else n for n in BOMBS]
)
def test_a_yaml_bomb_is_one_error_at_every_door(name: str, tmp_path: Path) -> None:
    """Option files as Hydra reads them, and the files of a folder, end in an error of YAML within a second or two."""
    config.register()
    (tmp_path / "config.yaml").write_text(BOMBS[name])
    (tmp_path / "overrides.yaml").write_text(BOMBS[name])
    began = time.process_time()
    with pytest.raises(yaml.YAMLError) as error:
        OmegaConf.load(tmp_path / "config.yaml")
    assert "config.yaml" in mistakes.explain(error.value, [])
    with pytest.raises(yaml.YAMLError):
        OmegaConf.create(BOMBS[name])
    for read in (read_settings, read_overrides):
        with pytest.raises(ConfigError, match="is not the folder of a run") as said:
            read(tmp_path)
        assert "\n" not in str(said.value)
    assert time.process_time() - began < affordable(4)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "9" * 400, "1" * 5_000, "{", "", "[1] x"]
)
def test_json_out_of_bounds_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parsing.parse_json(text)


def test_json_within_bounds_is_what_it_was() -> None:
    assert parsing.parse_json('{"a": [NaN, -Infinity, 1e-3, 18446744073709551615, "\\ud800"]}') == {
        "a": [None, None, 1e-3, 2**64 - 1, "?"]
    }


def test_numbers_of_an_option_file_are_read_as_omegaconf_reads_them() -> None:
    """1e-5 is a number to OmegaConf, and text to YAML 1.1."""
    text = "a: 1e-5\nb: 2001-01-01\nc: .inf\nd: '1e-5'\ne: 1_000\nf: off\n"
    assert parsing.parse_yaml(text, as_options=True) == OmegaConf.to_container(OmegaConf.create(text))
    assert parsing.parse_yaml("a: 1e-5") == {"a": "1e-5"}


@pytest.mark.slow
def test_what_recurses_is_called_by_its_name(tmp_path: Path, train) -> None:
    """A circular defaults list, nested aliases and a deep value are three things, and none is called another."""
    (tmp_path / "o" / "experiment").mkdir(parents=True)
    files = {
        "circular": "# @package _global_\ndefaults: [/experiment/circular]\n",
        "bomb": BOMBS["aliases"],
        "deep": BOMBS["deep"],
    }
    for name, text in files.items():
        (tmp_path / "o" / "experiment" / f"{name}.yaml").write_text(text)
    for name, said in (("circular", "includes itself"), ("bomb", "fewer aliases"), ("deep", "nested too deeply")):
        done = train("--config-dir=o", f"experiment={name}")
        assert (done.returncode, said in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr


# --- the schema of run.json and config.yaml --------------------------------------------------------------------------


@pytest.fixture
def finished(run) -> Path:
    return run(*QUICK, folder="outputs/day/good")[1]


def test_a_run_of_ours_passes_and_an_older_one_gets_todays_keys(finished: Path) -> None:
    found = noted(finished)
    assert repair_run(found) == (found, [])
    assert set(found) <= set(SCHEMA)
    old = {key: found[key] for key in ("status", "objective", "best")}
    (finished / "run.json").write_text(json.dumps(old))
    assert read_run_file(finished) == {key: None for key in ()} | {
        key: value for key, (value, _) in SCHEMA.items() if key not in ("layers", "lr_curve", "figures", "answer")
    } | old  # fmt: skip


WRONG = (3, "x", [1], {"a": 1}, None, [[1]], {"val/loss": 3}, 10**300, True)


def forms(run: dict[str, Any], settings: dict[str, Any]) -> dict[str, tuple[str, str | bytes]]:
    """Name -> (file, content): files that can be read as JSON or YAML, or not, and are no run's."""
    texts: dict[str, str | bytes] = {
        "list": "[]", "one": "1", "text": '"x"', "null": "null", "nothing": "{}", "empty": "", "binary": b"\x80\xff\0",
        "nan": "NaN",
        "deep": "[" * 100_000, "nested": "[" * 500 + "]" * 500, "bomb": BOMBS["aliases"],
    }  # fmt: skip
    found = {
        f"{file} {name}": (file, text)
        for file in ("run.json", "config.yaml", "overrides.yaml")
        for name, text in texts.items()
    }
    for file, content, write in (("run.json", run, json.dumps), ("config.yaml", settings, yaml.safe_dump)):
        found[f"{file} cut"] = file, write(content)[:200]
        inner = [(key, part) for key in content for part in (content[key] if isinstance(content[key], dict) else ())]
        for place in [(key,) for key in content] + (inner if file == "run.json" else []):
            for value in (*WRONG, "gone"):
                changed = copy.deepcopy(content)
                holder = changed if len(place) == 1 else changed[place[0]]
                holder.pop(place[-1]) if value == "gone" else holder.__setitem__(place[-1], value)
                found[f"{file} {'.'.join(place)}={str(value)[:20]}"] = file, write(changed)
    records = (
        "1\n",
        "[1]\n",
        "[" * 100_000,
        '{"epoch": 1' + "0" * 400 + "}\n",
        '{"epoch": "x", "val/loss": [1]}\n',
        b"\x80",
        "",
    )
    return found | {f"metrics.jsonl {place}": ("metrics.jsonl", text) for place, text in enumerate(records)}


def special(folder: Path, name: str, how: str, mine: Path) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    acts: dict[str, Callable[[], Any]] = {
        "folder": path.mkdir, "dangling": lambda: path.symlink_to(folder / "nowhere"), "link": lambda: path.symlink_to(mine),
        "pipe": lambda: os.mkfifo(path), "gone": lambda: None,
    }  # fmt: skip
    acts[how]()


def commands(tmp_path: Path, bad: Path, words: list[str], monkeypatch) -> dict[str, Callable[[], Any]]:
    """Name -> a command on the folder `bad`, in this process; what trains for long is left out of most."""
    from plumbline.record import read_config
    from plumbline.run import run_to_the_end

    outputs, good = tmp_path / "outputs", tmp_path / "outputs" / "day" / "good"

    def command(main: Callable[[], int], *words: object) -> Callable[[], int]:
        def call() -> int:
            monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
            return main()

        return call

    def trained(*more: str) -> int:
        words = ["threads=1", "bootstrap=5", "checks=off", *QUICK, f"outputs={outputs}", *more]
        return run_to_the_end(composed(*words), tmp_path / "new", words)

    def parent() -> int:
        check_parent(bad)
        return trained(f"parent={bad}")

    def resume() -> int:
        cfg, directory = read_config(composed(f"resume={bad}"), [f"resume={bad}"])
        return run_to_the_end(cfg, directory, [f"resume={bad}"])

    def climb() -> int:
        shutil.copytree(bad, tmp_path / "stages" / "1", symlinks=True)
        monkeypatch.setattr(stages, "subprocess", SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=0)))
        return command(stages.main, tmp_path / "stages", *words, "/", "/")()

    return {
        "new": trained, "parent": parent, "journal": command(journal.main, outputs),
        "csv": command(journal.main, outputs, "--csv"),
        "answer": command(journal.main, bad, "answer=yes"), "compare": command(compare.main, good, bad),
        "resume": resume, "evaluate": command(evaluate.main, f"run={bad}", "on=val"),
        "diagnose": command(diagnose.main, bad), "stages": climb,
        "transfer": lambda: trained("transfer=weights", f"transfer.file={bad}"),
    }  # fmt: skip


def attempt(act: Callable[[], Any], capsys) -> tuple[int, list[str], list[str]]:
    """(exit status, messages, notes) of a command; anything but a ConfigError is raised."""
    capsys.readouterr()
    try:
        status = act()
    except ConfigError as error:
        status, said = 2, [f"plumbline: {error}"]
    else:
        said = []
    lines = [*capsys.readouterr().err.splitlines(), *said]
    return (
        status,
        [line for line in lines if not line.startswith("note: ")],
        [line for line in lines if line.startswith("note: ")],
    )


@pytest.mark.slow
def test_a_strange_folder_is_one_message_or_one_note(finished: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Of every form, with every command: status 0 (4 of a check) and no message, or 2 and one; lists go on with a note."""
    monkeypatch.chdir(tmp_path)
    whole, bad, mine = tmp_path / "whole", finished.parent / "bad", tmp_path / "mine.txt"
    shutil.copytree(finished, whole)
    mine.write_text("precious")
    content = forms(noted(whole), yaml.safe_load((whole / "config.yaml").read_text()))
    odd = [
        (name, how)
        for name in (
            "run.json",
            "config.yaml",
            "overrides.yaml",
            "metrics.jsonl",
            "predictions.npz",
            "best.pt",
            "last.pt",
            ".lock",
        )
        for how in ("folder", "dangling", "link", "pipe", "gone")
    ]
    acts = commands(tmp_path, bad, read_overrides(whole), monkeypatch)
    cells = [(form, act) for form in (*content, *odd) for act in acts]
    cells = cells[::31]
    strange = []
    for form, act in cells:
        for folder in (bad, tmp_path / "new", tmp_path / "stages"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, bad)
        if isinstance(form, tuple):
            special(bad, *form, mine)
        else:
            file, text = content[form]
            (bad / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        status, said, notes = attempt(acts[act], capsys)
        allowed = (0,) if act in ("new", "journal", "csv") else (0, 2, 4)
        if status not in allowed or len(said) != (status == 2) or mine.read_text() != "precious":
            strange.append((form, act, status, said, notes))
    assert strange == []
    assert len(cells) > 300


def test_the_readers_take_every_form(finished: Path, capsys, monkeypatch) -> None:
    """A form is read, or is one ConfigError; of every fortieth, so do the commands that only read."""
    whole = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    content = forms(noted(finished), read_settings(finished))
    refused = 0
    for place, (file, text) in enumerate(content.values()):
        (finished / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        read = {"run.json": read_run_file, "config.yaml": read_settings}.get(file, read_overrides)
        try:
            read(finished)
        except ConfigError as error:
            refused += 1
            assert "\n" not in str(error)
        if place % 40 == 0:
            monkeypatch.setattr(sys, "argv", ["x", str(finished)])
            assert attempt(diagnose.main, capsys)[0] in (0, 2, 4)
            assert len(journal.entries(finished.parents[1])) + len(capsys.readouterr().err.splitlines()) == 1
        (finished / file).write_bytes(whole[file])
    assert len(content) > refused > 300


def test_damaged_runs_are_skipped_with_one_note_each(finished: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """A list of runs goes on without them, and names each; a folder that is whole is not named."""
    for place, text in enumerate(
        ("[]", '{"status": "finished"}', '{"status": "finished", "best": [1], "objective": "x"}')
    ):
        (finished.parent / f"bad{place}").mkdir()
        (finished.parent / f"bad{place}" / "run.json").write_text(text)
    runs = journal.entries(tmp_path / "outputs")
    notes = capsys.readouterr().err.splitlines()
    assert ([entry.folder for entry in runs], len(notes)) == ([finished], 3)
    assert all(f"bad{place} is left out: " in " ".join(notes) for place in range(3))
    found = list(changes.alike(tmp_path / "outputs", noted(finished), read_settings(finished)))
    assert ([folder for folder, _, _ in found], len(capsys.readouterr().err.splitlines())) == ([finished], 3)


def test_reading_a_run_takes_half_a_millisecond(finished: Path) -> None:
    """A new run looks at up to 500 earlier ones. Bounded in units of json.loads, so that no machine is too slow."""
    path, again = finished / "run.json", 100
    began = time.process_time()
    for _ in range(again):
        json.loads(path.read_text())
    plain = time.process_time() - began
    began = time.process_time()
    for _ in range(again):
        read_run_file(finished)
    assert time.process_time() - began < 12 * plain
