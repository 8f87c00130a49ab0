"""The mixture that builds its components by index: a joint density, in chunks, and the sampler of that density."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.programs.distributions import mixtures


def parts(num=5, dim=3):
    """Locations, scales and log weights of a normal mixture."""
    return torch.randn(num, dim), 0.3 + torch.rand(num, dim), torch.randn(num).log_softmax(-1)


def mixture_of(loc, scale, log_weights, contexts=()):
    """The mixture whose components a context moves by its own sum."""

    def component(k, *contexts):
        moved = loc[k] + sum(c.sum(-1, keepdim=True) for c in contexts)
        return dist.Normal(moved, scale[k].expand_as(moved)).to_event(1)

    return dgm.distributions.Mixture(component, log_weights, contexts)


def by_hand(loc, scale, log_weights, value):
    """log Σ_k π_k Π_d N(z_d; μ_kd, σ_kd²), one component after the other."""
    total = 0.0
    for m, s, w in zip(loc, scale, log_weights, strict=True):
        z = (value - m) / s
        log_p = -0.5 * z.square() - s.log() - 0.5 * torch.log(torch.tensor(2 * torch.pi))
        total = total + (w + log_p.sum(-1)).exp()
    return torch.as_tensor(total).log()


# Density -------------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("batch", [(), (7,), (2, 7)], ids=str)
def test_the_density_is_the_log_of_the_weighted_sum_and_that_of_torch(batch):
    loc, scale, log_weights = parts()
    value = torch.randn(*batch, 3)
    log_p = mixture_of(loc, scale, log_weights).log_prob(value)
    torch.testing.assert_close(log_p, by_hand(loc, scale, log_weights, value))
    same_family = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=log_weights),
        torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1),
    )
    torch.testing.assert_close(log_p, same_family.log_prob(value))


@both_dtypes
def test_far_from_every_component_the_density_is_finite_in_value_and_gradient(dtype):
    loc, scale, log_weights = (t.requires_grad_() for t in parts())
    log_p = mixture_of(loc, scale, log_weights).log_prob(torch.full((3,), 1e3))
    assert float(log_p.detach()) < -1e4
    log_p.backward()
    assert all(bool(t.grad.isfinite().all()) for t in (loc, scale, log_weights))


@both_dtypes
@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-6])
def test_the_narrowest_components_far_from_zero_keep_their_density(scale, dtype):
    """Scales at the floor of the positive link, far from 0: 0.01 nats are left to a square that is multiplied out."""
    loc, scales = 10 + torch.randn(5, 8), torch.full((5, 8), scale)
    law = mixture_of(loc, scales, torch.zeros(5).log_softmax(-1))
    value = law.sample((100,))
    each = dist.Normal(loc.double(), scales.double()).log_prob(value.double()[:, None]).sum(-1)
    expected = (each - torch.tensor(5.0).double().log()).logsumexp(-1)
    torch.testing.assert_close(law.log_prob(value).double(), expected, rtol=0, atol=1e-2)


@in_float64
@pytest.mark.parametrize("most", [1, 2 * 3 * 4, 10**6])
def test_chunks_change_neither_density_nor_gradient_and_bound_what_stands_in_memory(
    most, monkeypatch
):
    monkeypatch.setattr(mixtures, "MAX_ELEMENTS", most)
    loc, scale, log_weights = (t.requires_grad_() for t in parts(num=7))
    sizes, value = [], torch.randn(4, 3, requires_grad=True)

    def component(k):
        sizes.append(len(k))
        return dist.Normal(loc[k], scale[k]).to_event(1)

    law = dgm.distributions.Mixture(component, log_weights, validate_args=False)
    sizes.clear()
    log_p = law.log_prob(value)
    assert sum(sizes) == 7
    assert max(sizes) * value.numel() <= max(most, value.numel())
    expected = by_hand(loc, scale, log_weights, value)
    torch.testing.assert_close(log_p, expected)
    tensors = (loc, scale, log_weights, value)
    gradients = [
        torch.autograd.grad(d.sum(), tensors, retain_graph=True) for d in (log_p, expected)
    ]
    torch.testing.assert_close(*gradients)


@in_float64
def test_the_mixture_is_joint_over_the_dims_and_no_product_of_mixtures():
    """Modes at (3, 3) and (−3, −3): a product of 1-D mixtures puts half of its mass at (3, −3) and (−3, 3)."""
    law = mixture_of(
        torch.tensor([[3.0, 3.0], [-3.0, -3.0]]), torch.ones(2, 2), torch.tensor([0.5, 0.5]).log()
    )
    at_mode, between = law.log_prob(torch.tensor([[3.0, 3.0], [3.0, -3.0]]))
    torch.testing.assert_close(
        at_mode - between, torch.tensor(18.0 - 0.6931471805599453), atol=1e-6, rtol=0
    )
    draws = law.sample((2000,))
    assert float((draws.prod(-1) > 0).double().mean()) > 0.98
    axis = torch.arange(-10, 10, 0.05) + 0.025
    joint = law.log_prob(torch.cartesian_prod(axis, axis)).reshape(400, 400).exp() * 0.05**2
    torch.testing.assert_close(joint.sum(), torch.ones(()))
    tail = dist.Normal(0.0, 1.0).cdf(torch.tensor(-3.0))
    torch.testing.assert_close(
        joint[axis > 0][:, axis < 0].sum(), tail * (1 - tail), rtol=5e-3, atol=0
    )


@in_float64
def test_a_component_without_weight_neither_counts_nor_breaks_the_gradient():
    loc, scale, _ = parts(num=2)
    loc.requires_grad_()
    law = mixture_of(loc, scale, torch.tensor([1.0, 0.0]).log())
    value = torch.randn(4, 3)
    torch.testing.assert_close(
        law.log_prob(value), dist.Normal(loc[0], scale[0]).to_event(1).log_prob(value)
    )
    law.log_prob(value).sum().backward()
    assert bool(loc.grad[0].abs().max() > 0)
    assert torch.equal(loc.grad[1], torch.zeros(3))


# Draws ---------------------------------------------------------------------------------------------------------------


def test_the_sampler_draws_the_mixture_that_is_scored():
    """Shares of 20,000 draws per component against the weights, standard error sqrt(p (1 - p) / n) each, 5 allowed."""
    loc, num = 50.0 * torch.arange(4.0)[:, None].expand(4, 2), 20_000
    log_weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    draws = mixture_of(loc, torch.ones(4, 2), log_weights).sample((num,))
    place = (draws / 50).round().long()
    assert torch.equal(place[:, 0], place[:, 1]), "one draw comes from two components"
    share = place[:, 0].bincount(minlength=4) / num
    p = log_weights.exp()
    assert bool(((share - p).abs() <= 5 * (p * (1 - p) / num).sqrt()).all())
    rest = draws - 50 * place
    assert bool((rest.mean(0).abs() <= 5 / num**0.5).all())
    assert bool(((rest.var(0) - 1).abs() <= 5 * (2 / num) ** 0.5).all())


def test_a_draw_builds_its_own_component_alone():
    asked = []

    def component(k):
        asked.append(tuple(k.shape))
        return dist.Normal(k[..., None].double(), 1.0).to_event(1)

    law = dgm.distributions.Mixture(component, torch.zeros(1000).log_softmax(-1))
    asked.clear()
    assert law.sample((5,)).shape == (5, 1)
    assert asked == [(5,)]


def test_draws_carry_no_gradient_and_are_refused_where_reparameterized_ones_are_asked_for():
    loc, scale, log_weights = parts()
    law = mixture_of(loc.requires_grad_(), scale, log_weights)
    assert not law.has_rsample
    assert not law.sample((3,)).requires_grad
    with pytest.raises(NotImplementedError):
        law.rsample()
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 3)), dgm.MixturePrior(2, 3))
    with pytest.raises(ValueError, match="site 'z': expected reparameterized draws"):
        dgm.ELBO(vae.model, vae.guide)(torch.randn(4, 3))


# Contexts, shapes ----------------------------------------------------------------------------------------------------


@in_float64
def test_every_context_has_a_mixture_of_its_own():
    (loc, scale, log_weights), context = parts(), torch.randn(4, 2)
    law = mixture_of(loc, scale, log_weights, (context,))
    assert (law.batch_shape, law.event_shape) == ((4,), (3,))
    value = torch.randn(6, 4, 3)
    for i in range(4):
        expected = by_hand(loc + context[i].sum(), scale, log_weights, value[:, i])
        torch.testing.assert_close(law.log_prob(value)[:, i], expected)


def test_draws_follow_the_context_of_their_row():
    """Means of 20,000 draws against the exact mean, 5 standard errors allowed."""
    (loc, scale, log_weights), context, num = parts(), 10 * torch.randn(4, 2), 20_000
    law = mixture_of(loc, scale, log_weights, (context,))
    draws = law.sample((num,))
    assert draws.shape == (num, 4, 3)
    assert bool(((draws.mean(0) - law.mean).abs() <= 5 * draws.std(0) / num**0.5).all())


@in_float64
def test_two_contexts_broadcast():
    (loc, scale, log_weights), a, b = parts(), torch.randn(5, 1, 2), torch.randn(4, 2)
    law = mixture_of(loc, scale, log_weights, (a, b))
    assert law.batch_shape == law.sample().shape[:-1] == (5, 4)
    value = law.sample()
    expected = by_hand(loc + a[3].sum() + b[2].sum(), scale, log_weights, value[3, 2])
    torch.testing.assert_close(law.log_prob(value)[3, 2], expected)


@in_float64
def test_the_mean_is_the_weighted_mean_of_the_means():
    (loc, scale, log_weights), context = parts(), torch.randn(4, 2)
    plain = log_weights.exp() @ loc
    torch.testing.assert_close(mixture_of(loc, scale, log_weights).mean, plain)
    torch.testing.assert_close(
        mixture_of(loc, scale, log_weights).expand((2, 4)).mean, plain.expand(2, 4, 3)
    )
    moved = mixture_of(loc, scale, log_weights, (context,))
    torch.testing.assert_close(moved.mean, plain + context.sum(-1, keepdim=True))
    torch.testing.assert_close(
        dgm.MixturePrior(2, 3)(torch.zeros(4, 1)).mean.shape, torch.Size([4, 2])
    )


@in_float64
@pytest.mark.parametrize("event", [(), (2,), (3, 2), (1, 3, 2)], ids=str)
def test_events_may_have_any_number_of_dims(event):
    loc, log_weights = torch.randn(5, *event), torch.randn(5).log_softmax(-1)
    law = dgm.distributions.Mixture(
        lambda k: dist.Normal(loc[k], 1.0).to_event(len(event)), log_weights
    )
    assert law.event_shape == law.sample().shape == event
    value = law.sample((7,))
    each = torch.stack([dist.Normal(m, 1.0).to_event(len(event)).log_prob(value) for m in loc])
    torch.testing.assert_close(law.log_prob(value), (log_weights[:, None] + each).logsumexp(0))
    torch.testing.assert_close(law.mean, torch.tensordot(log_weights.exp(), loc, dims=1))


@in_float64
def test_an_expanded_mixture_gives_every_row_a_draw_of_its_own_and_one_density():
    loc, scale, log_weights = parts()
    law = mixture_of(loc, scale, log_weights).expand((4, 5))
    assert law.batch_shape == (4, 5)
    value = law.sample()
    assert len(value.reshape(20, 3).unique(dim=0)) == 20
    torch.testing.assert_close(law.log_prob(value), by_hand(loc, scale, log_weights, value))
    assert law.log_prob(value[0, 0]).shape == (4, 5)
    context = torch.randn(5, 2)
    moved = mixture_of(loc, scale, log_weights, (context,)).expand((4, 5))
    again = moved.log_prob(value)
    torch.testing.assert_close(
        again, mixture_of(loc, scale, log_weights, (context,)).log_prob(value)
    )
    assert moved.sample((2,)).shape == (2, 4, 5, 3)


def test_in_plates_every_datum_and_particle_has_its_own_component():
    prior = dgm.MixturePrior(2, 4)

    def program():
        with pyro.plate("particles", 3, dim=-2), pyro.plate("data", 5, dim=-1):
            return pyro.sample("z", prior())

    trace = pyro.poutine.trace(program).get_trace()
    trace.compute_log_prob()
    value = trace.nodes["z"]["value"]
    assert value.shape == (3, 5, 2)
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], prior().log_prob(value))


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_value_of_another_size_and_weights_that_are_no_number_are_refused_under_validation():
    loc, scale, log_weights = parts()
    with pyro.validation_enabled(True):
        with pytest.raises(ValueError, match="rightmost|event"):
            mixture_of(loc, scale, log_weights).log_prob(torch.randn(4, 2))
        with pytest.raises(ValueError, match="log_weights"):
            mixture_of(loc, scale, log_weights * torch.nan)
        with pytest.raises(ValueError, match="within the support"):
            mixture_of(loc, scale, log_weights).log_prob(torch.full((3,), torch.nan))


def test_the_support_is_that_of_the_components():
    law = dgm.distributions.Mixture(
        lambda k: dist.Exponential(1.0 + k[..., None]).to_event(1), torch.zeros(3).log_softmax(-1)
    )
    assert bool(law.support.check(law.sample((9,))).all())
    assert not bool(law.support.check(torch.tensor([-1.0])))


def test_a_mixture_of_posteriors_is_built_on_the_modules_own_tensors():
    """A component is a function, not a list of laws: an update of the network is seen by the mixture that is built."""
    net = nn.Linear(3, 4)
    encoder = dgm.Conditional(dist.Normal, net)
    law = dgm.distributions.Mixture(
        lambda k: encoder(torch.eye(3)[k]), torch.zeros(3).log_softmax(-1)
    )
    law.log_prob(torch.zeros(2)).backward()
    assert bool((net.weight.grad != 0).any())


def test_components_that_are_no_function_are_refused_with_the_fix():
    laws = [dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)]
    for components in (laws, laws[0]):
        name = type(components).__name__
        message = rf"expected component as a function .* got {name}. Fix: Mixture\(lambda k: dist"
        with pytest.raises(TypeError, match=message):
            dgm.distributions.Mixture(components, torch.zeros(2).log_softmax(-1))
