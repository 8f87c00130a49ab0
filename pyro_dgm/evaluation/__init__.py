"""What is known of a fitted pair: likelihood, guide quality, draws."""

from ..arviz_export.comparison import compare_elpd, elpd_data
from ..arviz_export.datatree import per_datum_dataset, sbc_dataset, training_dataset
from ..arviz_export.smoothing import smooth_weights
from ..inference.run.generation import encode, generate, reconstruct
from .chains.hamiltonian import HMC, hmc
from .chains.mixing import ess, mean_ess, rhat
from .conditioning.imputation import (
    ConditionalNLL,
    Imputation,
    conditional_nll,
    impute,
    marginal_nll,
)
from .conditioning.marginal import Marginal, Unmasked
from .estimate import Estimate
from .latents.elbo_surgery import Surgery, surgery
from .latents.traversal import decode, interpolate, lerp, slerp, traverse
from .latents.units import Collapse, active_units, aggregate_test, collapse, unit_kl
from .likelihood.annealing import AIS, ais, sigmoid_schedule
from .likelihood.bidirectional import BDMC, bdmc
from .likelihood.importance import NLL, GivenNLL, bits_per_dim, nll
from .likelihood.kernels import parzen, parzen_bandwidth
from .likelihood.psis import khat, khat_threshold
from .likelihood.total_mass import Normalization, normalization
from .posterior.calibration import SBC, sbc
from .posterior.inference_gaps import Gaps, gaps
from .posterior.truth import GuideError, guide_error
from .report.checks import CHECKS
from .report.findings import Check, Findings, Skipped
from .report.items import Item, Picture, Status, Threshold
from .report.report import Report, check
from .samples.classifier import C2ST, c2st
from .samples.comparison import Comparison, compare_samples
from .samples.modes import ModeCoverage, label_coverage, mode_coverage
from .samples.moments import Frechet, frechet
from .samples.neighbours import PRDC, NearestNeighbour, nearest_neighbour, prdc
from .samples.twosample import TwoSample, mmd

__all__ = [
    "AIS",
    "BDMC",
    "C2ST",
    "CHECKS",
    "HMC",
    "NLL",
    "PRDC",
    "SBC",
    "Check",
    "Collapse",
    "Comparison",
    "ConditionalNLL",
    "Estimate",
    "Findings",
    "Frechet",
    "Gaps",
    "GivenNLL",
    "GuideError",
    "Imputation",
    "Item",
    "Marginal",
    "ModeCoverage",
    "NearestNeighbour",
    "Normalization",
    "Picture",
    "Report",
    "Skipped",
    "Status",
    "Surgery",
    "Threshold",
    "TwoSample",
    "Unmasked",
    "active_units",
    "aggregate_test",
    "ais",
    "bdmc",
    "bits_per_dim",
    "c2st",
    "check",
    "collapse",
    "compare_elpd",
    "compare_samples",
    "conditional_nll",
    "decode",
    "elpd_data",
    "encode",
    "ess",
    "frechet",
    "gaps",
    "generate",
    "guide_error",
    "hmc",
    "impute",
    "interpolate",
    "khat",
    "khat_threshold",
    "label_coverage",
    "lerp",
    "marginal_nll",
    "mean_ess",
    "mmd",
    "mode_coverage",
    "nearest_neighbour",
    "nll",
    "normalization",
    "parzen",
    "parzen_bandwidth",
    "per_datum_dataset",
    "prdc",
    "reconstruct",
    "rhat",
    "sbc",
    "sbc_dataset",
    "sigmoid_schedule",
    "smooth_weights",
    "slerp",
    "surgery",
    "training_dataset",
    "traverse",
    "unit_kl",
]
