"""What is known of a fitted pair: likelihood, guide quality, draws."""

from .annealing import AIS, ais, sigmoid_schedule
from .bidirectional import BDMC, bdmc
from .calibration import SBC, sbc
from .checks import CHECKS
from .classifier import C2ST, c2st
from .comparison import Comparison, compare_models
from .datatree import per_datum_dataset, sbc_dataset, training_dataset
from .estimate import Estimate
from .findings import Check, Findings, Skipped
from .gaps import Gaps, gaps
from .generation import encode, generate, reconstruct
from .hamiltonian import HMC, hmc
from .held_out import compare, elpd_data
from .imputation import ConditionalNLL, Imputation, conditional_nll, impute, marginal_nll
from .items import Item, Picture, Status, Threshold
from .latents import Collapse, active_units, aggregate_test, collapse, unit_kl
from .likelihood import NLL, GivenNLL, bits_per_dim, nll
from .marginal import Marginal, Unmasked
from .mixing import ess, mean_ess, rhat
from .modes import ModeCoverage, label_coverage, mode_coverage
from .moments import Frechet, frechet
from .neighbours import PRDC, NearestNeighbour, nearest_neighbour, prdc
from .normalization import Normalization, normalization
from .parzen import parzen, parzen_bandwidth
from .psis import khat, khat_threshold
from .report import Report, check
from .smoothing import smoothed
from .surgery import Surgery, surgery
from .traversal import decode, interpolate, linear, spherical, traverse
from .truth import GuideError, guide_error
from .twosample import TwoSample, mmd

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
    "compare",
    "compare_models",
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
    "linear",
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
    "smoothed",
    "spherical",
    "surgery",
    "training_dataset",
    "traverse",
    "unit_kl",
]
