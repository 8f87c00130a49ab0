"""Every bijector, the stacks that are made of them, and what holds a new one to the laws."""

from .programs.flow_laws import assert_bijector
from .programs.flows.autoregressive import MADE, Autoregressive, iaf, maf, spline_iaf, spline_maf
from .programs.flows.bijector import Bijector, Inverse, Stack
from .programs.flows.couplings import Coupling, coupling, realnvp, spline_coupling
from .programs.flows.elementwise import Additive, Affine, Elementwise, LogisticMixture
from .programs.flows.flow import Directions, Flow
from .programs.flows.images import (
    ImageCoupling,
    channel_mask,
    checkerboard_mask,
    image_realnvp,
    multiscale_realnvp,
)
from .programs.flows.levels import Levels
from .programs.flows.linear import ActNorm, LULinear, Orthogonal
from .programs.flows.oneway import Planar, Sylvester, planar, sylvester
from .programs.flows.pointwise import Pointwise
from .programs.flows.shapes import FactorOut, Permutation, PerPixel, Squeeze, Unflatten
from .programs.flows.spline import Spline
from .programs.flows.transform import DirectionWarning, FlowTransform, ScoredDraw
from .programs.flows.whitening import FixedAffine
from .programs.flows.zuko import Zuko, import_zuko

__all__ = [
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
    "FixedAffine",
    "FlowTransform",
    "ImageCoupling",
    "Inverse",
    "LULinear",
    "Levels",
    "LogisticMixture",
    "MADE",
    "Orthogonal",
    "PerPixel",
    "Permutation",
    "Planar",
    "Pointwise",
    "ScoredDraw",
    "Spline",
    "Squeeze",
    "Stack",
    "Sylvester",
    "Unflatten",
    "Zuko",
    "assert_bijector",
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
