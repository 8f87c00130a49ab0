"""Flows: bijectors, their stacks, and the conditional that turns them into distributions."""

from .autoregressive import MADE, Autoregressive, iaf, maf
from .bijector import Bijector, FlowTransform, Inverse, Permutation, Stack
from .coupling import AffineCoupling, realnvp
from .flow import Flow

__all__ = [
    "MADE",
    "AffineCoupling",
    "Autoregressive",
    "Bijector",
    "Flow",
    "FlowTransform",
    "Inverse",
    "Permutation",
    "Stack",
    "iaf",
    "maf",
    "realnvp",
]
