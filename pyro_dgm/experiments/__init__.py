"""Whole runs: data, the command line, figures. The only place that sees both wings."""

from ..refitting.generative import refit_prior, refit_scale
from ..refitting.recognition import ScaleCurve, nll_over_scale, refit_guide

__all__ = [
    "ScaleCurve",
    "nll_over_scale",
    "refit_guide",
    "refit_prior",
    "refit_scale",
]
