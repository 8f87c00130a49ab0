"""What to do next: rules from a run's figures and checks to a sentence, each with its threshold and its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from ...evaluation.report.items import Item, Status, group_items, merge_items, sentence
from ..plots.seeds import SeedCurves, seed_curves
from .protocols import Row, Run
from .tables import last_rows, spread_of

MAX_GAP = 1.0  # nats per datum between training and validation at the best epoch
MAX_GAP_SHARE = 0.02  # of the NELBO, for data of many dims
STILL_FALLING = 0.002  # of the NELBO, over the last tenth of the epochs
MAX_SHARE = 0.1  # of data with a k-hat above the threshold, see `khat_item`
FEW_SEEDS = 3
SAME = ("k-hat", "importance ESS")  # checks of what the table's k-hat says already


@dataclass(frozen=True)
class Advice:
    """One thing to do.

    Attributes:
        topic: what it is about, in a word or two.
        text: what was found, and what to do.
    """

    topic: str
    text: str


def advise(run: Run, items: Sequence[Item]) -> list[Advice]:
    """What there is to do, the most general first.

    Args:
        run: trained and, as a rule, evaluated.
        items: what `dgm.check` found about it.
    """
    rows = last_rows(run)
    of_weights = _of_weights(rows)
    told = SAME if of_weights else ()
    of_checks = _of_checks([item for item in items if item.name not in told])
    return [*_of_training(run), *_of_seeds(run, rows), *of_weights, *of_checks]


def _of_training(run: Run) -> list[Advice]:
    """Longer, or smaller: by the curves."""
    train = seed_curves(run.history, "train_nelbo")
    val = seed_curves(run.history, "val_nelbo")
    if train is None or val is None:
        return []
    return [*_of_gap(train, val), *_of_length(val)]


def _of_gap(train: SeedCurves, val: SeedCurves) -> list[Advice]:
    best = median([value for _, value in val.best])
    gap = best - median(_at_best(train, val))
    if gap <= max(MAX_GAP, MAX_GAP_SHARE * abs(best)):
        return []
    text = (
        f"validation lies {gap:.1f} nats per datum above training at the best epoch: the networks "
        "are too large for the data, or the data too few. Try fewer hidden units, weight decay, "
        "dropout in the encoder, or more data."
    )
    return [Advice("Overfitting", text)]


def _of_length(val: SeedCurves) -> list[Advice]:
    best = median([value for _, value in val.best])
    fall = _fall_at_the_end(val)
    if fall <= STILL_FALLING * abs(best):
        return []
    num = int(val.epochs[-1])
    text = (
        f"validation still falls, by {fall:.2f} nats per datum over the last tenth of the {num} "
        f"epochs: train longer (--epochs={2 * num}) before runs are compared."
    )
    return [Advice("Training", text)]


def _at_best(train: SeedCurves, val: SeedCurves) -> list[float]:
    """−ELBO of the training data at the best epoch of each seed."""
    return [float(np.interp(epoch, train.epochs, train.mean)) for epoch, _ in val.best]


def _fall_at_the_end(val: SeedCurves) -> float:
    """How far the mean curve falls over the last tenth of its epochs; 0 for fewer than ten."""
    num = len(val.epochs)
    if num < 10:
        return 0.0
    return float(val.mean[-1 - num // 10] - val.mean[-1])


def _of_seeds(run: Run, rows: Sequence[Row]) -> list[Advice]:
    """How many seeds it takes, by the spread between them."""
    nll, stderr = spread_of(rows, "nll"), spread_of(rows, "nll_stderr")
    if nll is None:
        return [Advice("Evaluation", f"no seed has one yet: pyro-dgm evaluate {run.folder}.")]
    if nll.num < FEW_SEEDS:
        text = (
            f"{nll.num} can't tell the spread between seeds, which a comparison has to exceed: "
            "train more, seeds: 5."
        )
        return [Advice("Seeds", text)]
    if stderr is None or nll.sd <= stderr.mean:
        return []
    text = (
        f"they differ by {nll.sd:.2f} nats per datum (sd), more than the standard error of one run, "
        f"{stderr.mean:.2f}: compare means over seeds, and believe no difference below "
        f"{2 * nll.stderr:.2f} nats; more seeds tell smaller ones."
    )
    return [Advice("Seeds", text)]


def _of_weights(rows: Sequence[Row]) -> list[Advice]:
    """Whether the figures of the table can be relied on."""
    share = spread_of(rows, "share_khat_above")
    if share is None or share.mean <= MAX_SHARE:
        return []
    text = (
        f"it is above its threshold for {share.mean:.0%} of the test data, whose NLL has no "
        "reliable error and may be too high: more draws (pyro-dgm evaluate --num=5000); ais(model, "
        "x), which takes no guide; or a better guide, by IWELBO or a flow posterior, Flow(base, "
        "iaf(…))."
    )
    return [Advice("k-hat", text)]


def _of_checks(items: Sequence[Item]) -> list[Advice]:
    """The advice of every check that warns."""
    found = []
    for group in group_items(items):
        item = merge_items(group)
        if item.status is Status.WARN and item.advice:
            text = f"{sentence(item.finding)} {_capital(sentence(item.advice))}"
            found.append(Advice(_capital(item.name), text))
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
