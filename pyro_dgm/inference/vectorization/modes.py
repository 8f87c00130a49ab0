"""How a pair is run on several particles: chosen by values, for a network may run on them and mean something else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ...contract import PyroProgram
from ..data.extremes import extreme_batch
from ..data.tensors import Batch
from ..process.states import eval_mode, fork_rng
from .counting import PlatesOfRun, num_rows, refuse_count, runs_of
from .probes import NUM_ROWS, Probe, few_rows
from .rounding import agree
from .rows import ByRows, OneAtATime

WHOLE = 10_000  # data that are all looked at where a few can't be


class ParticleMode(StrEnum):
    """How K particles of a program are run."""

    PLATE = "by plate"  # an outer plate: values (K, N, …)
    ROWS = "by rows"  # the data K times along their plate: values (K N, …)
    SINGLE = "one at a time"  # several at once mean something else, or fail

    def adopt(self, program: PyroProgram, size: int | None = None) -> PyroProgram:
        """The program as one that takes a plate of particles around it.

        Args:
            program: a Pyro program.
            size: number of data in the full set if its data plate subsamples one.
        """
        if self is ParticleMode.ROWS:
            return ByRows(program, size)
        return OneAtATime(program) if self is ParticleMode.SINGLE else program


@dataclass(frozen=True)
class Meaning:
    """What the networks of a pair make of several particles, and of several data.

    Attributes:
        particles: how particles are run so that they mean what each means alone.
        mixes_data: whether the log density of a datum is another one when it stands alone: the network mixes the data
            of a batch, and there is no number of one datum.
        is_known: whether the pair ran on the data; it says nothing of one that failed on them.
    """

    particles: ParticleMode = ParticleMode.PLATE
    mixes_data: bool = False
    is_known: bool = True


def meaning_of(
    model: PyroProgram | None, guide: PyroProgram | None, batch: Batch, *, whole: bool = False
) -> Meaning:
    """Score the same latents of a few data draw by draw, by plate, by rows and each datum alone, and compare.

    It runs in the mode that the modules are in, on a fork of the random state. Of a pair that fails on the data as it
    stands nothing is known: whoever runs it next says why.

    Args:
        model: the model, if there is one.
        guide: its guide, if there is one.
        batch: the arguments, observation first.
        whole: whether the programs take all data at once, and no fewer.
    """
    with fork_rng(*batch), kept_buffers(model, guide), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each is given where the pair is run for good
        probe = None if whole else _probe(model, guide, few_rows(batch))
        is_few = probe is not None and probe.is_complete
        if not is_few and (num_rows(batch) or 0) <= WHOLE:  # networks may hold tensors of all data
            of_all = _probe(model, guide, batch)
            if of_all is not None and (probe is None or len(of_all.truth) > len(probe.truth)):
                return Meaning(_mode(of_all))
            if probe is None:
                return Meaning(is_known=False)
        return Meaning() if probe is None else Meaning(_mode(probe), probe.mixes_data())


def takes_all_data(model: PyroProgram | None, guide: PyroProgram | None, batch: Batch) -> bool:
    """Whether programs run on all data and on no fewer, as those with a data plate of a fixed size do.

    Raises:
        ValueError: if as many data as the arguments have rows come out neither of a few nor of all of them.
    """
    few = extreme_batch(batch)
    num = len(batch[0])
    run = runs_of(model, guide)
    with fork_rng(*batch), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plates = PlatesOfRun.of(run, few)
        other = plates.other_than(len(few[0]))
        if plates.found and other is None and not plates.failed:
            return False
        of_all = PlatesOfRun.of(run, batch)
        other_of_all = of_all.other_than(num)
        if other_of_all is not None:
            refuse_count(num, other_of_all, is_fixed=other == other_of_all)
        if not plates.found and plates.failed and not of_all.found and not of_all.failed:
            return True  # no plate tells the data: a site has all of them as one event
        if of_all.found and not of_all.failed:
            # A pair that fails on fewer data, or a guide of a fixed number of rows
            knows_places = plates.failed if model is not None else other is not None
            if knows_places and not _is_square(batch[0]):
                return True
            probe = _probe(model, guide, batch)
            if probe is not None and probe.rows_are_data():
                return True
    if other is not None:
        refuse_count(num, other, is_fixed=other.size == num)
    return False


def _is_square(value: Any) -> bool:
    """Whether columns may be taken for rows."""
    return value.dim() > 1 and value.shape[0] == value.shape[1]


def _probe(model: PyroProgram | None, guide: PyroProgram | None, batch: Batch) -> Probe | None:
    try:
        found = Probe.of(model, guide, batch)
        _ = found.truth  # of programs that can't be run on given draws nothing is known either
    except Exception:  # whatever a user's program raises
        return None
    return found


def _mode(probe: Probe) -> ParticleMode:
    """The fastest mode in which particles mean what they mean one by one."""
    ran = []
    for mode in (ParticleMode.PLATE, ParticleMode.ROWS):
        try:
            scores = probe.scores(_adopted(probe, mode))
        except Exception:  # whatever a user's program raises
            continue
        if probe.agrees(scores):
            return mode
        ran.append((mode, scores))
    for mode, scores in ran:
        if probe.agrees(scores, patient=True):
            return mode
    return ParticleMode.SINGLE


def _adopted(probe: Probe, mode: ParticleMode) -> dict[str, PyroProgram]:
    return {role: mode.adopt(program) for role, program in probe.programs.items()}


def meaning_of_generated(
    model: PyroProgram | None, guide: PyroProgram | None, context: Batch
) -> Meaning:
    """`meaning_of` programs on data that the model generates.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide, if there is one.
        context: the programs' further arguments.
    """
    if model is None:
        return Meaning()
    few = few_rows(context)
    with fork_rng(*few):
        try:
            x = model(None, *few)
            if len(x) == 1:  # one datum a run
                x = torch.cat([x, *[model(None, *few) for _ in range(NUM_ROWS - 1)]])
        except Exception:  # whatever a user's program raises: who runs it next says why
            return Meaning(is_known=False)
    return meaning_of(model, guide, (x, *few))


def refuse_mixing(found: Meaning) -> None:
    """Refuse an estimate for each datum of a network that mixes the data of a batch.

    Raises:
        ValueError: if it does.
    """
    if found.mixes_data:
        raise ValueError(
            "programs: expected networks whose output for a datum depends on that datum alone, got others: a datum "
            "alone has another log density than in its batch, so that per-datum numbers do not exist. "
            "Fix: sums and softmax over dim=-1 in place of dim=0, nn.LayerNorm in place of nn.BatchNorm without "
            "running statistics, and no attention over the batch."
        )


def adopt_generator(model: PyroProgram, context: Batch) -> PyroProgram:
    """A model as one that generates inside a plate of particles, whatever its networks are written for."""
    return meaning_of_generated(model, None, context).particles.adopt(model)


def means_the_same_in_training(
    model: PyroProgram | None, guide: PyroProgram | None, batch: Batch
) -> bool:
    """Whether K particles by plate are, in training mode, what K times N rows are; statistics of a batch see all rows.

    Dropout stays off. Buffers, such as running statistics, are afterwards what they were.
    """
    few = few_rows(batch)
    with fork_rng(*few), training_mode(model, guide), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            probe = Probe.of(model, guide, few)
            by_rows = probe.scores(_adopted(probe, ParticleMode.ROWS))
        except Exception:  # whatever a user's program raises: then there is nothing to compare with
            return True
        try:
            by_plate = probe.scores(_adopted(probe, ParticleMode.PLATE))
        except Exception:  # whatever a user's program raises
            return False
        return agree(by_plate, by_rows, probe.rounding)


@contextmanager
def training_mode(*programs: Any) -> Iterator[None]:
    """Training mode without gradients and dropout; modes and buffers are restored."""
    with kept_buffers(*programs), eval_mode(*programs):
        for program in programs:
            if isinstance(program, nn.Module):
                for module in program.modules():
                    module.training = not isinstance(module, _DropoutNd)
        yield


@contextmanager
def kept_buffers(*programs: Any) -> Iterator[None]:
    """Buffers, such as running statistics, are afterwards what they were."""
    buffers = []
    for program in programs:
        if isinstance(program, nn.Module):
            buffers += [(buffer, buffer.clone()) for buffer in program.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
