"""Particles as rows: a program that is run on K·N rows, while all handlers around it see K particles of N data."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn

from ...contract import DATA, PARTICLES, PyroProgram
from ..data.tensors import has_rows, repeat_rows
from ..sites.kinds import is_deterministic
from .counting import num_rows
from .folding import Fold, folded


class ByRows(nn.Module):
    """A program that never sees a dim of particles: inside their plate its data are repeated, K times N rows.

    Handlers outside, such as a trace, a replay or a condition, see its sites as any other program's: `(K, …, N)`.
    Outside a plate of particles it is the program itself.

    Args:
        program: any program whose rows do not depend on each other.
        size: size of its data plate where it subsamples a full set of known size.
    """

    def __init__(self, program: PyroProgram, size: int | None = None):
        super().__init__()
        self.program = program
        self.size = size

    def forward(self, *batch: Any) -> Any:
        """Run the program; see `PyroProgram`."""
        plate = enclosing_plate()
        if plate is None:
            return self.program(*batch)
        rows = num_rows(batch)
        fold = Fold(plate.size, rows or 1, -plate.dim - 1)
        with _RowsAsParticles(fold, rows is not None, self.size) as messenger:
            return messenger.returned(self.program(*messenger.repeated(batch)))


class OneAtATime(nn.Module):
    """A program that can't be run on several particles at once: it refuses their plate, and is else itself."""

    def __init__(self, program: PyroProgram):
        super().__init__()
        self.program = program

    def forward(self, *batch: Any) -> Any:
        """Run the program; see `PyroProgram`."""
        if enclosing_plate() is None:
            return self.program(*batch)
        raise ValueError(
            f"{type(self.program).__name__}: expected networks that mean the same on K draws per datum, as (K, N, …) "
            "or as K N rows, got another result or an error from both. Fix: join inputs with Concat(net)(x, z) in "
            "place of torch.cat, index dims from the right, and no tensors of a fixed number of data in the programs; "
            "num_particles=1 trains without."
        )


def alone(program: Any) -> Any:
    """A program by itself, without what takes a plate of particles for it."""
    return program.program if isinstance(program, (ByRows, OneAtATime)) else program


def enclosing_plate() -> Any:
    """The innermost plate of particles around the call, or `None`."""
    for handler in reversed(_PYRO_STACK):
        if isinstance(handler, pyro.plate) and handler.name == PARTICLES:
            return handler
    return None


class _RowsAsParticles(Messenger):
    """Right around a program of K·N rows, it shows each site to the handlers outside as one of K particles.

    Args:
        fold: how rows and particles belong together.
        from_data: whether the arguments tell the number of rows.
        size: of the full set, if a plate subsamples it.
    """

    def __init__(self, fold: Fold, from_data: bool, size: int | None):  # noqa: FBT001
        super().__init__()
        self.fold = fold
        self.from_data = from_data
        self.size = size
        self._arguments: list[tuple[Tensor, Tensor]] = []  # repeated, and as it was
        self._values: list[tuple[Tensor, Tensor]] = []  # of rows, and of particles
        self._shapes: dict[str, Any] = {}
        self._given: dict[str, Tensor] = {}

    def repeated(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, each datum K times, one copy of all data after the other."""
        values = []
        for value in batch:
            repeated = repeat_rows(value, self.fold.num)
            if has_rows(value):
                self._arguments.append((repeated, value))
            values.append(repeated)
        return tuple(values)

    def returned(self, value: Any) -> Any:
        """What the program returned, with a dim of particles."""
        for rows, particles in self._values:
            if rows is value:
                return particles
        if isinstance(value, Tensor) and value.dim() > 0:
            return self.fold.fold(value, 1, value.dim() - 1)
        return value

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample):
            self._resize(msg)
        elif isinstance(msg["fn"], TorchDistributionMixin):
            self._fold(msg)

    def _pyro_post_sample(self, msg: Any) -> None:
        """The program gets rows."""
        name, particles = msg["name"], msg["value"]
        if name in self._given and msg["is_observed"]:  # a handler outside may have drawn it
            msg["value"] = self._given[name]
        elif name in self._shapes:
            batch_shape, num_event = self._shapes[name]
            msg["value"] = self.fold.unfold(particles, batch_shape, num_event)
        else:
            return
        self._values.append((msg["value"], particles))

    def _resize(self, msg: Any) -> None:
        """A data plate that does not take its size from the arguments becomes one of K·N rows."""
        whole = msg["fn"]
        if msg["name"] != DATA or whole.subsample_size is not None:
            return
        if not self.from_data:
            self.fold = Fold(self.fold.num, whole.size, self.fold.depth)
        if whole.size == self.fold.rows:
            msg["fn"] = _Subsample(self.fold.size, None, whole.use_cuda, whole.device)

    def _fold(self, msg: Any) -> None:
        name, distribution = msg["name"], msg["fn"]
        if is_deterministic(msg):
            self._fold_deterministic(msg)
            return
        plate = self._data_plate(msg)
        num_batch, num_event = len(distribution.batch_shape), len(distribution.event_shape)
        self._shapes[name] = distribution.batch_shape, num_event
        msg["fn"] = folded(distribution, self.fold)
        if msg["value"] is not None:
            self._given[name] = msg["value"]
            msg["value"] = self._as_given(msg["value"], num_event)
        for key in ("mask", "scale"):
            if isinstance(msg[key], Tensor):
                msg[key] = self.fold.fold(msg[key], min(num_batch, msg[key].dim()), 0)
        self._resize_plate(msg, plate)

    def _data_plate(self, msg: Any) -> Any:
        """The frame of the data plate around a site, which must be one of all rows."""
        frames = {frame.dim: frame for frame in msg["cond_indep_stack"] if frame.vectorized}
        plate: Any = frames.get(-1)
        if plate is None or plate.size != self.fold.size:
            _refuse_plate(msg["name"], plate, self.fold)
        return plate

    def _resize_plate(self, msg: Any, plate: Any) -> None:
        """The data plate around a site becomes one of N data, and keeps its N / B."""
        is_part = plate.full_size not in (None, plate.size) or plate.full_size == self.size
        if is_part:  # N / (K B) of the rows is N / B of the data
            msg["scale"] = msg["scale"] * self.fold.num
        full_size = plate.full_size if is_part else self.fold.rows
        resized = plate._replace(size=self.fold.rows, full_size=full_size)
        stack = [resized if frame is plate else frame for frame in msg["cond_indep_stack"]]
        msg["cond_indep_stack"] = tuple(stack)

    def _as_given(self, value: Tensor, num_event: int) -> Tensor:
        """An observed value; an argument of the program as it was before it was repeated."""
        for repeated, argument in self._arguments:
            if repeated is value:
                return argument
        return self.fold.fold(value, value.dim() - num_event, num_event)

    def _fold_deterministic(self, msg: Any) -> None:
        """A value that is only reported, of no density, keeps its rows for the program."""
        rows = msg["value"]
        self._given[msg["name"]] = rows
        if rows.dim() > 0 and rows.shape[0] == self.fold.size:
            particles = self.fold.fold(rows, 1, rows.dim() - 1)
            msg["value"] = particles
            msg["fn"] = dist.Delta(particles, event_dim=particles.dim()).mask(False)


def _refuse_plate(name: str, frame: Any, fold: Fold) -> None:
    got = "one outside" if frame is None else f"a plate '{frame.name}' of {frame.size}"
    raise ValueError(
        f"site '{name}': expected a site inside the plate '{DATA}' over all {fold.size} rows of {fold.num} draws for "
        f"{fold.rows} data, got {got}. Fix: `with data_plate(x):` around pyro.sample('{name}', …)."
    )
