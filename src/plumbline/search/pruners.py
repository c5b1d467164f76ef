"""Which trials end before their last epoch. Each gives a pruner of Optuna's; the objective is reported every epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from plumbline.contract import require
from plumbline.ranges import Count, Index, Inside, NonNegative, Range

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


def none() -> None:
    """No trial ends early."""


def median(*, trials: Index, epochs: Index) -> BasePruner:
    """Ends a trial whose best so far is below the median of the others at that epoch (Golovin et al. 2017)."""
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=trials, n_warmup_steps=epochs)


def asha(*, least: Count, reduction: Annotated[int, Range("[2, 1000]")]) -> BasePruner:
    """Asynchronous successive halving (Li et al. 2020): of the trials that reach a rung, the best 1/reduction go on."""
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=least, reduction_factor=reduction)


def hyperband(*, least: Count, reduction: Annotated[int, Range("[2, 1000]")], most: Count) -> BasePruner:
    """Successive halving with several first rungs, for curves that start slowly (Li et al. 2018)."""
    from optuna.pruners import HyperbandPruner

    require("pruner.most", most, most >= least, f"at least pruner.least={least}")
    return HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=reduction)


def wilcoxon(*, p: Inside, seeds: Count) -> BasePruner:
    """Between the seeds of a trial (search.seeds): ends one that is significantly worse than the best (Wilcoxon 1945)."""
    from optuna.pruners import WilcoxonPruner

    return WilcoxonPruner(p_threshold=p, n_startup_steps=seeds)


def patient(*, epochs: Count, tolerance: NonNegative) -> BasePruner:
    """Ends a trial whose last epochs were all worse than its best before, by more than the tolerance (Prechelt 1998)."""
    from optuna.pruners import PatientPruner

    return PatientPruner(None, patience=epochs, min_delta=tolerance)
