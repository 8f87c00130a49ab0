"""Fakes: what a generator program makes, read from the site of its observation."""

from __future__ import annotations

from typing import Any, cast

from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..contract import PyroProgram, Site
from ..inference.drawing.observation import data_dim_first, refuse_factors
from ..inference.process.ambient import TURN
from ..inference.process.states import eval_mode, fork_rng
from ..inference.run.traces import observed_sites, plate_depth, vectorized
from ..inference.vectorization.modes import ParticleMode, meaning_of, means_the_same_in_training


class Fakes:
    r"""$y = G(z)$ with $z \sim p(z \mid c)$: one fake per datum of a batch, by running the program.

    G(z) is the mean $E[x \mid z, c]$ of the observation, or a reparameterized draw of it. Nothing is known of
    the program but the contract: it generates where its first argument is `None`.

    Args:
        program: a Pyro program.
        noise: whether to draw the observation, in place of its mean.

    Shape:
        x: `(B, *event)`, context `(B, …)`  ->  `(B, *event)`.

    Raises:
        ValueError: for a program with no observed site or several; for a distribution that has no mean, or no
            reparameterized draws, where they are needed; for a `pyro.factor` that weighs draws unequally.
    """

    def __init__(self, program: PyroProgram, *, noise: bool = False):
        self.program = program
        self.noise = noise
        self.site: str | None = None
        self.depth = 1
        self.particles = ParticleMode.PLATE

    @TURN.taken()
    def __call__(self, x: Tensor, *context: Any) -> Tensor:
        if self.site is None:
            self.inspect(x, *context)
        with _Observation(self.site, noise=self.noise) as observation:
            self.run(x, *context)
        if observation.message is None:
            raise ValueError(
                f"site '{self.site}': expected a draw of it when the first argument is None "
                f"as well, got none. Fix: pyro.sample('{self.site}', …, obs=x), whether x is None or not."
            )
        return data_dim_first(observation.message).flatten(0, 1)

    def run(self, x: Tensor, *context: Any) -> Any:
        """Generate one fake per datum of a batch: as rows under a context, as particles without one."""
        has_rows = any(isinstance(c, Tensor) and c.dim() > 0 for c in context)
        num_particles = 1 if has_rows else len(x)
        program = self.particles.adopt(self.program)
        return vectorized(program, num_particles, self.depth)(None, *context)

    def inspect(self, *batch: Any) -> None:
        """Find the observed site, the depth of the plates, and how particles are run, on data."""
        with fork_rng(*batch), eval_mode(self.program):
            trace = poutine.trace(self.program).get_trace(*batch)
            self.particles = meaning_of(self.program, None, batch).particles
        if not means_the_same_in_training(self.program, None, batch):
            self.particles = ParticleMode.ROWS
        names = list(observed_sites(trace))
        if not names:
            raise ValueError(
                "generator: expected one observed site, which the critic looks at, got []. "
                "Fix: pyro.sample('x', …, obs=x) for the first argument alone; "
                "or is it the critic? GANTrainer(generator, critic), in this order."
            )
        if len(names) > 1:
            raise ValueError(
                f"generator: expected one observed site, which the critic looks at, got {names}. "
                "Fix: pyro.sample('x', …, obs=x) for the first argument alone."
            )
        self.site = names[0]
        self.depth = plate_depth(trace)
        with eval_mode(self.program):
            refuse_factors(self.program, trace, batch[1:], self.depth)

    def __repr__(self) -> str:
        return f"Fakes({type(self.program).__name__}, noise={self.noise})"


class _Observation(Messenger):
    """Keeps the message of one site; its value is the mean of its distribution unless it is to be drawn."""

    def __init__(self, site: str | None, *, noise: bool):
        super().__init__()
        self.site = site
        self.noise = noise
        self.message: Site | None = None

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] != self.site:
            return
        if not self.noise:
            msg["value"] = _mean(msg["name"], msg["fn"])
        elif not msg["fn"].has_rsample:
            raise ValueError(
                f"site '{self.site}': expected reparameterized draws, through which a gradient "
                f"flows, got {msg['fn']}. Fix: noise=False, which takes its mean."
            )

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == self.site:
            self.message = cast(Site, msg.copy())  # handlers nearer the program go on to change it


def _mean(name: str, distribution: TorchDistribution) -> Tensor:
    try:
        return distribution.mean
    except NotImplementedError as error:
        raise ValueError(
            f"site '{name}': expected a distribution with a mean, got {distribution}. "
            "Fix: GANTrainer(…, noise=True), which draws it; "
            "of a dequantized program take the continuous one, and add the noise to the data."
        ) from error
