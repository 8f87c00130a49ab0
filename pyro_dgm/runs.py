"""Experiments from Python: the verbs of the command line as functions, and what they return."""

from .experiments.runs.loggers import Logger, PrintEvery, TensorBoard
from .experiments.runs.run import Run, load_run
from .experiments.sweeps.ranges import Range
from .experiments.sweeps.table import Sweep
from .experiments.verbs.comparing import RunComparison, compare
from .experiments.verbs.evaluating import evaluate
from .experiments.verbs.exporting import export
from .experiments.verbs.fitting import fit, resume
from .experiments.verbs.ready import ReadyExperiments, recipes
from .experiments.verbs.reporting import report
from .experiments.verbs.sampling import sample
from .experiments.verbs.sweeping import sweep

__all__ = [
    "Logger",
    "PrintEvery",
    "Range",
    "ReadyExperiments",
    "Run",
    "RunComparison",
    "Sweep",
    "TensorBoard",
    "compare",
    "evaluate",
    "export",
    "fit",
    "load_run",
    "recipes",
    "report",
    "resume",
    "sample",
    "sweep",
]
