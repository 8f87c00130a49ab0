"""The posterior of a program by a flow: one recipe without settings to tune, and a verdict on its result."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ..contract import PyroProgram
from ..display.tabular import Tabular
from ..inference.adoption.programs import as_module
from ..inference.process.numbers import check_count, check_number
from ..inference.process.states import derive_seed, eval_mode, fork_rng
from ..inference.training.history import History
from ..inference.training.soundness import non_finite
from ..programs.flow_guide import FlowGuide
from .amortized import GlobalsAndLocals
from .log_density import Values
from .targets import AllLatents, Target
from .verdict import Verdict

ROWS = 50  # steps of one row of the history


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
    target: Target

    def columns(self) -> dict[str, Any]:
        """One row per quantity, those of the verdict."""
        return self.verdict.columns()

    def draws(self, num: int, seed: int = 0) -> Values:
        """Latent or `pyro.deterministic` site → draws `(num, *shape)`."""
        return self.target.draws(num, seed)

    def __str__(self) -> str:
        again = f"; begun again {self.restarts} times" if self.restarts else ""
        return f"{self.verdict}{again}"


def fit_posterior(
    model: PyroProgram,
    *args: Any,
    guide: FlowGuide | None = None,
    local: nn.Module | None = None,
    batch_size: int | None = None,
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

    With a local part the flow is over the draws that all data share, and the local guide draws those of each datum:
    $q(\theta) \prod_i q(z_i \mid x_i, \theta)$, both trained by the same recipe on all data or on minibatches. The
    flow begins at the margin of the best normal over all latents of a few data, and stays there for a quarter of the
    steps, in which the local guide learns. The verdict is on the globals; its joint k-hat sees the local guide as
    well, and grows with the number of data. Where the local guide does not follow θ closely, as of the scale τ in
    $z_i \sim N(\mu, \tau)$, the flow shrinks to $p(\theta \mid z, X)$, and weights of a few thousand draws may not see
    it: then `hmc`, or `guide=FlowGuide(model)`, a flow over all latents, for few data.

    It computes in the precision of the model's latents: float64 data and a float64 default dtype for posteriors
    whose log density is a small difference of large numbers.

    Args:
        model: any Pyro program whose latents are continuous, with all its data.
        args: its arguments.
        guide: default `FlowGuide(model, local=local)`; trained in place.
        local: guide of the latents of each datum, see `FlowGuide`: an `AmortizedGuide`.
        batch_size: data per step, with a local part alone, of a plate that knows N: `data_plate(x, size=N)` in both
            programs; default: all data.
        steps: optimization steps.
        num_particles: draws a step.
        lr: learning rate at the start.
        clip: largest norm of a gradient; with a local part, of that of the loss per datum.
        restarts: the most times to begin again.
        num_draws: of the verdict.
        seed: of all noise; the global random state is left as it is.

    Raises:
        TypeError: for a guide that is no `FlowGuide`.
        ValueError: for a plate that draws a subsample; if no draw of a step has a finite density; for a local part
            beside a guide, minibatches without a local part, and what `IWELBO` refuses.

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
    recipe = Recipe(steps, num_particles, lr, clip, num_draws)
    recipe.check()
    check_count("fit_posterior", "restarts", restarts, fix="restarts=1", least=0)
    guide = _guide_of(model, guide, local)
    with eval_mode(as_module(model)):
        with fork_rng(*args, seed=seed):
            target = _target_of(model, guide, args, batch_size, seed)
        return _best_of(target, recipe, restarts, seed)


@dataclass(frozen=True)
class Recipe:
    """The settings of one attempt, see `fit_posterior`."""

    steps: int
    num_particles: int
    lr: float
    clip: float
    num_draws: int

    def check(self) -> None:
        """Refuse what is no count, or no rate."""
        check_count("fit_posterior", "steps", self.steps, fix="steps=100")
        check_count("fit_posterior", "num_particles", self.num_particles, fix="num_particles=100")
        check_count("fit_posterior", "num_draws", self.num_draws, fix="num_draws=10_000", least=100)
        check_number("fit_posterior", "lr", self.lr, fix="lr=5e-3", least=0.0)


def _best_of(target: Target, recipe: Recipe, restarts: int, seed: int) -> PosteriorFit:
    """Attempts from other places while the weights have too heavy a tail; the best of them stays in the guide."""
    guide = target.guide
    untrained = copy.deepcopy(guide.state_dict())
    best: PosteriorFit | None = None
    best_state = untrained
    for attempt in range(restarts + 1):
        guide.load_state_dict(untrained)
        of_attempt = derive_seed(seed, attempt)
        with fork_rng(guide.affine.loc, seed=of_attempt):
            target.place(elsewhere=attempt > 0)
            history = History(list(_train(target, recipe)))
            verdict = target.judge(recipe.num_draws, of_attempt)
        if best is None or _is_better(verdict, best.verdict):
            best = PosteriorFit(guide, verdict, history, attempt, target)
            best_state = copy.deepcopy(guide.state_dict())
        if verdict.khat <= verdict.threshold:
            break
    assert best is not None
    guide.load_state_dict(best_state)
    return best


def _guide_of(model: PyroProgram, guide: FlowGuide | None, local: nn.Module | None) -> FlowGuide:
    """The guide that is given, or one with this local part."""
    if guide is None:
        return FlowGuide(model, local=local)
    if not isinstance(guide, FlowGuide):
        raise TypeError(
            f"fit_posterior: expected a FlowGuide, got a {type(guide).__name__}. "
            "Fix: guide=FlowGuide(model), or pyro.infer.SVI for Pyro's own guides."
        )
    if local is not None:
        raise ValueError(
            "fit_posterior: expected a guide or a local part of one, got both. "
            "Fix: guide=FlowGuide(model, flow, local=…)."
        )
    return guide


def _target_of(
    model: PyroProgram,
    guide: FlowGuide,
    args: tuple[Any, ...],
    batch_size: int | None,
    seed: int,
) -> Target:
    if guide.local_guide is not None:
        return GlobalsAndLocals(model, guide, args, batch_size, seed)
    if batch_size is not None:
        raise ValueError(
            f"fit_posterior: expected all data at once for a flow over all latents, got batch_size={batch_size}. "
            "Fix: local=AmortizedGuide(encoder), for the latents of each datum; or no batch_size."
        )
    return AllLatents(model, guide, args)


def _is_better(one: Verdict, other: Verdict) -> bool:
    """First whether the weights can be trusted, then the bound."""
    is_sound, was_sound = one.khat <= one.threshold, other.khat <= other.threshold
    if is_sound != was_sound:
        return is_sound
    return one.elbo > other.elbo


@torch.enable_grad()
def _train(target: Target, recipe: Recipe) -> Iterator[dict[str, float]]:
    """Train the guide in place; one row of the history for some steps, for which alone the host waits."""
    optimizer = torch.optim.Adam(target.moving(1.0), lr=recipe.lr, betas=target.betas)
    optimizer.zero_grad()  # of an attempt before
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    seen: list[Tensor] = []
    for step in range(1, recipe.steps + 1):
        parameters = target.moving(step / recipe.steps)
        with pyro.validation_enabled(False):
            cost_and_finite = target.descend(recipe.num_particles, parameters)
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
        _drop_unless(norm.isfinite(), parameters)
        optimizer.step()
        schedule.step()
        seen.append(torch.cat([cost_and_finite, norm[None]]))
        if step % ROWS == 0 or step == recipe.steps:
            yield _row(step, torch.stack(seen), target.guide)
            seen.clear()


def _drop_unless(sound: Tensor, parameters: list[nn.Parameter]) -> None:
    """Zero the gradients of a step that is not sound, without a look at it from the host."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = torch.where(sound, parameter.grad, 0.0)


def _row(step: int, seen: Tensor, guide: nn.Module) -> dict[str, float]:
    """The means over some steps; refuses to go on from where nothing is finite."""
    nelbo, finite, norm = seen.nanmean(0).tolist()
    if finite == 0 or non_finite(guide.state_dict()):
        raise ValueError(
            f"fit_posterior: expected a finite log density at the guide's draws, got none at step {step}. "
            "Fix: init_loc_fn of FlowGuide where the density is finite, or a lower lr."
        )
    return {"step": step, "nelbo": nelbo, "grad_norm": norm, "finite": finite}
