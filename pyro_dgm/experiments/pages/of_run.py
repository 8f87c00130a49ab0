"""The page of one run: what it is, its figures with their errors, pictures, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from html import escape
from urllib.parse import quote

from ...evaluation.report.findings import NO_LATENTS, Skipped
from ...evaluation.report.html import table as table_of_items
from ...evaluation.report.items import Status, group_items, merge_items, sentence
from ...inference.run.sessions import require_positive
from ..plots import curves, fidelity, images, latents
from ..runs.layout import CONFIG, ENVIRONMENT
from .advice import advise
from .examined import Examined, examine
from .protocols import Run
from .sections import Pieces, Section, page_of, paragraph, picture
from .tables import (
    describe_rows,
    flatten,
    last_rows,
    pairs_list,
    require_rows,
    seed_table,
    spread_of,
)


def run_page(
    run: Run,
    *,
    num: int = 500,
    limit: int = 200,
    num_simulated: int = 500,
    num_samples: int = 50,
    seed: int = 0,
) -> str:
    """One offline HTML page of a run: no other file, no network, no scripts; it fits a phone and prints.

    The figures in the table are those that the run directory holds. All else is computed here, about the programs of
    the first seed and the first 2,000 test data, of which `limit` are scored one by one: small numbers, for a look.
    What a run can't give (a reconstruction by a flow likelihood, the latents of a density) is left out, and the page
    says why.

    Args:
        run: what `load_run` returns.
        num: importance draws per datum.
        limit: how many test data are scored one by one.
        num_simulated: data that calibration simulates.
        num_samples: draws that are shown.
        seed: of every draw and choice; the random state outside stays as it is.

    Raises:
        ValueError: for counts below 1.
    """
    require_positive(num=num, limit=limit, num_simulated=num_simulated, num_samples=num_samples)
    with examine(run, num, limit, num_simulated, seed) as examined:
        sections = _sections(examined, num_samples)
        return page_of(f"Run {run.folder.name}", _subtitle(run), sections)


def _sections(examined: Examined, num_samples: int) -> list[Section]:
    run = examined.run
    return [
        Section("Result", partial(_result, run)),
        Section("What to do next", partial(_next, examined)),
        Section("Learning curve", partial(_curves, run)),
        Section("Samples", partial(_samples, examined, num_samples)),
        Section("Reconstructions", partial(_reconstructions, examined)),
        Section("Latent space", partial(_latents, examined)),
        Section("Traversal", partial(_traversal, examined)),
        Section("Terms of the KL", partial(_surgery, examined)),
        Section("Importance weights", partial(_khat, examined)),
        Section("Calibration", partial(_calibration, examined)),
        Section("Worst data", partial(_worst, examined)),
        Section("Checks", partial(_checks, examined)),
        Section("Data", partial(_data, run)),
        Section("Configuration", partial(_configuration, run)),
        Section("Environment", partial(_environment, run)),
        Section("Files", partial(_files, run)),
    ]


def _subtitle(run: Run) -> str:
    num = len(run.seeds)
    seeds = f"{num} seeds" if num > 1 else "1 seed"
    nll = spread_of(last_rows(run), "nll")
    figure = "not evaluated yet" if nll is None else f"test NLL {nll} nats per datum"
    spread = ", mean ± sd between seeds" if nll is not None and nll.num > 1 else ""
    return f"{figure}{spread}; {seeds}, {len(run.data.train):,} training data."


def _result(run: Run) -> Pieces:
    rows = require_rows(run)
    return [seed_table(run, rows), paragraph(describe_rows(rows), "source")]


def _next(examined: Examined) -> Pieces:
    lines = []
    for advice in advise(examined.run, examined.items):
        lines.append(f"<li><b>{escape(advice.topic)}</b>: {escape(advice.text)}</li>")
    if not lines:
        return [paragraph("Nothing in these figures asks for a change.")]
    return ["<ul>", *lines, "</ul>"]


def _curves(run: Run) -> Pieces:
    columns = run.history.columns()
    pieces = []
    if "train_nelbo" in columns or "val_nelbo" in columns:
        ax = curves.learning_curve(run.history)
        caption = (
            "−ELBO over the epochs, each seed thin, the mean thick and ± sd between seeds as a band; "
            "the scale leaves out the first tenth of the epochs."
        )
        pieces.append(picture(ax, caption, "Learning curves of all seeds"))
    if "train_critic" in columns:
        ax = curves.critic(run.history)
        pieces.append(picture(ax, "The terms of the game.", "Losses of critic and generator"))
    if not pieces:
        raise Skipped(f"the history has no −ELBO and no game, only {list(columns)}")
    return pieces


def _samples(examined: Examined, num: int) -> Pieces:
    x = examined.draws(num)
    data = examined.data
    ax = images.samples(x, data.event_shape, data.levels)
    beside = images.samples(data.test[:num], data.event_shape, data.levels)
    beside.set_title(f"{min(num, len(data.test))} test data", loc="left", fontsize=10)
    return [
        '<div class="pictures">',
        picture(ax, "Draws of the model.", "Draws of the model"),
        picture(beside, "Test data, for comparison.", "Test data"),
        "</div>",
    ]


def _reconstructions(examined: Examined) -> Pieces:
    x, means = examined.reconstructions()
    ax = images.reconstructions(x, means, examined.data.event_shape, examined.data.levels)
    caption = "Test data, and below each the mean of what the model makes of its latents."
    return [picture(ax, caption, "Test data and their reconstructions")]


def _latents(examined: Examined) -> Pieces:
    pieces = []
    labels = examined.labels()
    for name, z in examined.latents().items():
        ax = latents.latent(z, labels)
        told = "; colours and markers are the labels of the data" if labels is not None else ""
        caption = f"A draw of q({name} | x) for each of {len(z):,} test data{told}."
        pieces.append(picture(ax, caption, f"Scatter plot of the latent {name}"))
    if not pieces:
        raise Skipped(NO_LATENTS)
    return ['<div class="pictures">', *pieces, "</div>"]


def _traversal(examined: Examined) -> Pieces:
    site, dims, means = examined.traversal()
    data = examined.data
    ax = images.traversal(means, data.event_shape, data.levels, dims)
    caption = (
        f"What the model makes of a test datum as one dim of {site} moves: the {len(dims)} dims "
        "that change it most, in the base space of a flow prior."
    )
    return [picture(ax, caption, f"Traversal of {site}, a row for each dim")]


def _surgery(examined: Examined) -> Pieces:
    found = examined.findings.surgery
    caption = (
        f"KL = mutual information + marginal KL, over {found.num_data:,} test data; the marginal KL is "
        "what a better prior could still win, and the dashed line, where it is in sight, log N."
    )
    return [picture(latents.surgery(found), caption, "Bars of the terms of the KL")]


def _khat(examined: Examined) -> Pieces:
    _ = examined.findings.latent_pair
    nll = examined.findings.nll
    caption = (
        "Pareto k-hat of each datum's importance weights: triangles are data whose NLL has no "
        "reliable error."
    )
    return [picture(fidelity.khat(nll), caption, "k-hat of every datum"), paragraph(f"{nll}.")]


def _calibration(examined: Examined) -> Pieces:
    sbc = examined.findings.sbc
    caption = (
        "Ranks of the truth among draws of the guide on data that the model simulated, less those of an "
        "exact guide; the band holds all curves of an exact guide in 99 of 100 pictures."
    )
    return [picture(fidelity.calibration(sbc), caption, "Rank ECDF differences with their band")]


def _worst(examined: Examined) -> Pieces:
    x = examined.findings.scored[0]
    data = examined.data
    ax = images.worst(examined.findings.nll, x, data.event_shape, data.levels)
    caption = f"The data with the largest NLL among {len(x):,} test data that were scored."
    return [picture(ax, caption, "Test data with the largest NLL")]


def _checks(examined: Examined) -> Pieces:
    items = examined.items
    pieces = [table_of_items(items)]
    for group in group_items(items):
        item = merge_items(group)
        if item.status is not Status.PASS:
            pieces.append(paragraph(f"{item.name}: {sentence(item.finding)}", "why"))
    return pieces


def _data(run: Run) -> Pieces:
    data = run.data
    about = {
        "training, validation, test data": f"{len(data.train):,}, {len(data.val):,}, {len(data.test):,}",
        "shape of a datum": " × ".join([str(size) for size in data.event_shape]),
        "numbers": f"{data.levels} levels" if data.levels else data.kind.value,
        "numbers of context": data.num_context,
    }
    return [pairs_list(about), *[paragraph(line) for line in data.said]]


def _configuration(run: Run) -> Pieces:
    path = run.folder / CONFIG
    if not path.exists():
        raise Skipped(f"the run directory has no {CONFIG}")
    return [f"<pre>{escape(path.read_text('utf-8'))}</pre>"]


def _environment(run: Run) -> Pieces:
    path = run.folder / ENVIRONMENT
    if not path.exists():
        raise Skipped(f"the run directory has no {ENVIRONMENT}")
    return [pairs_list(flatten(json.loads(path.read_text("utf-8"))))]


def _files(run: Run) -> Pieces:
    names = []
    for path in sorted(run.folder.rglob("*")):
        relative = path.relative_to(run.folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            names.append(relative.as_posix())
    if not names:
        raise Skipped("the run directory holds no files")
    return ["<ul>", *_links(names), "</ul>"]


def _links(names: Sequence[str]) -> list[str]:
    """Links that hold where the page lies in the run directory."""
    return [f'<li><a href="{escape(quote(name))}">{escape(name)}</a></li>' for name in names]
