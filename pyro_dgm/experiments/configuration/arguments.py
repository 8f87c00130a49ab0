"""From what a user says (a name, a file, a mapping, flags) to an experiment."""

from __future__ import annotations

import json
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from .answers import mistake_of
from .catalogue import find_experiment
from .experiment import Experiment, experiment_parser, schema
from .kinds import check_kinds
from .modules import make_importable, require_module
from .reading import read_config
from .sugar import Folders, plain_flag, plain_settings
from .trust import only_trusted, take_trust, trusted_by, with_fix, without_modules

Source = str | Path | Mapping[str, Any] | None

# Classes where neither a flag nor a file names one. Defaults of the parser would not do: their settings would leak
# into another class that is named instead.
DEFAULTS = {
    "model": ["--model=VAE"],
    "data": ["--data=Digits"],
    "objective": ["--objective=pyro_dgm.ELBO"],
    "trainer": ["--trainer=pyro_dgm.SVITrainer", "--trainer.lr=2e-3", "--trainer.ema=0.99"],
}
DEFAULT_EXPERIMENT = "digits"  # where nobody names a model or data


def read_experiment(
    source: Source = None, flags: Sequence[str] = (), trust: Sequence[str] = ()
) -> Experiment:
    """The experiment that a source says, and flags change.

    Args:
        source: a name of the catalogue, a YAML file, or what one would hold; default: the digits, unless flags name
            a model or data.
        flags: such as `["--epochs=3", "--model.latent=2"]`.
        trust: modules of one's own that the source may name; those that flags name are trusted by that.

    Raises:
        ValueError: for a key, a value or a class that is none, with its path, what was expected, and what helps.
        FileError: for a file that can't be read, or is no YAML.
    """
    flags, said = take_trust(flags)
    folders: Folders = {}
    flags = [plain for flag in _joined(flags) for plain in plain_flag(flag, folders)]
    parser = experiment_parser()
    parser.add_argument("--config", action="config")
    configs, flags = _configs(source, flags, folders)
    defaults = _defaults(configs, flags)
    find = partial(make_importable, folders=folders)
    trusted = [*trust, *said]
    for module in trusted:
        find(module)
        require_module(module)

    def parse(modules: Sequence[str]) -> None:
        plain = without_modules(configs, modules)
        parser.parse_args([*defaults, *_as_flags(plain), *flags])

    trusted += trusted_by(parse, flags, find, trusted)
    return parse_experiment(parser, [*defaults, *_as_flags(configs), *flags], trusted)


def parse_experiment(
    parser: ArgumentParser, arguments: Sequence[str], trust: Sequence[str]
) -> Experiment:
    """What a parser makes of plain arguments, checked for kinds and trust; nothing is built."""
    with only_trusted(trust):
        try:
            settings = parser.parse_args(arguments)
            check_kinds(settings, schema)
        except Exception as error:  # whatever the parser, or a module that it imports, raises
            mistake = mistake_of(arguments, schema)
            if mistake is None and not isinstance(error, ArgumentError | ValueError | OSError):
                raise
            raise ValueError(mistake or with_fix(str(error))) from error
    settings.pop("config", None)
    return Experiment(parser, settings, trust)


def flags_of(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Nested settings as flags.

    Example:
        >>> flags_of({"epochs": 3, "model": {"prior": "Mixture"}})
        ['--epochs=3', '--model.prior=Mixture']
    """
    flags = []
    for name, value in settings.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, Mapping) and value and "class_path" not in value:
            flags += flags_of(value, path)
        else:
            flags.append(f"--{path}={value if isinstance(value, str) else json.dumps(value)}")
    return flags


def _joined(flags: Sequence[str]) -> list[str]:
    """Flags as `--name=value` alone."""
    joined: list[str] = []
    is_open = False  # whether the last flag waits for its value
    for flag in flags:
        if is_open and not flag.startswith("--"):
            joined[-1] += f"={flag}"
            is_open = False
        else:
            joined.append(flag)
            is_open = flag.startswith("--") and "=" not in flag
    return joined


def _configs(
    source: Source, flags: Sequence[str], folders: Folders
) -> tuple[list[dict[str, Any]], list[str]]:
    """What files say, in their order, and the other flags."""
    files: list[Source] = [] if source is None else [source]
    files += [flag.removeprefix("--config=") for flag in flags if flag.startswith("--config=")]
    others = [flag for flag in flags if not flag.startswith("--config=")]
    if not files and not _names(others, "model") and not _names(others, "data"):
        files = [DEFAULT_EXPERIMENT]
    return [_read(file, folders) for file in files], others


def _read(source: Source, folders: Folders) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return plain_settings(dict(source), folders)
    return plain_settings(read_config(find_experiment(str(source))), folders)


def _as_flags(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"--config={json.dumps(config)}" for config in configs]


def _names(flags: Sequence[str], part: str) -> bool:
    return any(flag.startswith(f"--{part}=") for flag in flags)


def _defaults(configs: Sequence[Mapping[str, Any]], flags: Sequence[str]) -> list[str]:
    """A class for each part that nobody names."""
    defaults: list[str] = []
    for part, default in DEFAULTS.items():
        if not _names(flags, part) and not any(part in config for config in configs):
            defaults += default
    return defaults
