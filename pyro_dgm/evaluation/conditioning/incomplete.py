"""Data of which some dims are missing, as a pair of programs sees them: numbers in the holes, and a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

import torch
from pyro import poutine
from torch import Tensor

from ...contract import DATA, PyroProgram
from ...inference.data.tensors import Batch, is_array, to_tensor
from ...inference.enumeration.completion import completed
from ...inference.process.states import fork_rng
from ...inference.run.levels import LevelSearch
from ...inference.run.limits import check_total
from ...inference.run.sessions import Session, read_data, require_positive, session
from ...inference.run.structure import Structure
from ...inference.sites.measure_checks import require_density
from ...inference.sites.measures import Measure, bound_of
from ..likelihood.importance import NLL, nll
from .filling import FillingMixture, observation_site
from .marginal import Marginal, Unmasked


@dataclass(frozen=True)
class IncompleteData:
    """The data of an open session, of which some dims are missing.

    Attributes:
        pair: the session; what its data hold at missing dims is any number.
        observed: which dims are there, bool `(N, *event)`.
        mixture: what draws latents for data that miss some dims.
    """

    pair: Session
    observed: Tensor
    mixture: FillingMixture

    @classmethod
    def of(cls, pair: Session, observed: Tensor, fills: int, sweeps: int) -> IncompleteData:
        """The data of a session whose programs are checked for what an estimate of some dims asks of them.

        Raises:
            ValueError: for a distribution of x whose dims depend on each other, an x that no site observes, a guide
                that is a point mass, or a data plate of fixed size.
        """
        structure = pair.structure
        require_density("marginal_nll", structure.points)
        if structure.fixed_size:  # the data are filled up in several ways at once
            raise ValueError(
                f"marginal_nll: expected a plate '{DATA}' whose size is that of the data, got one of fixed "
                "size. Fix: `with data_plate(x):` in model and guide."
            )
        _check_marginal(pair, observed)
        num = pair.num
        if _is_exact(structure):
            num = 2  # every draw is the same exact log density
            fills = sweeps = 1
        mixture = FillingMixture(
            model=Marginal(pair.model),
            guide=Unmasked(_guide_of_all(pair)),
            num=ceil(num / (fills + 1)),
            fills=fills,
            sweeps=sweeps,
            depth=structure.depth,
        )
        return cls(pair, observed, mixture)

    @property
    def is_complete(self) -> Tensor:
        """Which data miss nothing, bool `(N,)`."""
        return self.observed.reshape(len(self.observed), -1).all(1)

    def blocks(self) -> Iterator[tuple[Tensor, Batch]]:
        """Indices of data that miss something and their arguments, the mask last; few enough for the memory."""
        missing = (~self.is_complete).nonzero()[:, 0]
        if not len(missing):
            return
        for index in missing.split(max(1, self.pair.chunk // self.mixture.size)):
            yield index, (*self.pair.rows(index), self.observed[index])

    def nll(self, blocks: Sequence[dict[str, Tensor]]) -> NLL:
        """The NLL of all data: from the statistics of `blocks`, and by `nll` for the data that miss nothing."""
        complete = self._nll_of_complete()
        if complete and not blocks:
            return complete
        statistics = {}
        for name in blocks[0]:
            values = torch.cat([block[name] for block in blocks])
            if complete:
                values = _merge(self.is_complete.cpu(), getattr(complete, name), values)
            statistics[name] = values
        structure = self.pair.structure
        check_total(structure.measure, statistics["per_datum"])
        return NLL(
            num=self.mixture.size,
            kind=bound_of(structure.measure, is_exact=_is_exact(structure)),
            measure=self._measure,
            **statistics,
        )

    @property
    def _measure(self) -> Measure:
        """What p(x_b) is, with the observed dims looked at."""
        search = LevelSearch()
        search.add_values(self.pair.batch[0][self.observed])
        return search.refine(self.pair.structure.measure)

    def _nll_of_complete(self) -> NLL | None:
        pair = self.pair
        if not bool(self.is_complete.any()):
            return None
        rows = pair.rows(self.is_complete)
        return nll(pair.model, pair.guide, *rows, num=pair.num, chunk=pair.chunk, seed=pair.seed)


@contextmanager
def incomplete_session(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    observed: Any,
    num: int,
    fills: int,
    sweeps: int,
    chunk: int,
    seed: int,
) -> Iterator[IncompleteData]:
    """Open a session of data of which some dims are missing.

    The holes are filled before the session sees the data, by numbers that nothing reads.

    Args:
        model: a Pyro program.
        guide: its guide.
        batch: the data, observation first, as `session` takes them; what they hold at missing dims may be NaN.
        observed: which dims are there, bool `(N, *event)` in the order of the data, or `(*event)` for all alike.
        num: number of importance draws of z.
        fills: in how many ways each datum is filled up.
        sweeps: turns of the walk that fills it up.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Raises:
        ValueError: see `IncompleteData.of` and `fill_holes`.
    """
    require_positive(fills=fills, sweeps=sweeps)
    x, *context = read_data(model, guide, *batch, seed=seed)
    x, mask = fill_holes(x, observed)
    with session(model, guide, x, *context, num=num, chunk=chunk, seed=seed) as pair:
        yield IncompleteData.of(pair, mask, fills, sweeps)


def fill_holes(x: Tensor, observed: Any) -> tuple[Tensor, Tensor]:
    """The data with a number in place of what is missing, and the mask in their shape.

    The number is one of the data themselves, which is in their support.

    Args:
        x: `(N, *event)`.
        observed: which dims are there, bool `(N, *event)` or `(*event)`.

    Raises:
        ValueError: for a mask of another shape or dtype, or values that are not finite where observed.
    """
    mask = _as_mask(observed, x)
    seen = x[mask]
    num_bad = int((~seen.isfinite()).sum())
    if num_bad:
        raise ValueError(
            f"data[0]: expected finite values where observed, got {num_bad} NaN or infinite. "
            "Fix: observed=observed & x.isfinite()."
        )
    stand_in = seen.min() if len(seen) else torch.zeros_like(x)
    return torch.where(mask, x, stand_in), mask


def _as_mask(observed: Any, x: Tensor) -> Tensor:
    mask = to_tensor(observed) if is_array(observed) else torch.as_tensor(observed)
    if mask.dtype != torch.bool or mask.shape not in (x.shape, x.shape[1:]):
        raise ValueError(
            f"observed: expected a bool mask of shape {tuple(x.shape)} or {tuple(x.shape[1:])}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}. Fix: observed=x.isfinite()."
        )
    return mask.to(x.device).expand_as(x).clone()


def _check_marginal(pair: Session, observed: Tensor) -> None:
    """Refuse a model that has no density of some dims of x alone."""
    first = (*pair.rows(slice(1)), observed[:1])
    with fork_rng(*first):
        trace = poutine.trace(Marginal(pair.model)).get_trace(*first)
    observation_site(trace, first[0])


def _is_exact(structure: Structure) -> bool:
    """Whether there is nothing to draw: sites that are summed over for whole data are drawn for incomplete ones."""
    return structure.is_exact and not structure.summed


def _guide_of_all(pair: Session) -> PyroProgram:
    """The session's guide, with the discrete sites that the model alone has drawn from their prior."""
    of_model = [name for name in pair.structure.summed if name not in pair.structure.latent]
    return cast(PyroProgram, completed(pair.model, pair.guide, of_model))


def _merge(is_complete: Tensor, complete: Tensor, rest: Tensor) -> Tensor:
    """Numbers `(N,)` of the data that a mask chooses and of the others."""
    values = rest.new_empty(len(is_complete))
    values[is_complete] = complete
    values[~is_complete] = rest
    return values
