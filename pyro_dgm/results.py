"""What the verbs return: numbers with their errors, units and kinds."""

from .adversarial.optimum.optimality import Optimality
from .arviz_export.containers import read_posterior
from .compression.compressed import Compressed
from .evaluation.chains.hamiltonian import HMC
from .evaluation.conditioning.imputation import ConditionalNLL, Imputation
from .evaluation.estimate import Estimate
from .evaluation.latents.elbo_surgery import Surgery
from .evaluation.latents.units import Collapse
from .evaluation.likelihood.annealing import AIS
from .evaluation.likelihood.bidirectional import BDMC
from .evaluation.likelihood.model_evidence import Evidence
from .evaluation.likelihood.quantities import Quantities
from .evaluation.likelihood.results import NLL, BitsPerDim, GivenNLL
from .evaluation.likelihood.total_mass import Normalization
from .evaluation.posterior.calibration import SBC
from .evaluation.posterior.coverage import TARP
from .evaluation.posterior.inference_gaps import Gaps
from .evaluation.posterior.refits import VSBC
from .evaluation.posterior.truth import GuideError
from .evaluation.report.report import Report
from .evaluation.samples.classifier import C2ST
from .evaluation.samples.comparison import Comparison
from .evaluation.samples.modes import ModeCoverage
from .evaluation.samples.moments import Frechet
from .evaluation.samples.neighbours import PRDC, NearestNeighbour
from .evaluation.samples.twosample import TwoSample
from .inference.run.particles import Particles
from .inference.run.structure import Structure
from .inference.training.history import History
from .refitting.posterior import PosteriorFit
from .refitting.recognition import ScaleCurve
from .refitting.verdict import Verdict

__all__ = [
    "AIS",
    "BDMC",
    "BitsPerDim",
    "C2ST",
    "Collapse",
    "Comparison",
    "Compressed",
    "ConditionalNLL",
    "Estimate",
    "Evidence",
    "Frechet",
    "Gaps",
    "GivenNLL",
    "GuideError",
    "HMC",
    "History",
    "Imputation",
    "ModeCoverage",
    "NLL",
    "NearestNeighbour",
    "Normalization",
    "Optimality",
    "PRDC",
    "Particles",
    "PosteriorFit",
    "Quantities",
    "Report",
    "SBC",
    "ScaleCurve",
    "Structure",
    "Surgery",
    "TARP",
    "TwoSample",
    "VSBC",
    "Verdict",
    "read_posterior",
]
