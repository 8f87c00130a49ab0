"""The page of a comparison: figures with the spread between seeds, paired differences, and what they can tell."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from urllib.parse import quote

from ...arviz_export.comparison import compare_elpd
from ...evaluation.report.findings import Skipped
from ...evaluation.report.markup import data_table
from ...inference.run.sessions import require_positive
from ..plots import comparisons, curves, images
from .differences import Difference, differences_of, figures_of
from .examined import draws_of, first_rows
from .protocols import Comparison, Run
from .sections import Pieces, Section, attempt, number, page_of, paragraph, picture, with_error
from .tables import describe_rows, flatten, last_rows, require_rows, spread_of

REPORT = "report.html"


def comparison_page(
    comparison: Comparison, *, folder: Path | None = None, num_samples: int = 25, seed: int = 0
) -> str:
    """One offline HTML page of runs side by side: no other file, no network, no scripts; it fits a phone and prints.

    Every figure comes from the run directories: the NLL with the spread between seeds, and the differences to the best
    run, paired over the test data, with the error of the data, that of the seeds, and the slack of each bound.

    Args:
        comparison: the runs by name.
        folder: where the page will lie, for links to the pages of the runs.
        num_samples: draws of each model that are shown.
        seed: of the draws; the random state outside stays as it is.

    Raises:
        ValueError: for fewer than two runs, or a count below 1.
    """
    require_positive(num_samples=num_samples)
    runs = comparison.runs
    if len(runs) < 2:
        raise ValueError(
            f"comparison: expected two or more runs, got {list(runs)}. "
            "Fix: compare_runs(['runs/a', 'runs/b'])."
        )
    sections = [
        Section("Result", partial(_result, runs)),
        Section("Paired differences", partial(_differences, runs)),
        Section("What to do next", partial(_next, runs)),
        Section("Stacking weights", partial(_weights, runs)),
        Section("What differs", partial(_settings, runs)),
        Section("Learning curves", partial(_each, runs, _curve)),
        Section("Samples", partial(_each, runs, partial(_samples, num=num_samples, seed=seed))),
        Section("Runs", partial(_runs, runs, folder)),
    ]
    names = ", ".join(runs)
    return page_of("Comparison of runs", f"{len(runs)} runs: {names}.", sections)


def _result(runs: Mapping[str, Run]) -> Pieces:
    cells = []
    for name, run in runs.items():
        rows = require_rows(run)
        line = [escape(name), str(len(rows))]
        for key, digits in (("nll", 2), ("nelbo", 2), ("bits_per_dim", 3)):
            found = spread_of(rows, key)
            line.append("–" if found is None else with_error(found.mean, found.sd, digits))
        stderr, parameters = spread_of(rows, "nll_stderr"), spread_of(rows, "parameters")
        line.append("–" if stderr is None else number(stderr.mean))
        line.append("–" if parameters is None else number(parameters.mean, 0))
        cells.append(line)
    columns = (
        "run",
        "seeds",
        "NLL ± sd",
        "−ELBO ± sd",
        "bits/dim ± sd",
        "se of data",
        "parameters",
    )
    ax = comparisons.spread({name: last_rows(run) for name, run in runs.items()})
    about = describe_rows(require_rows(next(iter(runs.values()))))
    return [
        data_table(columns, cells, numbers=range(1, len(columns))),
        paragraph(f"Mean ± sd between seeds. Of the first run: {about}", "source"),
        picture(ax, "The NLL of every seed, and mean ± sd of each run.", "NLL of all seeds by run"),
    ]


def _differences(runs: Mapping[str, Run]) -> Pieces:
    found = differences_of(runs)
    cells = []
    for difference in found:
        cells.append(
            [
                escape(difference.name),
                with_error(difference.value, difference.stderr, 3),
                number(difference.stderr_of_seeds, 3),
                number(difference.slack, 3),
                escape(difference.verdict),
            ]
        )
    columns = ("run", "NLL less the best ± se", "se of seeds", "slack", "told apart")
    best = found[0].best
    about = (
        f"Nats per datum, less {best}; each datum's NLL is the mean over the seeds. se: over the data, "
        "paired. se of seeds: of the difference of the two means over seeds. Slack: how far the importance "
        "estimate of the run's NLL lies above its truth, Var(w) / 2 to first order; it is no bound where "
        "k-hat is large."
    )
    ax = comparisons.paired(figures_of(runs))
    return [
        data_table(columns, cells, numbers=(1, 2, 3)),
        paragraph(about, "source"),
        picture(ax, "Differences to the best run, ± 2 standard errors.", "Paired differences"),
    ]


def _next(runs: Mapping[str, Run]) -> Pieces:
    found = []
    for difference in differences_of(runs):
        found.append(f"<li>{escape(_advice(difference))}</li>")
    return ["<ul>", *found, "</ul>"]


def _advice(difference: Difference) -> str:
    """What the difference of a run to the best allows to say, and what it would take to say more."""
    name, best = difference.name, difference.best
    gap = f"{name} lies {difference.value:.2f} nats per datum above {best}"
    if difference.stderr_of_seeds != difference.stderr_of_seeds:
        return (
            f"{gap}: one seed can't tell whether another would turn it round. Train more: seeds: 5."
        )
    if difference.slack > difference.value:
        return (
            f"{gap}, less than the slack of its estimate, {difference.slack:.2f}: more draws, "
            "pyro-dgm evaluate --num=5000, or ais."
        )
    if difference.is_significant:
        return f"{gap}, beyond the errors of data and seeds: prefer {best} on these data."
    if difference.stderr_of_seeds > difference.stderr:
        return (
            f"{gap}, within the spread between seeds: more seeds tell them apart, or nothing does."
        )
    return f"{gap}, within the error of the test data: more test data tell them apart."


def _weights(runs: Mapping[str, Run]) -> Pieces:
    table = compare_elpd(figures_of(runs))
    cells = []
    for name, row in table.iterrows():
        difference = with_error(row["elpd_diff"], row["dse"], 1)
        cells.append([escape(str(name)), difference, number(row["weight"], 3)])
    about = (
        "az.compare: log p of all test data less that of the best run, ± the error of paired "
        "differences, and the weights of the mixture of the runs that predicts the test data best."
    )
    columns = ("run", "elpd difference ± dse", "weight")
    return [data_table(columns, cells, numbers=(1, 2)), paragraph(about, "source")]


def _settings(runs: Mapping[str, Run]) -> Pieces:
    settings = {name: flatten(run.config) for name, run in runs.items()}
    keys = list(dict.fromkeys([key for found in settings.values() for key in found]))
    cells = []
    for key in keys:
        values = [str(found.get(key, "–")) for found in settings.values()]
        if len(set(values)) > 1:
            cells.append([escape(key), *[escape(value) for value in values]])
    if not cells:
        raise Skipped("the configurations are the same")
    return [data_table(("setting", *runs), cells)]


def _each(runs: Mapping[str, Run], draw: Callable[[str, Run], Pieces]) -> Pieces:
    """The pictures of all runs beside each other."""
    pieces = []
    for name, run in runs.items():
        pieces += attempt(partial(draw, name, run))
    return ['<div class="pictures">', *pieces, "</div>"]


def _curve(name: str, run: Run) -> Pieces:
    columns = run.history.columns()
    is_game = "train_critic" in columns and "val_nelbo" not in columns
    ax = curves.critic(run.history) if is_game else curves.learning_curve(run.history)
    return [picture(ax, f"{name}.", f"Learning curves of all seeds of {name}")]


def _samples(name: str, run: Run, num: int, seed: int) -> Pieces:
    context = first_rows(run.data.split("test")[1:], num)
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
