"""What only flows know: masks, halves, directions, the cost of a draw, and the memory of one evaluation."""

from __future__ import annotations

import warnings
import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import plane, randomize
from conftest import both_dtypes
from torch import nn
from torch.func import jacrev, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import pyro_dgm as dgm

STACKS = {"maf": dgm.maf, "iaf": dgm.iaf, "realnvp": dgm.realnvp}
stacks = pytest.mark.parametrize("stack", list(STACKS.values()), ids=list(STACKS))


def calls_of(flow: nn.Module) -> list[nn.Module]:
    """A list that grows by one with every network call in the bijectors of a flow."""
    calls: list[nn.Module] = []
    for module in flow.bijector.modules():
        if isinstance(module, dgm.flows.MADE | dgm.nn.MLP):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    return calls


def posterior(stack, dim=4, layers=3):
    base = dgm.Conditional(dist.Normal, dgm.mlp(5, 2 * dim))
    return randomize(
        dgm.Flow(base, stack(dim, layers, context=5, hidden=(16,)), embed=dgm.mlp(6, 5))
    )


# Start ---------------------------------------------------------------------------------------------------------------


@stacks
@pytest.mark.parametrize("context", [0, 3])
def test_a_fresh_stack_is_the_identity(stack, context):
    x, c = torch.randn(7, 4), torch.randn(7, 3) if context else None
    for f in (bijector := stack(4, 3, context)).forward, bijector.inverse:
        y, log_det = f(x, c)
        assert torch.equal(y, x)
        assert torch.equal(log_det, torch.zeros(7))


@stacks
def test_a_stack_has_the_layers_that_were_asked_for_and_reads_like_a_list(stack):
    bijector = stack(4, 3)
    assert len(bijector) == len(list(bijector)) == 3
    assert bijector[-1] is list(bijector)[2]


# Masks and halves ----------------------------------------------------------------------------------------------------


def jacobian_of(made, dim, context):
    """Which parameter depends on which coordinate, over many points: `(2 D, D)` booleans."""

    def joined(x, c):
        return made(x, c).flatten()

    x = torch.randn(20, dim)
    c = torch.randn(20, context) if context else None
    return (vmap(jacrev(joined), in_dims=(0, None if c is None else 0))(x, c) != 0).any(0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("hidden", [(16,), (16, 12), (12, 16, 32)], ids=str)
def test_every_parameter_depends_on_all_coordinates_before_it_and_on_no_other(
    hidden, context, reverse
):
    made = randomize(dgm.flows.MADE(6, context, hidden, reverse=reverse))
    allowed = torch.ones(6, 6).tril(-1).bool()
    allowed = allowed.flip(0, 1) if reverse else allowed
    assert torch.equal(jacobian_of(made, 6, context), allowed.repeat(2, 1))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("hidden", [(5,), (7, 4)], ids=str)
def test_no_coordinate_is_lost_when_a_hidden_layer_is_narrower_than_the_event(
    hidden, context, reverse
):
    """The last parameter may depend on all coordinates before it, however few hidden units there are."""
    made = randomize(dgm.flows.MADE(12, context, hidden, reverse=reverse))
    seen = jacobian_of(made, 12, context)
    allowed = torch.ones(12, 12).tril(-1).bool()
    assert not bool((seen & ~(allowed.flip(0, 1) if reverse else allowed).repeat(2, 1)).any())
    lost = (~seen.any(0)).nonzero().flatten().tolist()
    assert lost == [0 if reverse else 11], f"the parameters ignore the coordinates {lost}"


@pytest.mark.parametrize("reverse", [False, True])
def test_the_parameters_of_one_coordinate_are_those_among_all(reverse):
    made = randomize(dgm.flows.Autoregressive(4, 3, (16,), reverse=reverse)).made
    x, c = torch.randn(6, 4), torch.randn(5, 1, 3)
    for i in range(4):
        torch.testing.assert_close(made(x, c, i), made(x, c)[..., i : i + 1])


@pytest.mark.parametrize("reverse", [False, True])
def test_the_jacobian_of_an_autoregressive_layer_is_triangular(reverse):
    layer = randomize(dgm.flows.Autoregressive(5, hidden=(16,), reverse=reverse))
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0], torch.randn(5))
    jacobian = jacobian.flip(0, 1) if reverse else jacobian
    assert torch.equal(jacobian, jacobian.tril())
    assert bool((jacobian.diagonal() > 0).all())


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_first_coordinate_of_an_autoregressive_layer_depends_on_the_context(dim, reverse):
    layer, x = randomize(dgm.flows.Autoregressive(dim, 3, (16,), reverse=reverse)), torch.randn(dim)
    first = dim - 1 if reverse else 0
    jacobian = torch.autograd.functional.jacobian(
        lambda c: layer.made(x, c).flatten(), torch.randn(3)
    )
    assert bool((jacobian[[first, dim + first]] != 0).all()), (
        "shift or scale of the first coordinate ignores c"
    )


@pytest.mark.parametrize("dim", [2, 3, 4, 7])
def test_a_coupling_stack_moves_both_halves(dim):
    """`iterated(6, affine_coupling)` of Pyro never touches the first half."""
    x = torch.randn(9, dim)
    one, two = (randomize(dgm.realnvp(dim, n, hidden=(16,)))(x)[0] != x for n in (1, 2))
    assert not bool(one[:, : dim // 2].any())
    assert bool(one[:, dim // 2 :].all())
    assert bool(two.all())


@pytest.mark.parametrize("flip", [False, True])
def test_the_kept_half_of_a_coupling_is_untouched_and_the_other_does_not_feed_the_network(flip):
    layer = randomize(dgm.flows.Coupling(5, hidden=(16,), flip=flip))
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0], torch.randn(5))
    kept, moved = (slice(2, 5), slice(0, 2)) if flip else (slice(0, 2), slice(2, 5))
    assert torch.equal(jacobian[kept, kept], torch.eye(jacobian[kept, kept].shape[0]))
    assert bool((jacobian[kept, moved] == 0).all())
    assert torch.equal(jacobian[moved, moved], jacobian[moved, moved].diagonal().diag())
    assert bool((jacobian[moved, kept] != 0).all())


@stacks
@pytest.mark.parametrize("layers", [2, 3])
def test_every_parameter_of_a_flow_gets_a_finite_gradient_from_its_first_steps(stack, layers):
    """From the identity: the second step already moves the hidden layers, so that no half stays asleep."""
    flow = dgm.Flow(dgm.StandardNormal(4), stack(4, layers, hidden=(16,)))
    start = {n: p.detach().clone() for n, p in flow.named_parameters()}
    optimizer, y = torch.optim.SGD(flow.parameters(), lr=0.1), 1 + torch.randn(64, 4) ** 2
    for _ in range(3):
        optimizer.zero_grad()
        (-flow().log_prob(y).mean()).backward()
        assert all(bool(p.grad.isfinite().all()) for p in flow.parameters())
        optimizer.step()
    assert not [n for n, p in flow.named_parameters() if torch.equal(p, start[n])]


@both_dtypes
@stacks
def test_no_layer_overflows_at_huge_weights(stack, dtype):
    """A draw passes a layer at ±3 log-scales, so that the log-det of one layer is at most 3 D."""
    bijector = randomize(stack(6, 1, hidden=(16,)), scale=1e3)
    for f in (bijector.forward, bijector.inverse):
        y, log_det = f(torch.randn(50, 6))
        assert bool(log_det.isfinite().all())
        assert float(log_det.detach().abs().max()) <= 3 * 6 * (1 + 1e-5)


# Cost ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iaf", "realnvp"])
def test_a_posterior_draws_and_scores_in_one_call_a_layer(name):
    """zuko's MAF as a guide needs 24 + 30 calls where 3 suffice."""
    flow = posterior(STACKS[name])
    calls, law = calls_of(flow), flow(torch.randn(5, 6))
    law.log_prob(law.rsample((2,)))
    assert len(calls) == 3
    value = law.sample((2,))
    assert len(calls) == 6
    with torch.no_grad():
        law.log_prob(value)
    assert len(calls) == 6


def test_a_draw_under_no_grad_that_is_scored_for_its_gradient_costs_one_more_pass_and_no_inversion():
    flow = posterior(dgm.iaf)
    calls, law = calls_of(flow), flow(torch.randn(5, 6))
    value = law.sample()
    log_p = law.log_prob(value)
    assert len(calls) in (2 * 3, 3 + 3 * 4), (
        "a second pass, or the inversion that re-links value and weights"
    )
    log_p.sum().backward()
    assert all(p.grad is not None for p in flow.bijector.parameters())


def test_a_prior_scores_in_one_call_a_layer_and_samples_in_one_call_a_coordinate():
    flow = randomize(dgm.Flow(dgm.StandardNormal(4), dgm.maf(4, 3, hidden=(16,))))
    calls = calls_of(flow)
    flow().log_prob(torch.randn(5, 4))
    assert len(calls) == 3
    calls.clear()
    law = flow()
    value = law.rsample((5,))
    assert len(calls) == 3 * 4
    law.log_prob(value)
    assert len(calls) == 3 * 4


def test_the_context_is_embedded_once():
    flow = posterior(dgm.iaf)
    calls: list = []
    flow.embed.register_forward_hook(lambda *_: calls.append(1))
    law = flow(torch.randn(5, 6))
    law.log_prob(law.rsample((2,)))
    assert len(calls) == 1


# One evaluation is remembered, by the law and not by the module ------------------------------------------------------


def test_the_second_of_two_draws_is_scored_as_itself():
    law = posterior(dgm.realnvp)(torch.randn(5, 6))
    first, second = law.rsample(), law.rsample()
    expected = [law.log_prob(v.clone()) for v in (first, second)]
    torch.testing.assert_close([law.log_prob(first), law.log_prob(second)], expected)


def test_two_laws_of_one_flow_do_not_share_their_evaluations():
    flow = posterior(dgm.realnvp)
    y, contexts = torch.randn(5, 4), torch.randn(2, 5, 6)
    a, b = flow(contexts[0]), flow(contexts[1])
    densities = a.log_prob(y), b.log_prob(y), a.log_prob(y)
    assert torch.equal(densities[0], densities[2])
    assert not torch.equal(densities[0], densities[1])


@stacks
def test_a_scored_flow_is_freed_with_its_last_reference(stack):
    q = dgm.Flow(dgm.StandardNormal(4), stack(4, layers=2))()
    transform = weakref.ref(q.transforms[0])
    q.log_prob(torch.zeros(3, 4)), q.log_prob(q.rsample())
    assert q.transforms[0].inv.inv is q.transforms[0]
    del q
    assert transform() is None, (
        "a reference cycle keeps the activations of a batch until Python collects cycles"
    )


def test_a_foreign_point_gets_the_gradient_of_its_density():
    """Also when the same tensor was scored before it asked for a gradient."""
    flow = posterior(dgm.realnvp)
    law, y = flow(torch.randn(5, 6)), torch.randn(5, 4)
    (expected,) = torch.autograd.grad(law.log_prob(z := y.clone().requires_grad_()).sum(), z)
    law.log_prob(y)
    (gradient,) = torch.autograd.grad(law.log_prob(y.requires_grad_()).sum(), y)
    torch.testing.assert_close(gradient, expected)


def test_a_value_that_was_changed_in_place_is_scored_anew():
    law, y = posterior(dgm.realnvp)(torch.randn(5, 6)), torch.randn(5, 4)
    before = law.log_prob(y)
    y += 1.0
    torch.testing.assert_close(law.log_prob(y), law.log_prob(y.clone()))
    assert not torch.equal(law.log_prob(y), before)


def test_a_draw_is_reparameterized_in_base_bijector_and_embedding():
    flow = posterior(dgm.iaf)
    flow(torch.randn(5, 6)).rsample().square().sum().backward()
    assert all(bool(p.grad.abs().max() > 0) for p in flow.parameters())


def test_the_inverse_of_a_transform_and_its_log_det_are_those_of_the_bijector():
    bijector = randomize(dgm.realnvp(4, 2, hidden=(16,)))
    transform, x = bijector.transform(), torch.randn(5, 4)
    y, log_det = bijector(x)
    torch.testing.assert_close(transform(x), y)
    torch.testing.assert_close(transform.inv(y), x)
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), log_det)
    torch.testing.assert_close(transform.inv.log_abs_det_jacobian(y, x), -log_det)
    assert transform == transform
    assert transform != bijector.transform()
    assert transform.with_cache(0) is transform


# Flows as laws -------------------------------------------------------------------------------------------------------


@stacks
def test_a_two_dimensional_flow_prior_has_mass_one_and_samples_its_own_density(stack):
    """∫ p = 1 (one library counts the log-det once per dimension: 0.497); and cell frequencies of 40,000 draws against
    quadrature, standard error sqrt(p (1 - p) / n) each, 5 allowed (another samples a prior that it does not score)."""
    law = randomize(dgm.Flow(dgm.StandardNormal(2), stack(2, 4, hidden=(8,))), 0.25)()
    num, cells, per_cell = 40_000, 8, 40
    draws = law.sample((num,))
    grid, weights = plane(law)
    torch.testing.assert_close(
        (law.log_prob(grid).exp() * weights).sum(), torch.ones(()), rtol=1e-3, atol=0
    )
    low, high = draws.quantile(0.05, 0), draws.quantile(0.95, 0)
    width = (high - low) / cells
    area = float(width.prod()) / per_cell**2
    inner = [
        a + (torch.arange(cells * per_cell) + 0.5) * w / per_cell
        for a, w in zip(low, width, strict=True)
    ]
    density = (
        law.log_prob(torch.cartesian_prod(*inner)).exp().reshape(cells, per_cell, cells, per_cell)
    )
    p = density.sum((1, 3)) * area
    place = ((draws - low) / width).floor().long()
    inside = ((place >= 0) & (place < cells)).all(-1)
    frequency = (place[inside] @ torch.tensor([cells, 1])).bincount(minlength=cells**2).reshape(
        cells, cells
    ) / num
    standard_error = (p * (1 - p) / num).sqrt()
    assert bool(((frequency - p).abs() <= 5 * standard_error + 1 / num).all())


@stacks
def test_the_density_is_the_base_density_minus_the_log_det(stack):
    flow = randomize(dgm.Flow(dgm.StandardNormal(4), stack(4, 3, hidden=(16,))))
    eps = torch.randn(6, 4)
    y, log_det = flow.bijector(eps)
    expected = dist.Normal(0.0, 1.0).log_prob(eps).sum(-1) - log_det
    torch.testing.assert_close(flow().log_prob(y), expected)


def test_a_flow_accepts_a_list_of_bijectors_and_one_bijector():
    layer = randomize(dgm.flows.Coupling(4, hidden=(8,)))
    y = torch.randn(3, 4)
    listed, alone = (
        dgm.Flow(dgm.StandardNormal(4), b)().log_prob(y)
        for b in ([layer, dgm.flows.Permutation(4)], layer)
    )
    assert listed.shape == alone.shape == (3,)
    torch.testing.assert_close(dgm.Flow(dgm.StandardNormal(4), [layer])().log_prob(y), alone)


@stacks
def test_a_flow_prior_in_a_plate_gives_every_datum_a_draw_of_its_own(stack):
    prior = randomize(dgm.Flow(dgm.StandardNormal(3), stack(3, 2, hidden=(8,))))

    def program():
        with pyro.plate("particles", 4, dim=-2), pyro.plate("data", 5, dim=-1):
            return pyro.sample("z", prior())

    trace = pyro.poutine.trace(program).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["z"]
    assert site["value"].shape == (4, 5, 3)
    assert len(site["value"].reshape(20, 3).unique(dim=0)) == 20
    torch.testing.assert_close(site["log_prob"], prior().log_prob(site["value"].clone()))


def test_a_flow_with_a_conditional_base_and_no_embedding_uses_the_context_twice():
    flow = dgm.Flow(
        dgm.Conditional(dist.Normal, dgm.mlp(3, 4)),
        randomize(dgm.iaf(2, 2, context=3, hidden=(8,))),
    )
    assert flow(torch.randn(7, 3)).batch_shape == (7,)


@stacks
def test_a_flow_draws_and_scores_in_one_graph_and_under_vmap(stack):
    flow, context = posterior(stack), torch.randn(5, 6)

    def draw_and_score(c):
        law = flow(c)
        value = law.rsample()
        return value, law.log_prob(value)

    with pyro.validation_enabled(False):
        graph = make_fx(draw_and_score)(context)
        other = torch.randn(5, 6)
        pyro.set_rng_seed(3)
        expected = draw_and_score(other)
        pyro.set_rng_seed(3)
        torch.testing.assert_close(graph(other), expected)
        value = torch.randn(5, 4)
        alone = vmap(lambda c, v: flow(c).log_prob(v))(context, value)
        torch.testing.assert_close(alone, flow(context).log_prob(value))


@stacks
def test_one_hot_labels_are_a_context_as_they_are(stack):
    """`one_hot` returns integers; the networks cast them, as they do everywhere else."""
    labels = torch.nn.functional.one_hot(torch.tensor([0, 2, 1]), 3)
    flow = randomize(dgm.Flow(dgm.StandardNormal(4), stack(4, 2, context=3, hidden=(8,))))
    y = torch.randn(3, 4)
    torch.testing.assert_close(flow(labels).log_prob(y), flow(labels.to(y.dtype)).log_prob(y))


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_coupling_of_one_coordinate_without_a_context_is_refused():
    with pytest.raises(
        ValueError, match=r"Coupling: expected dim >= 2, got dim=1 and no context.*Fix: maf or"
    ):
        dgm.realnvp(1, 2)


def test_an_empty_stack_is_refused():
    with pytest.raises(
        ValueError, match=r"Stack: expected at least one bijector, got none\. Fix: use the base"
    ):
        dgm.flows.Stack([])


def test_a_stack_of_vector_and_image_layers_is_refused():
    """Their log-dets would broadcast to a wrong sum."""
    with pytest.raises(
        ValueError,
        match=r"got Unflatten onto events with 3 dims, then Permutation on .* 1\. Fix: event",
    ):
        dgm.flows.Stack([dgm.flows.Unflatten((1, 2, 2)), dgm.flows.Permutation(4)])


@pytest.mark.parametrize("order", [(0, 0, 1), (0, 1), (1, 2, 3)], ids=str)
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match=r"Permutation: expected a permutation of range\(3\), got"):
        dgm.flows.Permutation(3, order)


def test_two_contexts_without_an_embedding_are_refused_with_the_fix():
    flow = dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, 1, context=3))
    with pytest.raises(
        ValueError, match=r"Flow: expected one context, got 2\. Fix: embed=Concat\(mlp\(\.\.\.\)\)"
    ):
        flow(torch.zeros(4, 3), torch.zeros(4, 2))


def test_a_bijector_without_a_direction_says_so():
    class OneWay(dgm.flows.Bijector):
        def forward(self, x, context=None):
            return x, x.new_zeros(x.shape[:-1])

    with pytest.raises(NotImplementedError, match="OneWay has no inverse"):
        OneWay().inverse(torch.zeros(2))
    with pytest.raises(NotImplementedError, match="Bijector has no forward pass"):
        dgm.flows.Bijector()(torch.zeros(2))


def test_the_order_of_a_permutation_travels_in_the_state_dict():
    """Pyro's `permute` is drawn anew on every rank."""
    one, two = dgm.flows.Permutation(4, (3, 1, 0, 2)), dgm.flows.Permutation(4)
    two.load_state_dict(one.state_dict())
    x = torch.randn(4)
    assert torch.equal(one(x)[0], x[[3, 1, 0, 2]])
    assert torch.equal(one(x)[0], two(x)[0])
    assert torch.equal(two.inverse(two(x)[0])[0], x)


def test_inverse_swaps_domain_and_codomain_with_the_directions():
    class Exp(dgm.flows.Bijector):
        codomain = dist.constraints.independent(dist.constraints.positive, 1)

        def forward(self, x, context=None):
            return x.exp(), x.sum(-1)

        def inverse(self, y, context=None):
            return y.log(), -y.log().sum(-1)

    exp = Exp()
    assert dgm.Inverse(exp).domain is exp.codomain
    assert dgm.flows.Stack([exp]).codomain is exp.codomain
    flow = dgm.Flow(dgm.StandardNormal(2), [exp])
    value = flow().sample((7,))
    torch.testing.assert_close(
        flow().log_prob(value), dist.LogNormal(0.0, 1.0).expand([2]).to_event(1).log_prob(value)
    )
    assert bool(flow().support.check(value).all())


@pytest.mark.parametrize("make", [dgm.realnvp, dgm.maf, dgm.iaf])
@pytest.mark.parametrize(("declared", "given"), [(0, 3), (3, 0), (3, 2)])
def test_a_context_of_another_size_is_refused(make, declared, given):
    stack = make(4, layers=1, context=declared)
    context = torch.randn(5, given) if given else None
    for direction in (stack, stack.inverse):
        with pytest.raises(
            ValueError, match=f"expected a context of size {declared}, got {given or 'none'}"
        ):
            direction(torch.randn(5, 4), context)


# Splines and linear layers -------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("scale", [1, 3, 5, 10, 20])
def test_a_spline_inverts_at_any_raw_scale(scale, dtype):
    """Where the inverses of other libraries fail in most float32 batches at raw scales of 3 to 5."""
    law = dgm.flows.Spline(num_bins=8)
    raw, y = scale * torch.randn(2000, law.num_params, 4), 3 * torch.randn(2000, 4)
    x, log_slope = law.inverse(y, raw)
    assert bool(x.isfinite().all())
    assert bool(log_slope.isfinite().all())
    again, _ = law.forward(x, raw)
    slope = torch.func.vmap(
        torch.func.vmap(torch.func.grad(lambda v, r: law.forward(v[None], r[:, None])[0].sum()))
    )(x, raw.mT)
    # x is a float: y can be met to the rounding of x times the slope there, and to its own
    tolerance = 50 * torch.finfo(dtype).eps * (1 + slope) * law.bound
    assert bool(((again - y).abs() <= tolerance).all())


def test_a_spline_is_the_identity_outside_and_its_log_slope_exactly_zero_there_and_at_the_bound():
    law = dgm.flows.Spline(num_bins=5, bound=2.0)
    x = torch.tensor([[-50.0, -2.0, 2.0, 3.5, 1e6]])
    raw = torch.randn(1, law.num_params, 5)
    for direction in (law.forward, law.inverse):
        y, log_slope = direction(x, raw)
        assert torch.equal(y, x)
        assert torch.equal(log_slope, torch.zeros(1, 5))


def test_a_spline_is_the_identity_at_zero_and_smooth_at_its_knots():
    law = dgm.flows.Spline(num_bins=4, bound=2.0)
    x = torch.linspace(-3, 3, 61)[:, None]
    zero = torch.zeros(61, law.num_params, 1)
    torch.testing.assert_close(law.forward(x, zero)[0], x)
    torch.testing.assert_close(law.forward(x, zero)[1], torch.zeros(61, 1))
    raw = torch.randn(1, law.num_params, 1)
    edge = torch.tensor([[-2.0 + 1e-9], [2.0 - 1e-9]])
    torch.testing.assert_close(law.forward(edge, raw)[1], torch.zeros(2, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_the_gradients_of_a_spline_are_those_of_finite_differences(direction):
    law = dgm.flows.Spline(num_bins=4)
    x, raw = (
        torch.randn(3, 2, requires_grad=True),
        torch.randn(3, law.num_params, 2, requires_grad=True),
    )
    assert torch.autograd.gradcheck(getattr(law, direction), (x, raw))


@pytest.mark.parametrize("options", [{"num_bins": 1}, {"bound": 0.0}])
def test_a_spline_without_inside_is_refused(options):
    with pytest.raises(ValueError, match="expected 2 to 50 bins and bound > 0, got"):
        dgm.flows.Spline(**options)


def test_an_orthogonal_layer_is_a_rotation_and_starts_as_the_identity():
    layer, x = dgm.flows.Orthogonal(5), torch.randn(7, 5)
    torch.testing.assert_close(layer(x)[0], x)
    y, log_det = randomize(layer)(x)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(y, x)
    assert torch.equal(log_det, torch.zeros(7))
    torch.testing.assert_close(
        torch.linalg.det(torch.func.jacrev(lambda v: layer(v)[0])(x[0])), torch.tensor(1.0)
    )


def test_an_orthogonal_layer_without_reflections_is_refused():
    with pytest.raises(ValueError, match="expected num_pairs >= 1, got 0"):
        dgm.flows.Orthogonal(3, num_pairs=0)


def test_act_norm_standardizes_the_data_it_is_given_and_no_other():
    layer, x = dgm.flows.ActNorm(3), 5 + 2 * torch.randn(100, 3)
    assert torch.equal(layer(x)[0], x)
    layer.initialize(x)
    y, _ = layer(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-10, rtol=0)
    torch.testing.assert_close(y.std(0), torch.ones(3))
    torch.testing.assert_close(layer(x[:2])[0], y[:2])


def test_act_norm_refuses_constant_coordinates():
    x = torch.randn(10, 3)
    x[:, 1] = 4.0
    with pytest.raises(
        ValueError, match="expected coordinates that vary, got 1 of 3 constant. Fix: drop them"
    ):
        dgm.flows.ActNorm(3).initialize(x)


FURTHER = {
    "spline_coupling": lambda: dgm.spline_coupling(2, 2, hidden=(8,)),
    "spline_maf": lambda: dgm.spline_maf(2, 2, hidden=(8,)),
    "additive_maf": lambda: dgm.maf(2, 2, hidden=(8,), transformer=dgm.flows.Additive()),
    "linear": lambda: dgm.flows.Stack(
        [dgm.flows.LULinear(2), dgm.flows.Orthogonal(2), dgm.flows.ActNorm(2)]
    ),
}


@pytest.mark.parametrize("build", FURTHER.values(), ids=list(FURTHER))
def test_further_flow_priors_have_mass_one(build):
    law = randomize(dgm.Flow(dgm.StandardNormal(2), build()), 0.25)()
    grid, weights = plane(law)
    torch.testing.assert_close(
        (law.log_prob(grid).exp() * weights).sum(), torch.ones(()), rtol=1e-3, atol=0
    )


# Directions ----------------------------------------------------------------------------------------------------------

REPORTS = {
    "maf": (lambda: dgm.maf(5, 3), 15, 3),
    "iaf": (lambda: dgm.iaf(5, 3), 3, 15),
    "spline_maf": (lambda: dgm.spline_maf(5, 2), 10, 2),
    "realnvp": (lambda: dgm.realnvp(5, 4), 4, 4),
    "linear": (
        lambda: [dgm.flows.LULinear(5), dgm.flows.Orthogonal(5), dgm.flows.Permutation(5)],
        0,
        0,
    ),
    "linear_of_context": (lambda: dgm.flows.LULinear(5, 3), 1, 1),
    "mixed": (lambda: [*dgm.maf(5, 1), dgm.flows.Permutation(5), *dgm.realnvp(5, 2)], 7, 3),
    "planar": (lambda: dgm.flows.planar(5, 2, 3), 2, None),
}


@pytest.mark.parametrize(("build", "sample", "density"), REPORTS.values(), ids=list(REPORTS))
def test_the_report_says_what_each_direction_costs(build, sample, density):
    report = dgm.Flow(dgm.StandardNormal(5), build()).directions()
    assert report == dgm.flows.Directions(sample, density)
    told = "impossible" if density is None else f"{density} network calls"
    assert f"its own density: {sample} network calls; the density of a given point: {told}." in str(
        report
    )


@pytest.mark.parametrize("name", ["maf", "iaf", "realnvp", "mixed"])
def test_the_report_is_the_number_of_calls_that_are_made(name):
    build, sample, density = REPORTS[name]
    flow = randomize(dgm.Flow(dgm.StandardNormal(5), build()))
    calls = calls_of(flow)
    flow().rsample((3,))
    assert len(calls) == sample
    calls.clear()
    flow().log_prob(torch.randn(3, 5))
    assert len(calls) == density


def vae_of(prior_stack, posterior_stack):
    prior = dgm.Flow(dgm.StandardNormal(4), prior_stack(4, 2, hidden=(8,)))
    base = dgm.Conditional(dist.Normal, nn.Linear(6, 8))
    encoder = dgm.Flow(base, posterior_stack(4, 3, context=6, hidden=(8,)))
    return dgm.VAE(prior, dgm.Normal(dgm.mlp(4, 6)), encoder)


def warned(run) -> list[str]:
    """The direction warnings that Python shows under its own filter: each text once for each line of code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        run()
    return [str(w.message) for w in caught if issubclass(w.category, dgm.flows.DirectionWarning)]


def training(vae):
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    return lambda: trainer.fit(
        torch.randn(40, 6), torch.randn(9, 6), epochs=2, batch_size=20, progress=False
    )


def test_training_an_iaf_prior_warns_once_with_the_fix():
    (text,) = warned(training(vae_of(dgm.iaf, dgm.iaf)))
    assert (
        "scoring a given point (inverse) takes 8 network calls one after the other, 2 the other way"
        in text
    )
    assert "Fix: maf to score given points (prior, density), iaf to sample (posterior)" in text


def test_training_a_maf_posterior_warns_once():
    (text,) = warned(training(vae_of(dgm.maf, dgm.maf)))
    assert "drawing (forward) takes 12 network calls one after the other, 3 the other way" in text


def test_both_wrong_ways_are_told_apart():
    assert len(warned(training(vae_of(dgm.iaf, dgm.maf)))) == 2


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [(dgm.maf, dgm.iaf), (dgm.realnvp, dgm.realnvp), (dgm.spline_coupling, dgm.spline_iaf)],
)
def test_the_fast_ways_are_trained_in_silence(prior, posterior):
    assert not warned(training(vae_of(prior, posterior)))


def test_pyros_own_svi_warns_too():
    vae = vae_of(dgm.iaf, dgm.iaf)
    svi = pyro.infer.SVI(
        vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
    )
    assert len(warned(lambda: [svi.step(torch.randn(5, 6)) for _ in range(3)])) == 1


def test_estimates_samples_and_evaluation_mode_are_silent():
    """They take what way they must, and nobody waits for it step after step."""
    vae, x = vae_of(dgm.iaf, dgm.maf), torch.randn(5, 6)
    refined = dgm.SemiAmortizedGuide(vae.guide.encoder, vae.model, num_steps=2)

    def run():
        dgm.nll(vae.model, vae.guide, x, num=3)
        dgm.nll(vae.model, refined, x, num=3)
        dgm.encode(vae.guide, x)
        dgm.reconstruct(vae.model, vae.guide, x)
        dgm.generate(vae.model, 4)
        vae.model.prior().sample((3,))
        with torch.no_grad():
            dgm.ELBO(vae.model, vae.guide)(x)
        vae.eval()
        dgm.ELBO(vae.model, vae.guide)(x)

    assert not warned(run)
    maf = vae_of(dgm.maf, dgm.iaf)
    assert not warned(lambda: dgm.generate(maf.model, 4))


def test_one_coordinate_has_no_slow_way():
    prior = dgm.Flow(dgm.StandardNormal(1), dgm.iaf(1, 2, hidden=(8,)))
    assert not warned(lambda: prior().log_prob(torch.randn(5, 1)))
