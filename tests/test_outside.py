"""A researcher's own model, data and step, in a folder of their own: they train, and their mistakes are said as ours are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from plumbline import train as command

CODE = {
    "model": """
        from torch import nn


        class Mine(nn.Module):
            def __init__(self, spec, *, width: int):
                super().__init__()
                self.layers = nn.Sequential(nn.Flatten(), nn.Linear(spec.shape[0], width), nn.ReLU())
                self.head = nn.Linear(width, spec.outputs)

            def forward(self, x):
                return self.head(self.layers(x))
        """,
    "data": """
        from typing import Unpack

        import numpy as np

        from plumbline.data import Arrays, Data, DataOptions, Spec, in_memory


        def mine(*, samples: int, noise: float, **options: Unpack[DataOptions]) -> Data:
            spec = Spec("classification", (3,), 2, ("below", "above"))

            def load() -> Arrays:
                draws = np.random.default_rng(0)
                x = draws.normal(size=(samples, 3))
                y = (x.sum(1) + noise * draws.normal(size=samples) > 0).astype(int)
                return Arrays(x, y)

            return in_memory(spec, load, **options)
        """,
    "step": """
        from plumbline.loop import supervised


        def mine(training, batches, *, times: int):
            for _ in range(times):
                loss = supervised(training, batches)
            return loss
        """,
}
CONF = {
    "model": "# A model of my own.\n_target_: lab.model.Mine\nwidth: 8\n",
    "data": "# Two half-spaces.\ndefaults: [_common, _self_]\n_target_: lab.data.mine\nsamples: 200\nnoise: 0.1\n",
    "step": "# Each batch several times.\n_target_: lab.step.mine\ntimes: 2\n",
}
WORDS = [
    "--config-dir=lab/conf", "allow=[plumbline,torch.nn,lab]", "data=mine", "model=mine", "step=mine", "epochs=2",
    "batch_size=20", "threads=1", "bootstrap=10",
]  # fmt: skip


def indented(code: str) -> str:
    lines = code.removeprefix("\n").splitlines()
    return "".join(line[8:] + "\n" for line in lines)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """tmp_path/lab: a package beside which its owner stands, with option files of its own in lab/conf."""
    for name, code in CODE.items():
        (tmp_path / "lab" / "conf" / name).mkdir(parents=True)
        (tmp_path / "lab" / f"{name}.py").write_text(indented(code))
        (tmp_path / "lab" / "conf" / name / "mine.yaml").write_text(CONF[name])
    return tmp_path / "lab"


@pytest.fixture
def say(lab: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """`say(*words)` runs the command in this process, beside lab; returns (exit status, what stands on stderr)."""
    monkeypatch.chdir(lab.parent)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words: str) -> tuple[int, str]:
        for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
            del sys.modules[name]
        monkeypatch.setattr(sys, "argv", ["train", *WORDS, *words])
        status = command.main()
        return status, capfd.readouterr().err

    return run


def change(path: Path, old: str, new: str) -> int:
    """Write the mistake; return the number of its line."""
    before, found, after = path.read_text().partition(old)
    assert found
    path.write_text(before + new + after)
    return before.count("\n") + new.count("\n") + 1


def test_a_model_a_data_set_and_a_step_of_ones_own_train(lab: Path, train) -> None:
    finished = train(*WORDS)
    assert (finished.returncode, finished.stderr) == (0, "")
    (folder,) = (path.parent for path in lab.parent.glob("outputs/*/*/run.json"))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["data"]["train"], run["data"]["outputs"]) == ("finished", 120, 2)
    assert run["parameters"] == 3 * 8 + 8 + 8 * 2 + 2


def test_the_step_of_ones_own_is_the_step_that_is_done(say, lab: Path) -> None:
    losses = []
    for times in (1, 2):
        assert say(f"step.times={times}", f"name=x{times}")[0] == 0
        (file,) = lab.parent.glob(f"outputs/*/*x{times}*/metrics.jsonl")
        losses.append(json.loads(file.read_text().splitlines()[0])["val/loss"])
    assert losses[0] > losses[1]  # twice the updates


WRONG = [  # words, the message's beginning, what it contains
    (["model.widht=3"], "model.widht=3: there is no such key", "(did you mean 'width'?)"),
    (["+model.depth=3"], "model.depth=3: no such key", "lab.model.Mine takes: width"),
    (["model.width=wide"], "model.width=wide: must be a whole number", ""),
    (["data.noise=loud"], "data.noise=loud: must be a number", ""),
    (["step.times=[1]"], "step.times=[1]: must be a whole number", ""),
    (["~step.times"], "step.times: has no value", "lab.step.mine needs it"),
    (["data.samples=3"], "data.split=stratified: ", "too few"),
    (["allow=[plumbline]"], "data._target_=lab.data.mine: lies outside", "'allow=[plumbline,lab]'"),
]


@pytest.mark.parametrize(("words", "beginning", "part"), WRONG, ids=[words[0] for words, _, _ in WRONG])
def test_a_wrong_value_for_ones_own_is_said_in_one_message(words, beginning, part, say, lab: Path) -> None:
    status, error = say(*words)
    assert (status, error.count("\n")) == (2, 1), error
    assert error.startswith(f"plumbline: {beginning}")
    assert part in error
    assert not (lab.parent / "outputs").exists()


BUGS = [  # file, old, new, group, what is said beside the place
    ("model", "self.layers(x)", "self.layer(x)", "model", "AttributeError: 'Mine' object has no attribute 'layer'"),
    ("model", "spec.shape[0]", "spec.shape[1]", "model", "IndexError: tuple index out of range"),
    ("model", "return self.head(self.layers(x))", "return self.head(x)", "model", "RuntimeError: mat1 and mat2 shapes"),
    ("model", "import nn\n", "import nn\n1 / 0\n", "model", "ZeroDivisionError: division by zero"),
    ("model", "import nn\n", "import nm\n", "model", "ImportError: cannot import name 'nm'"),
    ("model", "def forward(self, x):", "def forward(self, x)", "model", "expected ':'"),
    ("step", "supervised(training, batches)", "supervised(training, batch)", "step", "NameError: name 'batch' is not"),
    ("data", "    draws = np.", "    draws = np.nothing.", "data", "AttributeError: module 'numpy' has no attribute 'nothing'"),
    ("data", "    spec = Spec(", "    spec = Spek(", "data", "NameError: name 'Spek' is not defined"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "group", "said"), BUGS, ids=[case[2].strip() for case in BUGS])
def test_a_bug_in_ones_own_code_is_said_with_its_group_and_its_line(
    file, old, new, group, said, say, lab: Path
) -> None:
    line = change(lab / f"{file}.py", old, new)
    line -= new.endswith("\n")
    status, error = say()
    assert (status, error.count("\n")) == (2, 1), error
    assert error.startswith(f"plumbline: {group}")
    assert said in error
    assert f"{lab / file}.py, line {line}" in error
    assert "Traceback" not in error
    assert not (lab.parent / "outputs").exists()


@pytest.mark.parametrize("case", [BUGS[0], BUGS[6]], ids=lambda case: case[2].strip())
def test_a_process_of_its_own_says_the_same(case, train, lab: Path) -> None:
    file, old, new, group, said = case
    change(lab / f"{file}.py", old, new)
    finished = train(*WORDS)
    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1), finished.stderr
    assert finished.stderr.startswith(f"plumbline: {group}")
    assert said in finished.stderr


RETURNS = [
    ("model", "return self.head(self.layers(x))", "return self.layers(x)", "model: for a batch of 2 it gave (2, 8)", "(2, 2)"),
    ("model", "return self.head(self.layers(x))", "return None", "model: for a batch of 2 it gave NoneType", "(2, 2)"),
    ("data", "Arrays(x, y)", "Arrays(x[:, :2], y)", "data: x is (200, 2)", "(N, 3)"),
    ("data", "return in_memory(spec, load, **options)", "in_memory(spec, load, **options)", "data: ", "Data"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "beginning", "part"), RETURNS, ids=[case[3] for case in RETURNS])
def test_what_ones_own_code_gives_back_is_looked_at(file, old, new, beginning, part, say, lab: Path) -> None:
    change(lab / f"{file}.py", old, new)
    status, error = say()
    assert (status, error.count("\n")) == (2, 1), error
    assert error.startswith(f"plumbline: {beginning}")
    assert part in error
