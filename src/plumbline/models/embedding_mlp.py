"""A multilayer perceptron for tables with categories."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.models.blocks import Activation, Norm, dense
from plumbline.ranges import Size

WIDEST = 50  # numbers for a category by the rule, however many categories there are
START = 0.1  # standard deviation of fresh embeddings: torch's 1 is noise that takes epochs to unlearn (.70 for .80 on shops)


class EmbeddingMLP(nn.Module):
    """Each categorical column becomes `embedding` learnt numbers (Guo and Berkhahn 2016), beside the numbers as they are.

    The data say which inputs are one column's categories, one-hot; the largest of them is the one that is looked up. So
    a category costs `embedding` weights instead of one for each unit of the first layer. embedding null: half the number
    of a column's categories, at most 50. Raises ConfigError where no column is categorical.
    """

    numbers: Tensor

    def __init__(self, spec: Spec, *, hidden: list[Size], embedding: Size | None, norm: Norm, activation: Activation):
        super().__init__()
        if not spec.categories:
            raise ConfigError(
                "model=embedding_mlp: needs a table with categorical columns, and these data have none; "
                "name them under data.categorical, or choose model=mlp"
            )
        self.places = [slice(first, first + count) for first, count in spec.categories]
        taken = {at for place in self.places for at in range(place.start, place.stop)}
        numbers = [at for at in range(spec.shape[0]) if at not in taken]
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int64), persistent=False)
        sizes = [embedding or min(WIDEST, -(-count // 2)) for _, count in spec.categories]
        counts = [count for _, count in spec.categories]
        self.embeddings = nn.ModuleList(nn.Embedding(*pair) for pair in zip(counts, sizes, strict=True))
        for embed in self.embeddings:
            nn.init.normal_(embed.weight, std=START)
        widths = [len(numbers) + sum(sizes), *hidden]
        layers = [dense(*pair, norm_name=norm, activation_name=activation) for pair in pairwise(widths)]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        codes = (x[:, place].argmax(1) for place in self.places)  # scaled or not, the one is above the zeros
        looked_up = [embed(code) for embed, code in zip(self.embeddings, codes, strict=True)]
        x = torch.cat([x.index_select(1, self.numbers), *looked_up], 1)  # (B, widths[0])
        return self.head(self.hidden(x))  # (B, outputs)
