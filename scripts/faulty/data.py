"""Data that are prepared wrongly, each in one way: functions of the clean data and of a source of chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from faulty.prepare import both, drawn, inputs, prepared, split, unopened
from plumbline.data import Data, Scale, Split, Splits


@prepared
def as_it_is(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Not a mistake."""
    return data.train, data.val


@prepared
def labels_shifted(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """A header line was counted: the label of each sample belongs to the next one."""
    return both(lambda x, y: (x, y.roll(1, 0)), data)


@prepared
def train_labels_shifted(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """As above, but in the training file alone."""
    return Split(data.train.x, data.train.y.roll(1, 0), data.train.ids), data.val


@prepared
def labels_noisy(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Of the training labels, 30 % are random: they came from a crowd in a hurry. Of numbers, those of other samples."""
    y = data.train.y.clone()
    wrong = drawn(round(0.3 * len(y)), len(y), draws)
    if data.spec.task == "classification":
        y[wrong] = torch.from_numpy(draws.integers(0, data.spec.outputs, len(wrong)))
    else:
        y[wrong] = y[wrong[torch.from_numpy(draws.permutation(len(wrong)))]]
    return Split(data.train.x, y, data.train.ids), data.val


@prepared
def classes_numbered_differently(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Validation counts its classes from one, train from zero."""
    return data.train, Split(data.val.x, (data.val.y + 1) % data.spec.outputs, data.val.ids)


@prepared
def unscaled(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The inputs reach the network in their own unit: around 500, with a spread of 100."""
    return both(lambda x, y: (100 * x + 500, y), data)


@prepared
def scaled_twice(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Pixels that are 0 to 1 already are divided by 255 once more."""
    return both(lambda x, y: (data.scale.inverse(x) / 255, y), data)


@prepared
def validation_scaled_differently(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Validation is scaled with the constants of ImageNet, train with its own."""
    return data.train, inputs(lambda x: (data.scale.inverse(x) - 0.485) / 0.229, data.val)


@prepared
def validation_from_train(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Validation is drawn from the training set, and left in it."""
    rows = drawn(len(data.val), len(data.train), draws)
    return data.train, split(data.train.x[rows], data.train.y[rows], first=len(data.train))


@prepared
def oversampled_before_splitting(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Samples are drawn twice to fill up the classes, and the copies are split like others."""
    x, y = torch.cat([data.train.x, data.val.x]), torch.cat([data.train.y, data.val.y])
    rows = torch.from_numpy(draws.integers(0, len(y), round(1.5 * len(y))))
    count = round(len(rows) * len(data.train) / len(y))
    return split(x[rows[:count]], y[rows[:count]]), split(x[rows[count:]], y[rows[count:]], first=count)


@prepared
def near_copies_in_validation(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Half of validation are training samples saved once more, with the rounding of another format."""
    x, y, half = data.val.x.clone(), data.val.y.clone(), len(data.val) // 2
    rows = drawn(half, len(data.train), draws)
    noise = torch.from_numpy(draws.normal(0, 1e-3, (half, *data.spec.shape))).float()
    x[:half], y[:half] = data.train.x[rows] + noise, data.train.y[rows]
    return data.train, Split(x, y, data.val.ids)


@prepared
def one_input_is_the_answer(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The last input was computed from the target."""

    def leak(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value = y.float().flatten()
        if data.spec.task == "classification":
            value = (value - (data.spec.outputs - 1) / 2) / data.spec.outputs * 3  # about the scale of the others
        x.flatten(1)[:, -1] = value
        return x, y

    return both(leak, data)


@prepared
def missing_values(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Three values of one training sample are NaN."""
    x = data.train.x.clone()
    x[int(draws.integers(len(x)))].view(-1)[:3] = torch.nan
    return Split(x, data.train.y, data.train.ids), data.val


class InStorageOrder(Split):
    """A loader with shuffle=False: whichever samples are asked for come as they are stored."""

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        return super().batches(size, None if order is None else order.sort().values)


@prepared
def sorted_and_not_shuffled(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The file is sorted by class and read in that order, epoch after epoch."""
    order = data.train.y.flatten().sort(stable=True).indices
    return InStorageOrder(data.train.x[order], data.train.y[order], data.train.ids[order.numpy()]), data.val


def _imbalanced(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Three samples in a hundred are of the class that matters, and accuracy is what is looked at."""
    parts = []
    for part in (data.train, data.val):
        rare, common = (part.y == 8).nonzero().flatten(), (part.y != 8).nonzero().flatten()
        rows = torch.cat([common, rare[: max(round(0.03 / 0.97 * len(common)), 2)]])
        rows = rows[torch.from_numpy(draws.permutation(len(rows)))]
        parts.append(Split(part.x[rows], (part.y[rows] == 8).long(), part.ids[rows.numpy()]))
    return tuple(parts)


imbalanced = prepared(_imbalanced, lambda spec: replace(spec, outputs=2, classes=("other", spec.classes[8])))
imbalanced.__name__ = "imbalanced"


@prepared
def class_missing_in_train(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The files of one class were not copied into the training folder."""
    rows = (data.train.y != 3).nonzero().flatten()
    return Split(data.train.x[rows], data.train.y[rows], data.train.ids[rows.numpy()]), data.val


@prepared
def always_the_first_sample(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Reading a sample ignores the index: the input is always the first."""
    return both(lambda x, y: (x[:1].expand_as(x).clone(), y), data)


@prepared
def validation_inverted(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The images of validation are black on white, those of train white on black."""
    return data.train, inputs(torch.neg, data.val)


@prepared
def target_in_its_own_unit(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The target of the regression is neither centred nor scaled: mean 1,520, standard deviation 770."""
    train, val = both(lambda x, y: (x, 10 * data.target_scale.inverse(y)), data)
    return Splits(train, val, unopened, data.identity, data.scale)


@prepared
def target_summed_over_all(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """A sum without its axis: the target is one number, the same for every sample."""
    return both(lambda x, y: (x, data.train.x.sum().expand_as(y).clone()), data)


@prepared
def scaled_by_everything(data: Data, draws: np.random.Generator) -> Splits:
    """The scale of the inputs was fitted on train and validation together."""
    raw = [data.scale.inverse(part.x) for part in (data.train, data.val)]
    every = torch.cat(raw)
    axes = (0, *range(2, every.dim()))
    scale = Scale(every.mean(axes, keepdim=True)[0], every.std(axes, keepdim=True)[0].clamp_min(1e-6), "train and val")
    parts = [Split(scale(x), part.y, part.ids) for x, part in zip(raw, (data.train, data.val), strict=True)]
    return Splits(*parts, unopened, data.identity, scale, data.target_scale)


@prepared
def groups_torn_apart(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Five pictures of each patient, and patients who are in train and in validation."""
    parts = []
    for part in (data.train, data.val):
        patients = torch.from_numpy(draws.integers(0, len(data.val), len(part)))
        parts.append(Split(part.x, part.y, part.ids, patients.numpy()))
    return tuple(parts)


@prepared
def corner_marked(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """A scanner of its own took two of the classes, and left a mark in the corner."""

    def mark(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x[y < 2, ..., :2, :2] = x.max()
        return x, y

    return both(mark, data)


@prepared
def one_column_drifts(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """One instrument was replaced between train and validation: its column is three deviations off."""

    def drift(x: Tensor) -> Tensor:
        x.flatten(1)[:, 0] += 3
        return x

    return data.train, inputs(drift, data.val)


@prepared
def sentinels(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Missing values of one column are written as -999, and taken for numbers."""

    def mark(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rows = drawn(max(len(x) // 20, 1), len(x), draws)
        x.flatten(1)[rows, 1] = -999
        return x, y

    return both(mark, data)


@prepared
def two_classes_exchanged(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """One annotator took class 0 for class 1 and the other way round: a third of their labels."""
    y = data.train.y.clone()
    members = (y < 2).nonzero().flatten()
    members = members[drawn(len(members) // 3, len(members), draws)]
    y[members] = 1 - y[members]
    return Split(data.train.x, y, data.train.ids), data.val


@prepared
def same_input_other_label(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Two lists were joined: a third of the samples are there twice, with another label each time."""
    x, y = data.train.x, data.train.y
    rows = drawn(len(y) // 3, len(y), draws)
    return split(torch.cat([x, x[rows]]), torch.cat([y, (y[rows] + 1) % data.spec.outputs])), data.val


@prepared
def validation_turned(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """Rows and columns of the validation images are exchanged: another library's order of axes."""
    return data.train, inputs(lambda x: x.transpose(-1, -2).contiguous(), data.val)


@prepared
def images_lost(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """A third of the training images could not be read and came out black, with their labels."""
    x = data.train.x.clone()
    x[drawn(len(x) // 3, len(x), draws)] = x.min()
    return Split(x, data.train.y, data.train.ids), data.val


@prepared
def moved_copies_in_validation(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The images were multiplied by moving them a pixel, before they were split."""
    x, y, half = data.val.x.clone(), data.val.y.clone(), len(data.val) // 2
    rows = drawn(half, len(data.train), draws)
    x[:half], y[:half] = data.train.x[rows].roll(1, -1), data.train.y[rows]
    return data.train, Split(x, y, data.val.ids)


@prepared
def validation_target_in_logarithms(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The target of train is its logarithm, that of validation is not."""
    y = data.target_scale.inverse(data.train.y).clamp_min(1).log()
    return Split(data.train.x, data.target_scale(y), data.train.ids), data.val


@prepared
def one_target_in_another_unit(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """One target was written in thousandths: it is a thousand times the others."""
    y = data.train.y.clone()
    y[int(draws.integers(len(y)))] *= 1000
    return Split(data.train.x, y, data.train.ids), data.val


@prepared
def nearly_the_answer(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """One input was measured after the outcome: it is the target with 5 % noise."""

    def leak(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value = y.float().flatten()
        value = (value - value.mean()) / value.std()
        x.flatten(1)[:, 2] = value + 0.05 * torch.from_numpy(draws.normal(size=len(y))).float()
        return x, y

    return both(leak, data)


@prepared
def columns_in_another_order(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The columns of the validation file stand in another order."""
    order = torch.from_numpy(draws.permutation(data.val.x.flatten(1).shape[1]))
    return data.train, inputs(lambda x: x.flatten(1)[:, order].view_as(x), data.val)


@prepared
def labels_random(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The labels were joined by a key that is not one: they belong to anybody."""
    return both(lambda x, y: (x, y[torch.from_numpy(draws.permutation(len(y)))]), data)


@prepared
def eight_validate(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """A [:8] from a quick look is still there."""
    return data.train, Split(data.val.x[:8], data.val.y[:8], data.val.ids[:8])


@prepared
def each_scaled_by_itself(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """fit_transform for train, and fit_transform for validation."""

    def scaled(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / x.std(0).clamp(min=1e-6)

    return inputs(scaled, data.train), inputs(scaled, data.val)


@prepared
def validation_labels_shuffled(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The rows of the validation file were sorted after its labels had been read."""
    order = torch.from_numpy(draws.permutation(len(data.val)))
    return data.train, Split(data.val.x, data.val.y[order], data.val.ids)


@prepared
def odd_for_even(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """One annotator took the next class for every second one: 40 % of the labels of even classes are one too high."""
    y = data.train.y.clone()
    wrong = (y % 2 == 0) & torch.from_numpy(draws.random(len(y)) < 0.4)
    y[wrong] = (y[wrong] + 1) % data.spec.outputs
    return Split(data.train.x, y, data.train.ids), data.val


@prepared
def mirrored_copies_in_validation(data: Data, draws: np.random.Generator) -> tuple[Split, Split]:
    """The images were multiplied by mirroring them, before they were split."""
    x, y, half = data.val.x.clone(), data.val.y.clone(), len(data.val) // 2
    rows = drawn(half, len(data.train), draws)
    x[:half], y[:half] = data.train.x[rows].flip(3), data.train.y[rows]
    return data.train, Split(x, y, data.val.ids)
