"""Every root value of conf/train.yaml has a proof of its effect, and every experiment its question and its number."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import composed, noted, one_in, records
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from test_options import CONF, CPU, FILES, SHORT, TESTS, changed, images, is_test, numbers, option, usual

from plumbline.assemble import assemble
from plumbline.config import COMBINED, GROUPS, OPTIONAL, PLACE, PRESETS, Config, check_config
from plumbline.evaluate import read_request
from plumbline.scoring import Scoring
from plumbline.stages import parse

MOVES = {  # values that move the numbers of a tiny run
    "seed": 1, "epochs": 2, "batch_size": 7, "accumulate": 2, "grad_clip": 0.01, "ema": 0.5, "precision": "bf16",
    "watch": 0, "swa": 0.5,
}  # fmt: skip
SHOWS: dict[str, tuple[Any, Any]] = {  # values that a whole run shows: another value, and where it is seen
    "question": ("Why?", lambda folder: noted(folder)["question"]),
    "objective": ("val/loss", lambda folder: noted(folder)["objective"]),
    "direction": ("minimise", lambda folder: (noted(folder)["direction"], noted(folder)["best"]["epoch"])),
    "bootstrap": (7, lambda folder: noted(folder)["interval"]),
    "train_eval": (5, lambda folder: [record["train/loss"] for record in records(folder)]),
    "patience": (1, lambda folder: len(records(folder))),
}
PROVEN = {
    "device": "test_mistakes.py::test_a_device_that_is_not_there_is_said_with_those_that_are",
    "channels_last": "test_run.py::test_channels_last_changes_the_layout_and_not_the_result",
    "shard": "test_distributed.py::test_each_process_holds_its_part_of_weights_and_moments_and_takes_up_what_was_gathered",
    "resume": "test_resume.py::test_a_killed_run_goes_on_to_the_same_bits",
    "allow": "test_config.py::test_a_users_code_is_refused_and_not_imported_until_its_package_is_allowed",
    "name": "test_root_values.py::test_name_and_outputs_are_in_the_folder_of_a_run",
    "outputs": "test_root_values.py::test_name_and_outputs_are_in_the_folder_of_a_run",
    "compile": "test_root_values.py::test_compile_compiles_the_network",
    "threads": "test_root_values.py::test_threads_are_those_of_torch",
    "eval_batch_size": "test_root_values.py::test_sets_are_scored_in_batches_of_eval_batch_size",
    "report": "test_root_values.py::test_a_run_without_report_leaves_the_same_numbers_and_no_page",
    "snapshots": "test_members.py::test_snapshots_are_the_weights_of_their_epochs_and_answer_together",
    "parent": "test_changes.py::test_a_run_knows_what_it_changes_of_the_nearest_run_and_what_came_of_it",
    "study": "test_search_study.py::test_a_grid_is_a_study_in_a_folder_of_its_name",
    "save_minutes": "test_root_values.py::test_checkpoints_inside_an_epoch_come_every_save_minutes",
}


def test_every_root_value_has_its_proof() -> None:
    values = set(Config.__annotations__) - {
        *GROUPS,
        *OPTIONAL,
        *COMBINED,
        *PRESETS,
        *PLACE,
        "search",
        "space",
        "pruner",
    }
    assert {*MOVES, *SHOWS, *PROVEN} == values
    assert [name for name in PROVEN.values() if not is_test(name)] == []


@pytest.mark.parametrize("key", MOVES)
def test_a_root_value_moves_the_numbers(key: str) -> None:
    other = changed(option("model", "mlp"), SHORT | {key: MOVES[key]})
    assert numbers(other) != usual("model", "mlp")


LITTLE = ["data=iris", "epochs=4", "optimiser.lr=0.3", "schedule=constant", "model.hidden=[3]"]


@pytest.fixture
def light(run, monkeypatch: pytest.MonkeyPatch):
    """`run` without its report, which is most of the time of a run so small."""
    import plumbline.run as story

    monkeypatch.setattr(story, "write_report", lambda directory: None)
    return run


def test_a_root_value_shows_in_the_run(light) -> None:
    _, usually = light(*LITTLE, folder="usual")
    for key, (value, look) in SHOWS.items():
        status, folder = light(*LITTLE, f"{key}={value}", folder=key)
        assert (status, key, look(folder) != look(usually)) == (0, key, True)


def test_a_run_keeps_what_was_changed_and_every_value_it_had(light) -> None:
    words = [*LITTLE, "seed=3"]
    _, folder = light(*words)
    kept = list(OmegaConf.load(folder / "overrides.yaml"))
    assert [word for word in kept if word in words] == words
    had, given = OmegaConf.load(folder / "config.yaml"), OmegaConf.to_container(composed(*kept), resolve=True)
    assert {key: had[key] for key in given if key in had} == {key: given[key] for key in given if key in had}
    assert {*Config.__annotations__} - {*PLACE, "search", "space", "pruner", "study"} <= {*had}


def test_a_run_without_report_leaves_the_same_numbers_and_no_page(run) -> None:
    _, usual_ = run(*LITTLE, folder="usual")
    _, without = run(*LITTLE, "report=false", folder="without")
    assert records(usual_) == records(without)
    assert [(folder / "report.html").exists() for folder in (usual_, without)] == [True, False]
    assert not (without / "figures").exists()


def test_checkpoints_inside_an_epoch_come_every_save_minutes(light, monkeypatch: pytest.MonkeyPatch) -> None:
    from plumbline.state import State

    saved: list[int] = []
    monkeypatch.setattr(State, "save", lambda state, path, lazily=False: saved.append(state.step))
    counts = []
    for minutes in ("5", "1e-9"):
        saved.clear()
        light(*LITTLE, "epochs=1", "batch_size=30", f"save_minutes={minutes}", folder=minutes)
        counts.append(list(saved))
    assert counts == [[0], [1, 2, 3, 0]]  # 90 samples: three updates, then the epoch's end


def test_a_batch_may_be_one_sample_or_all_of_train(light) -> None:
    for size, updates in ((1, 50), (100_000, 1)):
        status, folder = light("data.subset=50", "epochs=3", f"batch_size={size}", folder=str(size))
        lines = records(folder)
        assert (status, [line["step"] for line in lines]) == (0, [updates * epoch for epoch in (1, 2, 3)])
        assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    assert [line["train/loss"] for line in lines] == sorted((line["train/loss"] for line in lines), reverse=True)


def test_name_and_outputs_are_in_the_folder_of_a_run() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["name=quince", "outputs=elsewhere"], return_hydra_config=True)
    folder = Path(cfg.hydra.run.dir)
    assert folder.parts[0] == "elsewhere"
    assert "-quince-" in folder.name


def test_compile_compiles_the_network() -> None:
    made = []
    for wanted in (False, True):
        training, *_ = assemble(changed(option("model", "mlp"), {"compile": wanted}), images(), CPU)
        made.append(training.model._compiled_call_impl is not None)
    assert made == [False, True]


def test_threads_are_those_of_torch() -> None:
    from plumbline.device import prepare

    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            prepare(CPU, threads, 10**12)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("size", [10, 48])
def test_sets_are_scored_in_batches_of_eval_batch_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cfg = images(), changed(option("model", "mlp"), {"eval_batch_size": size})
    training, state, _, _ = assemble(cfg, data, CPU)
    sizes: list[int] = []
    training.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    Scoring(data, training, cfg).outputs(state.network, data.val)
    assert sizes == ([10, 10, 10, 10, 8] if size == 10 else [48])


# --- experiments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name",), one_in(4, [(file.stem,) for file in FILES if file.parent.name == "experiment"]))
def test_an_experiment_opens_with_question_command_cost_and_number_and_its_number_is_tested(name: str) -> None:
    head = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:5]
    words = ["# @package _global_", "# Question:", "# Command:", "# Cost:", "# Expected:"]
    assert [line for line, word in zip(head, words, strict=True) if not line.startswith(word)] == []
    cfg = composed(f"experiment={name}")
    check_config(cfg)
    assert cfg.question.lower() == head[1].removeprefix("# Question:").strip().lower()
    assert any(f"experiment={name}" in file.read_text(encoding="utf-8") for file in TESTS.glob("test_[!o]*.py"))


OVERRIDE = re.compile(r"[\w./]+=|~")
OTHERS = ("plumbline.evaluate", "plumbline.stages")  # commands that a header tells to run beside scripts/train


def alternatives(command: str) -> list[list[str]]:
    """What a header tells to run: the words key=value and ~key before the brackets, and these with each run of such words
    in them. A run that names an experiment stands for itself, and so does what another command is told, its first word."""
    before, _, brackets = command.partition("     (")
    base = [word for word in shlex.split(before) if OVERRIDE.match(word)]
    runs: list[list[str]] = []
    going = False
    for piece in brackets.removesuffix(")").split():
        word = piece.rstrip(",;:")
        staged = going and runs[-1][0] == "plumbline.stages"  # whose folder, and each /, are words, too
        counts = word in OTHERS or OVERRIDE.match(word) or staged
        if counts and not going:
            runs.append([])
        if counts:
            runs[-1].append(word)
        going = bool(counts) and piece == word
    return [base, *(run if run[0].startswith(("experiment=", "plumbline.")) else base + run for run in runs)]


def first_of(word: str) -> str:
    """Of a sweep's word, the one that stands for its first value."""
    override = OverridesParser.create().parse_override(word)
    return f"{override.key_or_group}={next(override.sweep_string_iterator())}" if override.is_sweep_override() else word


@pytest.mark.slow
@pytest.mark.parametrize("name", [file.stem for file in FILES if file.parent.name == "experiment"])
def test_each_command_of_a_header_can_be_pasted_and_composes(name: str) -> None:
    line = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[2]
    command = line.removeprefix("# Command:").strip()
    assert command.startswith("scripts/train ") and not set("<>…") & set(command)
    before = command.partition("     (")[0]
    said = subprocess.run(["bash", "-c", f"printf '%s\\n' {before}"], capture_output=True, text=True)
    assert (said.returncode, said.stdout.split()) == (0, shlex.split(before))
    for words in alternatives(command):
        if words[0] == "plumbline.evaluate":
            assert read_request(words[1:]).on == "val"
        elif words[0] == "plumbline.stages":
            for stage in parse(words[1:])[1]:
                check_config(composed(*stage))
        else:
            check_config(composed(*(first_of(word) for word in words)))


def test_the_alternatives_of_a_header_are_read_as_they_are_meant() -> None:
    base = ["experiment=a", "seed=0,1"]
    line = "scripts/train -m experiment=a seed=0,1     (and b=1 ~c, or d=[2,3]; then python -m plumbline.evaluate run=x on=val)"
    told = [base, [*base, "b=1", "~c"], [*base, "d=[2,3]"], ["plumbline.evaluate", "run=x", "on=val"]]
    assert alternatives(line) == told
    assert alternatives("scripts/train experiment=a     (which is experiment=e)") == [
        ["experiment=a"],
        ["experiment=e"],
    ]
