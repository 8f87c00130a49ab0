"""One law, one test, over a registry of `cases.py`: conditionals, bijectors, and all modules."""

from __future__ import annotations

import copy
import pickle
from itertools import product
from math import prod

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import BIJECTORS, CONDITIONALS, ONE_WAY, PAIRS, over, plane, randomize
from conftest import both_dtypes, in_float64
from pyro import poutine
from pyro.nn import ConditionalDenseNN
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import pyro_dgm as dgm

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}
ALL = {**BIJECTORS, **ONE_WAY}
CONTEXTUAL = {name: build for name, build in ALL.items() if build().context}
LEARNED = {name: build for name, build in BIJECTORS.items() if list(build().bijector.parameters())}

WIDE = {
    name: build for name, build in {**LEARNED, **ONE_WAY}.items() if prod(build().event()) > 1
}  # a lone coordinate has none to depend on


@pytest.fixture
def made(build, device):
    """The case, its weights moved away from the start, on the device of the run."""
    case = build()
    for field in ("module", "bijector"):
        if hasattr(case, field):
            randomize(getattr(case, field)).to(device)
    return case


def on(device, tensors):
    return tuple(t.to(device) for t in tensors)


# Conditionals --------------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("batch", [(), (4,), (3, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize(**over(CONDITIONALS))
def test_batch_shape_is_that_of_the_context(made, batch, device, dtype):
    law = made.module(*on(device, made.contexts(*batch)))
    expected = batch if made.context else ()
    assert (law.batch_shape, law.event_shape) == (expected, made.event)
    value = law.sample((5,))
    assert value.shape == (5, *expected, *made.event)
    assert value.dtype == dtype or not value.is_floating_point()
    assert bool(law.support.check(value).all())
    log_p = law.log_prob(value)
    assert log_p.shape == (5, *expected)
    assert log_p.dtype == dtype


@both_dtypes
@pytest.mark.parametrize(**over({n: b for n, b in CONDITIONALS.items() if b().context}))
def test_every_particle_and_datum_is_computed_by_itself(made, device, dtype):
    """The law at contexts (K, B, …) holds the K · B laws at the single contexts."""
    contexts = on(device, made.contexts(2, 3))
    value = made.module(*contexts).sample()
    whole = made.module(*contexts).log_prob(value)
    for k, b in product(range(2), range(3)):
        alone = made.module(*(c[k, b] for c in contexts)).log_prob(value[k, b])
        torch.testing.assert_close(alone, whole[k, b], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(**over({n: b for n, b in CONDITIONALS.items() if len(b().context) > 1}))
def test_contexts_without_a_particle_dim_broadcast_against_those_with_one(made, device):
    first, second = on(device, made.contexts(3))
    law = made.module(first.expand(2, 3, -1), second)
    assert law.batch_shape == (2, 3)
    value = law.sample()
    expected = made.module(first.expand(2, 3, -1), second.expand(2, 3, -1)).log_prob(value)
    torch.testing.assert_close(law.log_prob(value), expected)


@both_dtypes
@pytest.mark.parametrize(
    **over({n: b for n, b in CONDITIONALS.items() if list(b().module.parameters())})
)
def test_every_parameter_of_a_conditional_gets_a_finite_gradient_that_is_not_zero(made, device):
    law = made.module(*on(device, made.contexts(16)))
    value = law.sample(() if made.context else (16,))
    law.log_prob(value).mean().backward()
    for name, parameter in made.module.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert bool(parameter.grad.isfinite().all()), f"{name} gets a gradient that is not finite"
        assert bool(parameter.grad.abs().max() > 0), f"{name} gets a zero gradient"


def enumerated(case) -> Tensor:
    """Every value of a discrete event, `(number, *event)`."""
    axes = [torch.arange(case.levels)] * prod(case.event)
    return torch.cartesian_prod(*axes).reshape(-1, *case.event).to(torch.get_default_dtype())


@pytest.mark.parametrize(**over({n: b for n, b in CONDITIONALS.items() if b().levels}))
def test_masses_sum_to_one_and_are_the_frequencies_of_the_sampler(made, device):
    """Frequencies of 20,000 draws, standard error sqrt(p (1 - p) / n) each, 5 allowed."""
    law, num = made.module(*on(device, made.contexts())), 20_000
    values = enumerated(made).to(device)
    mass = law.log_prob(values).exp()
    torch.testing.assert_close(mass.sum(), torch.ones_like(mass.sum()), rtol=1e-9, atol=1e-9)
    place = made.levels ** torch.arange(prod(made.event) - 1, -1, -1, device=device)
    index = (law.sample((num,)).reshape(num, -1).long() * place).sum(-1)
    frequency = index.bincount(minlength=len(values)) / num
    standard_error = (mass * (1 - mass) / num).sqrt()
    assert bool(((frequency - mass).abs() <= 5 * standard_error + 1 / num).all())


@pytest.mark.parametrize(**over({n: b for n, b in CONDITIONALS.items() if not b().levels}))
def test_densities_integrate_to_one_and_are_those_of_the_sampler(made, device):
    """Moments of 20,000 draws against quadrature, standard error s / sqrt(n) each, 5 allowed."""
    law, num = made.module(*on(device, made.contexts())), 20_000
    grid, weights = plane(law)
    mass = law.log_prob(grid).exp() * weights
    torch.testing.assert_close(mass.sum(), torch.ones_like(mass.sum()), rtol=1e-3, atol=0)

    def moments(value: Tensor) -> Tensor:
        a, b = value.reshape(-1, 2).unbind(-1)
        return torch.stack(
            [a, b, a * b, a.square(), b.square(), a.sin(), (2 * b).cos(), (a + b > 0.3).to(a)],
            dim=-1,
        )

    drawn = moments(law.sample((num,)))
    exact = (moments(grid) * mass[:, None]).sum(0)
    standard_error = drawn.std(0) / num**0.5
    assert bool(((drawn.mean(0) - exact).abs() <= 5 * standard_error + 2e-3 * exact.abs()).all())


@pytest.mark.parametrize(**over(CONDITIONALS))
def test_a_conditional_names_no_site_and_draws_nothing(made, device):
    contexts, state = on(device, made.contexts(3)), torch.get_rng_state()
    trace = poutine.trace(made.module).get_trace(*contexts)
    assert set(trace.nodes) == {"_INPUT", "_RETURN"}
    assert torch.equal(torch.get_rng_state(), state)


# Bijectors -----------------------------------------------------------------------------------------------------------


def both_directions(bijector):
    return {"forward": bijector.forward, "inverse": bijector.inverse}


def opposite(direction):
    return "inverse" if direction == "forward" else "forward"


def each_way(registry):
    """Arguments of `parametrize` that run a test over a registry in every direction that a bijector has."""
    ways = {
        f"{name}-{direction}": (build, direction)
        for name, build in registry.items()
        for direction in (("forward",) if name in ONE_WAY else ("forward", "inverse"))
    }
    return {"argnames": ("build", "direction"), "argvalues": list(ways.values()), "ids": list(ways)}


@both_dtypes
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize(**over(BIJECTORS))
def test_the_inverse_undoes_the_bijector_and_its_log_det(made, direction, device, dtype):
    first = both_directions(made.bijector)[direction]
    second = both_directions(made.bijector)[opposite(direction)]
    x, (context,) = made.value(7, direction=direction).to(device), at(made, device, 7)
    y, log_det = first(x, context)
    back, back_log_det = second(y, context)
    tolerance = 100 * TOLERANCE[dtype] if dtype == torch.float32 else TOLERANCE[dtype]
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(back_log_det, -log_det, rtol=tolerance, atol=tolerance)


def at(case, device, *batch: int) -> tuple[Tensor | None]:
    context = case.at(*batch)
    return (None if context is None else context.to(device),)


@in_float64
@pytest.mark.parametrize(**each_way(ALL))
def test_log_det_is_that_of_the_autograd_jacobian(made, direction, device):
    f = both_directions(made.bijector)[direction]
    for _ in range(3):
        x, (context,) = made.value(direction=direction).to(device), at(made, device)
        jacobian = torch.autograd.functional.jacobian(lambda x, c=context: f(x, c)[0], x)
        matrix = jacobian.reshape(prod(made.event(opposite(direction))), x.numel())
        torch.testing.assert_close(
            f(x, context)[1], matrix.slogdet().logabsdet, rtol=1e-10, atol=1e-10
        )


@both_dtypes
@pytest.mark.parametrize("batch", [(), (4,), (3, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize(**each_way(ALL))
def test_value_and_log_det_have_the_batch_shape_and_the_dtype_of_the_value(
    made, batch, direction, device, dtype
):
    y, log_det = both_directions(made.bijector)[direction](
        made.value(*batch, direction=direction).to(device), *at(made, device, *batch)
    )
    assert (y.shape, log_det.shape) == ((*batch, *made.event(opposite(direction))), batch)
    assert (y.dtype, log_det.dtype) == (dtype, dtype)


@pytest.mark.parametrize(
    ("of_value", "of_context"), [((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (3,)), ((), (3,))]
)
@pytest.mark.parametrize(**each_way(CONTEXTUAL))
def test_leading_dims_of_value_and_context_broadcast(made, of_value, of_context, direction, device):
    f = both_directions(made.bijector)[direction]
    x, (context,) = (
        made.value(*of_value, direction=direction).to(device),
        at(made, device, *of_context),
    )
    batch = torch.broadcast_shapes(of_value, of_context)
    y, log_det = f(x, context)
    expected = f(x.expand(*batch, *made.event(direction)), context.expand(*batch, *made.at().shape))
    assert (y.shape, log_det.shape) == ((*batch, *made.event(opposite(direction))), batch)
    torch.testing.assert_close((y, log_det), expected)


def counted(bijector: nn.Module) -> list[str]:
    """A list that grows by one entry with every call of a network of the bijector."""
    calls: list[str] = []
    for name, module in bijector.named_modules():
        if isinstance(
            module, dgm.flows.MADE | dgm.nn.MLP | dgm.nn.GatedConvNet | ConditionalDenseNN
        ):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    return calls


@pytest.mark.parametrize(**over(ALL))
def test_each_direction_costs_the_network_calls_that_its_name_promises(made, device):
    """One call a layer in the fast direction, one call per coordinate and layer in the slow one."""
    calls, (context,) = counted(made.bijector), at(made, device, 3)
    assert (made.bijector.num_forward, made.bijector.num_inverse) == (
        made.forward_calls,
        made.inverse_calls,
    )
    for direction, expected in (("forward", made.forward_calls), ("inverse", made.inverse_calls)):
        if expected is None:
            continue
        calls.clear()
        both_directions(made.bijector)[direction](
            made.value(3, direction=direction).to(device), context
        )
        assert len(calls) == expected, direction


@in_float64
@pytest.mark.parametrize(**over(ALL))
def test_own_draws_are_scored_without_a_second_call(made, device):
    (context,) = at(made, device, 3)
    transform = made.bijector.transform(context)
    law = dist.TransformedDistribution(made.base(3, device=device), transform)
    calls = counted(made.bijector)
    value = law.rsample()
    own = law.log_prob(value)
    assert len(calls) == made.forward_calls, "scoring an own draw called the networks again"
    if made.inverse_calls is None:
        x, (_, log_det) = transform.inv(value), made.bijector(transform.inv(value), context)
        torch.testing.assert_close(own, law.base_dist.log_prob(x) - log_det, rtol=1e-9, atol=1e-9)
        return
    fresh = dist.TransformedDistribution(law.base_dist, made.bijector.transform(context)).log_prob(
        value
    )
    assert len(calls) == made.forward_calls + made.inverse_calls
    torch.testing.assert_close(own, fresh, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(**over(LEARNED))
def test_a_draw_without_gradients_keeps_its_gradient_when_it_is_scored(made, device):
    base = made.base(3, device=device)
    (context,), parameters = at(made, device, 3), list(made.bijector.parameters())
    law = dist.TransformedDistribution(base, made.bijector.transform(context))
    value = law.sample()
    kept = torch.autograd.grad(law.log_prob(value).sum(), parameters)
    fresh = dist.TransformedDistribution(base, made.bijector.transform(context))
    expected = torch.autograd.grad(fresh.log_prob(value.clone()).sum(), parameters)
    torch.testing.assert_close(kept, expected)


@pytest.mark.parametrize(**over(LEARNED))
def test_an_update_of_the_weights_leaves_no_stale_density_and_no_freed_graph(made, device):
    """The same tensor is scored in every step of a full-batch fit; an untouched copy of the weights is the witness."""
    base = made.base(device=device)
    y, (context,) = made.value(6, direction="inverse").to(device), at(made, device, 6)
    optimizer = torch.optim.SGD(
        made.bijector.parameters(), lr=1e-5
    )  # so small that the gradient alone decides
    densities = []
    for _ in range(3):
        log_p = (
            dist.TransformedDistribution(base, made.bijector.transform(context)).log_prob(y).mean()
        )
        optimizer.zero_grad()
        (-log_p).backward()
        optimizer.step()
        witness = copy.deepcopy(made.bijector)
        densities.append(
            dist.TransformedDistribution(base, witness.transform(context))
            .log_prob(y.clone())
            .mean()
        )
        now = (
            dist.TransformedDistribution(base, made.bijector.transform(context)).log_prob(y).mean()
        )
        torch.testing.assert_close(now, densities[-1])
        assert not torch.equal(now, log_p)
    assert densities[0] < densities[-1]


@both_dtypes
@pytest.mark.parametrize(**over(WIDE))
def test_every_parameter_of_a_bijector_gets_a_finite_gradient_that_is_not_zero(made, device):
    y, log_det = made.bijector(made.value(32).to(device), *at(made, device, 32))
    (y.pow(3).flatten(1).sum(-1) + log_det).mean().backward()
    for name, parameter in made.bijector.named_parameters():
        assert bool(parameter.grad.isfinite().all()), f"{name} gets a gradient that is not finite"
        assert bool(parameter.grad.abs().max() > 0), f"{name} gets a zero gradient"


@pytest.mark.parametrize(**each_way(ALL))
def test_vmap_over_a_bijector_equals_its_own_batch(made, direction, device):
    f = both_directions(made.bijector)[direction]
    x, (context,) = made.value(5, direction=direction).to(device), at(made, device, 5)
    y, log_det = vmap(f, in_dims=(0, None if context is None else 0))(x, context)
    torch.testing.assert_close(
        (y, log_det),
        tuple(t.expand_as(o) for t, o in zip(f(x, context), (y, log_det), strict=True)),
    )


@pytest.mark.parametrize(**over(ALL))
def test_a_law_on_a_bijector_traces_into_one_graph(made, device):
    """Draw and score through `make_fx`; the graph is then run on other weights, another context and another seed."""

    def draw_and_score(parameters: dict, context: Tensor | None) -> Tensor:
        law = dist.TransformedDistribution(
            made.base(5, device=device),
            functional_transform(made.bijector, parameters, context),
        )
        return law.log_prob(law.rsample())

    def weights() -> dict:
        return {n: torch.randn_like(p) for n, p in made.bijector.named_parameters()}

    with pyro.validation_enabled(False):
        (context,) = at(made, device, 5)
        graph = make_fx(draw_and_score)(weights(), context)
        (context,), parameters = at(made, device, 5), weights()
        pyro.set_rng_seed(7)
        expected = draw_and_score(parameters, context)
        pyro.set_rng_seed(7)
        torch.testing.assert_close(graph(parameters, context), expected)


class _WithWeights(dgm.flows.Bijector):
    """The bijector at other weights."""

    def __init__(self, bijector, parameters):
        super().__init__()
        self.call = lambda method, *a: functional_call(
            _Method(bijector, method), _prefixed(parameters), a
        )

    def forward(self, x, context=None):
        return self.call("forward", x, context)

    def inverse(self, y, context=None):
        return self.call("inverse", y, context)


class _Method(nn.Module):
    def __init__(self, bijector, method):
        super().__init__()
        self.bijector, self.method = bijector, method

    def forward(self, *args):
        return getattr(self.bijector, self.method)(*args)


def _prefixed(parameters):
    return {f"bijector.{n}": p for n, p in parameters.items()}


def functional_transform(bijector, parameters, context):
    return dgm.flows.FlowTransform(_WithWeights(bijector, parameters), context)


# All modules ---------------------------------------------------------------------------------------------------------


def conditional_scored(build):
    """A conditional and a function that scores fixed values with any module of its kind."""
    case = build()
    randomize(case.module)
    contexts = case.contexts(4)
    value = case.module(*contexts).sample(() if case.context else (4,))

    def score(module):
        dtype = dtype_of(module)
        return module(*floats(contexts, dtype)).log_prob(*floats((value,), dtype))

    return case.module, score, lambda: randomize(build().module)


def bijector_scored(build):
    case = build()
    x, context = case.value(4), case.at(4)

    def score(module):
        (x_, context_) = (
            None if t is None else t.to(dtype_of(module, x.dtype)) for t in (x, context)
        )
        y, log_det = module(x_, context_)
        return torch.cat([y.flatten(1), log_det.expand(4)[:, None]], dim=-1)

    return case.bijector, score, lambda: build().bijector


def pair_scored(build):
    """Model and guide as one module; the score is the log weight at draws that are fixed."""
    case = build()
    pair = randomize(nn.ModuleList([case.model, case.guide]), scale=0.1)
    batch = case.batch(4)
    drawn = {n: s["value"].detach() for n, s in sites(case.guide, batch).items()}

    def score(module):
        dtype = dtype_of(module)
        fixed = {n: v.to(dtype) for n, v in drawn.items()}
        log_p, log_q = (
            sum(
                s["log_prob"]
                for s in sites(poutine.condition(p, data=fixed), floats(batch, dtype)).values()
            )
            for p in module
        )
        return log_p - log_q

    return pair, score, lambda: nn.ModuleList([(again := build()).model, again.guide])


def sites(program, batch):
    trace = poutine.trace(program).get_trace(*batch)
    trace.compute_log_prob()
    return {
        n: s
        for n, s in trace.nodes.items()
        if s["type"] == "sample" and "cond_indep_stack" in s and n != "data"
    }


def dtype_of(module, default=None):
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    return tensors[0].dtype if tensors else default


def floats(tensors, dtype):
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in tensors)


MODULES = {
    **{f"conditional-{n}": lambda b=b: conditional_scored(b) for n, b in CONDITIONALS.items()},
    **{f"bijector-{n}": lambda b=b: bijector_scored(b) for n, b in ALL.items()},
    **{
        f"pair-{n}": lambda b=b: pair_scored(b) for n, b in PAIRS.items() if n != "vae_one_way"
    },  # can't score points
}


@pytest.mark.parametrize(**over(MODULES))
def test_a_deep_copy_after_use_scores_alike_and_shares_nothing(build):
    module, score, _ = build()
    before = score(module)
    if before.requires_grad:
        before.sum().backward()
    twin = copy.deepcopy(module)
    torch.testing.assert_close(score(twin), before)
    for parameter in twin.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(score(module), before)


@pytest.mark.parametrize(**over(MODULES))
def test_a_state_dict_carries_everything_that_a_fresh_module_needs(build):
    module, score, fresh = build()
    before, other = score(module), fresh()
    assert not list(module.parameters()) or not torch.equal(score(other), before)
    other.load_state_dict(module.state_dict(), strict=True)
    torch.testing.assert_close(score(other), before, rtol=0, atol=0)


@pytest.mark.parametrize(**over(MODULES))
def test_a_pickle_after_use_scores_alike(build):
    module, score, _ = build()
    before = score(module)
    torch.testing.assert_close(score(pickle.loads(pickle.dumps(module))), before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@pytest.mark.parametrize(**over(MODULES))
def test_a_module_can_change_its_dtype_after_use(build):
    module, score, _ = build()
    before = score(module)
    after = score(module.double())
    assert after.dtype == (torch.float64 if dtype_of(module) else before.dtype)
    torch.testing.assert_close(after.float(), before, rtol=2e-3, atol=2e-3)
    again = score(module.float())
    torch.testing.assert_close(again, before, rtol=0, atol=0)
