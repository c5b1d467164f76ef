"""report.html of a study: what was best, what to think of it, where to search next, and Optuna's own pictures. One file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.files import read_text
from plumbline.parsing import parse_json
from plumbline.search.difference import written
from plumbline.search.finish import command, confirmed, deviation, run_folders, status
from plumbline.search.judgements import judge
from plumbline.search.next_space import next_search
from plumbline.search.results import Results, number
from plumbline.search.watch import View

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

    from plumbline.search.study import Study

ROWS = 60  # trials in the page's table
CURVES = 200  # trials whose curves are drawn
COLOURS = {"finished": "#0072b2", "pruned": "#b9c2cc", "diverged": "#d55e00", "failed": "#d55e00"}


def write_postmortem(study: Study, opened: optuna.Study) -> Path:
    """Write report.html into the study's folder, from its storage and its trials' folders; return its path."""
    from plumbline.files import write_text

    path = study.folder / "report.html"
    write_text(path, page(study, opened))
    return path


def page(study: Study, opened: optuna.Study) -> str:
    from jinja2 import Environment, FileSystemLoader
    from plotly.offline import get_plotlyjs

    results, view = Results(study, opened), View(study, opened)
    importances = importance(results)
    pictures, failed = draw(results, importances)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    lost = [trial for trial in view.trials if status(trial) in ("failed", "diverged")]
    ordered = [*results.finished, *(trial for trial in view.trials if status(trial) != "finished")]
    return environment.get_template("study.html.j2").render(
        study=study, summary=view.summary(), best=best(results, view), confirmation=confirmation(results),
        judgements=judge(results), next_line=next_search(results, importances), pictures=pictures, failed=failed,
        objectives=[name for name, _ in view.objectives], names=study.space.names, spread=study.search["seeds"] > 1,
        rows=[row(trial, study, view) for trial in ordered[:ROWS]], more=max(0, len(ordered) - ROWS),
        lost=[row(trial, study, view) for trial in lost[:20]], again=command(study) if results.best else None,
        code="code/", space="\n".join(map(written, study.space)), plotly=get_plotlyjs(),
    )  # fmt: skip


def best(results: Results, view: View) -> dict[str, str] | None:
    if not results.best:
        return None
    trial = results.best[0]
    if len(results.best) > 1:
        return {
            "value": f"{len(results.best)} on the front",
            "rest": f"of {', '.join(name for name, _ in view.objectives)}",
        }
    spread = deviation(trial)
    text = f" ± {spread:.4f} over {results.study.search['seeds']} seeds" if isinstance(spread, float) else ""
    return {
        "value": f"{trial.values[0]:.4f}",
        "rest": f"{results.objective}{text}, trial {trial.number}: {view.point(trial)}",
    }


def confirmation(results: Results) -> str | None:
    from statistics import mean, stdev

    values = confirmed(results.study)
    if len(values) < 2:
        return None
    return f"On {len(values)} fresh seeds it scores {mean(values):.4f} ± {stdev(values):.4f}."


def row(trial: optuna.trial.FrozenTrial, study: Study, view: View) -> dict[str, Any]:
    spread = deviation(trial)
    params = [trial.params.get(name, "") for name in study.space.names]
    return {
        "number": trial.number, "status": status(trial), "reason": trial.user_attrs.get("reason", ""),
        "results": [number(value) for value in trial.values or []] or [""] * len(view.objectives),
        "spread": number(spread) if isinstance(spread, float) else "", "point": view.point(trial),
        "params": [value if isinstance(value, str) else number(value) for value in params],
    }  # fmt: skip


def downwards(results: Results) -> Callable[[optuna.trial.FrozenTrial], float] | None:
    """The first of several objectives, less being better, as Optuna's importance wants it; None where there is one."""
    return None if len(results.opened.directions) == 1 else lambda trial: -results.score(trial)


def importance(results: Results) -> dict[str, float]:
    """The share of the variance of the results that each parameter explains (fANOVA, Hutter et al. 2014)."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if len(results.finished) < 8 or len(results.space.parameters) < 2:
        return {}
    try:
        found = get_param_importances(
            results.opened, evaluator=FanovaImportanceEvaluator(seed=0), target=downwards(results)
        )
        return {name: float(value) for name, value in found.items()}
    except (ValueError, RuntimeError):  # no parameter that all trials have, or all the same values
        return {}


# --- pictures --------------------------------------------------------------------------------------------------------


def draw(results: Results, importances: dict[str, float]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(name, title, caption, figure as JSON) of each picture there is something to show in, and why others failed."""
    from optuna import visualization as plots

    opened, several = results.opened, len(results.opened.directions) > 1
    target: dict[str, Any] = {"target_name": results.objective}
    if several:
        target["target"] = lambda trial: trial.values[0]
    numbers = [name for name in results.space.names if any(name in trial.params for trial in results.finished)]
    wanted: list[tuple[str, str, str, bool, Callable[[], go.Figure]]] = []
    if several and len(opened.directions) < 4:
        names = [name for name, _ in opened.user_attrs["objectives"]]
        wanted.append(("front", "Pareto front", "No trial is better than one of these in everything.", False,
                       lambda: plots.plot_pareto_front(opened, target_names=names)))  # fmt: skip
    if results.finished:
        wanted.append(("history", "History", "Each finished trial, and the best so far.", False,
                       lambda: plots.plot_optimization_history(opened, **target)))  # fmt: skip
    if importances:
        importance_of = {"target": downwards(results), "target_name": results.objective}
        wanted.append(("importance", "Importance", "How much each parameter decides whether a trial is among the best.", False,
                       lambda: plots.plot_param_importances(opened, **importance_of)))  # fmt: skip
    if numbers and len(results.finished) > 1:
        wanted.append(("slices", "Slices", "The objective against each parameter; darker trials came later.", len(numbers) > 2,
                       lambda: plots.plot_slice(opened, params=numbers, **target)))  # fmt: skip
    if len(numbers) > 1 and len(results.finished) > 1:
        wanted.append(("parallel", "Parallel coordinates", "Each trial is a line; drag along an axis to select.", True,
                       lambda: plots.plot_parallel_coordinate(opened, params=numbers, **target)))  # fmt: skip
    wanted.append(("curves", "Curves", what_curves(results), False, lambda: curves(results)))
    found, failed = [], {}
    for name, title, caption, wide, make in wanted:
        try:
            figure = make()
            if not figure.data:
                continue
            figure.update_layout(
                title=None, template="plotly_white", margin={"l": 55, "r": 15, "t": 30, "b": 45}, height=420, autosize=True,
                font={"size": 12}, legend={"orientation": "h", "y": 1.1},
            )  # fmt: skip
            found.append({"name": name, "title": title, "caption": caption, "wide": wide, "json": safe(figure)})
        except Exception as error:  # a picture that cannot be made costs itself, not the page
            failed[title] = f"{type(error).__name__}: {error}"
    return found, failed


def safe(figure: go.Figure) -> str:
    """A figure as JSON that can stand in a script: nothing in it can end the script."""
    text = figure.to_json()
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def what_curves(results: Results) -> str:
    """The caption of the curves: whose they are, and how many are left out."""
    text, seeds = "The objective by epoch", results.study.search["seeds"]
    if seeds > 1:
        text += f", the mean of a trial's seeds ({seeds}, or those that ran) as far as all of them came"
    text += ": blue finished, grey pruned, red diverged or failed, black the best."
    shown = len(with_curves(results))
    if left_out := len(results.trials) - shown:
        text += f" {left_out} of {len(results.trials)} trials are left out: shown are the last {CURVES}, and the best."
    return text


def with_curves(results: Results) -> list[optuna.trial.FrozenTrial]:
    """The trials whose curves are drawn: the last ones, and the best on top of them."""
    best = results.best[0].number if results.best else None
    return [t for t in results.trials[-CURVES:] if t.number != best] + [t for t in results.trials if t.number == best]


def curve(folders: list[Path], objective: str) -> dict[float, float]:
    """The objective by epoch, averaged over runs, as far as each of those that began came."""
    found: list[dict[float, float]] = []
    for folder in folders:
        values: dict[float, float] = {}
        try:
            for line in read_text(folder / "metrics.jsonl").splitlines():
                record = parse_json(line)
                values[record["epoch"]] = float(record[objective])
        except (OSError, ValueError, KeyError, TypeError):  # it did not begin, or has no more
            pass
        found += [values] if values else []
    common = [epoch for epoch in found[0] if all(epoch in values for values in found)] if found else []
    return {epoch: sum(values[epoch] for values in found) / len(found) for epoch in common}


def curves(results: Results) -> go.Figure:
    """The objective of every trial by epoch, from its folders."""
    import plotly.graph_objects as go

    figure = go.Figure()
    best = results.best[0].number if results.best else None
    for trial in with_curves(results):
        values = curve(run_folders(results.study, trial.number), results.objective)
        if not values:
            continue
        first = trial.number == best
        line = {"color": "#1c2024" if first else COLOURS.get(status(trial), "#b9c2cc"), "width": 2.5 if first else 1}
        mode = "lines+markers" if len(values) < 3 else "lines"
        options = {"mode": mode, "line": line, "opacity": 1 if first else 0.7, "name": f"trial {trial.number}"}
        figure.add_scatter(x=list(values), y=list(values.values()), showlegend=False, **options)
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title=results.objective)
    return figure
