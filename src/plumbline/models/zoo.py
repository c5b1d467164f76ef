"""The classification networks of torchvision, fitted to the data at both ends."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

from torch import Tensor, empty, nn
from torch.func import functional_call

from plumbline.config import ConfigError, nearest
from plumbline.data.core import Spec
from plumbline.models.blocks import Resize, need_image
from plumbline.ranges import Range

IMAGENET = 1000  # outputs of every network as torchvision builds it
AUXILIARY = ("aux1", "aux2", "AuxLogits")  # the second and third heads of GoogLeNet and Inception


class Torchvision(nn.Module):
    """A network of `torchvision.models` by name, with a new head and, unless images have 3 channels, a new first layer.

    weights: null, DEFAULT, or a name in the network's own list; loaded modules carry `pretrained = True`.
    resize: images become (resize, resize) at the door; null leaves them as they are.
    The network keeps the dropout it was published with.
    """

    def __init__(
        self, spec: Spec, *, name: str, weights: str | None, resize: Annotated[int, Range("[1, 10000]")] | None
    ):
        super().__init__()
        need_image("torchvision", spec)
        channels, *size = spec.shape
        if resize is not None:
            size = [resize, resize]
        self.door = nn.Identity() if resize is None else Resize(resize)
        self.network = load(name, weights, size)
        fit_first(self.network, channels)
        fit_head(self.network, spec.outputs)
        check_size(self.network, name, (channels, *size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.door(x)  # (B, C, resize, resize)
        return self.network(x)  # (B, outputs)


def load(name: str, weights: str | None, size: list[int]) -> nn.Module:
    """The network as published, for images of that size, without auxiliary heads; or ConfigError."""
    from torchvision import models  # here, because it takes a second to import

    names = models.list_models(module=models)
    if name not in names:
        raise ConfigError(
            f"model.name={name}: no such network in torchvision.models{nearest(name.lower(), names)}; "
            f"accepted: {', '.join(names)}"
        )
    known = models.get_model_weights(name)
    if weights is not None and weights not in known.__members__:
        accepted = ["null", *known.__members__]
        raise ConfigError(
            f"model.weights={weights}: {name} has no such weights{nearest(weights, accepted)}; "
            f"accepted: {', '.join(accepted)}"
        )
    chosen = None if weights is None else known[weights]
    try:
        network = models.get_model(name, weights=chosen, **constructor_options(name, weights, size))
    except (AssertionError, ValueError) as error:  # a transformer that is made for one size of image
        raise wrong_size(name, size, error) from error
    except OSError as error:
        raise ConfigError(
            f"model.weights={weights}: {chosen.url} could not be fetched ({error}); run once where there is a network, "
            "or put that file into the folder checkpoints/ of torch.hub.get_dir(), or say model.weights=null"
        ) from error
    for head in AUXILIARY:
        if getattr(network, head, None) is not None:
            network.aux_logits = False
            setattr(network, head, None)
    for module in network.modules() if weights else ():
        module.pretrained = True
    return network


def constructor_options(name: str, weights: str | None, size: list[int]) -> dict[str, object]:
    """What the constructor of this family must be told."""
    if name.startswith("vit"):
        return {"image_size": size[0]}
    if name.startswith("maxvit"):
        return {"input_size": tuple(size)}
    if name in ("googlenet", "inception_v3") and weights is None:
        return {"init_weights": True}  # their own, and without a warning that this may change
    return {}


def fit_first(network: nn.Module, channels: int) -> None:
    """Let the first convolution read `channels` channels.

    What it has learnt is kept: a kernel summed over colours sees in a grey image what it saw in a grey colour image.
    """
    path, old = next((path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if channels == old.in_channels:
        return
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    if getattr(old, "pretrained", False):
        new.weight.data.copy_(old.weight.data.sum(dim=1, keepdim=True) / channels)
        if old.bias is not None:
            new.bias.data.copy_(old.bias.data)
        new.pretrained = True  # summed, not drawn: an initialisation leaves it alone, too
    network.set_submodule(path, new)
    if hasattr(network, "transform_input"):
        network.transform_input = False  # it shifts three colours


def fit_head(network: nn.Module, outputs: int) -> None:
    """Replace the last layer with 1000 outputs, a linear one or a 1x1 convolution."""
    path, old = [(path, module) for path, module in network.named_modules() if is_head(module)][-1]
    if isinstance(old, nn.Linear):
        network.set_submodule(path, nn.Linear(old.in_features, outputs))
        return
    network.set_submodule(path, nn.Conv2d(old.in_channels, outputs, 1))
    parent = network.get_submodule(path.rpartition(".")[0])
    for name, module in parent.named_children():
        if isinstance(module, nn.ReLU):  # SqueezeNet's logits: they could not be negative
            setattr(parent, name, nn.Identity())


def is_head(module: nn.Module) -> bool:
    """Whether a layer yields as many outputs as ImageNet has classes."""
    if isinstance(module, nn.Linear):
        return module.out_features == IMAGENET
    return isinstance(module, nn.Conv2d) and module.out_channels == IMAGENET


def check_size(network: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Raise ConfigError unless images of this shape pass: tried on tensors that hold nothing, so it costs nothing."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    hollow = {path: tensor.to("meta") for path, tensor in tensors}
    try:
        functional_call(network.eval(), hollow, empty(2, *shape, device="meta"))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise wrong_size(name, shape[1:], error) from error
    network.train()


def wrong_size(name: str, size: list[int] | tuple[int, ...], error: Exception) -> ConfigError:
    """The error for images that a network cannot take, with a size that it can."""
    from torchvision.models import get_model_weights

    side = max(get_model_weights(name).DEFAULT.meta["min_size"])
    return ConfigError(
        f"model.name={name}: cannot take images of {size[0]}x{size[1]} ({str(error).splitlines()[0]}); "
        f"say model.resize={side}, which it can take"
    )
