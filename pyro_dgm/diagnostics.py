"""What looks behind a number: tails, chains, checks and their thresholds."""

from .arviz_export.comparison import elpd_data
from .arviz_export.datatree import per_datum_dataset, sbc_dataset
from .evaluation.chains.mixing import ess, mean_ess, rhat
from .evaluation.conditioning.marginal import Marginal, Unmasked
from .evaluation.latents.traversal import lerp, slerp
from .evaluation.likelihood.annealing import sigmoid_schedule
from .evaluation.likelihood.kernels import parzen, parzen_bandwidth
from .evaluation.likelihood.psis import khat, khat_threshold
from .evaluation.likelihood.smoothing import smooth_weights
from .evaluation.likelihood.total_mass import normalization
from .evaluation.posterior.refits import vsbc
from .evaluation.report.checking import Check
from .evaluation.report.checks import CHECKS, JOINT_CHECKS
from .evaluation.report.findings import Findings, Skipped
from .evaluation.report.items import Item, Picture, Status, Threshold, judge
from .evaluation.samples.modes import label_coverage
from .inference.run.edges import CollapsedWarning, EdgeWarning
from .inference.sites.supports import IntegerWarning
from .refitting.recognition import nll_over_scale

__all__ = [
    "elpd_data",
    "per_datum_dataset",
    "sbc_dataset",
    "CHECKS",
    "Check",
    "CollapsedWarning",
    "EdgeWarning",
    "Findings",
    "IntegerWarning",
    "JOINT_CHECKS",
    "Item",
    "Marginal",
    "Picture",
    "Skipped",
    "Status",
    "Threshold",
    "Unmasked",
    "ess",
    "judge",
    "khat",
    "khat_threshold",
    "label_coverage",
    "lerp",
    "mean_ess",
    "nll_over_scale",
    "normalization",
    "parzen",
    "parzen_bandwidth",
    "rhat",
    "sigmoid_schedule",
    "slerp",
    "smooth_weights",
    "vsbc",
]
