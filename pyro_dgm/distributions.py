"""Distributions that torch and Pyro lack, and what they are made of."""

from .programs.conditionals.deterministic import MeanOf
from .programs.dequantization.noise import within_cell
from .programs.dequantization.quantization import Dequantize, Dequantized, Quantized
from .programs.distributions.continuous_bernoulli import ContinuousBernoulliLogits
from .programs.distributions.discretized import Discretized
from .programs.distributions.intervals import log_cdf, log_interval, log_sf
from .programs.distributions.mixtures import Mixture
from .programs.duality import Pullback, Pushforward
from .programs.likelihoods.autoregressive import AutoregressiveBernoulli, AutoregressiveBits
from .programs.likelihoods.colour import ColourLevels
from .programs.likelihoods.observed import Observed
from .programs.likelihoods.pixelcnn import AutoregressivePixels
from .programs.refined import Refined

__all__ = [
    "AutoregressiveBernoulli",
    "AutoregressiveBits",
    "AutoregressivePixels",
    "ColourLevels",
    "ContinuousBernoulliLogits",
    "Dequantize",
    "Dequantized",
    "Discretized",
    "MeanOf",
    "Mixture",
    "Observed",
    "Pullback",
    "Pushforward",
    "Quantized",
    "Refined",
    "log_cdf",
    "log_interval",
    "log_sf",
    "within_cell",
]
