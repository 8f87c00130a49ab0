"""A network means the same on particles: twins written for rows and for any leading dims give equal numbers."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from toys import LinearGaussian, linear_gaussian
from written_for_rows import HIDDEN, LAYERS, Guide, Model, Softmax, twins

import pyro_dgm as dgm
from pyro_dgm.inference.objectives.sleep import Sleep
from pyro_dgm.inference.vectorization.modes import Meaning, ParticleMode, meaning_of

ESTIMATES = {
    "draw": lambda model, guide, x: seeded_draw(model, guide, x).log_weight,
    "nll": lambda model, guide, x: dgm.nll(model, guide, x, num=40).per_datum,
    "nll in blocks": lambda model, guide, x: dgm.nll(model, guide, x, num=4, chunk=8).per_datum,
    "loader": lambda model, guide, x: dgm.nll(model, guide, list(x.split(4)), num=9).per_datum,
    "ais": lambda model, guide, x: dgm.ais(model, x, num=3, steps=6).per_datum,
    "ais of the guide": lambda model, guide, x: (
        dgm.ais(model, x, num=3, steps=6, start=guide).per_datum
    ),
    "hmc": lambda model, guide, x: dgm.hmc(model, x, num=4, warmup=4, chains=2).log_joint,
    "encode": lambda model, guide, x: dgm.encode(guide, x, num=3)["u"],
    "reconstruct": lambda model, guide, x: dgm.reconstruct(model, guide, x, num=3)["x"],
    "generate": lambda model, guide, x: dgm.generate(model, 7),
    "mean of draws": lambda model, guide, x: dgm.generate(model, 7, mean=True),
    "surgery": lambda model, guide, x: torch.tensor(
        dgm.surgery(model, guide, x, num=12).mutual_information.value
    ),
    "gaps": lambda model, guide, x: (
        dgm.gaps(model, guide, x, num=8, num_steps=2).amortization_per_datum
    ),
    "sbc": lambda model, guide, x: dgm.sbc(model, guide, num_data=20, num_draws=9).ranks,
    "impute": lambda model, guide, x: (
        dgm.impute(model, guide, x, observed=torch.arange(3) > 0, num=3).draws
    ),
    "to_arviz": lambda model, guide, x: torch.as_tensor(
        dgm.to_arviz(model, guide, x, num=4).posterior_predictive["x"].values
    ),
    "bdmc": lambda model, guide, x: dgm.bdmc(model, num_data=3, num=2, steps=4).gap,
}
OBJECTIVES = {
    "ELBO of one draw": lambda model, guide: dgm.ELBO(model, guide),
    "ELBO": lambda model, guide: dgm.ELBO(model, guide, num_particles=5),
    "IWELBO": lambda model, guide: dgm.IWELBO(model, guide, 5),
    "IWELBO of one draw": lambda model, guide: dgm.IWELBO(model, guide, 1),
    "sticking the landing": lambda model, guide: dgm.IWELBO(
        model, guide, 5, estimator=dgm.training.StickingTheLanding()
    ),
    "doubly reparameterized": lambda model, guide: dgm.IWELBO(
        model, guide, 5, estimator=dgm.training.DoublyReparameterized()
    ),
    "Sleep": lambda model, guide: Sleep(model, guide),
}


def seeded_draw(model, guide, x):
    torch.manual_seed(2)
    model.eval(), guide.eval()
    return dgm.draw(model, guide, x, num=5)


def data():
    """As many data as features: where batch normalization takes the one for the other."""
    return torch.randn(HIDDEN, 3)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=list(ESTIMATES))
def test_an_estimate_is_that_of_the_twin_that_broadcasts(estimate, layer):
    written, twin = twins(layer)
    x = data()
    found, expected = estimate(*written, x), estimate(*twin, x)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_a_loss_and_its_gradients_are_those_of_the_twin(objective, layer):
    x, found = data(), []
    for pair in twins(layer):
        loss = objective(*pair)
        loss.preflight(x)
        torch.manual_seed(1)
        value = loss(x)
        parameters = [p for program in pair for p in program.parameters()]
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        known = [torch.zeros(1) if g is None else g.flatten() for g in gradients]
        found.append(torch.cat([value.reshape(1).float(), *known]))
    assert torch.allclose(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer", ["softmax", "convolution"])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_on_particles_is_that_of_the_twin(compiled, layer):
    losses = []
    for model, guide in twins(layer):
        trainer = dgm.SVITrainer(dgm.ELBO(model, guide, num_particles=4), compile=compiled)
        history = trainer.fit(data_of_one_seed(), epochs=2, batch_size=6, progress=False)
        losses.append(history[-1]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def data_of_one_seed():
    return torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_structure_says_how_particles_are_run(layer):
    (model, guide), (twin, twin_guide) = twins(layer)
    structure = dgm.preflight(model, guide, data())
    assert structure.particles is ParticleMode.ROWS
    assert "particles by rows" in str(structure)
    assert dgm.preflight(twin, twin_guide, data()).particles is ParticleMode.PLATE


def test_a_loss_without_preflight_is_right_as_well():
    (model, guide), (twin, twin_guide) = twins("softmax")
    x, losses = data(), []
    for pair in ((model, guide), (twin, twin_guide)):
        torch.manual_seed(1)
        losses.append(dgm.ELBO(*pair, num_particles=5)(x))
    assert torch.allclose(*losses)


class ByHand(nn.Module):
    """Batch normalization by hand: right on particles in evaluation mode, of another batch in training mode."""

    def forward(self, h):
        return (h - h.mean(0)) / h.std(0) if self.training else h


def test_training_mode_is_looked_at_by_itself():
    torch.manual_seed(0)
    model, guide, x = Model(ByHand), Guide(nn.Identity), data()
    objective = dgm.ELBO(model, guide, num_particles=4)
    assert dgm.preflight(model, guide, x).particles is ParticleMode.PLATE
    assert objective.preflight(x).particles is ParticleMode.ROWS


def test_the_statistics_of_batch_normalization_are_not_moved_by_the_check():
    (model, guide), _ = twins("batch norm")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    dgm.ELBO(model, guide, num_particles=4).preflight(data())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


MIXING = {
    "softmax over the batch": lambda: Softmax(0),
    "attention over the batch": lambda: Attention(),
    "batch norm without running statistics": lambda: nn.BatchNorm1d(
        HIDDEN, track_running_stats=False
    ),
}


class Attention(nn.Module):
    """Each datum takes the mean of all."""

    def forward(self, h):
        return h + h.mean(-2, keepdim=True)


@pytest.mark.parametrize("layer", MIXING.values(), ids=list(MIXING))
@pytest.mark.parametrize(
    "estimate",
    [
        lambda model, guide, x: dgm.nll(model, guide, x, num=3),
        lambda model, guide, x: dgm.draw(model, guide, x, num=3),
        lambda model, guide, x: dgm.ais(model, x, num=2, steps=2),
        lambda model, guide, x: dgm.hmc(model, x, num=4, warmup=1, chains=2),
        lambda model, guide, x: dgm.to_arviz(model, guide, x, num=3),
    ],
    ids=["nll", "draw", "ais", "hmc", "to_arviz"],
)
def test_a_network_that_mixes_the_data_has_no_numbers_per_datum(estimate, layer):
    with pytest.raises(
        ValueError,
        match=r"depends on that datum alone.*per-datum numbers do not exist. Fix: .*dim=-1",
    ):
        estimate(Model(layer), Guide(nn.Identity), data())


@pytest.mark.parametrize("layer", MIXING.values(), ids=list(MIXING))
def test_one_particle_trains_a_network_that_mixes_the_data(layer):
    model, guide = Model(layer), Guide(nn.Identity)
    objective = dgm.ELBO(model, guide)
    structure = objective.preflight(data())
    assert structure.mixes_data
    assert "per-datum numbers do not exist" in str(structure)
    assert torch.isfinite(objective(data()))


def test_several_particles_of_a_softmax_over_the_batch_are_refused():
    objective = dgm.ELBO(Model(lambda: Softmax(0)), Guide(nn.Identity), num_particles=3)
    assert objective.preflight(data()).particles is ParticleMode.SINGLE
    with pytest.raises(ValueError, match=r"mean the same on K draws.*Fix: .*num_particles=1"):
        objective(data())


def test_rounding_gives_no_false_alarm():
    """A deep network of large weights: float32 sums differ by their order, and no more."""
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(HIDDEN, 512), nn.Tanh(), nn.Linear(512, HIDDEN))
    nn.init.normal_(wide[2].weight, 0, 30)
    model, guide = Model(lambda: wide), Guide(nn.Identity)
    assert meaning_of(model, guide, (100 * data(),)) == Meaning()


def test_noise_inside_a_network_is_no_difference():
    class Noisy(nn.Module):
        def forward(self, h):
            return h + torch.randn_like(h)

    assert meaning_of(Model(Noisy), Guide(nn.Identity), (data(),)) == Meaning()


def test_the_check_takes_no_random_numbers_and_gives_no_warnings():
    model, guide, x = linear_gaussian()
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert meaning_of(model, guide, (x,)) == Meaning()
    assert torch.equal(before, torch.get_rng_state())


def test_a_program_of_the_contract_is_run_as_it_is():
    model = LinearGaussian()
    assert ParticleMode.PLATE.adopt(model) is model


def test_further_plates_and_masks_are_folded():
    class Series(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.dim = dim

        def forward(self, x=None):
            with dgm.data_plate(x):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                p = z.softmax(self.dim)
                time = pyro.plate("time", 4, dim=-2)
                mask = torch.arange(4)[:, None] > 0
                with time, pyro.poutine.mask(mask=mask):
                    u = pyro.sample("u", dist.Normal(p[..., 0], 1.0))
                    obs = None if x is None else x.T
                    return pyro.sample("x", dist.Normal(u, 1.0), obs=obs)

    class SeriesGuide(nn.Module):
        def forward(self, x):
            with dgm.data_plate(x):
                pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
                mask = torch.arange(4)[:, None] > 0
                with pyro.plate("time", 4, dim=-2), pyro.poutine.mask(mask=mask):
                    pyro.sample("u", dist.Normal(x.T, 1.0))

    x = torch.randn(5, 4)
    assert dgm.preflight(Series(1), SeriesGuide(), x).particles is ParticleMode.ROWS
    found = dgm.nll(Series(1), SeriesGuide(), x, num=30)
    expected = dgm.nll(Series(-1), SeriesGuide(), x, num=30)
    # u is drawn (time, K N) by rows and (K, time, N) by plate: other noise of one law.
    error = (found.monte_carlo.square() + expected.monte_carlo.square()).sqrt()
    largest = error.nan_to_num(nan=0.0).max()  # NaN where k-hat says that there is no error
    assert ((found.per_datum - expected.per_datum).abs() < 6 * largest).all()
    shape = dgm.encode(SeriesGuide(), x, num=3)["u"].shape
    assert shape == (3, 4, 5)


@pytest.mark.parametrize("num", [2, 3, 4])
def test_latents_in_a_plate_of_as_many_as_the_few_data_do_not_go_with_the_rows(num):
    """A mixture of three clusters as Pyro writes it: of three data one alone still has three clusters."""

    def model(x):
        with pyro.plate("clusters", num):
            loc = pyro.sample("loc", dist.Normal(torch.zeros(()), 3.0))
        with pyro.plate("points", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(num)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc[c], 1.0), obs=x)

    x = torch.randn(5)
    assert not meaning_of(model, None, (x,)).mixes_data
    chains = dgm.hmc(model, x, num=4, warmup=2, chains=2, leapfrog=2)
    loc = chains.draws["loc"][0, 0]
    expected = dist.Normal(0.0, 3.0).log_prob(loc).sum()
    of_clusters = dist.Normal(loc, 1.0).log_prob(x[:, None]).logsumexp(1)
    expected = expected + (of_clusters - torch.tensor(float(num)).log()).sum()
    torch.testing.assert_close(chains.log_joint[0, 0, 0], expected.double(), rtol=1e-5, atol=1e-5)
