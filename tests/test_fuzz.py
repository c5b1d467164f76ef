"""A few of each random attack of tests/attack.py, always the same ones: nothing runs, nothing is lost, one message."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

TRIES = {"commands": 60, "damage": 5, "kills": 3, "hostile": 5}  # 100 s; by hand tests/attack.py takes larger numbers


@pytest.mark.slow
def test_random_attacks_end_in_status_0_or_one_message() -> None:
    """Every command ends with a status of the table and at most one message; nothing of the user's is touched."""
    words = [f"{name}={count}" for name, count in TRIES.items()]
    attack = [sys.executable, str(ROOT / "tests" / "attack.py"), *words, "seed=7", "jobs=1"]
    finished = subprocess.run(attack, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    rows = [line.split()[:3] for line in finished.stdout.splitlines()[-len(TRIES) :]]
    assert rows == [[name, str(count), str(count)] for name, count in TRIES.items()]


def test_the_attack_sees_what_goes_wrong() -> None:
    """The judge names each kind of wrong ending, and accepts the right ones."""
    from fuzz_process import Ended, fault

    right = "plumbline: epochs=abc: must be a whole number\n"
    judged = [
        (Ended("train", ["a"], 0), None),
        (Ended("train", ["a"], 2, err=right), None),
        (Ended("train", ["a"], 1, err=right), None),
        (Ended("journal", [], 2, out="usage\n"), None),
        (Ended("train", ["a"], 2), "status 2 without a message"),
        (Ended("train", ["a"], 2, err=2 * right), "more than one message"),
        (Ended("train", ["a"], 2, err=right + "warning\n"), "other lines beside the message"),
        (Ended("train", ["a"], 1, err="Traceback (most recent call last):\n"), "traceback"),
        (Ended("train", ["a"], 1), "status 1 without a sentence"),
        (Ended("train", ["a"], 247), "status 247"),
        (Ended("train", ["a"], -11), "ended by signal 11"),
        (Ended("train", ["a"], -24, hung=True), "hang"),
        (Ended("train", ["a"], 2, err=right.replace("abc", "\x1b[2J")), "control characters"),
        (Ended("train", ["a"], 2, err=right, calls=["os.system 'id'"]), "executed"),
    ]
    assert [fault(ended) for ended, _ in judged] == [kind for _, kind in judged]


def test_a_forked_command_that_runs_a_program_is_seen(tmp_path) -> None:
    """Calls of other programs, and writing outside of the folder, are noted; those of a run are not."""
    from fuzz_process import forbidden

    within = str(tmp_path)
    assert forbidden("os.system", ("id",), within) == "os.system 'id'"
    assert forbidden("subprocess.Popen", ("touch", ["touch", "x"], None, None), within) == "subprocess.Popen touch x"
    assert forbidden("subprocess.Popen", ("git", ["git", "status"], None, None), within) is None
    assert forbidden("open", (f"{within}/x", "w", 577), within) is None
    assert forbidden("open", ("/elsewhere/x", "w", 577), within) == "open /elsewhere/x"


def test_command_lines_are_drawn_from_the_seed_alone() -> None:
    """The same seed and number draw the same words; a thousand draws are of all commands, and hardly any two are equal."""
    from fuzz_process import MODULES
    from fuzz_words import draw

    drawn = [draw(0, number) for number in range(1000)]
    assert drawn[:50] == [draw(0, number) for number in range(50)]
    assert {name for name, _ in drawn} == set(MODULES)
    assert len({(name, *words) for name, words in drawn}) > 950
