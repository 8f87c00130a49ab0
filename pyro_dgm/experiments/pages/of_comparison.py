"""The page of a comparison: figures with the spread between seeds, paired differences, and what they can tell."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from ...evaluation.report.findings import Skipped
from ...evaluation.report.markup import data_table
from ...inference.run.sessions import require_positive
from ..plots import comparisons, curves, images
from ..plots.comparisons import SIGNIFICANT
from ..runs.drawing import draws_of, is_game_alone, rows_for
from ..runs.layout import CONFIG
from .advice import MAX_SHARE
from .protocols import Comparison, Run
from .sections import Pieces, Section, attempt, number, page_of, paragraph, picture, with_error
from .tables import describe_rows, flatten, last_rows, require_rows, spread_of

REPORT = "report.html"


def comparison_page(
    comparison: Comparison, *, folder: Path | None = None, num_samples: int = 25, seed: int = 0
) -> str:
    """One offline HTML page of runs side by side: no other file, no network, no scripts; it fits a phone and prints.

    The figures are those of the comparison: NLL with the spread between seeds, and differences to the best run, paired
    over the test data, with the slack of each bound. Pictures are of the first seed.

    Args:
        comparison: what `compare_runs` returns.
        folder: where the page will lie, for links to the pages of the runs.
        num_samples: draws of each model that are shown.
        seed: of the draws; the random state outside stays as it is.

    Raises:
        ValueError: for a count below 1.
    """
    require_positive(num_samples=num_samples)
    runs = comparison.runs
    sections = [
        Section("Result", partial(_result, comparison)),
        Section("Paired differences", partial(_differences, comparison)),
        Section("What to do next", partial(_next, comparison)),
        Section("Stacking weights", partial(_weights, comparison)),
        Section("What differs", partial(_settings, runs)),
        Section("Learning curves", partial(_each, runs, _curve)),
        Section("Samples", partial(_each, runs, partial(_samples, num=num_samples, seed=seed))),
        Section("Runs", partial(_runs, runs, folder)),
    ]
    names = ", ".join(runs)
    return page_of("Comparison of runs", f"{len(runs)} runs: {names}.", sections)


def _result(comparison: Comparison) -> Pieces:
    cells = []
    for row, name in enumerate(comparison.names):
        rows = last_rows(comparison.runs[name])
        line = [escape(name), str(comparison.num_seeds[row])]
        line.append(with_error(comparison.nll[row], comparison.between_seeds[row]))
        line.append(number(comparison.stderr[row]))
        for key, digits in (("nelbo", 2), ("bits_per_dim", 3), ("parameters", 0)):
            found = spread_of(rows, key)
            line.append("–" if found is None else number(found.mean, digits))
        cells.append(line)
    columns = ("run", "seeds", "NLL ± sd", "se of data", "−ELBO", "bits/dim", "parameters")
    best = comparison.names[0]
    pieces = [
        data_table(columns, cells, numbers=range(1, len(columns))),
        paragraph(
            f"Means over seeds ± sd between them. Of {best}: "
            f"{describe_rows(require_rows(comparison.runs[best]))}",
            "source",
        ),
    ]
    ax = comparisons.spread({name: last_rows(run) for name, run in comparison.runs.items()})
    caption = "The NLL of every seed, and mean ± sd of each run."
    return [*pieces, picture(ax, caption, "NLL of all seeds by run")]


def _differences(comparison: Comparison) -> Pieces:
    cells = []
    for row, name in enumerate(comparison.names[1:], 1):
        difference = with_error(comparison.difference[row], comparison.difference_stderr[row], 3)
        slack = number(comparison.slack[row], 3)
        share = f"{comparison.unreliable[row]:.0%}"
        cells.append([escape(name), difference, slack, share, _told_apart(comparison, row)])
    best = comparison.names[0]
    columns = ("run", f"NLL less {best} ± se", "slack", "k-hat above", "told apart")
    about = (
        f"Nats per datum; each datum's NLL is the mean over the seeds. se: of the differences, paired over the "
        "data, and of the seeds where both runs have several. Slack: how far the estimate of the run's NLL lies "
        f"above its truth, to first order, over the data whose k-hat is low; that of {best} is "
        f"{number(comparison.slack[0], 3)}."
    )
    ax = comparisons.paired(comparison)
    return [
        data_table(columns, cells, numbers=(1, 2, 3)),
        paragraph(about, "source"),
        picture(ax, "Differences to the best run, ± 2 standard errors.", "Paired differences"),
    ]


def _told_apart(comparison: Comparison, row: int) -> str:
    """Whether the difference to the best run exceeds two standard errors; unknown with one seed."""
    if min(comparison.num_seeds[row], comparison.num_seeds[0]) < 2:
        return "unknown: one seed"
    return "yes" if _is_significant(comparison, row) else "no"


def _is_significant(comparison: Comparison, row: int) -> bool:
    error = comparison.difference_stderr[row]
    return bool(comparison.difference[row] > SIGNIFICANT * error)


def _next(comparison: Comparison) -> Pieces:
    lines = []
    for row in range(1, len(comparison.names)):
        lines.append(f"<li>{escape(_advice(comparison, row))}</li>")
    return ["<ul>", *lines, "</ul>"]


def _advice(comparison: Comparison, row: int) -> str:
    """What the difference of a run to the best allows to say, and what it would take to say more."""
    name, best = comparison.names[row], comparison.names[0]
    difference, slack = comparison.difference[row], comparison.slack[row]
    gap = f"{name} lies {difference:.2f} nats per datum above {best}"
    if _told_apart(comparison, row).startswith("unknown"):
        return (
            f"{gap}: one seed can't tell whether another would turn it round. Train more: seeds: 5."
        )
    if slack > difference:
        return (
            f"{gap}, less than the slack of its estimate, {slack:.2f}: more draws, pyro-dgm evaluate "
            "--num=5000, or ais."
        )
    if not _is_significant(comparison, row):
        spread = max(comparison.between_seeds[row], comparison.between_seeds[0])
        return (
            f"{gap}, within two standard errors: more seeds tell them apart (they differ by "
            f"{spread:.2f} nats, sd), or more test data."
        )
    if comparison.unreliable[row] > MAX_SHARE:
        return (
            f"{gap}, beyond the errors of data and seeds; but k-hat is high for "
            f"{comparison.unreliable[row]:.0%} of its data, whose NLL may be too high: score both by "
            "more draws, or ais, before one is preferred."
        )
    return f"{gap}, beyond the errors of data and seeds: prefer {best} on these data."


def _weights(comparison: Comparison) -> Pieces:
    table = comparison.elpd()
    cells = []
    for name, row in table.iterrows():
        difference = with_error(row["elpd_diff"], row["dse"], 1)
        cells.append([escape(str(name)), difference, number(row["weight"], 3)])
    about = (
        "az.compare of the first seeds: log p of all test data less that of the best run, ± the error of "
        "paired differences, and the weights of the mixture of the runs that predicts the test data best."
    )
    columns = ("run", "elpd difference ± dse", "weight")
    return [data_table(columns, cells, numbers=(1, 2)), paragraph(about, "source")]


def _settings(runs: Mapping[str, Run]) -> Pieces:
    settings = {name: _settings_of(run) for name, run in runs.items()}
    keys = list(dict.fromkeys([key for found in settings.values() for key in found]))
    cells = []
    for key in keys:
        values = [str(found.get(key, "–")) for found in settings.values()]
        if len(set(values)) > 1:
            cells.append([escape(key), *[escape(value) for value in values]])
    if not cells:
        raise Skipped("the configurations are the same")
    return [data_table(("setting", *runs), cells)]


def _settings_of(run: Run) -> dict[str, Any]:
    path = run.folder / CONFIG
    if not path.exists():
        raise Skipped(f"{run.folder} has no {CONFIG}")
    return flatten(yaml.safe_load(path.read_text("utf-8")))


def _each(runs: Mapping[str, Run], draw: Callable[[str, Run], Pieces]) -> Pieces:
    """The pictures of all runs beside each other."""
    pieces = []
    for name, run in runs.items():
        pieces += attempt(partial(draw, name, run))
    return ['<div class="pictures">', *pieces, "</div>"]


def _curve(name: str, run: Run) -> Pieces:
    draw = curves.critic if is_game_alone(run.history) else curves.learning_curve
    ax = draw(run.history)
    return [picture(ax, f"{name}.", f"Learning curves of all seeds of {name}")]


def _samples(name: str, run: Run, num: int, seed: int) -> Pieces:
    context = rows_for(run.data, num)[1:]
    x = draws_of(run, num, context, seed)
    ax = images.samples(x, run.data.event_shape, run.data.levels)
    return [picture(ax, f"{name}, first seed.", f"Draws of the model of {name}")]


def _runs(runs: Mapping[str, Run], folder: Path | None) -> Pieces:
    lines = []
    for name, run in runs.items():
        place = escape(str(run.folder))
        page = run.folder / REPORT
        if folder is not None and page.exists():
            link = quote(Path(os.path.relpath(page, folder)).as_posix())
            place = f'<a href="{escape(link)}">{place}</a>'
        lines.append(f"<li>{escape(name)}: {place}</li>")
    return ["<ul>", *lines, "</ul>"]
