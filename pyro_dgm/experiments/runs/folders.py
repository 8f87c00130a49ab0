"""Run directories: a name that no other run has, and one owner at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ...files.errors import FileError, named
from ...files.locking import make_folder, owned
from ...files.manifest import NAME
from ...files.writing import older, sweep
from ...inference.training.checkpoints import fix_of_state
from .layout import CHECKPOINTS, CONFIG, ENVIRONMENT, METRICS, RESULTS, checkpoint_of

SIGNS_OF_A_RUN = (METRICS, RESULTS)


@contextmanager
def new_run(out: str | Path | None) -> Iterator[Path]:
    """A directory without a run, which no other process writes to meanwhile.

    What is refused before a first epoch has ended leaves nothing: the same command runs again once its cause is mended.

    Args:
        out: its name; default: one under `runs/` by the time, which no other run has.

    Raises:
        ValueError: for a directory that holds a run already.
        FileError: for one that another process owns, or that can't be written.
    """
    is_new = out is None or not Path(out).exists()
    folder = _make(out)
    try:
        with owned(folder):
            sweep(folder)
            if _holds_a_run(folder):
                raise ValueError(
                    f"expected a new run directory, got {folder}, which holds a run. "
                    f"Fix: pyro-dgm resume {folder}, or --out=NEW."
                )
            with _nothing_left(folder):
                yield folder
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def begun_run(folder: Path) -> Iterator[Path]:
    """The directory of a run that has begun, which no other process writes to meanwhile.

    Raises:
        FileError: for one without a configuration, that another process owns, or that can't be written.
    """
    if not (folder / CONFIG).exists():
        raise FileError(
            folder,
            "a run directory with config.yaml",
            "a folder without one" if folder.is_dir() else "no folder",
            "pyro-dgm resume RUN, the folder that pyro-dgm fit named",
        )
    with owned(folder):
        sweep(folder)
        sweep(folder / CHECKPOINTS)
        yield folder


def check_checkpoint(folder: Path, seed: int) -> bool:
    """Whether a seed has a checkpoint to go on from.

    Raises:
        FileError: if the newest is gone and the one before it is there.
    """
    checkpoint = checkpoint_of(folder, seed)
    if older(checkpoint).exists() and not checkpoint.exists():
        raise FileError(checkpoint, "the checkpoint of the run", "none", fix_of_state(checkpoint))
    return checkpoint.exists()


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Take back the files of a configuration whose run has not begun when an error ends it."""
    names = (CONFIG, ENVIRONMENT, NAME)
    written = [folder / name for name in names if not (folder / name).exists()]
    try:
        yield
    except BaseException:
        if not _holds_a_run(folder):
            for path in written:
                path.unlink(missing_ok=True)
            if (folder / CHECKPOINTS).is_dir() and not any((folder / CHECKPOINTS).iterdir()):
                (folder / CHECKPOINTS).rmdir()
        raise


def _holds_a_run(folder: Path) -> bool:
    has_sign = any((folder / name).exists() for name in SIGNS_OF_A_RUN)
    return has_sign or any((folder / CHECKPOINTS).glob("seed-*"))


def _make(out: str | Path | None) -> Path:
    """The directory named, or one that no other run has."""
    if out is None:
        return make_folder(Path(datetime.now().strftime("runs/%Y%m%d-%H%M%S")))
    with named(out, "write"):
        Path(out).mkdir(parents=True, exist_ok=True)
    return Path(out)
