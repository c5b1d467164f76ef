"""Transfer: which weights come from a file, what stands still to the bit, and when it thaws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import composed, noted
from test_options import CPU, SHORT, changed, images

from plumbline.assemble import assemble
from plumbline.config import ConfigError, build, check_config
from plumbline.loop import fit
from plumbline.transfer import load, renamed

CNN = ["model=cnn", "model.channels=[4,4]", "model.hidden=[6]", "model.norm=batch"]


def trained(*words: str):
    """(training, state, weights and buffers before, records) of three epochs."""
    cfg, data = changed(composed(*words), SHORT), images()
    check_config(cfg)
    training, state, step, schedule = assemble(cfg, data, CPU)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    options = {key: cfg[key] for key in ("seed", "epochs", "batch_size", "accumulate", "watch")}
    records = [r for r in fit(training, state, data.train, step, schedule, **options) if r]
    return training, state, before, records


def moved(training, before) -> set[str]:
    return {name for name, tensor in training.model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("more", [[], ["ema=0.9"], ["regulariser=[l2,dropout]"], ["step=sam"], ["optimiser=sgd"]])
def test_frozen_weights_and_the_statistics_of_their_norms_stay_to_the_bit(more) -> None:
    training, state, before, _ = trained(*CNN, "transfer=weights", "transfer.freeze=[features]", *more)
    changed_ = moved(training, before)
    assert not [name for name in changed_ if name.startswith("features")]
    assert {"hidden.0.norm.running_mean", "hidden.0.linear.weight", "head.weight"} <= changed_
    kept = state.network.state_dict()
    assert all(torch.equal(kept[name], before[name]) for name in before if name.startswith("features"))


def test_a_frozen_layer_takes_its_norm_along() -> None:
    training, _, before, _ = trained(*CNN, "transfer=weights", "transfer.freeze=[features.0.conv]")
    assert not [name for name in moved(training, before) if name.startswith("features.0")]
    assert "features.1.norm.running_var" in moved(training, before)


def test_frozen_layers_thaw_from_the_top_at_their_part_of_the_run() -> None:
    words = [*CNN, "transfer=weights", "transfer.freeze=[features,hidden]", "transfer.thaw=[0.3,0.6]"]
    training, _, _, records = trained(*words)
    seen = [{key.removeprefix("grad_norm/") for key in record if key.startswith("grad_norm/")} for record in records]
    assert seen[0] == {"head"}
    assert seen[1] == {"head", "hidden.0.linear"}
    assert seen[2] == {"head", "hidden.0.linear", "features.0.conv", "features.1.conv"}
    assert all(parameter.requires_grad for parameter in training.model.parameters())


def test_weights_come_from_a_run_but_for_what_starts_anew(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    little = ["data=iris", "epochs=1", "model.hidden=[5]"]
    _, source = run(*little, folder="source")
    words = [*little, "seed=1", "transfer=weights", f"transfer.file={source}", "transfer.freeze=[hidden]"]
    status, folder = run(*words, "transfer.reinit=[head]", folder="target")
    first, second = (torch.load(f / "best.pt", weights_only=True)["model"] for f in (source, folder))
    assert status == 0
    assert torch.equal(first["hidden.0.linear.weight"], second["hidden.0.linear.weight"])
    cfg = composed(*words, "transfer.reinit=[head]")
    anew, _, _, _ = assemble(cfg, build(cfg.data)(), CPU)
    own, _, _, _ = assemble(composed(*little, "seed=1"), build(cfg.data)(), CPU)
    assert torch.equal(anew.model.head.weight, own.model.head.weight)  # as model and init made it
    assert torch.equal(anew.model.hidden[0].linear.weight, first["hidden.0.linear.weight"])
    (source / "best.pt").unlink()  # a run's own folder is enough to go on and to be evaluated
    from plumbline.transfer import begun

    assembled, _, _, _ = assemble(begun(cfg, folder), build(cfg.data)(), CPU)
    assert not assembled.model.hidden[0].linear.weight.requires_grad
    assert noted(folder)["status"] == "finished"


def test_a_file_of_torchvisions_names_and_of_several_processes_fits() -> None:
    model = torch.nn.ModuleDict({"network": torch.nn.Sequential(torch.nn.Linear(2, 2))})
    weights = {name.removeprefix("network."): t for name, t in model.state_dict().items()}
    for given in (weights, {f"module.network.{n}": t for n, t in weights.items()}):
        assert renamed(given, list(model.state_dict())).keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["transfer.file=nowhere.pth"], "there is no such file"),
        (["transfer.reinit=[head]"], "without transfer.file nothing is loaded"),
        (["transfer.freeze=[heads]"], "transfer.freeze=heads: matches no layer .did you mean 'head'"),
        (["transfer.freeze=[all]"], "leaves nothing to train"),
        (["transfer.thaw=[0.6,0.2]", "transfer.freeze=[hidden]"], "two growing parts of the run"),
    ],
)
def test_a_mistake_in_a_transfer_is_one_sentence(words, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        assemble(composed("transfer=weights", *words), images(), CPU)


def test_weights_that_do_not_fit_are_named_with_the_cure(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    torch.save({"0.weight": torch.zeros(5, 3)}, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"has no 0.bias; has in another shape 0.weight; .*reinit=\[0\]"):
        load(model, tmp_path / "a.pth", [])
    (tmp_path / "b.pth").write_text("no weights")
    with pytest.raises(ConfigError, match=r"transfer.file: no checkpoint can be read"):
        load(model, tmp_path / "b.pth", [])
