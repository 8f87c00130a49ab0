"""Images whose channels depend on each other: exact masses of pixels, and draws that have them."""

from __future__ import annotations

from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import pyro_dgm as dgm


def pixel(levels: int, num: int = 3, spread: float = 1.0) -> dgm.distributions.ColourLevels:
    """A law of one pixel of three channels with parameters drawn at random."""
    loc = levels * torch.rand(3, 1, 1, num)
    scale, coefficients = (
        spread * (0.2 + torch.rand(3, 1, 1, num)),
        2 * torch.rand(3, 1, 1, num) - 1,
    )
    return dgm.distributions.ColourLevels(torch.randn(1, 1, num), loc, scale, coefficients, levels)


def colours(levels: int) -> Tensor:
    """All values of one pixel, `(levels³, 3, 1, 1)`."""
    return torch.cartesian_prod(*[torch.arange(float(levels))] * 3)[..., None, None]


@both_dtypes
@pytest.mark.parametrize("spread", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("levels", [2, 5, 9])
def test_the_masses_of_all_colours_of_a_pixel_sum_to_one(levels, spread, dtype):
    total = pixel(levels, spread=spread).log_prob(colours(levels)).exp().sum()
    torch.testing.assert_close(
        total, torch.ones(()), rtol=0, atol={torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    )


@in_float64
def test_the_mass_of_a_colour_is_that_of_its_definition():
    law = pixel(7)
    a, weights = law.coefficients[:, 0, 0], law.logits[0, 0].softmax(-1)
    for x in ((0, 0, 0), (6, 1, 3), (2, 5, 6), (4, 4, 0)):
        mass = torch.tensor(0.0)
        for k in range(3):
            mu = law.loc[:, 0, 0, k]
            moved = torch.stack([
                mu[0],
                mu[1] + a[0, k] * (x[0] - 3),
                mu[2] + a[1, k] * (x[0] - 3) + a[2, k] * (x[1] - 3),
            ])  # fmt: skip
            kernels = dgm.distributions.Discretized(dist.Logistic(moved, law.scale[:, 0, 0, k]), 7)
            mass = mass + weights[k] * kernels.log_prob(torch.tensor(x)).sum().exp()
        found = law.log_prob(torch.tensor(x)[:, None, None])
        torch.testing.assert_close(found, mass.log(), rtol=1e-12, atol=1e-12)


@both_dtypes
def test_the_sampler_draws_the_scored_colours(dtype):
    """Chi-square of 100,000 draws over the 125 colours of a pixel that are expected more than 5 times."""
    law, num = pixel(5), 100_000
    draws = law.sample((num,))
    assert draws.dtype == dtype
    index = (draws.reshape(num, 3).long() * torch.tensor([25, 5, 1])).sum(-1)
    counts, expected = (
        index.bincount(minlength=125).double(),
        num * law.log_prob(colours(5)).exp().double(),
    )
    usable = expected > 5
    chi_square = ((counts - expected).square() / expected)[usable].sum()
    degrees = int(usable.sum()) - 1
    assert degrees > 20
    assert float(chi_square) < degrees + 5 * (2 * degrees) ** 0.5
    standard_error = (expected * (1 - expected / num)).clamp(min=0).sqrt()
    assert bool(((counts - expected).abs() <= 5 * standard_error + 1).all())


@in_float64
def test_the_pixels_of_an_image_are_independent():
    law = dgm.ColourLogisticMixture(nn.Identity(), 8, num_components=4)(torch.randn(5, 40, 2, 3))
    x = law.sample()
    total = torch.zeros(5)
    for i, j in product(range(2), range(3)):
        here = dgm.distributions.ColourLevels(
            law.logits[:, i : i + 1, j : j + 1],
            *(t[:, :, i : i + 1, j : j + 1] for t in (law.loc, law.scale, law.coefficients)),
            levels=8,
        )
        total = total + here.log_prob(x[:, :, i : i + 1, j : j + 1])
    torch.testing.assert_close(law.log_prob(x), total)


@pytest.mark.parametrize("batch", [(), (4,), (2, 4)], ids=str)
def test_particle_dims_pass_through(batch):
    likelihood = dgm.ColourLogisticMixture(nn.Identity(), 16, num_components=2)
    law = likelihood(torch.randn(*batch, 20, 5, 6))
    x = law.sample((3,))
    assert (law.batch_shape, law.event_shape, x.shape) == (batch, (3, 5, 6), (3, *batch, 3, 5, 6))
    assert law.log_prob(x).shape == (3, *batch)
    torch.testing.assert_close(law.log_prob(x[0].to(torch.uint8)), law.log_prob(x[0]))
    wide = law.expand((7, *batch))
    assert wide.sample().shape == (7, *batch, 3, 5, 6)
    torch.testing.assert_close(wide.log_prob(x[0]), law.log_prob(x[0]).expand(7, *batch))


def test_channels_without_coefficients_are_a_mixture_that_shares_its_component():
    """One channel: the plain mixture of logistics over each pixel."""
    raw, x = torch.randn(4, 3 * 5, 2, 3), torch.randint(16, (4, 1, 2, 3))
    colour = dgm.ColourLogisticMixture(nn.Identity(), 16, num_components=5, channels=1)(raw)
    plain = dgm.DiscretizedLogisticMixture(nn.Identity(), 16, num_components=5, event_dim=3)(raw)
    torch.testing.assert_close(colour.log_prob(x), plain.log_prob(x))


def test_outputs_of_zero_are_equal_bumps_along_the_grey_diagonal():
    law = dgm.ColourLogisticMixture(nn.Identity(), 20, num_components=4)(torch.zeros(40, 1, 1))
    torch.testing.assert_close(law.loc, torch.tensor([2.0, 7.0, 12.0, 17.0]).expand(3, 1, 1, 4))
    torch.testing.assert_close(law.scale, torch.full((3, 1, 1, 4), 2.5))
    assert not law.coefficients.any()


@both_dtypes
def test_extreme_outputs_give_finite_masses_and_gradients(dtype):
    raw = (
        torch.tensor([1.0, 30.0, 1e4])[:, None, None, None] * torch.randn(3, 20, 4, 4)
    ).requires_grad_()
    law = dgm.ColourLogisticMixture(nn.Identity(), 256, num_components=2)(raw)
    log_p = law.log_prob(torch.randint(256, (50, 1, 3, 4, 4)))
    assert bool(log_p.isfinite().all())
    (gradient,) = torch.autograd.grad(log_p.sum(), raw)
    assert bool(gradient.isfinite().all())


def test_a_law_of_colours_traces_into_one_graph():
    def score(raw: Tensor, x: Tensor) -> Tensor:
        return dgm.ColourLogisticMixture(nn.Identity(), 8, num_components=2)(raw).log_prob(x)

    with pyro.validation_enabled(False):
        graph = make_fx(score)(torch.zeros(5, 20, 2, 2), torch.zeros(5, 3, 2, 2))
        others = (
            torch.randn(5, 20, 2, 2),
            torch.randint(8, (5, 3, 2, 2)).to(torch.get_default_dtype()),
        )
        torch.testing.assert_close(graph(*others), score(*others))


def test_a_value_that_is_no_level_is_refused():
    law = dgm.distributions.ColourLevels(
        torch.zeros(1, 1, 2), *(torch.zeros(3, 1, 1, 2) + v for v in (0.0, 1.0, 0.0)), levels=4
    )
    with pytest.raises(ValueError, match="within the support"):
        law.log_prob(torch.full((3, 1, 1), 4.0))


def test_a_law_of_one_level_or_of_other_pairs_is_refused():
    logits, whole = torch.zeros(1, 1, 2), torch.ones(3, 1, 1, 2)
    with pytest.raises(ValueError, match=r"ColourLevels: expected at least 2 levels, got 1"):
        dgm.distributions.ColourLevels(logits, whole, whole, whole, levels=1)
    with pytest.raises(
        ValueError, match=r"expected 3 coefficients .* got \(2, 1, 1, 2\)\. Fix: one for each pair"
    ):
        dgm.distributions.ColourLevels(logits, whole, whole, whole[:2], levels=4)


def test_a_network_with_another_number_of_channels_is_refused_with_the_fix():
    with pytest.raises(
        ValueError,
        match=r"expected .*\(\*batch, 50, H, W\) .* got \(7, 40, 4, 4\)\. Fix: .* 50 channels",
    ):
        dgm.ColourLogisticMixture(nn.Identity(), 256, num_components=5)(torch.zeros(7, 40, 4, 4))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"channels": 0}, "channels >= 1, got 0"),
        ({"min_scale": -1.0}, r"min_scale >= 0, got -1\.0"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(ValueError, match=f"ColourLogisticMixture: expected {message}"):
        dgm.ColourLogisticMixture(nn.Identity(), 256, num_components=5, **option)
