"""scripts/setup: nothing to do is nothing done; what cannot be done is said."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts" / "setup")
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    return tmp_path


def setup(clone: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "HOME": str(clone)} | environment
    return subprocess.run([clone / "scripts" / "setup"], env=variables, capture_output=True, text=True, timeout=60)


def test_with_nothing_to_do_it_starts_no_python(clone: Path) -> None:
    (clone / ".venv").mkdir()
    shutil.copy(clone / "requirements.lock", clone / ".venv")
    programs = clone / "bin"
    programs.mkdir()
    for name in ("python", "python3", "python3.11", "python3.12", "python3.13"):
        (programs / name).write_text(f"#!/bin/sh\necho {name} >> {clone}/started\nexit 1\n")
        (programs / name).chmod(0o755)
    assert setup(clone, PATH=f"{programs}:{os.environ['PATH']}").returncode == 0
    assert not (clone / "started").exists()
    (clone / ".venv/requirements.lock").write_text("")
    assert setup(clone, PATH=f"{programs}:{os.environ['PATH']}").returncode == 2
    assert (clone / "started").exists()


def test_a_python_that_is_too_old_is_named_with_the_cure(clone: Path) -> None:
    old = clone / "bin"
    old.mkdir()
    for name in ("python3", "python", "python3.11", "python3.12", "python3.13"):
        (old / name).write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
        (old / name).chmod(0o755)
    done = setup(clone, PATH=f"{old}:/usr/bin:/bin")
    assert done.returncode == 2
    assert "needs Python 3.11, 3.12 or 3.13; python3 here is Python 3.9.2" in done.stderr
    assert "PYTHON=" in done.stderr
    assert not (clone / ".venv").exists()


def test_the_lock_pins_every_version_and_names_no_place_to_get_it_from() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.partition(" ;")[0].split("==") for line in lines)
    assert all(version[0].isdigit() for version in pins.values())
    assert (pins["torch"], pins["torchvision"]) == ("2.14.1", "0.29.1")
    assert not any("://" in line or line.startswith("-") for line in lines)


def test_the_lock_fulfils_what_the_project_asks_for() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = {name.lower(): version for name, version in (line.partition(" ;")[0].split("==") for line in lines)}
    for wanted in map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"]):
        assert wanted.specifier.contains(pins[wanted.name.lower()]), wanted
