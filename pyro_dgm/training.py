"""What training is made of: objectives, gradients, schedules, the loop; several seeds at once."""

from .arviz_export.datatree import training_dataset
from .arviz_export.seeds import seeds_to_arviz
from .densities.precision import full_precision_networks
from .inference.data.batches import Batches
from .inference.data.binarization import binarize
from .inference.data.sequences import LengthBuckets
from .inference.objectives.elbo import FreeBits, Objective
from .inference.objectives.gradients import (
    DoublyReparameterized,
    Estimator,
    Reparameterized,
    StickingTheLanding,
)
from .inference.objectives.path_gradients import PathGradient
from .inference.objectives.schedules import Constant, Cyclical, LinearWarmup, Schedule
from .inference.objectives.weighted import Weighted
from .inference.training.checkpoints import load_weights, save_weights
from .inference.training.compiled.compilation import Compiled
from .inference.training.history import History
from .inference.training.replicates.histories import SeedHistory
from .inference.training.replicates.replicates import Replicates
from .inference.training.svi import SVITrainer
from .inference.training.trainer import Trainer

__all__ = [
    "training_dataset",
    "Batches",
    "Compiled",
    "Constant",
    "Cyclical",
    "DoublyReparameterized",
    "Estimator",
    "FreeBits",
    "History",
    "LengthBuckets",
    "LinearWarmup",
    "Objective",
    "PathGradient",
    "Reparameterized",
    "Replicates",
    "SVITrainer",
    "Schedule",
    "SeedHistory",
    "StickingTheLanding",
    "Trainer",
    "Weighted",
    "binarize",
    "full_precision_networks",
    "load_weights",
    "save_weights",
    "seeds_to_arviz",
]
