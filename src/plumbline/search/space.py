"""What a study searches: Hydra's own words for it on the command line, or files in conf/space. No torch, no optuna."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import FloatRange, Override
from hydra.errors import HydraException

from plumbline.contract import ConfigError, nearest, shown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Point = dict[str, Any]  # a value of each parameter that is active: a number, or the words of a choice


@dataclass(frozen=True)
class Parameter:
    """One dimension: an interval of numbers (`low` to `high`, whole ones if `step` is), or a choice among words.

    A choice whose name is several keys, joined by ", ", sets them together; its words are one a key, joined likewise.
    """

    name: str
    text: str  # as it was written
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    when: tuple[str, tuple[str, ...]] | None = (
        None  # (another parameter, the words of it under which this one is there)
    )

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def suggest(self, trial: Trial) -> Any:
        """The trial's value of it: the one that is stored or enqueued, or a new one from the sampler."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    @property
    def whole(self) -> bool:
        return isinstance(self.step, int)

    def words(self, value: Any) -> list[str]:
        """The overrides that give it that value."""
        keys = self.name.split(", ")
        values = value.split(SEPARATOR) if len(keys) > 1 else [value if isinstance(value, str) else repr(value)]
        return [f"{key}={word}" for key, word in zip(keys, values, strict=True)]

    def at(self, u: float) -> Any:
        """The value at a place u in [0, 1) of its range; every choice, and every step, has an equal share."""
        if self.choices:
            return self.choices[int(u * len(self.choices))]
        if self.log:
            low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
            value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
            return min(int(value), int(self.high)) if self.whole else min(max(value, self.low), self.high)
        if self.step:
            return _rounded(self.low + self.step * int(u * (round((self.high - self.low) / self.step) + 1)))
        return self.low + u * (self.high - self.low)

    def place(self, value: Any) -> float:
        """Where in [0, 1] of its range a number lies."""
        if self.high == self.low:
            return 0.5
        scale = math.log if self.log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))


MOST = 10_000  # points of a grid, each a run
SEPARATOR = " ; "  # between the words of keys that are set together


@dataclass(frozen=True)
class Space:
    """The parameters of a study; those that others depend on come first."""

    parameters: tuple[Parameter, ...]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        return next(parameter for parameter in self if parameter.name == name)

    @property
    def names(self) -> list[str]:
        return [parameter.name for parameter in self]

    def active(self, parameter: Parameter, point: Point) -> bool:
        return parameter.when is None or point.get(parameter.when[0]) in parameter.when[1]

    def words(self, point: Point) -> list[str]:
        """The overrides of a point."""
        return [
            word for parameter in self if parameter.name in point for word in parameter.words(point[parameter.name])
        ]

    def grid(self) -> list[Point]:
        """Every combination, the last parameter moving fastest. Raises ConfigError where there are infinitely many."""
        points: list[Point] = [{}]
        for parameter in self:
            _check_size(parameter, len(points))
            values = _values(parameter)
            points = [
                point | chosen
                for point in points
                for chosen in ([{parameter.name: value} for value in values] if self.active(parameter, point) else [{}])
            ]
        return points

    def at(self, place: list[float]) -> Point:
        """The point at a place of the unit cube, a coordinate a parameter."""
        point: Point = {}
        for parameter, u in zip(self, place, strict=True):
            if self.active(parameter, point):
                point[parameter.name] = parameter.at(u)
        return point

    def plain(self) -> list[dict[str, Any]]:
        """For a YAML file."""
        empty = asdict(Parameter("", ""))  # 0 is a value
        rows = [asdict(parameter) for parameter in self]
        return [{key: value for key, value in row.items() if value is not empty[key] and value != ()} for row in rows]

    @classmethod
    def of(cls, plain: list[dict[str, Any]]) -> Space:
        return cls(tuple(Parameter(**{key: _tuples(value) for key, value in row.items()}) for row in plain))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _values(parameter: Parameter) -> list[Any]:
    if parameter.choices:
        return list(parameter.choices)
    if parameter.step is None:
        raise ConfigError(
            f"{parameter.name}={parameter.text}: a grid needs its points one by one; say search=tpe, or another that "
            "draws from an interval"
        )
    return [_rounded(parameter.low + k * parameter.step) for k in range(int(_count(parameter)))]


def _count(parameter: Parameter) -> float:
    """How many values a parameter has: infinitely many in an interval."""
    if parameter.choices:
        return len(parameter.choices)
    return math.inf if parameter.step is None else round((parameter.high - parameter.low) / parameter.step) + 1


def _check_size(parameter: Parameter, points: int) -> None:
    """Raise ConfigError before a parameter makes a grid of so many points too large to be held."""
    if MOST < (count := points * _count(parameter)) < math.inf:
        raise ConfigError(
            f"{parameter.name}={parameter.text}: makes a grid of {count} points, and a grid has at most {MOST}; take a "
            "larger step, or draw some of them: search=random search.n_trials=100"
        )


# --- from words ------------------------------------------------------------------------------------------------------


def parse(overrides: list[str], files: dict[str, Any], loader: Any) -> tuple[Space, list[str]]:
    """(the space, the overrides that are fixed). files: what conf/space gave, by key; the command line has the last word.

    loader: Hydra's configuration loader, for globs of options.
    """
    parser = OverridesParser.create(config_loader=loader)
    found: dict[str, Parameter] = {}
    fixed: dict[str, str] = {}
    for override in parser.parse_overrides(overrides):
        if override.is_sweep_override():
            found[override.key_or_group] = _of_override(override)
        else:
            fixed[override.key_or_group] = override.input_line
    for name, value in files.items():
        keys = [key.strip() for key in name.split(",")]
        if not any(key in fixed or key in found for key in keys):
            found |= {", ".join(keys): _of_file(", ".join(keys), keys, value, parser)}
    return Space(_ordered(found, fixed)), list(fixed.values())


def _of_override(override: Override) -> Parameter:
    name, value, text = override.get_key_element(), override.value(), override.get_value_string()
    if "~" in name:
        raise ConfigError(f"{override.input_line}: a deletion has no values to search")
    if override.is_interval_sweep():
        low, high, log = value.start, value.end, "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):  # int(interval(…)): by itself its ends are floats
            return _interval(name, text, low, high, 1, log)
        return _interval(name, text, float(low), float(high), None, log)
    if override.is_range_sweep():
        if not value.step:
            raise ConfigError(f"{override.input_line}: has a step of 0; give another one")
        inside = value.range()
        first, step = inside.start, inside.step  # of floats, Hydra's are Decimals
        if not math.isfinite(span := (inside.stop - first) / step) or span <= 0:
            raise ConfigError(f"{override.input_line}: has no values")
        last = first + (math.ceil(span) - 1) * step
        if isinstance(inside, FloatRange):
            first, last, step = (_rounded(float(end)) for end in (first, last, step))
        return _interval(name, text, min(first, last), max(first, last), abs(step), "log" in value.tags)
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise ConfigError(f"{override.input_line}: has no values")
    return Parameter(name, text, choices=choices)


def _rounded(value: Any) -> Any:
    """A number as it was meant: 0.3 where steps of 0.1 gave 0.30000000000000004."""
    return value if isinstance(value, int) else float(f"{value:.12g}")


def _interval(name: str, text: str, low: float, high: float, step: float | None, log: bool) -> Parameter:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ConfigError(f"{name}={text}: an interval goes from a number to a larger one")
    if log and low <= 0:
        raise ConfigError(f"{name}={text}: begins at {low:g}; on a logarithmic scale everything is above 0")
    if log and step not in (None, 1):
        raise ConfigError(f"{name}={text}: a logarithmic range has a step of 1")
    return Parameter(name, text, low, high, step, log)


def _of_file(name: str, keys: list[str], value: Any, parser: OverridesParser) -> Parameter:
    """A parameter of a file: Hydra's words, a list of values, a list of rows for keys that go together, or these
    under `values` beside a condition under `when`."""
    when = None
    if isinstance(value, dict):
        if set(value) != {"when", "values"}:
            raise ConfigError(
                f"space: {name}: has {', '.join(map(str, value))}; a condition is `when: …` beside `values: …`"
            )
        when, value = _condition(name, value["when"]), value["values"]
    if len(keys) > 1:
        if not isinstance(value, list) or any(not isinstance(row, list) or len(row) != len(keys) for row in value):
            raise ConfigError(f"space: {name}: keys that go together have a list of rows, {len(keys)} values in each")
        rows = [SEPARATOR.join(map(shown, row)) for row in value]
        return Parameter(name, shown(value), choices=tuple(dict.fromkeys(rows)), when=when)
    text = f"choice({','.join(map(shown, value))})" if isinstance(value, list) else str(value)
    try:
        override = parser.parse_override(f"{name}={text}")
        parameter = _of_override(override) if override.is_sweep_override() else None
    except HydraException as error:
        raise ConfigError(f"space: {name}: {text}: cannot be read ({str(error).splitlines()[0]})") from error
    if parameter is None:
        raise ConfigError(f"space: {name}: {text}: is one value; say choice(…), range(…), interval(…) or a list")
    return Parameter(**asdict(parameter) | {"when": when})


def _condition(name: str, when: Any) -> tuple[str, tuple[str, ...]]:
    parent, _, words = when.partition("=") if isinstance(when, str) else ("", "", "")
    if not parent or not words:
        raise ConfigError(f"space: {name}: when: {when}: is written key=value, or key=[value,value]")
    several = words[1:-1].split(",") if words.startswith("[") else [words]
    return parent.strip(), tuple(word.strip() for word in several)


def _ordered(found: dict[str, Parameter], fixed: dict[str, str]) -> tuple[Parameter, ...]:
    """Parents before children. A condition on a key that is fixed is decided here."""
    ordered: dict[str, Parameter] = {}
    waiting = {parameter.name: parameter for parameter in found.values()}
    while waiting:
        for name, parameter in list(waiting.items()):
            parent = parameter.when[0] if parameter.when and parameter.when[0] in found else None
            if parameter.when and parent is None:
                key, accepted = parameter.when
                if key not in fixed:
                    hint = nearest(key, [*found, *fixed])
                    raise ConfigError(f"space: {name}: depends on {key}, which is neither searched nor given{hint}")
                del waiting[name]
                if fixed[key].partition("=")[2] in accepted:
                    ordered[name] = Parameter(**asdict(parameter) | {"when": None})
                break
            if parent is None or parent in ordered:
                if parent is not None and (odd := set(parameter.when[1]) - set(ordered[parent].choices)):
                    raise ConfigError(
                        f"space: {name}: depends on {parent}={', '.join(sorted(odd))}, which is no choice of it"
                    )
                ordered[name] = waiting.pop(name)
                break
        else:
            raise ConfigError(f"space: {', '.join(waiting)}: depend on one another in a circle")
    return tuple(ordered.values())


def product_size(space: Space) -> float:
    """How many points a space has: infinitely many where there is an interval."""
    return math.prod(map(_count, space))


def corners(space: Space, most: int) -> list[Point]:
    """A sample of a space for a check: each choice and each end of an interval at least once, then random ones."""
    import random

    draw = random.Random(0)
    extremes = [parameter.choices or (parameter.low, parameter.high) for parameter in space]
    points = []
    for row in itertools.islice(itertools.count(), max(map(len, extremes), default=1)):
        place = [values[row % len(values)] for values in extremes]
        points.append(dict(zip([parameter.name for parameter in space], place, strict=True)))
    points += [space.at([draw.random() for _ in space]) for _ in range(most)]
    alone = []
    for point in points:
        kept: Point = {}
        for parameter in space:
            if space.active(parameter, kept):
                kept[parameter.name] = point.get(parameter.name, extremes[list(space).index(parameter)][0])
        if kept not in alone:
            alone.append(kept)
    return alone[: max(most, len(extremes) and max(map(len, extremes)))]
