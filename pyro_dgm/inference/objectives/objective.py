"""The objective: a module over a model and its guide whose forward is a loss in nats per datum."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from operator import itemgetter
from typing import Any, cast

from torch import Tensor, nn
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ...densities.precision import full_precision_networks
from ...display.representation import SettingsFirst
from ..adoption.first_runs import run_quietly
from ..adoption.plates import Naming, prepare
from ..adoption.programs import as_module
from ..data.tensors import has_rows
from ..process.numbers import check_count
from ..process.states import eval_mode
from ..run.pair_checks import (
    PROGRAM_OF,
    RunsPrograms,
    check_program,
    describe,
    fix_of_program,
    returns_distribution,
)
from ..run.particles import Particles, draw
from ..run.rules import RULES, Subject
from ..run.structure import Structure, full_size, preflight
from ..run.traces import Site, depth_of
from ..vectorization.modes import ParticleMode, meaning_of, means_the_same_in_training
from .losses import Costs, Loss
from .schedules import Schedule
from .statements import Statements


class Objective(SettingsFirst, RunsPrograms, Costs):
    """A loss over a model and a guide, in nats per datum; abstract: a subclass gives `terms`.

    Args:
        model: the model, a module.
        guide: its guide, a module.
        size: number of data in the full set if the programs declare one; losses are then divided by it.

    Raises:
        TypeError: for no guide; for a program that is no module, whose parameters would not be trained; for a
            VAE, a class, another objective, a distribution or a conditional in place of a program.
    """

    def __init__(self, model: nn.Module, guide: nn.Module | None = None, size: int | None = None):
        super().__init__()
        name = type(self).__name__
        if guide is None:
            raise TypeError(
                f"{name}: expected a model and its guide, got {describe(model)} alone. "
                f"Fix: {name}(model, guide); of a VAE {name}(vae.model, vae.guide); "
                "EmptyGuide() for a model without latents."
            )
        model, guide = as_module(model), as_module(guide)
        check_trainable(name, "model", model)
        check_trainable(name, "guide", guide)
        if size is not None:
            check_count(name, "size", size, fix="size=len(data)")
        self.model = model
        self.guide = guide
        self.size = size
        self.statements: Statements | None = None
        self._depth = 1
        self._full_size: int | None = None
        self._naming = Naming()
        self._particles: ParticleMode | None = None
        self._is_known = False  # all of these are found by preflight, or before the first run
        # Latent sites, by which arguments are given: labels may be there, or be summed over
        self._summed: dict[tuple[bool, ...], tuple[str, ...]] = {}

    def terms(self, *batch: Any) -> dict[str, Tensor]:
        """Named 0-dim costs in nats per datum, lower is better; `loss` is the one to minimize."""
        raise NotImplementedError(
            f"{type(self).__name__} has no terms. "
            "Fix: def terms(self, *batch): return {'loss': …}, in the subclass; or ELBO."
        )

    def draw(self, *batch: Any, num: int = 1) -> Particles:
        r"""K draws of the guide for every datum, scored by both programs: what `terms` of a subclass begins with.

        Their `log_weight` $\log p(x, z_k) - \log q(z_k \mid x)$ is `(K, N)`, `values["z"]` is `(K, N, *event)`; see
        `results.Particles`. Unlike `pyro_dgm.draw` it looks at the pair once and reads nothing on the host after
        that, so that a loss of it becomes one graph.

        Args:
            batch: the arguments of the programs, observation first.
            num: number K of particles.
        """
        check_count(type(self).__name__, "num", num, fix="num=1")
        return draw(*self._programs(batch), *batch, num=num, depth=self._depth)

    @property
    def losses(self) -> tuple[Loss, ...]:  # noqa: D102
        return (Loss(self, itemgetter("loss")),)

    def reading_parameters(self) -> AbstractContextManager[Any]:  # noqa: D102
        return nullcontext() if self.statements is None else self.statements.read()

    def refuse_graph(self, *batch: Any) -> None:  # noqa: D102
        summed = self._summed.get(given(batch), ())
        if summed:
            raise ValueError(
                f"compile: expected latents that are drawn, got {list(summed)}, which are summed over: "
                "Pyro's sum reads tensors on the host. Fix: compile=False."
            )

    def forward(self, *batch: Any) -> Tensor:
        """The loss, 0-dim, in nats per datum."""
        return self.terms(*batch)["loss"]

    def advance(self) -> None:
        """Move every schedule of the objective on by one optimization step."""
        for schedule in self.schedules():
            schedule.advance()

    def schedules(self) -> list[Schedule]:
        """The schedules of the objective."""
        return [module for module in self.modules() if isinstance(module, Schedule)]

    def adopt(self, name: str) -> nn.Parameter | None:
        """Take the leaf of a `pyro.param` statement as a parameter of the objective; none if it is one already."""
        if self.statements is None:
            self.statements = Statements()
        return self.statements.adopt(name)

    def release(self, name: str) -> None:
        """Undo `adopt`."""
        if self.statements is not None:
            self.statements.release(name)

    def check_schedules(self) -> None:
        """Refuse a schedule whose value is now no weight of a cost; called now and then in training."""

    def check_means(self, means: Mapping[str, float], num: int) -> None:
        """Refuse means of the terms over `num` data that no bound can have; called after every epoch."""

    def preflight(self, *batch: Any) -> Structure:
        """Check the pair on this batch, see `preflight`, and learn how many plates the programs have."""
        self._particles, self._is_known = None, False
        rules = (*RULES, self._look_at)
        structure = preflight(self.model, self.guide, *batch, size=self.size, rules=rules)
        self._depth = structure.depth
        self._full_size = structure.full_size
        self._naming = Naming(structure.plate)
        self._summed[given(batch)] = structure.summed
        self._particles = self._mode_of(structure.particles, batch)
        self._is_known = True
        return replace(structure, particles=self._particles)

    def _look_at(self, subject: Subject) -> None:
        """Learn from the run of the pair that a preflight has checked."""

    def _programs(self, batch: tuple[Any, ...]) -> tuple[nn.Module, nn.Module]:
        """Model and guide as programs that mean the same inside a plate of particles."""
        self._learn(batch)
        mode = self._particles or ParticleMode.PLATE
        model, guide = self._named()
        size = self.size or self._full_size
        return cast(nn.Module, mode.adopt(model, size)), cast(nn.Module, mode.adopt(guide, size))

    @full_precision_networks()  # it compares numbers
    def _learn(self, batch: tuple[Any, ...]) -> None:
        """Find plates and particles as preflight does, which nobody has called, and refuse nothing."""
        if self._is_known or get_proxy_mode() is not None:  # a graph holds nothing but the loss
            return
        if any(isinstance(value, Tensor) and value.is_meta for value in batch):
            return
        with eval_mode(self.model, self.guide):
            self._naming = prepare(self.model, self.guide, batch)
            found = meaning_of(*self._named(), batch)
            sites = run_quietly(*self._named(), batch)
        if not found.is_known or sites is None:  # the loss fails with its own error
            return
        self._depth = depth_of(*sites)
        self._full_size = full_size({site["name"]: site for site in sites})
        self._particles = self._mode_of(found.particles, batch)
        self._is_known = True

    def _named(self) -> tuple[Any, Any]:
        """Model and guide with their data plate by its name."""
        return self._naming.adopt(self.model), self._naming.adopt(self.guide)

    def _mode_of(self, found: ParticleMode, batch: tuple[Any, ...]) -> ParticleMode:
        """How particles are run in training, where statistics of a batch are taken over all rows."""
        if found is not ParticleMode.PLATE:
            return found
        is_same = means_the_same_in_training(*self._named(), batch)
        return found if is_same else ParticleMode.ROWS

    def _num_data(self, batch: tuple[Any, ...]) -> int:
        """The number of data that a loss is divided by: of the full set if it is known, else of the batch."""
        size = self.size or self._full_size
        if size:
            return size
        for value in batch:
            if has_rows(value):
                return len(value)
        kinds = [type(value).__name__ for value in batch]
        raise ValueError(
            f"{type(self).__name__}: expected an argument with a row for each datum, got {kinds}. Fix: a tensor "
            "(N, *event) as the first argument, objective(x)."
        )


def given(batch: tuple[Any, ...]) -> tuple[bool, ...]:
    """Which arguments are given."""
    return tuple([value is not None for value in batch])


def check_trainable(objective: str, role: str, program: Any) -> None:
    """Refuse what is no program whose parameters an optimizer sees, and name the fix of the mix-up.

    Args:
        objective: its name, for the message.
        role: "model" or "guide".
        program: what was handed over in this role.

    Raises:
        TypeError: for a class, a distribution, a conditional, an objective, a function, or a VAE.
    """
    why = ""
    fix = None
    if isinstance(program, type) and issubclass(program, Objective):
        fix = PROGRAM_OF[role]
    elif isinstance(program, type):
        fix = fix_of_program(role, program)
    elif isinstance(program, Distribution):
        why = ", which names no site"
        fix = PROGRAM_OF[role]
    elif not callable(program):
        fix = f"{objective}(vae.model, vae.guide)"
    elif isinstance(program, Objective):
        why = ", which holds two programs"
        fix = f"{objective}(objective.model, objective.guide)"
    elif returns_distribution(program.forward):
        why = ", a conditional: its forward returns a distribution and names no site"
        fix = PROGRAM_OF[role]
    if fix is not None:
        raise TypeError(
            f"{objective}: expected the {role} as a Pyro program, a module or a function, "
            f"got {describe(program)}{why}. Fix: {fix}."
        )
    check_program(program)


def check_reparameterized(name: str, site: Site) -> None:
    """Refuse a guide site through whose draws no gradient flows.

    Raises:
        ValueError: if its distribution has no `rsample`.
    """
    if not site["fn"].has_rsample:
        fix = "PyroObjective(model, guide, TraceGraph_ELBO()), by its score"
        if site["fn"].has_enumerate_support:
            fix = "infer={'enumerate': 'parallel'} and ELBO(model, guide), which sums over it"
        raise ValueError(
            f"site '{name}': expected reparameterized draws for the gradient of the bound, "
            f"got {site['fn']}. Fix: {fix}; or a family with rsample."
        )


def check_observed(observed: dict[str, Site]) -> None:
    """Refuse a model that scores neither data nor factors: a bound on log p(x) would be one on nothing.

    Raises:
        ValueError: if there is no observed site.
    """
    if not observed:
        raise ValueError(
            "model: expected an observed site, got none: are model and guide swapped? "
            "Fix: the model first, then its guide; pyro.sample('x', p_x, obs=x) in the model."
        )
