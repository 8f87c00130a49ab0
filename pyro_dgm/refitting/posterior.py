"""The posterior of a program by a flow: one recipe without settings to tune, and a verdict on its result."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..contract import PyroProgram
from ..inference.adoption.programs import as_module
from ..inference.process.numbers import check_count, check_number
from ..inference.process.states import derive_seed, eval_mode, fork_rng
from ..inference.sites.described import names_of_numbers
from ..inference.training.history import History
from ..inference.training.soundness import non_finite
from ..programs.flow_guide import FlowGuide
from ..tabular import Tabular
from .log_density import LogDensity, Values
from .newton import best_normal
from .verdict import Verdict

ROWS = 50  # steps of one row of the history
SPREAD_OF_STARTS = 1.0


@dataclass(frozen=True)
class PosteriorFit(Tabular):
    r"""A guide q(z) fitted to the posterior of a program.

    Attributes:
        guide: a `FlowGuide`, also for `pyro.infer.Predictive`, SVI, or what else takes a guide.
        verdict: whether it is to be trusted, jointly and for every quantity.
        history: rows of `step`, `nelbo` in nats (a mean over the steps of the row), `grad_norm`, and `finite`, the
            share of draws with a finite density.
        restarts: how often the fit began again.
    """

    guide: FlowGuide
    verdict: Verdict
    history: History
    restarts: int
    density: LogDensity

    def columns(self) -> dict[str, Any]:
        """One row per quantity, those of the verdict."""
        return self.verdict.columns()

    def draws(self, num: int, seed: int = 0) -> Values:
        """Latent or `pyro.deterministic` site → draws `(num, *shape)`."""
        with fork_rng(self.guide.affine.loc, seed=seed), eval_mode(as_module(self.density.model)):
            return self.density.quantities(self.guide.get_posterior().sample((num,)))

    def __str__(self) -> str:
        again = f"; begun again {self.restarts} times" if self.restarts else ""
        return f"{self.verdict}{again}"


def fit_posterior(
    model: PyroProgram,
    *args: Any,
    guide: FlowGuide | None = None,
    steps: int = 1500,
    num_particles: int = 128,
    lr: float = 5e-3,
    clip: float = 10.0,
    restarts: int = 1,
    num_draws: int = 10_000,
    seed: int = 0,
) -> PosteriorFit:
    r"""$\max_\phi E_{q_\phi}[\log p(x, z) - \log q_\phi(z)]$: the posterior of all continuous latents of a program.

    One recipe for every model: the flow is placed at the best normal of a Newton ascent; then Adam with fast path
    gradients (no score of the guide: no noise where the guide is the posterior), many draws a step, a cosine decay
    to 0 and clipping. Where the importance weights have too heavy a tail, the fit begins again elsewhere, and the
    better of the fits is kept. The model's own parameters are left as they are, and its networks are in evaluation
    mode meanwhile: dropout would make the density random.

    It computes in the precision of the model's latents: float64 data and a float64 default dtype for posteriors
    whose log density is a small difference of large numbers.

    Args:
        model: any Pyro program whose latents are continuous, with all its data.
        args: its arguments.
        guide: default `FlowGuide(model)`; trained in place.
        steps: optimization steps.
        num_particles: draws a step.
        lr: learning rate at the start.
        clip: largest norm of a gradient.
        restarts: the most times to begin again.
        num_draws: of the verdict.
        seed: of all noise; the global random state is left as it is.

    Raises:
        TypeError: for a guide that is no `FlowGuide`.
        ValueError: for a guide with a local part, or for a plate that draws a subsample; if no draw of a step has a
            finite density.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> fit = fit_posterior(model, torch.full((3,), 2.0), steps=50, num_draws=1000)
        >>> fit.verdict.is_reliable, round(float(fit.verdict.mean[0]), 1)
        (True, 1.5)
    """
    for name, count in (("steps", steps), ("num_particles", num_particles)):
        check_count("fit_posterior", name, count, fix=f"{name}=100")
    check_count("fit_posterior", "num_draws", num_draws, fix="num_draws=10_000", least=100)
    check_count("fit_posterior", "restarts", restarts, fix="restarts=1", least=0)
    check_number("fit_posterior", "lr", lr, fix="lr=5e-3", least=0.0)
    guide = _checked(guide) or FlowGuide(model)
    with eval_mode(as_module(model)):
        with fork_rng(*args, seed=seed):
            density = LogDensity(model, guide, args)
        untrained = copy.deepcopy(guide.state_dict())
        best: PosteriorFit | None = None
        best_state: dict[str, Any] = {}
        for attempt in range(restarts + 1):
            guide.load_state_dict(untrained)
            with fork_rng(*args, seed=derive_seed(seed, attempt)):
                _place(density, elsewhere=attempt > 0)
                with torch.enable_grad():
                    history = History(list(_train(density, steps, num_particles, lr, clip)))
                verdict = _judge(density, num_draws)
            if best is None or _is_better(verdict, best.verdict):
                best = PosteriorFit(guide, verdict, history, attempt, density)
                best_state = copy.deepcopy(guide.state_dict())
            if verdict.khat <= verdict.threshold:
                break
        assert best is not None
        guide.load_state_dict(best_state)
        return best


def _checked(guide: FlowGuide | None) -> FlowGuide | None:
    if guide is None:
        return None
    if not isinstance(guide, FlowGuide):
        raise TypeError(
            f"fit_posterior: expected a FlowGuide, got a {type(guide).__name__}. "
            "Fix: guide=FlowGuide(model), or pyro.infer.SVI for Pyro's own guides."
        )
    if guide._modules["local"] is not None:
        raise ValueError(
            "fit_posterior: expected a guide of all latents, got one with a local part. "
            "Fix: pyro.infer.SVI(model, guide, …), which trains both parts on minibatches."
        )
    return guide


def _is_better(one: Verdict, other: Verdict) -> bool:
    """First whether the weights can be trusted, then the bound."""
    is_sound, was_sound = one.khat <= one.threshold, other.khat <= other.threshold
    if is_sound != was_sound:
        return is_sound
    return one.elbo > other.elbo


def _place(density: LogDensity, *, elsewhere: bool) -> None:
    """Put the flow at the best normal of an ascent from the initial location, or from a random place around it."""
    start = density.guide.affine.loc.clone()
    if elsewhere:
        start = start + SPREAD_OF_STARTS * torch.randn_like(start)
    normal = best_normal(density, start)
    density.guide.place(normal.loc, normal.scale_tril)


def _train(
    density: LogDensity, steps: int, num_particles: int, lr: float, clip: float
) -> Iterator[dict[str, float]]:
    """Train the flow in place; one row of the history for some steps."""
    flow = density.guide.posterior_flow()
    parameters = [p for p in flow.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    seen: list[Tensor] = []
    for step in range(1, steps + 1):
        drawn = flow.draw_with_score(num_particles)
        log_p, slope = density.gradient(drawn.y)
        # A draw outside the domain of the density, or of its floats, says nothing of the direction.
        finite = log_p.isfinite() & slope.isfinite().all(-1) & drawn.score.isfinite().all(-1)
        direction = torch.where(finite[:, None], drawn.score - slope, 0.0)
        cost = torch.where(finite, drawn.log_q.detach() - log_p, 0.0).sum() / finite.sum()
        optimizer.zero_grad()
        drawn.y.backward(direction / num_particles)
        norm = nn.utils.clip_grad_norm_(parameters, clip)
        if bool(norm.isfinite()):
            optimizer.step()
        schedule.step()
        seen.append(torch.stack([cost, norm, finite.to(cost).mean()]))
        if step % ROWS == 0 or step == steps:
            yield _row(step, torch.stack(seen), flow)
            seen.clear()


def _row(step: int, seen: Tensor, flow: nn.Module) -> dict[str, float]:
    """The means over some steps; refuses to go on from where nothing is finite."""
    nelbo, norm, finite = seen.nanmean(0).tolist()
    if finite == 0 or non_finite(flow.state_dict()):
        raise ValueError(
            f"fit_posterior: expected a finite log density at the guide's draws, got none at step {step}. "
            "Fix: init_loc_fn of FlowGuide where the density is finite, or a lower lr."
        )
    return {"step": step, "nelbo": nelbo, "grad_norm": norm, "finite": finite}


@torch.no_grad()
def _judge(density: LogDensity, num: int) -> Verdict:
    posterior = density.guide.get_posterior()
    u = posterior.sample((num,))
    log_weight = density.evaluate(u) - posterior.log_prob(u)
    names, columns = [], []
    for name, value in density.quantities(u).items():
        flat = value.reshape(num, -1)
        names += names_of_numbers(name, value.shape[1:])
        columns.append(flat)
    return Verdict.of(log_weight, names, torch.cat(columns, dim=-1))
