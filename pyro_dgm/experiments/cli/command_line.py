"""The command line: built from the signatures of the verbs and the constructors of what they take."""

from __future__ import annotations

import inspect
import json
import shlex
import signal
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ... import __version__
from ...display.progress import bars
from ...display.tabular import Tabular
from ...inference.process.distributed import rank_and_world
from ..configuration.arguments import read_experiment
from ..configuration.experiment import schema
from ..configuration.trust import with_fix
from ..configuration.wanted import places_of
from ..runs.folders import new_run
from ..runs.processes import find_device, process_group
from ..runs.results import table
from ..runs.run import Run
from ..spelling import nearest
from ..verbs.comparing import compare
from ..verbs.evaluating import evaluate
from ..verbs.exporting import export
from ..verbs.fitting import fit, resume, run_experiment
from ..verbs.ready import recipes
from ..verbs.reporting import report
from ..verbs.sampling import sample
from ..verbs.sweeping import sweep
from .flags import normalise, refuse_misspelt, split_flags
from .settings import asks_for_help, help_of_part
from .signatures import call, command_parser, parse_command, told_arguments
from .sweeping import help_of_sweep, sweep_of_flags

VERBS: dict[str, Callable[..., Any]] = {
    "fit": fit,
    "resume": resume,
    "evaluate": evaluate,
    "sample": sample,
    "compare": compare,
    "report": report,
    "sweep": sweep,
    "export": export,
    "recipes": recipes,
}
# Flags of fit, beside those of its experiment.
OWN_VALUES = ("out", "device")
OWN_SWITCHES = ("quiet", "json", "print_config")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings(), process_group():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        if rank_and_world()[0] > 0:
            warnings.simplefilter("ignore")  # rank 0 says it
        _run(given)


def _run(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return
    if name == "--version":
        print(f"pyro-dgm {__version__}")
        return
    try:
        with terminable():
            _run_verb(name, normalise(arguments[1:]))
    except KeyboardInterrupt as stop:
        code = 143 if isinstance(stop, Terminated) else 130
        _end(code, f"pyro-dgm {name}: stopped. {' '.join(map(str, stop.args))}".rstrip())
    except (ArgumentError, ValueError, OSError, ImportError) as error:
        _end(2, f"pyro-dgm {name}: {with_fix(str(error)).removeprefix(f'{name}: ')}")
    except TypeError as error:  # of a value; any other is a mistake of this package
        if "Fix:" not in str(error):
            raise
        _end(2, f"pyro-dgm {name}: {error}")


def _run_verb(name: str, arguments: list[str]) -> None:
    if name not in VERBS:
        near = nearest(name, VERBS)
        fix = f"pyro-dgm {near}" if near else "pyro-dgm --help"
        if name.startswith("--"):
            fix = f"pyro-dgm fit {shlex.join([name, *arguments])}"
        raise ValueError(f"expected a verb first: {', '.join(VERBS)}; got '{name}'. Fix: {fix}.")
    if name == "fit":
        _fit(arguments)
        return
    if name == "sweep":
        _sweep(arguments)
        return
    is_json = "--json" in arguments
    is_quiet = is_json or "--quiet" in arguments
    words = [word for word in arguments if word not in ("--json", "--quiet")]
    parser = command_parser(name, VERBS[name])
    with bars(shown=not is_quiet):
        result = call(VERBS[name], parse_command(parser, words))
    if rank_and_world()[0] == 0:
        _show(result, is_json=is_json)


def _fit(arguments: list[str]) -> None:
    """`fit`, whose flags are the places of an experiment."""
    if any(word in ("-h", "--help") for word in arguments):
        print(_help_of_fit())
        return
    if any(map(asks_for_help, arguments)):
        print(help_of_part(arguments))
        return
    source, flags, own = split_flags(arguments, OWN_VALUES, OWN_SWITCHES)
    refuse_misspelt(flags, places_of(schema, ""), own, "fit")
    experiment = read_experiment(source, flags)
    if own["print_config"]:
        print(experiment.dump(), end="")
        return
    is_quiet = bool(own["quiet"] or own["json"])
    run = run_experiment(
        experiment,
        new_run(own["out"]),
        find_device(own["device"]),
        progress=not is_quiet,
        say=(lambda line: None) if is_quiet else _say,
    )
    if rank_and_world()[0] == 0:
        _show(run, is_json=bool(own["json"]))


def _sweep(arguments: list[str]) -> None:
    """`sweep`, whose flags are what it searches, and the places of an experiment."""
    if any(word in ("-h", "--help") for word in arguments):
        print(help_of_sweep())
        return
    found, is_json = sweep_of_flags(arguments, _say)
    _show(found, is_json=is_json)


def _show(result: Any, *, is_json: bool = False) -> None:
    """What a verb found, for people, or as rows of JSON."""
    if is_json:
        print(_as_json(result))
    elif isinstance(result, Run):
        print(table(result.own_results), flush=True)
        print(f"\nRun directory: {result.folder}")
    elif isinstance(result, list):
        print(table(result), flush=True)
    elif isinstance(result, Tabular):
        print(result, flush=True)
    elif isinstance(result, Path):
        print(f"Written: {result}")
    elif result is not None:
        print(f"{len(result)} samples: samples.npy and sample.png of the run directory")


def _as_json(result: Any) -> str:
    if isinstance(result, Run):
        result = result.own_results
    if isinstance(result, Tabular):
        return str(result.to_dataframe().to_json(orient="records", lines=True)).rstrip()
    if isinstance(result, list):
        return "\n".join(json.dumps(row) for row in result)
    if isinstance(result, Path):
        return json.dumps({"written": str(result)})
    return json.dumps({"num": len(result)})


def _show_warning(message: Warning | str, *_: Any) -> None:
    """A warning as one line, without the place in the code, which says nothing to who did not write it."""
    print(f"warning: {message}", file=sys.stderr)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _end(code: int, said: str) -> None:
    if rank_and_world()[0] == 0:
        print(said, file=sys.stderr)
    raise SystemExit(code)


class Terminated(KeyboardInterrupt):
    """The process was asked to end."""


@contextmanager
def terminable() -> Iterator[None]:
    """A request to end, as a cluster sends it before it kills, is an interrupt while this lasts."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, which alone takes signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _help() -> str:
    lines = ["usage: pyro-dgm VERB …", "", "Deep generative models as Pyro programs.", ""]
    for name, function in VERBS.items():
        first = (inspect.getdoc(function) or "").partition("\n")[0]
        lines.append(f"  {name:<10} {first}")
    lines += ["", "pyro-dgm VERB --help says more; pyro-dgm --version."]
    return "\n".join(lines)


def _help_of_fit() -> str:
    lines = [
        "usage: pyro-dgm fit [EXPERIMENT] [--PLACE=VALUE …] [--out=FOLDER] [--device=NAME] [--quiet] [--json]",
        "",
        (inspect.getdoc(fit) or "").partition("\n")[0],
        "",
        "EXPERIMENT is a name that `pyro-dgm recipes` lists, or a YAML file; default: digits.",
        "",
    ]
    for name, told in told_arguments(schema).items():
        lines.append(f"  --{name:<12} {told}")
    lines += [
        "",
        "  --model.prior.layers=4      a setting of a part",
        "  --model.help, --model.prior.help    what a place takes",
        "  --model.prior.help=FlowPrior        the settings of a class",
        "  --data=PATH                 own data: a file or a folder",
        "  --model=mymodel.py:Name     an own program",
        "  --print_config              the whole experiment as YAML, and nothing done",
        "  --trust=MODULE              a module of yours that a file may name",
    ]
    return "\n".join(lines)
