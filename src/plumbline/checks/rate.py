"""Learning rates that are tried before one is believed: the range test, the ladder, and how large the gradient is."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Annotated

from plumbline.checks.bench import Bench, Copy
from plumbline.checks.core import Finding
from plumbline.loop import Diverged
from plumbline.ranges import NonNegative, Positive, Range, Share

SMOOTH = 0.8  # of the running mean of the losses: single batches are noise
SMITH = "S2: the highest rate that still lowers the loss, from a range test (Smith 2017)"


@dataclass
class Sweep:
    """A range test: the rate grows from update to update."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # smoothed
    idle: int = 0  # how many belong to the first third, in log: at such rates nothing changes yet
    start: float = math.nan  # the mean loss there
    noise: float = 0.0  # the standard deviation there
    diverged: float | None = None  # the rate at which the loss burst

    @property
    def clear(self) -> bool:
        """Whether it came far enough to say anything."""
        return self.idle > 1 and len(self.losses) > self.idle + 2

    @property
    def lowest(self) -> int:
        """The index of the lowest loss, of those where a rate can be its reason: before, it is the batch's luck."""
        return min(range(self.idle, len(self.losses)), key=lambda k: self.losses[k])

    @property
    def suggestion(self) -> float:
        """A tenth of the rate with the lowest loss."""
        return self.rates[self.lowest] / 10

    @property
    def fall(self) -> float:
        """How far the loss fell."""
        return self.start - self.losses[self.lowest]

    def back(self, rate: float) -> float:
        """The share of the fall that was lost again when the sweep came to a rate; 0 before the lowest loss."""
        after = [loss for r, loss in zip(self.rates, self.losses, strict=True) if self.rates[self.lowest] <= r <= rate]
        return (after[-1] - self.losses[self.lowest]) / self.fall if after and self.fall > 0 else 0.0


def sweep(bench: Bench, seed: int, updates: int, low: float, high: float, burst: float) -> Sweep:
    """One range test on a copy with that seed."""
    copy, made = bench.fresh(seed=seed), Sweep()
    base = copy.optimiser.param_groups[-1]["initial_lr"]
    if base <= 0:
        return made
    running, raw = 0.0, []
    for number in range(updates):
        rate = low * (high / low) ** (number / (updates - 1))
        try:
            loss = copy.update(bench.batches(number), number, rate / base)
        except Diverged:
            loss = math.nan
        raw.append(loss)
        running = SMOOTH * running + (1 - SMOOTH) * loss
        smooth = running / (1 - SMOOTH ** (number + 1))
        if not math.isfinite(loss) or smooth > burst * abs(raw[0]) + 1e-3:
            made.diverged = rate
            break
        made.rates.append(rate)
        made.losses.append(smooth)
    made.idle = sum(rate <= low * (high / low) ** (1 / 3) for rate in made.rates)
    if made.idle > 1:
        made.start, made.noise = statistics.fmean(raw[: made.idle]), statistics.stdev(raw[: made.idle])
    return made


def rate_range(
    bench: Bench,
    *,
    updates: Annotated[int, Range("[1, 100000]")],
    low: Positive,
    high: Positive,
    seeds: Annotated[int, Range("[1, 1000]")],
    seconds: Positive,
    fall: NonNegative,
    back: NonNegative,
    burst: NonNegative,
    above: NonNegative,
    below: NonNegative,
) -> Finding | None:
    """The range test and its verdict on the configured rate."""
    if (word := bench.left_out(seeds * updates // 4)) is not None:
        return word
    afforded = bench.affordable(seconds / seeds, updates, min(max(updates // 4, 12), updates))
    sweeps = [sweep(bench, bench.cfg.seed + k, afforded, low, high, burst) for k in range(seeds)]
    sweeps = [one for one in sweeps if one.clear]
    if not sweeps:
        return None
    rate, median = bench.network.rate, statistics.median_low
    best, suggestion = median([one.rates[one.lowest] for one in sweeps]), median([one.suggestion for one in sweeps])
    ends = [one.diverged for one in sweeps if one.diverged is not None]
    shown = {
        "configured": rate,
        "suggestion": suggestion,
        "spread": sorted(one.suggestion for one in sweeps),
        "lowest_loss_at": best,
        "diverged_at": median(ends) if ends else None,
        "curves": [[one.rates, one.losses] for one in sweeps],
    }
    advice = (f"optimiser.lr={tidy(suggestion)}", "and a ten times smaller or larger one beside it")
    if median([one.fall - max(fall * abs(one.start), one.noise) for one in sweeps]) < 0:
        return Finding(
            "info",
            f"no clear suggestion for the learning rate: at none from {low:g} to {high:g} does the loss fall by {fall:.0%}",
            shown,
            advice=("look at the other findings first", "try rates ten times apart"),
            source=SMITH,
        )
    fell = f"the loss is lowest at {best:.2g}" + (f" and bursts at {shown['diverged_at']:.2g}" if ends else "")
    lost = median([one.back(rate) for one in sweeps])
    if rate > above * best or lost > back or (len(ends) == len(sweeps) and rate > shown["diverged_at"]):
        return Finding(
            "warn",
            f"the learning rate {rate:.3g} is too high: in a range test {fell}; a tenth of that, {suggestion:.2g}, is suggested",
            shown,
            cause="a learning rate beyond the one at which the loss stops falling",
            advice=advice,
            source=SMITH,
        )
    if rate < suggestion / below:
        return Finding(
            "warn",
            f"the learning rate {rate:.3g} is too low: in a range test {fell}; a tenth of that, {suggestion:.2g}, is suggested",
            shown,
            cause="a learning rate at which nothing will be learned in the time there is",
            advice=advice,
            source=SMITH,
        )
    return Finding(
        "ok",
        f"the learning rate {rate:.3g} is in range: {fell}; a tenth of that is {suggestion:.2g}",
        shown,
        source=SMITH,
    )


def ladder(
    bench: Bench,
    *,
    updates: Annotated[int, Range("[1, 100000]")],
    low: Positive,
    high: Positive,
    seconds: Positive,
    above: NonNegative,
) -> Finding | None:
    """Some updates at each of the rates low, ten times low, …: the best is reported, not the last that converges."""
    if (word := bench.left_out(5 * round(math.log10(high / low)))) is not None:
        return word
    rates = [low * 10**k for k in range(round(math.log10(high / low)) + 1)]
    copy = bench.fresh()
    base, rate = copy.optimiser.param_groups[-1]["initial_lr"], copy.rate
    if base <= 0 or rate <= 0:
        return None
    updates = bench.affordable(seconds / (len(rates) + 1), updates, min(5, updates))
    ends = {each: climb(bench.fresh(), bench, each / base, updates) for each in rates}
    finite = {each: end for each, end in ends.items() if end is not None}
    if not finite:
        return None
    best = min(finite, key=lambda each: finite[each])
    here = climb(copy, bench, rate / base, updates)
    shown = {
        "losses": {tidy(each): end for each, end in ends.items()},
        "best": best,
        "configured": rate,
        "configured_loss": here,
    }
    first = finite[min(finite)]
    said = f"after {updates} updates the loss is lowest at a rate of {tidy(best)} ({finite[best]:.4g}); at {rate:.3g} it is "
    said += "not finite" if here is None else f"{here:.4g}"
    if rate > best and (here is None or here > above * abs(first)):
        return Finding(
            "warn",
            said,
            shown,
            cause="a learning rate that is too high",
            advice=(f"optimiser.lr={tidy(best)}",),
            source="S3: try ten times apart until it diverges",
        )
    return Finding("ok", said, shown, source="S3: try ten times apart until it diverges")


def climb(copy: Copy, bench: Bench, multiplier: float, updates: int) -> float | None:
    """The mean loss of the last fifth of the updates; None if it is not finite."""
    losses = []
    for number in range(updates):
        try:
            losses.append(copy.update(bench.batches(number), number, multiplier))
        except Diverged:
            return None
    last = losses[-max(len(losses) // 5, 1) :]
    return statistics.fmean(last) if all(map(math.isfinite, losses)) else None


def clip(bench: Bench, *, updates: Annotated[int, Range("[1, 100000]")], share: Share) -> Finding | None:
    """How large the gradient is before it is clipped: its 90th percentile is where clipping begins to be a remedy."""
    if (word := bench.left_out(2 * updates)) is not None:
        return word
    copy = bench.fresh()
    copy.training.grad_clip = None
    norms, left = [], []
    configured = bench.cfg.grad_clip
    for number in range(updates):
        try:
            copy.update(bench.batches(number), number, copy.peak)
        except Diverged:
            break
        found = [p.grad.float().square().sum() for p in copy.model.parameters() if p.grad is not None]
        after = math.sqrt(float(sum(found))) if found else 0.0
        copy.model.zero_grad()
        try:
            batches = [(x.clone(), y.clone()) for x, y in bench.batches(number)]
            for x, y in batches:
                (copy.training.forward(x, y) / len(batches)).backward()
        except Diverged:
            break
        raw = math.sqrt(
            float(sum(p.grad.float().square().sum() for p in copy.model.parameters() if p.grad is not None))
        )
        copy.model.zero_grad()
        if not math.isfinite(raw):
            break
        norms.append(raw)
        left.append(after)
    if len(norms) < 4 or not statistics.median(norms):
        return None
    ordered = sorted(norms)
    ninth, middle = ordered[math.ceil(0.9 * len(ordered)) - 1], statistics.median(norms)
    kept = statistics.median(left)
    evidence = {"percentile_90": ninth, "median": middle, "grad_clip": configured, "left_by_the_step": kept}
    source, advice = "S3: clip the gradient; at the 90th percentile of its norm", (f"grad_clip={tidy(ninth)}",)
    if configured is not None and configured < share * middle:
        return Finding(
            "warn",
            f"grad_clip={configured:g} leaves {configured / middle:.1g} of a gradient of {middle:.3g}: "
            "every step is clipped to almost nothing",
            evidence,
            cause="a norm to clip to that is far below the gradient's",
            advice=advice,
            source=source,
        )
    if 0 < kept < share * middle and copy.training.scaler is None:
        return Finding(
            "warn",
            f"the step leaves {kept / middle:.1g} of a gradient of {middle:.3g}: it is clipped or scaled to almost nothing",
            evidence,
            cause="a clipping inside the step, far below the gradient's norm",
            advice=("let the step not clip", *advice),
            source=source,
        )
    said = f"the gradient's norm is {middle:.3g}, nine in ten are below {ninth:.3g}"
    if configured is None:
        return Finding("ok", f"{said}: if training is unstable, clip there", evidence, advice=advice, source=source)
    return Finding("ok", f"{said}; grad_clip is {configured:g}", evidence, source=source)


def tidy(rate: float) -> str:
    """Two digits, as one would type them."""
    return f"{float(f'{rate:.2g}'):g}"
