"""Data sets: train, validation and test tensors in one object; and toys whose distribution is known."""

from .experiments.data.checks import check_splits
from .experiments.data.datasets import Data, Kind
from .experiments.data.digits import Digits
from .experiments.data.faces import FreyFaces
from .experiments.data.file import File
from .experiments.data.fingerprints import fingerprint
from .experiments.data.mnist import Idx, OpenML
from .experiments.data.toys import Modes, Ring, grid, normal, ring, stacked

__all__ = [
    "Data",
    "Digits",
    "File",
    "FreyFaces",
    "Idx",
    "Kind",
    "Modes",
    "OpenML",
    "Ring",
    "check_splits",
    "fingerprint",
    "grid",
    "normal",
    "ring",
    "stacked",
]
