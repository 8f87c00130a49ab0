"""Likelihood-free learning: the same generator program, trained against a critic."""

from ..inference.objectives.sleep import Sleep
from .critics import spectral_norm
from .divergences import (
    KL,
    Divergence,
    GANDivergence,
    JensenShannon,
    Pearson,
    ReverseKL,
    SquaredHellinger,
)
from .fitting import AdamFit, CriticFit, LBFGSFit
from .games import (
    FDivergence,
    Game,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    PairedRelativistic,
    Wasserstein,
)
from .hybrid import HybridTrainer
from .monitors import Limits, Monitors, MonitorWarning, oscillation
from .optimality import Optimality, optimality_report
from .penalties import R1, R2, GradientPenalty, Penalty
from .players import Alternating, Play, Player, Simultaneous
from .trainer import GANTrainer

__all__ = [
    "GANDivergence",
    "KL",
    "R1",
    "R2",
    "AdamFit",
    "Alternating",
    "Divergence",
    "FDivergence",
    "CriticFit",
    "GANTrainer",
    "Game",
    "GradientPenalty",
    "Hinge",
    "HybridTrainer",
    "JensenShannon",
    "LBFGSFit",
    "LeastSquares",
    "Limits",
    "Minimax",
    "MonitorWarning",
    "Monitors",
    "NonSaturating",
    "Optimality",
    "PairedRelativistic",
    "Pearson",
    "Penalty",
    "Play",
    "Player",
    "ReverseKL",
    "Simultaneous",
    "Sleep",
    "SquaredHellinger",
    "Wasserstein",
    "optimality_report",
    "oscillation",
    "spectral_norm",
]
