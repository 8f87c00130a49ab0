"""Run directories: a name that no other run has, one owner at a time, and the configuration that repeats the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, Namespace

from ..files.errors import FileError, named
from ..files.locking import make_folder, owned
from ..files.manifest import NAME, Manifest
from ..files.writing import older, sweep
from ..inference.run.sessions import require_positive
from ..inference.training.checkpoints import fix_of_state
from .configurations import CONFIG, read_run_config
from .runs import CHECKPOINT, METRICS, RESULTS, WEIGHTS

PARTS_OF_A_RUN = ("vae", "data", "objective", "trainer", "batch_size", "seed")
SIGNS_OF_A_RUN = (CHECKPOINT, WEIGHTS, METRICS, RESULTS)


@contextmanager
def claim(settings: Namespace) -> Iterator[Path]:
    """The run directory, which no other process writes to meanwhile.

    What is refused before a first epoch has ended leaves nothing: the same command runs again once its cause is mended.

    Raises:
        ValueError: for a resume without a run, and for a directory that holds a run already.
    """
    if settings.resume and not (settings.out and (Path(settings.out) / CONFIG).exists()):
        raise ValueError(
            f"expected a checkpoint to resume, got none in {settings.out or 'a new folder'}. "
            "Fix: --out=RUN of an earlier fit."
        )
    is_new = settings.out is None or not Path(settings.out).exists()
    folder = run_folder(settings.out)
    try:
        with owned(folder):
            sweep(folder)
            if not settings.resume and _holds_a_run(folder):
                raise ValueError(
                    f"expected a new run directory, got {folder}, which holds a run. "
                    "Fix: --resume=true, or --out=NEW."
                )
            with _nothing_left(folder):
                yield folder
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Take back the files of a configuration whose run has not begun when an error ends it."""
    written = [path for path in (folder / CONFIG, folder / NAME) if not path.exists()]
    try:
        yield
    except BaseException:
        if not _holds_a_run(folder):
            for path in written:
                path.unlink(missing_ok=True)
        raise


def _holds_a_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in SIGNS_OF_A_RUN)


def prepare(parser: ArgumentParser, settings: Namespace, folder: Path) -> Namespace:
    """Write the configuration that repeats the run.

    Raises:
        ValueError: for a count below 1, and a resume with another model or other data.
    """
    settings = settings.clone()
    settings.out = str(folder)
    settings.pop("trust", None)
    require_positive(epochs=settings.epochs, batch_size=settings.batch_size, num=settings.num)
    if settings.resume:
        _check_resume(parser, settings, folder)
    recorded = settings.clone()
    recorded.resume = False  # another run that is made by this configuration begins anew
    config = parser.dump(recorded)
    Manifest(folder).write(CONFIG, config.encode())
    return settings


def _check_resume(parser: ArgumentParser, settings: Namespace, folder: Path) -> None:
    """A checkpoint goes on with what it was written with, and with nothing else."""
    checkpoint = folder / CHECKPOINT
    if older(checkpoint).exists() and not checkpoint.exists():
        raise FileError(checkpoint, "the checkpoint of the run", "none", fix_of_state(checkpoint))
    stored = read_run_config(folder)
    given = yaml.safe_load(parser.dump(settings))
    for part in PARTS_OF_A_RUN:
        if stored.get(part) != given[part]:
            raise ValueError(
                f"expected the run's own {part} to resume it, {stored.get(part)}; got {given[part]}. "
                f"Fix: drop the --{part} flags, or start anew with --out=NEW."
            )


def run_folder(out: str | None) -> Path:
    """The directory named, or one that no other run has."""
    if out is None:
        return make_folder(Path(datetime.now().strftime("runs/%Y%m%d-%H%M%S")))
    with named(out, "write"):
        Path(out).mkdir(parents=True, exist_ok=True)
    return Path(out)
