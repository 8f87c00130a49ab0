"""Deep generative models as Pyro programs: declare once, train by SVI, and know the numbers."""

import warnings
from typing import Any

from . import diagnostics, distributions, flows, gan, nn, results, training
from .adversarial.games import NonSaturating, PairedRelativistic
from .adversarial.hybrid import HybridTrainer
from .adversarial.monitoring.monitors import Monitors
from .adversarial.optimum.optimality import optimality_report
from .adversarial.penalties import R1, R2
from .adversarial.trainer import GANTrainer
from .arviz_export.comparison import compare_elpd, elpd_data
from .arviz_export.datatree import per_datum_dataset, sbc_dataset, training_dataset
from .arviz_export.export import to_arviz
from .evaluation.chains.hamiltonian import hmc
from .evaluation.conditioning.imputation import conditional_nll, impute, marginal_nll
from .evaluation.latents.elbo_surgery import surgery
from .evaluation.latents.traversal import decode, interpolate, traverse
from .evaluation.latents.units import active_units, aggregate_test, collapse, unit_kl
from .evaluation.likelihood.annealing import ais
from .evaluation.likelihood.bidirectional import bdmc
from .evaluation.likelihood.importance import bits_per_dim, nll
from .evaluation.likelihood.psis import khat
from .evaluation.posterior.calibration import sbc
from .evaluation.posterior.inference_gaps import gaps
from .evaluation.posterior.truth import guide_error
from .evaluation.report.report import check
from .evaluation.samples.classifier import c2st
from .evaluation.samples.comparison import compare_samples
from .evaluation.samples.modes import mode_coverage
from .evaluation.samples.moments import frechet
from .evaluation.samples.neighbours import nearest_neighbour, prdc
from .evaluation.samples.twosample import mmd
from .inference.objectives.elbo import ELBO
from .inference.objectives.gradients import DoublyReparameterized, StickingTheLanding
from .inference.objectives.pyro_elbos import PyroObjective
from .inference.objectives.schedules import Cyclical, LinearWarmup
from .inference.objectives.sleep import Sleep
from .inference.objectives.weighted import IWELBO, Renyi
from .inference.run.batches import Batches, binarize
from .inference.run.generation import encode, generate, reconstruct
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
from .refitting.recognition import refit_guide

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
    "Cyclical",
    "DensityModel",
    "Deterministic",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "DoublyReparameterized",
    "ELBO",
    "EmptyGuide",
    "Flow",
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
    "Monitors",
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
    "conditional_nll",
    "data_plate",
    "decode",
    "dequantized",
    "diagnostics",
    "distributions",
    "draw",
    "elpd_data",
    "encode",
    "expose_prior",
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
    "optimality_report",
    "per_datum_dataset",
    "prdc",
    "preflight",
    "realnvp",
    "reconstruct",
    "refit_guide",
    "refit_prior",
    "refit_scale",
    "results",
    "save_weights",
    "sbc",
    "sbc_dataset",
    "spline_coupling",
    "spline_iaf",
    "spline_maf",
    "surgery",
    "to_arviz",
    "training",
    "training_dataset",
    "traverse",
    "unit_kl",
]

# Names of the first edition, and where they are now.
_MOVED = {
    "AIS": "results.AIS",
    "ActNorm": "flows.ActNorm",
    "AdamFit": "gan.AdamFit",
    "Additive": "flows.Additive",
    "Affine": "flows.Affine",
    "Alternating": "gan.Alternating",
    "Autoregressive": "flows.Autoregressive",
    "AutoregressivePixels": "distributions.AutoregressivePixels",
    "BDMC": "results.BDMC",
    "Bijector": "flows.Bijector",
    "BitsPerDim": "results.BitsPerDim",
    "C2ST": "results.C2ST",
    "CHECKS": "diagnostics.CHECKS",
    "Check": "diagnostics.Check",
    "Collapse": "results.Collapse",
    "ColourLevels": "distributions.ColourLevels",
    "Comparison": "results.Comparison",
    "Compiled": "training.Compiled",
    "ConditionalNLL": "results.ConditionalNLL",
    "Constant": "training.Constant",
    "ContinuousBernoulliLogits": "distributions.ContinuousBernoulliLogits",
    "Coupling": "flows.Coupling",
    "CriticFit": "gan.CriticFit",
    "Dequantize": "distributions.Dequantize",
    "Dequantized": "distributions.Dequantized",
    "DirectionWarning": "flows.DirectionWarning",
    "Directions": "flows.Directions",
    "Discretized": "distributions.Discretized",
    "Divergence": "gan.Divergence",
    "Elementwise": "flows.Elementwise",
    "Estimate": "results.Estimate",
    "Estimator": "training.Estimator",
    "FDivergence": "gan.FDivergence",
    "FactorOut": "flows.FactorOut",
    "Findings": "diagnostics.Findings",
    "Fit": "gan.CriticFit",
    "FlowTransform": "flows.FlowTransform",
    "Frechet": "results.Frechet",
    "FreeBits": "training.FreeBits",
    "GAN": "gan.GANDivergence",
    "GANDivergence": "gan.GANDivergence",
    "Game": "gan.Game",
    "Gaps": "results.Gaps",
    "GatedConvNet": "nn.GatedConvNet",
    "GatedMLP": "nn.GatedMLP",
    "GatedPixelCNN": "nn.GatedPixelCNN",
    "GivenNLL": "results.GivenNLL",
    "GradientPenalty": "gan.GradientPenalty",
    "GuideError": "results.GuideError",
    "HMC": "results.HMC",
    "Hinge": "gan.Hinge",
    "History": "results.History",
    "ImageCoupling": "flows.ImageCoupling",
    "Imputation": "results.Imputation",
    "IntegerWarning": "diagnostics.IntegerWarning",
    "Item": "diagnostics.Item",
    "JensenShannon": "gan.JensenShannon",
    "Joined": "Concat",
    "KL": "gan.KL",
    "LBFGSFit": "gan.LBFGSFit",
    "LULinear": "flows.LULinear",
    "LeastSquares": "gan.LeastSquares",
    "LevelUnits": "nn.LevelUnits",
    "Limits": "gan.Limits",
    "LogisticMixture": "flows.LogisticMixture",
    "MADE": "flows.MADE",
    "MLP": "nn.MLP",
    "Marginal": "diagnostics.Marginal",
    "MeanOf": "distributions.MeanOf",
    "Minimax": "gan.Minimax",
    "Mixture": "distributions.Mixture",
    "ModeCoverage": "results.ModeCoverage",
    "MonitorWarning": "gan.MonitorWarning",
    "NLL": "results.NLL",
    "NearestNeighbour": "results.NearestNeighbour",
    "Normalization": "results.Normalization",
    "Objective": "training.Objective",
    "Optimality": "gan.Optimality",
    "Orthogonal": "flows.Orthogonal",
    "PRDC": "results.PRDC",
    "Particles": "results.Particles",
    "Pearson": "gan.Pearson",
    "Penalty": "gan.Penalty",
    "PerPixel": "flows.PerPixel",
    "Permutation": "flows.Permutation",
    "Picture": "diagnostics.Picture",
    "Planar": "flows.Planar",
    "Play": "gan.Play",
    "Player": "gan.Player",
    "Preflight": "results.Structure",
    "Pullback": "distributions.Pullback",
    "Pushforward": "distributions.Pushforward",
    "Quantized": "distributions.Quantized",
    "Refined": "distributions.Refined",
    "Reparameterized": "training.Reparameterized",
    "Report": "results.Report",
    "Rescale": "nn.Rescale",
    "ReverseKL": "gan.ReverseKL",
    "SBC": "results.SBC",
    "ScaleCurve": "results.ScaleCurve",
    "Schedule": "training.Schedule",
    "Simultaneous": "gan.Simultaneous",
    "Skipped": "diagnostics.Skipped",
    "Spline": "flows.Spline",
    "SquaredHellinger": "gan.SquaredHellinger",
    "Squeeze": "flows.Squeeze",
    "Stack": "flows.Stack",
    "Status": "diagnostics.Status",
    "Structure": "results.Structure",
    "Surgery": "results.Surgery",
    "Sylvester": "flows.Sylvester",
    "Threshold": "diagnostics.Threshold",
    "Trainer": "training.Trainer",
    "TwoSample": "results.TwoSample",
    "Unflatten": "flows.Unflatten",
    "Unmasked": "diagnostics.Unmasked",
    "Wasserstein": "gan.Wasserstein",
    "Zuko": "flows.Zuko",
    "assert_bijector": "flows.assert_bijector",
    "channel_mask": "flows.channel_mask",
    "checkerboard_mask": "flows.checkerboard_mask",
    "compare": "compare_elpd",
    "compare_models": "compare_samples",
    "coupling": "flows.coupling",
    "ess": "diagnostics.ess",
    "import_zuko": "flows.import_zuko",
    "khat_threshold": "diagnostics.khat_threshold",
    "label_coverage": "diagnostics.label_coverage",
    "lerp": "diagnostics.lerp",
    "linear": "diagnostics.lerp",
    "log_cdf": "distributions.log_cdf",
    "log_interval": "distributions.log_interval",
    "log_sf": "distributions.log_sf",
    "mean_ess": "diagnostics.mean_ess",
    "nll_over_scale": "diagnostics.nll_over_scale",
    "normalization": "diagnostics.normalization",
    "oscillation": "gan.oscillation",
    "parzen": "diagnostics.parzen",
    "parzen_bandwidth": "diagnostics.parzen_bandwidth",
    "planar": "flows.planar",
    "rhat": "diagnostics.rhat",
    "sigmoid_schedule": "diagnostics.sigmoid_schedule",
    "slerp": "diagnostics.slerp",
    "smooth_weights": "diagnostics.smooth_weights",
    "smoothed": "diagnostics.smooth_weights",
    "spectral_norm": "nn.spectral_norm",
    "spherical": "diagnostics.slerp",
    "sylvester": "flows.sylvester",
    "within_cell": "distributions.within_cell",
}


def __getattr__(name: str) -> Any:
    """Answer a name that has moved with its new home; it still works, under a warning."""
    if name not in _MOVED:
        raise AttributeError(f"module 'pyro_dgm' has no attribute '{name}'")
    home = _MOVED[name]
    warnings.warn(f"dgm.{name} has moved. Fix: dgm.{home}.", DeprecationWarning, stacklevel=2)
    namespace, _, leaf = home.rpartition(".")
    return getattr(globals()[namespace], leaf) if namespace else globals()[leaf]
