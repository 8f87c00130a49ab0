"""One report on a fitted pair: PASS, WARN or SKIP for every item, with its number, threshold and reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from .checks import CHECKS
from .findings import Check, Findings, Settings
from .html import number, page
from .items import Item, Status, group_items, merge_items, sentence

WIDTH = 100  # columns of the printed table
TITLE = "Check of a fitted model and its guide"


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        items: one for every check, in order.
        settings: data, draws and seed that it was made with.
    """

    items: tuple[Item, ...]
    settings: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether no item warns; what was skipped counts for nothing, so that a density without latents passes few."""
        return self.verdict is Status.PASS

    @property
    def verdict(self) -> Status:
        """WARN if an item warns, else PASS; SKIP if nothing could be checked."""
        found = {item.status for item in self.items}
        return next(
            (status for status in (Status.WARN, Status.PASS) if status in found), Status.SKIP
        )

    def __getitem__(self, name: str) -> Item:
        """The item of a name."""
        return {item.name: item for item in self.items}[name]

    def __str__(self) -> str:
        head = f"  {'item':<22}{'status':<8}{'value':>9}  {'threshold':<11}unit"
        rows = [
            f"  {i.name:<22}{i.status:<8}{number(i.value):>9}  {str(i.threshold or '–'):<11}{i.unit}".rstrip()
            for i in self.items
        ]
        notes = [
            _note(item)
            for item in map(merge_items, group_items(self.items))
            if item.status is not Status.PASS
        ]
        return "\n".join([_filled(f"{TITLE}: {self.verdict}. {self._about}"), head, *rows, *notes])

    def as_dict(self) -> dict[str, Any]:
        """The report in words and numbers that JSON knows."""
        items = [item.as_dict() for item in self.items]
        return {"verdict": self.verdict.value, "settings": self.settings, "items": items}

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(
            json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            "utf-8",
        )

    def html(self, path: str | Path) -> None:
        """Write it as one HTML page with figures, which needs no other file and no network."""
        Path(path).write_text(page(TITLE, self.verdict, self._about, self.items), "utf-8")

    @property
    def _about(self) -> str:
        count = [sum(item.status is status for item in self.items) for status in Status]
        s = self.settings
        return (
            f"{count[0]} of {len(self.items)} items pass, {count[1]} warn, {count[2]} skipped. {s['num_data']:,} data, "
            f"{s['num_scored']:,} of them scored one by one with {s['num']:,} draws; {s['num_simulated']:,} simulated; "
            f"seed {s['seed']}."
        )


def check(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num: int = 1000,
    limit: int = 1000,
    num_simulated: int = 10_000,
    checks: Sequence[Check] = CHECKS,
    image_shape: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Report:
    r"""Can a fit be trusted? Every item of `checks` with its number, its threshold, and what to do.

    Data, finite numbers, normalization of p(x | z), active units, mutual information, $\log p(x)$ − ELBO, k-hat,
    importance ESS, calibration, and the aggregated posterior against the prior, in nats and by a two-sample test.
    At most `limit` data, chosen by the seed, are scored one by one; the aggregate is that of all data. What a pair
    can't give (a guide that can't score given points, a global site, a model without latents) is skipped with the
    reason. Neither weights nor random state outside change, and the same seed gives the same report.

    The cost is that of `nll` (`limit` × `num` runs of the model), `sbc` (`num_simulated` × 99 runs), and `surgery`
    (1,000 × N densities of the guide): leave checks out by a shorter tuple.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data that the pair was fitted to, or held-out ones, observation first.
        num: importance draws per datum.
        limit: how many data are scored one by one.
        num_simulated: how many data calibration simulates; 10,000 see a mean that is off by 0.1 standard deviations.
        checks: what is checked; `(*CHECKS, Check("mine", function))` adds one.
        image_shape: `(height, width)` or `(channels, height, width)` in which the worst data are shown; by default
            square events are.
        seed: of every draw and choice.

    Raises:
        TypeError: if model or guide is no program.
        ValueError: for counts below 1, and for empty, NaN or infinite data.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> from pyro_dgm import Conditional, Normal, StandardNormal, VAE, mlp
        >>> vae = VAE(StandardNormal(2), Normal(mlp(2, 3)), Conditional(dist.Normal, mlp(3, 4)))
        >>> report = check(vae.model, vae.guide, torch.randn(50, 3), num=50, num_simulated=200)
        >>> report["normalization"].status
        <Status.PASS: 'PASS'>
    """
    found = Findings(model, guide, batch, Settings(num, limit, num_simulated, seed, image_shape))
    items = tuple(one(found) for one in checks)
    return Report(
        items, {"num_data": found.num_data, "num_scored": len(found.rows), **asdict(found.settings)}
    )


def _note(item: Item) -> str:
    advice = f" What to do: {sentence(item.advice)}" if item.advice else ""
    return "\n" + _filled(f"{item.status} {item.name}: {sentence(item.finding)}{advice}")


def _filled(text: str) -> str:
    return fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
