"""The experiment of a run directory, as it was written."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path

from ...files.errors import FileError
from ..runs.layout import CONFIG
from .experiment import Experiment, experiment_parser, schema
from .kinds import check_kinds
from .reading import FIX, read_run_config
from .trust import explain, only_trusted

TRAINING = ("objective", "trainer", "adversarial", "loggers")  # nobody builds them but who trains


def stored_experiment(folder: Path, trust: Sequence[str] = ()) -> Experiment:
    """The experiment of a run, without what trains it: that is not looked at, and never built.

    Raises:
        FileError: if it is missing or changed; for an entry of another kind, or of a module that is not trusted.
    """
    config = read_run_config(folder)
    parser = experiment_parser(without=TRAINING)
    entries = {name: value for name, value in config.items() if name not in TRAINING}
    try:
        with only_trusted(trust):
            settings = parser.parse_object(entries)
            check_kinds(settings, schema)
        settings["adversarial"] = config.get(
            "adversarial"
        )  # as it is written: whether there is a game
        return Experiment(parser, settings, trust)
    except (ArgumentError, ValueError) as error:
        got, _, fix = explain(str(error).strip()).rstrip(".").partition(". Fix: ")
        raise FileError(folder / CONFIG, "an experiment", got, fix or FIX) from error
