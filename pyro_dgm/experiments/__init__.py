"""Whole runs: data, the command line, figures. The only place that sees both wings."""

from .inverting import ScaleCurve, nll_over_scale, refit_guide
from .refitting import refit_prior, refit_scale

__all__ = [
    "ScaleCurve",
    "nll_over_scale",
    "refit_guide",
    "refit_prior",
    "refit_scale",
]
