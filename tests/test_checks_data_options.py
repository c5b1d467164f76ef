"""Every threshold of the audit: another value makes another finding."""

from __future__ import annotations

import planted
import pytest
import torch
from conftest import first_of_each
from planted import audit, clean

DIGITS, DIABETES, CANCER, SHAPES = "data=digits", "data=diabetes", "data=breast_cancer", "data=shapes"


def a_few_copies(spec, arrays) -> None:
    arrays["vx"][:8] = arrays["x"][:8]


def a_few_near_copies(spec, arrays) -> None:
    arrays["vx"][:8] = arrays["x"][:8] + 1e-3


def repeated(spec, arrays) -> None:
    arrays["x"][:100] = arrays["x"][100:200]


def coarse(arrays) -> None:
    """Black and white: rows that are equal by chance are a little less unlikely."""
    arrays["x"], arrays["vx"] = ((arrays[name] > arrays["x"].mean()).float() for name in ("x", "vx"))


def coarse_copies(spec, arrays) -> None:
    coarse(arrays)
    arrays["vx"][:100] = arrays["x"][:100]


def coarse_repeats(spec, arrays) -> None:
    coarse(arrays)
    repeated(spec, arrays)


def two_exchanged(spec, arrays) -> None:
    y = arrays["vy"]
    arrays["vy"] = torch.where(y == 3, 5, torch.where(y == 5, 3, y))


def a_class_not_in_val(spec, arrays) -> None:
    kept = arrays["vy"] != 4
    arrays["vx"], arrays["vy"] = arrays["vx"][kept], arrays["vy"][kept]


def one_wide_column(spec, arrays) -> None:
    for name in ("x", "vx"):
        arrays[name] = arrays[name].clone()
        arrays[name][:, 3] *= 8


def moved(spec, arrays) -> None:
    arrays["vx"] = arrays["vx"] + 0.2


def spread(spec, arrays) -> None:
    arrays["vx"] = arrays["vx"] * 1.4


def little_target(spec, arrays) -> None:
    arrays["y"], arrays["vy"] = arrays["y"] * 0.1, arrays["vy"] * 0.1


def wide_target(spec, arrays) -> None:
    arrays["y"], arrays["vy"] = arrays["y"] * 8, arrays["vy"] * 8


def far_target(spec, arrays) -> None:
    arrays["y"], arrays["vy"] = arrays["y"] + 8, arrays["vy"] + 8


def mostly_moved_on(spec, arrays) -> None:
    kept = torch.arange(len(arrays["y"])) % 4 == 0
    arrays["y"] = torch.where(kept, arrays["y"], arrays["y"].roll(1))


def nothing(spec, arrays) -> None:
    pass


def targets_exchanged(spec, a) -> None:
    planted.noisy_labels(spec, a, 0.6)


# the check and its key: (another value, data, fault); with the value of the YAML its severity is another one
MOVED = {
    "class_missing.expected": (100.0, DIGITS, a_class_not_in_val),
    "overlap.share": (0.5, DIGITS, a_few_copies),
    "near_duplicates.embedding": ({"_target_": "test_checks_data_options.Blind"}, DIGITS, a_few_near_copies),
    "near_duplicates.close": (1e-9, DIGITS, a_few_near_copies),
    "near_duplicates.share": (0.5, DIGITS, a_few_near_copies),
    "near_duplicates.times": (1e30, DIGITS, a_few_near_copies),
    "near_duplicates.rare": (-1.0, DIGITS, planted.near_copies_in_train),
    "near_duplicates.least": (9, DIGITS, a_few_near_copies),
    "moved_copies.close": (0.0, DIGITS, planted.moved_copies),
    "moved_copies.share": (0.9, DIGITS, planted.moved_copies),
    "moved_copies.times": (1e30, DIGITS, planted.moved_copies),
    "moved_copies.least": (1000, DIGITS, planted.moved_copies),
    "same_sample.share": (1.0, DIGITS, nothing),
    "overlap.times": (1e300, DIGITS, coarse_copies),
    "duplicates.times": (1e300, DIGITS, coarse_repeats),
    "provenance.nearly": (1e-12, DIABETES, planted.scaled_by_both),
    "provenance.alone": (10.0, DIABETES, planted.scaled_by_both),
    "scale.low": (2.0, DIGITS, nothing),
    "scale.high": (0.5, DIGITS, nothing),
    "scale.far": (-1.0, DIGITS, nothing),
    "scale.apart": (5.0, DIABETES, one_wide_column),
    "scale.gross": (1.0, DIGITS, planted.unnormalised),
    "shift.apart": (0.1, DIGITS, moved),
    "shift.times": (1.2, DIGITS, spread),
    "shift.auc": (1.1, DIGITS, spread),
    "shift.sigmas": (-100.0, DIGITS, nothing),
    "target_scale.far": (5.0, DIABETES, far_target),
    "target_scale.high": (5.0, DIABETES, wide_target),
    "target_scale.low": (0.5, DIABETES, little_target),
    "target_scale.gross": (1e9, DIABETES, planted.unscaled_target),
    "order.least": (0.01, DIGITS, planted.sorted_unshuffled),
    "leak.classes": (0.01, DIGITS, nothing),
    "leak.numbers": (0.01, DIABETES, nothing),
    "leak.pure": (1.1, DIGITS, planted.corner_mark),
    "border.share": (0.49, DIGITS, nothing),
    "border.kept": (1.1, DIGITS, planted.framed),
    "border.behind": (-1.0, DIGITS, planted.framed),
    "unlearnable.least": (100_000, DIGITS, planted.shifted),
    "unlearnable.enough": (1e9, DIGITS, nothing),
    "unlearnable.none": (1e9, DIGITS, planted.shifted),
    "unlearnable.hardly": (0.99999, DIGITS, nothing),
    "unlearnable.beside": (2.0, DIGITS, mostly_moved_on),
    "cross_labels.least": (100_000, DIGITS, planted.renumbered),
    "cross_labels.sure": (1e9, DIGITS, planted.renumbered),
    "cross_labels.learned": (1.1, DIGITS, planted.renumbered),
    "cross_labels.kept": (1.1, DIGITS, nothing),
    "cross_labels.lost": (1.1, DIGITS, nothing),
    "cross_labels.renamed": (1.1, DIGITS, two_exchanged),
    "label_errors.least": (100_000, DIGITS, planted.noisy_labels),
    "label_errors.floor": (0.99, DIGITS, planted.noisy_labels),
    "label_errors.gap": (0.99, DIGITS, planted.noisy_labels),
    "label_errors.surest": (0.01, DIGITS, planted.noisy_labels),
    "label_errors.right": (2.0, DIGITS, planted.noisy_labels),
    "label_errors.learned": (1.1, DIGITS, planted.noisy_labels),
    "label_errors.sure": (1e9, DIGITS, planted.noisy_labels),
    "label_errors.numbers": (1e9, DIABETES, targets_exchanged),
    "imbalance.least": (0.01, DIGITS, planted.imbalanced),
    "imbalance.times": (1.0, DIGITS, nothing),
    "duplicates.share": (0.9, DIGITS, repeated),
    "enlarged.factor": (100, SHAPES, nothing),
    "enlarged.share": (2.0, SHAPES, nothing),
    "correlated.above": (0.9999, CANCER, nothing),
    "outliers.far": (100.0, DIABETES, planted.wrong_unit),
    "outliers.share": (1e-9, DIABETES, planted.wrong_unit),
    "outliers.blank": (0.99, DIGITS, nothing),
    "outliers.noise": (0.7, DIGITS, nothing),
    "few_to_validate.least": (100_000, DIGITS, nothing),
    "size.ratio": (0.1, DIGITS, nothing),
    "size.each": (100_000, DIGITS, nothing),
}


class Blind:
    """An embedding that sees nothing."""

    def __call__(self, x):
        return x.flatten(1) * 0


@pytest.mark.parametrize("key", first_of_each([(key,) for key in MOVED], lambda row: row[0].partition(".")[0]))
def test_another_value_of_a_threshold_makes_another_finding(key: str) -> None:
    value, words, fault = MOVED[key]
    name = f"data.{key.partition('.')[0]}"
    found = {}
    for case in ("as it is", "another"):
        spec, arrays = clean(words)
        fault(spec, arrays)
        given = [f"checks.data.{key}={plain(value)}"] if case == "another" else []
        found[case] = audit(spec, arrays, words, *BOTH.get(key, []), *given, only=name).get(name)
    severity = {case: finding and finding.severity for case, finding in found.items()}
    assert severity["as it is"] != severity["another"], found


BOTH = {  # what keeps another threshold of the same check from deciding, or lets a component of this file be built
    "near_duplicates.embedding": ["allow=[plumbline,test_checks_data_options]"],
    "cross_labels.kept": ["checks.data.cross_labels.lost=1.1"],
    "cross_labels.lost": ["checks.data.cross_labels.kept=1.1"],
    "label_errors.surest": ["checks.data.label_errors.gap=2"],
    "label_errors.right": ["checks.data.label_errors.gap=2"],
    "label_errors.learned": ["checks.data.label_errors.gap=2"],
    "label_errors.floor": ["checks.data.label_errors.gap=2"],
    "label_errors.gap": ["checks.data.label_errors.floor=2"],
    "label_errors.sure": ["checks.data.label_errors.floor=2"],
    "shift.auc": ["checks.data.shift.times=2", "checks.data.shift.sigmas=0.5", "checks.data.shift.auc=0.1"],
}  # fmt: skip


def plain(value) -> str:
    return (
        "{" + ",".join(f"{key}: {item}" for key, item in value.items()) + "}" if isinstance(value, dict) else str(value)
    )
