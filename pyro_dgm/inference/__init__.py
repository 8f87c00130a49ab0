"""What is done with any pair of Pyro programs: preflight, particles, objectives, training."""

from .objectives.elbo import ELBO, FreeBits, Objective
from .objectives.gradients import (
    DoublyReparameterized,
    Estimator,
    Reparameterized,
    StickingTheLanding,
)
from .objectives.pyro_elbos import PyroObjective
from .objectives.schedules import Constant, Cyclical, LinearWarmup, Schedule
from .objectives.weighted import IWELBO, Renyi
from .run.batches import Batches, binarize
from .run.particles import Particles, draw
from .run.structure import Structure, preflight
from .run.supports import IntegerWarning
from .training.checkpoints import load_weights, save_weights
from .training.compilation import Compiled
from .training.history import History
from .training.svi import SVITrainer
from .training.trainer import Trainer

__all__ = [
    "ELBO",
    "IWELBO",
    "Batches",
    "Compiled",
    "Constant",
    "Cyclical",
    "DoublyReparameterized",
    "Estimator",
    "FreeBits",
    "History",
    "IntegerWarning",
    "LinearWarmup",
    "Objective",
    "Particles",
    "Structure",
    "PyroObjective",
    "Renyi",
    "Reparameterized",
    "SVITrainer",
    "Schedule",
    "StickingTheLanding",
    "Trainer",
    "binarize",
    "draw",
    "load_weights",
    "preflight",
    "save_weights",
]
