"""The audit of the data, before a model exists: facts of inputs, and of how the loop will meet them."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F

from plumbline.checks.core import Finding
from plumbline.checks.view import View
from plumbline.ranges import Count, NonNegative, Range, Share

MOST_NAMED = 10  # features listed in a finding


def nonfinite(view: View) -> Finding:
    """Whether each input is a finite number."""
    for name, split in (("train", view.data.train), ("val", view.data.val)):
        broken = view.sums[name].broken
        if broken:
            ids = [str(split.ids[row]) for row in broken[:MOST_NAMED]]
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            return Finding(
                "fail", f"sample {ids[0]}{more} of {name} holds numbers that are not finite",
                {"split": name, "samples": ids, "count": len(broken)},
                cause="a missing value, or a division by zero on the way in",
                advice=("fill the missing values, or leave the sample out",), source="S0: look at the data first",
            )  # fmt: skip
    return Finding("ok", "every input is a finite number")


def constant_features(view: View) -> Finding:
    """Features that are the same number in every sample of train: they cannot tell anything."""
    sums = view.sums["train"]
    same = (sums.std <= 1e-6 * (1 + sums.mean.abs())).nonzero().flatten().tolist()
    evidence = {"constant": len(same), "of": len(sums.std), "features": [feature(view, at) for at in same[:MOST_NAMED]]}
    if len(same) == len(sums.std):
        return Finding(
            "fail", "no input differs from sample to sample: every feature is constant", evidence,
            cause="the inputs were not read, or each sample is the same one",
            advice=("look at what the data set returns for two indices",), source="S0: look at the data first",
        )  # fmt: skip
    if same:
        said = f"{len(same)} of {len(sums.std)} features are constant in train: {', '.join(evidence['features'])}"
        return Finding("info", said + ", …" * (len(same) > MOST_NAMED), evidence, advice=("they may be left out",))
    return Finding("ok", "no feature is constant", evidence)


def scale(
    view: View, *, low: NonNegative, high: NonNegative, far: NonNegative, apart: NonNegative, gross: NonNegative
) -> Finding:
    """Mean and standard deviation of the inputs where the network meets them; of tables, column by column, too."""
    sums = view.sums["train"]
    mean, std = sums.mean.mean().item(), (sums.std.square() + (sums.mean - sums.mean.mean()) ** 2).mean().sqrt().item()
    evidence = {"mean": mean, "std": std}
    said = f"the network meets inputs of mean {mean:.3g} and standard deviation {std:.3g}"
    common = {
        "cause": "the inputs are not normalised, or were normalised twice",
        "advice": ("data.normalise=true, or subtract the mean of train and divide by its standard deviation",),
        "source": "S3: normalise the inputs; LeCun et al. 1998, Efficient BackProp",
    }
    varying = sums.std[sums.std > 1e-6 * (1 + sums.mean.abs())]
    if not len(varying):
        return Finding("ok", said, evidence)
    if not low <= std <= high or abs(mean) > far * max(std, 1.0):
        grave = not low / gross <= std <= high * gross or abs(mean) > gross * far * max(std, 1.0)
        return Finding(
            "fail" if grave else "warn", f"{said}; about 0 and 1 is what networks are made for", evidence, **common
        )
    if not view.images and (ratio := (varying.max() / varying.median()).item()) > apart:
        widest = int(sums.std.argmax())
        evidence |= {"widest": feature(view, widest), "its_std": sums.std[widest].item(), "ratio": ratio}
        spread = f"a standard deviation of {sums.std[widest]:.3g}, {ratio:.0f} times the median one"
        said = f"feature {feature(view, widest)} has {spread}"
        return Finding("warn", said, evidence, **common)
    return Finding("ok", said, evidence)


def correlated(view: View, *, above: Share) -> Finding | None:
    """Pairs of columns that say nearly the same: advice only."""
    if view.images or not 2 <= view.standard[0].shape[1] <= 2000 or len(view.train) < 30:
        return None
    x = view.standard[0]
    r = (x.T @ x / len(x)).abs().triu(1)
    count = int((r > above).sum())
    evidence = {"pairs": count, "above": above}
    if not count:
        return Finding("ok", f"no two features correlate above {above:g}", evidence)
    a, b = divmod(int(r.argmax()), len(r))
    most = f"most {feature(view, a)} and {feature(view, b)} ({r[a, b]:.3f})"
    said = f"{count} pair{'s' * (count > 1)} of features correlate above {above:g}, {most}"
    return Finding(
        "info", said, evidence, advice=("one of a pair may be left out",), source="S0: remove highly correlated inputs"
    )


def enlarged(view: View, *, factor: Annotated[int, Range("[2, 1000]")], share: Share) -> Finding | None:
    """Whether images hold nothing that fewer pixels would not: made smaller and larger again, they are the same."""
    x = view.train.x[:64].float()
    if x.dim() != 4 or min(x.shape[2:]) < 4 * factor or not x.isfinite().all() or x.var() == 0:
        return None
    x = x[..., : x.shape[2] // factor * factor, : x.shape[3] // factor * factor]
    small = F.avg_pool2d(x, factor)
    again = (F.interpolate(small, size=x.shape[2:], mode=mode) for mode in ("nearest", "bilinear", "bicubic"))
    inner = (..., slice(factor, -factor), slice(factor, -factor))  # at the border each way of resizing has its own
    lost = min(float((x - y)[inner].square().mean() / x.var()) for y in again)
    evidence = {"lost": lost, "factor": factor}
    height, width = x.shape[2:]
    if lost > share:
        return Finding("ok", f"images {factor} times smaller would lose {lost:.1%} of what is in them", evidence)
    return Finding(
        "warn", f"the images hold no more than {height // factor} × {width // factor} pixels would ({lost:.2%} is lost), and are "
        f"{height} × {width}", evidence,
        cause="small images that were enlarged to the size of a network",
        advice=("data.size as the images are, or a little above",),
        source="S0: look at what the network sees; the work grows with the square of the size",
    )  # fmt: skip


def size(view: View, *, ratio: NonNegative, each: Count) -> Finding:
    """Parameters against samples (pixels, where each has a target of its own), and samples of each class: advice only."""
    samples = len(view.data.train)
    labelled = samples * math.prod(view.spec.masks[1:])  # (masks, H, W): the masks of a pixel say one thing of it
    evidence = {"parameters": view.parameters, "samples": samples, "ratio": view.parameters / labelled}
    said = [f"{view.parameters:,} parameters for {samples:,} samples"]
    if view.spec.masks:
        evidence["pixels"] = labelled
        said.append(f"{labelled:,} pixels with a target each")
    if view.classes:
        counts = torch.bincount(view.data.train.targets.cpu(), minlength=view.spec.outputs)
        evidence |= {"smallest_class": int(counts.min()), "median_class": int(counts.median())}
        said.append(f"a class has {int(counts.median()):,} of them")
    few = view.parameters > ratio * labelled or (view.classes and counts.median() < each)
    advice = ("compare with the linear baseline; regularise, augment, or start from pretrained weights",) if few else ()
    return Finding(
        "info" if few else "ok", "; ".join(said), evidence, advice=advice, source="S0: more weights than samples"
    )


def few_to_validate(view: View, *, least: Count) -> Finding:
    """Whether there are samples enough in validation to tell one network from another."""
    count = len(view.data.val)
    half = 1.96 * (0.9 * 0.1 / max(count, 1)) ** 0.5
    evidence = {"samples": count, "half_interval": half}
    if count >= least:
        return Finding("ok", f"{count:,} samples validate", evidence)
    return Finding(
        "warn", f"only {count} samples validate: an accuracy of 0.9 may be 0.9 ± {half:.2f}", evidence,
        cause="a split that leaves too little to validate, or a data set cut down for a quick look",
        advice=("a larger data.val_fraction", "data.split=kfold, and the mean over data.fold=0,1,2,…"),
        source="S0: a validation set large enough to see the differences you care for",
    )  # fmt: skip


def provenance(view: View, *, nearly: NonNegative, alone: Share) -> Finding | None:
    """What was fitted on which split: as scales and selection say, and as the numbers at the network's door say."""
    fitted = {
        "the inputs": view.data.scale,
        "the targets": view.data.target_scale,
        "the choice of columns": view.data.selection,
    }
    foreign = [
        f"{what} by {part.fitted_on}"
        for what, part in fitted.items()
        if part is not None and part.fitted_on not in ("train", "columns")  # a user's own list is nobody's fit
    ]
    advice = {
        "advice": ("fit whatever is fitted on train alone",),
        "source": "S0: fit normalisation on training data only",
    }
    if foreign:
        said = f"fitted: {' and '.join(foreign)}, not by train alone"
        return Finding(
            "fail", said, {"fitted_on": foreign}, cause="validation has a say in what train looks like", **advice
        )
    train, val = view.sums["train"], view.sums["val"]
    if len(train) != len(view.data.train) or len(val) != len(view.data.val) or view.images:
        return None if view.data.scale is None else Finding("ok", "the scales were fitted on train")
    share = len(train) / (len(train) + len(val))
    pooled = (share * train.mean + (1 - share) * val.mean).abs()
    varying = train.std > 0.1
    if varying.any() and pooled[varying].max() < nearly and train.mean[varying].abs().max() > alone:
        said = "the mean of train and validation together is 0 in every feature, that of train alone is not"
        evidence = {"together": pooled[varying].max().item(), "train": train.mean[varying].abs().max().item()}
        return Finding(
            "fail", f"{said}: the inputs were scaled by both", evidence, cause="scaled before it was split", **advice
        )
    own = val.mean[varying].abs()
    if len(val) > 2 and varying.any() and own.max() < nearly:
        said = f"the mean of {view.other} is 0 in every feature: its inputs were scaled by itself"
        return Finding(
            "warn", said, {"largest_mean": own.max().item()}, cause="each split was scaled on its own", **advice
        )
    return Finding("ok", "nothing shows that validation was used to scale train")


def order(view: View, *, least: Share) -> Finding | None:
    """Whether the first batches, as the loop will meet them, mix the classes (or the numbers) as train does.

    1 is what chance gives, 0 a batch of one kind. The loop asks for its samples in random order; data of one's own may
    not keep to it.
    """
    batches = [(met, asked) for met, asked in view.first_batches if len(met) > 1]
    y = view.data.train.targets.cpu()
    if not batches or len(y.unique(dim=0)) < 2:
        return None
    kept = all(met.shape == asked.shape and torch.equal(met, asked) for met, asked in batches)
    code = _ranks(y)
    mixed = _mixing([_ranks(y, met) for met, _ in batches], code)
    draws = torch.Generator().manual_seed(0)
    usual = [
        _mixing([code[torch.randint(len(code), (len(met),), generator=draws)] for met, _ in batches], code)
        for _ in range(50)
    ]
    stored = _mixing([block for block in code.split(view.cfg.batch_size) if len(block) > 1], code)
    evidence = {"mixing": mixed, "least_by_chance": min(usual), "order_kept": kept, "mixing_as_stored": stored}
    if mixed < least and mixed < min(usual):
        return Finding(
            "fail", f"batches are sorted: within a batch the targets vary {mixed:.2f} times as much as in train", evidence,
            cause="the samples are sorted by their target and come unshuffled",
            advice=("let batches(size, order) yield the samples that `order` lists", "shuffle before it is split"),
            source="Bengio 2012, Practical recommendations: shuffle; S2: look at what the network is fed",
        )  # fmt: skip
    if not kept:
        return Finding(
            "warn", "the samples of a batch are not those that the loop asked for", evidence,
            cause="batches(size, order) does not yield what `order` lists",
            advice=("yield x[order] and y[order], in that order: resuming and predictions rely on it",),
        )  # fmt: skip
    said = "batches are mixed as chance mixes them"
    if stored < least:
        said += ", though the samples are stored in the order of their targets: nobody should read them unshuffled"
    return Finding("ok", said, evidence)


def _ranks(y: torch.Tensor, met: torch.Tensor | None = None) -> torch.Tensor:
    """(n, k) what varies in a batch, bounded: one-hot classes, or the ranks of numbers among those of y, from 0 to 1."""
    met = y if met is None else met
    if y.dtype == torch.int64:
        return torch.nn.functional.one_hot(met, int(y.max()) + 1).float() if y.max() < 100 else (met[:, None] / y.max())
    columns = [torch.searchsorted(c.sort().values, m.contiguous()) / len(c) for c, m in zip(y.T, met.T, strict=True)]
    return torch.stack(columns, 1)


def _mixing(batches: list[torch.Tensor], code: torch.Tensor) -> float:
    inside = torch.stack([batch.var(0).sum() for batch in batches]).mean()
    return (inside / code.var(0).sum().clamp(min=1e-12)).item()


def feature(view: View, at: int) -> str:
    """A feature's name: of a column as the table has it, of a pixel by its place."""
    if view.images:
        height, width = view.train.x.shape[2:]
        channel, place = divmod(at, height * width)
        row, column = divmod(place, width)
        return f"pixel ({row}, {column})" + f" of channel {channel}" * (view.spec.shape[0] > 1)
    return view.spec.features[at] if at < len(view.spec.features) else f"x{at + 1}"
