"""What the checks of a report share: every result once, and once only, when the first check asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any, Generic, TypeVar

import torch
from pyro import poutine
from torch import Tensor, nn

from ...inference.run.data import take_rows
from ...inference.run.estimates import checked_run, estimating, placed
from ...inference.run.explain import cause_of
from ...inference.run.generation import generated_value
from ...inference.run.sessions import check_pair, require_positive
from ...inference.run.simulation import names_of_latents
from ...inference.run.traces import PairTrace, plate_depth, vectorized
from ..latents.elbo_surgery import Surgery, surgery
from ..latents.units import Collapse, aggregate_draws, collapse
from ..likelihood.importance import nll
from ..likelihood.results import NLL
from ..likelihood.total_mass import Normalization, normalization
from ..posterior.calibration import SBC, sbc
from ..samples.twosample import TwoSample, mmd
from .items import Item, Status

DRAWS = 1000  # of z for surgery, and of either kind for the two-sample test
UNIT_DRAWS = 50  # of z per datum for active units
NO_LATENTS = "the pair has no latents"  # one reason for all that are skipped, told once

T = TypeVar("T")


class Skipped(Exception):
    """A result that this pair, or these data, can't give; the message is the library's own."""


class Once(Generic[T]):
    """A property computed once. What the library refuses by its contract is refused as `Skipped`, each time alike."""

    def __init__(self, compute: Callable[[Any], T]):
        self.compute, self.name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, owner: Any, kind: type) -> T:
        if owner is None:
            return self  # type: ignore[return-value]
        if self.name in owner.refused:
            raise Skipped(owner.refused[self.name])
        if self.name not in owner.found:
            try:
                owner.found[self.name] = self.compute(owner)
            except (ValueError, NotImplementedError) as error:
                owner.refused[self.name] = cause_of(error)
                raise Skipped(cause_of(error)) from error
        return owner.found[self.name]


@dataclass(frozen=True)
class Settings:
    """What a report is made with.

    Attributes:
        num: importance draws per datum.
        limit: how many data are scored one by one.
        num_simulated: data that calibration simulates.
        seed: of every draw and choice.
        image_shape: shape in which data are shown, `(height, width)` or `(channels, height, width)`; `None` for none.
    """

    num: int = 1000
    limit: int = 1000
    num_simulated: int = 10_000
    seed: int = 0
    image_shape: tuple[int, ...] | None = None


class Findings:
    r"""A pair, its data, and the results that checks read; each raises `Skipped` if there is none.

    Per-datum results are about at most `limit` data chosen by the seed; surgery takes its aggregate over all.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first.
        settings: sizes and the seed; without an image shape, data that look like images are shown as such.

    Attributes:
        batch: all data, on the model's device.
        rows: indices of the data that are scored, ascending.
        found: results so far, by name.
        refused: reasons so far, by name.
    """

    def __init__(self, model: Callable, guide: Callable, batch: tuple, settings: Settings):
        check_pair(model, guide)
        require_positive(
            num=settings.num, limit=settings.limit, num_simulated=settings.num_simulated
        )
        self.model, self.guide, self.batch = model, guide, placed(model, batch)
        self.settings = replace(
            settings, image_shape=_image_shape(self.batch[0].shape[1:], settings.image_shape)
        )
        order = torch.randperm(
            self.num_data, generator=torch.Generator().manual_seed(settings.seed)
        )
        self.rows = order[: settings.limit].sort().values
        self.found: dict[str, Any] = {}
        self.refused: dict[str, str] = {}

    @property
    def num_data(self) -> int:
        """How many data there are."""
        return len(self.batch[0])

    @property
    def scored(self) -> tuple:
        """The data that are scored one by one."""
        return take_rows(self.batch, self.rows.to(self.batch[0].device))

    @property
    def num_bad_weights(self) -> int:
        """How many parameters of either program are NaN or infinite."""
        modules = [p for p in (self.model, self.guide) if isinstance(p, nn.Module)]
        return sum(int((~p.isfinite()).sum()) for p in {p for m in modules for p in m.parameters()})

    @Once
    def traces(self) -> PairTrace:
        """A run of the pair on its most extreme data, which refuses what can't be scored."""
        if self.num_bad_weights:
            raise ValueError(
                f"expected finite weights, got {self.num_bad_weights:,} that are NaN or infinite"
            )
        with estimating(self.model, self.guide, seed=self.settings.seed):
            return checked_run(self.model, self.guide, self.batch)

    @property
    def pair(self) -> tuple[Callable, Callable]:
        """Model and guide, once it is known that the data can be scored."""
        try:
            _ = self.traces
        except Skipped as error:
            raise Skipped("not run: the pair can't be scored on these data, see above") from error
        return self.model, self.guide

    @property
    def latents(self) -> list[str]:
        """Names of the sites that make up z."""
        _ = self.pair
        return names_of_latents(*self.traces)

    @property
    def latent_pair(self) -> tuple[Callable, Callable]:
        """The pair, once it is known that it has latents too."""
        if not self.latents:
            raise Skipped(NO_LATENTS)
        return self.pair

    @Once
    def nll(self) -> NLL:
        """Importance estimates of the scored data."""
        return nll(*self.pair, *self.scored, num=self.settings.num, seed=self.settings.seed)

    @Once
    def normalization(self) -> Normalization:
        """Totals of the observations' laws at a few of the scored data."""
        return normalization(*self.pair, *self.scored, seed=self.settings.seed)

    @Once
    def collapse(self) -> Collapse:
        """What every unit says of the scored data."""
        pair = self.latent_pair
        if len(self.rows) < 2:
            raise ValueError("expected at least two data, for a variance over them, got one")
        return collapse(*pair, *self.scored, num=UNIT_DRAWS, seed=self.settings.seed)

    @Once
    def surgery(self) -> Surgery:
        """The KL term taken apart, against the aggregate over all data."""
        return surgery(*self.latent_pair, *self.batch, num=DRAWS, seed=self.settings.seed)

    @Once
    def aggregate(self) -> tuple[Tensor, Tensor]:
        """Draws of the aggregate and of the prior."""
        return aggregate_draws(*self.generating, *self.batch, num=DRAWS, seed=self.settings.seed)

    @Once
    def aggregate_test(self) -> TwoSample:
        """Whether they come from one law."""
        aggregate, prior = self.aggregate
        return mmd(real=aggregate, fake=prior, seed=self.settings.seed)

    @Once
    def sbc(self) -> SBC:
        """Calibration on data that the model simulates."""
        return sbc(
            *self.generating,
            *self.batch[1:],
            num_data=self.settings.num_simulated,
            seed=self.settings.seed,
        )

    @Once
    def generating(self) -> tuple[Callable, Callable]:
        """The pair, once it is known that the model generates what the guide takes."""
        model, guide = self.latent_pair
        context, depth = take_rows(self.batch[1:], slice(1)), plate_depth(*self.traces)
        with estimating(model, guide, seed=self.settings.seed):
            try:
                trace = poutine.trace(vectorized(model, 1, depth)).get_trace(None, *context)
                guide(generated_value(trace).flatten(0, 1), *context)
            except Exception as error:  # whatever a user's programs raise
                raise ValueError(
                    "expected a model that generates when x is None, and a guide that takes what it generates; got an "
                    f"error: {cause_of(error)}"
                ) from error
        return model, guide


@dataclass(frozen=True)
class Check:
    """A function from `Findings` to an `Item`, and the name of that item.

    A function that finds nothing raises `Skipped` with the reason, as findings that a pair can't give do by themselves.

    Attributes:
        name: of the item.
        run: the function.

    Example:
        >>> def counted(findings):
        ...     return Item(Status.PASS, f"{findings.num_data} data")
        >>> mine = Check("sample size", counted)  # check(model, guide, x, checks=(*CHECKS, mine))
    """

    name: str
    run: Callable[[Findings], Item]

    def __call__(self, findings: Findings) -> Item:
        """The item, skipped with the reason if there is none."""
        try:
            return replace(self.run(findings), name=self.name)
        except Skipped as reason:
            return Item(Status.SKIP, str(reason), self.name)


def image_like(event: tuple[int, ...]) -> tuple[int, ...] | None:
    """`(height, width)` of square events of 36 numbers and more, flat or with one channel; else `None`.

    Example:
        >>> image_like((64,)), image_like((1, 28, 28)), image_like((9,)), image_like((4, 8))
        ((8, 8), (28, 28), None, None)
    """
    num = torch.Size(event).numel()
    side = isqrt(num)
    square = side >= 6 and side * side == num and event[-2:] in ((num,), (side, side))
    return (side, side) if square else None


def _image_shape(event: tuple[int, ...], shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if shape is None:
        return image_like(event)
    if torch.Size(shape).numel() != torch.Size(event).numel() or len(shape) not in (2, 3):
        raise ValueError(
            f"check: expected image_shape (height, width) or (channels, height, width) of the data's "
            f"{torch.Size(event).numel()} numbers, got {shape}."
        )
    return tuple(shape)
