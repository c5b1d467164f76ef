"""Checkpoints: whole or not at all, and never the only one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from plumbline.config import ConfigError
from plumbline.state import NotSaved, State, before, read, write


def state_of(seed: int, width: int = 4) -> State:
    torch.manual_seed(seed)
    model = nn.Linear(3, width)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).square().mean().backward()
    optimiser.step()
    return State(
        model,
        optimiser,
        epoch=seed,
        step=7,
        scores=[1.0, 0.5],
        best={"epoch": 1, "val/loss": 0.5},
        records=[{"epoch": 1}],
    )


def assert_same(one: State, other: State) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))
    moments = [[v for slot in s.optimiser.state_dict()["state"].values() for v in slot.values()] for s in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    assert (one.epoch, one.step, one.scores, one.best, one.records) == (
        other.epoch,
        other.step,
        other.scores,
        other.best,
        other.records,
    )


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    saved, loaded = state_of(1), state_of(2)
    saved.save(tmp_path / "last.pt")
    assert loaded.load(tmp_path / "last.pt") is None
    assert_same(saved, loaded)


def test_saving_lazily_takes_a_tenth_of_the_time_and_asked_for_it_is_done_at_once(tmp_path: Path, monkeypatch) -> None:
    now, saves = [0.0], []
    monkeypatch.setattr("plumbline.state.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "plumbline.state.write", lambda *_, **__: (saves.append(now[0]), now.__setitem__(0, now[0] + 2))
    )
    state = state_of(1)
    for _ in range(100):  # epochs of a second, of which saving takes two
        now[0] += 1
        state.save(tmp_path / "last.pt", lazily=True)
    assert saves == [1.0, 21.0, 41.0, 61.0, 81.0, 101.0]
    assert state.behind
    state.save(tmp_path / "last.pt")
    assert (len(saves), state.behind) == (7, False)


def test_records_are_saved_as_one_text_with_every_digit_and_those_of_an_earlier_version_are_read(
    tmp_path: Path,
) -> None:
    records = [{"epoch": at, "val/loss": value} for at, value in enumerate([0.1 + 0.2, 1e-320, -0.0, float("inf")], 1)]
    saved, loaded = state_of(1), state_of(2)
    for record in records:  # the first of them was saved before
        saved.records.append(record)
        saved.save(tmp_path / "last.pt")
    content, _ = read(tmp_path / "last.pt")
    assert content["records"].count("\n") == len(records)
    loaded.load(tmp_path / "last.pt")
    assert repr(loaded.records) == repr(saved.records)
    write(content | {"records": records, "scores": [0.1, 0.7]}, tmp_path / "last.pt")
    loaded.load(tmp_path / "last.pt")
    assert (loaded.records, loaded.scores) == (records, [0.1, 0.7])
    loaded.save(tmp_path / "last.pt")
    assert read(tmp_path / "last.pt")[0]["records"].count("\n") == len(records) - 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone", "text"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(damage: str, tmp_path: Path) -> None:
    last, first, loaded = tmp_path / "last.pt", state_of(1), state_of(3)
    first.save(last)
    state_of(2).save(last)
    content = bytearray(last.read_bytes())
    if damage == "flipped":
        weights = next(iter(state_of(2).model.parameters())).detach().numpy().tobytes()
        content[bytes(content).index(weights) + 2] ^= 1  # one bit of one weight: torch itself would not notice
    changed = {"cut": content[: len(content) // 2], "flipped": content, "empty": b"", "text": b"no checkpoint"}
    last.unlink() if damage == "gone" else last.write_bytes(changed[damage])
    word = loaded.load(last)
    assert_same(first, loaded)
    assert damage == "gone" or "going on from last.pt.before" in word


def test_two_damaged_checkpoints_are_one_clear_error(tmp_path: Path) -> None:
    last = tmp_path / "last.pt"
    last.write_bytes(b"")
    before(last).write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"no checkpoint can be read.*last.pt is damaged.*last.pt.before is damaged"):
        state_of(1).load(last)


def test_a_checkpoint_of_another_network_is_one_clear_error(tmp_path: Path) -> None:
    state_of(1).save(tmp_path / "last.pt")
    with pytest.raises(ConfigError, match="another network"):
        state_of(1, width=5).load(tmp_path / "last.pt")


def test_a_full_disk_leaves_the_checkpoints_as_they_were_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, first, loaded = tmp_path / "last.pt", state_of(1), state_of(3)
    first.save(last)
    content = last.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotSaved, match=r"could not be written .*No space left"):
        state_of(2).save(last)
    monkeypatch.undo()
    assert last.read_bytes() == content
    assert [item.name for item in tmp_path.iterdir()] == ["last.pt"]
    loaded.load(last)
    assert_same(first, loaded)


def test_weights_are_read_without_running_what_a_pickle_may_hold(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "broken-into"),))

    torch.save({"model": Evil()}, tmp_path / "last.pt")
    with pytest.raises(ConfigError, match="damaged"):
        state_of(1).load(tmp_path / "last.pt")
    assert not (tmp_path / "broken-into").exists()


def test_there_is_no_moment_without_a_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, there = tmp_path / "last.pt", []
    state_of(1).save(last)
    for name in ("replace", "link", "unlink"):
        real = getattr(os, name)

        def watched(*arguments, real=real, **options):
            there.append(last.exists())
            done = real(*arguments, **options)
            there.append(last.exists())
            return done

        monkeypatch.setattr(os, name, watched)
    state_of(2).save(last)
    assert len(there) >= 6
    assert all(there)


def test_a_kill_between_the_two_names_of_a_checkpoint_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write({"step": 0}, path, keep=True)
    os.link(path, before(path))  # as a kill leaves it that comes after the one renaming and before the other
    for step in (1, 2, 3):
        write({"step": step}, path, keep=True)
        assert read(path)[0] == {"step": step}
    assert read(before(path))[0] == {"step": 2}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["last.pt", "last.pt.before"]
