"""What is modelled: conditionals, flows, and the Pyro programs made of them."""

from . import flows
from .conditionals.conditional import Conditional, StandardNormal
from .conditionals.deterministic import Deterministic, MeanOf
from .conditionals.gaussians import LowRankMultivariateNormal, MultivariateNormal
from .conditionals.priors import AggregatePrior, MixturePrior, VampPrior
from .dequantization.noise import NoiseGuide, UnitUniform, within_cell
from .dequantization.quantization import Dequantize, Dequantized, Quantized, dequantized
from .distributions.discretized import ContinuousBernoulliLogits, Discretized
from .distributions.intervals import log_cdf, log_interval, log_sf
from .distributions.mixtures import Mixture
from .duality import Pullback, Pushforward, absorb_prior, expose_prior
from .flows import *
from .guides import AmortizedGuide, EmptyGuide, SemiAmortizedGuide
from .likelihoods.colour import ColourLevels, ColourLogisticMixture
from .likelihoods.counts import (
    Binomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)
from .likelihoods.elementary import (
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
from .likelihoods.pixelcnn import AutoregressivePixels, PixelCNN
from .models import DensityModel, LatentVariableModel
from .networks.causal import GatedPixelCNN
from .networks.convolutions import GatedConvNet
from .networks.dense import (
    MLP,
    Concat,
    ConvDecoder,
    ConvEncoder,
    GatedMLP,
    LevelUnits,
    Rescale,
    gated_mlp,
    mlp,
)
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
    "Concat",
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
