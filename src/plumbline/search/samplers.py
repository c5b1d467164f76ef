"""How the next point is chosen. Each gives, for a seed, a sampler of Optuna's; a trial's seed is that of its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from plumbline.ranges import Count, Index, Range

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Make = Callable[[int], "BaseSampler"]


def independent() -> Make:
    """Each parameter by itself, uniformly (Bergstra and Bengio 2012)."""
    from optuna.samplers import RandomSampler

    return lambda seed: RandomSampler(seed=seed)


def tpe(*, startup: Index) -> Make:
    """Tree-structured Parzen estimators, jointly over the parameters (Bergstra et al. 2011, Falkner et al. 2018).

    Trials under way count as bad ones, so that parallel workers do not crowd on one place.
    """
    from optuna.samplers import TPESampler

    return lambda seed: TPESampler(
        seed=seed, n_startup_trials=startup, group=True, multivariate=True, constant_liar=True,
    )  # fmt: skip


def gp(*, startup: Count) -> Make:
    """A Gaussian process and its expected improvement (Snoek et al. 2012)."""
    from optuna.samplers import GPSampler

    return lambda seed: GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


def cmaes(*, startup: Count) -> Make:
    """Evolution with an adapted covariance matrix (Hansen and Ostermeier 2001); choices are drawn at random."""
    from optuna.samplers import CmaEsSampler

    return lambda seed: CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


def nsga(*, population: Annotated[int, Range("[2, 100000]")]) -> Make:
    """A genetic algorithm that spreads along the Pareto front (Deb et al. 2002)."""
    from optuna.samplers import NSGAIISampler

    return lambda seed: NSGAIISampler(seed=seed, population_size=population)


def points() -> Make:
    """For a search whose points are known by their numbers (grid, qmc): nothing is left to draw."""
    return independent()


def quasi_random(dimensions: int, number: int, seed: int) -> list[float]:
    """Point `number` of a scrambled Sobol sequence in the unit cube (Sobol 1967, Owen 1998)."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(dimensions, scramble=True, rng=seed)
    if number:  # to go forward by nothing is an error to it
        sequence.fast_forward(number)
    return sequence.random(1)[0].tolist()
