"""The parts of a model whose sizes the data give: what a prior, a likelihood, an encoder and a dequantizer build."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from ..data.datasets import Data
from .networks import Network


class Prior(ABC):
    """What p(z | c) is, whatever its size; abstract."""

    @abstractmethod
    def build(self, latent: int, data: Data, encoder: Callable[[], nn.Module]) -> nn.Module:
        """The conditional for p(z | c).

        Args:
            latent: size of z.
            data: whose context it sees.
            encoder: gives the guide's own q(z | x, c), to be shared; the same one whenever it is called.
        """


class Likelihood(ABC):
    """What p(x | z, c) is, whatever its size; abstract."""

    @abstractmethod
    def build(
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        """The conditional for p(x | z, c).

        Args:
            num_in: size of z.
            data: what x is.
            network: what its network is made of.
            is_density: whether noise is added to x, so that a density is asked for.
        """


class Encoder(ABC):
    """What q(z | x, c) is, whatever its size; abstract."""

    @abstractmethod
    def build(self, latent: int, data: Data, network: Network) -> nn.Module:
        """The conditional for q(z | x, c).

        Args:
            latent: size of z.
            data: what x is.
            network: what its network is made of.
        """


class Dequantizer(ABC):
    """What the noise q(u | x, c) is that makes integers real numbers; abstract."""

    @abstractmethod
    def build(self, data: Data, network: Network) -> nn.Module:
        """The conditional for q(u | x, c).

        Args:
            data: what x is.
            network: what its network is made of.
        """


@dataclass(frozen=True)
class Given(Prior, Likelihood, Encoder, Dequantizer):
    """A module as it is given: any composition of yours, whose sizes are those that you say.

    Args:
        module: a conditional, which maps what it is given to a distribution, such as `pyro_dgm.MixturePrior`.
    """

    module: nn.Module

    def build(self, *sizes: object, **options: object) -> nn.Module:  # noqa: D102
        return deepcopy(self.module)
