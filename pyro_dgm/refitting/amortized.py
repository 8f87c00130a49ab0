"""What `fit_posterior` climbs where the guide has a local part: the bound of a flow with an encoder beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from ..contract import DATA, PyroProgram
from ..evaluation.likelihood.model_evidence import joint_draws
from ..inference.adoption.programs import as_module
from ..inference.data.batches import Batch, Batches
from ..inference.data.tensors import take_rows
from ..inference.objectives.path_gradients import PathGradient
from ..inference.objectives.weighted import AveragedELBO
from ..inference.process.states import device_of
from ..inference.run.particles import Particles
from ..inference.run.sessions import Session, session
from ..inference.run.traces import is_in_plate
from ..programs.flow_guide import INITIAL_SCALE, FlowGuide
from .log_density import LogDensity, Values
from .newton import Normal, best_normal
from .targets import Target, verdict_on
from .verdict import Verdict

WARM_UP = 0.25  # of the steps
MAX_DIM = 100  # of all latents of the few data that the first normal is found on


class GlobalsAndLocals(Target):
    r"""$\log p(x, z, \theta)$ by $q(\theta) \prod_i q(z_i \mid x_i, \theta)$: a flow, and an encoder beside it.

    Args:
        model: a program whose data share draws.
        guide: a `FlowGuide` with a local part.
        args: all the data, a row per datum in each argument.
        batch_size: data per step; `None` for all of them.
        seed: of the order of the data.

    Raises:
        ValueError: for what `IWELBO` refuses; for minibatches of a plate that does not know N.
    """

    betas = (
        0.9,
        0.99,
    )  # a memory of the first gradients, huge where the encoder errs, would last all steps

    def __init__(
        self,
        model: PyroProgram,
        guide: FlowGuide,
        args: tuple[Any, ...],
        batch_size: int | None,
        seed: int,
    ):
        self.guide = guide
        self.model = as_module(model)
        self.seed = seed
        self.data = Batches(args, batch_size or len(args[0]), shuffle=batch_size is not None)
        first = self.data.first()
        with torch.no_grad(), poutine.block():
            guide(*first)
        self.data = self.data.to(device_of(self.model, guide))
        self.objective = AveragedELBO(self.model, guide, estimator=PathGradient())
        self.structure = self.objective.preflight(*first)
        if self.data.batch_size < len(self.data):
            fix = "batch_size=None, which takes all data at once"
            self.structure.require_known_size("fit_posterior", fix)
        self._endless = self._batches()

    def best_normal(self, start: Tensor) -> Normal:
        """Of the globals, the margin of the best normal over all latents of a few data."""
        few = self._few()
        if few is None:
            scale = INITIAL_SCALE * torch.eye(len(start)).to(start)
            return Normal(start, scale, -torch.inf)
        # N/B of the plates would make the posterior of a few data that of N such: too narrow, at a wrong place.
        joint = self._guide_of_all()
        density = LogDensity(self.model, joint, few, is_scaled=False)
        columns = _columns(joint, self.guide)
        u = joint.affine.loc.clone()
        u[columns] = start
        normal = best_normal(density, u)
        rows = normal.scale_tril[columns]
        return Normal(normal.loc[columns], torch.linalg.cholesky(rows @ rows.mT), normal.elbo)

    def moving(self, share: float) -> list[nn.Parameter]:
        """First the local part alone: a flow would flee from where an encoder that knows nothing yet errs."""
        if share > WARM_UP:
            return super().moving(share)
        local = self.guide.local_guide
        assert local is not None
        return [p for p in local.parameters() if p.requires_grad]

    def descend(self, num_particles: int, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Path gradients of the flow, and sticking the landing of the local part, of the loss per datum."""
        self.objective.num_particles = num_particles
        loss = self.objective(*next(self._endless))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        cost = loss.detach()
        return torch.stack([cost * len(self.data), cost.isfinite().to(cost)])

    def judge(self, num: int, seed: int) -> Verdict:
        """By the weights of joint draws of everything, of the quantities that all data share."""
        log_w, parts = [], []
        with self._session(num, seed) as pair:
            for particles in joint_draws(pair):
                log_w.append(particles.log_weight_of_set)
                parts.append(_values(particles, pair, is_shared=True))
        return verdict_on(torch.cat(log_w), _joined(parts))

    def draws(self, num: int, seed: int) -> Values:  # noqa: D102
        with self._session(num, seed) as pair:
            return _joined([_values(drawn, pair, is_shared=False) for drawn in joint_draws(pair)])

    def _session(self, num: int, seed: int) -> Any:
        return session(self.model, self.guide, *self.data.tensors, num=num, seed=seed)

    def _batches(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self.data.epoch(self.seed, epoch, training=True)
            epoch += 1

    def _guide_of_all(self) -> FlowGuide:
        """A guide of all latents, those of each datum included."""
        return FlowGuide(self.model, init_loc_fn=self.guide.init_loc_fn)

    def _few(self) -> Batch | None:
        """As many data as have no more than `MAX_DIM` latents, evenly spread; `None` where there are none."""
        size, tensors = len(self.data), self.data.tensors
        num = size
        if not self.structure.fixed_size:
            joint = self._guide_of_all()
            with torch.no_grad(), poutine.block():
                joint(*take_rows(tensors, slice(0, 1)))
            dim = self.guide.latent_dim
            num = min(size, (MAX_DIM - dim) // max(joint.latent_dim - dim, 1))
        if num < 1:
            return None
        spread = torch.linspace(0, size - 1, num).long()
        return take_rows(tensors, spread.to(tensors[0].device))


def _columns(joint: FlowGuide, guide: FlowGuide) -> list[int]:
    """The coordinates of a guide's sites among those of a guide of more sites."""
    own = {name for name, _ in guide.prototype_trace.iter_stochastic_nodes()}
    columns = []
    position = torch.arange(joint.latent_dim)
    for site, part in joint._unpack_latent(position):
        if site["name"] in own:
            columns += part.flatten().tolist()
    return columns


def _values(particles: Particles, pair: Session, *, is_shared: bool) -> Values:
    """Draws `(K, *shape)` of the latent sites and deterministic values, or of those that all data share."""
    depth = pair.structure.depth
    found = {}
    for name, value in particles.values.items():
        if not is_shared or name in pair.structure.globals:
            found[name] = value
    for name, site in particles.pair.deterministic.items():
        value = site["value"]
        is_local = is_in_plate(site, DATA)
        if (is_shared and is_local) or value.shape[:1] != particles.log_weight_of_set.shape:
            continue
        plates = value.shape[1 : 1 + depth]
        shape = value.shape[1 + depth :] if plates.numel() == 1 else value.shape[1:]
        found[name] = value.reshape(len(value), *shape)
    return found


def _joined(parts: list[Values]) -> Values:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
