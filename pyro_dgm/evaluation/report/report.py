"""One report on a fitted pair: PASS, WARN or SKIP for every item, with its number, threshold and reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import nan
from pathlib import Path
from textwrap import fill
from typing import Any

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...files.writing import write_text
from ...inference.process.states import check_seed
from ...inference.run.sessions import session
from .checking import Check, run_checks
from .checks import CHECKS, JOINT_CHECKS
from .findings import Findings, Settings, Skipped
from .html import limit as threshold_text
from .html import number, page, table
from .items import Item, Status, group_items, merge_items, sentence

WIDTH = 100  # columns of the printed table
TITLE = "Check of a fitted model and its guide"


@dataclass(frozen=True)
class Report(Tabular):
    """What `check` found; printed, it is a table and, below it, what to do about every item that does not pass.

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
        statuses = {item.status for item in self.items}
        if Status.WARN in statuses:
            return Status.WARN
        return Status.PASS if Status.PASS in statuses else Status.SKIP

    def __getitem__(self, name: str) -> Item:
        """The item of a name.

        Raises:
            KeyError: if there is none.
        """
        for item in self.items:
            if item.name == name:
                return item
        names = [item.name for item in self.items]
        raise KeyError(
            f"report: expected the name of an item, one of {names}, got {name!r}. "
            "Fix: report.items, which holds all of them."
        )

    def __str__(self) -> str:
        summary = _wrap(f"{TITLE}: {self.verdict}. {self._summary}")
        header = f"  {'item':<22}{'status':<8}{'value':>9}  {'threshold':<11}unit"
        lines = [summary, header]
        for item in self.items:
            lines.append(_line(item))
        for group in group_items(self.items):
            if group[0].status is not Status.PASS:
                lines.append(_note(merge_items(group)))
        return "\n".join(lines)

    def columns(self) -> dict[str, list[Any]]:
        """One row per item; its value is NaN where nothing was measured."""
        items = self.items
        return {
            "item": [item.name for item in items],
            "status": [item.status.value for item in items],
            "value": [nan if item.value is None else item.value for item in items],
            "unit": [item.unit for item in items],
            "threshold": [threshold_text(item.threshold) for item in items],
            "finding": [item.finding for item in items],
            "advice": [item.advice for item in items],
        }

    def _repr_html_(self) -> str:
        summary = f"{TITLE}: {self.verdict}. {self._summary}"
        return f"<p>{escape(summary)}</p>\n{table(self.items)}"

    def as_dict(self) -> dict[str, Any]:
        """The report in words and numbers that JSON knows."""
        return {
            "verdict": self.verdict.value,
            "settings": self.settings,
            "items": [item.as_dict() for item in self.items],
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON.

        Raises:
            FileError: if it can't be written.
        """
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(path, f"{text}\n")

    def html(self, path: str | Path) -> None:
        """Write it as one HTML page with figures, which needs no other file and no network.

        Raises:
            FileError: if it can't be written.
        """
        text = page(TITLE, self.verdict, self._summary, self.items)
        write_text(path, text)

    @property
    def _summary(self) -> str:
        """How many items pass, and what the report was made with."""
        count = Counter([item.status for item in self.items])
        void = f"{count[Status.VOID]} can't be read, " if count[Status.VOID] else ""
        settings = self.settings
        return (
            f"{count[Status.PASS]} of {len(self.items)} items pass, "
            f"{count[Status.WARN]} warn, {void}{count[Status.SKIP]} skipped. "
            f"{settings['num_data']:,} data, {settings['num_scored']:,} of them scored one by one "
            f"with {settings['num']:,} draws; {settings['num_simulated']:,} simulated; "
            f"seed {settings['seed']}."
        )


def check(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 1000,
    limit: int = 1000,
    num_simulated: int = 10_000,
    checks: Sequence[Check] | None = None,
    image_shape: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Report:
    r"""Can a fit be trusted? Every item of `checks` with its number, its threshold, and what to do.

    Data, finite numbers, normalization of p(x | z), active units, mutual information, $\log p(x)$ − ELBO, k-hat,
    importance ESS, calibration, and the aggregated posterior against the prior, in nats and by a two-sample test.
    At most `limit` data, chosen by the seed, are scored one by one; the aggregate is that of all data. What a pair
    can't give (a guide that can't score given points, a model without latents) is skipped with the reason. Where all
    data share a draw, the weights are those of joint draws, see `evidence`: their k-hat and that of every number by
    itself, and whether each mean and spread of the guide is where the weights say. Neither weights nor random state
    outside change, and the same seed gives the same report.

    Weights see only where the guide draws: gap, k-hat and ESS of a guide that misses a mode, or of a wrong model, look
    fine. So none of the three passes beside a calibration or an aggregate-prior test that warns, and no gap beside a
    k-hat or a normalization that does: such items are VOID, with the reason.

    The cost is that of `nll` (`limit` × `num` runs of the model), `sbc` (`num_simulated` × 99 runs), and `surgery`
    (1,000 × N densities of the guide): leave checks out by a shorter tuple. Several ranks that ask the same share the
    work of `nll` and `surgery`, and each has the report of one process.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data that the pair was fitted to, or held-out ones, observation first: tensors, arrays or tables, or
            one Dataset, DataLoader or list of batches, which is read whole.
        num: importance draws per datum.
        limit: how many data are scored one by one.
        num_simulated: how many data calibration simulates; 10,000 see a mean that is off by 0.1 standard deviations.
        checks: what is checked; `(*CHECKS, Check("mine", function))` adds one. Default: `CHECKS`, or `JOINT_CHECKS`
            where all data share a draw.
        image_shape: `(height, width)` or `(channels, height, width)` in which the worst data are shown; by default
            square events are.
        seed: of every draw and choice.

    Raises:
        TypeError: if model or guide is no program, or `checks` holds something else than checks.
        ValueError: for counts below 1, for empty, NaN or infinite data, and for an image shape of another size.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> from pyro_dgm import Conditional, Normal, StandardNormal, VAE, mlp
        >>> vae = VAE(StandardNormal(2), Normal(mlp(2, 3)), Conditional(dist.Normal, mlp(3, 4)))
        >>> report = check(vae.model, vae.guide, torch.randn(50, 3), num=50, num_simulated=200)
        >>> report["normalization"].status
        <Status.PASS: 'PASS'>
    """
    if checks is not None:
        _require_checks(checks)
    seed = check_seed(seed)
    settings = Settings(num, limit, num_simulated, seed, image_shape)
    with session(model, guide, *batch, num=num, seed=seed) as pair:
        findings = Findings(pair, settings)
        items = run_checks(_default_checks(findings) if checks is None else checks, findings)
    about = {
        "num_data": findings.num_data,
        "num_scored": len(findings.rows),
        **asdict(findings.settings),
    }
    return Report(items, about)


def _default_checks(findings: Findings) -> Sequence[Check]:
    """The checks for what the pair's data share."""
    try:
        return JOINT_CHECKS if findings.structure.has_globals else CHECKS
    except Skipped:  # nothing can be scored, as the first item says
        return CHECKS


def _require_checks(checks: Any) -> None:
    """Refuse one check in place of a sequence of them, and a bare function in place of a check."""
    if isinstance(checks, Check) or callable(checks):
        raise TypeError(
            f"check: expected a sequence of checks, got {_description(checks)}. "
            "Fix: checks=(*CHECKS, Check('mine', function))."
        )
    for entry in checks:
        if not isinstance(entry, Check):
            raise TypeError(
                f"check: expected checks that are instances of Check, got {_description(entry)}. "
                "Fix: checks=(*CHECKS, Check('mine', function))."
            )


def _description(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _line(item: Item) -> str:
    """The item's line in the printed table."""
    value = number(item.value)
    threshold = threshold_text(item.threshold)
    line = f"  {item.name:<22}{item.status:<8}{value:>9}  {threshold:<11}{item.unit}"
    return line.rstrip()


def _note(item: Item) -> str:
    """What was found and what to do, below the printed table."""
    text = f"{item.status} {item.name}: {sentence(item.finding)}"
    if item.advice:
        text = f"{text} What to do: {sentence(item.advice)}"
    return f"\n{_wrap(text)}"


def _wrap(text: str) -> str:
    return fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
