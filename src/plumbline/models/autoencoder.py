"""Networks with a narrow middle: what passes through it is a code of the input, whatever is then made of it."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from plumbline.data.core import Spec
from plumbline.models.blocks import Activation, dense
from plumbline.ranges import Size


class Autoencoder(nn.Module):
    """Encoder, `code` numbers, decoder (Hinton and Salakhutdinov 2006). It returns what the data ask for.

    With data whose target is the input (data=digits_reconstruction), that is a reconstruction; the encoder is of use
    elsewhere afterwards.
    """

    def __init__(self, spec: Spec, *, hidden: list[Size], code: Size, activation: Activation):
        super().__init__()
        self.encoder, self.decoder = halves(spec, hidden, code, code, activation)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x.flatten(1))  # (B, code)
        return self.decoder(code)  # (B, outputs)


class VAE(nn.Module):
    """The code is a normal distribution, drawn from in training, its mean in evaluation (Kingma and Welling 2014).

    `divergence` is KL(code || N(0, 1)) of the last batch in training, in nats a sample: regulariser=[kl] adds it to the
    loss. With classes as outputs it is the variational bottleneck of Alemi et al. 2017.
    """

    def __init__(self, spec: Spec, *, hidden: list[Size], code: Size, activation: Activation):
        super().__init__()
        self.encoder, self.decoder = halves(spec, hidden, 2 * code, code, activation)
        self.divergence: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x.flatten(1)).chunk(2, dim=1)  # (B, code) each
        if not self.training:
            return self.decoder(mean)
        self.divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decoder(code)  # (B, outputs)

    def __getstate__(self) -> dict:
        """What a batch left behind belongs to its graph, and is not copied."""
        return {**self.__dict__, "divergence": None}


def halves(
    spec: Spec, hidden: list[int], told: int, code: int, activation: Activation
) -> tuple[nn.Sequential, nn.Sequential]:
    """(encoder to `told` numbers, decoder from `code` numbers): the one is the other's mirror."""
    down, up = [prod(spec.shape), *hidden], [code, *reversed(hidden)]

    def stack(widths: list[int], last: int) -> nn.Sequential:
        layers = [dense(*pair, norm_name="none", activation_name=activation) for pair in pairwise(widths)]
        return nn.Sequential(*layers, nn.Linear(widths[-1], last))

    return stack(down, told), stack(up, spec.outputs)
