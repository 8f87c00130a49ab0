"""Training against a critic: games, penalties, plays, and what watches them."""

from .adversarial.critics import spectral_norm
from .adversarial.divergences import (
    KL,
    Divergence,
    FDivergence,
    GANDivergence,
    JensenShannon,
    Pearson,
    ReverseKL,
    SquaredHellinger,
)
from .adversarial.fitting import AdamFit, CriticFit, LBFGSFit
from .adversarial.games import (
    Game,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    PairedRelativistic,
    Wasserstein,
)
from .adversarial.hybrid import HybridTrainer
from .adversarial.monitoring.limits import Limits
from .adversarial.monitoring.monitors import Monitors, MonitorWarning
from .adversarial.monitoring.swings import oscillation
from .adversarial.optimum.optimality import Optimality, optimality_report
from .adversarial.penalties import R1, R2, GradientPenalty, Penalty
from .adversarial.players import Alternating, Move, Play, Player, Simultaneous
from .adversarial.trainer import GANTrainer

__all__ = [
    "AdamFit",
    "Alternating",
    "CriticFit",
    "Divergence",
    "FDivergence",
    "GANDivergence",
    "GANTrainer",
    "Game",
    "GradientPenalty",
    "Hinge",
    "HybridTrainer",
    "JensenShannon",
    "KL",
    "LBFGSFit",
    "LeastSquares",
    "Limits",
    "Minimax",
    "MonitorWarning",
    "Monitors",
    "Move",
    "NonSaturating",
    "Optimality",
    "PairedRelativistic",
    "Pearson",
    "Penalty",
    "Play",
    "Player",
    "R1",
    "R2",
    "ReverseKL",
    "Simultaneous",
    "SquaredHellinger",
    "Wasserstein",
    "optimality_report",
    "oscillation",
    "spectral_norm",
]
