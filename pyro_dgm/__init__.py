"""Deep generative models as Pyro programs: declare once, train by SVI, and know the numbers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import (
    datasets,
    diagnostics,
    distributions,
    flows,
    gan,
    nn,
    plots,
    recipes,
    results,
    training,
)
from .adversarial.games import NonSaturating, PairedRelativistic
from .adversarial.hybrid import HybridTrainer
from .adversarial.penalties import R1, R2
from .adversarial.trainer import GANTrainer
from .arviz_export.comparison import compare_elpd
from .arviz_export.export import to_arviz
from .compression.bits_back import compress, decompress
from .deprecation import MOVED, home_of
from .evaluation.chains.hamiltonian import hmc
from .evaluation.conditioning.imputation import conditional_nll, impute, marginal_nll
from .evaluation.latents.against_prior import aggregate_test
from .evaluation.latents.elbo_surgery import surgery
from .evaluation.latents.traversal import decode, interpolate, traverse
from .evaluation.latents.units import active_units, collapse, unit_kl
from .evaluation.likelihood.annealing import ais
from .evaluation.likelihood.bidirectional import bdmc
from .evaluation.likelihood.importance import nll
from .evaluation.likelihood.model_evidence import evidence
from .evaluation.likelihood.psis import khat
from .evaluation.likelihood.results import bits_per_dim
from .evaluation.posterior.calibration import sbc
from .evaluation.posterior.coverage import tarp
from .evaluation.posterior.inference_gaps import gaps
from .evaluation.posterior.truth import guide_error
from .evaluation.report.report import check
from .evaluation.samples.classifier import c2st
from .evaluation.samples.comparison import compare_samples
from .evaluation.samples.modes import mode_coverage
from .evaluation.samples.moments import frechet
from .evaluation.samples.neighbours import nearest_neighbour, prdc
from .evaluation.samples.twosample import mmd
from .inference.adoption.programs import adopt
from .inference.data.batches import Batches
from .inference.data.binarization import binarize
from .inference.drawing.generation import encode, generate, reconstruct
from .inference.objectives.elbo import ELBO
from .inference.objectives.gradients import DoublyReparameterized, StickingTheLanding
from .inference.objectives.pyro_elbos import PyroObjective
from .inference.objectives.schedules import LinearWarmup
from .inference.objectives.sleep import Sleep
from .inference.objectives.weighted import IWELBO, Renyi
from .inference.run.particles import draw
from .inference.run.structure import preflight
from .inference.training.checkpoints import load_weights, save_weights
from .inference.training.svi import SVITrainer
from .programs.conditionals.conditional import Conditional, StandardNormal
from .programs.conditionals.deterministic import Deterministic
from .programs.conditionals.gaussians import LowRankMultivariateNormal, MultivariateNormal
from .programs.conditionals.priors import AggregatePrior, MixturePrior, VampPrior
from .programs.dequantization.noise import NoiseGuide, UnitUniform
from .programs.dequantization.quantization import dequantized
from .programs.duality import absorb_prior, expose_prior
from .programs.flow_guide import FlowGuide
from .programs.flows.autoregressive import iaf, maf, spline_iaf, spline_maf
from .programs.flows.bijector import Inverse
from .programs.flows.couplings import realnvp, spline_coupling
from .programs.flows.flow import Flow
from .programs.flows.images import image_realnvp, multiscale_realnvp
from .programs.flows.levels import Levels
from .programs.flows.pointwise import Pointwise
from .programs.guides import AmortizedGuide, EmptyGuide, SemiAmortizedGuide
from .programs.likelihoods.categories import Bernoulli, Categorical
from .programs.likelihoods.colour import ColourLogisticMixture
from .programs.likelihoods.continuous import ContinuousBernoulli, Laplace, Normal, StudentT
from .programs.likelihoods.counts import (
    Binomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)
from .programs.likelihoods.discretized import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    DiscretizedNormal,
)
from .programs.likelihoods.pixelcnn import PixelCNN
from .programs.models import DensityModel, LatentVariableModel
from .programs.networks.dense import Concat, gated_mlp, mlp
from .programs.networks.images import ConvDecoder, ConvEncoder
from .programs.program import Program, data_plate
from .programs.vae import VAE
from .refitting.generative import refit_prior, refit_scale
from .refitting.posterior import fit_posterior
from .refitting.recognition import refit_guide

if TYPE_CHECKING:
    from . import runs
    from .runs import load_run

__version__ = "0.1.0"
__all__ = [
    "AggregatePrior",
    "AmortizedGuide",
    "Batches",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ColourLogisticMixture",
    "Concat",
    "Conditional",
    "ContinuousBernoulli",
    "ConvDecoder",
    "ConvEncoder",
    "DensityModel",
    "Deterministic",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "DoublyReparameterized",
    "ELBO",
    "EmptyGuide",
    "Flow",
    "FlowGuide",
    "GANTrainer",
    "HybridTrainer",
    "IWELBO",
    "Inverse",
    "Laplace",
    "LatentVariableModel",
    "Levels",
    "LinearWarmup",
    "LowRankMultivariateNormal",
    "MixturePrior",
    "MultivariateNormal",
    "NegativeBinomial",
    "NoiseGuide",
    "NonSaturating",
    "Normal",
    "PairedRelativistic",
    "PixelCNN",
    "Pointwise",
    "Poisson",
    "Program",
    "PyroObjective",
    "R1",
    "R2",
    "Renyi",
    "SVITrainer",
    "SemiAmortizedGuide",
    "Sleep",
    "StandardNormal",
    "StickingTheLanding",
    "StudentT",
    "UnitUniform",
    "VAE",
    "VampPrior",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
    "absorb_prior",
    "active_units",
    "adopt",
    "aggregate_test",
    "ais",
    "bdmc",
    "binarize",
    "bits_per_dim",
    "c2st",
    "check",
    "collapse",
    "compare_elpd",
    "compare_samples",
    "compress",
    "conditional_nll",
    "data_plate",
    "datasets",
    "decode",
    "decompress",
    "dequantized",
    "diagnostics",
    "distributions",
    "draw",
    "encode",
    "evidence",
    "expose_prior",
    "fit_posterior",
    "flows",
    "frechet",
    "gan",
    "gaps",
    "gated_mlp",
    "generate",
    "guide_error",
    "hmc",
    "iaf",
    "image_realnvp",
    "impute",
    "interpolate",
    "khat",
    "load_run",
    "load_weights",
    "maf",
    "marginal_nll",
    "mlp",
    "mmd",
    "mode_coverage",
    "multiscale_realnvp",
    "nearest_neighbour",
    "nll",
    "nn",
    "plots",
    "prdc",
    "preflight",
    "realnvp",
    "recipes",
    "reconstruct",
    "refit_guide",
    "refit_prior",
    "refit_scale",
    "results",
    "runs",
    "save_weights",
    "sbc",
    "spline_coupling",
    "spline_iaf",
    "spline_maf",
    "surgery",
    "tarp",
    "to_arviz",
    "training",
    "traverse",
    "unit_kl",
]


def __getattr__(name: str) -> Any:
    """Read `runs` when it is asked for; answer a name that has moved with its new home, under a warning."""
    if name in ("runs", "load_run"):  # which bring the parser and matplotlib
        found = import_module(".runs", __name__)
        return found.load_run if name == "load_run" else found
    if name not in MOVED:
        raise AttributeError(f"module 'pyro_dgm' has no attribute '{name}'. Fix: {_fix_of(name)}.")
    home = home_of(name)
    namespace, _, leaf = home.rpartition(".")
    return getattr(globals()[namespace], leaf) if namespace else globals()[leaf]


def _fix_of(name: str) -> str:
    """The nearest public name, or the nearest of those that have moved, at its home."""
    nearest = import_module(".experiments.spelling", __name__).nearest
    known = {known: known for known in __all__} | MOVED
    near = None if name.startswith("_") else nearest(name, known, cutoff=0.7)
    if near is None:
        return "one of pyro_dgm.__all__, or of a namespace, such as pyro_dgm.flows"
    return f"did you mean dgm.{known[near]}"
