"""Checks of what reaches what in a network: gradients the parameters, and inputs the outputs."""

from __future__ import annotations

import torch

from plumbline.checks.bench import Bench
from plumbline.checks.core import Finding
from plumbline.checks.model import listed
from plumbline.checks.outputs import evaluating
from plumbline.ranges import Share


def detached(bench: Bench) -> Finding | None:
    """Whether the gradient goes all the way: to the inputs, and to each parameter that the outputs depend on."""
    signals, copy = bench.signals, bench.awake
    unreached = signals.unreached
    if signals.attached and signals.input_gradient is not None and not unreached:
        return Finding("ok", "the gradient reaches every parameter and the inputs")
    moving = [name for name in unreached[:20] if matters(bench, name)]
    evidence = {"unreached": unreached[:20], "of_these_used": moving, "input": signals.input_gradient is not None}
    source = "S2: no detach inside the network"
    if moving or not signals.attached:
        return Finding(
            "fail",
            f"no gradient reaches {listed(moving or unreached)}, on which the outputs depend: they will never learn",
            evidence,
            cause="detach(), no_grad(), .data, .item() or a function without a gradient inside the network",
            advice=("remove it from forward", "to freeze a part on purpose, say requires_grad_(False)"),
            source=source,
        )
    if unreached:
        return Finding(
            "info",
            f"the outputs do not depend on {listed(unreached)}: parameters without a use",
            evidence,
            advice=("use them in forward, or remove them",),
            source=source,
        )
    frozen = [name for name, parameter in copy.model.named_parameters() if not parameter.requires_grad]
    if frozen:
        return Finding("ok", "the gradient reaches every parameter that is not frozen", evidence)
    return Finding(
        "info",
        "no gradient reaches the inputs",
        evidence,
        cause="a detach() or a function without a gradient at the door",
        source=source,
    )


def matters(bench: Bench, name: str) -> bool:
    """Whether the outputs change with a parameter."""
    copy = bench.awake
    parameter = dict(copy.model.named_parameters())[name]
    old = parameter.detach().clone()
    with evaluating(copy) as model:
        before = model(bench.x[:16].clone())
        parameter.data.mul_(-1.5).add_(0.1)
        after = model(bench.x[:16].clone())
        parameter.data.copy_(old)
    return not torch.equal(before, after)


def inputs_unused(bench: Bench, *, share: Share) -> Finding | None:
    """Whether the outputs depend on all that the inputs say, or on a part of it.

    What gets no gradient is put to the test: other values there must change nothing at all. (A table's categories get
    no gradient, as they are looked up.) That each image loses a row at its edge to a stride is usual.
    """
    reached, x = bench.signals.inputs_reached, bench.x
    if reached is None or not reached.any() or len(x) < 4:
        return None  # none at all is another check's
    flat = x.flatten(1)
    varies = (flat != flat[:1]).any(0)
    doubtful = varies & (reached == 0)
    found = 0.0
    if doubtful.any():
        other = flat.clone()
        other[:, doubtful] = flat.roll(1, 0)[:, doubtful]
        far = flat.clone()
        far[:, doubtful] = -3 * flat.roll(1, 0)[:, doubtful]
        whole = bool((flat[:, doubtful] == flat[:, doubtful].round()).all())  # categories: no others may be made up
        with evaluating(bench.awake) as model:
            usual, *changed = (
                model(made.view_as(x)).float()
                for made in ([flat.clone(), other] if whole else [flat.clone(), other, far])
            )
        if all(torch.equal(usual, outputs) for outputs in changed):
            found = float(doubtful.sum() / varies.sum())
    evidence = {"unused": found, "features": int(varies.sum())}
    if found <= share:
        return Finding("ok", "the outputs depend on what the inputs say", evidence)
    return Finding(
        "warn",
        f"the outputs do not depend on {found:.0%} of the {int(varies.sum()):,} features that vary: "
        f"{listed([str(at) for at in doubtful.nonzero().flatten().tolist()])}",
        evidence,
        cause="a slice, a mask, a crop or a stride in forward that leaves out what was not meant to be left out",
        advice=(
            "look at what enters the first layer",
            "what is to be left out is best left out of the data, where the record says so",
        ),
        source="S2: use gradients to see dependencies",
    )
