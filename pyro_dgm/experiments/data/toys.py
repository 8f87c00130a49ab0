"""Toys whose distribution is known, and stacked images."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import pyro.distributions as dist
import torch
from torch import Tensor

from ...inference.process.states import fork_rng
from .datasets import Data


@dataclass(frozen=True)
class Modes:
    r"""$p(x) = \frac1M \sum_m \mathcal N(x; \mu_m, \sigma^2 I)$: a toy of known density and modes.

    Attributes:
        centres: the $\mu_m$ `(M, D)`, all distinct.
        sd: σ.
    """

    centres: Tensor
    sd: float

    def __post_init__(self) -> None:
        num_distinct = len(self.centres.unique(dim=0))
        is_matrix = self.centres.dim() == 2
        if not is_matrix or num_distinct != len(self.centres) or not self.sd > 0:
            raise ValueError(
                f"Modes: expected distinct centres (M, D) and sd > 0, got centres "
                f"{tuple(self.centres.shape)}, {num_distinct} of them distinct, and sd={self.sd}. "
                "Fix: Modes(centres.unique(dim=0), sd=0.1)."
            )

    @property
    def distribution(self) -> dist.MixtureSameFamily:
        """The mixture itself: exact `log_prob` in nats, and draws under the global seed."""
        equal_weights = torch.zeros(len(self.centres), device=self.centres.device)
        return dist.MixtureSameFamily(
            dist.Categorical(logits=equal_weights),
            dist.Normal(self.centres, self.sd).to_event(1),
        )

    def sample(self, num: int, seed: int = 0) -> Tensor:
        """Independent draws `(num, D)`; the random state outside stays as it is."""
        with fork_rng(self.centres, seed=seed):
            return self.distribution.sample((num,))


def normal(loc: float = 0.0, scale: float = 1.0) -> Modes:
    """One normal in one dimension, for the closed forms of divergences."""
    return Modes(torch.tensor([[loc]]), scale)


def ring(num_modes: int = 8, radius: float = 2.0, sd: float = 0.1) -> Modes:
    r"""Modes at equal angles $2 \pi m / M$ on a circle.

    Example:
        >>> round(ring().distribution.log_prob(torch.tensor([2.0, 0.0])).item(), 4)  # -log 8 - log(2 pi sd^2)
        0.6879
    """
    angles = torch.arange(num_modes) * (2 * pi / num_modes)
    return Modes(radius * torch.stack([angles.cos(), angles.sin()], 1), sd)


class Ring(Data):
    """Points of the `ring` of normals, drawn once.

    Args:
        num_modes: modes on the circle.
        radius: of the circle.
        sd: of each mode.
        num_train: training data.
        num_test: validation data, and as many test data.
        seed: of the draw.
    """

    def __init__(
        self,
        num_modes: int = 8,
        radius: float = 2.0,
        sd: float = 0.1,
        num_train: int = 25_600,
        num_test: int = 2_500,
        seed: int = 0,
    ):
        self.modes = ring(num_modes, radius, sd)
        points = self.modes.sample(num_train + 2 * num_test, seed)
        train, val, test = points.split([num_train, num_test, num_test])
        super().__init__(train, val, test, event_shape=(2,))


def grid(side: int = 5, spacing: float = 2.0, sd: float = 0.05) -> Modes:
    """Modes on a square grid of side × side points around the origin."""
    steps = torch.arange(side, dtype=torch.get_default_dtype()) - (side - 1) / 2
    ticks = spacing * steps
    return Modes(torch.cartesian_prod(ticks, ticks), sd)


def stacked(images: Tensor, labels: Tensor, num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Three random images as the channels of one: 1,000 modes if the classes are ten digits.

    Args:
        images: `(N, *event)`, such as MNIST or the 8×8 digits.
        labels: classes 0, …, 9 `(N,)`.
        num: number of stacked images.
        seed: of the choice; the random state outside stays as it is.

    Shape:
        stacked images `(num, 3, *event)` and their labels $100 a + 10 b + c$ `(num,)`.

    Raises:
        ValueError: if images and labels do not match, or a label is no digit.

    References:
        Metz et al. 2017, *Unrolled generative adversarial networks*, arXiv:1611.02163.
    """
    _check_labels(images, labels)
    with fork_rng(images, seed=seed):
        rows = torch.randint(len(images), (num, 3)).to(images.device)
    place_values = torch.tensor([100, 10, 1], device=labels.device)
    return images[rows], (labels.long()[rows] * place_values).sum(1)


def _check_labels(images: Tensor, labels: Tensor) -> None:
    """Refuse what is not one digit for each image."""
    one_for_each = len(labels) > 0 and labels.shape == images.shape[:1]
    if not one_for_each or labels.min() < 0 or labels.max() > 9:
        values = sorted(set(labels.flatten().tolist()))
        raise ValueError(
            f"stacked: expected images (N, *event) and N labels 0, …, 9, got {tuple(images.shape)} "
            f"and {tuple(labels.shape)} in {values[:12]}. "
            "Fix: stacked(torch.tensor(digits.images), torch.tensor(digits.target), num)."
        )
