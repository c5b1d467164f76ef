"""Checks of the very step that will train, on copies: does an update do what an update is for?"""

from __future__ import annotations

import math

import torch

from plumbline.checks.bench import Bench
from plumbline.checks.core import Finding
from plumbline.checks.model import listed
from plumbline.checks.outputs import spread
from plumbline.checks.trial import elsewhere, made_anew
from plumbline.loop import Diverged, seed_all
from plumbline.ranges import NonNegative, Share

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


def targets_paired(bench: Bench, *, share: Share) -> Finding | None:
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
        should += [name for name in counted(should) if name in before and name not in should]
        differs = should or not torch.equal(training, noisy.model.eval()(bench.x.clone()))
    noisy.model.train()
    stuck = [name for name in should if name not in trial.buffers_moved] if any(trial.moved.values()) else []
    evidence = {"passes": len(trial.modes), "in_evaluation": wrong, "statistics_that_stand_still": stuck[:10]}
    if not wrong and not stuck:
        return Finding("ok", "each update is made in training mode", evidence)
    if not wrong:
        said = f"the running statistics of {listed(stuck)} do not move in a step"
        buffers = dict(copy.model.named_buffers())
        fresh = [n for n in stuck if torch.equal(buffers[n], torch.full_like(buffers[n], float(n.endswith("var"))))]
        return Finding(
            "warn" if fresh else "info", f"{said}, and are as they began" if fresh else said, evidence,
            cause="norms that are kept in evaluation mode, or a momentum of 0: evaluation does without statistics",
            advice=("norms stay in training mode unless their statistics were learnt before",),
            source="S2: toggle train and eval",
        )  # fmt: skip
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


def counted(buffers: list[str]) -> list[str]:
    """The running statistics of the norms whose batches are counted: with a momentum of 0 they stand still all the same."""
    norms = [name.removesuffix("num_batches_tracked") for name in buffers if name.endswith("num_batches_tracked")]
    return [name + part for name in norms for part in ("running_mean", "running_var")]


def reseeds(bench: Bench) -> Finding | None:
    """Whether the step sets the random state: then dropout and augmentation draw the same again in each update."""
    if (word := bench.left_out(2)) is not None:
        return word
    copy, left = bench.fresh(), []
    for seed in (1, 2):
        seed_all(seed, copy.training.generator)
        try:
            copy.step(copy.training, [(x.clone(), y.clone()) for x, y in bench.first])
        except Diverged:
            return None
        left.append((torch.get_rng_state(), copy.training.generator.get_state()))
    same = [bool(torch.equal(one, other)) for one, other in zip(*left, strict=True)]
    if not any(same):
        return Finding("ok", "the step leaves the random state to the loop")
    return Finding(
        "warn",
        "the step sets the random seed: each update draws the same dropout masks and the same augmentation",
        {"global": same[0], "own": same[1]},
        cause="manual_seed, or a fork of the random state, within the step",
        advice=("seed once, at the start of the run: seed=…",),
        source="S2: fix the seed of a run, not of each step",
    )


def grad_accumulates(bench: Bench, *, growth: NonNegative) -> Finding | None:
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
