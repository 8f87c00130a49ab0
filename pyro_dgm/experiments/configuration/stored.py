"""The experiment of a run directory, as it was written."""

from __future__ import annotations

import json
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path

from ...files.errors import FileError
from ...files.manifest import Manifest
from ..runs.layout import CONFIG, ENVIRONMENT
from .answers import mistake_in
from .experiment import Experiment, experiment_parser, schema
from .kinds import check_kinds
from .modules import file_of, make_importable, require_module
from .reading import FIX, read_run_config
from .trust import only_trusted, with_fix

TRAINING = ("objective", "trainer", "adversarial", "loggers")  # nobody builds them but who trains


def stored_experiment(folder: Path, trust: Sequence[str] = ()) -> Experiment:
    """The experiment of a run, without what trains it: that is not looked at, and never built.

    Raises:
        FileError: if it is missing or changed; for an entry of another kind, or of a module that is not trusted.
    """
    config = read_run_config(folder)
    find_modules(folder, trust)
    parser = experiment_parser(without=TRAINING)
    entries = {name: value for name, value in config.items() if name not in TRAINING}
    with only_trusted(trust):
        try:
            settings = parser.parse_object(entries)
            check_kinds(settings, schema)
        except Exception as error:  # whatever the parser, or a module that it imports, raises
            mistake = mistake_in(entries, schema)
            if mistake is None and not isinstance(error, ArgumentError | ValueError):
                raise
            said = mistake or with_fix(str(error))
            got, _, fix = said.rstrip(".").partition(". Fix: ")
            raise FileError(folder / CONFIG, "an experiment", got, fix or FIX) from error
    # As it is written: whether there is a game.
    settings["adversarial"] = config.get("adversarial")
    return Experiment(parser, settings, trust)


def find_modules(folder: Path, trust: Sequence[str]) -> None:
    """Let trusted modules be imported from the folders where the run had them, if they can't be otherwise.

    Raises:
        FileError: for a damaged `environment.json`.
    """
    if not trust:
        return
    folders: dict[str, str] = {}
    if (folder / ENVIRONMENT).exists():
        fix = f"put the folder of {trust[0]} into PYTHONPATH, and remove {folder / ENVIRONMENT}"
        content = Manifest(folder).read(ENVIRONMENT, "what the run was made with", fix)
        try:
            folders = json.loads(content).get("modules", {})
        except (ValueError, AttributeError) as error:
            raise FileError(folder / ENVIRONMENT, "JSON", "something else", fix) from error
    for module in trust:
        if file_of(module.split(".")[0]) is None:
            make_importable(module, folders)
        require_module(module)
