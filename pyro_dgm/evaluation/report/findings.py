"""What the checks of a report share: every result is computed once, when the first check asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, overload

import torch
from pyro import poutine
from torch import Tensor, nn

from ...contract import PyroProgram
from ...inference.data.tensors import Batch, take_rows
from ...inference.drawing.simulation import reader_of
from ...inference.drawing.templates import generative
from ...inference.run.explain import cause_of
from ...inference.run.sessions import Session, require_positive
from ...inference.run.structure import Structure
from ...inference.run.traces import vectorized
from ..latents.against_prior import aggregate_draws_of, compare_draws
from ..latents.elbo_surgery import Surgery, surgery_of
from ..latents.units import Collapse, collapse_of
from ..likelihood.importance import NLL, nll_of
from ..likelihood.model_evidence import Evidence, evidence_of
from ..likelihood.total_mass import Normalization, normalization_of
from ..posterior.calibration import SBC, sbc_of
from ..samples.twosample import TwoSample
from .images import choose_image_shape

DRAWS = 1000  # of z for surgery, and of either kind for the two-sample test
PAIRS = 200_000  # of a draw and a datum that surgery has in memory at once
UNIT_DRAWS = 50  # of z per datum for active units
RANKED_DRAWS = 99  # of z per simulated datum for calibration
TEMPLATES = 16  # data whose shapes a model generates by that does not run on `None`
TOTALS = 8  # data at which normalization is checked
NO_LATENTS = "the pair has no latents"  # one reason for all that are skipped, told once

Result = TypeVar("Result")


class Skipped(Exception):
    """A result that this pair, or these data, can't give; the message is the library's own."""


class CachedResult(Generic[Result]):
    """A property of `Findings` that is computed once.

    What the library refuses by its contract (`ValueError`, `NotImplementedError`) is refused as `Skipped`, with the
    same reason each time. Any other error is a bug, and passes.
    """

    def __init__(self, compute: Callable[[Any], Result]):
        self.compute = compute
        self.name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> CachedResult[Result]: ...

    @overload
    def __get__(self, owner: Findings, kind: type) -> Result: ...

    def __get__(self, owner: Findings | None, kind: type) -> CachedResult[Result] | Result:
        if owner is None:
            return self
        if self.name in owner.refused:
            raise Skipped(owner.refused[self.name])
        if self.name not in owner.found:
            owner.found[self.name] = self._compute_or_skip(owner)
        result: Result = owner.found[self.name]
        return result

    def _compute_or_skip(self, owner: Findings) -> Result:
        try:
            return self.compute(owner)
        except (ValueError, NotImplementedError) as error:
            reason = cause_of(error)
            owner.refused[self.name] = reason
            raise Skipped(reason) from error


@dataclass(frozen=True)
class Settings:
    """What a report is made with.

    Attributes:
        num: importance draws per datum.
        limit: how many data are scored one by one.
        num_simulated: data that calibration simulates.
        seed: of every draw and choice.
        image_shape: shape in which data are shown, `(height, width)` or `(channels, height, width)`; `None` for none.

    Raises:
        ValueError: for counts below 1.
    """

    num: int = 1000
    limit: int = 1000
    num_simulated: int = 10_000
    seed: int = 0
    image_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        require_positive(num=self.num, limit=self.limit, num_simulated=self.num_simulated)


class Findings:
    r"""An open session, and the results that checks read from it; each raises `Skipped` if there is none.

    Per-datum results are about at most `limit` data chosen by the seed; surgery takes its aggregate over all.

    Args:
        session: of the pair and its data, as `session(model, guide, x)` opens it.
        settings: sizes and the seed; without an image shape, data that look like images are shown as such.

    Attributes:
        rows: indices of the data that are scored, ascending.
        found: results so far, by name.
        refused: reasons so far, by name.

    Raises:
        TypeError: for a session of one program alone.
        ValueError: for bad data, or an image shape that is not theirs.
    """

    def __init__(self, session: Session, settings: Settings):
        self.session = session
        self.model: PyroProgram = session.model
        self.guide: PyroProgram = session.guide
        self.batch: Batch = session.batch
        event = tuple(self.batch[0].shape[1:])
        image_shape = choose_image_shape(event, settings.image_shape)
        self.settings = replace(settings, image_shape=image_shape)
        self.rows = _choose_rows(len(session), settings)
        self.found: dict[str, Any] = {}
        self.refused: dict[str, str] = {}

    @property
    def num_data(self) -> int:
        """How many data there are."""
        return len(self.session)

    @property
    def scored(self) -> Batch:
        """The data that are scored one by one."""
        return self.session.rows(self.rows.to(self.session.device))

    @property
    def num_bad_weights(self) -> int:
        """How many numbers among the parameters of both programs are NaN or infinite."""
        parameters: set[nn.Parameter] = set()  # either program may hold the other's parts
        for program in (self.model, self.guide):
            if isinstance(program, nn.Module):
                parameters.update(program.parameters())
        num_bad = 0
        for parameter in parameters:
            num_bad += int((~parameter.isfinite()).sum())
        return num_bad

    @CachedResult
    def structure(self) -> Structure:
        """What a run of the pair on its most extreme data shows; refuses what can't be scored."""
        if self.num_bad_weights:
            raise ValueError(
                f"expected finite weights, got {self.num_bad_weights:,} that are NaN or infinite. "
                "Fix: train again from weights that are finite, with SVI(…, clip=1.0)."
            )
        return self.session.structure

    @property
    def pair(self) -> tuple[PyroProgram, PyroProgram]:
        """Model and guide, once it is known that the data can be scored."""
        try:
            _ = self.structure
        except Skipped as error:
            raise Skipped("not run: the pair can't be scored on these data, see above") from error
        return self.model, self.guide

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the sites that make up z."""
        _ = self.pair
        return self.structure.codes

    @property
    def latent_pair(self) -> tuple[PyroProgram, PyroProgram]:
        """The pair, once it is known that it has latents too."""
        if not self.latents:
            raise Skipped(NO_LATENTS)
        return self.pair

    def _opened(
        self, batch: Batch, num: int = 1, pair: tuple[PyroProgram, PyroProgram] | None = None
    ) -> Session:
        """The pair on a part of the data, at the start of the seed's noise; their structure is that of all data."""
        model, guide = pair or self.pair
        part = Session(model, guide, batch, num, self.session.chunk, self.settings.seed)
        part.structure = self.structure
        part.reseed()
        return part

    @CachedResult
    def nll(self) -> NLL:
        """Importance estimates of the scored data."""
        _ = self.pair
        return nll_of(self._opened(self.scored, self.settings.num))

    @CachedResult
    def evidence(self) -> Evidence:
        """The evidence of all data by joint draws, where they share one."""
        _ = self.pair
        self.session.reseed()
        return evidence_of(self.session)

    @CachedResult
    def normalization(self) -> Normalization:
        """Totals of the observations' distributions at a few of the scored data."""
        _ = self.pair
        return normalization_of(self._opened(self.scored), TOTALS)

    @CachedResult
    def collapse(self) -> Collapse:
        """What every unit says of the scored data."""
        _ = self.latent_pair
        if len(self.rows) < 2:
            raise ValueError(
                "expected at least two data, for a variance over them, got one. Fix: limit=1000."
            )
        return collapse_of(self._opened(self.scored, UNIT_DRAWS))

    @CachedResult
    def surgery(self) -> Surgery:
        """The KL term taken apart, against the aggregate over all data."""
        _ = self.latent_pair
        return surgery_of(self._opened(self.batch), DRAWS, None, PAIRS)

    @CachedResult
    def aggregate(self) -> tuple[Tensor, Tensor]:
        """Draws of the aggregate and of the prior."""
        _ = self.generating_pair
        return aggregate_draws_of(self._opened(self.batch), DRAWS)

    @CachedResult
    def aggregate_test(self) -> TwoSample:
        """Whether they come from one distribution."""
        aggregate, prior = self.aggregate
        return compare_draws(aggregate, prior, seed=self.settings.seed)

    @CachedResult
    def sbc(self) -> SBC:
        """Calibration on data that the model simulates."""
        without_data = (None, *self.session.context)
        opened = self._opened(without_data, RANKED_DRAWS, self.generating_pair)
        return sbc_of(opened, self.settings.num_simulated)

    @CachedResult
    def generating_pair(self) -> tuple[PyroProgram, PyroProgram]:
        """The pair, its model as one that generates, once it is known that it makes what the guide takes."""
        model, guide = self.latent_pair
        context = take_rows(self.session.context, slice(1))
        depth = self.structure.depth
        self.session.reseed()
        try:
            model = generative(model, take_rows(self.batch, slice(TEMPLATES)))
            program = vectorized(model, 1, depth)
            trace = poutine.trace(program).get_trace(None, *context)
            read = reader_of(model, trace, context, depth)
            guide(read(trace), *context)
        except Exception as error:  # whatever a user's programs raise
            cause = cause_of(error).partition(" Fix: ")[0].rstrip(".")
            raise ValueError(
                "expected a model that generates when x is None, and a guide that takes what it "
                f"generates; got an error: {cause}. Fix: `with data_plate(x, c):` in the model."
            ) from error
        return model, guide


def _choose_rows(num_data: int, settings: Settings) -> Tensor:
    """Indices of the data that are scored, ascending."""
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(num_data, generator=generator, device="cpu")
    return order[: settings.limit].sort().values
