"""What does not fit together is refused before the first step, with the fix."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from toys import Written, toy_vae

import pyro_dgm as dgm


def fit(generator, critic, x, **options):
    trainer = dgm.GANTrainer(generator, critic, **options)
    weights = [p.detach().clone() for p in trainer.module.parameters()]
    try:
        trainer.fit(x, epochs=1, batch_size=4, progress=False)
    finally:
        assert trainer.num_steps == 0
        assert all(
            torch.equal(a, b) for a, b in zip(weights, trainer.module.parameters(), strict=True)
        )


def normal(dim=3, prior=None):
    return dgm.LatentVariableModel(prior or dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 6, dim)))


def levels():
    return dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.DiscretizedLogistic(dgm.mlp(2, 6), 5))


def critic_of_three():
    return dgm.mlp(3, 1)


def zeros():
    return torch.zeros(8, 3)


def labelled():
    return zeros(), zeros()


def in_float32():
    return zeros().float()


@pytest.mark.parametrize(
    ("generator", "critic", "x", "options", "message"),
    [
        (
            normal,
            lambda: dgm.mlp(3, 2),
            zeros,
            {},
            r"critic: expected one logit per datum, \(4,\) or \(4, 1\), got sh",
        ),
        (
            normal,
            lambda: dgm.mlp(4, 1),
            zeros,
            {},
            r"critic: it fails on data of shape \(4, 3\).*\n.*critic\(x\)",
        ),
        (
            normal,
            critic_of_three,
            labelled,
            {},
            r"the generator fails on a batch of shapes \[\(4, 3\), \(4, 3\)\]",
        ),
        (
            normal,
            critic_of_three,
            lambda: zeros()[:, :2],
            {},
            r"data: expected the event shape \(3,\)",
        ),
        (
            normal,
            critic_of_three,
            in_float32,
            {},
            r"dtype torch.float64 that the generator makes, got torch.float32. Fix: x\.double\(\)",
        ),
        (
            levels,
            critic_of_three,
            lambda: zeros().long(),
            {},
            r"got torch.int64. Fix: .*within_cell\(x, torch.rand",
        ),
        (normal, critic_of_three, lambda: zeros() / 0, {}, r"expected finite values, got 24 NaN"),
        (
            lambda: dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Bernoulli(dgm.mlp(2, 3))),
            critic_of_three,
            zeros,
            {"noise": True},
            r"site 'x': expected reparameterized draws.*Fix: noise=False, which takes its mean",
        ),
        (
            lambda: normal(prior=dgm.MixturePrior(2, 3)),
            critic_of_three,
            zeros,
            {},
            r"site 'z': expected reparameterized draws from a distribution with param.*Fix: a flow prior, or prior",
        ),
        (
            lambda: dgm.DensityModel(dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 2, hidden=(8,)))),
            critic_of_three,
            zeros,
            {},
            r"site 'x': expected a distribution with a mean.*Fix: GANTrainer\(…, noise=True\)",
        ),
        (
            lambda: dgm.dequantized(
                dgm.DensityModel(dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 2, hidden=(8,))))
            ),
            critic_of_three,
            zeros,
            {},
            r"of a dequantized program take the continuous one",
        ),
    ],
)
def test_what_does_not_match_is_refused_before_the_first_step(
    generator, critic, x, options, message
):
    with pytest.raises(ValueError, match=message):
        fit(generator(), critic(), x(), **options)


def written(run):
    return Written(run)


def test_a_generator_without_latents_needs_the_noise_of_its_observation():
    def run(program, x):
        with dgm.data_plate(x):
            return pyro.sample(
                "x", dist.Normal(program.weight * torch.ones(3), 1.0).to_event(1), obs=x
            )

    with pytest.raises(
        ValueError, match=r"expected latents, or draws of the .*Fix: GANTrainer\(…, noise=Tr"
    ):
        fit(written(run), dgm.mlp(3, 1), zeros())
    dgm.GANTrainer(written(run), dgm.mlp(3, 1), noise=True).fit(zeros(), progress=False)


def test_a_mean_that_no_gradient_reaches_is_refused():
    def run(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, program.weight).to_event(1), obs=x)

    with pytest.raises(
        ValueError, match=r"site 'x': expected values through which a gradient .*Fix: noise=T"
    ):
        fit(written(run), dgm.mlp(3, 1), zeros())
    dgm.GANTrainer(written(run), dgm.mlp(3, 1), noise=True).fit(zeros(), progress=False)


def test_a_mean_that_is_not_finite_is_refused():
    def run(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            return pyro.sample("x", dist.StudentT(program.weight, z, 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"generator: expected finite values"):
        fit(written(run), dgm.mlp(3, 1), zeros())


def test_a_prior_without_reparameterized_draws_serves_when_it_is_not_trained():
    prior = dgm.MixturePrior(2, 3).requires_grad_(False)
    trainer = dgm.GANTrainer(normal(prior=prior), dgm.mlp(3, 1))
    trainer.fit(zeros(), progress=False)
    assert trainer.num_generator_steps == 1


def test_the_check_leaves_seeds_and_statistics_as_they_are():
    critic = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    trainer = dgm.GANTrainer(normal(), critic, penalties=())
    before = torch.get_rng_state()
    trainer.preflight(torch.randn(5, 3))
    trainer.preflight(zeros())
    assert critic[0].num_batches_tracked == 0
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.randn(5, 3)
    assert torch.equal(after, torch.get_rng_state())


def test_integers_beside_real_numbers_are_warned_of():
    levels = torch.cat([torch.randint(17, (6, 3)), torch.tensor([[0] * 3, [16] * 3])]).to(
        torch.get_default_dtype()
    )
    trainer = dgm.GANTrainer(normal(), critic_of_three())
    with pytest.warns(
        dgm.diagnostics.IntegerWarning,
        match=r"integers, 0 to 16.*generator makes real.*Fix: .*Batches\(x, transform",
    ):
        trainer.preflight(levels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.preflight(dgm.distributions.within_cell(levels, torch.rand(8, 3)))


def test_integers_of_an_integer_dtype_are_told_to_take_noise_and_no_cast():
    with pytest.raises(
        ValueError,
        match=r"got torch.int64. Fix: integer levels get noise, Batches\(x, transform=lambda",
    ):
        fit(normal(), critic_of_three(), zeros().long())


def image_generator(*layers):
    net = nn.Sequential(*layers, nn.ConvTranspose2d(4, 1, 4), nn.Flatten(-3))
    return dgm.LatentVariableModel(dgm.StandardNormal(4), dgm.Deterministic(net))


@pytest.mark.parametrize(
    "layers",
    [
        lambda: (nn.Unflatten(1, (4, 1, 1)),),
        lambda: (nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Unflatten(-1, (4, 1, 1))),
    ],
    ids=["unflatten", "batch norm"],
)
def test_networks_that_are_written_for_rows_make_fakes_as_rows(layers):
    trainer = dgm.GANTrainer(image_generator(*layers()), dgm.mlp(16, 1))
    trainer.fit(torch.randn(8, 16), progress=False)
    assert trainer.num_generator_steps == 1


def test_batch_norm_trains_as_its_twin_that_broadcasts():
    """The statistics are those of the fakes of a batch, and the weights the same after training."""

    class Flat(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, z):
            return self.net(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:-1], -1)

    x, found = torch.randn(16, 3), []
    for wrap in (nn.Identity, Flat):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
        critic = dgm.mlp(3, 4, 1)
        generator = dgm.LatentVariableModel(
            dgm.StandardNormal(2), dgm.Normal(net if wrap is nn.Identity else wrap(net))
        )
        dgm.GANTrainer(generator, critic).fit(x, epochs=2, batch_size=8, progress=False)
        found.append(torch.cat([value.flatten().double() for value in net.state_dict().values()]))
    assert torch.allclose(*found)


def test_batch_norm_in_a_critic_is_named_under_a_penalty():
    critic = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.warns(
        UserWarning, match=r"\['R1'\].*mixes the data.*BatchNorm1d.*Fix: nn.LayerNorm"
    ):
        dgm.GANTrainer(normal(), critic).preflight(torch.randn(5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dgm.GANTrainer(normal(), critic, penalties=()).preflight(torch.randn(5, 3))


def test_the_decoder_that_is_named_there_trains():
    model = dgm.LatentVariableModel(
        dgm.StandardNormal(4), dgm.Deterministic(dgm.ConvDecoder(4, (1, 4, 4)), event_dim=3)
    )
    critic = nn.Sequential(nn.Flatten(), dgm.mlp(16, 1))
    assert len(dgm.GANTrainer(model, critic).fit(torch.zeros(8, 1, 4, 4), progress=False)) == 1


def test_a_critic_in_place_of_the_generator_is_refused():
    with pytest.raises(
        ValueError, match=r"one observed site.*GANTrainer\(generator, critic\), in this order"
    ):
        fit(critic_of_three(), normal(), zeros())


def test_a_vae_in_place_of_its_generator_is_refused_at_once():
    with pytest.raises(TypeError, match=r"got VAE, which has no forward.*Fix: vae\.generator"):
        dgm.GANTrainer(toy_vae(), critic_of_three())
