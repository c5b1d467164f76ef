"""The audit of the data: each planted fault is the headline, honest data are silent, odd data break nothing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from conftest import affordable, composed
from planted import alarms, audit, clean, made
from sklearn.datasets import load_breast_cancer, load_digits

from plumbline.checks.baselines import neighbours
from plumbline.checks.core import ALARMS
from plumbline.checks.view import View
from plumbline.config import build
from plumbline.data.core import Scale, Spec

clothes = pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs Debian's dataset-fashion-mnist"
)

DIGITS, CLOTHES, DIABETES = ("data=digits",), ("data=fashion_mnist", "data.subset=1500"), ("data=diabetes",)
EVERYWHERE = {
    planted.unnormalised: "scale", planted.normalised_twice: "scale", planted.val_scaled_differently: "shift",
    planted.val_is_train: "overlap", planted.oversampled_before_split: "overlap", planted.near_copies: "near_duplicates",
    planted.near_copies_split_apart: "near_duplicates", planted.near_copies_in_train: "near_duplicates",
    planted.copies_in_val: "duplicates",
    planted.target_as_feature: "leak", planted.missing_values: "nonfinite", planted.sorted_unshuffled: "order",
    planted.same_sample: "same_sample", planted.scaled_by_all: "provenance", planted.groups_torn: "groups",
    planted.shifted: "unlearnable", planted.shifted_in_train: "unlearnable",
}  # fmt: skip
CLASSES = {
    planted.noisy_labels: "label_errors", planted.renumbered: "cross_labels", planted.target_as_many_features: "leak",
    planted.two_classes_exchanged: "cross_labels", planted.class_missing_in_train: "class_missing",
    planted.imbalanced: "imbalance", planted.corner_mark: "leak", planted.framed: "border",
    planted.moved_copies: "moved_copies",
}  # fmt: skip
NUMBERS = {
    planted.val_scaled_by_itself: "provenance",
    planted.unscaled_target: "target_scale",
    planted.constant_target: "constant_target",
}
CASES = [
    pytest.param(words, fault, f"data.{name}", marks=[pytest.mark.slow] if words is CLOTHES else [])
    for words, faults in (
        (DIGITS, EVERYWHERE | CLASSES),
        (CLOTHES, EVERYWHERE | CLASSES),
        (DIABETES, EVERYWHERE | NUMBERS),
    )
    for fault, name in faults.items()
]


@pytest.mark.parametrize(("words", "fault", "name"), CASES, ids=lambda it: getattr(it, "__name__", str(it)))
def test_a_planted_fault_is_the_headline(words: tuple[str, ...], fault, name: str) -> None:
    spec, arrays = clean(*words)
    fault(spec, arrays)
    assert alarms(audit(spec, arrays, *words))[0] == name


@pytest.mark.parametrize("words", [DIGITS, CLOTHES, DIABETES], ids=str)
def test_validation_turned_into_its_negative_is_told(words: tuple[str, ...]) -> None:
    spec, arrays = clean(*words)
    planted.val_inverted(spec, arrays)
    assert set(alarms(audit(spec, arrays, *words))[:2]) <= {"data.cross_labels", "data.shift"} != set()
    assert "data.cross_labels" in alarms(audit(spec, arrays, *words))


HONEST = [
    ["data=digits"], ["data=digits", "data.subset=100"], ["data=digits", "data.normalise=false"], ["data=breast_cancer"],
    ["data=wine"], ["data=iris"], ["data=diabetes"], ["data=fashion_mnist", "data.subset=1000"],
]  # fmt: skip


@pytest.mark.parametrize("words", HONEST, ids=" ".join)
def test_honest_data_are_silent_on_any_split(words: list[str]) -> None:
    for seed in range(2) if len(words) == 1 else [0]:
        spec, arrays = clean(*words, f"data.split_seed={seed}")
        assert alarms(audit(spec, arrays, *words)) == []


# of labels planted: the least recall of ours, and of cleanlab; where none was planted, the most that are named
@pytest.mark.parametrize(
    ("noise", "own", "theirs"), [(0.05, 0.65, 0.8), (0.1, 0.7, 0.8), (0.3, 0.8, 0.88), (0.0, 0, 8)]
)
def test_wrong_labels_are_found_and_few_others_named(noise: float, own: float, theirs: float) -> None:
    import plumbline.checks.learning as learning

    spec, arrays = clean("data=digits")
    planted.noisy_labels(spec, arrays, noise)
    view = View(made(spec, arrays), composed("checks.samples=5000"), 1000)
    share = view.kernel.left_out.clamp(min=1e-3)
    share = share / share.sum(1, keepdim=True)
    found, by = learning._suspects(share, view.train.y)
    if not noise:
        assert len(found) <= theirs
        return
    hit = np.intersect1d(found.numpy(), arrays["rows"].numpy()).size
    recall, precision = hit / len(arrays["rows"]), hit / len(found)
    assert recall >= (theirs if by == "cleanlab" else own), (recall, precision, by)
    assert precision >= (0.7 if by == "cleanlab" else 0.95), (recall, precision, by)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("words", [DIGITS, ("data=fashion_mnist", "data.subset=2000")], ids=str)
def test_five_black_images_and_five_of_noise_are_all_among_the_twenty_oddest(words: tuple[str, ...], seed: int) -> None:
    spec, arrays = clean(*words)
    planted.broken_images(spec, arrays, seed)
    finding = audit(spec, arrays, *words, only="data.outliers")["data.outliers"]
    named = [int(said.partition(":")[0]) for said in finding.evidence["oddest"]]
    assert len(named) == 20
    assert set(arrays["rows"].tolist()) <= set(named)
    assert set(arrays["rows"].tolist()) == set(named[:10])
    assert (finding.severity, finding.evidence["as_good_as_blank"]) == ("info", 5)
    assert words is DIGITS or finding.evidence["like_noise"] == 5  # of 64 pixels, noise may be smooth by chance


@pytest.mark.parametrize("seed", range(3))
def test_rows_with_a_number_in_another_unit_are_the_oddest_and_their_column_is_named(seed: int) -> None:
    spec, arrays = clean("data=diabetes")
    planted.wrong_unit(spec, arrays, seed)
    finding = audit(spec, arrays, "data=diabetes", only="data.outliers")["data.outliers"]
    named = [int(said.partition(":")[0]) for said in finding.evidence["oddest"]]
    assert set(arrays["rows"].tolist()) == set(named[:3])
    assert finding.severity == "info"
    assert "bmi lies" in finding.message


@pytest.mark.parametrize(
    "data", ["digits", "digits_permuted", "breast_cancer", "wine", "iris", "diabetes", "shops", "shapes"]
)
def test_in_honest_data_nothing_stands_far_out(data: str) -> None:
    for seed in range(3):
        spec, arrays = clean(f"data={data}", f"data.split_seed={seed}")
        assert audit(spec, arrays, only="data.outliers")["data.outliers"].severity == "ok"


def test_targets_of_other_samples_are_noticed_in_numbers_and_honest_ones_are_not() -> None:
    """A smooth function of five inputs with noise of its own; then 30 % of the targets of train change places."""
    said = {True: 0, False: 0}
    for seed in range(8):
        draws = torch.Generator().manual_seed(seed)
        x = torch.randn(600, 5, generator=draws)
        y = x[:, :1] + x[:, 1:2] + 0.7 * torch.randn(600, 1, generator=draws)
        for noisy in said:
            arrays = {"x": x[:450], "y": y[:450].clone(), "vx": x[450:], "vy": y[450:]}
            if noisy:
                planted.noisy_labels(Spec("regression", (5,), 1), arrays)
            finding = audit(Spec("regression", (5,), 1), arrays, only="data.label_errors")["data.label_errors"]
            said[noisy] += finding.severity == "warn"
    assert (said[True], said[False]) == (8, 0)


def test_a_table_that_is_stored_by_class_and_shuffled_by_the_loop_is_no_alarm_and_is_told() -> None:
    for words, told in (("data=digits", False), ("data=wine", True), ("data=iris", True)):
        spec, arrays = clean(words)
        finding = audit(spec, arrays, words, "batch_size=16", only="data.order")["data.order"]
        assert (finding.severity, "stored in the order of their targets" in finding.message) == ("ok", told)


def test_patients_are_told_apart_from_images(run, tmp_path) -> None:
    """Twenty patients with five images each: a random split is named, a grouped one is silent."""
    from conftest import noted
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in ("ill", "well"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for patient in range(20):
            face = rng.integers(0, 160, (16, 16, 3)) + (60 if label == "ill" else 0)
            for number in range(5):
                picture = (face + rng.integers(0, 30, face.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(picture).save(tmp_path / "images" / label / f"{label}{patient}-{number}.png")
    words = [
        "data=image_folder", f"data.root={tmp_path / 'images'}", "data.size=16", "data.workers=0",
        "data.group='[a-z]+[0-9]+'", "epochs=1",
        "checks.mute=[schedule,init,step,augment,reg,lr,overfit,curve,result]",
    ]  # fmt: skip
    for split, expected in (("stratified", ["data.groups"]), ("grouped", [])):
        _, folder = run(*words, f"data.split={split}", folder=split)
        found = [item["id"] for item in noted(folder)["findings"] if item["severity"] in ALARMS]
        assert [name for name in found if name in ("data.groups", "data.overlap")] == expected


def test_samples_that_are_not_those_asked_for_are_told() -> None:
    spec, arrays = clean("data=digits")
    arrays["split"] = planted.Unshuffled  # mixed already, so that no batch is sorted
    assert alarms(audit(spec, arrays))[0] == "data.order"


def test_inputs_scaled_by_train_and_validation_are_told_by_their_numbers_alone() -> None:
    spec, arrays = clean("data=diabetes")
    planted.scaled_by_both(spec, arrays)
    assert alarms(audit(spec, arrays)) == ["data.provenance"]
    arrays["scale"] = Scale(torch.zeros(10), torch.ones(10), fitted_on="train")  # whatever is said of it
    assert alarms(audit(spec, arrays)) == ["data.provenance"]


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_images_that_were_enlarged_eight_times_are_told(mode: str) -> None:
    _, arrays = clean("data=digits", "data.subset=200")
    for key in ("x", "vx"):
        arrays[key] = torch.nn.functional.interpolate(arrays[key], scale_factor=8, mode=mode)
    assert alarms(audit(Spec("classification", (1, 64, 64), 10), arrays)) == ["data.enlarged"]


def test_photographs_are_not_called_enlarged() -> None:
    from sklearn.datasets import load_sample_images

    for photo in load_sample_images().images:
        pieces = (
            torch.from_numpy(photo).permute(2, 0, 1).float().unfold(1, 128, 64).unfold(2, 128, 64)
        )  # (3, a, b, 128, 128)
        x = pieces.permute(1, 2, 0, 3, 4).flatten(0, 1) / 64 - 2
        y = torch.arange(len(x)) % 2
        arrays = {"x": x, "y": y, "vx": x[:12], "vy": y[:12]}
        assert audit(Spec("classification", (3, 128, 128), 2), arrays)["data.enlarged"].severity == "ok"


def test_a_coarse_table_may_repeat_itself_by_chance() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randint(0, 3, (600, 4), generator=draws).float()
    y = ((x.sum(1) + torch.randint(0, 3, (600,), generator=draws)) > 4).long()
    x = (x - 1) / 0.8
    arrays = {"x": x[:400], "y": y[:400], "vx": x[400:], "vy": y[400:]}
    found = audit(Spec("classification", (4,), 2), arrays)
    assert found["data.overlap"].severity == found["data.duplicates"].severity == "info"
    assert alarms(found) == []


def test_few_features_among_thousands_are_not_called_unlearnable() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 5000, generator=draws)
    y = (x[:, :10].sum(1) + torch.randn(1000, generator=draws) > 0).long()
    arrays = {"x": x[:800], "y": y[:800], "vx": x[800:], "vy": y[800:]}
    assert alarms(audit(Spec("classification", (5000,), 2), arrays)) == []


def odd() -> dict[str, tuple[Spec, dict]]:
    """Data sets at the edge of what can be had."""
    draws = torch.Generator().manual_seed(0)

    def random(spec: Spec, n: int, m: int, change=lambda x: x) -> tuple[Spec, dict]:
        x = change(torch.randn(n + m, *spec.shape, generator=draws))
        y = (
            torch.randint(spec.outputs, (n + m,), generator=draws) if spec.task == "classification"
            else torch.randn(n + m, spec.outputs, generator=draws)
        )  # fmt: skip
        return spec, {"x": x[:n], "y": y[:n], "vx": x[n:], "vy": y[n:]}

    def classes(outputs: int, *shape: int) -> Spec:
        return Spec("classification", shape, outputs)

    one = random(classes(3, 5), 40, 20)
    one[1]["y"].zero_(), one[1]["vy"].zero_()
    return {
        "wide": random(classes(2, 5000), 300, 100),
        "tiny": random(classes(2, 4), 24, 6),
        "two samples": random(classes(2, 4), 1, 1),
        "one class": one,
        "constant": random(classes(2, 4), 50, 20, torch.zeros_like),
        "NaN everywhere": random(classes(2, 4), 50, 20, lambda x: x * torch.nan),
        "infinite": random(Spec("regression", (4,), 1), 100, 50, lambda x: x / torch.zeros(())),
        "a thousand classes": random(classes(1000, 8), 2000, 500),
        "many targets": random(Spec("regression", (6,), 7), 200, 80),
        "colour": random(classes(2, 3, 12, 12), 120, 60),
        "large images": random(classes(2, 3, 160, 160), 40, 20),
        "one feature": random(classes(2, 1), 100, 50),
        "huge numbers": random(Spec("regression", (3,), 1), 100, 50, lambda x: x * 1e30),
    }


ODD = odd()


@pytest.mark.parametrize("preset", ["quick", "full"])
@pytest.mark.parametrize("name", ODD)
def test_no_data_set_breaks_a_check_or_keeps_it_long(name: str, preset: str) -> None:
    began = time.process_time()
    found = audit(*ODD[name], f"checks={preset}")
    assert time.process_time() - began < affordable(5)
    assert all(
        np.isfinite([v for v in it.evidence.values() if isinstance(v, float)]).all()
        for it in found.values()
        if it.severity == "ok"
    )


def test_inputs_that_are_all_constant_are_called_that_and_not_scaled_differently() -> None:
    found = audit(*ODD["constant"])
    assert found["data.constant_features"].severity == "fail"
    assert "data.shift" not in found


def test_the_audit_opens_no_test_set() -> None:
    spec, arrays = clean("data=digits")
    with pytest.raises(AssertionError, match="opened the test set"):
        made(spec, arrays)._splits.test()
    assert "data.overlap" in audit(spec, arrays)  # which would have raised the same


def test_the_border_alone_tells_the_two_classes_that_bear_a_mark_in_their_corner() -> None:
    from plumbline.checks.kernel import Kernel

    recall = []
    for marked in (False, True):
        spec, arrays = clean(*CLOTHES)
        if marked:
            planted.corner_mark(spec, arrays)
        border = torch.ones(28, 28, dtype=torch.bool)
        border[3:-3, 3:-3] = False
        x, y = arrays["x"][:1000, :, border].flatten(1), arrays["y"][:1000]
        told = Kernel((x - x.mean(0)) / x.std(), torch.nn.functional.one_hot(y, 10).float()).left_out.argmax(1)
        recall.append((told[y < 2] < 2).float().mean().item())
    assert recall[0] < 0.9
    assert recall[1] > 0.99  # a fifth of the samples: chance is 0.2


@pytest.mark.parametrize(("data", "honest"), [("digits", 0.12), ("diabetes", 0.245)])
def test_a_copy_of_the_target_among_the_inputs_tells_all_of_it_and_no_honest_feature_much(
    data: str, honest: float
) -> None:
    told = []
    for fault in (lambda spec, arrays: None, planted.target_as_feature):
        spec, arrays = clean(f"data={data}")
        fault(spec, arrays)
        finding = audit(spec, arrays, only="data.leak")["data.leak"]
        told.append((finding.severity, finding.evidence["known"]))
    assert told == [("ok", pytest.approx(honest, abs=0.01)), ("fail", pytest.approx(1.0, abs=1e-3))]


def test_scaling_by_both_splits_moves_no_score_of_ridge_on_diabetes_and_is_told_all_the_same() -> None:
    from sklearn.linear_model import Ridge

    cfg, moved = composed("data=diabetes"), []
    for cfg.data.split_seed in range(30):
        data, scores = build(cfg.data)(), []
        arrays = {"x": data.train.x, "y": data.train.y, "vx": data.val.x, "vy": data.val.y}
        for fault in (lambda spec, arrays: None, planted.scaled_by_both):
            fault(data.spec, arrays)
            x, y, vx, vy = (arrays[name].numpy() for name in ("x", "y", "vx", "vy"))
            scores.append(Ridge(1.0).fit(x, y[:, 0]).score(vx, vy[:, 0]))
        assert audit(data.spec, arrays, only="data.provenance")["data.provenance"].severity == "fail"
        moved.append(abs(scores[0] - scores[1]))
    assert 0 < max(moved) < 3e-4  # of R²


@clothes
@pytest.mark.slow
def test_clothes_meet_the_network_with_mean_0_and_std_1_and_as_pixels_from_0_to_1() -> None:
    for normalise, mean, std in (("true", 0, 1), ("false", 0.286, 0.353)):
        cfg = composed("data=fashion_mnist", f"data.normalise={normalise}")
        view = View(build(cfg.data)(), cfg, 1000)
        met = build(cfg.checks.data.scale)(view).evidence
        assert (met["mean"], met["std"]) == pytest.approx((mean, std), abs=1e-6 if normalise == "true" else 5e-4)
    assert (view.data.train.x.min(), view.data.train.x.max()) == (0, 1)


CORRELATED = {"breast_cancer": (21, 15, 0), "wine": (0, 0, 0), "iris": (1, 1, 0), "digits": (1, 0, 3)}


@pytest.mark.parametrize("data", CORRELATED)
def test_the_pairs_that_correlate_and_the_columns_that_are_constant_are_counted(data: str) -> None:
    from sklearn import datasets

    x, y = (torch.from_numpy(part) for part in getattr(datasets, f"load_{data}")(return_X_y=True))
    spec, arrays = Spec("classification", (x.shape[1],), int(y.max()) + 1), {"x": x.float(), "y": y}
    arrays |= {"vx": arrays["x"][:2] + 1, "vy": y[:2]}

    def counted(check: str, key: str, *words: str) -> int:
        return audit(spec, arrays, "checks.samples=5000", *words, only=check)[check].evidence[key]

    pairs = [counted("data.correlated", "pairs", f"checks.data.correlated.above={above}") for above in (0.9, 0.95)]
    assert (*pairs, counted("data.constant_features", "constant")) == CORRELATED[data]


@pytest.mark.parametrize(
    ("words", "weights", "samples", "ratio", "severity"),
    [
        ("experiment=gene_expression data.val_fraction=0.1 data.test_fraction=0.1", 5_502_502, 800, 6_878, "info"),
        pytest.param(
            "data=fashion_mnist model=linear", 7_850, 48_000, 1 / 6.11, "ok", marks=[clothes, pytest.mark.slow]
        ),
    ],
)
def test_weights_are_held_against_samples(words: str, weights: int, samples: int, ratio: float, severity: str) -> None:
    cfg = composed(*words.split())
    data = build(cfg.data)()
    parameters = sum(parameter.numel() for parameter in build(cfg.model)(data.spec).parameters())
    found = build(cfg.checks.data.size)(View(data, cfg, parameters))
    assert (found.evidence["parameters"], found.evidence["samples"], found.severity) == (weights, samples, severity)
    assert found.evidence["ratio"] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(
    ("data", "again"), [("iris", 1), ("digits", 0), ("wine", 0), ("breast_cancer", 0), ("diabetes", 0)]
)
def test_of_the_small_data_sets_iris_alone_has_a_row_twice(data: str, again: int) -> None:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{data}")(return_X_y=True)
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y)
    spec = Spec("classification", (x.shape[1],), int(y.max()) + 1)
    if data == "diabetes":
        spec, y = Spec("regression", (x.shape[1],), 1), y.float()[:, None]
    finding = audit(spec, {"x": x, "y": y, "vx": x[:2] + 1, "vy": y[:2]}, only="data.duplicates")["data.duplicates"]
    assert (finding.evidence["of"], finding.evidence["again"]) == (len(x), again)


def test_of_97_to_3_the_entropy_of_the_prior_is_told() -> None:
    y = (torch.arange(1000) % 100 < 3).long()
    arrays = {"x": torch.randn(1000, 4), "y": y, "vx": torch.randn(1000, 4), "vy": y}
    finding = audit(Spec("classification", (4,), 2), arrays, only="data.imbalance")["data.imbalance"]
    assert finding.severity == "warn"
    assert finding.evidence["prior_entropy"] == pytest.approx(0.1347, abs=5e-5)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, None))])
def test_of_mixed_digits_whose_labels_are_shifted_by_one_neighbours_know_less_than_the_majority(
    seed: int | None,
) -> None:
    """Five folds of the whole set; None: of the labels as they are."""
    cfg, y, scores, said = (
        composed("data=digits", "data.split=kfold"),
        torch.from_numpy(load_digits().target),
        [],
        set(),
    )
    if seed is not None:
        mixed = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        y = torch.empty_like(y).scatter(0, mixed, y[mixed.roll(1)])
    for cfg.data.fold in range(5):
        data = build(cfg.data)()
        arrays = {"x": data.train.x, "y": y[data.train.ids], "vx": data.val.x, "vy": y[data.val.ids]}
        view = View(made(data.spec, arrays), cfg, 1000)
        right = (neighbours(view, samples=5000).outputs.argmax(1) == arrays["vy"]).float().mean().item()
        scores.append((right, arrays["vy"].bincount().max().item() / len(arrays["vy"])))
        said.add(build(cfg.checks.data.unlearnable)(view).severity)
    right, majority = np.mean(scores, 0)
    if seed is None:
        assert right == pytest.approx(0.974, abs=0.01) and said == {"ok"}
    else:
        assert right == pytest.approx(0.1, abs=0.025) and said == {"fail"}
        assert majority == pytest.approx(0.126, abs=0.01) and right < majority


@pytest.mark.parametrize("step", [1, pytest.param(-1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("words", "load", "own", "near"),
    [("data=digits", load_digits, 0.25, 0.6), ("data=breast_cancer", load_breast_cancer, 0.56, 0.78)],
)
def test_labels_moved_on_by_one_in_the_file_are_told_by_the_samples_stored_beside_theirs(
    words, load, own, near, step
) -> None:
    """As stored, digits come in the order 0 to 9: so much of the label before it can a picture tell."""
    cfg, y = composed(words), torch.from_numpy(load().target).roll(step)
    for cfg.data.split_seed in range(3):
        data = build(cfg.data)()
        arrays = {"x": data.train.x, "y": y[data.train.ids], "vx": data.val.x, "vy": y[data.val.ids]}
        found = build(cfg.checks.data.unlearnable)(View(made(data.spec, arrays), cfg, 1000))
        assert found.severity in ALARMS and f"stored {'after' if step > 0 else 'before'} each" in found.message
        assert (found.evidence["mean_recall"], found.evidence["beside"]) == pytest.approx((own, near), abs=0.05)


def test_the_whole_audit_of_masks_or_of_a_thousand_numbers_each_takes_seconds() -> None:
    """As many targets as pixels: what looks at each pair of a feature and a target would take minutes."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(800, 1000, generator=generator)
    wide = {"x": noise[:600, :900], "y": noise[:600] * 3, "vx": noise[600:, :900], "vy": noise[600:] * 3}
    shapes, masks = clean("data=shapes")
    masks["y"] = masks["y"].roll(1, 0)  # in no order any more, so that every question is asked
    for spec, arrays in ((shapes, masks), (Spec("regression", (900,), 1000), wide)):
        began = time.process_time()
        audit(spec, arrays)
        assert time.process_time() - began < affordable(8), spec.task


def test_what_is_stored_by_class_or_hard_to_tell_is_not_taken_for_moved_on() -> None:
    words = ["data=iris", "data=wine", "data=diabetes", "data=gene_expression", "data=toy_regression", "data=sequences"]
    for word in words:
        spec, arrays = clean(word)
        assert "beside" not in audit(spec, arrays, only="data.unlearnable")["data.unlearnable"].evidence, word


@pytest.mark.parametrize("kind", ["numbers", "classes", "signs"])
def test_a_series_whose_inputs_hold_its_past_is_not_taken_for_moved_on(kind: str) -> None:
    """y follows itself, half of it by chance; the inputs are its last two values (or their signs) and three of noise."""
    generator, level, classes = np.random.default_rng(0), [0.0, 0.0], kind != "numbers"
    for _ in range(1000):
        level.append(0.6 * level[-1] + generator.normal())
    y = past = torch.tensor(level).float()
    y = (y > 0).float() if classes else y
    past = y if kind == "classes" else past
    x = torch.stack([past[1:-1], past[:-2], *torch.from_numpy(generator.normal(size=(3, 1000))).float()], 1)
    spec = Spec("classification" if classes else "regression", (5,), 1 + classes, ("a", "b") if classes else ())
    target = y[2:].long() if classes else y[2:, None]
    arrays = {"x": x[:700], "y": target[:700], "vx": x[700:], "vy": target[700:]}
    found = audit(spec, arrays, only="data.unlearnable")["data.unlearnable"]
    assert (found.severity, "beside" in found.evidence) == ("ok", False)


def test_labels_that_are_shifted_are_told_hardly_better_than_chance_and_their_own_nearly_always() -> None:
    recall = []
    for fault in (lambda spec, arrays: None, planted.shifted):
        spec, arrays = clean("data=digits")
        fault(spec, arrays)
        recall.append(audit(spec, arrays, only="data.unlearnable")["data.unlearnable"].evidence["mean_recall"])
    assert recall[0] == pytest.approx(0.98, abs=0.015)
    assert recall[1] < 0.2


def test_every_wrong_class_is_told_with_its_numbers() -> None:
    spec, arrays = clean("data=digits")
    planted.two_classes_exchanged(spec, arrays)
    finding = audit(spec, arrays)["data.cross_labels"]
    assert finding.evidence["classes"] == 2
    assert "1 looks like train's 2" in finding.message and "2 looks like train's 1" in finding.message


def test_pixels_with_targets_of_their_own_are_counted_as_samples() -> None:
    from types import SimpleNamespace

    from plumbline.checks.data import size

    spec = Spec("segmentation", (3, 480, 640), 2 * 480 * 640, masks=(2, 480, 640))
    view = SimpleNamespace(data=SimpleNamespace(train=range(100)), spec=spec, parameters=5_502_502, classes=False)
    found = size(view, ratio=100.0, each=20)
    assert (found.severity, found.evidence["pixels"]) == ("ok", 30_720_000)
    assert "30,720,000 pixels with a target each" in found.message
    view.spec = Spec("classification", (3, 480, 640), 2)
    assert size(view, ratio=100.0, each=20).severity == "info"
