"""Kinds of flows, whatever their sizes: the layers between noise and what has the density."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ...programs.flows.autoregressive import iaf, maf, spline_iaf, spline_maf
from ...programs.flows.bijector import Bijector, Inverse, Stack
from ...programs.flows.couplings import realnvp, spline_coupling
from ...programs.flows.images import image_realnvp, multiscale_realnvp
from ...programs.flows.oneway import planar, sylvester
from ...programs.flows.shapes import Unflatten


class FlowKind(ABC):
    """A kind of flow; abstract."""

    @abstractmethod
    def build(
        self, shape: Sequence[int], layers: int, hidden: Sequence[int], context: int = 0
    ) -> Sequence[Bijector]:
        """Bijectors of vectors of as many numbers as the shape has.

        Args:
            shape: `(D,)`, or of one datum.
            layers: number of layers.
            hidden: hidden sizes of each layer's network.
            context: size of the context.
        """


class VectorFlow(FlowKind):
    """A flow of vectors; abstract. A subclass names the function that makes its stack."""

    @property
    @abstractmethod
    def make(self) -> Callable[..., Stack]:
        """Builds the stack from the size, the number of layers, the size of the context and the hidden sizes."""

    def build(  # noqa: D102
        self, shape: Sequence[int], layers: int, hidden: Sequence[int], context: int = 0
    ) -> Sequence[Bijector]:
        return list(self.make(prod(shape), layers, context, hidden))


@dataclass(frozen=True)
class MAF(VectorFlow):
    """Masked autoregressive: scores given points fast, for priors and densities."""

    make = staticmethod(maf)


@dataclass(frozen=True)
class IAF(VectorFlow):
    """Inverse autoregressive: samples fast, for posteriors and noise."""

    make = staticmethod(iaf)


@dataclass(frozen=True)
class RealNVP(VectorFlow):
    """Affine couplings: fast both ways."""

    make = staticmethod(realnvp)


@dataclass(frozen=True)
class SplineMAF(VectorFlow):
    """`MAF` with rational-quadratic splines."""

    make = staticmethod(spline_maf)


@dataclass(frozen=True)
class SplineIAF(VectorFlow):
    """`IAF` with rational-quadratic splines."""

    make = staticmethod(spline_iaf)


@dataclass(frozen=True)
class SplineCoupling(VectorFlow):
    """Couplings with rational-quadratic splines: fast both ways."""

    make = staticmethod(spline_coupling)


@dataclass(frozen=True)
class Planar(VectorFlow):
    """Planar layers: samples only, for posteriors."""

    make = staticmethod(planar)


@dataclass(frozen=True)
class Sylvester(FlowKind):
    """Sylvester layers: samples only, for posteriors.

    Args:
        num_units: hidden units of a layer; default: as many as dims.
    """

    num_units: int | None = None

    def build(  # noqa: D102
        self, shape: Sequence[int], layers: int, hidden: Sequence[int], context: int = 0
    ) -> Sequence[Bijector]:
        return list(sylvester(prod(shape), layers, context, hidden, self.num_units))


@dataclass(frozen=True)
class ImageRealNVP(FlowKind):
    """Affine couplings of images with checkerboard masks; the first of `hidden` is their networks' channels.

    Args:
        blocks: number of each network's gated blocks.
    """

    blocks: int = 3

    def build(  # noqa: D102
        self, shape: Sequence[int], layers: int, hidden: Sequence[int], context: int = 0
    ) -> Sequence[Bijector]:
        image = as_image(shape, context)
        couplings = image_realnvp(image, layers, hidden=hidden[0], blocks=self.blocks)
        return [Unflatten(image), *couplings, Inverse(Unflatten(image))]


@dataclass(frozen=True)
class MultiscaleRealNVP(FlowKind):
    """Affine couplings of images at several scales, one for each of `hidden`, its networks' channels.

    Args:
        blocks: number of each network's gated blocks.
    """

    blocks: int = 3

    def build(  # noqa: D102
        self, shape: Sequence[int], layers: int, hidden: Sequence[int], context: int = 0
    ) -> Sequence[Bijector]:
        image = as_image(shape, context)
        couplings = multiscale_realnvp(image, hidden, layers, self.blocks)
        return [*couplings, Inverse(Unflatten(image))]


def as_image(shape: Sequence[int], context: int) -> tuple[int, ...]:
    """`(channels, height, width)` of a shape of images.

    Raises:
        ValueError: for vectors, or a context, which such a flow does not take.
    """
    if len(shape) not in (2, 3) or context:
        raise ValueError(
            f"flow: expected images without a context for a flow of images, got shape "
            f"{tuple(shape)} and a context of {context} numbers. Fix: RealNVP, MAF or another "
            "flow of vectors."
        )
    return (1, *shape) if len(shape) == 2 else tuple(shape)
