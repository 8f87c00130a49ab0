"""The command line: built from the constructors, so that they are the configuration schema."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from .. import __version__
from ..inference.objectives.elbo import ELBO, Objective
from ..inference.run.sessions import require_positive
from ..inference.training.svi import SVITrainer
from ..programs.vae import VAE
from .data import Data
from .runs import Run, table

HELP = """Train a VAE, evaluate it on held-out data and write a run directory.

Without flags: the digits, with --vae=pyro_dgm.experiments.recipes.levels_vae, whose settings are --vae.latent,
--vae.hidden, --vae.layers, --vae.min_scale; for binary images --vae=pyro_dgm.experiments.recipes.binary_vae with
--vae.latent and --vae.hidden; or any composition under pyro_dgm.VAE. Data: Digits, Idx (--data.folder), OpenML."""

DEFAULTS = {
    "vae": ["--vae=pyro_dgm.experiments.recipes.levels_vae"],
    "data": ["--data=pyro_dgm.experiments.data.Digits"],
    "objective": ["--objective=pyro_dgm.ELBO"],
    "trainer": ["--trainer=pyro_dgm.SVITrainer", "--trainer.lr=2e-3", "--trainer.ema=0.99"],
}


def fit(
    vae: VAE,
    data: Data,
    objective: Callable[[nn.Module, nn.Module], Objective] = ELBO,
    trainer: Callable[[Objective], SVITrainer] = SVITrainer,
    epochs: int = 150,
    batch_size: int = 100,
    patience: int | None = None,
    num: int = 1000,
    limit: int | None = None,
    out: str | None = None,
    device: str | None = None,
    seed: int = 0,
    resume: bool = False,  # noqa: FBT001, FBT002
) -> None:
    """Train a VAE, evaluate it on held-out data and write a run directory.

    Args:
        vae: the model and its guide: `pyro_dgm.VAE`, or a function that returns one.
        data: the data: `Digits`, `Idx`, `OpenML` of `pyro_dgm.experiments.data`.
        objective: what is minimized, without its model and guide.
        trainer: the trainer, without its objective.
        epochs: epochs in all; the weights of the best validation epoch are kept.
        batch_size: data per step.
        patience: stop after so many epochs without a better validation −ELBO.
        num: importance draws per test datum.
        limit: score only so many test data.
        out: run directory; default `runs/<time>`.
        device: default: the GPU if there is one.
        seed: of weights, noise and order.
        resume: go on from `out/checkpoint.pt`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "expected one process, got several. Fix: SVITrainer in a script of your own under torchrun."
        )
    run = Run(_folder(out), vae.to(_device(device)), data)
    seconds = run.train(objective, trainer, epochs, batch_size, patience, seed, resume=resume)
    _report(run, {**run.evaluate(num, limit, seed), "seconds": seconds})
    run.draw(64, seed)
    run.describe(seed)
    print(f"\nRun directory: {run.folder}")


def evaluate(
    run: str, num: int = 1000, limit: int | None = None, device: str | None = None, seed: int = 0
) -> None:
    """Score a run on its test data again.

    Args:
        run: a run directory.
        num: importance draws per test datum.
        limit: score only so many test data.
        device: default: the GPU if there is one.
        seed: of the draws.
    """
    loaded = _loaded(run, device)
    _report(loaded, loaded.evaluate(num, limit, seed))


def sample(run: str, num: int = 64, device: str | None = None, seed: int = 0) -> None:
    """Draw data from a run's model: `samples.png` and `samples.npy` in its directory.

    Args:
        run: a run directory.
        num: how many data.
        device: default: the GPU if there is one.
        seed: of the draws.
    """
    import numpy as np

    loaded = _loaded(run, device)
    np.save(loaded.folder / "samples.npy", loaded.draw(num, seed).cpu().numpy())
    print(f"{num} samples: {loaded.folder / 'samples.png'}, {loaded.folder / 'samples.npy'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = ArgumentParser(
        prog="pyro-dgm",
        description="Deep generative models as Pyro programs.",
        version=__version__,
        allow_abbrev=False,
    )
    commands = parser.add_subcommands()
    parsers = {"fit": _fit_parser(), "evaluate": _parser(evaluate), "sample": _parser(sample)}
    for name, subparser in parsers.items():
        commands.add_subcommand(name, subparser, help=(subparser.description or "").split("\n")[0])
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        chosen = parser.parse_args(_completed(arguments) if arguments[:1] == ["fit"] else arguments)
        settings = chosen[chosen.subcommand]
        if chosen.subcommand == "fit":
            settings = _recorded(parsers["fit"], settings)
            fit(**_instantiated(parsers["fit"], settings))
        elif chosen.subcommand == "evaluate":
            evaluate(**_arguments(settings))
        else:
            sample(**_arguments(settings))
    except (ValueError, OSError) as error:
        parser.exit(2, f"pyro-dgm {arguments[0]}: {error}\n")


def _parser(function: Callable) -> ArgumentParser:
    parser = ArgumentParser(description=(function.__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_function_arguments(function, as_positional=True)
    return parser


def _fit_parser() -> ArgumentParser:
    parser = ArgumentParser(description=HELP, allow_abbrev=False)
    parser.add_argument(
        "--config", action="config", help="a configuration file, such as config.yaml of a run"
    )
    parser.add_function_arguments(fit)
    return parser


def _completed(arguments: Sequence[str]) -> list[str]:
    """The arguments of `fit` with a class for each part that neither a flag nor a configuration file names.

    Parser defaults would not do: their settings would leak into another class that is named instead.
    """
    command, *flags = arguments
    if "true" in _values(flags, "--resume"):  # a resumed run has its own settings as defaults
        stored = [Path(out) / "config.yaml" for out in _values(flags, "--out")]
        flags = [*(f"--config={config}" for config in stored if config.exists()), *flags]
    given = {flag.split("=")[0].removeprefix("--") for flag in flags if flag.startswith("--")}
    for path in _values(flags, "--config"):
        given |= set(yaml.safe_load(Path(path).read_text()) or {})
    return [
        command,
        *(flag for part, default in DEFAULTS.items() if part not in given for flag in default),
        *flags,
    ]


def _values(flags: Sequence[str], name: str) -> list[str]:
    """Every value given to a flag, as `--name value` or `--name=value`."""
    apart = [value for flag, value in pairwise(flags) if flag == name]
    return apart + [flag.removeprefix(f"{name}=") for flag in flags if flag.startswith(f"{name}=")]


def _recorded(parser: ArgumentParser, settings: Namespace) -> Namespace:
    """Settle the run directory and write the configuration that repeats the run."""
    settings, folder = settings.clone(), _folder(settings.out)
    settings.out = str(folder)
    require_positive(epochs=settings.epochs, batch_size=settings.batch_size, num=settings.num)
    if settings.resume and not (folder / "checkpoint.pt").exists():
        raise ValueError(
            f"expected a checkpoint to resume, got none in {folder}. Fix: --out=RUN of an earlier fit."
        )
    if settings.resume:
        _refuse_other_parts(parser, settings, folder / "config.yaml")
    if (folder / "checkpoint.pt").exists() and not settings.resume:
        raise ValueError(
            f"expected a new run directory, got {folder}, which holds a run. Fix: --resume=true, or --out=NEW."
        )
    folder.mkdir(parents=True, exist_ok=True)
    parser.save(settings, folder / "config.yaml", overwrite=True)
    return settings


def _refuse_other_parts(parser: ArgumentParser, settings: Namespace, path: Path) -> None:
    """A checkpoint fits the model and data that it was written with, and no other."""
    stored, wanted = yaml.safe_load(path.read_text()), yaml.safe_load(parser.dump(settings))
    for part in ("vae", "data"):
        if stored[part] != wanted[part]:
            raise ValueError(
                f"expected the run's own {part} to resume it, {stored[part]}; got {wanted[part]}. "
                f"Fix: drop the --{part} flags, or start anew with --out=NEW."
            )


def _instantiated(parser: ArgumentParser, settings: Namespace) -> dict[str, Any]:
    torch.manual_seed(settings.seed)
    return _arguments(parser.instantiate(settings))


def _arguments(settings: Namespace) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(settings).items()
        if name not in ("config", "subcommand")
    }


def _loaded(folder: str, device: str | None) -> Run:
    """The run of a directory, with its weights."""
    path = Path(folder) / "config.yaml"
    if not path.exists():
        raise ValueError(
            f"expected a run directory with config.yaml, got {folder}. Fix: a folder that fit wrote, such as runs/…."
        )
    parser = _fit_parser()
    arguments = _instantiated(parser, parser.parse_path(path))
    if not (path.parent / "weights.safetensors").exists():
        raise ValueError(
            f"expected weights.safetensors in {folder}, got none: its training did not end. Fix: --resume=true."
        )
    run = Run(Path(folder), arguments["vae"].to(_device(device)), arguments["data"])
    run.load()
    return run


def _report(run: Run, results: dict) -> None:
    path = run.folder / "results.json"
    results = {**(json.loads(path.read_text()) if path.exists() else {}), **results}
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"expected a device of this machine, got --device={name} ({first.rstrip('.')}). Fix: --device=cpu."
        ) from error
    return device


def _folder(out: str | None) -> Path:
    return Path(out or datetime.now().strftime("runs/%Y%m%d-%H%M%S"))
