"""What an optimizer moves is what the programs use, whatever became of them since the trainer was built."""

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints
from toys import same_toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.training.parameters import trainable_parameters


@pytest.fixture(autouse=True)
def empty_store():
    """Statements leave their leaves in Pyro's store."""
    yield
    pyro.clear_param_store()


def data(num=12):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


def fit(trainer, x=None, **options):
    x = data() if x is None else x
    return trainer.fit(x, **{"batch_size": 4, "progress": False, **options})


def svi(vae, **options):
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), **{"lr": 1e-2, **options})


def gan(vae, **options):
    return dgm.GANTrainer(vae.generator, dgm.mlp(3, 8, 1), **options)


def hybrid(vae):
    return dgm.HybridTrainer(dgm.ELBO(vae.model, vae.guide), dgm.mlp(3, 8, 1))


every_trainer = pytest.mark.parametrize("build", [svi, gan, hybrid])


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def have_moved(before, module):
    pairs = zip(before, module.parameters(), strict=True)
    return [not torch.equal(old, new) for old, new in pairs]


# Thawed, frozen, replaced ------------------------------------------------------------------------


@every_trainer
def test_a_part_that_was_thawed_after_the_trainer_was_built_is_named(build):
    vae = same_toy_vae()
    vae.generator.likelihood.net[0].requires_grad_(False)
    trainer = build(vae)
    vae.generator.requires_grad_(True)
    with pytest.raises(
        ValueError,
        match=r"an optimizer of all that the .* trains, got one without '.*net.0.weight'",
    ):
        fit(trainer)
    assert trainer.num_steps == 0


@every_trainer
def test_a_part_that_was_replaced_after_the_trainer_was_built_is_named(build):
    vae = same_toy_vae()
    trainer = build(vae)
    fit(trainer)
    vae.generator.likelihood = dgm.Normal(dgm.mlp(2, 6, 3))
    with pytest.raises(ValueError, match=r"without '.*likelihood.* Fix: a new (SVI|GAN)Trainer, "):
        fit(trainer)


@every_trainer
def test_a_part_that_was_taken_away_is_named(build):
    vae = same_toy_vae()
    trainer = build(vae)
    vae.generator.likelihood = dgm.Normal(nn.Flatten(0)).requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"got one with '.*likelihood.net.0.weight', .*which it does not hold. Fix"
    ):
        fit(trainer)


@every_trainer
def test_a_part_that_was_frozen_stays_and_the_rest_moves(build):
    vae = same_toy_vae()
    trainer = build(vae)
    fit(trainer)
    frozen = vae.generator.likelihood.net[0].requires_grad_(False)
    rest = vae.generator.likelihood.net[2]
    before = weights(frozen), weights(rest)
    fit(trainer, epochs=2)
    assert have_moved(before[0], frozen) == [False, False]
    assert have_moved(before[1], rest) == [True, True]


def test_an_optimizer_of_some_parameters_needs_the_others_frozen():
    vae = same_toy_vae()
    optimizer = torch.optim.Adam(vae.guide.parameters(), lr=1e-2)
    with pytest.raises(
        ValueError, match=r"without 'model.likeli.* requires_grad_\(False\) for wha"
    ):
        fit(svi(vae, optimizer=optimizer))
    vae.generator.requires_grad_(False)
    before = weights(vae.generator)
    fit(svi(vae, optimizer=optimizer))
    assert not any(have_moved(before, vae.generator))


def test_an_optimizer_of_foreign_parameters_is_refused():
    vae = same_toy_vae()
    foreign = nn.Parameter(torch.zeros(7, 2))
    optimizer = torch.optim.Adam([*vae.generator.parameters(), *vae.guide.parameters(), foreign])
    with pytest.raises(ValueError, match=r"one with 'a parameter of shape \(7, 2\)'"):
        fit(svi(vae, optimizer=optimizer))


class Late(nn.Module):
    """An encoder that makes its parameters when it first runs, as Pyro's automatic guides do."""

    def forward(self, x):
        if not hasattr(self, "net"):
            self.net = nn.Linear(3, 4)
        loc, raw = self.net(x).chunk(2, -1)
        return dist.Normal(loc, raw.exp()).to_event(1)


def test_parameters_that_a_guide_makes_when_it_first_runs_are_trained():
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 3)), Late())
    trainer = svi(vae)
    torch.manual_seed(1)
    fit(trainer)
    made = vae.guide.encoder.net.weight
    assert any(made is p for group in trainer.optimizer.param_groups for p in group["params"])
    before = made.detach().clone()
    fit(trainer)
    assert not torch.equal(made, before)


def test_lazy_layers_are_named_and_trained_once_they_have_run():
    encoder = dgm.Conditional(dist.Normal, nn.LazyLinear(4))
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 3)), encoder)
    with pytest.raises(
        ValueError, match=r"lazy ones that have not run: 'guide.*weight'.* Fix: obj"
    ):
        svi(vae)
    dgm.ELBO(vae.model, vae.guide).preflight(data())
    trainer = svi(vae)
    before = weights(vae)
    fit(trainer, epochs=2)
    assert all(have_moved(before, vae))


# Cast --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [svi, gan])
def test_a_trainer_follows_a_module_that_was_cast(build):
    """Moments, average and last weights go with it: the run goes on as in the wider dtype from there."""
    vae = same_toy_vae().float()
    trainer = build(vae, ema=0.9)
    trainer.module.float()
    fit(trainer, data().float(), epochs=2)
    trainer.module.double()
    history = fit(trainer, data().double(), epochs=2)
    assert {p.dtype for p in trainer.module.parameters()} == {torch.float64}
    assert {t.dtype for t in trainer.ema.average} == {torch.float64}
    assert len(history) == 4


def test_a_module_that_was_cast_goes_on_from_its_last_weights():
    vae = same_toy_vae().float()
    trainer = svi(vae)
    fit(trainer, data().float(), val=data(5).float(), epochs=2)
    last = {name: t.double() for name, t in trainer.state.last.items()}
    trainer.module.double()
    assert trainer.state.is_deployed()
    with trainer.state.last_applied():
        torch.testing.assert_close(dict(trainer.module.state_dict()), last, rtol=0, atol=0)


# pyro.param --------------------------------------------------------------------------------------


class Scaled(nn.Module):
    r"""$x \sim N(m, s^2)$, m a parameter and s a `pyro.param`."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(3))

    def forward(self, x=None):
        scale = pyro.param("deep.scale", lambda: torch.ones(3), constraint=constraints.positive)
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Normal(self.loc, scale).to_event(1), obs=x)


def spread_data(num=64):
    with fork_rng(seed=5):
        return 2.0 + 3.0 * torch.randn(num, 3)


def scaled(**options):
    model = Scaled()
    options = {"lr": 0.05, **options}
    return dgm.SVITrainer(dgm.ELBO(model, dgm.EmptyGuide()), **options)


def test_a_pyro_param_moves_as_under_svi():
    x = spread_data()
    model = Scaled()

    def program(x):
        pyro.module("program", model)
        return model(x)

    inference = SVI(program, dgm.EmptyGuide(), pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(30):
        inference.step(x)
    expected = pyro.param("deep.scale").detach().clone()
    pyro.clear_param_store()
    # SVI minimizes the sum over the data; Adam does not see the factor, but for its ε.
    trainer = scaled()
    trainer.fit(dgm.Batches(x, 64, shuffle=False), epochs=30, progress=False)
    torch.testing.assert_close(pyro.param("deep.scale").detach(), expected, rtol=1e-5, atol=0)


def check_converges(**options):
    """With an average, in a module and in Pyro's store alike, and an estimate sees it."""
    x = spread_data()
    trainer = scaled(ema=0.5, **options)
    trainer.fit(x, epochs=400, batch_size=64, progress=False)
    expected = x.std(0, correction=0)
    torch.testing.assert_close(pyro.param("deep.scale").detach(), expected, rtol=1e-2, atol=0)
    model = trainer.objective.model
    exact = dist.Normal(x.mean(0), expected).to_event(1).log_prob(x).mean()
    assert dgm.nll(model, dgm.EmptyGuide(), x, num=2).mean == pytest.approx(-exact.item(), rel=1e-3)
    assert "statements.deep/scale" in trainer.objective.state_dict()


def test_a_pyro_param_converges_to_its_maximum_likelihood():
    check_converges()


def test_a_pyro_param_is_an_input_of_a_graph(monkeypatch):
    without_kernels(monkeypatch)
    check_converges(compile=True)


@pytest.mark.slow
def test_a_pyro_param_is_an_input_of_kernels():
    torch._dynamo.reset()
    check_converges(compile=True)
    torch._dynamo.reset()


def test_a_checkpoint_holds_a_pyro_param(tmp_path):
    x = spread_data()
    whole = scaled(ema=0.9)
    fit(whole, x, epochs=4, seed=3)
    expected = pyro.param("deep.scale").detach().clone()
    pyro.clear_param_store()
    first = scaled(ema=0.9)
    fit(first, x, epochs=2, seed=3, checkpoint=tmp_path / "run.pt")
    pyro.clear_param_store()
    second = scaled(ema=0.9)
    with pytest.raises(
        ValueError, match=r"pyro.param statements .* \['deep/scale'\], .* Fix: objective.preflight"
    ):
        second.resume(tmp_path / "run.pt")
    second.objective.preflight(x[:2])
    second.resume(tmp_path / "run.pt")
    fit(second, x, epochs=2, seed=3)
    torch.testing.assert_close(pyro.param("deep.scale").detach(), expected, rtol=0, atol=0)


def test_a_resume_that_fails_leaves_a_pyro_param_alone(tmp_path):
    x = spread_data()
    first = scaled(ema=0.9)
    fit(first, x, checkpoint=tmp_path / "run.pt")
    second = scaled()
    with pytest.raises(ValueError, match="expected a checkpoint with no EMA"):
        second.resume(tmp_path / "run.pt")
    assert len(second.parameters) == len(second.optimizer.param_groups[0]["params"]) == 1
    assert list(second.objective.state_dict()) == ["model.loc"]


def test_a_statement_that_begins_anew_is_trained_from_there():
    x = spread_data()
    trainer = scaled()
    fit(trainer, x, epochs=3)
    pyro.clear_param_store()
    fit(trainer, x, epochs=3)
    assert not torch.equal(pyro.param("deep.scale"), torch.ones(3))
    assert len(trainer.parameters) == 2


class LateScaled(Scaled):
    r"""The same, whose `pyro.param` runs in training mode alone, or on a datum at 0 alone."""

    def __init__(self, *, on: str):
        super().__init__()
        self.on = on

    def forward(self, x=None):
        is_due = self.training if self.on == "training" else bool((x == 0).any())
        scale = torch.ones(3)
        if is_due:
            scale = pyro.param("late", torch.ones(3), constraint=constraints.positive)
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Normal(self.loc, scale).to_event(1), obs=x)


@pytest.mark.parametrize("compile", [False, True])
def test_a_pyro_param_of_training_mode_alone_is_refused_by_name(monkeypatch, compile):
    """It is nowhere in the check before the first step, so no optimizer would hold it."""
    without_kernels(monkeypatch)
    model = LateScaled(on="training")
    trainer = dgm.SVITrainer(dgm.ELBO(model, dgm.EmptyGuide()), lr=0.1, compile=compile)
    with pytest.raises(
        ValueError, match=r"got 'late' first in step 1, which would .* Fix: the sta"
    ):
        fit(trainer)
    assert trainer.num_steps == 0
    torch.testing.assert_close(model.loc.detach(), torch.zeros(3), rtol=0, atol=0)


def test_a_pyro_param_of_a_later_batch_alone_is_refused_by_name():
    model = LateScaled(on="data")
    trainer = dgm.SVITrainer(dgm.ELBO(model, dgm.EmptyGuide()), lr=0.1)
    x = data(12)
    x[8] = 0.0
    with pytest.raises(ValueError, match="got 'late' first in step 3, which would not be trained"):
        trainer.fit(dgm.Batches(x, 4, shuffle=False), progress=False)


class Kept(PyroModule):
    """The same with a `PyroParam`, a parameter of the module itself."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(3))
        self.scale = PyroParam(torch.ones(3), constraints.positive)

    def forward(self, x=None):
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Normal(self.loc, self.scale).to_event(1), obs=x)


def test_a_pyro_param_of_a_module_is_its_own_parameter():
    objective = dgm.ELBO(Kept(), dgm.EmptyGuide())
    trainer = dgm.SVITrainer(objective, lr=0.05)
    fit(trainer, spread_data(), epochs=3)
    assert sorted(objective.state_dict()) == ["model.loc", "model.scale_unconstrained"]
    assert not torch.equal(objective.model.scale, torch.ones(3))


class ScaledPrior(nn.Module):
    """A generator whose prior has a `pyro.param`."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 3)

    def forward(self, x=None):
        scale = pyro.param("prior", torch.ones(2), constraint=constraints.positive)
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(0.0, scale).to_event(1))
            return pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


def test_a_pyro_param_in_a_game_is_refused_by_name():
    trainer = dgm.GANTrainer(ScaledPrior(), dgm.mlp(3, 8, 1))
    with pytest.raises(
        ValueError, match=r"GANTrainer: expected parameters of modules, got .* 'prior'.* Fix: nn.Pa"
    ):
        fit(trainer)
    assert trainer.num_steps == 0


class ScaledCritic(nn.Module):
    """A critic with a `pyro.param`."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 1)

    def forward(self, x):
        return self.net(x) * pyro.param("slope", torch.ones(()))


def test_a_pyro_param_in_a_critic_is_refused_by_name():
    trainer = dgm.GANTrainer(same_toy_vae().generator, ScaledCritic())
    with pytest.raises(
        ValueError, match=r"GANTrainer: expected parameters of modules, got .* 'slop"
    ):
        fit(trainer)


class StatedEncoder(nn.Module):
    """An encoder with a `pyro.param`."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)

    def forward(self, x):
        scale = pyro.param("width", torch.ones(2), constraint=constraints.positive)
        return dist.Normal(self.net(x), scale).to_event(1)


def test_a_pyro_param_in_a_refit_is_refused_by_name():
    """The copy of the VAE that is fitted would share it with the VAE that is left as it is."""
    with pytest.raises(ValueError, match=r"got pyro.param statements of 'width'"):
        dgm.refit_guide(same_toy_vae(), data(), StatedEncoder(), epochs=1)


def test_what_is_no_parameter_is_still_named():
    with pytest.raises(ValueError, match="expected an objective with parameters to train"):
        trainable_parameters(nn.Flatten(), "SVITrainer", "objective")
