"""Deep generative models as Pyro programs: declare once, train by SVI, and know the numbers."""

from .evaluation.generation import encode, generate, reconstruct
from .evaluation.likelihood import NLL, bits_per_dim, nll
from .evaluation.psis import khat, khat_threshold
from .inference.batches import Batches, binarize
from .inference.checkpoints import load_weights, save_weights
from .inference.compilation import Compiled
from .inference.history import History
from .inference.objectives import ELBO, Objective
from .inference.particles import Particles, draw
from .inference.preflight import Preflight, preflight
from .inference.schedules import Constant, LinearWarmup, Schedule
from .inference.svi import SVITrainer
from .inference.trainer import Trainer
from .posterior import to_arviz
from .programs.conditional import Conditional, StandardNormal
from .programs.flows import (
    MADE,
    ActNorm,
    Additive,
    Affine,
    Autoregressive,
    Bijector,
    Coupling,
    Elementwise,
    Flow,
    FlowTransform,
    Inverse,
    LULinear,
    Orthogonal,
    Permutation,
    Spline,
    Stack,
    coupling,
    iaf,
    maf,
    realnvp,
    spline_coupling,
    spline_iaf,
    spline_maf,
)
from .programs.guides import AmortizedGuide, EmptyGuide
from .programs.laws import LogisticLevels
from .programs.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Normal
from .programs.models import DensityModel, LatentVariableModel
from .programs.networks import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    GatedMLP,
    Joined,
    Rescale,
    gated_mlp,
    mlp,
)
from .programs.program import Program, data_plate
from .programs.vae import VAE

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "MADE",
    "MLP",
    "NLL",
    "VAE",
    "ActNorm",
    "Additive",
    "Affine",
    "AmortizedGuide",
    "Autoregressive",
    "Batches",
    "Bernoulli",
    "Bijector",
    "Categorical",
    "Compiled",
    "Conditional",
    "Constant",
    "ConvDecoder",
    "ConvEncoder",
    "Coupling",
    "DensityModel",
    "DiscretizedLogistic",
    "Elementwise",
    "EmptyGuide",
    "Flow",
    "FlowTransform",
    "GatedMLP",
    "History",
    "Inverse",
    "Joined",
    "LULinear",
    "LatentVariableModel",
    "LinearWarmup",
    "LogisticLevels",
    "Normal",
    "Objective",
    "Orthogonal",
    "Particles",
    "Permutation",
    "Preflight",
    "Program",
    "Rescale",
    "SVITrainer",
    "Schedule",
    "Spline",
    "Stack",
    "StandardNormal",
    "Trainer",
    "binarize",
    "bits_per_dim",
    "coupling",
    "data_plate",
    "draw",
    "encode",
    "gated_mlp",
    "generate",
    "iaf",
    "khat",
    "khat_threshold",
    "load_weights",
    "maf",
    "mlp",
    "nll",
    "preflight",
    "realnvp",
    "reconstruct",
    "save_weights",
    "spline_coupling",
    "spline_iaf",
    "spline_maf",
    "to_arviz",
]
