"""What networks are made of, whatever their sizes: dense layers or convolutions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from ...programs.networks.dense import Concat, gated_mlp, mlp
from ...programs.networks.images import ConvDecoder, ConvEncoder
from ..data.datasets import Data
from .units import num_context, num_seen


class Network(ABC):
    """What the networks of a model are made of; abstract. The data give their sizes."""

    @abstractmethod
    def encode(self, data: Data, num_out: int) -> nn.Module:
        """From data `(*batch, D)` in units of the network, and their context, to `(*batch, num_out)`."""

    @abstractmethod
    def decode(
        self, data: Data, num_in: int, num_planes: int, num_components: int = 1
    ) -> nn.Module:
        """From `(*batch, num_in)` and the context to numbers for each pixel, as rows.

        Args:
            data: what is decoded.
            num_in: size of the input.
            num_planes: how many planes of one channel's size there are: P C for P parameters of C channels.
            num_components: how many numbers each place of a plane has, side by side.
        """


@dataclass(frozen=True)
class Dense(Network):
    """Dense layers: `mlp`, or `gated_mlp`.

    Args:
        hidden: sizes of the hidden layers from the data on; decoders have them the other way round.
        gated: whether each hidden layer has a gate.
    """

    hidden: Sequence[int] = (300,)
    gated: bool = False

    def encode(self, data: Data, num_out: int) -> nn.Module:  # noqa: D102
        num = num_seen(data)
        net = self._layers(data.dim + num, *self.hidden, num_out)
        return Concat(net) if num else net

    def decode(  # noqa: D102
        self, data: Data, num_in: int, num_planes: int, num_components: int = 1
    ) -> nn.Module:
        num_out = num_planes * num_components * num_pixels(data)
        num = num_context(data)
        net = self._layers(num_in + num, *reversed(self.hidden), num_out)
        return Concat(net) if num else net

    def _layers(self, *sizes: int) -> nn.Module:
        return gated_mlp(*sizes) if self.gated else mlp(*sizes)


@dataclass(frozen=True)
class Convolutional(Network):
    """Strided convolutions, of images alone: `ConvEncoder` and `ConvDecoder`.

    Args:
        channels: of the convolutions from the image on, each at half the height and width of the one before.
        features: size of the vector that the encoder's convolutions end in.
    """

    channels: Sequence[int] = (32, 64)
    features: int = 256

    def encode(self, data: Data, num_out: int) -> nn.Module:  # noqa: D102
        shape = image_shape(data)
        convolutions = ConvEncoder(shape, self.features, self.channels)
        num = num_seen(data)
        last = nn.Linear(self.features + num, num_out)
        return ImageRows(shape, convolutions, Concat(last) if num else last)

    def decode(  # noqa: D102
        self, data: Data, num_in: int, num_planes: int, num_components: int = 1
    ) -> nn.Module:
        _, height, width = image_shape(data)
        shape = (num_planes * num_components, height, width)
        num = num_context(data)
        decoder = ConvDecoder(num_in + num, shape, self.channels)
        rows = nn.Sequential(decoder, PlanesToRows(num_planes, num_components))
        return Concat(rows) if num else rows


class ImageRows(nn.Module):
    """Rows as images through convolutions; what these make, and the context, through a last layer.

    Args:
        shape: `(channels, height, width)` of an image.
        convolutions: from images to vectors.
        last: from vectors and the context to the output.
    """

    def __init__(self, shape: tuple[int, ...], convolutions: nn.Module, last: nn.Module):
        super().__init__()
        self.shape = shape
        self.convolutions = convolutions
        self.last = last

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Rows `(*batch, D)` and context to `(*batch, out)`."""
        features = self.convolutions(x.unflatten(-1, self.shape))
        return self.last(nn.functional.silu(features), *context)

    def extra_repr(self) -> str:
        """The shape of an image."""
        return f"{self.shape}"


class PlanesToRows(nn.Module):
    """Planes `(*batch, P K, H, W)` as rows `(*batch, P H W K)`: K numbers side by side at each place.

    Args:
        num_planes: P.
        num_components: K.
    """

    def __init__(self, num_planes: int, num_components: int = 1):
        super().__init__()
        self.num_planes = num_planes
        self.num_components = num_components

    def forward(self, planes: Tensor) -> Tensor:
        """The rows."""
        places = planes.unflatten(-3, (self.num_planes, self.num_components)).movedim(-3, -1)
        return places.flatten(-4)

    def extra_repr(self) -> str:
        """P and K."""
        return f"{self.num_planes}, {self.num_components}"


def num_channels(data: Data) -> int:
    """Channels of an image; 1 of grey ones and of rows of a table."""
    return data.event_shape[0] if len(data.event_shape) == 3 else 1


def num_pixels(data: Data) -> int:
    """Places of one channel."""
    return prod(data.event_shape) // num_channels(data)


def image_shape(data: Data) -> tuple[int, int, int]:
    """`(channels, height, width)` of images.

    Raises:
        ValueError: for data that are none.
    """
    if len(data.event_shape) not in (2, 3):
        raise ValueError(
            f"network: expected images for convolutions, got data of shape {data.event_shape}. "
            "Fix: --model.network=Dense, or a flow for vectors such as RealNVP."
        )
    height, width = data.event_shape[-2:]
    return num_channels(data), height, width
