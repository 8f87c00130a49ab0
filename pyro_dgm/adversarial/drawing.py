"""Fakes: what a generator program makes, read from the site of its observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..inference.run.generation import data_dim_first
from ..inference.run.states import eval_mode, fork_rng
from ..inference.run.traces import Site, observed_sites, plate_depth, vectorized


class Fakes:
    r"""$y = G(z)$ with $z \sim p(z \mid c)$: as many fakes as a batch has data, by running the declared program.

    G(z) is the mean $E[x \mid z, c]$ of the observation, or a reparameterized draw of it. Nothing is known of the
    program but the contract: it generates where its first argument is `None`.

    Args:
        program: a Pyro program.
        noise: whether to draw the observation, in place of its mean.

    Shape:
        x: `(B, *event)`, context `(B, …)`  ->  `(B, *event)`.

    Raises:
        ValueError: for a program with no observed site or several; for a law that has no mean, or no reparameterized
            draws, where they are needed.
    """

    def __init__(self, program: Callable, *, noise: bool = False):
        self.program, self.noise = program, noise
        self.site: str | None = None
        self.depth = 1

    def __call__(self, x: Tensor, *context: Any) -> Tensor:
        if self.site is None:
            self.inspect(x, *context)
        with _Observation(self.site, noise=self.noise) as observation:
            self.run(x, *context)
        return data_dim_first(observation.found).flatten(0, 1)

    def run(self, x: Tensor, *context: Any) -> Any:
        """Generate beside a batch: a context has one row per fake, without one the fakes are particles."""
        rows = any(isinstance(c, Tensor) and c.dim() > 0 for c in context)
        return vectorized(self.program, 1 if rows else len(x), self.depth)(None, *context)

    def inspect(self, *batch: Any) -> None:
        """Find the observed site and the depth of the plates, by one run on data."""
        with fork_rng(*batch), eval_mode(self.program):
            trace = poutine.trace(self.program).get_trace(*batch)
        if len(names := list(observed_sites(trace))) != 1:
            swapped = (
                ""
                if names
                else "; or is it the critic? GANTrainer(generator, critic), in this order"
            )
            raise ValueError(
                f"generator: expected one observed site, which the critic looks at, got {names}. "
                f"Fix: pyro.sample('x', …, obs=x) for the first argument alone{swapped}."
            )
        self.site, self.depth = names[0], plate_depth(trace)


class _Observation(Messenger):
    """Keeps the message of one site, with the mean of its law as its value unless it is to be drawn."""

    def __init__(self, site: str | None, *, noise: bool):
        super().__init__()
        self.site, self.noise = site, noise
        self.found: Site = {}

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] != self.site:
            return
        self.found = msg
        if not self.noise:
            msg["value"] = _mean(msg["name"], msg["fn"])
        elif not msg["fn"].has_rsample:
            raise ValueError(
                f"site '{self.site}': expected reparameterized draws, through which a gradient flows, got {msg['fn']}. "
                "Fix: noise=False, which takes its mean."
            )


def _mean(name: str, distribution: Any) -> Tensor:
    try:
        return distribution.mean
    except NotImplementedError as error:
        raise ValueError(
            f"site '{name}': expected a law with a mean, got {distribution}. Fix: GANTrainer(…, noise=True), which draws it; of "
            "a dequantized program take the continuous one, and add the noise to the data."
        ) from error
