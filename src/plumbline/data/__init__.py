"""Data sets. What one of your own needs is here: see `in_memory`."""

from plumbline.data.core import Data, Scale, Spec, Split, Splits
from plumbline.data.memory import Arrays, in_memory
from plumbline.data.splits import DataOptions, OwnTestOptions

__all__ = ["Arrays", "Data", "DataOptions", "OwnTestOptions", "Scale", "Spec", "Split", "Splits", "in_memory"]
