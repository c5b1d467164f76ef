"""Reading what went on inside the training: the rate, the gradients, the updates. Of records alone, without torch."""

from __future__ import annotations

import numpy as np

from plumbline.checks.core import Finding
from plumbline.checks.curve import SLOWER, Curve, level, whole
from plumbline.ranges import NonNegative, Share


def lr_collapsed(curve: Curve, *, below: NonNegative, before: Share) -> Finding | None:
    """Whether the learning rate fell to next to nothing long before the end."""
    at, rates = curve.finite("lr")
    if not curve.ended or len(rates) < 4 or rates.max() <= 0:
        return None
    peak = int(rates.argmax())
    low = np.flatnonzero(rates[peak:] < below * rates[peak]) + peak
    evidence = {"peak": rates[peak], "last": rates[-1]}
    if not len(low) or (low[0] + 1) > before * len(rates) or rates[low[0] :].max() >= below * rates[peak]:
        return Finding(
            "ok", f"the learning rate lives to the end: {rates[peak]:.3g} at most, {rates[-1]:.3g} last", evidence
        )
    return Finding(
        "warn", f"the learning rate is down to {rates[low[0]]:.2g} by {curve.unit} {at[low[0]]:g} of {at[-1]:g}, "
        f"from {rates[peak]:.3g}",
        evidence | {"at": whole(at[low[0]])},
        cause="the schedule counts steps where it should count epochs, or was written for a shorter run",
        advice=("draw the schedule over the whole run", "let it end where the training ends",
                "step an epoch schedule once an epoch"),
        source="Karpathy: rate decays copied from elsewhere silently kill training",
    )  # fmt: skip


def by_layer(curve: Curve, prefix: str) -> dict[str, np.ndarray]:
    """The finite values of each `<prefix>/<layer>`, first layer first."""
    keys = dict.fromkeys(key for record in curve.records for key in record if key.startswith(prefix + "/"))
    found = {key.removeprefix(prefix + "/"): curve.finite(key)[1] for key in keys}
    return {layer: values for layer, values in found.items() if len(values)}


def learned(curve: Curve) -> float:
    """The share of the loss it began with that training took away."""
    values = curve.finite(curve.main)[1]
    return 1 - level(values) / curve.reference if len(values) and curve.reference else 0.0


def updates(curve: Curve, *, small: NonNegative, large: NonNegative, learned_less: Share) -> Finding | None:
    """Whether an update moves the weights of a network that does not learn by next to nothing, or by far too much."""
    if not curve.ended or not (layers := by_layer(curve, "update_ratio")):
        return None
    typical = float(np.median([np.median(values) for values in layers.values()]))
    evidence = {"update_ratio": typical, "learned": learned(curve)}
    if small <= typical <= large or evidence["learned"] > learned_less:
        return Finding("ok", f"a typical update moves a layer by {typical:.1e} of its size", evidence)
    much, none = typical > large, typical < 1e-12
    cause = "the learning rate is too low, or the gradient is clipped to nothing"
    cause = (
        "the learning rate is too high"
        if much
        else "no gradient arrives: dead units, or a rate of 0"
        if none
        else cause
    )
    return Finding(
        "warn", f"nothing is learned, and a typical update moves a layer by {typical:.1e} of its size "
        "(about 1e-3 is healthy)", evidence,
        cause=cause,
        advice=(SLOWER, "clip the gradient: grad_clip=1") if much or none
        else ("a rate ten times higher: optimiser.lr", "no clipping: grad_clip=null", "look for a gradient that is near zero"),
        source="Karpathy, CS231n: updates of about a thousandth of the weights",
    )  # fmt: skip


def vanishing(curve: Curve, *, ratio: NonNegative) -> Finding | None:
    """Whether the first layer's gradient is next to nothing beside the last one's."""
    if not curve.ended or len(layers := by_layer(curve, "grad_norm")) < 3:
        return None
    names = list(layers)
    first, last = (float(np.median(layers[name])) for name in (names[0], names[-1]))
    evidence = {"first": first, "last": last, "layers": len(layers)}
    if last <= 0 or first >= ratio * last:
        return Finding(
            "ok", f"the gradient reaches the first layer: {first:.2g} there, {last:.2g} in the last", evidence
        )
    return Finding(
        "warn", f"the gradient vanishes on its way: {last:.2g} in {names[-1]}, {first:.2g} in {names[0]}", evidence,
        cause="many layers that each shrink the gradient: saturating activations, or weights that began too small",
        advice=("activations of the ReLU family", "batch or layer norm", "skip connections: model=resnet",
                "an initialisation that fits the activation: init=he, init=glorot"),
        source="S3: watch the gradient's norm layer by layer",
    )  # fmt: skip


def exploding(curve: Curve, *, times: NonNegative, learned_less: Share) -> Finding | None:
    """Whether the gradient grows and grows, in a network that does not learn."""
    at, norms = curve.finite("fit/grad_norm")
    if not curve.ended or len(norms) < 6:
        return None
    third = len(norms) // 3
    early, late = float(np.median(norms[:third])), float(np.median(norms[-third:]))
    evidence = {"early": early, "late": late, "largest": norms.max(), "largest_at": whole(at[norms.argmax()])}
    if late <= times * max(early, 1e-12) or learned(curve) > learned_less:
        return Finding("ok", f"the gradient does not explode: norm {early:.2g} early, {late:.2g} late", evidence)
    return Finding(
        "warn", f"the gradient explodes: its norm grows from {early:.2g} to {late:.2g}", evidence,
        cause="the learning rate is too high, or the weights began too large",
        advice=(SLOWER, "clip the gradient: grad_clip=1", "batch or layer norm", "a smaller initialisation"),
        source="S3: watch the gradient's norm; clip it", symptom=True,
    )  # fmt: skip
