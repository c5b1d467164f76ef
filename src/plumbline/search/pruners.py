"""Which trials end before their last epoch. Each gives a pruner of Optuna's; the objective is reported every epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline.contract import require

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


def none() -> None:
    """No trial ends early."""


def median(*, trials: int, epochs: int) -> BasePruner:
    """Ends a trial whose best so far is below the median of the others at that epoch (Golovin et al. 2017)."""
    from optuna.pruners import MedianPruner

    require("pruner.trials", trials, trials >= 0, "at least 0")
    require("pruner.epochs", epochs, epochs >= 0, "at least 0")
    return MedianPruner(n_startup_trials=trials, n_warmup_steps=epochs)


def asha(*, least: int, reduction: int) -> BasePruner:
    """Asynchronous successive halving (Li et al. 2020): of the trials that reach a rung, the best 1/reduction go on."""
    from optuna.pruners import SuccessiveHalvingPruner

    require("pruner.least", least, least >= 1, "at least 1")
    require("pruner.reduction", reduction, reduction >= 2, "at least 2")
    return SuccessiveHalvingPruner(min_resource=least, reduction_factor=reduction)


def hyperband(*, least: int, reduction: int, most: int) -> BasePruner:
    """Successive halving with several first rungs, for curves that start slowly (Li et al. 2018)."""
    from optuna.pruners import HyperbandPruner

    require("pruner.least", least, least >= 1, "at least 1")
    require("pruner.reduction", reduction, reduction >= 2, "at least 2")
    require("pruner.most", most, most >= least, f"at least pruner.least={least}")
    return HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=reduction)


def wilcoxon(*, p: float, seeds: int) -> BasePruner:
    """Between the seeds of a trial (search.seeds): ends one that is significantly worse than the best (Wilcoxon 1945)."""
    from optuna.pruners import WilcoxonPruner

    require("pruner.p", p, 0 < p < 1, "between 0 and 1")
    require("pruner.seeds", seeds, seeds >= 1, "at least 1")
    return WilcoxonPruner(p_threshold=p, n_startup_steps=seeds)


def patient(*, epochs: int, tolerance: float) -> BasePruner:
    """Ends a trial whose last epochs were all worse than its best before, by more than the tolerance (Prechelt 1998)."""
    from optuna.pruners import PatientPruner

    require("pruner.epochs", epochs, epochs >= 1, "at least 1")
    require("pruner.tolerance", tolerance, tolerance >= 0, "at least 0")
    return PatientPruner(None, patience=epochs, min_delta=tolerance)
