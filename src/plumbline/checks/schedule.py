"""Checks of the schedule, drawn before it runs."""

from __future__ import annotations

from plumbline.checks.bench import Bench
from plumbline.checks.core import Finding
from plumbline.ranges import Share

POINTS = 400  # at which the plan is looked at


def plan(bench: Bench) -> list[float]:
    """The multiplier of the rate at even points of the run, as far as it is known before it."""
    schedule = bench.network.schedule
    return [schedule(k / POINTS, []) for k in range(POINTS + 1)]


def collapses(bench: Bench, *, share: Share, before: Share) -> Finding:
    """Whether the rate is next to nothing long before the run ends."""
    rates = plan(bench)
    peak = max(rates)
    alive = [k for k, rate in enumerate(rates) if rate > share * peak]
    end = (alive[-1] + 1) / len(rates) if alive else 0.0
    evidence = {"peak": peak, "collapsed_at": end}
    if peak > 0 and end >= before:
        return Finding("ok", f"the rate stays above {share:g} of its peak for {end:.0%} of the run", evidence)
    if peak == 0:
        said, cause = "the schedule gives a rate of zero throughout", "a factor of zero"
    else:
        said = f"the rate falls below {share:g} of its peak after {end:.0%} of the run: the rest of it learns nothing"
        cause = "a schedule made for epochs that is stepped at each batch, or steps that are too many or too steep"
    return Finding(
        "fail", said, evidence, cause=cause,
        advice=("make the schedule a function of the progress of the whole run", "a higher floor: schedule.floor=0.1"),
        source="S2: draw the schedule before it runs",
    )  # fmt: skip


def warm_up(bench: Bench, *, by: Share, share: Share) -> Finding:
    """Whether the rate comes up in time."""
    rates = plan(bench)
    peak = max(rates)
    up = next((k for k, rate in enumerate(rates) if rate >= share * peak), 0) / POINTS
    evidence = {"up_at": up, "peak": peak}
    if up <= by:
        return Finding("ok", f"the rate has come up after {up:.0%} of the run", evidence)
    return Finding(
        "warn", f"the rate reaches {share:.0%} of its peak only after {up:.0%} of the run: the warm-up hardly ends", evidence,
        cause="a warm-up counted in epochs where updates were meant, or longer than the run",
        advice=("schedule.warmup=0.05", "more epochs"), source="S2: draw the schedule before it runs",
    )  # fmt: skip
