"""The running statistics of norms, measured anew for weights that no batch has passed through: averaged ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from plumbline.data.core import Split

STATISTICS = 100  # batches that are enough for a mean and a variance; a whole epoch would cost a forward pass of it


@torch.no_grad()
def refresh_norms(model: nn.Module, train: Split, batch_size: int, autocast: Callable[[], Any]) -> None:
    """Set the running mean and variance of each norm to those of train under the present weights (Izmailov et al. 2018).

    Frozen norms keep theirs. At most 100 batches in storage order are looked at; nothing is drawn at random.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    norms = [module for module in norms if not getattr(module, "frozen", False)]
    if not norms:
        return
    was_training, momenta = model.training, [module.momentum for module in norms]
    model.eval()
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # a plain mean over the batches
        module.train()
    whole = max(len(train) // batch_size, 1)
    seen = min(whole, STATISTICS) * batch_size
    spread = torch.arange(min(seen, len(train))) * max(len(train) // seen, 1)  # of all parts, if the storage is sorted
    for x, _ in train.batches(batch_size, spread.view(-1)):
        with autocast():
            model(x.clone())
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
    model.train(was_training)
