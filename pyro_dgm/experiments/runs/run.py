"""A run that has been trained: its programs by seed, its data, and what was measured; and what is added to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from ... import __version__
from ...arviz_export.netcdf import netcdf_content
from ...arviz_export.seeds import seeds_to_arviz
from ...evaluation.likelihood.importance import nll
from ...evaluation.likelihood.results import NLL
from ...files.errors import FileError
from ...files.manifest import Manifest
from ...files.records import append_record, read_records
from ...files.stamps import digest_of
from ...inference.process.states import fork_rng
from ...inference.run.structure import preflight
from ...inference.training.checkpoints import load_weights, weights_content
from ...inference.training.replicates.histories import SeedHistory
from ..configuration.experiment import Evaluation, Experiment
from ..configuration.stored import stored_experiment
from ..data.datasets import Data
from .fakes import compare_to_test
from .layout import METRICS, RESULTS, scores_of, weights_of
from .metrics import read_metrics
from .results import Results, results_of
from .scores import score_content, score_of
from .training import DRAWS_DESCRIBED, NUM_DESCRIBED

DIMS = {"z": ["latent"], "x": ["pixel"]}  # of sites whose event is a vector


@dataclass(frozen=True)
class Run:
    """A run directory, read: `dgm.load_run(folder)`.

    Attributes:
        folder: the directory.
        experiment: what its configuration says.
        programs: model and guide in one module by seed, with the weights of the run.
        device: where they are.
    """

    folder: Path
    experiment: Experiment
    programs: dict[int, nn.Module]
    device: torch.device

    @property
    def seeds(self) -> list[int]:
        """The seeds that were trained to their end."""
        return list(self.programs)

    @property
    def model(self) -> Any:
        """The model of the first seed."""
        return self.pairs[0][0]

    @property
    def guide(self) -> Any:
        """The guide of the first seed."""
        return self.pairs[0][1]

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        """Model and guide of each seed, as `dgm.training.seeds_to_arviz` takes them."""
        found: list[Any] = list(self.programs.values())
        return [(programs.model, programs.guide) for programs in found]

    @property
    def data(self) -> Data:
        """The data of the run, read again."""
        return self.experiment.data

    @property
    def results(self) -> list[Results]:
        """What was measured so far: a row for each seed and evaluation."""
        return read_records(self.folder / RESULTS)

    @property
    def own_results(self) -> list[Results]:
        """The evaluation that ended the training, a row for each seed; its last one where there are several."""
        by_seed = {row["seed"]: row for row in self.results if row["command"] == "fit"}
        return [by_seed[seed] for seed in self.seeds if seed in by_seed]

    @property
    def scores(self) -> dict[int, NLL]:
        """The likelihood of each test datum by seed, as the last evaluation of each found it."""
        found = {}
        fix = f"pyro-dgm evaluate {self.folder}"
        for seed in self.seeds:
            name = scores_of(seed)
            if (self.folder / name).exists():
                what = "the likelihood of each test datum"
                found[seed] = score_of(Manifest(self.folder).read(name, what, fix))
        return found

    @cached_property
    def history(self) -> SeedHistory:
        """What training measured, by seed and epoch."""
        rows: dict[int, list[dict[str, float]]] = {seed: [] for seed in self.seeds}
        for row in read_metrics(self.folder / METRICS):
            seed = row.pop("seed", None)
            if seed in rows:
                rows[seed].append(row)
        return SeedHistory(self.seeds, list(rows.values()))

    def test(self, limit: int | None = None) -> tuple[Tensor, ...]:
        """The first test data on the device of the run, with their context: arguments of model and guide."""
        return tuple([part[:limit].to(self.device) for part in self.data.split("test")])

    def to_arviz(
        self, num: int = DRAWS_DESCRIBED, limit: int = NUM_DESCRIBED, seed: int = 0
    ) -> Any:
        """Posterior draws of the first test data, a chain for each seed; see `dgm.to_arviz`.

        Args:
            num: draws of each seed; those of a single seed are cut into four chains.
            limit: how many data.
            seed: of the draws.
        """
        test = self.test(limit)
        structure = preflight(*self.pairs[0], *self.test(2))
        dims = {
            s.name: DIMS[s.name]
            for s in structure.sites
            if s.name in DIMS and len(s.event_shape) == 1
        }
        return seeds_to_arviz(self.pairs, *test, num=num, dims=dims, seeds=self.seeds, seed=seed)

    # -- what is added to it ---------------------------------------------------------------------------
    def evaluate(
        self, evaluation: Evaluation, seed: int, noise: int
    ) -> tuple[Results, bytes | None]:
        """Score the test data under one seed of the run, in nats per datum and bits per dim; of a game its samples.

        Args:
            evaluation: with how many draws, and of how many data.
            seed: of the run.
            noise: seed of the draws.

        Returns:
            The means; and the likelihood of each datum as the bytes of a file, where there is one.
        """
        model, guide = self.pairs[self.seeds.index(seed)]
        start = perf_counter()
        scores: bytes | None = None
        if self.experiment.has_likelihood:
            test = self.test(evaluation.limit)
            score = nll(model, guide, *test, num=evaluation.num, seed=noise)
            results = {**results_of(score, self.data.dim), "num_test": len(test[0])}
            results["num_draws"] = evaluation.num
            scores = score_content(score)
        else:
            results = compare_to_test(self.data, model, evaluation.limit, noise, self.device)
        results["parameters"] = sum(p.numel() for p in self.programs[seed].parameters())
        results["evaluation_seconds"] = perf_counter() - start
        return results, scores

    def recorded(self, **how: Any) -> Results | None:
        """The row of an evaluation of the same weights in the same way, if there is one."""
        asked = {"weights": self._digest(how["seed"]), **how}
        for row in self.results:
            if all(row.get(name) == value for name, value in asked.items()):
                return row
        return None

    def record(self, results: Results, scores: bytes | None, **arguments: Any) -> Results:
        """Add a row to `results.jsonl`: the figures, what they were made with, when, and by which version."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        made = {"time": when, "version": __version__, "weights": self._digest(arguments["seed"])}
        row = {**made, **arguments, **results}
        if scores is not None:
            Manifest(self.folder).write(scores_of(arguments["seed"]), scores)
        append_record(self.folder / RESULTS, row)
        return row

    def _digest(self, seed: int) -> str:
        return digest_of((self.folder / weights_of(seed)).read_bytes())

    def save_weights(self) -> None:
        """Write the weights of every seed."""
        for seed, programs in self.programs.items():
            Manifest(self.folder).write(weights_of(seed), weights_content(programs))

    def describe(self, seed: int = 0) -> None:
        """Write `posterior.nc` of the first test data, where the guide was trained."""
        if not self.experiment.has_likelihood:
            return
        Manifest(self.folder).write("posterior.nc", netcdf_content(self.to_arviz(seed=seed)))


def load_run(
    folder: str | Path, trust: Sequence[str] = (), device: str | torch.device | None = None
) -> Run:
    """A run directory: model, guide, data, history and results of an experiment that was trained.

    Model and data are built as its configuration says, and nothing else of it.

    Args:
        folder: the directory that `pyro-dgm fit` wrote.
        trust: modules other than pyro_dgm, torch and pyro that its configuration may name, such as `["mymodel"]`.
        device: default: the CPU.

    Raises:
        FileError: if it is no run, its training did not end, a file is damaged, or it names what is not trusted.
    """
    path = Path(folder)
    experiment = stored_experiment(path, trust)
    where = torch.device("cpu" if device is None else device)
    _warn_of_changes(path)
    programs = {}
    for seed in experiment.seeds:
        if not (path / weights_of(seed)).exists():
            continue
        Manifest(path).read(weights_of(seed), "the weights of the run", f"pyro-dgm resume {path}")
        with fork_rng(seed=seed):
            built = experiment.programs().to(where)
        load_weights(built, path / weights_of(seed))
        programs[seed] = built
    if not programs:
        raise FileError(
            path,
            f"weights/ of seeds {experiment.seeds}",
            "none: its training did not end",
            f"pyro-dgm resume {path}",
        )
    return Run(path, experiment, programs, where)


def _warn_of_changes(folder: Path) -> None:
    for path in Manifest(folder).changed():
        warn(
            f"{path}: expected the bytes that were written, got others. Fix: pyro-dgm resume {folder}.",
            stacklevel=3,
        )
