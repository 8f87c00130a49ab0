"""Networks: they act on the rightmost dims and broadcast over all others."""

from .adversarial.critics import spectral_norm
from .programs.networks.causal import GatedPixelCNN
from .programs.networks.convolutions import GatedConvNet
from .programs.networks.dense import (
    MLP,
    Concat,
    GatedMLP,
    gated_mlp,
    mlp,
)
from .programs.networks.images import ConvDecoder, ConvEncoder
from .programs.networks.units import LevelUnits, Rescale

__all__ = [
    "Concat",
    "ConvDecoder",
    "ConvEncoder",
    "GatedConvNet",
    "GatedMLP",
    "GatedPixelCNN",
    "LevelUnits",
    "MLP",
    "Rescale",
    "gated_mlp",
    "mlp",
    "spectral_norm",
]
