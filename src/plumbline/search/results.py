"""The trials of a study as its post-mortem reads them: in order, with their noise, and where in the space they lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from plumbline.search.finish import best_trials, confirmed, run_folder, status
from plumbline.search.outcome import read_run
from plumbline.search.space import Parameter, Space

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from plumbline.search.study import Study


EDGE = 0.05  # of a range, at either end


@dataclass
class Results:
    """The trials of a study as the judgements read them; of several objectives the first."""

    study: Study
    opened: optuna.Study
    trials: list[FrozenTrial] = field(init=False)

    def __post_init__(self) -> None:
        self.trials = self.opened.get_trials(deepcopy=False)
        self.objective, direction = self.opened.user_attrs["objectives"][0]
        self.sign = 1.0 if direction == "maximise" else -1.0
        self.finished = sorted((t for t in self.trials if t.values), key=self.score, reverse=True)
        self.finished = [t for t in self.finished if status(t) == "finished"]
        self.space: Space = self.study.space
        self.best = best_trials(self.opened)

    def score(self, trial: FrozenTrial) -> float:
        """Higher is better, whatever the direction."""
        return self.sign * trial.values[0]

    def run(self, trial: FrozenTrial) -> dict[str, Any]:
        return read_run(run_folder(self.study, trial.number)) or {}

    def noise(self) -> float | None:
        """The standard deviation that a trial's value has from its seed; from the validation set's size, if need be."""
        spreads = [
            stdev([v[0] for v in t.user_attrs["values"]])
            for t in self.finished
            if len(t.user_attrs.get("values", [])) > 1
        ]
        if spreads:
            return math.sqrt(mean(s**2 for s in spreads)) / math.sqrt(self.study.search["seeds"])
        if len(values := confirmed(self.study)) > 1:
            return stdev(values)
        if not self.best:
            return None
        interval = self.run(self.best[0]).get("interval")
        ends = interval.get(self.objective) if isinstance(interval, dict) else None
        numbers = isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
        return (ends[1] - ends[0]) / (2 * 1.96) if numbers else None


def number(value: float) -> str:
    return f"{value:.4g}"


def placed(parameter: Parameter, value: Any) -> float | None:
    """Where in [0, 1] a value lies: of an interval, or among at least three numbers given one by one."""
    if value is None:
        return None
    if not parameter.choices:
        return None if parameter.high == parameter.low else parameter.place(value)
    if parameter.name == "seed":
        return None  # a seed has no ends
    try:
        numbers = sorted(map(float, parameter.choices))
        return numbers.index(float(value)) / (len(numbers) - 1) if len(numbers) > 2 else None
    except ValueError:
        return None


def distance(space: Space, one: FrozenTrial, other: FrozenTrial) -> float:
    """How far apart two points are: root mean square over the parameters, 1 for another choice or a missing one."""
    parts = []
    for parameter in space:
        a, b = one.params.get(parameter.name), other.params.get(parameter.name)
        if a is None and b is None:
            continue
        places = (placed(parameter, a), placed(parameter, b))
        parts.append(float(a != b) if None in places else places[0] - places[1])
    return math.sqrt(mean(part**2 for part in parts)) if parts else 0.0
