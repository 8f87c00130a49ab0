"""Recipes: models whose sizes the data give, of parts that files and flags name; subclass one for your own part."""

from .experiments.recipes.adversarial import Adversarial
from .experiments.recipes.density import Density
from .experiments.recipes.encoders import (
    Diagonal,
    FlowNoise,
    FlowPosterior,
    FullRank,
    LowRank,
    Uniform,
)
from .experiments.recipes.families import (
    Bernoulli,
    Binomial,
    ContinuousBernoulli,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)
from .experiments.recipes.layers import (
    IAF,
    MAF,
    FlowKind,
    ImageRealNVP,
    MultiscaleRealNVP,
    Planar,
    RealNVP,
    SplineCoupling,
    SplineIAF,
    SplineMAF,
    Sylvester,
)
from .experiments.recipes.likelihoods import (
    Automatic,
    Categorical,
    ColourLogisticMixture,
    Deterministic,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    DiscretizedNormal,
    Laplace,
    Normal,
    StudentT,
)
from .experiments.recipes.networks import Convolutional, Dense, Network
from .experiments.recipes.own import Composition, Own
from .experiments.recipes.priors import FlowPrior, Mixture, Standard, Vamp
from .experiments.recipes.recipe import ModelAndGuide, Recipe
from .experiments.recipes.slots import Dequantizer, Encoder, Given, Likelihood, Prior
from .experiments.recipes.vae import VAE, Generator

__all__ = [
    "Adversarial",
    "Automatic",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ColourLogisticMixture",
    "Composition",
    "ContinuousBernoulli",
    "Convolutional",
    "Dense",
    "Density",
    "Dequantizer",
    "Deterministic",
    "Diagonal",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "Encoder",
    "FlowKind",
    "FlowNoise",
    "FlowPosterior",
    "FlowPrior",
    "FullRank",
    "Generator",
    "Given",
    "IAF",
    "ImageRealNVP",
    "Laplace",
    "Likelihood",
    "LowRank",
    "MAF",
    "Mixture",
    "ModelAndGuide",
    "MultiscaleRealNVP",
    "NegativeBinomial",
    "Network",
    "Normal",
    "Own",
    "Planar",
    "Poisson",
    "Prior",
    "RealNVP",
    "Recipe",
    "SplineCoupling",
    "SplineIAF",
    "SplineMAF",
    "Standard",
    "StudentT",
    "Sylvester",
    "Uniform",
    "VAE",
    "Vamp",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
]
