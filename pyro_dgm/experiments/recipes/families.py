"""Likelihoods of one family of Pyro with a parameter or more for each number, read straight from the network."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from ...programs.likelihoods import categories, continuous, counts
from ...programs.likelihoods.base import FamilyLikelihood
from ..data.datasets import Data
from .networks import Network, num_channels
from .slots import Likelihood
from .units import require_support


class OfFamily(Likelihood):
    """A likelihood of one family; abstract. A subclass names its class."""

    @property
    @abstractmethod
    def family(self) -> type[FamilyLikelihood]:
        """The likelihood that is built."""

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        require_support(type(self).__name__, data, self.family.family.support)
        num_params = len(self.family.params)
        return self.family(network.decode(data, num_in, num_params * num_channels(data)))


@dataclass(frozen=True)
class Bernoulli(OfFamily):
    """Zeros and ones."""

    family = categories.Bernoulli


@dataclass(frozen=True)
class ContinuousBernoulli(OfFamily):
    """Intensities in [0, 1]."""

    family = continuous.ContinuousBernoulli


@dataclass(frozen=True)
class Poisson(OfFamily):
    """Counts whose variance is their mean."""

    family = counts.Poisson


@dataclass(frozen=True)
class NegativeBinomial(OfFamily):
    """Counts whose variance exceeds their mean."""

    family = counts.NegativeBinomial


@dataclass(frozen=True)
class ZeroInflatedPoisson(OfFamily):
    """`Poisson` counts with further zeros."""

    family = counts.ZeroInflatedPoisson


@dataclass(frozen=True)
class ZeroInflatedNegativeBinomial(OfFamily):
    """`NegativeBinomial` counts with further zeros."""

    family = counts.ZeroInflatedNegativeBinomial


@dataclass(frozen=True)
class Binomial(Likelihood):
    """Counts of a known number of trials.

    Args:
        total_count: the number of trials; default: the highest level of the data.
    """

    total_count: int | None = None

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        total = self.total_count
        if total is None and data.levels is not None:
            total = data.levels - 1
        if total is None:
            raise ValueError(
                "model.likelihood: expected a number of trials, got data without levels. "
                "Fix: --model.likelihood.total_count=10."
            )
        return counts.Binomial(network.decode(data, num_in, num_channels(data)), total)
