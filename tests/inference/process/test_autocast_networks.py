"""Matrix products of layers in bfloat16: which ones, and that nothing else is."""

from __future__ import annotations

import pytest
import torch
from half import HalfProducts
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import pyro_dgm as dgm
from pyro_dgm.inference.process.autocast import (
    autocast_networks,
    check_autocast,
    refuse_nothing_to_autocast,
)

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True, ids=["float32"])
BF16 = torch.bfloat16


def made():
    net = dgm.flows.MADE(8)
    nn.init.normal_(net.last.weight)  # it begins with zeros
    return net


LAYERS = {
    "linear": (lambda: nn.Linear(8, 6), (5, 8)),
    "no bias": (lambda: nn.Linear(8, 6, bias=False), (5, 8)),
    "conv1d": (lambda: nn.Conv1d(8, 6, 3), (5, 8, 9)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), (5, 2, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3), (5, 2, 6, 6)),
    "gru cell": (lambda: nn.GRUCell(8, 6), (5, 8)),
    "rnn cell": (lambda: nn.RNNCell(8, 6), (5, 8)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), (5, 3, 8)),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(8, 6)), (5, 8)),
    "masked": (made, (5, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_products_run_in_bfloat16_forward_and_back_and_all_that_leaves_is_float32(name):
    build, shape = LAYERS[name]
    layer, x = build(), torch.randn(shape, requires_grad=True)
    exact = layer(x)
    with autocast_networks(layer, BF16), HalfProducts() as forward:
        y = layer(x)
    with HalfProducts() as back:
        y.square().sum().backward()
    assert y.dtype == torch.float32
    assert forward.dtypes == {BF16}
    assert back.dtypes == {BF16}
    assert {p.grad.dtype for p in layer.parameters()} == {torch.float32} == {x.grad.dtype}
    assert 0 < (y - exact).norm() < 0.05 * exact.norm()


def test_a_product_is_that_of_rounded_factors_rounded_once():
    """|y - W x - b| <= 3.1 u (|W| |x| + |b|) with the unit roundoff u = 2^-8 of bfloat16: two factors and the sum."""
    layer, x = nn.Linear(300, 40), torch.randn(50, 300)
    with torch.no_grad(), autocast_networks(layer, BF16):
        y = layer(x)
    bound = 3.1 * 2**-8 * (x.abs() @ layer.weight.abs().T + layer.bias.abs())
    error = (y - layer(x)).abs()
    assert bool((error <= bound).all())
    assert bool((error > 0.01 * bound).any())


def test_an_lstm_and_a_gru_keep_their_state_in_float32():
    """A state is a sum over time: in half precision an increment below 1/256 of it is lost."""
    x = torch.randn(4, 3, 8)
    for layer in (nn.LSTM(8, 6), nn.GRU(8, 6)):
        expected = layer(x)[0]
        with autocast_networks(layer, BF16):
            assert torch.equal(layer(x)[0], expected)


class Encoder(nn.Module):
    """Pyro's own idiom: the scale is an exponential inside of the network."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Linear(4, 3)

    def forward(self, x):
        self.raw = self.log_scale(x)
        return self.raw.exp()


def test_functions_between_the_layers_are_computed_in_float32():
    encoder, x = Encoder(), torch.randn(5, 4)
    with torch.no_grad(), autocast_networks(encoder, BF16):
        scale = encoder(x)
    assert torch.equal(scale, encoder.raw.exp())
    assert torch.equal(encoder.raw, encoder.raw.bfloat16().float())
    assert not torch.equal(scale, scale.bfloat16().float())


def test_a_last_sigmoid_is_not_rounded_to_one():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Sigmoid())
    nn.init.ones_(net[0].weight)
    x = torch.full((1, 1), 8.0)  # 1 - 3e-4, which bfloat16 has no number for
    with torch.no_grad(), autocast_networks(net, BF16):
        assert torch.equal(net(x), x.sigmoid())
    assert x.sigmoid().bfloat16() == 1


def test_weights_of_a_parametrization_are_computed_in_float32():
    layer = parametrizations.spectral_norm(nn.Linear(40, 30)).eval()
    seen = []

    def see(module, inputs, output):
        seen.append(output)

    layer.parametrizations.weight.register_forward_hook(see)
    expected = layer.weight.clone()
    with torch.no_grad(), autocast_networks(layer, BF16):
        layer(torch.randn(2, 40))
    assert torch.equal(seen[-1], expected)


def test_layers_that_a_checkpoint_runs_again_run_as_they_did():
    net, x = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1)), torch.randn(5, 4)
    gradients = []
    for run in (net, lambda x: checkpoint(net, x, use_reentrant=False)):
        net.zero_grad()
        with autocast_networks(net, BF16):
            run(x).sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_nothing_stays_behind_whatever_is_raised_inside():
    class Failing(nn.Linear):
        def forward(self, x):
            raise RuntimeError("no")

    net = nn.Sequential(nn.Linear(2, 2), Failing(2, 2))
    with pytest.raises(RuntimeError, match="no"), autocast_networks(net, BF16):
        net(torch.zeros(1, 2))
    assert not torch.is_autocast_enabled("cpu")
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert net[0](torch.randn(3, 2)).dtype == torch.float32


def test_a_region_of_full_precision_takes_networks_out():
    net, x = nn.Linear(7, 3), torch.randn(5, 7)
    with autocast_networks(net, BF16), dgm.training.full_precision_networks():
        inside = net(x)
    assert torch.equal(inside, net(x))


def test_a_layer_that_calls_another_one_of_its_kind_is_left_in_order():
    class Outer(nn.Linear):
        def __init__(self):
            super().__init__(3, 3)
            self.inner = nn.Linear(3, 3)

        def forward(self, x):
            return super().forward(self.inner(self.inner(x)))

    net, x = Outer(), torch.randn(4, 3)
    with autocast_networks(net, BF16):
        y = net(x)
        assert not torch.is_autocast_enabled("cpu")
    assert y.dtype == torch.float32


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (
            "bfloat16",
            TypeError,
            r"expected autocast as a torch dtype.*Fix: autocast=torch.bfloat16",
        ),
        (True, TypeError, r"expected autocast as a torch dtype"),
        (torch.float16, ValueError, r"got torch.float16, whose gradients vanish.*Fix"),
        (torch.float32, ValueError, r"expected autocast=torch.bfloat16 or None, got torch.float32"),
    ],
)
def test_another_dtype_is_refused(given, error, match):
    with pytest.raises(error, match=match):
        check_autocast("SVITrainer", given, nn.Linear(1, 1))


def test_networks_in_float64_are_refused_by_name():
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double())
    with pytest.raises(ValueError, match=r"got torch.float64 of '1.weight'. Fix: model.float()"):
        check_autocast("SVITrainer", BF16, net)
    check_autocast("SVITrainer", None, net)


def test_programs_that_it_would_not_reach_are_refused():
    with pytest.raises(ValueError, match=r"expected networks of nn.Linear.*got none.*Fix: "):
        refuse_nothing_to_autocast("SVITrainer", BF16, nn.PReLU())
    refuse_nothing_to_autocast("SVITrainer", None, nn.PReLU())
    refuse_nothing_to_autocast("SVITrainer", BF16, nn.Sequential(nn.Conv1d(1, 1, 1)))
