"""The command line: built from the constructors, so that they are the configuration schema."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
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
from .defaults import add_defaults
from .runs import Results, Run, table

HELP = """Train a VAE, evaluate it on held-out data and write a run directory.

Without flags: the digits, with --vae=pyro_dgm.experiments.recipes.levels_vae, whose settings are
--vae.latent, --vae.hidden, --vae.layers, --vae.min_scale; for binary images
--vae=pyro_dgm.experiments.recipes.binary_vae with --vae.latent and --vae.hidden; or any composition
under pyro_dgm.VAE. Data: Digits, Idx (--data.folder), OpenML."""


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
            "expected one process, got several. Fix: call SVITrainer(objective).fit(x, epochs=150) "
            "in a script of your own under torchrun."
        )
    run = Run(_run_folder(out), vae.to(_find_device(device)), data)
    seconds = run.train(objective, trainer, epochs, batch_size, patience, seed, resume=resume)
    results = run.evaluate(num, limit, seed)
    _report(run, {**results, "seconds": seconds})
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
    loaded = _load(run, device)
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

    loaded = _load(run, device)
    path = loaded.folder / "samples.npy"
    np.save(path, loaded.draw(num, seed).cpu().numpy())
    print(f"{num} samples: {loaded.folder / 'samples.png'}, {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        # The parser looks each class up under its shortest path, pyro_dgm.Objective among them.
        warnings.filterwarnings("ignore", message=r"dgm\.\w+ has moved")
        _parse_and_run(arguments)


def _parse_and_run(arguments: list[str]) -> None:
    fit_parser = _fit_parser()
    parser = _command_parser(
        fit=fit_parser, evaluate=_function_parser(evaluate), sample=_function_parser(sample)
    )
    try:
        if arguments[:1] == ["fit"]:
            arguments = add_defaults(arguments)
        chosen = parser.parse_args(arguments)
        _run_command(chosen.subcommand, chosen[chosen.subcommand], fit_parser)
    except (ValueError, OSError) as error:
        parser.exit(2, f"pyro-dgm {arguments[0]}: {error}\n")


def _run_command(name: str, settings: Namespace, fit_parser: ArgumentParser) -> None:
    if name == "fit":
        settings = _prepare_run_folder(fit_parser, settings)
        fit(**_instantiate(fit_parser, settings))
    elif name == "evaluate":
        evaluate(**_keyword_arguments(settings))
    else:
        sample(**_keyword_arguments(settings))


def _command_parser(**subparsers: ArgumentParser) -> ArgumentParser:
    parser = ArgumentParser(
        prog="pyro-dgm",
        description="Deep generative models as Pyro programs.",
        version=__version__,
        allow_abbrev=False,
    )
    commands = parser.add_subcommands()
    for name, subparser in subparsers.items():
        commands.add_subcommand(name, subparser, help=_first_line(subparser.description))
    return parser


def _function_parser(function: Callable[..., None]) -> ArgumentParser:
    parser = ArgumentParser(description=_first_line(function.__doc__), allow_abbrev=False)
    parser.add_function_arguments(function, as_positional=True)
    return parser


def _fit_parser() -> ArgumentParser:
    parser = ArgumentParser(description=HELP, allow_abbrev=False)
    config_help = "a configuration file, such as config.yaml of a run"
    parser.add_argument("--config", action="config", help=config_help)
    parser.add_function_arguments(fit)
    return parser


def _first_line(text: str | None) -> str:
    return (text or "").split("\n")[0]


def _prepare_run_folder(parser: ArgumentParser, settings: Namespace) -> Namespace:
    """Settle the run directory and write the configuration that repeats the run.

    Raises:
        ValueError: for a count below 1, a resume without a checkpoint or with another model or other
            data, and for a directory that holds a run already.
    """
    settings = settings.clone()
    folder = _run_folder(settings.out)
    settings.out = str(folder)
    require_positive(epochs=settings.epochs, batch_size=settings.batch_size, num=settings.num)
    if settings.resume:
        _check_resume(parser, settings, folder)
    elif (folder / "checkpoint.pt").exists():
        raise ValueError(
            f"expected a new run directory, got {folder}, which holds a run. "
            "Fix: --resume=true, or --out=NEW."
        )
    folder.mkdir(parents=True, exist_ok=True)
    parser.save(settings, folder / "config.yaml", overwrite=True)
    return settings


def _check_resume(parser: ArgumentParser, settings: Namespace, folder: Path) -> None:
    """A checkpoint fits the model and data that it was written with, and no other."""
    if not (folder / "checkpoint.pt").exists():
        raise ValueError(
            f"expected a checkpoint to resume, got none in {folder}. "
            "Fix: --out=RUN of an earlier fit."
        )
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    given = yaml.safe_load(parser.dump(settings))
    for part in ("vae", "data"):
        if stored[part] != given[part]:
            raise ValueError(
                f"expected the run's own {part} to resume it, {stored[part]}; got {given[part]}. "
                f"Fix: drop the --{part} flags, or start anew with --out=NEW."
            )


def _instantiate(parser: ArgumentParser, settings: Namespace) -> dict[str, Any]:
    """The arguments of `fit`, with the weights that the seed decides."""
    torch.manual_seed(settings.seed)
    return _keyword_arguments(parser.instantiate(settings))


def _keyword_arguments(settings: Namespace) -> dict[str, Any]:
    arguments = dict(vars(settings))
    arguments.pop("config", None)
    arguments.pop("subcommand", None)
    return arguments


def _load(folder: str, device: str | None) -> Run:
    """The run of a directory, with its weights."""
    path = Path(folder) / "config.yaml"
    if not path.exists():
        raise ValueError(
            f"expected a run directory with config.yaml, got {folder}. "
            "Fix: a folder that pyro-dgm fit wrote, such as runs/20260131-120000."
        )
    parser = _fit_parser()
    arguments = _instantiate(parser, parser.parse_path(path))
    if not (path.parent / "weights.safetensors").exists():
        raise ValueError(
            f"expected weights.safetensors in {folder}, got none: its training did not end. "
            f"Fix: --resume=true, as in pyro-dgm fit --out={folder} --resume=true."
        )
    run = Run(Path(folder), arguments["vae"].to(_find_device(device)), arguments["data"])
    run.load()
    return run


def _report(run: Run, results: Results) -> None:
    """Print the results, and write them over those that the run directory holds."""
    path = run.folder / "results.json"
    earlier = json.loads(path.read_text()) if path.exists() else {}
    merged = {**earlier, **results}
    path.write_text(json.dumps(merged, indent=2) + "\n")
    print(table(merged))


def _find_device(name: str | None) -> torch.device:
    """The device of that name, or the GPU if there is one; it is tried, so that a mistake shows at once."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"expected a device of this machine, got --device={name} ({reason}). Fix: --device=cpu."
        ) from error
    return device


def _run_folder(out: str | None) -> Path:
    return Path(out or datetime.now().strftime("runs/%Y%m%d-%H%M%S"))
