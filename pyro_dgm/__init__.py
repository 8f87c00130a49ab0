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
    AffineCoupling,
    Autoregressive,
    Bijector,
    Flow,
    FlowTransform,
    Inverse,
    Permutation,
    Stack,
    iaf,
    maf,
    realnvp,
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
    "AffineCoupling",
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
    "DensityModel",
    "DiscretizedLogistic",
    "EmptyGuide",
    "Flow",
    "FlowTransform",
    "GatedMLP",
    "History",
    "Inverse",
    "Joined",
    "LatentVariableModel",
    "LinearWarmup",
    "LogisticLevels",
    "Normal",
    "Objective",
    "Particles",
    "Permutation",
    "Preflight",
    "Program",
    "Rescale",
    "SVITrainer",
    "Schedule",
    "Stack",
    "StandardNormal",
    "Trainer",
    "binarize",
    "bits_per_dim",
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
    "to_arviz",
]
