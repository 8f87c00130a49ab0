"""Deep generative models as Pyro programs: declare once, train by SVI, and know the numbers."""

from .adversarial.critics import spectral_norm
from .adversarial.divergences import GAN, KL, Divergence, JensenShannon, Pearson, ReverseKL, SquaredHellinger
from .adversarial.fitting import AdamFit, Fit, LBFGSFit
from .adversarial.games import (
    FDivergence,
    Game,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    PairedRelativistic,
    Wasserstein,
)
from .adversarial.hybrid import HybridTrainer
from .adversarial.monitors import Limits, Monitors, MonitorWarning, oscillation
from .adversarial.optimality import Optimality, optimality_report
from .adversarial.penalties import R1, R2, GradientPenalty, Penalty
from .adversarial.players import Alternating, Play, Player, Simultaneous
from .adversarial.sleep import Sleep
from .adversarial.trainer import GANTrainer
from .evaluation.annealing import AIS, ais, sigmoid_schedule
from .evaluation.bidirectional import BDMC, bdmc
from .evaluation.calibration import SBC, sbc
from .evaluation.checks import CHECKS
from .evaluation.classifier import C2ST, c2st
from .evaluation.comparison import Comparison, compare_models
from .evaluation.datatree import per_datum_dataset, sbc_dataset, training_dataset
from .evaluation.estimate import Estimate
from .evaluation.findings import Check, Findings, Skipped
from .evaluation.gaps import Gaps, gaps
from .evaluation.generation import encode, generate, reconstruct
from .evaluation.hamiltonian import HMC, hmc
from .evaluation.held_out import compare, elpd_data
from .evaluation.imputation import ConditionalNLL, Imputation, conditional_nll, impute, marginal_nll
from .evaluation.items import Item, Picture, Status, Threshold
from .evaluation.latents import Collapse, active_units, aggregate_test, collapse, unit_kl
from .evaluation.likelihood import NLL, GivenNLL, bits_per_dim, nll
from .evaluation.marginal import Marginal, Unmasked
from .evaluation.mixing import ess, mean_ess, rhat
from .evaluation.modes import ModeCoverage, label_coverage, mode_coverage
from .evaluation.moments import Frechet, frechet
from .evaluation.neighbours import PRDC, NearestNeighbour, nearest_neighbour, prdc
from .evaluation.normalization import Normalization, normalization
from .evaluation.parzen import parzen, parzen_bandwidth
from .evaluation.psis import khat, khat_threshold
from .evaluation.report import Report, check
from .evaluation.smoothing import smoothed
from .evaluation.surgery import Surgery, surgery
from .evaluation.traversal import decode, interpolate, linear, spherical, traverse
from .evaluation.truth import GuideError, guide_error
from .evaluation.twosample import TwoSample, mmd
from .experiments.inverting import ScaleCurve, nll_over_scale, refit_guide
from .experiments.refitting import refit_prior, refit_scale
from .inference.batches import Batches, binarize
from .inference.checkpoints import load_weights, save_weights
from .inference.compilation import Compiled
from .inference.gradients import DoublyReparameterized, Estimator, Reparameterized, StickingTheLanding
from .inference.history import History
from .inference.objectives import ELBO, FreeBits, Objective
from .inference.particles import Particles, draw
from .inference.preflight import Preflight, preflight
from .inference.pyro_elbos import PyroObjective
from .inference.schedules import Constant, Cyclical, LinearWarmup, Schedule
from .inference.supports import IntegerWarning
from .inference.svi import SVITrainer
from .inference.trainer import Trainer
from .inference.weighted import IWELBO, Renyi
from .posterior import to_arviz
from .programs.causal import GatedPixelCNN
from .programs.colour import ColourLevels, ColourLogisticMixture
from .programs.conditional import Conditional, StandardNormal
from .programs.convolutions import GatedConvNet
from .programs.counts import (
    Binomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)
from .programs.dequantization import Dequantize, Dequantized, Quantized, dequantized
from .programs.deterministic import Deterministic, MeanOf
from .programs.duality import Pullback, Pushforward, absorb_prior, expose_prior
from .programs.flows import (
    MADE,
    ActNorm,
    Additive,
    Affine,
    Autoregressive,
    Bijector,
    Coupling,
    Directions,
    DirectionWarning,
    Elementwise,
    FactorOut,
    Flow,
    FlowTransform,
    ImageCoupling,
    Inverse,
    Levels,
    LogisticMixture,
    LULinear,
    Orthogonal,
    Permutation,
    PerPixel,
    Planar,
    Pointwise,
    Spline,
    Squeeze,
    Stack,
    Sylvester,
    Unflatten,
    Zuko,
    channel_mask,
    checkerboard_mask,
    coupling,
    iaf,
    image_realnvp,
    import_zuko,
    maf,
    multiscale_realnvp,
    planar,
    realnvp,
    spline_coupling,
    spline_iaf,
    spline_maf,
    sylvester,
)
from .programs.gaussians import LowRankMultivariateNormal, MultivariateNormal
from .programs.guides import AmortizedGuide, EmptyGuide, SemiAmortizedGuide
from .programs.intervals import log_cdf, log_interval, log_sf
from .programs.laws import ContinuousBernoulliLogits, Discretized
from .programs.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    DiscretizedNormal,
    Laplace,
    Normal,
    StudentT,
)
from .programs.mixtures import Mixture
from .programs.models import DensityModel, LatentVariableModel
from .programs.networks import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    GatedMLP,
    Joined,
    LevelUnits,
    Rescale,
    gated_mlp,
    mlp,
)
from .programs.noise import NoiseGuide, UnitUniform, within_cell
from .programs.pixelcnn import AutoregressivePixels, PixelCNN
from .programs.priors import AggregatePrior, MixturePrior, VampPrior
from .programs.program import Program, data_plate
from .programs.refined import Refined
from .programs.vae import VAE
from .testing import assert_bijector

__version__ = "0.1.0"

__all__ = [
    "AIS",
    "BDMC",
    "C2ST",
    "CHECKS",
    "ELBO",
    "GAN",
    "HMC",
    "IWELBO",
    "KL",
    "MADE",
    "MLP",
    "NLL",
    "PRDC",
    "R1",
    "R2",
    "SBC",
    "VAE",
    "ActNorm",
    "AdamFit",
    "Additive",
    "Affine",
    "AggregatePrior",
    "Alternating",
    "AmortizedGuide",
    "Autoregressive",
    "AutoregressivePixels",
    "Batches",
    "Bernoulli",
    "Bijector",
    "Binomial",
    "Categorical",
    "Check",
    "Collapse",
    "ColourLevels",
    "ColourLogisticMixture",
    "Comparison",
    "Compiled",
    "Conditional",
    "ConditionalNLL",
    "Constant",
    "ContinuousBernoulli",
    "ContinuousBernoulliLogits",
    "ConvDecoder",
    "ConvEncoder",
    "Coupling",
    "Cyclical",
    "DensityModel",
    "Dequantize",
    "Dequantized",
    "Deterministic",
    "DirectionWarning",
    "Directions",
    "Discretized",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "Divergence",
    "DoublyReparameterized",
    "Elementwise",
    "EmptyGuide",
    "Estimate",
    "Estimator",
    "FDivergence",
    "FactorOut",
    "Findings",
    "Fit",
    "Flow",
    "FlowTransform",
    "Frechet",
    "FreeBits",
    "GANTrainer",
    "Game",
    "Gaps",
    "GatedConvNet",
    "GatedMLP",
    "GatedPixelCNN",
    "GivenNLL",
    "GradientPenalty",
    "GuideError",
    "Hinge",
    "History",
    "HybridTrainer",
    "ImageCoupling",
    "Imputation",
    "IntegerWarning",
    "Inverse",
    "Item",
    "JensenShannon",
    "Joined",
    "LBFGSFit",
    "LULinear",
    "Laplace",
    "LatentVariableModel",
    "LeastSquares",
    "LevelUnits",
    "Levels",
    "Limits",
    "LinearWarmup",
    "LogisticMixture",
    "LowRankMultivariateNormal",
    "Marginal",
    "MeanOf",
    "Minimax",
    "Mixture",
    "MixturePrior",
    "ModeCoverage",
    "MonitorWarning",
    "Monitors",
    "MultivariateNormal",
    "NearestNeighbour",
    "NegativeBinomial",
    "NoiseGuide",
    "NonSaturating",
    "Normal",
    "Normalization",
    "Objective",
    "Optimality",
    "Orthogonal",
    "PairedRelativistic",
    "Particles",
    "Pearson",
    "Penalty",
    "PerPixel",
    "Permutation",
    "Picture",
    "PixelCNN",
    "Planar",
    "Play",
    "Player",
    "Pointwise",
    "Poisson",
    "Preflight",
    "Program",
    "Pullback",
    "Pushforward",
    "PyroObjective",
    "Quantized",
    "Refined",
    "Renyi",
    "Reparameterized",
    "Report",
    "Rescale",
    "ReverseKL",
    "SVITrainer",
    "ScaleCurve",
    "Schedule",
    "SemiAmortizedGuide",
    "Simultaneous",
    "Skipped",
    "Sleep",
    "Spline",
    "SquaredHellinger",
    "Squeeze",
    "Stack",
    "StandardNormal",
    "Status",
    "StickingTheLanding",
    "StudentT",
    "Surgery",
    "Sylvester",
    "Threshold",
    "Trainer",
    "TwoSample",
    "Unflatten",
    "UnitUniform",
    "Unmasked",
    "VampPrior",
    "Wasserstein",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
    "Zuko",
    "absorb_prior",
    "active_units",
    "aggregate_test",
    "ais",
    "assert_bijector",
    "bdmc",
    "binarize",
    "bits_per_dim",
    "c2st",
    "channel_mask",
    "check",
    "checkerboard_mask",
    "collapse",
    "compare",
    "compare_models",
    "conditional_nll",
    "coupling",
    "data_plate",
    "decode",
    "dequantized",
    "draw",
    "elpd_data",
    "encode",
    "ess",
    "expose_prior",
    "frechet",
    "gaps",
    "gated_mlp",
    "generate",
    "guide_error",
    "hmc",
    "iaf",
    "image_realnvp",
    "import_zuko",
    "impute",
    "interpolate",
    "khat",
    "khat_threshold",
    "label_coverage",
    "linear",
    "load_weights",
    "log_cdf",
    "log_interval",
    "log_sf",
    "maf",
    "marginal_nll",
    "mean_ess",
    "mlp",
    "mmd",
    "mode_coverage",
    "multiscale_realnvp",
    "nearest_neighbour",
    "nll",
    "nll_over_scale",
    "normalization",
    "optimality_report",
    "oscillation",
    "parzen",
    "parzen_bandwidth",
    "per_datum_dataset",
    "planar",
    "prdc",
    "preflight",
    "realnvp",
    "reconstruct",
    "refit_guide",
    "refit_prior",
    "refit_scale",
    "rhat",
    "save_weights",
    "sbc",
    "sbc_dataset",
    "sigmoid_schedule",
    "smoothed",
    "spectral_norm",
    "spherical",
    "spline_coupling",
    "spline_iaf",
    "spline_maf",
    "surgery",
    "sylvester",
    "to_arviz",
    "training_dataset",
    "traverse",
    "unit_kl",
    "within_cell",
]
