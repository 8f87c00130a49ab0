"""Networks: they act on the rightmost dims and broadcast over all others."""

from .adversarial.critics import spectral_norm
from .programs.networks.causal import GatedPixelCNN
from .programs.networks.convolutions import GatedConvNet
from .programs.networks.dense import (
    MLP,
    Concat,
    ConvDecoder,
    ConvEncoder,
    GatedMLP,
    LevelUnits,
    Rescale,
    gated_mlp,
    mlp,
)

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
