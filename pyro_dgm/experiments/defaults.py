"""What `pyro-dgm fit` trains where no flag says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from .configurations import CONFIG, read_config, read_run_config

DEFAULTS = {
    "vae": ["--vae=pyro_dgm.experiments.recipes.compositions.levels_vae"],
    "data": ["--data=pyro_dgm.datasets.Digits"],
    "objective": ["--objective=pyro_dgm.ELBO"],
    "trainer": ["--trainer=pyro_dgm.SVITrainer", "--trainer.lr=2e-3", "--trainer.ema=0.99"],
}


def add_defaults(arguments: Sequence[str]) -> list[str]:
    """The arguments of `fit` with a class for each part that neither a flag nor a configuration file names.

    Parser defaults would not do: their settings would leak into another class that is named instead.
    """
    command, *flags = arguments
    if "true" in values_of(flags, "--resume"):
        flags = [*_stored_configs(flags), *flags]
    named = _named_parts(flags)
    defaults: list[str] = []
    for part, default in DEFAULTS.items():
        if part not in named:
            defaults += default
    return [command, *defaults, *flags]


def _stored_configs(flags: Sequence[str]) -> list[str]:
    """The configuration of the run in `--out` as a flag: what a resumed run has for defaults."""
    configs = []
    for out in values_of(flags, "--out"):
        path = Path(out) / CONFIG
        if path.exists():
            read_run_config(Path(out))
            configs.append(f"--config={path}")
    return configs


def _named_parts(flags: Sequence[str]) -> set[str]:
    """Names of the arguments of `fit` that the flags and their configuration files set."""
    named = set()
    for flag in flags:
        if flag.startswith("--"):
            named.add(flag.removeprefix("--").split("=")[0])
    for path in values_of(flags, "--config"):
        named.update(read_config(path))
    return named


def values_of(flags: Sequence[str], name: str) -> list[str]:
    """Every value given to a flag, as `--name value` or `--name=value`."""
    values = []
    for flag, following in zip_longest(flags, flags[1:]):
        if flag == name and following is not None:
            values.append(following)
        elif flag.startswith(f"{name}="):
            values.append(flag.removeprefix(f"{name}="))
    return values


def without_files(flags: Sequence[str]) -> list[str]:
    """The flags that say something themselves: none that reads a configuration file, or prints one."""
    kept: list[str] = []
    is_value = False
    for flag in flags:
        name = flag.split("=")[0]
        is_file = name in ("--config", "--resume") or name.startswith("--print_config")
        if not is_file and not (is_value and not flag.startswith("--")):
            kept.append(flag)
        is_value = is_file and "=" not in flag
    return kept
