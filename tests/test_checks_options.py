"""Every threshold of every check is another value in some test that shows its effect: each key has its line here."""

from __future__ import annotations

import pytest
from conftest import composed
from test_checks_data_options import MOVED as AUDIT
from test_checks_probes import MOVED as PROBES
from test_checks_probes import SETTINGS
from test_options import is_test

from plumbline.config import FAMILIES

FULL = composed("checks=full").checks
KEYS = [
    f"{family}.{name}.{key}"
    for family in ("baselines", *(family for phase in FAMILIES.values() for family in phase))
    for name, node in FULL[family].items()
    for key in node
    if key != "_target_"
]

# family.check.key -> the test that gives it another value and shows the finding change, as file::name
PROVEN = {
    **dict.fromkeys(
        (
            "curve.unbounded.times",
            "curve.unbounded.slower",
            "curve.lr_collapsed.below",
            "curve.lr_collapsed.before",
            "curve.updates.small",
            "curve.updates.large",
            "curve.updates.learned_less",
            "curve.vanishing.ratio",
            "curve.diverging.times",
            "curve.diverging.last",
            "curve.diverging.lost",
            "curve.diverging.above",
            "curve.diverging.learned",
            "curve.exploding.times",
            "curve.exploding.learned_less",
            "curve.not_learning.share",
            "curve.not_learning.known",
            "curve.not_learning.steady",
            "curve.unstable.share",
            "curve.unstable.least",
            "curve.unstable.often",
            "curve.overfit.sigmas",
            "curve.overfit.least",
            "curve.overfit.grave",
            "curve.underfit.share",
            "curve.underfit.gap",
            "curve.plateau.share",
            "curve.plateau.stretch",
            "curve.plateau.left",
            "curve.drops.factor",
            "curve.drops.gain",
            "curve.early_best.share",
            "curve.gap.share",
            "curve.improving.share",
            "curve.jitter.share",
            "curve.saturated.within",
            "curve.saturated.fell",
            "curve.saturated.sigmas",
            "curve.train_mode.share",
        ),
        "test_checks_curve.py::test_another_threshold_gives_another_finding",
    ),
    **dict.fromkeys(
        (
            "result.metrics_disagree.within",
            "result.hides_class.rare",
            "result.hides_class.recall",
            "result.hides_class.samples",
            "result.constant_prediction.share",
            "result.constant_prediction.spread",
            "result.baseline.far",
            "result.baseline.worse",
            "result.no_better_than_zero_input.sigmas",
            "result.val_above_train.sigmas",
            "result.too_good.error",
            "result.too_good.samples",
            "result.too_good.times",
            "result.calibration.sigmas",
            "result.calibration.least",
        ),
        "test_checks_result.py::test_another_threshold_gives_another_finding",
    ),
} | {
    f"{name}.{key}": "test_checks_probes.py::test_another_threshold_moves_the_finding"
    for name, *_, thresholds, _ in PROBES
    for key in thresholds
} | {
    f"{name}.{key}": "test_checks_probes.py::test_another_setting_makes_another_measurement"
    for name, setting, _, _ in SETTINGS
    for key in setting
} | {
    f"data.{key}": "test_checks_data_options.py::test_another_value_of_a_threshold_makes_another_finding"
    for key in AUDIT
} | {
    "plan.one_change.most": "test_changes.py::test_two_changes_are_a_note_and_since_a_named_run_a_warning",
    "baselines.linear.samples": "test_checks_baselines.py::test_fewer_samples_make_a_weaker_baseline_that_says_so",
    "baselines.linear.strengths": "test_checks_baselines.py::test_the_penalty_is_chosen_among_the_strengths",
    "baselines.neighbours.samples": "test_checks_baselines.py::test_fewer_samples_make_a_weaker_baseline_that_says_so",
    "baselines.forest.samples": "test_checks_baselines.py::test_fewer_samples_make_a_weaker_baseline_that_says_so",
    "baselines.forest.trees": "test_checks_baselines.py::test_one_tree_is_a_weaker_forest",
    "baselines.zero_input.updates": "test_checks_baselines.py::test_zeros_teach_the_prior_and_no_more",
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_every_threshold_is_shown_to_change_a_finding(key: str) -> None:
    assert key in PROVEN, f"conf/checks has {key}, which no test changes: give it a line in PROVEN"
    assert is_test(PROVEN[key])


def test_every_line_of_the_table_has_its_threshold() -> None:
    assert set(PROVEN) == set(KEYS)


def test_every_threshold_stands_with_its_reason() -> None:
    import re

    from conftest import ROOT

    bare = [
        f"{file.name}: {line.strip()}"
        for file in (ROOT / "conf" / "checks").glob("*.yaml")
        for line in file.read_text().splitlines()
        if re.match(r" {4}(?!_target_)\w+: \S", line) and "#" not in line
    ]
    assert bare == []
