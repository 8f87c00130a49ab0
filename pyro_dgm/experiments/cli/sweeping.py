"""`pyro-dgm sweep`, whose flags are what is searched, the places of an experiment, and its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..configuration.experiment import schema
from ..configuration.wanted import places_of
from ..sweeps.table import Sweep
from ..verbs.sweeping import run_sweep, sweep
from .flags import refuse_misspelt, split_flags
from .signatures import told_arguments

OVER = "over."
NUMBERS = ("num", "seed", "evaluate_best")
WORDS = ("out", "device", "storage")
SWITCHES = ("optuna", "quiet", "json")


def sweep_of_flags(arguments: Sequence[str], say: Callable[[str], None]) -> tuple[Sweep, bool]:
    """The sweep that a command line asks for, and whether as JSON.

    Args:
        arguments: behind `pyro-dgm sweep`.
        say: told in a line what is going on.

    Raises:
        ValueError: as `sweep`.
    """
    source, flags, own = split_flags(arguments, (OVER, *NUMBERS, *WORDS), SWITCHES)
    refuse_misspelt(flags, places_of(schema, ""), own, "sweep")
    over = {name.removeprefix(OVER): own[name] for name in own if name.startswith(OVER)}
    is_quiet = bool(own["quiet"] or own["json"])
    options: dict[str, Any] = {}
    for name in (*NUMBERS, *WORDS):
        if own[name] is not None:
            options[name] = _number(name, own[name]) if name in NUMBERS else own[name]
    found = run_sweep(
        source,
        flags,
        (),
        over=over,
        optuna=bool(own["optuna"]),
        progress=not is_quiet,
        say=(lambda line: None) if is_quiet else say,
        **options,
    )
    return found, bool(own["json"])


def help_of_sweep() -> str:
    """What `pyro-dgm sweep --help` says."""
    told = told_arguments(sweep)
    lines = [
        "usage: pyro-dgm sweep [EXPERIMENT] --over.PLACE=VALUES … [--PLACE=VALUE …] [--out=FOLDER] [--num=N]",
        "",
        (inspect.getdoc(sweep) or "").partition("\n")[0],
        "",
        "  --over.model.latent=4,8,16          a list; lists alone are every combination",
        "  --over.trainer.lr=1e-4..1e-2:log    a range, even in the logarithm; integers where both ends are",
        "",
    ]
    for name in ("num", "optuna", "storage", "evaluate_best", "seed", "out", "device"):
        lines.append(f"  --{name:<14} {told[name]}")
    lines += [
        "  --quiet, --json  no bars; rows of JSON",
        "",
        "Other flags change the experiment for all trials, as in fit. More workers: the same command with one --out:",
        "  sbatch --array=0-7 --wrap 'pyro-dgm sweep digits --over.model.latent=4,8,16 --out=runs/sweep'",
    ]
    return "\n".join(lines)


def _number(name: str, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(
            f"{name}: expected a whole number, got '{word}'. Fix: --{name}=20."
        ) from None
