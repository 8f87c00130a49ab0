"""Flows: bijectors, their stacks, and the conditional that turns them into distributions."""

from .autoregressive import MADE, Autoregressive, iaf, maf, spline_iaf, spline_maf
from .bijector import Bijector, FlowTransform, Inverse, Permutation, Stack
from .coupling import Coupling, coupling, realnvp, spline_coupling
from .elementwise import Additive, Affine, Elementwise, Spline
from .flow import Flow
from .linear import ActNorm, LULinear, Orthogonal

__all__ = [
    "MADE",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Bijector",
    "Coupling",
    "Elementwise",
    "Flow",
    "FlowTransform",
    "Inverse",
    "LULinear",
    "Orthogonal",
    "Permutation",
    "Spline",
    "Stack",
    "coupling",
    "iaf",
    "maf",
    "realnvp",
    "spline_coupling",
    "spline_iaf",
    "spline_maf",
]
