"""The figures of a run's seeds: their last rows in `results.jsonl`, and the spread between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import nan, sqrt
from statistics import mean, stdev
from typing import Any

from ...evaluation.report.findings import Skipped
from ...evaluation.report.markup import data_table
from .protocols import Row, Run
from .sections import number, with_error

# Column → key of a row, and of its standard error
COLUMNS = {
    "NLL ± se": ("nll", "nll_stderr", 2),
    "−ELBO ± se": ("nelbo", "nelbo_stderr", 2),
    "KL ± se": ("kl", "kl_stderr", 2),
    "bits/dim": ("bits_per_dim", "bits_per_dim_stderr", 3),
}


@dataclass(frozen=True)
class Spread:
    """A figure over the S seeds of a run.

    Attributes:
        mean: over the seeds.
        sd: standard deviation between them; NaN of one.
        num: number S of seeds that have it.
    """

    mean: float
    sd: float
    num: int

    @property
    def stderr(self) -> float:
        """Of the mean over seeds: sd / √S."""
        return self.sd / sqrt(self.num)

    def __str__(self) -> str:
        return with_error(self.mean, self.sd)


def spread_of(rows: Sequence[Row], key: str) -> Spread | None:
    """Mean and standard deviation between seeds of a figure; `None` where no row has it."""
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    if not values:
        return None
    return Spread(mean(values), stdev(values) if len(values) > 1 else nan, len(values))


def last_rows(run: Run) -> list[Row]:
    """The newest evaluation of each seed that has a likelihood, in the order of the seeds."""
    newest: dict[int, Row] = {}
    for row in run.results:
        if "nll" in row:
            newest[row.get("seed", run.seeds[0])] = row
    return [newest[seed] for seed in run.seeds if seed in newest]


def require_rows(run: Run) -> list[Row]:
    """The same.

    Raises:
        Skipped: if there is none.
    """
    rows = last_rows(run)
    if not rows:
        raise Skipped(f"no seed has been evaluated. Fix: pyro-dgm evaluate {run.folder}")
    return rows


def seed_table(run: Run, rows: Sequence[Row]) -> str:
    """A row for each seed, and mean ± sd between them."""
    columns = {name: parts for name, parts in COLUMNS.items() if spread_of(rows, parts[0])}
    cells = []
    for row in rows:
        line = [str(row.get("seed", run.seeds[0]))]
        for key, key_of_error, digits in columns.values():
            line.append(with_error(row.get(key), row.get(key_of_error), digits))
        share = row.get("share_khat_above")
        line.append("–" if share is None else f"{share:.0%}")
        line.append(number(row.get("seconds"), 0))
        cells.append(line)
    if len(rows) > 1:
        cells.append(_line_of_means(rows, list(columns.values())))
    names = ("seed", *columns, "k-hat above", "seconds")
    return data_table(names, cells, numbers=range(1, len(names)))


def _line_of_means(rows: Sequence[Row], columns: Sequence[tuple[str, str, int]]) -> list[str]:
    line = ["<b>mean ± sd</b>"]
    for key, _, digits in columns:
        found = spread_of(rows, key)
        line.append("–" if found is None else f"<b>{with_error(found.mean, found.sd, digits)}</b>")
    for key, digits, factor, unit in (("share_khat_above", 0, 100, "%"), ("seconds", 0, 1, "")):
        found = spread_of(rows, key)
        line.append("–" if found is None else f"<b>{number(factor * found.mean, digits)}{unit}</b>")
    return line


def describe_rows(rows: Sequence[Row]) -> str:
    """What the figures are: unit, measure, bound, and what they were made with."""
    first = rows[0]
    measure, kind = first.get("nll_measure", "unstated"), first.get("nll_kind", "unstated")
    parts = [f"Nats per datum; p(x) is a {measure}, the NLL {article(str(kind))}."]
    num_test, num_draws = first.get("num_test"), first.get("num_draws")
    if num_test is not None and num_draws is not None:
        parts.append(f"{num_test:,.0f} test data, {num_draws:,.0f} draws of the guide for each.")
    if first.get("khat_threshold") is not None:
        threshold = first["khat_threshold"]
        parts.append(f"k-hat above: share of the data whose k-hat exceeds {threshold:.2f}.")
    if first.get("parameters") is not None:
        parts.append(f"{first['parameters']:,.0f} parameters.")
    return " ".join(parts)


def article(kind: str) -> str:
    """The kind of a bound with its article.

    Example:
        >>> article("exact"), article("upper bound in expectation")
        ('exact', 'an upper bound in expectation')
    """
    if "bound" not in kind:
        return kind
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def pairs_list(values: Mapping[str, Any]) -> str:
    """Names and values in two columns."""
    lines = []
    for name, value in values.items():
        lines.append(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>")
    return "\n".join(["<dl>", *lines, "</dl>"])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted names.

    Example:
        >>> flatten({"model": {"latent": 2}, "epochs": 3})
        {'model.latent': 2, 'epochs': 3}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found.update(flatten(value, f"{dotted}."))
        else:
            found[dotted] = value
    return found
