"""What every declaration is: a model and its guide, built for data whose sizes it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import nn

from ..data.datasets import Data


class Programs(Protocol):
    """A model and its guide in one module, such as `VAE`; both are modules."""

    @property
    def model(self) -> nn.Module:
        """The program that data are scored by."""

    @property
    def guide(self) -> nn.Module:
        """The program that draws its latents."""


class Recipe(ABC):
    """A declaration of a model and its guide; abstract. Its constructor's arguments are what a file or a flag sets."""

    @abstractmethod
    def build(self, data: Data) -> nn.Module:
        """A module with `model` and `guide`, see `Programs`, in the sizes of the data; weights by the global seed."""


class ModelAndGuide(nn.Module):
    """A model and its guide as one module.

    Args:
        model: the program that data are scored by.
        guide: the program that draws its latents.
    """

    def __init__(self, model: nn.Module, guide: nn.Module):
        super().__init__()
        self.model = model
        self.guide = guide
