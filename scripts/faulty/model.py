"""Networks that go wrong. Each takes the options of ours (they tell which: blocks, channels or neither)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plumbline.data import Spec
from plumbline.models.cnn import CNN
from plumbline.models.mlp import MLP
from plumbline.models.resnet import ResNet

Change = Callable[[nn.Module], nn.Module]


class Wrapped(nn.Module):
    """A network with something done to its inputs or to its outputs."""

    def __init__(self, network: nn.Module, *, before: Callable[..., Tensor] | None = None, after: Any = None):
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.network(x if self.before is None else self.before(x))
        return outputs if self.after is None else self.after(outputs)


def network(spec: Spec, **options: Any) -> nn.Module:
    """One of ours, by its options."""
    kind = ResNet if "blocks" in options else CNN if "channels" in options else MLP
    return kind(spec, **options)


def mistaken(change: Change) -> Callable[..., nn.Module]:
    """A model from the change that is made to one of ours."""

    def model(spec: Spec, **options: Any) -> nn.Module:
        return change(network(spec, **options))

    model.__name__, model.__doc__, model.__module__ = change.__name__, change.__doc__, change.__module__
    return model


def before_head(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """The model with what its last layer takes changed."""
    model.head.register_forward_pre_hook(lambda module, inputs: (change(inputs[0]),))
    return model


@mistaken
def ends_in_softmax(model: nn.Module) -> nn.Module:
    """The outputs are probabilities already, and cross-entropy takes a softmax of them once more."""
    return Wrapped(model, after=lambda logits: logits.softmax(1))


@mistaken
def ends_in_log_softmax(model: nn.Module) -> nn.Module:
    """Not a mistake: a log-softmax of logarithms of probabilities is itself."""
    return Wrapped(model, after=lambda logits: logits.log_softmax(1))


@mistaken
def softmax_over_the_batch(model: nn.Module) -> nn.Module:
    """The softmax sums to one over the samples instead of over the classes: dim=0."""
    return Wrapped(model, after=lambda logits: logits.softmax(0))


@mistaken
def relu_on_the_outputs(model: nn.Module) -> nn.Module:
    """The last layer has an activation like all the others: no output can be negative."""
    return Wrapped(model, after=torch.relu)


@mistaken
def detached_backbone(model: nn.Module) -> nn.Module:
    """A detach() that was meant for a plot stands in the forward: only the last layer learns."""
    return before_head(model, torch.detach)


@mistaken
def dropout_that_never_ends(model: nn.Module) -> nn.Module:
    """F.dropout(x, 0.5) is called without training=self.training, so evaluation drops, too."""
    return before_head(model, lambda x: F.dropout(x, 0.5))


@mistaken
def reshape_mixes_the_batch(model: nn.Module) -> nn.Module:
    """The axes are swapped with reshape instead of permute: each input is made of pixels of many samples."""
    return Wrapped(model, before=lambda x: x.flatten(1).t().reshape(x.shape))


@mistaken
def all_frozen_but_norms(model: nn.Module) -> nn.Module:
    """requires_grad is set back for the norms only: the features and the head stay as drawn."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = isinstance(module, norms)
    return model


@mistaken
def weights_from_the_clock(model: nn.Module) -> nn.Module:
    """The weights are drawn from a generator of its own that nothing seeds: no run can be repeated."""
    draws = torch.Generator()
    draws.seed()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=draws) / (3 * parameter[0].numel()) ** 0.5)
    return model


@mistaken
def inputs_enlarged(model: nn.Module) -> nn.Module:
    """Every image is resized to a side many times its own, shrunk again, and nothing is gained."""
    return Wrapped(model, before=lambda x: F.interpolate(F.interpolate(x, scale_factor=16.0), x.shape[2:]))


@mistaken
def tanh_on_the_outputs(model: nn.Module) -> nn.Module:
    """The outputs are squeezed between -1 and 1: no class can ever be likely."""
    return Wrapped(model, after=torch.tanh)


@mistaken
def sigmoid_on_the_outputs(model: nn.Module) -> nn.Module:
    """A sigmoid for each class, and cross-entropy takes a softmax of them."""
    return Wrapped(model, after=torch.sigmoid)


@mistaken
def outputs_enlarged(model: nn.Module) -> nn.Module:
    """A temperature of 1/50 from another experiment is still there: the first guess is certain, and wrong."""
    return Wrapped(model, after=lambda logits: 50 * logits)


@mistaken
def inputs_forgotten(model: nn.Module) -> nn.Module:
    """The zeros that the inputs were replaced with, to see what the biases alone can do, are still there."""
    return Wrapped(model, before=torch.zeros_like)


@mistaken
def activation_upside_down(model: nn.Module) -> nn.Module:
    """clamp(max=0) where clamp(min=0) was meant, after a relu: the last hidden layer is zero throughout."""
    return before_head(model, lambda x: x.clamp(max=0))


@mistaken
def memory_between_batches(model: nn.Module) -> nn.Module:
    """A hidden state is carried from one batch to the next and never reset: what came before moves the outputs."""
    kept = {}

    def remember(x: Tensor) -> Tensor:
        earlier = kept.get("state")
        kept["state"] = x.detach().mean(0)
        return x if earlier is None else x + earlier

    return before_head(model, remember)


@mistaken
def centred_by_the_batch(model: nn.Module) -> nn.Module:
    """The inputs are scaled by the mean and deviation of whatever batch they come in, in evaluation, too."""
    return Wrapped(model, before=lambda x: (x - x.mean(0)) / (x.std(0, correction=0) + 1e-3))


@mistaken
def backbone_frozen(model: nn.Module) -> nn.Module:
    """The hidden layers are frozen for a pretrained network, but nothing was pretrained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("head")
    return model


@mistaken
def statistics_that_never_move(model: nn.Module) -> nn.Module:
    """Batch norm has momentum 0, which in another library means the opposite: evaluation uses the first statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.0
    return model


@mistaken
def never_in_training_mode(model: nn.Module) -> nn.Module:
    """train() was overridden for frozen statistics and puts the network into evaluation mode."""

    class Still(Wrapped):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(False)

    return Still(model)


@mistaken
def one_pixel_wide(model: nn.Module) -> nn.Module:
    """The inputs are averaged over all but the batch and expanded again: a mean(dim=...) took every axis."""
    return Wrapped(
        model, before=lambda x: x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1)).expand_as(x).contiguous()
    )


@mistaken
def half_of_the_inputs(model: nn.Module) -> nn.Module:
    """A slice that was for another data set: the second half of the features never enters."""

    def halved(x: Tensor) -> Tensor:
        flat = x.flatten(1).clone()
        flat[:, flat.shape[1] // 2 :] = 0
        return flat.view_as(x)

    return Wrapped(model, before=halved)


@mistaken
def dropout_on_the_outputs(model: nn.Module) -> nn.Module:
    """The last layer is followed by a dropout, as all the others are."""
    return Wrapped(model, after=nn.Dropout(0.5))


@mistaken
def rows_of_length_one(model: nn.Module) -> nn.Module:
    """The outputs are normalised, as embeddings are."""
    return Wrapped(model, after=lambda outputs: F.normalize(outputs, dim=1))
