"""The command line: built from the constructors, so that they are the configuration schema."""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from .. import __version__
from ..files.manifest import Manifest
from ..files.records import read_records
from ..files.writing import write_file
from ..inference.objectives.elbo import ELBO, Objective
from ..inference.process.distributed import rank_and_world
from ..inference.run.sessions import require_positive
from ..inference.training.svi import SVITrainer
from ..programs.vae import VAE
from .configurations import CONFIG, build_parts, instantiate, read_run_config
from .data.datasets import Data
from .defaults import add_defaults, without_files
from .folders import run_folder
from .kinds import check_kinds
from .processes import claimed, default_device, on_rank_zero, process_group, rank_zero_first
from .runs import RESULTS, WEIGHTS, Run, table
from .trust import only_trusted, take_trust, trusted_by, with_fix

TRUST_HELP = "a module that a configuration file or a run directory may name; --trust=a --trust=b"
HELP = """Train a VAE, evaluate it on held-out data and write a run directory.

Without flags: the digits, with --vae=pyro_dgm.experiments.recipes.compositions.levels_vae, whose settings are
--vae.latent, --vae.hidden, --vae.layers, --vae.min_scale; for binary images
--vae=pyro_dgm.experiments.recipes.compositions.binary_vae with --vae.latent and --vae.hidden; or any composition
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
        device: default: the GPU if there is one, under torchrun that of each process.
        seed: of weights, noise and order.
        resume: go on from `out/checkpoint.pt`.
    """
    run = Run(run_folder(out), vae.to(_find_device(device)), data)
    run.check(limit)
    history = run.train(objective, trainer, epochs, batch_size, patience, seed, resume=resume)
    results = {**run.evaluate(num, limit, seed), "seconds": sum(history.column("seconds"))}
    with on_rank_zero() as is_writing:
        if is_writing:
            print(table(results), flush=True)  # before anything is written, which may find no room
            run.save(history)
            run.record(results, command="fit", num=num, limit=limit, seed=seed)
            run.draw(64, seed)
            run.describe(seed)
            print(f"\nRun directory: {run.folder}")


def evaluate(
    run: str,
    num: int = 1000,
    limit: int | None = None,
    device: str | None = None,
    seed: int = 0,
    trust: Sequence[str] = (),
) -> None:
    """Score a run on its test data again: a row of `results.jsonl`.

    Args:
        run: a run directory.
        num: importance draws per test datum.
        limit: score only so many test data.
        device: default: the GPU if there is one.
        seed: of the draws.
        trust: modules other than pyro_dgm, torch and pyro that its configuration may name.
    """
    require_positive(num=num)
    loaded = _load(run, device, trust)
    loaded.check(limit)
    read_records(loaded.folder / RESULTS)  # damaged ones are named before the work
    results = loaded.evaluate(num, limit, seed)
    with on_rank_zero() as is_writing:
        if is_writing:
            print(table(results), flush=True)
            loaded.record(results, command="evaluate", num=num, limit=limit, seed=seed)


def sample(
    run: str,
    num: int = 64,
    device: str | None = None,
    seed: int = 0,
    trust: Sequence[str] = (),
) -> None:
    """Draw data from a run's model: `sample.png` and `samples.npy` in its directory.

    Args:
        run: a run directory.
        num: how many data.
        device: default: the GPU if there is one.
        seed: of the draws.
        trust: modules other than pyro_dgm, torch and pyro that its configuration may name.
    """
    import numpy as np

    require_positive(num=num)
    with on_rank_zero() as is_writing:
        if is_writing:
            loaded = _load(run, device, trust)
            buffer = BytesIO()
            np.save(buffer, loaded.draw(num, seed, "sample.png").cpu().numpy())
            path = loaded.folder / "samples.npy"
            write_file(path, buffer.getbuffer())
            print(f"{num} samples: {loaded.folder / 'sample.png'}, {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        # The parser looks each class up under its shortest path, pyro_dgm.Objective among them.
        warnings.filterwarnings("ignore", message=r"dgm\.\w+ has moved")
        with process_group():
            if rank_and_world()[0] > 0:
                warnings.simplefilter("ignore")  # rank 0 says it
            _parse_and_run(arguments)


def _parse_and_run(arguments: list[str]) -> None:
    arguments, trust = take_trust(arguments)
    fit_parser = _fit_parser()
    parser = _command_parser(
        fit=fit_parser, evaluate=_function_parser(evaluate), sample=_function_parser(sample)
    )
    try:
        if arguments[:1] == ["fit"]:
            named = add_defaults(["fit", *without_files(arguments[1:])])
            trust = [*trust, *trusted_by(lambda: fit_parser.parse_args(named[1:]), named)]
            arguments = add_defaults(arguments)
        with only_trusted(trust):
            chosen = parser.parse_args(arguments)
            _run_command(chosen.subcommand, chosen[chosen.subcommand], fit_parser, trust)
    except (ArgumentError, ValueError, OSError) as error:
        said = f"pyro-dgm {' '.join(arguments[:1])}: {with_fix(str(error))}\n"
        parser.exit(2, said if rank_and_world()[0] == 0 else None)


def _run_command(
    name: str, settings: Namespace, fit_parser: ArgumentParser, trust: Sequence[str]
) -> None:
    if name == "fit":
        check_kinds(settings, fit)
        with claimed(fit_parser, settings) as claimed_settings:
            fit(**rank_zero_first(lambda: _instantiate(fit_parser, claimed_settings)))
    elif name == "evaluate":
        evaluate(**_keyword_arguments(settings), trust=trust)
    else:
        sample(**_keyword_arguments(settings), trust=trust)


def _command_parser(**subparsers: ArgumentParser) -> ArgumentParser:
    parser = ArgumentParser(
        prog="pyro-dgm",
        description="Deep generative models as Pyro programs.",
        version=__version__,
        allow_abbrev=False,
        exit_on_error=False,
    )
    commands = parser.add_subcommands()
    for name, subparser in subparsers.items():
        commands.add_subcommand(name, subparser, help=_first_line(subparser.description))
    return parser


def _function_parser(function: Callable[..., None]) -> ArgumentParser:
    parser = ArgumentParser(
        description=_first_line(function.__doc__), allow_abbrev=False, exit_on_error=False
    )
    parser.add_function_arguments(function, as_positional=True, skip={"trust"})
    parser.add_argument("--trust", help=TRUST_HELP)
    return parser


def _fit_parser() -> ArgumentParser:
    parser = ArgumentParser(description=HELP, allow_abbrev=False, exit_on_error=False)
    config_help = "a configuration file, such as config.yaml of a run"
    parser.add_argument("--config", action="config", help=config_help)
    parser.add_function_arguments(fit)
    parser.add_argument("--trust", help=TRUST_HELP)
    return parser


def _first_line(text: str | None) -> str:
    return (text or "").split("\n")[0]


def _instantiate(parser: ArgumentParser, settings: Namespace) -> dict[str, Any]:
    """The arguments of `fit`, with the weights that the seed decides."""
    torch.manual_seed(settings.seed)
    built = instantiate(parser, settings, ("vae", "data", "objective", "trainer"))
    return {**_keyword_arguments(settings), **built}


def _keyword_arguments(settings: Namespace) -> dict[str, Any]:
    arguments = dict(vars(settings))
    for name in ("config", "subcommand", "trust"):
        arguments.pop(name, None)
    return arguments


def _load(run: str, device: str | None, trust: Sequence[str]) -> Run:
    """The run of a directory, with its weights: its model and its data, and nothing else of its configuration."""
    folder = Path(run)
    config = read_run_config(folder)
    if not (folder / WEIGHTS).exists():
        raise ValueError(
            f"expected weights.safetensors in {folder}, got none: its training did not end. "
            f"Fix: --resume=true, as in pyro-dgm fit --out={folder} --resume=true."
        )
    for path in Manifest(folder).changed():
        warnings.warn(
            f"{path}: expected the bytes that were written, got others. "
            f"Fix: pyro-dgm fit --out={folder} --resume=true.",
            stacklevel=2,
        )
    vae, data = build_parts(config, folder / CONFIG, trust)
    loaded = Run(folder, vae.to(_find_device(device)), data)
    loaded.load()
    return loaded


def _find_device(name: str | None) -> torch.device:
    """The device of that name, or the GPU if there is one; it is tried, so that a mistake shows at once."""
    if name is None:
        name = default_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"expected a device of this machine, got --device={name} ({reason}). Fix: --device=cpu."
        ) from error
    return device
