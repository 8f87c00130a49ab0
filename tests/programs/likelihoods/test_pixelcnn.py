"""The law of images pixel by pixel: exact masses, the sampler of those masses, and what a draw costs."""

from __future__ import annotations

from itertools import product
from math import log, prod

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, randomize
from conftest import both_dtypes, in_float64
from pyro import poutine
from scipy.stats import chi2
from torch import Tensor, nn
from torch.nn.functional import one_hot

import pyro_dgm as dgm
from pyro_dgm.display import progress as progress_of_all

SHAPE = (1, 2, 3)
EMISSIONS = {
    "bernoulli": (1, 2, lambda: dgm.Bernoulli(nn.Identity(), event_dim=3)),
    "categorical": (3, 3, lambda: dgm.Categorical(nn.Identity(), 3, event_dim=3)),
    "discretized_logistic": (2, 3, lambda: dgm.DiscretizedLogistic(nn.Identity(), 3, event_dim=3)),
}


def pixels(emission="bernoulli", shape=SHAPE, context=0, **settings):
    """A PixelCNN with weights far from those of a factorized law."""
    numbers, _, law = EMISSIONS[emission]
    network = dgm.nn.GatedPixelCNN(shape, shape[0] * numbers, context, channels=4, blocks=2)
    return randomize(dgm.PixelCNN(network, law(), **settings), scale=0.5)


def images(levels: int, shape: tuple[int, ...]) -> Tensor:
    """Every image, `(number, *shape)`."""
    values = torch.tensor(list(product(range(levels), repeat=prod(shape)))).to(
        torch.get_default_dtype()
    )
    return values.reshape(-1, *shape)


def one_pixel_at_a_time(module, x, context=()) -> Tensor:
    """A sampler that knows nothing: the whole network for each pixel, on the images x whose pixels it replaces."""
    x = x.clone()
    for i, j in product(*(range(n) for n in x.shape[-2:])):
        raw = module.network(module.scale(x), *context)
        x[..., i, j] = module.emission(raw[..., i : i + 1, j : j + 1]).sample()[..., 0, 0].to(x)
    return x


# Density -------------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 2, 3), (2, 2, 1), (1, 1, 4)], ids=str)
@pytest.mark.parametrize("emission", EMISSIONS)
def test_the_masses_of_all_images_sum_to_one_at_every_context(emission, shape):
    every = images(EMISSIONS[emission][1], shape)
    for context in ((), (torch.randn(5, 1, 3),)):
        law = pixels(emission, shape, context=3 if context else 0)(*context)
        total = law.log_prob(every).exp().sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


@in_float64
@pytest.mark.parametrize("emission", EMISSIONS)
def test_the_density_is_the_product_of_the_conditionals_one_at_a_time(emission):
    """Each conditional is read off an image whose own and later pixels are noise."""
    _, levels, _ = EMISSIONS[emission]
    module, x = pixels(emission, (2, 3, 4), 3), torch.randint(levels, (5, 2, 3, 4)).double()
    c, expected = torch.randn(5, 3), torch.zeros(5)
    for i, j in product(range(3), range(4)):
        earlier = torch.arange(3 * 4).reshape(3, 4) < 4 * i + j
        hidden = torch.where(earlier, x, torch.randint(levels, x.shape).double())
        raw = module.network(hidden, c)[..., i : i + 1, j : j + 1]
        expected += module.emission(raw).log_prob(x[..., i : i + 1, j : j + 1])
    torch.testing.assert_close(module(c).log_prob(x), expected)


@in_float64
def test_the_density_of_continuous_pixels_is_the_product_of_their_conditionals():
    network = dgm.nn.GatedPixelCNN((1, 1, 2), 2, channels=4, blocks=1)
    module = randomize(
        dgm.PixelCNN(network, dgm.Conditional(dist.Normal, nn.Identity(), event_dim=3))
    )
    x = module().sample((7,))
    first = module.emission(network(torch.zeros(1, 1, 2))[..., :1]).log_prob(x[..., :1])
    second = module.emission(network(x * torch.tensor([1.0, 0.0]))[..., 1:]).log_prob(x[..., 1:])
    torch.testing.assert_close(module().log_prob(x), first + second)


@in_float64
def test_scoring_takes_one_pass_of_the_network():
    module, calls = pixels(context=3), []
    module.network.register_forward_hook(lambda *_: calls.append(1))
    module(torch.randn(4, 5, 3)).log_prob(torch.bernoulli(torch.full((5, *SHAPE), 0.5)))
    assert len(calls) == 1


@in_float64
def test_a_scale_may_change_the_channels_that_the_network_reads():
    class OneHot(nn.Module):
        def forward(self, x):
            return one_hot(x.squeeze(-3).long(), 3).movedim(-1, -3)

    network = dgm.nn.GatedPixelCNN((3, 2, 2), 3, channels=4, blocks=2)
    module = randomize(
        dgm.PixelCNN(network, dgm.Categorical(nn.Identity(), 3, event_dim=3), scale=OneHot())
    )
    assert module().event_shape == (1, 2, 2)
    total = module().log_prob(images(3, (1, 2, 2))).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)
    assert module().sample((4,)).shape == (4, 1, 2, 2)


# Sampler -------------------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("emission", EMISSIONS)
def test_draws_have_the_law_that_is_scored(emission, dtype):
    """Chi-square of 20,000 draws over all images at level 1e-6; images expected less than 5 times are one cell."""
    _, levels, _ = EMISSIONS[emission]
    shape, num = (1, 2, 2), 20_000
    law, every = pixels(emission, shape)(), images(levels, shape)
    expected = num * law.log_prob(every).exp().detach()
    draws = law.sample((num,))
    counts = (draws.flatten(1)[:, None] == every.flatten(1)).all(-1).sum(0).to(dtype)
    assert counts.sum() == num
    often = expected >= 5
    counts, expected = (
        torch.cat([t[often], t[~often].sum(0, keepdim=True)]) for t in (counts, expected)
    )
    statistic = ((counts - expected).square() / expected.clamp(min=1)).sum()
    assert float(statistic) < chi2.isf(1e-6, len(counts) - 1)


@in_float64
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("emission", EMISSIONS)
def test_a_draw_is_that_of_a_sampler_that_runs_the_whole_network_for_each_pixel(emission, context):
    module, noise = (
        pixels(emission, (2, 3, 4), context, scale=dgm.nn.Rescale(0, 2)),
        torch.randn(6, 2, 3, 4),
    )
    c = (torch.randn(6, 3),) * bool(context)
    pyro.set_rng_seed(1)
    expected = one_pixel_at_a_time(module, noise, c)
    pyro.set_rng_seed(1)
    found = module(*c).expand((6,)).sample()
    assert torch.equal(found.to(expected), expected)


@in_float64
def test_a_draw_of_an_image_taller_than_the_reach_is_that_of_the_whole_network():
    module, noise = pixels(shape=(1, 9, 2)), torch.randn(6, 1, 9, 2)
    assert module.network.reach == 3
    pyro.set_rng_seed(1)
    expected = one_pixel_at_a_time(module, noise)
    pyro.set_rng_seed(1)
    assert torch.equal(module().sample((6,)), expected)


def test_a_row_is_drawn_from_the_rows_within_reach_alone():
    """Row i and the `reach + 1` above it: `test_causal.py` shows that these are enough and one less is not."""
    module, read = pixels(shape=(1, 9, 2)), []
    module.network.above.register_forward_hook(
        lambda _, inputs, __: read.append(inputs[0].shape[-2])
    )
    module().sample()
    assert read == [1, 2, 3, 4, 5, 5, 5, 5, 5]


def test_a_draw_takes_one_vertical_pass_per_row_and_one_horizontal_pass_per_pixel():
    module, calls = pixels(shape=(1, 4, 5)), {"vertical": 0, "horizontal": 0}
    for name, part in (
        ("vertical", module.network.down[0]),
        ("horizontal", module.network.across[0]),
    ):
        part.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    module().sample((3,))
    assert calls == {"vertical": 4, "horizontal": 4 * 5}


@both_dtypes
def test_draws_have_the_dtype_of_the_emission_and_no_gradient(dtype):
    dtypes = {"bernoulli": dtype, "categorical": torch.int64, "discretized_logistic": dtype}
    for emission, expected in dtypes.items():
        draw = pixels(emission, context=3)(torch.randn(2, 3, requires_grad=True)).sample()
        assert draw.dtype == expected
        assert not draw.requires_grad


def test_no_draw_is_a_draw_of_nothing():
    assert pixels(context=3)(torch.randn(5, 3)).sample((0,)).shape == (0, 5, *SHAPE)


@pytest.mark.parametrize(("progress", "disable"), [(True, None), (False, True)])
def test_the_progress_bar_counts_pixels_and_is_for_terminals_alone(progress, disable, monkeypatch):
    """`disable=None` is tqdm's word for: where the output is no terminal."""
    bars, bar_class = [], progress_of_all.tqdm

    def tqdm(**settings):
        bars.append(settings)
        return bar_class(**{**settings, "disable": True})

    monkeypatch.setattr(progress_of_all, "tqdm", tqdm)
    pixels(progress=progress)().sample()
    assert [(b["total"], b["disable"]) for b in bars] == [(2 * 3, disable)]


def test_nothing_is_printed_where_there_is_no_terminal(capfd):
    pixels()().sample()
    assert capfd.readouterr() == ("", "")


# The law in programs -------------------------------------------------------------------------------------------------


@in_float64
def test_particles_meet_data():
    """Contexts (K, B) against images (B): every entry is the density of the single pair."""
    module, c, x = (
        pixels(context=3),
        torch.randn(4, 5, 3),
        torch.bernoulli(torch.full((5, *SHAPE), 0.5)),
    )
    log_p = module(c).log_prob(x)
    assert log_p.shape == (4, 5)
    for k, b in product(range(4), range(5)):
        torch.testing.assert_close(log_p[k, b], module(c[k, b]).log_prob(x[b]))


@in_float64
def test_gradients_reach_the_context_through_the_density():
    c = torch.randn(5, 3, requires_grad=True)
    pixels(context=3)(c).log_prob(torch.bernoulli(torch.full((5, *SHAPE), 0.5))).sum().backward()
    assert bool((c.grad.isfinite() & (c.grad != 0)).all())


@in_float64
@pytest.mark.parametrize("context", [0, 3])
def test_an_expanded_law_scores_and_draws_like_the_law(context):
    law = pixels(context=context)(*[torch.randn(5, 3)] * bool(context))
    wide = law.expand((4, 5))
    x = wide.sample()
    assert wide.batch_shape == (4, 5)
    assert x.shape == (4, 5, *SHAPE)
    assert wide.log_prob(x[0]).shape == (4, 5)
    torch.testing.assert_close(wide.log_prob(x), law.log_prob(x), rtol=0, atol=0)
    torch.testing.assert_close(wide.log_prob(x[0]), law.log_prob(x[0]).expand(4, 5), rtol=0, atol=0)
    assert type(wide) is dgm.distributions.AutoregressivePixels


def test_a_law_of_one_image_is_expanded_by_a_plate():
    with pyro.plate("data", 5):
        x = pyro.sample("x", pixels()())
    assert x.shape == (5, *SHAPE)


@pytest.mark.parametrize("emission", EMISSIONS)
def test_the_support_is_that_of_the_emission(emission):
    _, levels, _ = EMISSIONS[emission]
    law = pixels(emission)()
    assert law.support.event_dim == 3
    assert law.support.is_discrete
    assert bool(law.support.check(images(levels, SHAPE)).all())
    assert not law.support.check(torch.full(SHAPE, float(levels)))
    assert not law.support.check(torch.full(SHAPE, 0.5))


def test_a_density_has_its_exact_nll_and_generates():
    model, x = dgm.DensityModel(pixels()), torch.bernoulli(torch.full((5, *SHAPE), 0.5))
    found = dgm.nll(model, dgm.EmptyGuide(), x, num=3)
    torch.testing.assert_close(found.per_datum, -model.density().log_prob(x).double())
    assert (found.monte_carlo < 1e-6).all()
    assert dgm.generate(model, 7).shape == (7, *SHAPE)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_draws_images(parallel):
    case = PAIRS["vae_pixelcnn"]()
    (x,) = case.batch(5)
    draws = pyro.infer.Predictive(case.model, num_samples=4, parallel=parallel)()
    assert draws["x"].shape == (4, 1, *SHAPE)
    posterior = pyro.infer.Predictive(case.guide, num_samples=4, parallel=parallel)(x)
    model = poutine.uncondition(case.model)
    again = pyro.infer.Predictive(model, posterior, parallel=parallel, return_sites=["x"])(x)
    assert again["x"].shape == (4, 5, *SHAPE)


def test_a_law_without_a_mean_has_no_reconstruction():
    case = PAIRS["vae_pixelcnn"]()
    with pytest.raises(NotImplementedError):
        dgm.reconstruct(case.model, case.guide, *case.batch(3))


@in_float64
def test_without_a_latent_it_learns_what_no_factorized_law_can():
    """Two images of nine pixels, a checkerboard and its negative: log 2 nats, and 9 log 2 pixel by pixel."""
    board = (torch.arange(9) % 2).reshape(1, 1, 3, 3).double()
    model = dgm.DensityModel(
        dgm.PixelCNN(
            dgm.nn.GatedPixelCNN((1, 3, 3), 1, channels=8, blocks=2), EMISSIONS["bernoulli"][2]()
        )
    )
    x = torch.cat([board, 1 - board])
    trainer = dgm.SVITrainer(dgm.ELBO(model, dgm.EmptyGuide()), lr=2e-2)
    trainer.fit(x, epochs=150, progress=False)
    loss = -model.density().log_prob(x).detach().mean()
    assert log(2) < float(loss) < log(2) + 0.05
    draws = dgm.generate(model, 200)
    assert float((draws[:, None] == x).flatten(2).all(-1).any(-1).double().mean()) > 0.9


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emission", "out_channels", "event"),
    [
        (
            dgm.Bernoulli(nn.Identity(), event_dim=3),
            2,
            r"\(2, 2, 3\), \(2, 2, 3\) after scale, from 2 output channels",
        ),
        (
            dgm.Categorical(nn.Identity(), 2, event_dim=3),
            4,
            r"\(2, 2, 3\), .* from 4 output channels",
        ),
        (dgm.Bernoulli(nn.Identity()), 1, r"\(3,\), \(3,\) after scale, from 1 output channels"),
    ],
    ids=["channels", "levels", "event_dim"],
)
def test_an_emission_of_other_images_is_refused(emission, out_channels, event):
    message = rf"PixelCNN: expected an emission of the images \(1, 2, 3\) .*got events {event}. Fix: .*event_dim=3"
    with pytest.raises(ValueError, match=message):
        dgm.PixelCNN(dgm.nn.GatedPixelCNN(SHAPE, out_channels), emission)


def test_output_channels_that_are_no_multiple_of_the_levels_are_refused_at_once():
    with pytest.raises(ValueError, match="Categorical: expected a network output"):
        dgm.PixelCNN(dgm.nn.GatedPixelCNN(SHAPE, 4), dgm.Categorical(nn.Identity(), 3, event_dim=3))


@pytest.mark.parametrize(
    ("validated", "message"),
    [(True, "right-most size of value must match event_shape"), (False, "expected images")],
)
def test_a_value_of_another_shape_is_refused(validated, message):
    with pyro.validation_enabled(validated), pytest.raises(ValueError, match=message):
        pixels()().log_prob(torch.zeros(5, 1, 3, 2))


def test_a_value_outside_the_support_is_refused():
    law = pixels("discretized_logistic")()
    for checked in (law, law.expand((2,))):
        with pytest.raises(ValueError, match="within the support"):
            checked.log_prob(torch.full((2, *SHAPE), 3.0))


def test_two_contexts_without_an_embedding_are_refused_with_the_fix():
    with pytest.raises(
        ValueError, match=r"expected one context of size 3, got sizes \[3, 3\]. Fix: .*embed=Concat"
    ):
        pixels(context=3)(torch.zeros(5, 3), torch.zeros(5, 3)).log_prob(torch.zeros(5, *SHAPE))


def test_two_contexts_are_joined_by_an_embedding():
    module = pixels(context=4, embed=dgm.Concat(dgm.mlp(3 + 2, 4)))
    law = module(torch.randn(7, 5, 3), torch.randn(5, 2))
    assert law.batch_shape == (7, 5)
    assert law.sample().shape == (7, 5, *SHAPE)


def test_a_density_without_a_context_takes_none():
    with pytest.raises(ValueError, match=r"GatedPixelCNN: expected no context, got sizes \[3\]"):
        pixels()(torch.zeros(5, 3)).sample()


def test_parts_of_the_wrong_kind_are_refused_where_they_are_handed_over():
    network, emission = dgm.nn.GatedPixelCNN(SHAPE, 1), dgm.Bernoulli(nn.Identity(), event_dim=3)
    with pytest.raises(
        TypeError, match=r"a GatedPixelCNN as network, got .*MLP.* Fix: PixelCNN\(G"
    ):
        dgm.PixelCNN(dgm.mlp(2, 3), emission)
    with pytest.raises(TypeError, match=r"emission: expected a conditional.* Fix: emission=Cat"):
        dgm.PixelCNN(network, dist.Bernoulli(0.5))
    with pytest.raises(TypeError, match=r"PixelCNN\(embed=…\): expected a network.* the class MLP"):
        dgm.PixelCNN(network, emission, embed=dgm.nn.MLP)
    with pytest.raises(TypeError, match=r"PixelCNN\(scale=…\): expected a net.* the class Rescale"):
        dgm.PixelCNN(network, emission, scale=dgm.nn.Rescale)


def test_a_pixelcnn_prints_its_settings():
    assert repr(pixels(progress=False)).startswith("PixelCNN(progress=False,\n  (network): Gated")
