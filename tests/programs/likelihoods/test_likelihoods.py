"""Likelihood makers: what each one knows beyond the laws."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from mpmath import mp, mpf
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid

import pyro_dgm as dgm
from pyro_dgm.programs.conditionals.conditional import positive


@pytest.mark.parametrize("event", [(6,), (2, 3, 4)], ids=str)
def test_bernoulli_is_the_binary_cross_entropy_summed_over_the_event(event):
    logits, x = (
        5 * torch.randn(3, *event),
        torch.randint(2, (3, *event)).to(torch.get_default_dtype()),
    )
    law = dgm.Bernoulli(nn.Identity(), event_dim=len(event))(logits)
    entropy = binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(law.log_prob(x), -entropy)
    torch.testing.assert_close(law.mean, logits.sigmoid())


@both_dtypes
def test_bernoulli_scores_extreme_logits_with_finite_gradients(dtype):
    logits = torch.tensor([[-1e4, 1e4, -90.0, 90.0]], requires_grad=True)
    log_p = dgm.Bernoulli(nn.Identity())(logits).log_prob(torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
    torch.testing.assert_close(log_p, torch.tensor([-2e4 - 180]))
    (gradient,) = torch.autograd.grad(log_p.sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, -1.0, 1.0, -1.0]]))


@pytest.mark.parametrize("maker", [dgm.Bernoulli, dgm.ContinuousBernoulli])
def test_a_network_that_ends_in_a_sigmoid_is_warned_of_where_logits_are_expected(maker):
    net = nn.Sequential(dgm.mlp(3, 8, 4), nn.Sequential(nn.Sigmoid()))
    with pytest.warns(UserWarning, match=r"ends in nn.Sigmoid.*Fix: leave the last layer out"):
        maker(net)
    dgm.Poisson(net)  # whose rate may be what it likes; warnings are errors here


def test_categorical_reads_the_logits_of_one_dim_side_by_side():
    raw, x = torch.randn(7, 3 * 5), torch.randint(5, (7, 3))
    law = dgm.Categorical(nn.Identity(), levels=5)(raw)
    expected = (
        -cross_entropy(raw.reshape(21, 5), x.reshape(21), reduction="none").reshape(7, 3).sum(1)
    )
    torch.testing.assert_close(law.log_prob(x), expected)
    torch.testing.assert_close(law.log_prob(x.to(raw.dtype)), expected)


def test_categorical_refuses_a_network_with_another_number_of_outputs():
    with pytest.raises(
        ValueError, match=r"Categorical: expected .* levels=4, got \(2, 9\)\. Fix: .*4 \* D\)"
    ):
        dgm.Categorical(nn.Linear(3, 9), levels=4)(torch.zeros(2, 3))


@both_dtypes
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0, 1e3])
def test_normal_starts_at_the_scale_that_was_asked_for(scale, dtype):
    law = dgm.Normal(nn.Identity(), scale=scale)(torch.zeros(2, 3))
    torch.testing.assert_close(law.base_dist.scale, torch.full((2, 3), scale), rtol=2e-3, atol=0)


def test_normal_learns_the_scale_of_the_data():
    """The maximum-likelihood σ is the root mean square; 400 steps of Adam reach it to 1 %."""
    x = 0.3 * torch.randn(500, 4)
    likelihood = dgm.Normal(nn.Identity())
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (-likelihood(torch.zeros(500, 4)).log_prob(x).mean()).backward()
        optimizer.step()
    exact = x.square().mean().sqrt()
    torch.testing.assert_close(
        likelihood(x).base_dist.scale[0, 0].detach(), exact, rtol=1e-2, atol=0
    )


def test_normal_is_the_normal_density_over_the_event():
    loc, x = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    law = dgm.Normal(nn.Identity(), scale=0.5, event_dim=3)(loc)
    expected = dist.Normal(loc, 0.5).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(law.log_prob(x), expected)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_normal_refuses_a_scale_that_is_not_positive(scale):
    with pytest.raises(ValueError, match=rf"Normal: expected scale > 0, got {scale}"):
        dgm.Normal(nn.Identity(), scale=scale)


def test_discretized_logistic_reads_locations_first_and_log_scales_in_level_units():
    raw, x = torch.tensor([[3.0, 7.0, -0.4, 0.9]]), torch.tensor([[2.0, 9.0]])
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=12)(raw)
    cdf = lambda y, loc, log_scale: torch.sigmoid((y - loc) / log_scale.exp())  # noqa: E731
    loc, log_scale = raw.chunk(2, -1)
    exact = (cdf(x + 0.5, loc, log_scale) - cdf(x - 0.5, loc, log_scale)).log().sum(-1)
    torch.testing.assert_close(law.log_prob(x), exact)


def test_the_edge_levels_of_discretized_logistic_take_the_tails():
    """Other libraries leave them out, and their masses sum to 1.00 down to 0.23."""
    raw = torch.tensor([[-6.0, 1.5]])
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=16)(raw)
    scale = raw[0, 1].exp()
    torch.testing.assert_close(
        law.log_prob(torch.tensor([[0.0]]))[0], logsigmoid((0.5 + 6) / scale)
    )
    torch.testing.assert_close(
        law.log_prob(torch.tensor([[15.0]]))[0], logsigmoid(-(14.5 + 6) / scale)
    )
    masses = law.log_prob(torch.arange(16.0)[:, None]).exp()
    torch.testing.assert_close(masses.sum(), torch.ones(()))


def test_min_scale_is_added_to_the_scale_of_the_network():
    raw = torch.tensor([[1.5, 2.5, -3.0, 0.7]])
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=5, min_scale=0.3)(raw)
    expected = dgm.distributions.Discretized(
        dist.Logistic(raw[:, :2], 0.3 + raw[:, 2:].exp()), 5
    ).to_event(1)
    x = torch.tensor([[4.0, 0.0]])
    torch.testing.assert_close(law.log_prob(x), expected.log_prob(x))


def test_min_scale_bounds_the_cost_of_a_level_never_seen():
    """Far beyond the location the mass falls by exp(-1 / min_scale) per level, and by no more."""
    raw = torch.tensor([[-1.0, -1e4]])
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=17, min_scale=0.5)(raw)
    costs = -torch.stack([law.log_prob(torch.tensor([[float(y)]])) for y in range(4, 16)]).squeeze()
    torch.testing.assert_close(costs.diff(), torch.full((11,), 2.0), rtol=1e-4, atol=0)


@both_dtypes
def test_log_scales_are_clamped_where_they_become_scales(dtype):
    raw = torch.tensor([[1.5, -40.0], [1.5, 40.0], [1.5, -12.0], [1.5, 12.0]], requires_grad=True)
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=5)(raw)
    torch.testing.assert_close(
        law.base_dist.base.scale[:2], law.base_dist.base.scale[2:], rtol=0, atol=0
    )
    (gradient,) = torch.autograd.grad(law.log_prob(torch.arange(4.0)[:, None]).sum(), raw)
    assert bool(gradient.isfinite().all())


@in_float64
def test_discretized_normal_reads_what_discretized_logistic_reads():
    raw, x = torch.tensor([[3.0, 7.0, -0.4, 0.9]]), torch.tensor([[2.0, 9.0]])
    law = dgm.DiscretizedNormal(nn.Identity(), levels=12, min_scale=0.2)(raw)
    loc, scale = raw[:, :2], raw[:, 2:].exp() + 0.2
    normal = dist.Normal(loc, scale)
    torch.testing.assert_close(
        law.log_prob(x), (normal.cdf(x + 0.5) - normal.cdf(x - 0.5)).log().sum(-1)
    )


def test_a_mixture_starts_as_equal_bumps_spread_evenly_over_the_levels():
    law = dgm.DiscretizedLogisticMixture(nn.Identity(), levels=20, num_components=4)(
        torch.zeros(3 * 4 * 2)
    )
    mixture = law.base_dist.base
    kernels = mixture.component_distribution
    torch.testing.assert_close(mixture.mixture_distribution.probs, torch.full((2, 4), 0.25))
    torch.testing.assert_close(
        kernels.loc, torch.tensor([2.0, 7.0, 12.0, 17.0]).expand(2, 4)
    )  # 5 levels apart
    torch.testing.assert_close(kernels.scale, torch.full((2, 4), 2.5))


@in_float64
def test_a_mixture_reads_logits_locations_and_log_scales_with_the_components_side_by_side():
    raw, x = torch.randn(7, 3 * 5 * 2), torch.randint(9, (7, 2))
    law = dgm.DiscretizedLogisticMixture(nn.Identity(), levels=9, num_components=5, min_scale=0.3)(
        raw
    )
    logits, loc, log_scale = raw.reshape(7, 3, 2, 5).unbind(1)
    loc = 9 * (loc + (torch.arange(5) + 0.5) / 5) - 0.5
    kernels = dgm.distributions.Discretized(dist.Logistic(loc, 0.3 + 0.9 * log_scale.exp()), 9)
    exact = (logits.log_softmax(-1) + kernels.log_prob(x[..., None])).logsumexp(-1).sum(-1)
    torch.testing.assert_close(law.log_prob(x), exact)


@in_float64
def test_a_mixture_over_an_image_is_the_mixture_over_its_flattened_values():
    raw, x = torch.randn(5, 3 * 2 * 3, 4, 2), torch.randint(9, (5, 2, 4, 2))
    image = dgm.DiscretizedLogisticMixture(nn.Identity(), 9, num_components=3, event_dim=3)(raw)
    flat = raw.reshape(5, 3, 2, 3, 8).transpose(-1, -2).reshape(5, -1)
    vector = dgm.DiscretizedLogisticMixture(nn.Identity(), 9, num_components=3)(flat)
    assert image.event_shape == (2, 4, 2)
    torch.testing.assert_close(image.log_prob(x), vector.log_prob(x.reshape(5, 16)))


LEVELS = {
    "DiscretizedLogistic": (dgm.DiscretizedLogistic, 2),
    "DiscretizedNormal": (dgm.DiscretizedNormal, 2),
    "DiscretizedLogisticMixture": (
        partial(dgm.DiscretizedLogisticMixture, num_components=3),
        3 * 3,
    ),
}
of_levels = pytest.mark.parametrize("name", list(LEVELS))


@both_dtypes
@of_levels
def test_extreme_outputs_give_finite_masses_and_gradients_over_levels(name, dtype):
    make, num_params = LEVELS[name]
    raw = (
        torch.tensor([1.0, 30.0, 1e4])[:, None, None] * torch.randn(3, 40, num_params)
    ).requires_grad_()
    log_p = make(nn.Identity(), levels=256)(raw).log_prob(torch.arange(256.0).reshape(-1, 1, 1, 1))
    assert bool(log_p.isfinite().all())
    torch.testing.assert_close(
        log_p.exp().sum(0), torch.ones(3, 40), rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-9
    )
    (gradient,) = torch.autograd.grad(log_p.sum(), raw)
    assert bool(gradient.isfinite().all())


@of_levels
def test_a_network_that_gives_no_whole_number_of_parameters_is_refused(name):
    make, num = LEVELS[name]
    with pytest.raises(
        ValueError,
        match=rf"{name}: expected .*\(\*batch, {num} \* D\), .*locations then log-scales, got",
    ):
        make(nn.Linear(3, 2 * num + 1), levels=4)(torch.zeros(2, 3))
    with pytest.raises(
        ValueError, match=rf"Fix: end the network with nn.Linear\(hidden, {num} \* D\)"
    ):
        make(nn.Linear(3, num), levels=4, event_dim=3)(torch.zeros(2, 3))


@of_levels
def test_a_negative_min_scale_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name}: expected min_scale >= 0, got -1\.0"):
        LEVELS[name][0](nn.Identity(), levels=5, min_scale=-1.0)


def test_a_mixture_of_no_components_is_refused():
    with pytest.raises(
        ValueError, match=r"DiscretizedLogisticMixture: expected num_components >= 1, got 0"
    ):
        dgm.DiscretizedLogisticMixture(nn.Identity(), 5, num_components=0)


def test_image_likelihoods_split_the_channels_and_keep_height_and_width():
    raw = torch.randn(5, 2 * 3, 4, 6)
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=7, event_dim=3)(raw)
    x = torch.randint(7, (5, 3, 4, 6)).to(raw.dtype)
    expected = (
        dgm.distributions.Discretized(dist.Logistic(raw[:, :3], raw[:, 3:].exp()), 7)
        .log_prob(x)
        .flatten(1)
        .sum(1)
    )
    torch.testing.assert_close(law.log_prob(x), expected)
    assert law.event_shape == (3, 4, 6)


def test_an_image_of_categories_has_its_logits_side_by_side_in_the_channels():
    raw = torch.randn(5, 3 * 7, 4, 6)
    law = dgm.Categorical(nn.Identity(), levels=7, event_dim=3)(raw)
    x = torch.randint(7, (5, 3, 4, 6))
    log_p = raw.reshape(5, 3, 7, 4, 6).log_softmax(2).gather(2, x[:, :, None]).flatten(1).sum(1)
    torch.testing.assert_close(law.log_prob(x), log_p)
    assert law.event_shape == (3, 4, 6)


LOGITS = (0.0, 1e-7, -1e-4, 0.03, 0.0999, -0.1001, 0.7, -5.0, 16.0, -40.0, 90.0, 1e4)


def exact_intensity(logit: float, x: float) -> tuple[float, float, float]:
    r"""Log density at x, mean and variance, straight from $A(\ell) = \log (e^\ell - 1) / \ell$ and its derivatives."""
    with mp.workdps(5000 if abs(logit) > 1e3 else 60):
        if logit == 0:
            return 0.0, 0.5, 1 / 12
        size = mpf(logit)
        mean = 1 / (1 - mp.exp(-size)) - 1 / size
        variance = 1 / size**2 - 1 / (4 * mp.sinh(size / 2) ** 2)
        return float(size * mpf(x) - mp.log(mp.expm1(size) / size)), float(mean), float(variance)


@both_dtypes
def test_the_density_of_an_intensity_and_its_moments_are_exact_for_every_logit(dtype):
    """torch's own law has a mass of 0.32 at a logit of 50 in float32."""
    law = dgm.ContinuousBernoulli(nn.Identity())(torch.tensor(LOGITS)[:, None])
    exact = [exact_intensity(logit, 0.3) for logit in torch.tensor(LOGITS).tolist()]
    log_p, mean, variance = torch.tensor(exact, dtype=torch.float64).unbind(-1)
    rtol, atol = {torch.float32: (1e-5, 1e-6), torch.float64: (1e-12, 1e-12)}[dtype]
    found = (
        law.log_prob(torch.full((len(LOGITS), 1), 0.3)),
        law.mean.squeeze(-1),
        law.variance.squeeze(-1),
    )
    for one, other in zip(found, (log_p, mean, variance), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=atol)


@both_dtypes
def test_draws_of_an_intensity_have_its_mean_and_their_gradient_is_that_of_the_mean(dtype):
    """Means of 100,000 draws and of their slopes; 5 standard errors allowed, and the precision of a float32 sum."""
    logits = torch.tensor([0.0, 0.02, -3.0, 4.0, 30.0, -200.0])
    law, num = dgm.distributions.ContinuousBernoulliLogits(logits), 100_000
    wide = logits.expand(num, -1).clone().requires_grad_()
    draws = dgm.distributions.ContinuousBernoulliLogits(wide).rsample()
    (slopes,) = torch.autograd.grad(draws.sum(), wide)
    assert bool(law.support.check(draws).all())
    for one, exact in (
        (draws.detach(), law.mean),
        (slopes, law.variance),
    ):  # the mean is A', its slope A''
        assert bool(((one.mean(0) - exact).abs() <= 5 * one.std(0) / num**0.5 + 1e-5).all())


@both_dtypes
def test_a_density_of_intensities_has_finite_gradients_for_every_logit(dtype):
    logits = torch.tensor(LOGITS, requires_grad=True)
    for x in (0.0, 0.3, 1.0):
        log_p = dgm.distributions.ContinuousBernoulliLogits(logits).log_prob(torch.tensor(x))
        (gradient,) = torch.autograd.grad(log_p.sum(), logits)
        torch.testing.assert_close(
            gradient,
            x - dgm.distributions.ContinuousBernoulliLogits(logits).mean.detach(),
            atol=2e-6,
            rtol=1e-5,
        )


def test_an_expanded_law_of_intensities_scores_and_draws_like_the_law():
    law = dgm.distributions.ContinuousBernoulliLogits(torch.tensor([0.5, -2.0]))
    wide = law.expand((3, 2))
    x = wide.rsample()
    assert x.shape == wide.batch_shape == (3, 2)
    torch.testing.assert_close(wide.log_prob(x), law.log_prob(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match="within the support"):
        dgm.distributions.ContinuousBernoulliLogits(torch.zeros(2), validate_args=True).expand(
            (3, 2)
        ).log_prob(torch.tensor(1.5))


def test_laplace_and_student_read_their_parameters_in_the_order_of_the_docstring():
    raw, x = torch.randn(5, 3 * 2), torch.randn(5, 2)
    first, second, third = raw.chunk(3, -1)
    laplace = dist.Laplace(first, positive(second)).to_event(1).log_prob(x)
    torch.testing.assert_close(dgm.Laplace(nn.Identity())(raw[:, :4]).log_prob(x), laplace)
    student = dist.StudentT(positive(first), second, positive(third)).to_event(1).log_prob(x)
    torch.testing.assert_close(dgm.StudentT(nn.Identity())(raw).log_prob(x), student)


# Settings and mistakes -----------------------------------------------------------------------------------------------

MAKERS = {
    "Bernoulli": (dgm.Bernoulli, "event_dim=1"),
    "Categorical": (partial(dgm.Categorical, levels=4), "levels=4, event_dim=1"),
    "Normal": (partial(dgm.Normal, scale=0.5), "scale=0.5, event_dim=1"),
    "Laplace": (dgm.Laplace, "event_dim=1"),
    "StudentT": (dgm.StudentT, "event_dim=1"),
    "ContinuousBernoulli": (dgm.ContinuousBernoulli, "event_dim=1"),
    "Binomial": (partial(dgm.Binomial, total_count=16), "total_count=16, event_dim=1"),
    "Poisson": (dgm.Poisson, "event_dim=1"),
    "NegativeBinomial": (dgm.NegativeBinomial, "event_dim=1"),
    "ZeroInflatedPoisson": (dgm.ZeroInflatedPoisson, "event_dim=1"),
    "ZeroInflatedNegativeBinomial": (dgm.ZeroInflatedNegativeBinomial, "event_dim=1"),
    "DiscretizedLogistic": (
        partial(dgm.DiscretizedLogistic, levels=17, min_scale=0.5),
        "levels=17, min_scale=0.5, event_dim=1",
    ),
    "DiscretizedNormal": (
        partial(dgm.DiscretizedNormal, levels=17),
        "levels=17, min_scale=0.0, event_dim=1",
    ),
    "DiscretizedLogisticMixture": (
        partial(dgm.DiscretizedLogisticMixture, levels=17, num_components=5),
        "num_components=5, levels=17, min_scale=0.0, event_dim=1",
    ),
    "ColourLogisticMixture": (
        partial(dgm.ColourLogisticMixture, levels=17, num_components=5),
        "levels=17, num_components=5, channels=3, min_scale=0.0",
    ),
}
every_maker = pytest.mark.parametrize("name", list(MAKERS))
WITH_LEVELS = [name for name, (_, settings) in MAKERS.items() if "levels=" in settings]


@every_maker
def test_a_maker_prints_its_settings(name):
    make, settings = MAKERS[name]
    assert repr(make(nn.Identity())) == f"{name}({settings},\n  (net): Identity()\n)"


def vae() -> dgm.VAE:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(9, 4))
    return dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 9)), encoder)


NO_NETWORKS = {
    "the distribution Normal": lambda: dist.Normal(0.0, 1.0),
    "the class Linear": lambda: nn.Linear,
    "the conditional Conditional": lambda: dgm.Conditional(dist.Normal, nn.Linear(2, 18)),
    "the program LatentVariableModel": lambda: vae().model,
    "VAE, which has no forward": vae,
    "int": lambda: 256,
}


@pytest.mark.parametrize("found", list(NO_NETWORKS))
@every_maker
def test_what_is_no_network_is_refused_where_it_is_handed_over(name, found):
    message = rf"{name}: expected a network.* got {found}.*Fix: net=mlp\(num_in, hidden, num_out"
    with pytest.raises(TypeError, match=message):
        MAKERS[name][0](NO_NETWORKS[found]())


@pytest.mark.parametrize("found", list(NO_NETWORKS))
def test_a_concatenation_for_what_is_no_network_is_refused(found):
    with pytest.raises(TypeError, match=rf"Concat: expected a network.* got {found}.*Fix: net="):
        dgm.Concat(NO_NETWORKS[found]())


@pytest.mark.parametrize("levels", [1, 0])
@pytest.mark.parametrize("name", WITH_LEVELS)
def test_fewer_than_two_levels_are_refused_with_the_fix(name, levels):
    message = rf"{name}: expected at least 2 levels, got {levels}. Fix: levels=256 for bytes"
    with pytest.raises(ValueError, match=message):
        MAKERS[name][0](nn.Identity(), levels=levels)


@pytest.mark.parametrize("name", ["Categorical", "Normal", "DiscretizedLogistic"])
def test_an_event_without_dims_is_refused_with_the_fix(name):
    message = rf"{name}: expected event_dim >= 1, got 0. Fix: event_dim=1 for vectors"
    with pytest.raises(ValueError, match=message):
        MAKERS[name][0](nn.Identity(), event_dim=0)


@pytest.mark.parametrize(
    "name",
    [
        "Normal",
        "Categorical",
        "DiscretizedLogistic",
        "DiscretizedLogisticMixture",
        "ColourLogisticMixture",
    ],
)
def test_a_function_that_returns_no_tensor_is_refused_where_it_runs(name):
    message = rf"{name}: expected a network whose output is one tensor, got tuple. Fix: net=mlp"
    with pytest.raises(TypeError, match=message):
        MAKERS[name][0](lambda z: (z, z))(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("make", "num"),
    [
        (partial(dgm.DiscretizedLogistic, levels=17), 2),
        (partial(dgm.DiscretizedLogisticMixture, levels=17, num_components=5), 15),
        (partial(dgm.Categorical, levels=17), 17),
    ],
)
def test_too_few_outputs_are_refused_with_the_right_number(make, num):
    """A network that gives one number per dim, in place of all that a dim needs."""
    message = rf"nn.Linear\(hidden, {num} \* D\), which is {num * 9} outputs for D = 9"
    with pytest.raises(ValueError, match=message):
        make(nn.Linear(2, 9))(torch.zeros(4, 2))


def test_arguments_out_of_range_name_their_fix():
    with pytest.raises(ValueError, match=r"Normal: expected scale > 0, got 0. Fix: scale=1.0"):
        dgm.Normal(nn.Identity(), scale=0)
    with pytest.raises(ValueError, match=r"min_scale >= 0, got -1. Fix: min_scale=0.1"):
        dgm.DiscretizedNormal(nn.Identity(), 5, min_scale=-1)
    with pytest.raises(ValueError, match=r"num_components >= 1, got 0. Fix: num_components=5"):
        dgm.DiscretizedLogisticMixture(nn.Identity(), 5, 0)
    with pytest.raises(ValueError, match=r"channels >= 1, got 0. Fix: channels=3 for colours"):
        dgm.ColourLogisticMixture(nn.Identity(), 5, 2, channels=0)
