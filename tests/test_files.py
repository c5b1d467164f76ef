"""What is written never leaves the folder that it is for, and never takes the place of a user's file."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

import pytest
import torch

from plumbline import compare, evaluate, journal
from plumbline.config import ConfigError
from plumbline.files import (
    NotOurs,
    lock,
    make_folder,
    open_file,
    replacing,
    save_arrays,
    sweep,
    temporary_name,
    write_json,
)
from plumbline.record import check_names, check_new

SOURCE = Path(__file__).parents[1] / "src"
QUICK = ["data=iris", "model=linear", "epochs=2", "report=false"]
ALLOWED = {  # (file, function that writes): why it is none of a run's files
    ("files.py", "open"), ("files.py", "mkdir"), ("files.py", "savez"),  # the home of all writing
    ("state.py", "save"),  # torch.save into a file of `replacing`
    ("console.py", "open"), ("exits.py", "open"), ("search/trial.py", "open"),  # the null device, and open descriptors
    ("slurm/doctor.py", "NamedTemporaryFile"),  # in the current folder, to look at the clock
    ("search/ahead.py", "open"),  # runs before the package can be imported; O_NOFOLLOW by hand
    ("search/finish.py", "symlink_to"),  # experiment/best.yaml, which leads to the file beside it
    ("search/trust.py", "open"), ("search/trust.py", "mkdir"),  # the key of this user: created exclusively, private
    ("snapshot.py", "mkdir"), ("snapshot.py", "symlink_to"), ("snapshot.py", "copytree"), ("snapshot.py", "copy2"),
    ("snapshot.py", "write_text"),  # into a folder with an unpredictable name that it made itself
    ("data/vision.py", "mkdir"), ("data/vision.py", "move"),  # data sets that are downloaded, beside what is there
}  # fmt: skip
WRITERS = {
    "write_text", "write_bytes", "mkdir", "makedirs", "touch", "symlink_to", "symlink", "hardlink_to", "copyfile", "copy",
    "copy2", "copytree", "move", "savez", "savez_compressed", "savetxt", "tofile", "mkstemp", "NamedTemporaryFile", "FileHandler",
}  # fmt: skip


def writes(tree: ast.AST) -> list[tuple[str, int]]:
    """(function, line) of the calls that open a path for writing."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = getattr(getattr(function, "value", None), "id", "")
        text = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        text += [
            word.value.value for word in call.keywords if word.arg == "mode" and isinstance(word.value, ast.Constant)
        ]
        mode = any(isinstance(word, str) and set(word) <= set("rwaxbt+") and set(word) & set("wax+") for word in text)
        method = isinstance(function, ast.Attribute) and name in WRITERS and (name != "copy" or owner == "shutil")
        if method or (name == "open" and (mode or owner == "os")) or (name == "save" and owner in ("torch", "np")):
            found.append((name, call.lineno))
    return found


def test_every_file_is_opened_for_writing_in_one_place() -> None:
    """A new `open(…, "w")`, `write_text`, `mkdir`, … in src/ goes through plumbline.files, or is listed with a reason."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        name = str(file.relative_to(SOURCE / "plumbline")) if file.is_relative_to(SOURCE / "plumbline") else file.name
        found |= {(name, function) for function, _ in writes(ast.parse(file.read_text()))}
    assert found - ALLOWED == set()
    assert writes(ast.parse('open(p, "w"); p.open(mode="ab"); os.open(p, f); torch.save(c, p); open(p); read(p, "r")')) == [
        ("open", 1), ("open", 1), ("open", 1), ("save", 1)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_file_is_neither_followed_nor_replaced(kind: str, tmp_path: Path) -> None:
    """Opening, replacing and locking refuse a link, a folder and a pipe, in one message that names it, without waiting."""
    mine, path = tmp_path / "mine.txt", tmp_path / ".lock"
    mine.write_text("precious")
    {
        "link": lambda: path.symlink_to(mine), "dangling link": lambda: path.symlink_to(tmp_path / "nowhere"),
        "folder": path.mkdir, "pipe": lambda: os.mkfifo(path),
    }[kind]()  # fmt: skip
    before = sorted(tmp_path.iterdir())
    for act in (
        lambda: open_file(path, "w"), lambda: open_file(path, "a"), lambda: write_json(path, {}), lambda: lock(tmp_path),
        lambda: save_arrays(path), lambda: check_names(tmp_path),
    ):  # fmt: skip
        with pytest.raises(NotOurs, match=r"\.lock: is (a link|a folder|not a regular file).*move it away: mv"):
            act()
    assert (sorted(tmp_path.iterdir()), mine.read_text()) == (before, "precious")


def test_an_opened_file_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("precious")
    lock(tmp_path).close()
    open_file(tmp_path / ".lock", "w").close()
    assert (tmp_path / ".lock").read_text() == "precious"


def test_folders_within_are_real_and_the_one_around_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "outputs").symlink_to(tmp_path / "scratch")
    assert make_folder(tmp_path / "outputs", "run", "figures").is_dir()
    (tmp_path / "scratch" / "run" / "code").symlink_to(tmp_path)
    with pytest.raises(NotOurs, match="code: is a link"):
        make_folder(tmp_path / "outputs", "run", "code")
    with pytest.raises(NotOurs, match="code: is a link"):
        check_names(tmp_path / "outputs" / "run")


def test_only_temporaries_with_our_mark_are_swept(tmp_path: Path) -> None:
    names = [".run.json.123", ".notes.2024", ".x.0123456789abcdef.plumbline", "run.json.01234567.plumbline"]
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / ".l.01234567.plumbline").symlink_to(tmp_path / names[0])
    temporary_name(tmp_path / "best.pt").write_text("")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*names, ".l.01234567.plumbline"}


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_text("whole")
    with pytest.raises(ValueError, match="half"), replacing(path, tmp_path / "best.pt.before") as file:
        file.write(b"ha")
        raise ValueError("half")
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("best.pt", "whole")]


# --- a new run's folder ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [["config.yaml"], ["metrics.jsonl"], ["best.pt"], ["last.pt"], ["run.json"], ["notes.txt"], [".git"], ["code"],
     ["config.yaml", "overrides.yaml", "best.pt"], ["overrides.yaml"], ["traceback.txt"]],
)  # fmt: skip
def test_a_folder_that_is_not_a_runs_is_refused(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("mine: true\n")
    with pytest.raises(ConfigError, match=r"is a folder with files that are no run's .*hydra\.run\.dir="):
        check_new(tmp_path)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine: true\n"}


def test_what_an_interrupted_start_left_is_gone_on_with(run, tmp_path: Path) -> None:
    """Killed before its record, a run leaves its request, its lock and temporaries; a queued one its script and code."""
    _, done = run(*QUICK)
    folder = tmp_path / "again"
    folder.mkdir()
    for name in ("overrides.yaml", "config.yaml"):
        check_new(folder)
        shutil.copy(done / name, folder)
    for name in (".lock", ".first", "job.sh", "job.json", "slurm-12.out"):
        (folder / name).touch()
    temporary_name(folder / "run.json").touch()
    check_new(folder)
    status, _ = run(*QUICK, folder="again")
    assert status == 0
    with pytest.raises(ConfigError, match=r"holds another run; go on with it by resume="):
        check_new(folder)


def test_a_run_with_a_link_for_a_file_leaves_its_target_alone(run, tmp_path: Path, capsys) -> None:
    """Of resume, evaluate, journal and compare, none writes through a link in a stranger's folder."""
    _, folder = run(*QUICK)
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    for name in (".lock", "validation.json", "report.html", "test_predictions.npz"):
        shutil.copytree(folder, tmp_path / "stranger")
        (tmp_path / "stranger" / name).unlink(missing_ok=True)
        (tmp_path / "stranger" / name).symlink_to(mine)
        request = evaluate.read_request([f"run={tmp_path / 'stranger'}", "on=val"])
        for act in (lambda r=request: evaluate.evaluate(r), lambda: journal.answer(tmp_path / "stranger", "wider")):
            with pytest.raises(NotOurs, match=f"{name}: is a link"):
                act()
        shutil.rmtree(tmp_path / "stranger")
    assert mine.read_text() == "precious"


def test_a_page_never_takes_the_place_of_another_file(tmp_path: Path) -> None:
    for text in ("", "notes", "<!doctype html><title>mine</title>"):
        (tmp_path / "page.html").write_text(text)
        with pytest.raises(ConfigError, match=r"is no comparison; name another: page=.*page-comparison\.html"):
            compare.check_page(tmp_path / "page.html")
    compare.check_page(tmp_path / "new.html")


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 255
    path.write_bytes({"cut": content[:-50], "flipped": content, "empty": b"", "text": b"hello"}[how])


def go_on(folder: Path) -> tuple[int, str]:
    from conftest import composed

    from plumbline.record import read_config
    from plumbline.run import run_to_the_end

    words = [f"resume={folder}"]
    cfg, directory = read_config(composed(*words), words)
    return run_to_the_end(cfg, directory, words)


@pytest.mark.parametrize(
    "how", ["flipped", *(pytest.param(h, marks=pytest.mark.slow) for h in ("cut", "empty", "text", "gone"))]
)
def test_damaged_best_weights_are_restored_from_the_checkpoint(how: str, run, capsys) -> None:
    """The last epoch was the best, so last.pt has the same weights: best.pt is the same again, bit by bit."""
    _, folder = run(*QUICK, "objective=val/loss")
    best, whole = folder / "best.pt", torch.load(folder / "best.pt", weights_only=True)["model"]
    best.unlink() if how == "gone" else damage(best, how)
    evaluate.main.__globals__["sys"].argv[1:] = [f"run={folder}", "on=val"]
    assert evaluate.main() == 0
    assert "restored from last.pt" in capsys.readouterr().out
    found = torch.load(best, weights_only=True)["model"]
    assert all(torch.equal(found[key], whole[key]) for key in whole)
    best.unlink() if how == "gone" else damage(best, how)
    assert go_on(folder) == 0
    found = torch.load(best, weights_only=True)["model"]
    assert all(torch.equal(found[key], whole[key]) for key in whole)


def test_best_weights_that_are_lost_are_one_message_before_training(run, tmp_path: Path, capsys) -> None:
    """The spare is of an earlier best, and is not taken for the best; the checkpoints stay as they are."""
    _, folder = run(*QUICK, "epochs=6", "optimiser.lr=0.1")
    best = torch.load(folder / "best.pt", weights_only=True)["epoch"]
    assert best < 5
    (folder / "last.pt.before").unlink()
    damage(folder / "best.pt", "flipped")
    before = {path.name: path.read_bytes() for path in folder.glob("*.pt*")}
    with pytest.raises(
        ConfigError, match=rf"best.pt is damaged .*no other file has the weights of epoch {best}; start a new run"
    ):
        go_on(folder)
    with pytest.raises(
        ConfigError, match=rf"no other file has the weights of epoch {best}; train it again: scripts/train"
    ):
        evaluate.evaluate(evaluate.read_request([f"run={folder}", "on=val"]))
    assert {path.name: path.read_bytes() for path in folder.glob("*.pt*")} == before


@pytest.mark.slow
def test_best_weights_of_another_network_are_refused(run, tmp_path: Path) -> None:
    _, folder = run(*QUICK, "epochs=6", "optimiser.lr=0.1")
    _, other = run(*QUICK, "data=digits", folder="other")
    shutil.copy(other / "best.pt", folder)
    (folder / "last.pt.before").unlink()
    with pytest.raises(ConfigError, match=r"best\.pt holds another network's weights"):
        go_on(folder)


def test_from_the_checkpoint_before_a_run_comes_to_the_same_best_weights(run, tmp_path: Path) -> None:
    """best.pt of the second epoch is damaged and last.pt is beyond it: the first epoch's pair is whole, and leads there."""
    _, folder = run(*QUICK, "objective=val/loss")
    shutil.copytree(folder, tmp_path / "copy")
    whole = torch.load(folder / "best.pt", weights_only=True)
    last = torch.load(folder / "last.pt", weights_only=True)
    torch.save(last | {"step": 1}, folder / "last.pt")  # inside a later epoch
    damage(folder / "best.pt", "cut")
    assert go_on(folder) == 0
    found = torch.load(folder / "best.pt", weights_only=True)
    assert found["epoch"] == whole["epoch"] == 2
    assert all(torch.equal(found["model"][key], whole["model"][key]) for key in whole["model"])


@pytest.mark.parametrize("kind", ["folder", pytest.param("link", marks=pytest.mark.slow)])
def test_best_weights_that_are_no_file_are_one_message(kind: str, run, tmp_path: Path) -> None:
    _, folder = run(*QUICK)
    best = folder / "best.pt"
    best.rename(tmp_path / "elsewhere.pt")
    best.mkdir() if kind == "folder" else best.symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(NotOurs, match=f"best.pt: is a {kind}.*move it away"):
        go_on(folder)
