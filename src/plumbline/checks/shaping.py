"""Checks of what is done to data and weights on purpose: augmentation that destroys, penalties that drown the data."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from plumbline.checks.bench import Bench, Copy
from plumbline.checks.core import Finding
from plumbline.loop import Diverged, Training, seed_all
from plumbline.ranges import NonNegative, Range, Share
from plumbline.regularisers import ElasticNet


def destroys(
    bench: Bench,
    *,
    samples: Annotated[int, Range("[1, 10000000]")],
    neighbours: Annotated[int, Range("[1, 1000]")],
    share: Share,
) -> Finding | None:
    """How much nearest neighbours among augmented samples of train still know of validation, plain or augmented alike."""
    training, data = bench.noisy.training, bench.data
    if not training.augmentations and not training.regularisers:
        return None
    (x, y), (there, wanted) = some(data.train, samples), some(data.val, samples // 2)
    seed_all(bench.cfg.seed, training.generator)
    z, also = augmented(training, x, y, bench.cfg.batch_size), augmented(training, there, wanted, bench.cfg.batch_size)
    if z.shape == x.shape and torch.equal(z, x):
        return None
    chance, plain, left, alike = (
        known(a, y, b, wanted, neighbours) for a, b in ((torch.zeros_like(x), there), (x, there), (z, there), (z, also))
    )
    left = min(left, alike)
    kept = (left - chance) / (plain - chance) if plain > chance else 1.0
    evidence = {"plain": plain, "augmented": left, "chance": chance, "kept": kept}
    if plain - chance < 0.1:
        return None  # neighbours know nothing of these data anyway
    said = f"neighbours know {left:.3g} of validation from augmented samples, {plain:.3g} from plain ones (chance: {chance:.3g})"
    if kept >= share:
        return Finding("ok", said, evidence)
    return Finding(
        "warn",
        f"the augmentation destroys the signal: {said}",
        evidence,
        cause="inputs that are no longer what their label says, or no longer on the scale of validation",
        advice=("look at augmented samples", "weaken the augmentation, or leave it out"),
        source="S0: look at what the network sees",
    )


def augmented(training: Training, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
    """The inputs as they enter the network, batch by batch; mixed ones as they were: that is another thing."""
    parts = []
    for piece, target in zip(x.split(batch_size), y.split(batch_size), strict=True):
        made = piece.clone()
        for augment in training.augmentations:
            made = augment(made, training.generator)
        for regulariser in training.regularisers:
            after, kept = regulariser.batch(made, target, training.generator)
            if kept is target:
                made = after
        parts.append(made)
    return torch.cat(parts)


def labels(bench: Bench, *, least: NonNegative) -> Finding | None:
    """How much the softened labels still say of the class: ln C less their mean entropy."""
    spec, training = bench.spec, bench.noisy.training
    if spec.task != "classification" or spec.outputs < 2:
        return None
    seed_all(bench.cfg.seed, training.generator)
    x, y = bench.x.clone(), bench.y
    for regulariser in training.regularisers:
        x, y = regulariser.batch(x, y, training.generator)
    if not y.is_floating_point() or y.shape != (len(bench.y), spec.outputs):
        return None
    most = math.log(spec.outputs)
    said = 1 - float(torch.special.entr(y.float()).sum(1).mean()) / most
    evidence = {"information": said}
    if said >= least:
        return Finding("ok", f"the softened labels still say {said:.0%} of what hard ones do", evidence)
    return Finding(
        "warn", f"the softened labels say only {said:.1%} of what hard ones do", evidence,
        cause="label smoothing that is far too strong: the share that is kept and the share that is spread were exchanged",
        advice=("regulariser.label_smoothing.smoothing=0.1",), source="Szegedy et al. 2016, Rethinking Inception",
    )  # fmt: skip


def some(split, samples: int) -> tuple[Tensor, Tensor]:
    """A fixed random part of a split."""
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:samples]
    batches = list(split.batches(1000, chosen))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def known(x: Tensor, y: Tensor, there: Tensor, wanted: Tensor, neighbours: int) -> float:
    """The accuracy, or R², of the nearest neighbours' vote or mean; 0 of R² is the least."""
    if not x.isfinite().all():
        return 0.0
    near = (
        torch.cdist(there.flatten(1).float(), x.flatten(1).float()).topk(min(neighbours, len(x)), largest=False).indices
    )
    if y.is_floating_point():
        rest = (y[near].mean(1) - wanted).square().mean()
        return max(0.0, float(1 - rest / (wanted - wanted.mean(0)).square().mean()))
    if not x.any():
        return float(torch.bincount(wanted).max()) / len(wanted)
    return float((y[near].mode(1).values == wanted).float().mean())


def ratio(bench: Bench, *, most: NonNegative) -> Finding | None:
    """How large the penalties are beside the loss of the data: those of regularisers and a coupled weight decay."""
    copy = bench.network
    try:
        with torch.no_grad(), copy.buffers_kept():
            x, y = bench.first[0]
            loss = float(copy.training.loss(copy.outputs([(x, y)]), y))
            seed_all(bench.cfg.seed, copy.training.generator)
        with torch.enable_grad(), copy.buffers_kept():
            copy.training.forward(x.clone(), y.clone())
            listed = by_layer(copy, x)
    except Diverged:
        return None
    penalty, decay, pull = float(torch.as_tensor(copy.training.penalty).detach()), 0.0, 0.0
    for group in copy.optimiser.param_groups:
        size = float(sum(p.detach().float().square().sum() for p in group["params"]))
        coupled = group.get("weight_decay", 0.0) + group.get("decay", 0.0)
        scale_free = not isinstance(copy.optimiser, torch.optim.SGD)
        if scale_free and decoupled(copy.optimiser, group):
            numbers = sum(p.numel() for p in group["params"])
            pull = max(pull, coupled * (size / max(numbers, 1)) ** 0.5)  # of each weight, beside a step of one rate
        else:
            decay += coupled / 2 * size
    if not penalty and not decay and not pull:
        return None
    found = (abs(penalty) + decay) / max(abs(loss), 1e-12)
    evidence = {"data_loss": loss, "penalty": penalty, "weight_decay": decay, "ratio": found, "pull": pull}
    evidence |= {"by_layer": listed, "times": most / max(found, pull)}
    if found <= most and pull <= most:
        said = f"the penalties are {max(found, pull):.2g} of the loss of the data"
        said += f"; they may be {evidence['times']:.2g} times as strong, no more"
        if listed:
            most_of = max(listed, key=lambda place: listed[place])
            said += f"; most is of {most_of} ({listed[most_of]:.2g})"
        return Finding("ok", said, evidence)
    if pull > most:
        said = f"the weight decay pulls each weight {pull:.2g} times as far as a step moves it"
        least = (
            f"optimiser.weight_decay={0.1 * most / pull * bench.cfg.optimiser.get('weight_decay', 1):.1g}"
            if "weight_decay" in bench.cfg.optimiser
            else "a smaller weight decay"
        )
    else:
        said = (
            f"the penalties are {found:.2g} times the loss of the data ({abs(penalty) + decay:.3g} against {loss:.3g})"
        )
        least = f"a strength {found * 10:.2g} times smaller"
    return Finding(
        "warn",
        f"{said}: training will shrink weights instead of learning",
        evidence,
        cause="a regularisation or weight decay that is far too strong",
        advice=(least, "none, until the network can fit"),
        source="S1: choose the strength so that the penalty stays below the loss",
    )


def by_layer(copy: Copy, x: Tensor) -> dict[str, float]:
    """What kernels, biases and activities add to the loss, `<layer>.<kernel|bias|activity>` by itself."""
    listing = [r for r in copy.training.regularisers if isinstance(r, ElasticNet)]
    if listing:
        copy.model(x.clone())  # the taps of the activities hear it
    found: dict[str, float] = {}
    for regulariser in listing:
        for layer, parts in regulariser.by_layer(copy.model).items():
            for part, term in parts.items():
                found[f"{layer}.{part}"] = found.get(f"{layer}.{part}", 0.0) + term
    return found


def decoupled(optimiser: torch.optim.Optimizer, group: dict) -> bool:
    """Whether the decay shrinks the weights beside the gradient's step, and does not enter the gradient."""
    return group.get("decoupled_weight_decay", False) or "decay" in group or isinstance(optimiser, torch.optim.AdamW)


def repeats(bench: Bench) -> Finding | None:
    """Whether an augmentation draws anew each time it is called: one that treats the samples of a batch differently draws."""
    training, x = bench.noisy.training, bench.x[:1].expand(16, *bench.x.shape[1:])
    if not training.augmentations:
        return None
    for name, augment in zip(bench.cfg.augment, training.augmentations, strict=True):
        seen = []
        for seed in range(3):
            seed_all(seed, training.generator)
            seen.append(augment(x.clone(), training.generator))
        same = all(torch.equal(seen[0], again) for again in seen[1:])
        if same and seen[0].shape == x.shape and not torch.equal(seen[0], seen[0][:1].expand_as(seen[0])):
            return Finding(
                "warn",
                f"augmentation {name} does the same each time: what sample k of a batch gets, sample k of every batch gets",
                {"augmentation": name},
                cause="it seeds itself anew at each call, or its draws were made once",
                advice=("draw from the generator that it is given",),
                source="unseeded workers that repeat one another: a known trap of data loaders",
            )
    return Finding("ok", "augmentations draw anew each time")
