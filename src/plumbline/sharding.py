"""`shard=true`: each process holds a part of every weight and of its optimiser's state (FSDP), for what fits into none.

The weights of a layer come together while it computes (Zhao et al. 2023; torch's `fully_shard`). Files hold whole
weights, so that what reads them need not know.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from plumbline.config import ConfigError
from plumbline.regularisers import Regulariser


def shard(model: nn.Module, regularisers: list[Regulariser], device: torch.device) -> None:
    """Spread the weights over the processes, in place: each child, or each part of a sequence, by itself, then the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for regulariser in regularisers:
        if type(regulariser).penalty is not Regulariser.penalty:
            raise ConfigError(
                f"shard=true: regulariser.{regulariser.option} looks at whole weights, which no process has; "
                "decay them by optimiser.weight_decay"
            )
    for name, module in model.named_modules():
        if nn.utils.parametrize.is_parametrized(module):
            raise ConfigError(f"shard=true: {name} is reparametrised (weight or spectral norm), which needs it whole")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for child in model.children():
        for part in child.children() if isinstance(child, nn.Sequential | nn.ModuleList) else [child]:
            if any(parameter.requires_grad for parameter in part.parameters()):
                fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Any) -> Any:
    """A sharded tensor from its parts, in all processes at once; anything else as it is."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def gathered(tree: Any, keep: bool) -> Any:
    """A state dict with whole tensors on the CPU, in all processes at once; where it is not kept, without them."""

    def gather(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = whole(value)
        return value.cpu() if keep else None

    return tree_map(gather, tree)


def alike(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Whole tensors as their namesakes are held: this process's part of those that are sharded."""
    return {name: _part(value, own.get(name)) for name, value in values.items()}


def optimiser_alike(state: dict[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """An optimiser's state dict as its parameters are held; optimisers that hold others do so within."""
    if "param_groups" not in state:
        return {k: optimiser_alike(v, groups) if isinstance(v, dict) else v for k, v in state.items()}
    parameters = [parameter for group in groups for parameter in group["params"]]
    parts = {
        index: {name: _part(value, parameters[index]) for name, value in held.items()}
        for index, held in state["state"].items()
    }
    return {**state, "state": parts}


def _part(value: Any, like: Any) -> Any:
    """This process's part of a whole tensor, if its like is sharded and has its shape."""
    if not hasattr(like, "full_tensor") or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(like.device, like.dtype)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)  # all have read the file
