"""What all tests share: few threads, the slow flag, and a run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with --slow"))


@pytest.fixture
def train(tmp_path: Path):
    """`train(*overrides)` runs the command in a process of its own, in tmp_path; returns the finished process."""

    def command(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "plumbline.train", *overrides]
        variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200", **environment}
        return subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)

    return command
