"""What is modelled: conditionals, flows, and the Pyro programs made of them."""

from . import flows
from .causal import GatedPixelCNN
from .colour import ColourLevels, ColourLogisticMixture
from .conditional import Conditional, StandardNormal
from .convolutions import GatedConvNet
from .counts import Binomial, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial, ZeroInflatedPoisson
from .dequantization import Dequantize, Dequantized, Quantized, dequantized
from .deterministic import Deterministic, MeanOf
from .duality import Pullback, Pushforward, absorb_prior, expose_prior
from .flows import *
from .gaussians import LowRankMultivariateNormal, MultivariateNormal
from .guides import AmortizedGuide, EmptyGuide, SemiAmortizedGuide
from .intervals import log_cdf, log_interval, log_sf
from .laws import ContinuousBernoulliLogits, Discretized
from .likelihoods import (
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
from .mixtures import Mixture
from .models import DensityModel, LatentVariableModel
from .networks import MLP, ConvDecoder, ConvEncoder, GatedMLP, Joined, LevelUnits, Rescale, gated_mlp, mlp
from .noise import NoiseGuide, UnitUniform, within_cell
from .pixelcnn import AutoregressivePixels, PixelCNN
from .priors import AggregatePrior, MixturePrior, VampPrior
from .program import Program, data_plate
from .refined import Refined
from .vae import VAE

__all__ = [
    "MLP",
    "VAE",
    "AggregatePrior",
    "AmortizedGuide",
    "AutoregressivePixels",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ColourLevels",
    "ColourLogisticMixture",
    "Conditional",
    "ContinuousBernoulli",
    "ContinuousBernoulliLogits",
    "ConvDecoder",
    "ConvEncoder",
    "DensityModel",
    "Dequantize",
    "Dequantized",
    "Deterministic",
    "Discretized",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "EmptyGuide",
    "GatedConvNet",
    "GatedMLP",
    "GatedPixelCNN",
    "Joined",
    "Laplace",
    "LatentVariableModel",
    "LevelUnits",
    "LowRankMultivariateNormal",
    "MeanOf",
    "Mixture",
    "MixturePrior",
    "MultivariateNormal",
    "NegativeBinomial",
    "NoiseGuide",
    "Normal",
    "PixelCNN",
    "Poisson",
    "Program",
    "Pullback",
    "Pushforward",
    "Quantized",
    "Refined",
    "Rescale",
    "SemiAmortizedGuide",
    "StandardNormal",
    "StudentT",
    "UnitUniform",
    "VampPrior",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
    "absorb_prior",
    "data_plate",
    "dequantized",
    "expose_prior",
    "gated_mlp",
    "log_cdf",
    "log_interval",
    "log_sf",
    "mlp",
    "within_cell",
]
__all__ += flows.__all__
