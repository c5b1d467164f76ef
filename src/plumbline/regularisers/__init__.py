"""What keeps a network from fitting the noise: penalties, dropout, reparametrised weights, mixed batches."""

from plumbline.regularisers.core import Regulariser
from plumbline.regularisers.dropout import DropBlock, Dropout
from plumbline.regularisers.mixing import CutMix, InputNoise, LabelSmoothing, Mixup
from plumbline.regularisers.norms import SpectralNorm, WeightNorm
from plumbline.regularisers.penalties import KL, L1, L2, ConfidencePenalty, ElasticNet

__all__ = [
    "KL",
    "L1",
    "L2",
    "ConfidencePenalty",
    "CutMix",
    "DropBlock",
    "Dropout",
    "ElasticNet",
    "InputNoise",
    "LabelSmoothing",
    "Mixup",
    "Regulariser",
    "SpectralNorm",
    "WeightNorm",
]
