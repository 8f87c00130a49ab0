"""Flows: bijectors, their stacks, and the conditional that turns them into distributions."""

from .autoregressive import MADE, Autoregressive, iaf, maf, spline_iaf, spline_maf
from .bijector import Bijector, DirectionWarning, FlowTransform, Inverse, Permutation, Stack
from .couplings import Coupling, coupling, realnvp, spline_coupling
from .elementwise import Additive, Affine, Elementwise, LogisticMixture, Spline
from .flow import Directions, Flow
from .images import (
    ImageCoupling,
    channel_mask,
    checkerboard_mask,
    image_realnvp,
    multiscale_realnvp,
)
from .levels import Levels
from .linear import ActNorm, LULinear, Orthogonal
from .oneway import Planar, Sylvester, planar, sylvester
from .pointwise import Pointwise
from .shapes import FactorOut, PerPixel, Squeeze, Unflatten
from .zuko import Zuko, import_zuko

__all__ = [
    "MADE",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Bijector",
    "Coupling",
    "DirectionWarning",
    "Directions",
    "Elementwise",
    "FactorOut",
    "Flow",
    "FlowTransform",
    "ImageCoupling",
    "Inverse",
    "LULinear",
    "Levels",
    "LogisticMixture",
    "Orthogonal",
    "PerPixel",
    "Permutation",
    "Planar",
    "Pointwise",
    "Spline",
    "Squeeze",
    "Stack",
    "Sylvester",
    "Unflatten",
    "Zuko",
    "channel_mask",
    "checkerboard_mask",
    "coupling",
    "iaf",
    "image_realnvp",
    "import_zuko",
    "maf",
    "multiscale_realnvp",
    "planar",
    "realnvp",
    "spline_coupling",
    "spline_iaf",
    "spline_maf",
    "sylvester",
]
