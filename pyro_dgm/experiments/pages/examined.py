"""A run under examination: its first seed's programs on a part of its test data, each result computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ...evaluation.latents.traversal import traverse
from ...evaluation.report.checking import run_checks
from ...evaluation.report.checks import CHECKS, JOINT_CHECKS
from ...evaluation.report.findings import Findings, Settings, Skipped
from ...evaluation.report.items import Item
from ...inference.drawing.generation import encode, reconstruct
from ...inference.run.sessions import session
from ..data.datasets import Data
from ..runs.drawing import draws_of, first_rows
from .protocols import Run

MOST_DATA = 2000  # that make up the aggregate posterior
NUM_RECONSTRUCTED = 20
MOST_DIMS = 8  # of a traversal


@dataclass(frozen=True)
class Examined:
    """The first seed of a run and what was found about it.

    Attributes:
        run: what is examined.
        findings: of its programs on its test data.
        seed: of all draws.
    """

    run: Run
    findings: Findings
    seed: int

    @property
    def data(self) -> Data:
        """Of the run."""
        return self.run.data

    @property
    def model(self) -> Any:
        """Of the first seed."""
        return self.run.pairs[0][0]

    @property
    def guide(self) -> Any:
        """Of the first seed."""
        return self.run.pairs[0][1]

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Every check of `dgm.check`."""
        try:
            has_globals = self.findings.structure.has_globals
        except Skipped:  # nothing can be scored, as the first item says
            has_globals = False
        return run_checks(JOINT_CHECKS if has_globals else CHECKS, self.findings)

    def draws(self, num: int) -> Tensor:
        """Draws of the model `(num, …)`, at the contexts of as many test data, see `draws_of`."""
        context = tuple([value[:num] for value in self.findings.batch[1:]])
        return draws_of(self.run, num, context, self.seed)

    def reconstructions(self) -> tuple[Tensor, Tensor]:
        """Some data and the means of what the model makes of their latents."""
        _ = self.findings.latent_pair
        batch = first_rows(self.findings.batch, NUM_RECONSTRUCTED)
        means = reconstruct(self.model, self.guide, *batch, num=10, seed=self.seed)
        for mean in means.values():
            if mean.shape[0] == len(batch[0]) and mean[0].numel() == self.data.dim:
                return batch[0], mean
        raise Skipped(f"no observed site is of the data's size, {self.data.dim}")

    def latents(self) -> dict[str, Tensor]:
        """Site → a draw for each of the scored data `(N, D)`."""
        _ = self.findings.latent_pair
        scored = self.findings.scored
        found = {}
        for name, z in encode(self.guide, *scored, seed=self.seed).items():
            if name in self.findings.latents and len(z[0]) == len(scored[0]):
                found[name] = z[0].flatten(1)
        return found

    def labels(self) -> Tensor | None:
        """Of the scored data, where the data have any."""
        labels = self.data.labels.get("test")
        return None if labels is None else labels[self.findings.rows.to(labels.device)]

    def traversal(self) -> tuple[str, list[int], Tensor]:
        """A site, the dims of it that change the observation most, and the means along them."""
        _ = self.findings.latent_pair
        batch = first_rows(self.findings.batch, 1)
        site = self.findings.latents[0]
        z = encode(self.guide, *batch, seed=self.seed)[site][0]
        images = traverse(self.model, z, *batch[1:], latent=site)
        change = images.flatten(2).std(1).mean(-1)
        dims = change.argsort(descending=True)[:MOST_DIMS].sort().values
        return site, dims.tolist(), images[dims]


@contextmanager
def examine(run: Run, num: int, limit: int, num_simulated: int, seed: int) -> Iterator[Examined]:
    """Open the first seed of a run.

    Args:
        run: trained.
        num: importance draws per datum.
        limit: how many test data are scored one by one.
        num_simulated: data that calibration simulates.
        seed: of every draw and choice.
    """
    model, guide = run.pairs[0]
    shape = run.data.event_shape
    image_shape = shape if len(shape) in (2, 3) else None
    settings = Settings(num, limit, num_simulated, seed, image_shape)
    batch = first_rows(run.data.split("test"), MOST_DATA)
    with session(model, guide, *batch, num=num, seed=seed) as pair:
        yield Examined(run, Findings(pair, settings), seed)
