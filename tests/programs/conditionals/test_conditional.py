"""A network's output becomes the parameters of a family, each on its own set."""

from __future__ import annotations

import pickle

import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from pyro.distributions import constraints
from torch import nn
from torch.nn.functional import softplus

import pyro_dgm as dgm
from pyro_dgm.programs.conditionals.conditional import POSITIVE_FLOOR, link, positive

FAMILIES = {
    "Bernoulli": 1, "Beta": 2, "Cauchy": 2, "Exponential": 1, "Gamma": 2, "Geometric": 1, "Gumbel": 2, "HalfNormal": 1,
    "Laplace": 2, "LogNormal": 2, "Normal": 2, "Poisson": 1, "StudentT": 3, "VonMises": 2, "Weibull": 2,
}  # fmt: skip
UNBOUNDED = ("Gumbel", "VonMises", "Weibull")


@both_dtypes
@pytest.mark.parametrize("raw", [-1e4, -100.0, 0.0, 100.0, 1e4])
@pytest.mark.parametrize(
    "constraint",
    [constraints.positive, constraints.nonnegative, constraints.unit_interval, constraints.interval(-2.0, 3.0),
     constraints.greater_than(1.0), constraints.real],
    ids=str,
)  # fmt: skip
def test_the_link_lands_in_the_set_of_the_parameter_at_any_raw_output(constraint, raw, dtype):
    outputs = torch.full((3,), raw, requires_grad=True)
    value = link(constraint)(outputs)
    assert value.dtype == dtype
    assert bool(constraint.check(value).all())
    assert bool(value.isfinite().all())
    (gradient,) = torch.autograd.grad(value.sum(), outputs)
    assert bool(gradient.isfinite().all())


def test_a_positive_parameter_is_recognised_by_its_set_and_not_by_the_identity_of_the_constraint():
    """`NegativeBinomial` declares its own `greater_than_eq(0)`; with `exp`, raw 100 would be infinite in float32."""
    raw = torch.tensor([-200.0, 0.0, 200.0], dtype=torch.float32)
    law = dgm.Conditional(dist.NegativeBinomial, nn.Identity())(torch.stack([raw, 0 * raw], dim=-1))
    torch.testing.assert_close(law.base_dist.total_count[:, 0], softplus(raw) + POSITIVE_FLOOR)


@in_float64
def test_the_positive_link_is_softplus_with_a_floor():
    raw = torch.linspace(-50, 50, 11)
    torch.testing.assert_close(positive(raw), softplus(raw) + 1e-6)
    assert float(positive(torch.tensor(-1e6))) == POSITIVE_FLOOR


@both_dtypes
@pytest.mark.parametrize(
    ("family", "num_params", "scale"),
    # The log densities of these three leave the range of a float themselves at such parameters.
    [
        (f, n, s)
        for f, n in FAMILIES.items()
        for s in (0, 1, 30)
        if s < 30 or f not in ("Gumbel", "VonMises", "Weibull")
    ],
)
def test_any_family_is_valid_with_finite_gradients_at_any_network_output(family, num_params, scale):
    raw = (scale * torch.randn(20, 3 * num_params)).requires_grad_()
    law = dgm.Conditional(getattr(dist, family), nn.Identity())(raw)
    assert (law.batch_shape, law.event_shape) == ((20,), (3,))
    value = dgm.Conditional(getattr(dist, family), nn.Identity())(
        torch.zeros(20, 3 * num_params)
    ).sample()
    log_p = law.log_prob(value)
    assert bool(log_p.isfinite().all())
    (gradient,) = torch.autograd.grad(log_p.sum(), raw)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    ("family", "params"),
    [
        (dist.Normal, ("loc", "scale")),
        (dist.Gamma, ("concentration", "rate")),
        (dist.StudentT, ("df", "loc", "scale")),
        (dist.Bernoulli, ("logits",)),
        (dist.Geometric, ("logits",)),
        (dist.Beta, ("concentration1", "concentration0")),
    ],
)
def test_the_parameters_are_the_familys_own_with_logits_in_place_of_probabilities(family, params):
    assert dgm.Conditional(family, nn.Identity()).params == params


def test_the_chunks_are_the_parameters_in_the_order_that_was_asked_for():
    raw = torch.randn(5, 6)
    law = dgm.Conditional(dist.Normal, nn.Identity())(raw)
    expected = dist.Normal(raw[:, :3], softplus(raw[:, 3:]) + 1e-6).to_event(1)
    swapped = dgm.Conditional(dist.Normal, nn.Identity(), params=("scale", "loc"))(
        raw[:, [3, 4, 5, 0, 1, 2]]
    )
    value = law.sample()
    torch.testing.assert_close(law.log_prob(value), expected.log_prob(value))
    torch.testing.assert_close(swapped.log_prob(value), expected.log_prob(value))


def test_an_image_law_cuts_the_channels():
    raw = torch.randn(5, 6, 4, 2)
    law = dgm.Conditional(dist.Normal, nn.Identity(), event_dim=3)(raw)
    assert (law.batch_shape, law.event_shape) == ((5,), (3, 4, 2))
    torch.testing.assert_close(law.mean, raw[:, :3])
    torch.testing.assert_close(law.base_dist.scale, positive(raw[:, 3:]))


def test_a_family_with_one_parameter_per_datum_can_be_scored_by_name():
    law = dgm.Conditional(dist.Bernoulli, nn.Identity(), params=("probs",))(torch.zeros(2, 3))
    torch.testing.assert_close(law.base_dist.probs, torch.full((2, 3), 0.5))


def test_a_network_with_a_wrong_number_of_outputs_is_refused_with_the_fix():
    with pytest.raises(
        ValueError,
        match=r"Conditional\(Normal\): expected .* got shape \(7, 5\)\. Fix: end the net",
    ):
        dgm.Conditional(dist.Normal, nn.Linear(3, 5))(torch.zeros(7, 3))


def test_a_network_with_too_few_event_dims_is_refused_with_the_fix():
    with pytest.raises(
        ValueError,
        match=r"Conditional\(Normal\): expected .* got shape \(7, 4\)\. Fix: end the net",
    ):
        dgm.Conditional(dist.Normal, nn.Linear(3, 4), event_dim=3)(torch.zeros(7, 3))


def test_the_standard_normal_takes_its_batch_from_every_context():
    prior = dgm.StandardNormal(3)
    assert prior().batch_shape == ()
    assert prior(torch.zeros(5, 2)).batch_shape == (5,)
    assert prior(torch.zeros(4, 1, 2), torch.zeros(5, 7)).batch_shape == (4, 5)
    value = torch.randn(4, 5, 3)
    expected = -0.5 * (value.square().sum(-1) + 3 * torch.log(torch.tensor(2 * torch.pi)))
    torch.testing.assert_close(prior().log_prob(value), expected)


def test_the_standard_normal_keeps_nothing_in_a_state_dict():
    assert not dgm.StandardNormal(3).state_dict()


def test_a_conditional_with_links_can_be_pickled():
    case = dgm.Conditional(dist.Beta, nn.Linear(2, 4))
    context = torch.randn(3, 2)
    torch.testing.assert_close(pickle.loads(pickle.dumps(case))(context).mean, case(context).mean)


def test_conditional_refuses_an_event_without_dims():
    with pytest.raises(ValueError, match=r"expected event_dim >= 1, got 0\. Fix: event_dim=1"):
        dgm.Conditional(dist.Normal, nn.Linear(3, 2), event_dim=0)


@pytest.mark.parametrize(
    "family", [dist.Categorical, dist.Dirichlet, dist.MultivariateNormal, dist.Delta]
)
def test_conditional_refuses_families_whose_parameters_are_vectors(family):
    """A batch of contexts would silently become one event."""
    with pytest.raises(
        ValueError,
        match=r"expected parameters of one number per event dim, got .*Fix: a module of your own",
    ):
        dgm.Conditional(family, nn.Linear(3, 4))


def test_fixed_parameters_are_no_outputs_of_the_network():
    raw, x = torch.randn(5, 4), torch.randn(5, 2)
    law = dgm.Conditional(dist.StudentT, nn.Identity(), fixed={"df": 5.0})
    assert law.params == ("loc", "scale")
    expected = dist.StudentT(5.0, raw[:, :2], positive(raw[:, 2:])).to_event(1)
    torch.testing.assert_close(law(raw).log_prob(x), expected.log_prob(x))


@pytest.mark.parametrize(
    ("family", "fixed", "params"),
    [
        (dist.NegativeBinomial, {"probs": torch.tensor(0.3)}, ("total_count",)),
        (dist.NegativeBinomial, {"logits": torch.tensor(0.3)}, ("total_count",)),
        (dist.NegativeBinomial, {"total_count": 3.0}, ("logits",)),
        (dist.ZeroInflatedPoisson, {}, ("rate", "gate_logits")),
        (dist.ZeroInflatedPoisson, {"gate": torch.tensor(0.2)}, ("rate",)),
    ],
)
def test_a_parameter_fixed_in_one_form_is_asked_for_in_none(family, fixed, params):
    conditional = dgm.Conditional(family, nn.Identity(), fixed=fixed)
    assert conditional.params == params
    law = conditional(torch.zeros(4, 2 * len(params)))
    assert (law.batch_shape, law.event_shape) == ((4,), (2,))


def test_fixed_tensors_move_with_the_module_and_stay_out_of_its_state():
    conditional = dgm.Conditional(
        dist.StudentT, nn.Linear(3, 4), fixed={"df": torch.tensor([3.0, 5.0])}
    )
    assert set(conditional.state_dict()) == {"net.weight", "net.bias"}
    law = conditional.to(torch.float32)(torch.zeros(7, 3, dtype=torch.float32))
    assert law.base_dist.df.dtype == torch.float32
    torch.testing.assert_close(
        law.base_dist.df, torch.tensor([3.0, 5.0], dtype=torch.float32).expand(7, 2)
    )


def test_an_integer_parameter_must_be_fixed():
    with pytest.raises(
        ValueError,
        match=r"Conditional\(Binomial\): .* integer total_count\. Fix: fixed=\{'total_c",
    ):
        dgm.Conditional(dist.Binomial, nn.Linear(3, 4))


def test_a_parameter_that_is_fixed_and_given_is_refused():
    with pytest.raises(
        ValueError,
        match=r"expected each parameter once, got scale in params and in fixed\. Fix:",
    ):
        dgm.Conditional(dist.Normal, nn.Linear(3, 4), ("loc", "scale"), fixed={"scale": 1.0})


@pytest.mark.parametrize(
    ("family", "got"),
    [
        (dist.Normal(0.0, 1.0), r"the distribution Normal\("),
        (torch.distributions.Normal, "the class Normal"),
        (dgm.StandardNormal, "the class StandardNormal"),
        (nn.Linear(3, 4), "Linear"),
    ],
    ids=["instance", "family_of_torch", "class_of_a_conditional", "network"],
)
def test_what_is_no_family_is_refused_with_the_fix(family, got):
    with pytest.raises(
        TypeError,
        match=rf"expected as family a class.*got {got}.*Fix: Conditional\(dist\.Normal, net",
    ):
        dgm.Conditional(family, nn.Linear(3, 4))


@pytest.mark.parametrize("floor", [0.0, -1.0])
def test_a_floor_that_is_not_positive_is_refused(floor):
    with pytest.raises(ValueError, match=r"expected floor > 0, got .*Fix: floor=1e-6"):
        dgm.Conditional(dist.Normal, nn.Linear(3, 4), floor=floor)


@pytest.mark.parametrize("dim", [0, -2, (1, 0, 3)])
def test_a_standard_normal_without_dims_is_refused(dim):
    with pytest.raises(ValueError, match=r"StandardNormal: expected dim >= 1, got .*Fix: dim=8"):
        dgm.StandardNormal(dim)


def test_the_representation_shows_family_parameters_and_fixed_values():
    assert repr(dgm.StandardNormal(3)) == "StandardNormal(3)"
    assert repr(dgm.StandardNormal((1, 4, 4))) == "StandardNormal((1, 4, 4))"
    conditional = dgm.Conditional(dist.StudentT, nn.Linear(3, 4), floor=0.05, fixed={"df": 5.0})
    settings = "StudentT, params=('loc', 'scale'), floor=0.05, fixed={'df': 5.0}"
    assert repr(conditional).splitlines()[0] == f"Conditional({settings},"
    images = dgm.Conditional(dist.Normal, nn.Identity(), event_dim=3)
    assert "Normal, params=('loc', 'scale'), event_dim=3" in repr(images)
