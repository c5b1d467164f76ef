"""Where to search next, as a line to paste: where the best trials lay, and beyond an end that the best one touched."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from plumbline.config import PLACE, STUDY
from plumbline.mistakes import parse
from plumbline.search.results import EDGE, Results, placed
from plumbline.search.space import Parameter, _rounded

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from plumbline.search.study import Study

BEYOND = 0.25  # of the range, past an end that the best one touched
TOP = 0.25  # share of the trials from which the next space is drawn
LITTLE = 0.02  # importance of a parameter that may be left at its best value


def next_search(results: Results, importances: dict[str, float]) -> str | None:
    """A command line that searches where the best quarter of the trials lay, and beyond an end that it touched."""
    study, best = results.study, results.best[0] if results.best else None
    has_ends = best is not None and any(placed(p, best.params.get(p.name)) is not None for p in results.space)
    if len(results.finished) < 4 or (study.kind == "grid" and not has_ends):
        return None
    top = results.finished[: max(4, math.ceil(TOP * len(results.finished)))]
    needed = [other.when for other in results.space if other.when is not None]
    words: list[str] = []
    for parameter in results.space:
        named = {word for name, accepted in needed if name == parameter.name for word in accepted}
        words += narrowed(parameter, top, best, importances, len(results.finished), named)
    kind = "tpe" if study.kind in ("grid", "random", "qmc") else study.kind
    options = [f"study={study.name}-next", f"search={kind}", f"search.n_trials={max(20, study.n_trials)}"]
    return shlex.join(["scripts/train", "-m", *study.where(), *options, *kept(study, kind), *study.fixed, *words])


def kept(study: Study, kind: str) -> list[str]:
    """What its command says of how to search and where to run, and another search of that kind says, too."""
    other = ("study", "search", "search.n_trials", "search.extend", "search.trust")
    found = []
    for word in parse(shlex.split(study.command)[1:]).overrides:
        key = word.lstrip("+~").partition("=")[0]
        of_its_kind = key.startswith("search.sampler") and kind != study.kind
        if key.partition(".")[0] in (*STUDY, *PLACE) and key not in other and not of_its_kind:
            found.append(word)
    return found


def narrowed(
    parameter: Parameter,
    top: list[FrozenTrial],
    best: FrozenTrial,
    importances: dict[str, float],
    count: int,
    named: set[str],
) -> list[str]:
    """The words of a parameter for the next search; none where only a file can say them: conditions, and rows.

    named: the choices of it that other parameters depend on, which stay, or those could not be there.
    """
    name, values = parameter.name, [t.params[parameter.name] for t in top if parameter.name in t.params]
    if not values or parameter.when is not None or ", " in name or name == "seed":
        return []
    if importances.get(name, 1.0) < LITTLE and count >= 20 and name in best.params:
        return parameter.words(best.params[name])
    if parameter.choices and (named or placed(parameter, values[0]) is None):
        chosen = [choice for choice in parameter.choices if choice in values]
        if len(chosen) == 1:
            return [f"{name}={chosen[0]}"]
        chosen = [choice for choice in parameter.choices if choice in values or choice in named]
        return [f"{name}=choice({','.join(chosen)})"]
    numbers = [float(value) for value in values]
    given = [float(choice) for choice in parameter.choices] or [parameter.low, parameter.high]
    log = parameter.log or (min(given) > 0 and max(given) / min(given) >= 30)
    change, back = (math.log, math.exp) if log else (float, float)
    low, high = min(map(change, numbers)), max(map(change, numbers))
    whole = change(max(given)) - change(min(given))
    low, high = low - 0.1 * whole, high + 0.1 * whole
    where = placed(parameter, best.params.get(name))
    if where is not None and where <= EDGE:
        low = min(low, change(min(given)) - BEYOND * whole)
    elif where is not None and where >= 1 - EDGE:
        high = max(high, change(max(given)) + BEYOND * whole)
    else:
        low, high = max(low, change(min(given))), min(high, change(max(given)))
    low, high = (_rounded(float(f"{back(end):.2g}")) for end in (low, high))
    if min(given) >= 0:
        low = max(low, 0.0)  # nothing that was never negative becomes so
    if parameter.whole:
        low, high = (max(1 if log else math.floor(parameter.low) if parameter.low < 0 else 0, round(low)), round(high))
        return [f"{name}={f'tag(log,int(interval({low},{high})))' if log else f'int(interval({low},{high}))'}"]
    text = f"interval({low:g},{high:g})"
    return [f"{name}={f'tag(log,{text})' if log else text}"]
