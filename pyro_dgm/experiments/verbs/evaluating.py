"""Score a run on its test data again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...display.progress import bars, watched
from ...files.records import read_records
from ...inference.process.numbers import check_count
from ..configuration.experiment import Evaluation
from ..runs.examinations import Examination
from ..runs.layout import RESULTS
from ..runs.processes import find_device
from ..runs.results import Results
from ..runs.run import Run, load_run
from .fitting import score


def evaluate(
    run: str | Path | Run,
    *,
    num: int = 1000,
    limit: int | None = None,
    ais: int | None = None,
    surgery: bool = False,
    check: bool = False,
    seed: int = 0,
    device: str | None = None,
    trust: Sequence[str] = (),
    progress: bool = True,
) -> list[Results]:
    """Score every seed of a run on its test data again: a row of `results.jsonl` for each.

    Args:
        run: a run directory, or what `dgm.load_run` read.
        num: importance draws per test datum.
        limit: score only so many test data.
        ais: temperatures of an annealed importance sampling from the guide, such as 1000; default: none.
        surgery: whether the KL is taken apart: mutual information, marginal KL, total correlation.
        check: whether every check of `dgm.check` is run; what they say is written to `check-seed-K.txt`.
        seed: of the draws.
        device: default: the GPU if there is one.
        trust: modules of your own that its configuration names.
        progress: whether to show bars.

    Returns:
        The rows, in nats per datum.
    """
    check_count("evaluate", "num", num, fix="--num=1000")
    asked = Evaluation(num, limit)
    if not isinstance(run, Run):
        run = load_run(run, trust, find_device(device))
    read_records(run.folder / RESULTS)  # damaged ones are named before the work
    chosen = replace(run, experiment=run.experiment.with_evaluation(asked))
    examination = Examination(ais, surgery, check)

    def of(own: int) -> Results:
        return score(
            chosen,
            own,
            command="evaluate",
            noise=seed,
            asked=examination.asked(),
            more=lambda: examination.of(chosen, own, limit, seed),
        )

    with bars(shown=progress):
        return [of(own) for own in watched(run.seeds, len(run.seeds), "seed", "evaluate")]
