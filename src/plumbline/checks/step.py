"""Checks of the very step that will train, on copies: does an update do what an update is for?"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from plumbline.checks.bench import Bench, Copy
from plumbline.checks.core import Finding
from plumbline.checks.model import listed
from plumbline.checks.outputs import SURE, spread
from plumbline.checks.trial import elsewhere, made_anew
from plumbline.loop import Batch, seed_all
from plumbline.losses import one_hot

DISTANCES = {"squared": F.mse_loss, "absolute": F.l1_loss, "Huber's": F.smooth_l1_loss}
LONG = 100  # epochs
PASSES = 4  # over one batch: a network may say something else each time
SURE_OF = 4.0  # standard errors by which its loss must rise
ZERO_GRAD = "S2: zero_grad, backward, step, in this order"


def no_update(bench: Bench) -> Finding:
    """Whether an update changes any weight."""
    trial = bench.trial
    moved = [name for name, change in trial.moved.items() if change > 0]
    evidence = {
        "moved": len(moved),
        "parameters": len(trial.moved),
        "gradients": len([g for g in trial.gradients.values() if g]),
    }
    if moved or trial.rate == 0 or any(map(math.isnan, trial.losses)):
        return Finding("ok", f"an update moves {len(moved)} of {len(trial.moved)} parameters", evidence)
    empty = not any(trial.gradients.values())
    return Finding(
        "fail",
        f"{len(trial.losses)} updates moved no weight at all"
        + (": the gradient was gone when the optimiser stepped" if empty else ""),
        evidence,
        cause="zero_grad between backward and step, no backward, or a step that the optimiser never takes"
        if empty
        else "the optimiser is not stepped, holds other parameters, or its steps are too small for float32",
        advice=("clear, forward, backward, update: in this order",),
        source=ZERO_GRAD,
    )


def params_not_optimised(bench: Bench) -> Finding | None:
    """Whether each parameter that gets a gradient is moved by it."""
    trial = bench.trial
    if not any(trial.moved.values()) or any(map(math.isnan, trial.losses)):
        return None
    least = 1e-4 * max(trial.gradients.values(), default=0.0)  # a bias before a norm gets rounding errors only
    left = [name for name, change in trial.moved.items() if change == 0 and trial.gradients.get(name, 0.0) > least]
    outside = [n for n, p in trial.copy.model.named_parameters() if n in left and id(p) not in trial.held]
    if not left:
        return Finding("ok", "every parameter that gets a gradient is moved by it")
    return Finding(
        "fail",
        f"{len(left)} of {len(trial.moved)} parameters get a gradient and never move: {listed(left)}",
        {"left": left[:20], "not_in_the_optimiser": outside[:20]},
        cause="the optimiser was given only some of the parameters",
        advice=("give it model.parameters()", "freeze on purpose with requires_grad_(False)"),
        source="S2: check which parameters are optimised",
    )


def params_without_gradient(bench: Bench) -> Finding | None:
    """Whether the step gives a gradient to each parameter that the network's outputs would give one."""
    trial = bench.trial
    if not any(trial.moved.values()) or any(map(math.isnan, trial.losses)):
        return None
    if trial.gradients and not any(trial.gradients.values()):
        return None  # only the weight decay moves anything
    cannot = {*bench.signals.unreached, *trial.gradients}  # where the step clears them at its end, there are none
    kernels = {name for name, parameter in trial.copy.model.named_parameters() if parameter.dim() > 1}
    left = [name for name, change in trial.moved.items() if change == 0 and name in kernels - cannot]
    if not left:
        return Finding("ok", "the step trains every parameter that the outputs depend on")
    return Finding(
        "fail",
        f"the step leaves {len(left)} of {len(trial.moved)} parameters where they are: {listed(left)}",
        {"left": left[:20]},
        cause="the step detaches a part of the network, or steps an optimiser that holds only some parameters",
        advice=("take the loss of training.forward", "freeze on purpose with requires_grad_(False)"),
        source="S2: check which parameters are optimised",
    )


def batches_ignored(bench: Bench) -> Finding | None:
    """Whether the step looks at the batches that it is given, at all their samples and at their targets."""
    still, given = bench.still, bench.first
    if len(given[0][1]) < 4:
        return None
    still.loss(given)
    seen, samples = sum(len(one.inputs) for one in still.copy.passes), sum(len(y) for _, y in given)
    here = made_anew(bench, given)
    there = [(x.flip(0) * 0.5 + 0.1, y) for x, y in here]
    losses, entered = [], []
    for batches in (here, there):
        losses.append(still.loss(batches))
        entered.append([one.inputs for one in still.copy.passes])
    evidence = {"losses": losses, "samples_seen": seen, "samples_given": samples}
    if not all(map(math.isfinite, losses)):
        return None
    if losses[0] == losses[1] and all(map(torch.equal, *entered)):
        return Finding(
            "fail",
            f"the loss of a step is {losses[0]:.4g} whatever the batch: the step does not look at its batches",
            evidence,
            cause="the step uses a batch of its own, or a loss that does not depend on the network",
            advice=("use the batches that the step is given",),
            source="S0: test each part of the program",
        )
    if seen and 2 * seen <= samples:
        return Finding(
            "warn",
            f"a step is given {samples} samples and uses {seen}",
            evidence,
            cause="only the first batch, or a part of it, goes through the network",
            advice=("use all batches of the step",),
            source="S0: test each part of the program",
        )
    return Finding("ok", f"a step uses the {samples} samples that it is given", evidence)


def targets_paired(bench: Bench, *, share: float) -> Finding | None:
    """Whether the step compares each output with its own target: shuffled targets must give another loss."""
    still, given = bench.still, bench.first
    if len(given[0][1]) < 4:
        return None
    if (word := bench.left_out(9)) is not None:
        return word
    here = made_anew(bench, given)
    losses = [still.loss([(x, y.roll(shift, 0)) for x, y in here]) for shift in (0, 1, 2, 3)]
    other = still.loss([(x.flip(0) * 0.5 + 0.1, y) for x, y in here])
    if not all(map(math.isfinite, losses)) or other == losses[0] or len(still.copy.passes) == 0:
        return None
    with torch.no_grad():
        outputs = torch.cat([one.outputs for one in still.copy.passes])
    if spread(outputs) <= 0.01 * float(outputs.abs().max()):
        return None  # all outputs are one: nothing can be said
    change = max(abs(loss - losses[0]) for loss in losses[1:]) / max(abs(losses[0]), 1e-12)
    (x, y), *rest = here
    others = [still.loss([(x, elsewhere(y, sample, bench.spec.outputs)), *rest]) for sample in range(4)]
    unseen = sum(loss == losses[0] for loss in others)
    if change > share and unseen < len(others) - 1:
        return Finding("ok", "the step compares each output with its own target", {"losses": losses})
    return Finding(
        "fail",
        f"the loss of a step is {losses[0]:.4g} whether the targets belong to the inputs or are shuffled"
        if change <= share
        else f"the loss of a step is {losses[0]:.4g} whatever the targets of most samples",
        {"losses": losses},
        cause="outputs (B, 1) against targets (B,) are broadcast to (B, B), or the targets are not used",
        advice=("give both the same shape: y.view_as(outputs)",),
        source="S1: its own example has this fault",
    )


def train_mode(bench: Bench) -> Finding | None:
    """Whether the step trains in training mode, in the first update and in those after it."""
    trial = bench.trial
    if not trial.modes:
        return None
    wrong = trial.modes.count(False)
    noisy, copy = bench.noisy, trial.copy
    with noisy.buffers_kept(), torch.no_grad():
        before = {name: buffer.clone() for name, buffer in noisy.model.named_buffers()}
        torch.manual_seed(0)
        training = noisy.model.train()(bench.x.clone())
        should = [name for name, buffer in noisy.model.named_buffers() if not torch.equal(buffer, before[name])]
        differs = should or not torch.equal(training, noisy.model.eval()(bench.x.clone()))
    noisy.model.train()
    stuck = [name for name in should if name not in trial.buffers_moved] if any(trial.moved.values()) else []
    evidence = {"passes": len(trial.modes), "in_evaluation": wrong, "statistics_that_stand_still": stuck[:10]}
    if not wrong and not stuck:
        return Finding("ok", "each update is made in training mode", evidence)
    if not wrong:
        said = f"the running statistics of {listed(stuck)} do not move in a step"
        return Finding(
            "info", said, evidence, cause="norms that are kept in evaluation mode", source="S2: toggle train and eval"
        )
    effect = (
        "dropout and batch norm do not do what was asked" if differs else "this network does the same in both, so far"
    )
    return Finding(
        "fail" if differs else "warn",
        f"{wrong} of {len(trial.modes)} training passes ran in evaluation mode: {effect}",
        evidence,
        cause="model.eval() without a model.train() after it"
        + ("" if copy.model.training else "; the step leaves the network in it"),
        advice=("say training.model.train() at the start of the step",),
        source="S2, S3: toggle train and eval",
    )


def grad_accumulates(bench: Bench, *, growth: float) -> Finding | None:
    """Whether the gradient of a step is that step's alone: at a rate of zero, the same batch must give the same."""
    if (word := bench.left_out(4)) is not None:
        return word
    still, norms = bench.still, []
    for parameter in still.copy.model.parameters():
        parameter.grad = None
    for _ in range(4):
        if not math.isfinite(still.loss(bench.first)):
            return None
        norms.append(still.gradient())
    if not norms[0]:
        return None
    found = norms[-1] / norms[0]
    evidence = {"norms": norms, "growth": found}
    if found < growth:
        return Finding("ok", "the gradient of a step is its own", evidence)
    return Finding(
        "fail",
        f"the gradient grows {found:.2g} times in 4 steps on one batch at a rate of zero: it is never cleared",
        evidence,
        cause="zero_grad is missing before backward",
        advice=("training.clear(), or optimiser.zero_grad(), before each backward",),
        source=ZERO_GRAD,
    )


def ascent(bench: Bench, *, updates: int, movement: float, rise: float) -> Finding | None:
    """Whether small steps on one batch lower its loss."""
    upside_down = prefers_wrong(bench)
    advice = ("minimise: cross-entropy is -log p",)
    if upside_down:
        good, bad = upside_down
        return Finding(
            "fail",
            f"the loss prefers wrong answers: {good:.4g} for right ones, {bad:.4g} for wrong ones",
            {"right": good, "wrong": bad},
            cause="the sign of the loss is flipped",
            advice=advice,
            source="S2: scrutinise the loss",
        )
    trial = bench.trial
    if not any(trial.moved.values()) or not trial.travelled:
        return None
    if (word := bench.left_out(updates)) is not None:
        return word
    copy = bench.fresh(quiet=True)
    multiplier = copy.peak * min(1.0, movement / trial.travelled)
    before = losses(copy, bench.first)
    for number in range(updates):
        copy.update(bench.first, number, multiplier)
    copy.model.train()
    after = losses(copy, bench.first)
    risen, unsure = after - before, float((after - before).std()) / len(after) ** 0.5
    before, after = float(before.mean()), float(after.mean())
    evidence = {"before": before, "after": after, "updates": updates, "movement": movement}
    if not risen.mean() > rise * abs(before) + SURE_OF * unsure:
        return Finding(
            "ok", f"{updates} small steps on one batch lower its loss from {before:.6g} to {after:.6g}", evidence
        )
    return Finding(
        "fail",
        f"{updates} small steps on one batch raise its loss from {before:.6g} to {after:.6g}",
        evidence,
        cause="the step goes uphill: the sign of the loss is flipped, or it follows another loss",
        advice=advice,
        source="S2: scrutinise the loss",
    )


def losses(copy: Copy, batches: list[Batch]) -> np.ndarray:
    """(passes,) the loss of batches, each pass with a seed of its own: what is dropped in it is dropped in it again."""
    found = []
    for number in range(PASSES):
        seed_all(copy.seed + number, copy.training.generator)
        found.append(copy.loss(batches))
    return np.array(found)


def prefers_wrong(bench: Bench) -> tuple[float, float] | None:
    """(loss of right answers, of wrong ones), if the loss is not lower for the right ones."""
    loss, y = bench.network.training.loss, bench.y
    if bench.spec.task == "classification":
        if bench.spec.outputs < 2:
            return None
        right = SURE * one_hot(y, bench.spec.outputs, torch.float32)
        wrong = SURE * one_hot((y + 1) % bench.spec.outputs, bench.spec.outputs, torch.float32)
        good, bad = float(loss(right, y)), float(loss(wrong, y))
    elif bench.spec.task == "segmentation":
        right = SURE * (2 * y - 1)
        good, bad = float(loss(right, y)), float(loss(-right, y))
    else:
        good, bad = float(loss(y, y)), min(float(loss(y + 3, y)), float(loss(y - 3, y)))
    return (good, bad) if good > bad and math.isfinite(good) else None


def task_loss(bench: Bench, *, close: float) -> Finding | None:
    """Whether the loss that the step returns is one that suits the task; distances between numbers do not suit classes."""
    if bench.spec.task != "classification" or bench.spec.outputs < 2:
        return None
    still, y = bench.still, bench.y
    returned = still.loss(bench.first)
    outputs = [one.outputs.float() for one in still.copy.passes]
    if not outputs or sum(map(len, outputs)) != len(y) or not math.isfinite(returned):
        return None
    logits, wanted = torch.cat(outputs), one_hot(y, bench.spec.outputs, torch.float32)
    said = {"outputs": logits, "probabilities": logits.softmax(1), "sigmoids": logits.sigmoid()}
    for distance, (error, of) in product(DISTANCES, said.items()):
        value, name = float(DISTANCES[distance](of, wanted)), f"{distance} error of the {error}"
        # the mean over all, the sum over the classes, or the sum over all
        if any(
            abs(value * many - returned) <= close * abs(returned) for many in (1, bench.spec.outputs, logits.numel())
        ):
            return Finding(
                "warn",
                f"the step's loss, {returned:.4g}, is the {name}: made for numbers, not for classes",
                {"loss": returned, "found": name},
                cause="a loss for regression in a classification: confident mistakes get almost no gradient",
                advice=("loss=cross_entropy",),
                source="S3: cross-entropy for classes, squared error for numbers",
            )
    return Finding("ok", "the loss is none for regression", {"loss": returned})


def loss_clipped(bench: Bench, *, factor: float) -> Finding | None:
    """Whether the loss itself is cut off: where it is, nothing is learned from the worst batches.

    Several batches, wrong in different ways, then cost the same; a loss with an upper end of its own (of probabilities)
    costs of each what share of it is wrong.
    """
    if (word := bench.left_out(6)) is not None:
        return word
    still = bench.still
    tried = [bench.first, *(made_anew(bench, bench.batches(number), number) for number in (1, 2))]
    plain, entered = [], []
    for batches in tried:
        plain.append(still.loss(batches))
        entered.append([one.inputs for one in still.copy.passes])
    if all(map(torch.equal, *entered[:2])):
        return None  # the step does not look at its batches
    large = [still.loss(batches, factor) for batches in tried]
    if not all(map(math.isfinite, plain + large)):
        return None
    evidence = {"plain": plain, "scaled": large}
    stuck = next((losses[0] for losses in (plain, large) if losses[0] != 0 and len(set(losses)) == 1), None)
    if stuck is None:
        return Finding("ok", "the loss has no upper end", evidence)
    return Finding(
        "fail" if len(set(plain)) == 1 else "warn",
        f"the loss is cut off at {stuck:.4g}: worse batches cost the same and get no gradient",
        evidence,
        cause="clamp or min on the loss, where the gradient was to be clipped",
        advice=("clip the gradient instead: grad_clip",),
        source="S3: gradient clipping",
    )


def loss_scale(bench: Bench, *, factor: float) -> Finding | None:
    """Whether the step follows a mean: the same samples twice must not give twice the loss, or twice the gradient."""
    still, seen = bench.still, []
    for batches in (bench.first, [(torch.cat([x, x]), torch.cat([y, y])) for x, y in bench.first]):
        for parameter in still.copy.model.parameters():
            parameter.grad = None
        seen.append((still.loss(batches), still.gradient()))
    (loss, gradient), (loss_twice, gradient_twice) = seen
    ratios = [
        abs(b / a)
        for a, b in ((loss, loss_twice), (gradient, gradient_twice))
        if a and math.isfinite(a) and math.isfinite(b)
    ]
    if not ratios:
        return None
    if max(ratios) < factor:
        return Finding("ok", "the step does not depend on the size of the batch", {"ratio": max(ratios)})
    return Finding(
        "warn",
        f"twice the batch gives {max(ratios):.3g} times the loss or gradient: the step follows a sum over the batch",
        {"loss": [loss, loss_twice], "gradient": [gradient, gradient_twice]},
        cause="a sum where a mean was meant, so that the learning rate depends on the batch size",
        advice=("divide by the number of samples",),
        source="S2: the first loss is ln(classes) whatever the batch size",
    )


def update_ratio(bench: Bench, *, reach: float) -> Finding | None:
    """How far the weights can get in the whole run, at the planned rates, as a share of their size.

    A run of no epochs is the gate before a long one: it is judged as if it were long.
    """
    trial, updates = bench.trial, bench.updates(bench.cfg.epochs or LONG)
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
