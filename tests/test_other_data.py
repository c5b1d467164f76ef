"""Data are compared by their contents: the same data elsewhere are the same, edited data under one name are others."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import composed, noted
from omegaconf import OmegaConf
from PIL import Image

from plumbline import arms, compare, journal, stages
from plumbline.changes import CONTENTS, changes
from plumbline.config import ConfigError, build
from plumbline.data import scan as scanning
from plumbline.evaluate import evaluate, read_request
from plumbline.first import located
from plumbline.report import read

WORDS = ["data=csv", "data.target=y", "epochs=1", "model.hidden=[4]", "report=false"]


def table(path: Path, rows: int = 80) -> Path:
    """A table of two numbers and a class that is the sign of their sum."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 2)).round(3)
    lines = [f"{a},{b},{'pos' if a + b > 0 else 'neg'}" for a, b in x]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["a,b,y", *lines]) + "\n")
    return path


def edit(path: Path, how: str) -> None:
    """Correct a cell of every row, correct a label, or change the order of the rows."""
    head, *lines = path.read_text().splitlines()
    if how == "cells":
        lines = [f"9.5,{line.partition(',')[2]}" for line in lines]
    elif how == "label":
        old, new = ("pos", "neg") if lines[5].endswith("pos") else ("neg", "pos")
        lines[5] = lines[5].replace(old, new)
    elif how == "order":
        lines = lines[::-1]
    path.write_text("\n".join([head, *lines]) + "\n")


@cache
def chosen(name: str):
    return composed(f"data={name}", "data.target=y" if name == "csv" else "data.channels=1").data


def data(file: Path):
    return build(OmegaConf.merge(chosen("csv"), {"file": str(file)}))()


@pytest.mark.parametrize("how", ["cells", "label", "order"])
def test_edited_rows_are_other_data_and_a_copy_the_same(tmp_path: Path, how: str) -> None:
    """Both the fingerprint of what is trained on and the identity of the source follow the contents alone."""
    file = table(tmp_path / "t.csv")
    before = (data(file).fingerprint(), data(file).identity())
    copy = Path(shutil.copy(file, tmp_path / "other.csv"))
    assert (data(copy).fingerprint(), data(copy).identity()) == before
    edit(file, how)
    assert data(file).fingerprint() != before[0] and data(file).identity() != before[1]


def plain(*words: str) -> dict:
    return OmegaConf.to_container(composed(*words), resolve=True)


def test_a_change_of_contents_is_one_change_unless_a_key_explains_it() -> None:
    """With fingerprints known, paths say nothing where they agree, and contents differ where no data key does."""
    one, other = plain("data=csv", "data.file=a", "data.target=y"), plain("data=csv", "data.file=b", "data.target=y")
    same, edited = ("1111111111-2222222222",) * 2, ("1111111111-2222222222", "1111111111-3333333333")
    assert changes(one, other, same) == {}
    assert changes(one, one, edited) == {CONTENTS: ("22222222…", "33333333…")}
    assert changes(one, other, edited) == {"data.file": ("a", "b")}
    assert changes(one, other) == {"data.file": ("a", "b")}
    seeds = plain("data=csv", "data.file=a", "data.target=y", "data.split_seed=1", "epochs=3")
    assert list(changes(one, seeds, edited)) == ["data.split_seed", "epochs"]
    workers = [plain("data=image_folder", "data.root=a", f"data.workers={count}") for count in (0, 1)]
    assert list(changes(*workers, edited)) == [CONTENTS]  # other workers explain no other data


def test_runs_over_edited_data_are_apart_everywhere(run, tmp_path: Path, capsys) -> None:
    """`since`, `compare` and `journal` see the edit; a run over a moved copy is a replicate."""
    file = table(tmp_path / "t.csv")
    words = [*WORDS, "objective=val/loss"]
    run(*words, f"data.file={file}", folder="2026-01-01/a")
    moved = Path(shutil.copy(file, tmp_path / "moved.csv"))
    run(*words, f"data.file={moved}", "seed=1", folder="2026-01-01/b")
    edit(file, "cells")
    run(*words, f"data.file={file}", folder="2026-01-01/c")
    a, b, c = (tmp_path / "2026-01-01" / name for name in "abc")
    assert noted(b)["change"]["keys"] == {} and noted(b)["change"]["seeds"] == [0, 1]
    assert list(noted(c)["change"]["keys"]) == [CONTENTS]
    assert [len(arm.runs) for arm in arms.grouped([read(a), read(b), read(c)])] == [2, 1]
    assert noted(c)["change"]["outcome"] is None  # its validation samples were edited, too
    rows = compare.compared(*compare.arms([a, b, c], None))
    assert rows[1]["label"].startswith(f"{CONTENTS} ") and "… → " in rows[1]["label"]
    assert (rows[1]["difference"], rows[1]["why"]) == (None, "other validation samples")
    (root,) = journal.tree(journal.entries(tmp_path))
    assert (len(root.replicates), [entry.folder.name for entry in root.below]) == (1, ["c"])


def test_a_first_run_over_edited_data_is_another_run(tmp_path: Path) -> None:
    """Pretraining is found again by the contents of its data: edited data have another folder, moved data the same."""
    file, moved = table(tmp_path / "t.csv"), table(tmp_path / "there" / "t.csv")
    words = "data=csv data.target=y data.file={}".format
    before = located(words(file), [])[1]
    assert located(words(moved), [])[1] == before
    edit(file, "cells")
    assert located(words(file), [])[1] != before


def test_a_finished_stage_over_edited_data_is_refused(run, tmp_path: Path) -> None:
    """A stage that is done stays done over a moved working folder, and is refused when its data were edited."""
    file = table(tmp_path / "t.csv")
    status, folder = run(*WORDS, f"data.file={file}", folder="stages/1")
    words = list(OmegaConf.load(folder / "overrides.yaml"))
    assert (status, stages.run_stage(folder, words)) == (0, 0)
    edit(file, "cells")
    with pytest.raises(ConfigError, match="the data have changed since this stage was run"):
        stages.run_stage(folder, words)


@pytest.mark.slow
def test_moved_data_are_opened_twice_and_edited_data_once(run, tmp_path: Path) -> None:
    """The ledger counts by contents: a copy elsewhere is the same test set, and an edited table another."""
    file = table(tmp_path / "t.csv")
    for name, path in (("a", file), ("b", Path(shutil.copy(file, tmp_path / "moved.csv")))):
        run(*WORDS, f"data.file={path}", folder=name)
    evaluate(read_request([f"run={tmp_path / 'a'}"]))
    with pytest.raises(ConfigError, match="was opened once before"):
        evaluate(read_request([f"run={tmp_path / 'b'}"]))
    edit(file, "cells")
    run(*WORDS, f"data.file={file}", folder="c")
    assert evaluate(read_request([f"run={tmp_path / 'c'}"]))["openings"] == 1


def picture(path: Path, value: int, at: int = 0) -> None:
    """An uncompressed picture of one grey value, one pixel of which is another: all have one size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8), value, np.uint8)
    pixels.flat[at] = 255
    Image.fromarray(pixels).save(path, "BMP")


@pytest.mark.parametrize("cached", [False, True])
def test_an_edited_picture_of_one_size_and_date_is_other_data(tmp_path: Path, monkeypatch, cached: bool) -> None:
    """Whatever its part, and with what a scan knows of it; what did not change is not read again."""
    root = tmp_path / "root"
    for place in range(20):
        for name in ("train", "val", "test"):
            picture(root / name / "xy"[place % 2] / f"{place}.bmp", 5 * place)
    stored = str(tmp_path / "cache") if cached else None

    def known(where: Path, size: int = 8) -> tuple[str, str]:
        options = {"root": str(where), "size": size, "workers": 0, "split": "predefined", "scan_cache": stored}
        made = build(OmegaConf.merge(chosen("image_folder"), options))()
        return made.fingerprint(), made.identity()

    before = known(root)
    shutil.copytree(root, tmp_path / "copy")
    assert known(tmp_path / "copy") == before
    assert known(root, size=4)[1] == before[1]  # one test set, however small it is looked at
    read, digest = [], scanning._digest
    monkeypatch.setattr(scanning, "_digest", lambda path: read.append(path.name) or digest(path))
    for name, same_fingerprint in (("test", True), ("train", False)):
        file = root / name / "x" / "2.bmp"
        was, size = file.stat(), file.stat().st_size
        picture(file, 10, at=9)
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert file.stat().st_size == size
        read.clear()
        now = known(root)
        assert (now[0] == before[0], now[1] == before[1]) == (same_fingerprint, False)
        assert read == ["2.bmp"] if cached else len(read) == 60
        before = now
