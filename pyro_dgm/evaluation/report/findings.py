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
from ...inference.drawing.generation import generated_value
from ...inference.run.explain import cause_of
from ...inference.run.sessions import Session, require_positive
from ...inference.run.structure import Structure
from ...inference.run.traces import vectorized
from ..latents.elbo_surgery import Surgery, surgery
from ..latents.units import Collapse, aggregate_draws, collapse
from ..likelihood.importance import NLL, nll_of
from ..likelihood.total_mass import Normalization, normalization
from ..posterior.calibration import SBC, sbc
from ..samples.twosample import TwoSample, mmd
from .images import choose_image_shape
from .items import Item, Status

DRAWS = 1000  # of z for surgery, and of either kind for the two-sample test
UNIT_DRAWS = 50  # of z per datum for active units
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

    @CachedResult
    def nll(self) -> NLL:
        """Importance estimates of the scored data."""
        model, guide = self.pair
        num, seed = self.settings.num, self.settings.seed
        scored = Session(model, guide, self.scored, num, self.session.chunk, seed)
        scored.structure = self.structure  # that of all data, so that their part needs no check
        scored.reseed()
        return nll_of(scored)

    @CachedResult
    def normalization(self) -> Normalization:
        """Totals of the observations' distributions at a few of the scored data."""
        return normalization(*self.pair, *self.scored, seed=self.settings.seed)

    @CachedResult
    def collapse(self) -> Collapse:
        """What every unit says of the scored data."""
        pair = self.latent_pair
        if len(self.rows) < 2:
            raise ValueError(
                "expected at least two data, for a variance over them, got one. Fix: limit=1000."
            )
        return collapse(*pair, *self.scored, num=UNIT_DRAWS, seed=self.settings.seed)

    @CachedResult
    def surgery(self) -> Surgery:
        """The KL term taken apart, against the aggregate over all data."""
        return surgery(*self.latent_pair, *self.batch, num=DRAWS, seed=self.settings.seed)

    @CachedResult
    def aggregate(self) -> tuple[Tensor, Tensor]:
        """Draws of the aggregate and of the prior."""
        pair = self.generating_pair
        return aggregate_draws(*pair, *self.batch, num=DRAWS, seed=self.settings.seed)

    @CachedResult
    def aggregate_test(self) -> TwoSample:
        """Whether they come from one distribution."""
        aggregate, prior = self.aggregate
        return mmd(real=aggregate, fake=prior, seed=self.settings.seed)

    @CachedResult
    def sbc(self) -> SBC:
        """Calibration on data that the model simulates."""
        num_data, seed = self.settings.num_simulated, self.settings.seed
        return sbc(*self.generating_pair, *self.session.context, num_data=num_data, seed=seed)

    @CachedResult
    def generating_pair(self) -> tuple[PyroProgram, PyroProgram]:
        """The pair, once it is known that the model generates what the guide takes."""
        model, guide = self.latent_pair
        context = take_rows(self.session.context, slice(1))
        program = vectorized(model, 1, self.structure.depth)
        self.session.reseed()
        try:
            trace = poutine.trace(program).get_trace(None, *context)
            guide(generated_value(trace).flatten(0, 1), *context)
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


@dataclass(frozen=True)
class Check:
    """A function from `Findings` to an `Item`, and the name of that item.

    A function that finds nothing raises `Skipped` with the reason, as findings that a pair can't give do by themselves.

    Attributes:
        name: of the item.
        run: the function.

    Raises:
        TypeError: if the function returns no item.

    Example:
        >>> def sample_size(findings):
        ...     return Item(Status.PASS, f"{findings.num_data} data")
        >>> mine = Check("sample size", sample_size)  # check(model, guide, x, checks=(*CHECKS, mine))
    """

    name: str
    run: Callable[[Findings], Item]

    def __call__(self, findings: Findings) -> Item:
        """The item, skipped with the reason if there is none."""
        try:
            item = self.run(findings)
        except Skipped as reason:
            return Item(Status.SKIP, str(reason), self.name)
        if not isinstance(item, Item):
            raise TypeError(
                f"check '{self.name}': expected an Item from its function, got "
                f"{type(item).__name__}. Fix: return Item(Status.PASS, 'what it found')."
            )
        return replace(item, name=self.name)
