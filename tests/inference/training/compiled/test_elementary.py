import pyro.distributions as dist
import pytest
import torch
import torch._inductor.config as inductor_config
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.training.compiled.compilation import Compiled, Eager
from pyro_dgm.inference.training.compiled.elementary import log1p_of_fraction, share_exponentials
from pyro_dgm.inference.training.compiled.kernels import kernels_of

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)

aten = torch.ops.aten
EPS = torch.finfo(torch.float32).eps
SPECIAL = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 1e-40, -1e-40]


def graph_of(function, *inputs):
    """A function of tensors as it is captured."""
    return make_fx(lambda *x: [*function(*x)])(*inputs)


def targets(graph):
    return [node.target for node in graph.graph.nodes]


def by_kernels(function, *inputs):
    return kernels_of(graph_of(function, *inputs), inputs, None)(*inputs)


def cross_entropy(x, y):
    """With its gradient at x."""
    values = aten.binary_cross_entropy_with_logits(x, y, None, None, 0)
    return values, torch.sigmoid(x) - y


def softplus(x, gradient):
    return F.softplus(x), aten.softplus_backward(gradient, x, 1, 20)


def with_sigmoid(x, _):
    return F.softplus(x), torch.sigmoid(x)


def grid():
    x = torch.linspace(-95, 95, 400_003)
    return x, (torch.arange(len(x)) % 2).float()


# Accuracy ------------------------------------------------------------------------------------------------------------


def test_the_logarithm_of_one_and_a_fraction_is_right_to_three_units_in_the_last_place():
    t = torch.cat([torch.linspace(0, 1, 500_003), torch.linspace(0, 87, 300_003).neg().exp()])
    (found,) = by_kernels(lambda t: [log1p_of_fraction(t)], t)
    exact = t.double().log1p()
    unit = torch.nextafter(exact.float(), torch.tensor(2.0)).double() - exact.float().double()
    assert float(((found.double() - exact).abs() / unit).max()) <= 3


@pytest.mark.parametrize("function", [softplus, with_sigmoid])
def test_kernels_of_softplus_and_sigmoid_are_right_to_rounding(function):
    x, _ = grid()
    x = x[x > -87]  # below, results of torch's own kernels are not normal numbers
    one = torch.ones_like(x)
    for found, exact in zip(by_kernels(function, x, one), function(x.double(), one), strict=True):
        assert float((found / exact - 1).abs().max()) <= 4 * EPS


def test_kernels_of_a_cross_entropy_and_its_gradient_are_right_to_rounding():
    x, y = grid()
    value, gradient = by_kernels(cross_entropy, x, y)
    exact_value, exact_gradient = cross_entropy(x.double(), y.double())
    # As in torch's own kernel, x − (x − log(1 + t)) is rounded at the size of x
    assert float(((value - exact_value).abs() / (1 + x.abs())).max()) <= EPS
    assert float((gradient - exact_gradient).abs().max()) <= 2 * EPS


@pytest.mark.parametrize("function", [cross_entropy, softplus, with_sigmoid])
@pytest.mark.parametrize("other", [0.0, 1.0])
def test_kernels_agree_with_torch_at_zeros_infinities_nan_and_extreme_numbers(function, other):
    x = torch.tensor(SPECIAL * 4)  # vectors, and a rest
    y = torch.full_like(x, other)
    torch.testing.assert_close(
        by_kernels(function, x, y), [*function(x, y)], rtol=4 * EPS, atol=1e-37, equal_nan=True
    )


def test_a_compiled_vae_on_bits_has_the_loss_and_gradients_of_the_eager_one():
    torch.manual_seed(0)
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(20, 16, 8))
    likelihood = dgm.Bernoulli(dgm.mlp(4, 16, 20))
    vae = dgm.VAE(dgm.StandardNormal(4), likelihood, encoder)
    objective = dgm.ELBO(vae.model, vae.guide)
    x = torch.rand(32, 20).bernoulli()
    found = []
    with inductor_config.patch(fallback_random=True):
        for way in (Eager(objective), Compiled(objective)):
            with fork_rng(seed=1):
                terms = way.backward(x)
            found.append([terms["loss"], *[p.grad.clone() for p in objective.parameters()]])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


# What is rewritten ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [cross_entropy, softplus, with_sigmoid])
def test_log_sigmoids_and_the_sigmoids_beside_them_are_rewritten(function):
    x = torch.randn(5)
    graph = graph_of(function, x, x)
    share_exponentials(graph)
    rewritten = {
        aten.binary_cross_entropy_with_logits.default,
        aten.sigmoid.default,
        aten.softplus.default,
        aten.softplus_backward.default,
    }
    assert not rewritten & {*targets(graph)}


@pytest.mark.parametrize("function", [cross_entropy, softplus, with_sigmoid])
def test_graphs_of_float64_stay_as_they_are(function):
    x = torch.randn(5, dtype=torch.float64)
    graph = graph_of(function, x, x)
    before = targets(graph)
    share_exponentials(graph)
    assert targets(graph) == before


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: [x.sigmoid()],
        lambda x, y: [F.softplus(x), y.sigmoid()],
        lambda x, y: [F.softplus(x, beta=2)],
        lambda x, y: [F.softplus(x, threshold=5)],
        lambda x, y: [F.binary_cross_entropy_with_logits(x, y)],
        lambda x, y: [F.binary_cross_entropy_with_logits(x, y, weight=y, reduction="none")],
        lambda x, y: [F.binary_cross_entropy_with_logits(x, y, pos_weight=y, reduction="none")],
    ],
    ids=["alone", "of another", "beta", "threshold", "mean", "weights", "weights of ones"],
)
def test_lone_sigmoids_weights_reductions_and_other_slopes_stay_as_they_are(function):
    x, y = torch.randn(2, 5)
    graph = graph_of(function, x, y)
    before = targets(graph)[-2]
    share_exponentials(graph)
    assert targets(graph)[-2] == before
