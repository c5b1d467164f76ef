"""Checks of the optimiser's own numbers against the length of the run and the size of its gradients."""

from __future__ import annotations

import math

import torch

from plumbline.checks.bench import Bench
from plumbline.checks.core import Finding
from plumbline.ranges import Count, NonNegative, Share


def few_updates(bench: Bench, *, least: Count) -> Finding | None:
    """Whether a run of several epochs makes so few updates that nothing can come of it."""
    epochs, updates = bench.cfg.epochs, bench.updates(bench.cfg.epochs)
    if epochs < 2:
        return None  # a gate, or a quick look
    evidence = {"updates": updates, "epochs": epochs, "batch_size": bench.cfg.batch_size}
    if updates >= least:
        return Finding("ok", f"{updates} updates in {epochs} epochs", evidence)
    return Finding(
        "warn", f"the weights are updated only {updates} times in all: {len(bench.data.train)} samples in batches of "
        f"{bench.cfg.batch_size}", evidence,
        cause="a batch as large as the training set, or too few epochs",
        advice=("a smaller batch_size", "more epochs"), source="S2: the batch size sets how often weights are updated",
    )  # fmt: skip


def momentum(bench: Bench, *, usual: Share, share: Share) -> Finding | None:
    """Whether the momentum remembers more than the run is long: 1 / (1 - momentum) updates."""
    groups = bench.network.optimiser.param_groups
    found = max(float(group.get("momentum", group.get("betas", (0.0,))[0])) for group in groups)
    updates = bench.updates(bench.cfg.epochs or bench.cfg.checks.epochs)
    memory = 1 / (1 - found) if found < 1 else math.inf
    evidence = {"momentum": found, "memory": memory, "updates": updates}
    if found <= usual or memory <= share * updates:
        return Finding("ok", f"momentum {found:g} remembers {memory:.3g} updates", evidence)
    return Finding(
        "warn", f"momentum {found:g} remembers {memory:.3g} updates, and the run makes {updates}", evidence,
        cause="a momentum too near 1: the weights swing past what they head for, at a rate that many times higher",
        advice=("momentum 0.9", "if it is to be higher, a rate that much lower"),
        source="Goh 2017, Why momentum really works",
    )  # fmt: skip


def eps(bench: Bench, *, times: NonNegative) -> Finding | None:
    """Whether what keeps an adaptive step from dividing by zero is larger than what it divides by."""
    optimiser, found = bench.trial.copy.optimiser, []
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            state = optimiser.state.get(parameter, {})
            squares = state.get("exp_avg_sq", state.get("square_avg"))
            if squares is None or "eps" not in group or not squares.any() or not torch.isfinite(squares).all():
                continue
            decay = group["betas"][1] if "betas" in group else group.get("alpha", 0.0)
            seen = 1 - decay ** float(state.get("step", 1))
            sizes = (squares[squares > 0] / max(seen, 1e-12)).sqrt()
            found.append((float(group["eps"]), float(sizes.median())))
    if not found:
        return None
    ratio, added, size = sorted((added / size, added, size) for added, size in found)[len(found) // 2]
    evidence = {"eps": added, "gradient": size, "ratio": ratio}
    if ratio <= times:
        return Finding("ok", f"eps {added:g} is {ratio:.2g} of a typical gradient", evidence)
    return Finding(
        "warn", f"eps {added:g} is {ratio:.2g} times a typical gradient of {size:.2g}: steps are that much shorter than the "
        "rate says, and no longer adaptive", evidence,
        cause="an eps for another optimiser, or gradients that vanish",
        advice=("optimiser.eps=1e-8", "a higher rate, if it is to stay"), source="Kingma and Ba 2015",
    )  # fmt: skip


def average(bench: Bench, *, left: Share) -> Finding | None:
    """Whether averaged weights forget where they began: ema to the power of the updates is what is left of it."""
    decay = bench.cfg.ema
    if decay is None:
        return None
    updates = bench.updates(bench.cfg.epochs or bench.cfg.checks.epochs)
    found = decay**updates
    evidence = {"ema": decay, "updates": updates, "left": found}
    if found <= left:
        return Finding(
            "ok", f"after {updates} updates {found:.1g} of the average is what the weights began with", evidence
        )
    most = left ** (1 / max(updates, 1))
    return Finding(
        "fail", f"after {updates} updates {found:.0%} of the average is still what the weights began with: ema={decay:g} is "
        "made for longer runs", evidence,
        cause="a decay too near 1 for the length of the run: it is the average that is scored and kept",
        advice=(f"ema={math.floor(1000 * most) / 1000:g} or less", "more epochs"), source="Polyak and Juditsky 1992",
    )  # fmt: skip


def update_ratio(bench: Bench, *, reach: NonNegative) -> Finding | None:
    """How far the weights can get in the whole run, at the planned rates, as a share of their size.

    A run of no epochs is the gate before a long one: it is judged as if it were long.
    """
    trial, updates = bench.trial, bench.updates(bench.cfg.epochs or bench.cfg.checks.epochs)
    if not updates or not trial.travelled or any(map(math.isnan, trial.losses)):
        return None  # no update at all is another check's
    plan = [trial.copy.schedule(k / 200, []) / trial.copy.peak for k in range(200)] if trial.copy.peak else [0.0]
    momentum = max(float(group.get("momentum", 0.0)) for group in trial.copy.optimiser.param_groups)
    found = trial.travelled * updates * sum(plan) / len(plan) / (1 - momentum)
    evidence = {"per_update": trial.travelled, "updates": updates, "reach": found}
    if found >= reach:
        return Finding("ok", f"an update moves the weights by {trial.travelled:.2g} of their size", evidence)
    return Finding(
        "warn",
        f"in {updates} updates together the weights can move by {found:.2g} of their size",
        evidence,
        cause="a learning rate that is too low, a gradient clipped to almost nothing, or too few updates",
        advice=("raise the learning rate", "look at grad_clip"),
        source="Karpathy, CS231n: about 1e-3 an update is healthy",
        symptom=True,
    )
