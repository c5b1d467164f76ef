"""The experiments on training give the numbers in their headers."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest
import torch
from conftest import composed, noted, records
from omegaconf import OmegaConf

from plumbline.assemble import assemble
from plumbline.config import build
from plumbline.evaluate import Request, evaluate
from plumbline.loop import fit
from plumbline.state import read

FASHION = Path("/usr/share/datasets/fashion-mnist")
fashion = pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
each_seed = pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow) for seed in range(3)])


@pytest.fixture
def experiment(run, monkeypatch):
    """`experiment(name, *overrides, folder=…)` runs it without its page and returns the run's folder."""
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    monkeypatch.setattr("plumbline.run.figures", lambda directory: {})

    def go(name: str, *words: str, folder: str) -> Path:
        status, directory = run(f"experiment={name}", *words, folder=folder)
        assert status == 0
        return directory

    return go


def asked(run: Path, **words) -> dict:
    return evaluate(OmegaConf.merge(OmegaConf.structured(Request), {"run": str(run), "on": "val", **words}))["metrics"]


@fashion
@pytest.mark.slow
def test_frozen_filters_beat_a_network_from_scratch_on_a_hundred_pictures(experiment) -> None:
    kept = noted(experiment("transfer", folder="frozen"))  # experiment=transfer, which runs experiment=five_classes
    source = Path(kept["transfer"]["run"])
    assert noted(source)["best"]["val/accuracy"] == pytest.approx(0.91, abs=0.02)
    assert kept["transfer"]["data"] == noted(source)["data"]["fingerprint"] != kept["data"]["fingerprint"]
    anew = ["transfer.file=null", "transfer.freeze=[]", "transfer.reinit=[]"]
    scratch = noted(experiment("transfer", *anew, folder="scratch"))
    assert kept["best"]["val/accuracy"] == pytest.approx(0.90, abs=0.02)
    assert 0.01 < kept["best"]["val/accuracy"] - scratch["best"]["val/accuracy"] < 0.05


@fashion
def test_the_loss_rises_where_sgd_takes_over_and_comes_down_below_adams(experiment) -> None:
    losses = [
        record["fit/loss"] for record in records(experiment("adam_then_sgd", folder="run"))
    ]  # experiment=adam_then_sgd
    assert losses[:6] == sorted(losses[:6], reverse=True)
    assert losses[6] > 1.5 * losses[5]
    assert losses[11] < losses[5]
    assert losses[7] < losses[6]


@fashion
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_step_by_step_the_loss_bumps_for_some_updates_where_sgd_takes_over_at_600(seed: int) -> None:
    words = ["data.subset=null", "epochs=2", "batch_size=64", f"seed={seed}"]
    cfg = composed("experiment=adam_then_sgd", *words)
    data, losses = build(cfg.data)(), []
    training, state, step, schedule = assemble(cfg, data, torch.device("cpu"))

    def noting(training, batches):
        losses.append(float(loss := step(training, batches)))
        return loss

    options = {key: cfg[key] for key in ("seed", "epochs", "batch_size", "accumulate")}
    list(fit(training, state, data.train, noting, schedule, **options, watch=0))
    before, bump, after, end = (mean(losses[a:b]) for a, b in ((500, 600), (600, 620), (700, 800), (1400, 1500)))
    assert (before, after, end) == pytest.approx((0.415, 0.44, 0.37), abs=0.04)
    assert 0.6 < bump < 1.4


@pytest.mark.slow
@pytest.mark.parametrize(("split", "first"), [(0, 0), (1, 0), (2, 0), (0, 5)])  # of the data, and of five seeds
def test_five_networks_together_are_better_than_their_mean_and_than_most(split: int, first: int, experiment) -> None:
    words = [f"data.split_seed={split}"]  # experiment=ensemble
    folders = [experiment("ensemble", *words, f"seed={seed}", folder=str(seed)) for seed in range(first, first + 5)]
    alone = [noted(folder)["best"] for folder in folders]
    together = asked(folders[0], beside=[str(folder) for folder in folders[1:]])
    loss, accuracy = (together[name]["together"]["value"] for name in ("loss", "accuracy"))
    assert mean(one["val/loss"] for one in alone) - loss == pytest.approx(0.019, abs=0.01)
    assert accuracy - mean(one["val/accuracy"] for one in alone) == pytest.approx(0.01, abs=0.005)
    assert sum(accuracy > one["val/accuracy"] for one in alone) >= 4
    if not split:
        assert [one["val/accuracy"] for one in alone] == pytest.approx([0.9535] * 5, abs=0.011)
        assert accuracy == pytest.approx(0.965, abs=0.005)


@fashion
@pytest.mark.slow
def test_moved_copies_of_a_picture_make_its_answer_better(experiment) -> None:
    found = asked(experiment("looking_twice", folder="run"), tta=8)["loss"]  # experiment=looking_twice
    assert 0.003 < found["alone"]["value"] - found["together"]["value"] < 0.02


@fashion
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_network_that_saw_shifted_pictures_minds_two_pixels_a_fifth_as_much(seed: int, ways) -> None:
    words = f"seed={seed} regulariser=[] data.subset=3000 model.channels=[16,32] model.kernel=3 model.hidden=[] "
    words += "model.norm=batch schedule=one_cycle optimiser.lr=0.01 epochs=8 batch_size=64"
    lost = []
    for folder in ways("fashion_dropout", words, f"{words} augment=[shift] augment.shift.pixels=2"):
        cfg = OmegaConf.load(folder / "config.yaml")
        data = build(cfg.data)()
        model = build(cfg.model)(data.spec).eval()
        model.load_state_dict(read(folder / "best.pt")[0]["model"])
        wide = torch.nn.functional.pad(data.val.x, (2, 2, 2, 2), mode="replicate")
        moved = [(wide[..., y : y + 28, x : x + 28], data.val.y) for y, x in ((0, 0), (0, 4), (4, 0), (4, 4))]
        with torch.no_grad():
            right = [(model(x).argmax(1) == y).float().mean().item() for x, y in moved]
        lost.append(noted(folder)["best"]["val/accuracy"] - mean(right))
    assert lost == pytest.approx([0.255, 0.046], abs=0.035)


@fashion
@pytest.mark.slow
def test_the_speedrun_is_as_good_as_the_tutorial_after_two_epochs_and_better_after_three(experiment) -> None:
    short = experiment("fashion_speedrun", folder="short")  # experiment=fashion_speedrun
    long = experiment("fashion_speedrun_92", folder="long")  # experiment=fashion_speedrun_92
    assert records(short)[-1]["val/accuracy"] == pytest.approx(0.916, abs=0.006)
    assert records(long)[-1]["val/accuracy"] == pytest.approx(0.925, abs=0.005)


# --- a technique against its absence ---------------------------------------------------------------------------------


@pytest.fixture
def ways(experiment):
    """`ways(name, first, second, …)` runs it in several ways, each of them words; returns the folders."""
    return lambda name, *ways: [experiment(name, *words.split(), folder=f"{name}-{words}") for words in ways]


@each_seed
def test_mixtures_of_digits_teach_more_than_the_digits(ways, seed: int) -> None:
    mixed, plain = ways("mixup", f"seed={seed}", f"seed={seed} regulariser=[]")  # experiment=mixup
    assert noted(mixed)["best"]["val/accuracy"] == pytest.approx([0.947, 0.953, 0.956][seed], abs=0.006)
    assert noted(mixed)["best"]["val/accuracy"] > noted(plain)["best"]["val/accuracy"] + 0.004


@each_seed
def test_a_flat_minimum_is_better_in_loss_and_accuracy(ways, seed: int) -> None:
    flat, usual = ways("sam", f"seed={seed}", f"seed={seed} step=supervised ~step.rho")  # experiment=sam
    assert noted(flat)["best"]["val/accuracy"] > noted(usual)["best"]["val/accuracy"] + 0.002
    assert records(flat)[-1]["val/loss"] == pytest.approx(0.18, abs=0.03)
    assert records(flat)[-1]["val/loss"] < 0.92 * records(usual)[-1]["val/loss"]


@fashion
@each_seed
def test_the_mean_of_the_weights_undoes_noise_and_a_cosine_undoes_more(ways, seed: int) -> None:
    kinds = ("", "ema=null swa=0.5", "ema=null", "ema=null schedule=cosine")  # experiment=averaged_weights
    folders = ways("averaged_weights", *(f"seed={seed} {words}" for words in kinds))
    moving, equal, none, cosine = (records(folder)[-1]["val/loss"] for folder in folders)
    assert (moving, equal) == pytest.approx((0.59, 0.59), abs=0.03)
    assert none > 0.66
    assert cosine == pytest.approx(0.49, abs=0.03)


@fashion
@each_seed
def test_restarts_give_a_good_network_early_and_an_equal_one_at_the_end(ways, seed: int) -> None:
    words = "schedule=cosine ~schedule.cycles ~schedule.growth"  # experiment=restarts
    folders = ways("restarts", f"seed={seed}", f"seed={seed} {words}")
    again, once = ([record["val/loss"] for record in records(folder)] for folder in folders)
    assert again[0] < once[0] and again[2] < once[2]  # the ends of the cycles of 1 and 2 epochs
    assert again[3] > again[2] + 0.03  # at the full rate again
    assert (again[6], once[6]) == pytest.approx((0.45, 0.45), abs=0.02)
    assert again[6] == pytest.approx(once[6], abs=0.01)


@fashion
@each_seed
def test_a_temperature_makes_confidences_right_and_changes_no_answer(experiment, seed: int) -> None:
    found = asked(experiment("temperature", f"seed={seed}", folder="run"), temperature=True)  # experiment=temperature
    loss, accuracy, error = (found[name] for name in ("loss", "accuracy", "calibration_error"))
    assert accuracy["alone"]["value"] == accuracy["together"]["value"]
    assert error["alone"]["value"] > 0.045
    assert error["together"]["value"] == pytest.approx(0.025, abs=0.01)
    assert loss["together"]["value"] == pytest.approx(0.47, abs=0.03)
    assert loss["together"]["value"] < 0.95 * loss["alone"]["value"]


@each_seed
def test_layers_that_lengthen_nothing_learn_no_spiral_by_heart(experiment, seed: int) -> None:
    last = records(experiment("spectral_norm", f"seed={seed}", folder="run"))[-1]  # experiment=spectral_norm
    assert last["val/loss"] == pytest.approx(0.69, abs=0.02)
    assert last["train/loss"] == pytest.approx(0.62, abs=0.03)


@each_seed
def test_taps_that_stand_further_apart_see_more_with_as_many_weights(ways, seed: int) -> None:
    far, near = ways("dilated", f"seed={seed}", f"seed={seed} model.dilations=[1,1,1]")  # experiment=dilated
    assert noted(far)["parameters"] == noted(near)["parameters"]
    assert noted(far)["best"]["val/accuracy"] == pytest.approx(0.93, abs=0.03)
    assert noted(far)["best"]["val/accuracy"] > noted(near)["best"]["val/accuracy"] + 0.03


@fashion
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_dropped_squares_lower_the_last_loss_and_plain_dropout_does_more(ways, seed: int) -> None:
    kinds = ("", "regulariser.dropblock.rate=0.0", "regulariser=[dropout] ~regulariser.dropblock")
    folders = ways("dropblock", *(f"seed={seed} {words}" for words in kinds))  # experiment=dropblock
    squares, none, single = (records(folder)[-1]["val/loss"] for folder in folders)
    assert squares == pytest.approx(0.54, abs=0.05)
    assert single < squares < none


@fashion
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_pictures_that_are_small_at_first_teach_as_much(ways, seed: int) -> None:
    words = f"seed={seed} step=supervised"  # experiment=progressive_resizing
    growing, whole = (records(folder)[-1] for folder in ways("progressive_resizing", f"seed={seed}", words))
    assert growing["val/loss"] == pytest.approx(0.62, abs=0.04)
    assert growing["val/loss"] < whole["val/loss"] + 0.01
    assert growing["val/accuracy"] == pytest.approx(whole["val/accuracy"], abs=0.03)


@fashion
@pytest.mark.slow
def test_thawed_filters_beat_frozen_ones_and_slower_first_layers_overfit_less(experiment) -> None:
    for seed in range(3):  # experiment=gradual_unfreezing, experiment=layer_rates
        words = [f"seed={seed}"]
        thawed = experiment("gradual_unfreezing", *words, folder=f"thawed{seed}")
        frozen = experiment("gradual_unfreezing", *words, "transfer.thaw=null", folder=f"frozen{seed}")
        by_layer = experiment("layer_rates", *words, folder=f"rates{seed}")
        one = experiment("layer_rates", *words, "optimiser.layer_rates=null", folder=f"one{seed}")
        best = {folder: noted(folder)["best"]["val/accuracy"] for folder in (thawed, frozen, by_layer, one)}
        assert best[thawed] == pytest.approx(0.905, abs=0.01)
        assert best[thawed] > best[frozen] + 0.002
        assert best[by_layer] == pytest.approx(0.907, abs=0.012)
        assert best[by_layer] < best[one] + 0.003
        assert records(by_layer)[-1]["val/loss"] < records(one)[-1]["val/loss"] - 0.01
