"""A mistake is said in one message, with path, value and what would be right; nothing is left behind, nothing is slow."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, affordable, one_in

from plumbline import train as command

GLOBAL = "# @package _global_\n"
MLP = "# x\n_target_: plumbline.models.mlp.MLP\nhidden: [8]\nactivation: relu\nnorm: none\n"
LAB = "--config-dir=conf"

# What composition sees: words, parts of the message, files that stand in conf/ (see LAB).
COMPOSED: list[tuple[list[str], list[str], dict[str, str | bytes]]] = [
    # a wrong key
    (["epcohs=3"], ["epcohs=3", "(did you mean 'epochs'?)"], {}),
    (["zzz=3"], ["zzz=3", "a run has: data, model", "allow"], {}),
    (["model.widht=3"], ["model.widht=3", "model has: hidden, activation, norm"], {}),
    (["optimiser.weight_deacy=3"], ["optimiser.weight_deacy=3", "(did you mean 'weight_decay'?)"], {}),
    (["+foo=1"], ["foo=1", "there is no such key"], {}),
    (["++a.b=1"], ["a={b:1}", "there is no such key"], {}),
    (["data.root=x"], ["data.root=x", "data has: split, split_seed"], {}),
    (["regulariser.dropout.rate=0.5"], ["regulariser.dropout.rate=0.5", "say regulariser=[dropout]"], {}),
    (["hydra.run.dri=x"], ["hydra.run.dri=x", "(did you mean 'dir'?)"], {}),
    ([LAB, "experiment=e"], ["epcohs=50", "conf/experiment/e.yaml", "(did you mean 'epochs'?)"],
     {"experiment/e": GLOBAL + "epcohs: 50\n"}),
    ([LAB, "experiment=e"], ["hydra.run.dri=x", "conf/experiment/e.yaml", "no such key"],
     {"experiment/e": GLOBAL + "hydra: {run: {dri: x}}\n"}),
    ([LAB, "experiment=e"], ["conf/experiment/e.yaml", "must open with `# @package _global_`"],
     {"experiment/e": "epochs: 3\n"}),
    # a wrong type
    (["seed=abc"], ["seed=abc", "must be a whole number"], {}),
    (["seed=1.5"], ["seed=1.5", "must be a whole number"], {}),
    (["seed=null"], ["seed=null", "must be a whole number"], {}),
    (["epochs=true"], ["epochs=true", "must be a whole number"], {}),
    (["epochs="], ["epochs=", "must be a whole number"], {}),
    (["compile=maybe"], ["compile=maybe", "must be true or false"], {}),
    (["ema=abc"], ["ema=abc", "must be a number in [0, 1) or null"], {}),
    (["allow=plumbline"], ["allow=plumbline", "must be a list of words"], {}),
    ([LAB, "experiment=e"], ["epochs=many", "conf/experiment/e.yaml", "must be a whole number"],
     {"experiment/e": GLOBAL + "epochs: many\n"}),
    ([LAB, "experiment=e"], ["allow=os", "conf/experiment/e.yaml", "must be a list of words"],
     {"experiment/e": GLOBAL + "allow: os\n"}),
    ([LAB, "experiment=e"], ["model=3", "conf/experiment/e.yaml", "must be a mapping"],
     {"experiment/e": GLOBAL + "model: 3\n"}),
    ([LAB, "experiment=e"], ["conf/experiment/e.yaml", "Cannot merge"], {"experiment/e": GLOBAL + "- 1\n- 2\n"}),
    # a value out of range
    (["epochs=-1"], ["epochs=-1", "must be a whole number in [0, 10000000]"], {}),
    (["batch_size=0"], ["batch_size=0", "must be a whole number of at least 1 or auto"], {}),
    (["seed=99999999999999999999"], ["seed=99999999999999999999", "must be a whole number in [0, 9223372036854775807]"], {}),
    (["snapshots=[1,9]", "epochs=2"], ["snapshots=[1,9]", "there are 2 epochs"], {}),
    (["snapshots=[0]"], ["snapshots=[0]", "must be a list of whole numbers of at least 1, each once"], {}),
    (["swa=1"], ["swa=1.0", "must be a number in [0, 1) or null"], {}),
    (["patience=0"], ["patience=0", "must be a whole number of at least 1 or null"], {}),
    (["precision=fp8"], ["precision=fp8", "fp32, bf16, fp16"], {}),
    (["device=gpu"], ["device=gpu", "auto, cpu, cuda"], {}),
    (["name=a/b"], ["name='a/b'", "without slashes"], {}),
    (["outputs="], ["outputs=", "not empty"], {}),
    # a wrong option
    (["modle=mlp"], ["modle=mlp", "(did you mean 'model'?)"], {}),
    (["model=mpl"], ["model=mpl", "(did you mean 'mlp'?)", "model has: autoencoder, branch, cnn"], {}),
    (["regulariser=[dropuot]"], ["regulariser=[dropuot]", "(did you mean 'dropout'?)"], {}),
    (["augment=shfit"], ["augment=[shfit]", "(did you mean 'shift'?)"], {}),
    (["experiment=nope"], ["experiment=nope", "experiment has: "], {}),
    (["model=3"], ["model=3", "model has: autoencoder, branch, cnn"], {}),
    (["hydra/launcher=nope"], ["hydra/launcher/nope", "basic"], {}),
    ([LAB, "experiment=e"], ["model=mpl", "(did you mean 'mlp'?)"],
     {"experiment/e": GLOBAL + "defaults:\n  - override /model: mpl\n"}),
    ([LAB, "experiment=e"], ["regulariser=[dropuot]", "(did you mean 'dropout'?)"],
     {"experiment/e": GLOBAL + "defaults:\n  - override /regulariser: [dropuot]\n"}),
    ([LAB, "experiment=e"], ["conf/experiment/e.yaml", "override /modell", "(did you mean 'model'?)"],
     {"experiment/e": GLOBAL + "defaults:\n  - override /modell: mlp\n"}),
    ([LAB, "experiment=e"], ["model=cnn", "override /model: cnn"], {"experiment/e": GLOBAL + "defaults:\n  - /model: cnn\n"}),
    ([LAB, "optimiser=mine"], ["optimiser=_comon", "optimiser has: adagrad"],
     {"optimiser/mine": "# x\ndefaults: [_comon, _self_]\n"}),
    # none, or several, of what there must be one of
    (["data=null"], ["data=null", "a run needs one data"], {}),
    (["model="], ["model=", "a run needs one model"], {}),
    (["~model"], ["model", "a run needs exactly one model"], {}),
    (["~epochs"], ["epochs", "has no value"], {}),
    (["model=[mlp,cnn]"], ["model=[mlp,cnn]", "takes one option", "regulariser, augment, tracker"], {}),
    (["regulariser=null"], ["regulariser=null", "is []"], {}),
    (["experiment=null"], ["experiment=null", "leave it out"], {}),
    (["+model=cnn"], ["model=cnn", "chosen already"], {}),
    (["+optimiser.lr=3"], ["optimiser.lr=3", "already"], {}),
    ([LAB, "experiment=e"], ["loss", "exactly one"],
     {"experiment/e": GLOBAL + "defaults:\n  - override /loss: [mse, l1]\n"}),
    ([LAB, "experiment=e"], ["model", "exactly one"], {"experiment/e": GLOBAL + "defaults:\n  - override /model: null\n"}),
    ([LAB, "model=mine"], ["model", "has no _target_"], {"model/mine": "# x\nhidden: [3]\n"}),
    ([LAB, "experiment=e"], ["regulariser.dropout", "say regulariser=[dropout]"],
     {"experiment/e": GLOBAL + "regulariser: {dropout: {rate: 0.5}}\n"}),
    # what cannot be read
    (["epochs=1,2"], ["epochs=1,2", "put -m in front", "epochs=[…]"], {}),
    (["model.hidden=[1"], ["model.hidden=[1", "cannot be read as key=value"], {}),
    (["epochs"], ["epochs", "cannot be read as key=value"], {}),
    (["=3"], ["=3", "has no key"], {}),
    (["epochs=${nowhere}"], ["epochs=${nowhere}", "'nowhere' not found"], {}),
    (["model.hidden=${nowhere}"], ["model.hidden=${nowhere}", "'nowhere' not found"], {}),
    (["hydra.run.dir=${nowhere}"], ["hydra.run.dir", "'nowhere' not found"], {}),
    (["--frobnicate"], ["--frobnicate", "--hydra-help"], {}),
    (["--cfg", "nothing"], ["nothing", "'job', 'hydra', 'all'"], {}),
    (["--config-dir=nope"], ["--config-dir=", "nope", "no such folder"], {}),
    (["--config-name=nope"], ["nope", "config"], {}),
    (["--resolve"], ["--resolve", "--cfg"], {}),
    ([LAB, "experiment=e"], ["conf/experiment/e.yaml", "line 3"], {"experiment/e": GLOBAL + "epochs: [1,\n"}),
    ([LAB, "experiment=e"], ["conf/experiment/e.yaml", "line 3", r"'\t'"],
     {"experiment/e": GLOBAL + "model:\n\thidden: [3]\n"}),
    ([LAB, "experiment=e"], ["conf/experiment/e.yaml", "line 3", "duplicate key epochs"],
     {"experiment/e": GLOBAL + "epochs: 1\nepochs: 2\n"}),
    ([LAB, "experiment=e"], ["conf/experiment/e.yaml", "not UTF-8", "line 2"],
     {"experiment/e": GLOBAL.encode() + b"name: caf\xe9\n"}),
    ([LAB, "experiment=e"], ["experiment/e", "must be a list"], {"experiment/e": GLOBAL + "defaults:\n  override /loss: l1\n"}),
    # what may not be done
    (["model._target_=os.system"], ["model._target_=os.system", "lies outside", "plumbline, torch.nn"], {}),
    (["+optimiser.x._target_=os.system"], ["optimiser.x._target_=os.system", "lies outside"], {}),
    (["model._target_=MLP"], ["model._target_=MLP", "package.module.Name"], {}),
    (["resume=/nope"], ["resume=/nope", "no such folder"], {}),
    (["resume=/nope", "epochs=3"], ["resume=/nope", "epochs cannot be given", "start a new run"], {}),
    (["hydra.run.dir="], ["hydra.run.dir=", "is the current folder"], {}),
    (["outputs=/dev/null"], ["/dev/null", "Not a directory", "outputs=…"], {}),
]  # fmt: skip

# What is seen once the components are imported, and before a sample of the data is read.
BUILT: list[tuple[list[str], list[str], dict[str, str | bytes]]] = [
    (["model.hidden=abc"], ["model.hidden=abc", "a list of whole numbers"], {}),
    (["model.hidden=[1,2,abc]"], ["model.hidden=[1,2,abc]", "a list of whole numbers"], {}),
    (["model.hidden=null"], ["model.hidden=null", "a list of whole numbers"], {}),
    (["model.norm=bacth"], ["model.norm=bacth", "batch, mean_only, layer, group, none", "(did you mean 'batch'?)"], {}),
    (["model.activation="], ["model.activation=", "one of relu"], {}),
    (["+model._args_=[1]"], ["model._args_", "Hydra's own word"], {}),
    (["+step.foo=1"], ["step.foo=1", "plumbline.loop.supervised takes: none"], {}),
    (["~optimiser.lr"], ["optimiser.lr", "has no value"], {}),
    ([LAB, "experiment=e"], ["model.hiden=[3]", "(did you mean 'hidden'?)"],
     {"experiment/e": GLOBAL + "model: {hiden: [3]}\n"}),
    ([LAB, "experiment=e"], ["model.hidden=3", "a list of whole numbers"], {"experiment/e": GLOBAL + "model: {hidden: 3}\n"}),
    ([LAB, "model=mine"], ["model.nrom=none", "(did you mean 'norm'?)"], {"model/mine": MLP + "nrom: none\n"}),
    ([LAB, "model=mine"], ["model.hidden=three", "a list of whole numbers"], {"model/mine": MLP.replace("[8]", "three")}),
    ([LAB, "model=mine"], ["model.norm", "has no value", "plumbline.models.mlp.MLP needs it"],
     {"model/mine": MLP.replace("norm: none\n", "")}),
    ([LAB, "model=mine"], ["plumbline.models.mlp.MPL", "(did you mean 'MLP'?)"], {"model/mine": MLP.replace(".MLP", ".MPL")}),
    ([LAB, "model=mine"], ["plumbline.models.mpl", "no module", "(did you mean 'mlp'?)"],
     {"model/mine": MLP.replace("mlp.MLP", "mpl.MLP")}),
    (["objective=val/acuracy"], ["objective=val/acuracy", "(did you mean 'val/accuracy'?)", "val/f1"], {}),
    (["objective=val/rmse"], ["objective=val/rmse", "classification", "val/accuracy"], {}),
    (["objective=val/accuracy", "data=diabetes"], ["objective=val/accuracy", "regression", "val/rmse"], {}),
    (["loss=cross_entropy", "data=diabetes"], ["loss=cross_entropy", "regression", "mse, l1, huber"], {}),
    (["model=cnn", "data=iris"], ["model=cnn", "(4,)", "model=mlp"], {}),
    (["model=resnet", "data=iris"], ["model=resnet", "(4,)", "model=mlp"], {}),
    (["augment=[shift]", "data=iris"], ["augment=[shift]", "(4,)", "images"], {}),
    (["regulariser=[cutmix]", "data=iris"], ["regulariser=[cutmix]", "(4,)", "images"], {}),
    (["regulariser=[label_smoothing]", "data=diabetes"], ["regulariser=[label_smoothing]", "classes", "regression"], {}),
    (["model=cnn", "model.channels=[1,1,1,1]"], ["model.channels=[1, 1, 1, 1]", "8x8", "at most 3 channels"], {}),
    (["optimiser.lr=-1"], ["optimiser.lr=-1", "that is 0 or in [1e-30, 1e30]"], {}),
    (["optimiser.lr=abc"], ["optimiser.lr=abc", "must be a number"], {}),
    (["optimiser.lr=null"], ["optimiser.lr=null", "must be a number"], {}),
    (["optimiser.lr=nan"], ["optimiser.lr=nan", "that is 0 or in [1e-30, 1e30]"], {}),
    (["optimiser.lr=inf"], ["optimiser.lr=inf", "that is 0 or in [1e-30, 1e30]"], {}),
    (["optimiser.betas=[0.9]"], ["optimiser.betas=[0.9]", "a list of 2 numbers in [0, 1)"], {}),
    (["optimiser=torch", "optimiser.name=Adamx"], ["optimiser.name=Adamx", "(did you mean 'Adamax'?)"], {}),
    (["schedule.floor=2"], ["schedule.floor=2", "must be a number in [0, 1]"], {}),
    (["regulariser=[dropout]", "regulariser.dropout.rate=1.5"], ["regulariser.dropout.rate=1.5", "[0, 1)"], {}),
    (["regulariser=[dropout]", "regulariser.dropout.layers=[hiden]"],
     ["regulariser.dropout.layers=hiden", "(did you mean 'hidden'?)"], {}),
    (["data.val_fraction=2"], ["data.val_fraction=2", "must be a number in (0, 1)"], {}),
    (["data.split=startified"], ["data.split=startified", "(did you mean 'stratified'?)"], {}),
    (["data=csv"], ["data.file", "has no value"], {}),
    (["data=image_folder", "data.root=/nope"], ["data.root=/nope", "is no folder"], {}),
]  # fmt: skip


def name_of(case: tuple) -> str:
    words, parts, files = case
    return " ".join(words) if not files else " ".join([*words, parts[-1]])


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """`say(*words)` runs the command in this process, in tmp_path; returns (exit status, what stands on stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["train", *words])
        status = command.main()
        return status, capfd.readouterr().err

    return run


def write(files: dict[str, str | bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def check(status: int, error: str, parts: list[str], folder: Path) -> None:
    """The law of every mistake: status 2, one line that holds what it must, no folder left behind."""
    assert (status, error.count("\n")) == (2, 1), error
    assert error.startswith("plumbline: ")
    assert [part for part in parts if part not in error] == [], error
    assert "Traceback" not in error
    assert "ConfigError" not in error
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize("case", one_in(6, zip(COMPOSED, strict=True)), ids=name_of)
def test_what_composition_sees_is_said_in_one_message(case, say, tmp_path: Path) -> None:
    words, parts, files = case
    write(files, tmp_path / "conf")
    check(*say(*words), parts, tmp_path)


@pytest.mark.parametrize("case", one_in(4, zip(BUILT, strict=True)), ids=name_of)
def test_what_building_sees_is_said_in_one_message(case, say, tmp_path: Path) -> None:
    words, parts, files = case
    write(files, tmp_path / "conf")
    check(*say(*words), parts, tmp_path)


# Some of each kind in a process of their own, where C libraries and the end of the interpreter may speak, too.
ALONE = COMPOSED[::20] + BUILT[::20]


@pytest.mark.parametrize("case", ALONE, ids=name_of)
def test_a_process_of_its_own_says_the_same(case, train, tmp_path: Path) -> None:
    words, parts, files = case
    write(files, tmp_path / "conf")
    finished = train(*words)
    check(finished.returncode, finished.stderr, parts, tmp_path)
    assert finished.stdout == ""


def test_a_device_that_is_not_there_is_said_with_those_that_are(say, tmp_path: Path, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check(*say("device=cuda"), ["device=cuda", "not on this machine", "auto, ", "cpu"], tmp_path)


def test_a_model_that_cannot_fit_is_said_before_any_data_are_looked_for(say, tmp_path: Path) -> None:
    nowhere = ["data=fashion_mnist", "data.root=/nonexistent", "data.system_root=/nonexistent", "data.download=false"]
    deep = ["model=cnn", "model.channels=[1,1,1,1,1,1]"]
    check(*say(*nowhere, *deep), ["model.channels=[1, 1, 1, 1, 1, 1]", "28x28"], tmp_path)
    status, error = say(*nowhere)  # the data really are not there: a model that fits is what gets so far as to ask
    assert (status, error.partition(":")[2].strip().startswith("data.root=/nonexistent")) == (2, True)


def test_a_nested_target_in_an_experiment_of_somebody_elses_is_not_run(say, tmp_path: Path) -> None:
    evil = "optimiser:\n  betas:\n    - 0.9\n    - _target_: subprocess.check_output\n      args: [touch, done]\n"
    write({"experiment/e": GLOBAL + evil}, tmp_path / "conf")
    check(*say(LAB, "experiment=e"), ["optimiser.betas[1]._target_=subprocess.check_output", "lies outside"], tmp_path)
    assert not (tmp_path / "done").exists()


QUICK = ["epochs=0", "data=iris", "bootstrap=1", "threads=1"]


def test_the_command_can_be_given_again_in_one_process_and_a_run_keeps_its_folder(say, tmp_path: Path) -> None:
    assert say(*QUICK)[0] == say(*QUICK)[0] == 0
    (tmp_path / "outputs").rename(tmp_path / "kept")
    folders = [path.parent for path in (tmp_path / "kept").glob("*/*/run.json")]
    assert len(folders) == 2
    before = [(folder / "run.json").read_bytes() for folder in folders]
    for words, parts in (
        ([*QUICK, f"hydra.run.dir={folders[0]}"], [f"hydra.run.dir={folders[0]}", "another run", "resume="]),
        ([f"resume={folders[0]}", "epochs=3", "seed=1"], [f"resume={folders[0]}", "epochs, seed cannot be given too"]),
        ([f"resume={folders[0].parent}"], [f"resume={folders[0].parent}", "not the folder of a run"]),
    ):
        check(*say(*words), parts, tmp_path)
    assert [(folder / "run.json").read_bytes() for folder in folders] == before
    assert [json.loads(content)["status"] for content in before] == ["finished", "finished"]


def test_flags_and_overrides_may_stand_in_any_order(say, tmp_path: Path, monkeypatch, capfd) -> None:
    write({"model/mine": MLP.replace("8", "77")}, tmp_path / "conf")
    printed = []
    for words in (["--cfg", "job", "--config-dir", "conf", "model=mine", "epochs=3"],
                  ["model=mine", "--cfg=job", "epochs=3", "-cd=conf"], ["model=mine", LAB, "epochs=3", "-c", "job"]):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["train", *words])
        assert command.main() == 0
        printed.append(capfd.readouterr().out)
    assert printed[0] == printed[1] == printed[2]
    assert "- 77\n" in printed[0]


# --- time ------------------------------------------------------------------------------------------------------------

PROBE = """
import sys, plumbline.train as command
for words in {commands!r}:
    sys.argv[1:] = words
    command.main()
print("torch is there" if "torch" in sys.modules else "torch is not there")
"""


def probe(folder: Path, *commands: list[str]) -> subprocess.CompletedProcess[str]:
    program = PROBE.format(commands=list(commands))
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", program], cwd=folder, env=variables, capture_output=True, text=True)


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_what_needs_no_torch_does_not_import_it(every: int, tmp_path: Path) -> None:
    seen = [words for words, _, files in COMPOSED if not files and "hydra.run.dir=" not in words][::every]
    finished = probe(tmp_path, ["--help"], ["--cfg", "job"], ["--cfg", "job", "model=cnn", "--resolve"], *seen)
    assert finished.stdout.splitlines()[-1] == "torch is not there"
    said = [line for line in finished.stderr.splitlines() if line.startswith("plumbline: ")]
    assert len(said) == len(seen) == len(finished.stderr.splitlines())
    assert probe(tmp_path, BUILT[0][0]).stdout.splitlines()[-1] == "torch is there"  # the probe can tell


@pytest.mark.parametrize(
    "words", [["epochs=abc"], ["model=mpl"], ["model._target_=os.system"], ["--help"], ["--cfg=job"]]
)
def test_what_needs_no_torch_takes_less_than_a_second(words, train) -> None:
    def processor() -> float:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        train(*words)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime  # however busy it is

    assert processor() < affordable(1)


# --- help ------------------------------------------------------------------------------------------------------------


def test_help_lists_every_option_with_its_sentence_and_every_root_value(train, tmp_path: Path) -> None:
    write(
        {"model/mine": "# A model of my own.\n_target_: lab.Mine\n", "model/_piece": "# no option\n"}, tmp_path / "conf"
    )
    finished = train("--help", LAB)
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = [line.split() for line in finished.stdout.splitlines()]
    for file in (ROOT / "conf").glob("*/[!_]*.yaml"):
        sentence = next(line for line in file.read_text().splitlines() if not line.startswith("# @package"))
        assert [file.stem, *sentence.removeprefix("#").split()] in lines
    assert ["mine", "A", "model", "of", "my", "own."] in lines
    assert "_piece" not in finished.stdout
    assert {"seed:", "epochs:", "allow:"} <= {line[0] for line in lines if line}


COMMANDS = ["evaluate", "stages", "diagnose", "search.worker", "search.status", "slurm.doctor"]
SPEAK = [["train", "--cfg", "job"], ["train", "--help"]]
SPEAK += [pytest.param([command, "--help"], marks=pytest.mark.slow) for command in COMMANDS]


@pytest.mark.parametrize("words", SPEAK, ids=" ".join)
def test_a_reader_who_has_had_enough_ends_a_command_without_a_word(words: list[str], tmp_path: Path) -> None:
    said = []
    for unbuffered in ("", "1"):  # where the pipe breaks at the end, and at the first word
        reading, writing = os.pipe()
        os.close(reading)  # as `| head -1` does, sooner or later
        command = [sys.executable, "-m", f"plumbline.{words[0]}", *words[1:]]
        variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": unbuffered}
        said.append(subprocess.run(command, cwd=tmp_path, env=variables, stdout=writing, stderr=subprocess.PIPE))
        os.close(writing)
    assert [(finished.returncode, finished.stderr) for finished in said] == [(0, b"")] * 2


def test_an_option_file_cannot_widen_what_may_be_used_and_the_command_line_can(train, tmp_path: Path) -> None:
    write({"experiment/evil": "# @package _global_\nallow: [plumbline, torch.nn, os]\n"}, tmp_path / "conf")
    refused = train(LAB, "experiment=evil")
    assert refused.returncode == 2
    assert "allow=['os']: an option file cannot widen what may be used" in refused.stderr
    assert train(LAB, "experiment=evil", "allow=[plumbline,torch.nn]", "epochs=0", "bootstrap=1").returncode == 0
