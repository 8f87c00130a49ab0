"""Data sets: train, validation and test tensors in one object; and toys whose distribution is known."""

from .experiments.data.datasets import Data
from .experiments.data.digits import Digits
from .experiments.data.faces import FreyFaces
from .experiments.data.mnist import Idx, OpenML
from .experiments.data.toys import Modes, Ring, grid, normal, ring, stacked

__all__ = [
    "Data",
    "Digits",
    "FreyFaces",
    "Idx",
    "Modes",
    "OpenML",
    "Ring",
    "grid",
    "normal",
    "ring",
    "stacked",
]
