"""What needs no network, and the network that sees nothing, on the same split: what a result is compared with.

A baseline takes the audit's view and returns its raw outputs for validation (N, outputs), as a network's: log
probabilities of classes, or numbers in the unit of the scaled target; and on how many samples of train it was fitted.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from plumbline import tasks
from plumbline.assemble import build_all
from plumbline.checks.core import Checks, Finding, untouched
from plumbline.checks.margin import ZERO_INPUT, strongest
from plumbline.checks.view import BATCH, COMPONENTS, View, nearest, part, principal, small
from plumbline.config import build
from plumbline.data.core import Data
from plumbline.files import save_arrays
from plumbline.loop import Diverged, epoch_order, seed_all, usable
from plumbline.ranges import Items, Positive, Range
from plumbline.record import Record
from plumbline.regularisers.layers import is_norm

KEPT = "baseline.npz"  # in the folder of a run
LEAST = 1e-4  # no answer is surer of a class than this: one mistake shall not be an infinite loss
COLUMNS = 100  # features that a linear model is given as they are; of more, as many principal components
NEIGHBOURS = (1, 3, 5, 9, 15, 25)  # of which the number is chosen


@dataclass
class Answer:
    """A baseline's name, its outputs for validation and the samples it was fitted on."""

    name: str
    outputs: Tensor
    samples: int


def measure(cfg: DictConfig, checks: Checks, view: View, loss: Callable[..., Tensor]) -> None:
    """Note in run.json what each configured baseline reaches on validation, in the metrics of the run.

    What the strongest says of each sample is kept for `margins`, in baseline.npz: the run may be resumed before its end.
    """
    rows, failed, outputs = [], [], {}
    y = view.data.val.targets.cpu()
    if view.spec.task in ("segmentation", "reconstruction"):
        return  # a target as large as its input: a copy of the input would be the answer, or none that is quick
    for name, node in cfg.baselines.items():
        if node is None:
            continue
        began = time.perf_counter()
        try:
            with untouched(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a fit that was ended early: its score says what it is worth
                answer = build(node)(view)
                scores = {"loss": loss(answer.outputs, y).item()}
                scores |= tasks.score(view.spec, answer.outputs, y, view.data.target_scale)
        except Diverged as error:
            failed.append(
                (name, Finding("info", f"this baseline has no number, its training diverged: {error}", symptom=True))
            )
            continue
        except Exception as error:  # what cannot be compared with shall not cost the run
            failed.append((name, Finding("info", f"this baseline could not be made: {type(error).__name__}: {error}")))
            continue
        metrics = {f"val/{metric}": value for metric, value in scores.items()}
        part, outputs[answer.name] = answer.samples < len(view.data.train), answer.outputs
        rows.append({
            "name": answer.name, "metrics": metrics, "seconds": time.perf_counter() - began,
            "samples": answer.samples, "subsampled": part,
        })  # fmt: skip
    run = checks.record.run
    best = strongest(rows, run["objective"], run["direction"])
    if best is not None:
        save_arrays(checks.record.directory / KEPT, outputs=outputs[best["name"]].numpy())
    checks.record.note(baselines=rows)
    checks.record.found(
        "baselines", [{"id": f"baselines.{name}", "phase": "baselines", **vars(it)} for name, it in failed]
    )


def margins(
    record: Record, data: Data, loss: Callable[..., Tensor], ours: tuple[Tensor, Tensor], y: Tensor, resamples: int, choices: int
) -> dict[str, tuple[float, int]]:  # fmt: skip
    """By the name of the simplest and of the strongest baseline: what a `Margin` calls error and choices."""
    run, y = record.run, y.cpu()
    rivals = {run["baseline"]["name"]: tasks.uninformed(data.spec, data.train, len(data.val))}
    best = strongest(run["baselines"], run["objective"], run["direction"])
    if best is not None and (record.directory / KEPT).exists():
        with np.load(record.directory / KEPT, allow_pickle=False) as kept:
            rivals[best["name"]] = torch.from_numpy(kept["outputs"])
    theirs = {name: (said, loss(said, y, reduction="none")) for name, said in rivals.items()}
    rest = (y, resamples, data.target_scale, data.val.items)
    return {
        name: (tasks.paired_error(data.spec, run["objective"], [ours], [those], *rest), choices)
        for name, those in theirs.items()
    }


class Table:
    """Samples of train as rows of features, standardised, and validation in the same way, a batch at a time."""

    def __init__(self, view: View, samples: int):
        self.view = view
        some = view.train if samples == view.samples else part(view.data.train, samples)
        self.y, self.targets = some.y, some.y.float() if not view.classes else some.y
        x = _rows(some.x)
        self.mean, std = x.mean(0), x.std(0, correction=0)
        lost = std <= 1e-6 * (1 + self.mean.abs())
        if view.images:
            std = std.square().mean().sqrt().expand_as(std)
        self.factor = torch.where(lost, torch.zeros(()), 1 / std.clamp(min=1e-12))
        self.x = (x - self.mean) * self.factor

    def __len__(self) -> int:
        return len(self.y)

    def val(self, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """The answers to all of validation."""
        batches = self.view.data.val.batches(BATCH)
        return torch.cat(
            [answer(((_rows(small(x.cpu())) - self.mean) * self.factor).clamp(-1e4, 1e4)) for x, _ in batches]
        )


def linear(
    view: View, *, samples: Annotated[int, Range("[1, 10000000]")], strengths: Annotated[list[Positive], Items(least=1)]
) -> Answer:
    """Logistic or ridge regression, its penalty chosen by cross-validation on train; of many features, on the principal
    components, or with an absolute penalty (lasso) that picks some, whichever does better there."""
    table = Table(view, samples)
    axes = principal(table.x, COLUMNS)
    z = (table.x @ axes).double().numpy()
    spread = max(float(z.std()), 1e-9)
    if not view.classes:
        from sklearn.linear_model import RidgeCV

        fitted = RidgeCV(alphas=[len(table) / strength for strength in strengths]).fit(
            z / spread, table.targets.numpy()
        )
        predict = lambda x: fitted.predict((x @ axes).double().numpy() / spread).reshape(len(x), -1)  # noqa: E731
        return Answer("ridge regression", table.val(lambda x: torch.from_numpy(predict(x)).float()), len(table))
    if len(table.y.unique()) < 2:
        return Answer(
            "logistic regression", tasks.uninformed(view.spec, view.data.train, len(view.data.val)), len(table)
        )
    whole = table.x.double().numpy()
    tries = [(_logistic, z / spread, strength) for strength in strengths]
    if table.x.shape[1] > max(len(table), COLUMNS) and view.spec.outputs == 2:
        tries += [(_lasso, whole, strength / 10) for strength in strengths]
    fit, inputs, strength = (
        max(tries, key=lambda it: _held_out(*it, table.y.numpy())) if view.spec.outputs <= 100 else tries[0]
    )
    model = fit(inputs, table.y.numpy(), strength)
    if fit is _lasso:
        return Answer("L1 logistic regression", table.val(lambda x: _logs(view, model, x.double().numpy())), len(table))
    return Answer(
        "logistic regression", table.val(lambda x: _logs(view, model, (x @ axes).double().numpy() / spread)), len(table)
    )


def neighbours(view: View, *, samples: Annotated[int, Range("[1, 10000000]")]) -> Answer:
    """The mean answer of the nearest samples of train; how many, is chosen by leaving each out in turn."""
    table = Table(view, samples)
    targets = torch.nn.functional.one_hot(table.y, view.spec.outputs).float() if view.classes else table.targets
    prior, axes = targets.mean(0), principal(table.x, COMPONENTS)
    keys = table.x @ axes

    def answer(rows: Tensor, k: int) -> Tensor:
        mean = targets[rows[:, :k]].mean(1)
        return ((k * mean + prior) / (k + 1)).clamp(min=LEAST).log() if view.classes else mean

    def error(k: int) -> float:
        said = answer(own, k)
        return (
            -said[torch.arange(len(said)), table.y].mean().item()
            if view.classes
            else (said - targets).square().mean().item()
        )

    most = min(max(NEIGHBOURS), len(table) - 1)
    if most < 1:
        return Answer(
            "nearest neighbours", tasks.uninformed(view.spec, view.data.train, len(view.data.val)), len(table)
        )
    _, own = nearest(keys, keys, most, itself=True)
    k = min((k for k in NEIGHBOURS if k <= most), key=error)
    outputs = table.val(lambda x: answer(nearest(x @ axes, keys, k)[1], k))
    return Answer(f"{k} nearest neighbour{'s' * (k > 1)}", outputs, len(table))


def forest(
    view: View, *, samples: Annotated[int, Range("[1, 10000000]")], trees: Annotated[int, Range("[1, 10000]")]
) -> Answer:
    """A random forest (Breiman 2001)."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    table = Table(view, samples)
    x, y = table.x.numpy(), table.y.numpy()
    if not view.classes:
        model = RandomForestRegressor(trees, random_state=0, max_features=1 / 3).fit(
            x, y[:, 0] if y.shape[1] == 1 else y
        )
        outputs = table.val(lambda x: torch.from_numpy(model.predict(x.numpy()).reshape(len(x), -1)).float())
        return Answer("random forest", outputs, len(table))
    model = RandomForestClassifier(trees, random_state=0).fit(x, y)
    return Answer("random forest", table.val(lambda x: _logs(view, model, x.numpy())), len(table))


def zero_input(view: View, *, updates: Annotated[int, Range("[1, 100000]")]) -> Answer:
    """The configured network and step, trained on zeros in place of the inputs: what it learns without looking.

    (Karpathy 2019, A Recipe for Training Neural Networks: the input-independent baseline.)
    """
    cfg, train, val = view.cfg, view.data.train, view.data.val
    where = train.targets.device
    training, _, step, _ = build_all(cfg, view.spec, tasks.prior(view.spec, train).float(), where, rehearsal=True)
    training.model.train()
    order = epoch_order(len(train), cfg.seed, 0)[: usable(len(train), cfg.batch_size)]
    targets = train.targets[order.to(where)].split(cfg.batch_size)
    for number in range(updates):
        seed_all(number, training.generator)
        training.where = f"update {number + 1} on zeros"
        y = targets[number % len(targets)]
        step(training, [(torch.zeros(len(y), *view.spec.shape, device=where), y)])
    norms = [module for module in training.model.modules() if is_norm(module) and module.training]
    training.model.eval()
    for norm in norms:  # by the batch: of zeros, running statistics have no spread to divide by
        norm.train()
    with torch.inference_mode():
        said = training.model(torch.zeros(2, *view.spec.shape, device=where))[:1].float().cpu()
    return Answer(ZERO_INPUT, said.expand(len(val), -1).contiguous(), min(len(train), updates * cfg.batch_size))


def _rows(x: Tensor) -> Tensor:
    return x.flatten(1).nan_to_num(0, 0, 0)


def _logistic(x: np.ndarray, y: np.ndarray, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=100, tol=1e-3).fit(x, y)


def _lasso(x: np.ndarray, y: np.ndarray, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, l1_ratio=1, solver="liblinear", max_iter=50, tol=1e-2, random_state=0).fit(
        x, y
    )


def _held_out(fit: Callable[..., Any], x: np.ndarray, strength: float, y: np.ndarray, folds: int = 2) -> float:
    """The mean log probability of held-out labels."""
    fold, total = np.random.default_rng(0).permutation(len(y)) % folds, 0.0
    for number in range(folds):
        held = fold == number
        if len(np.unique(y[~held])) < 2:
            return -np.inf
        model = fit(x[~held], y[~held], strength)
        place = np.searchsorted(model.classes_, y[held]).clip(max=len(model.classes_) - 1)
        said = model.predict_proba(x[held])[np.arange(held.sum()), place] * (model.classes_[place] == y[held])
        total += float(np.log(said.clip(min=LEAST)).sum())
    return total / len(y)


def _logs(view: View, model: Any, x: np.ndarray) -> Tensor:
    """(n, outputs) log probabilities; classes that the model never met get the least."""
    out = np.full((len(x), view.spec.outputs), LEAST)
    out[:, model.classes_] = model.predict_proba(x).clip(min=LEAST)
    return torch.from_numpy(np.log(out)).float()
