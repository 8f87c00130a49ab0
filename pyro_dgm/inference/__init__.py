"""What is done with any pair of Pyro programs: preflight, particles, objectives, training."""

from .batches import Batches, binarize
from .checkpoints import load_weights, save_weights
from .compilation import Compiled
from .gradients import DoublyReparameterized, Estimator, Reparameterized, StickingTheLanding
from .history import History
from .objectives import ELBO, FreeBits, Objective
from .particles import Particles, draw
from .preflight import Preflight, preflight
from .pyro_elbos import PyroObjective
from .schedules import Constant, Cyclical, LinearWarmup, Schedule
from .supports import IntegerWarning
from .svi import SVITrainer
from .trainer import Trainer
from .weighted import IWELBO, Renyi

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
    "Preflight",
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
