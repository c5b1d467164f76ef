"""Every command of the README is run, and what it says of adding a model is done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("   #")[0].strip() for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()
]
TRAIN = [line for line in COMMANDS if line.startswith("scripts/train")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, as a clone would have it, with the files that the README tells to add."""
    folder = tmp_path_factory.mktemp("clone")
    for part in ("conf", "src", "slurm"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, content in re.findall(r"^`((?:src|conf)/[^`]+)`\n```\w+\n(.*?)```", TEXT, re.S | re.M):
        assert not (folder / name).exists(), name
        (folder / name).write_text(content)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", TRAIN)
def test_a_command_of_the_readme_ends_well(command: str, clone: Path) -> None:
    needs_images = "fashion" in command or "weight_decay" in command
    if needs_images and not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    line = command.replace("scripts/train", f"{sys.executable} -m plumbline.train", 1)
    environment = {**os.environ, "PYTHONPATH": str(clone / "src"), "WANDB_MODE": "offline"}
    done = subprocess.run(["bash", "-c", line], cwd=clone, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_block_is_covered() -> None:
    assert set(COMMANDS) - set(TRAIN) == {"scripts/test"}
    assert len(TRAIN) >= 8


def test_the_tree_names_every_file_and_every_named_file_exists() -> None:
    tree = re.search(r"## The tree\n\n```text\n(.*?)```", TEXT, re.S)[1]
    named = set(re.findall(r"\b([a-z_]+\.py)\b", tree))
    package = ROOT / "src" / "plumbline"
    there = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert there <= named
    assert {name for name in named if not list(package.rglob(name))} == set()
    folders = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(re.findall(r"\b([a-z_]+)/", tree))


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).exists(), target
