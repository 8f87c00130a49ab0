"""Networks act on the rightmost event dims and broadcast over all others."""

from __future__ import annotations

import pytest
import torch
from conftest import both_dtypes
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.programs.networks.causal import CausalConv, HorizontalBlock, VerticalBlock
from pyro_dgm.programs.networks.convolutions import GatedBlock
from pyro_dgm.programs.networks.dense import GatedLinear, cast, concat_inputs

NETWORKS = {
    "mlp": (lambda: dgm.mlp(4, 8, 3), (4,), (3,)),
    "mlp_without_hidden_layer": (lambda: dgm.mlp(4, 3, activation=nn.ReLU), (4,), (3,)),
    "gated_mlp": (lambda: dgm.gated_mlp(4, 8, 6, 3), (4,), (3,)),
    "conv_encoder": (lambda: dgm.ConvEncoder((2, 7, 6), 3, (3, 4, 5)), (2, 7, 6), (3,)),
    "conv_decoder": (lambda: dgm.ConvDecoder(4, (2, 7, 6), (3, 4, 5)), (4,), (2, 7, 6)),
}
networks = pytest.mark.parametrize(
    ("build", "into", "out"), list(NETWORKS.values()), ids=list(NETWORKS)
)


@both_dtypes
@networks
@pytest.mark.parametrize("batch", [(), (5,), (2, 5)], ids=str)
def test_leading_dims_pass_through_and_every_datum_is_computed_by_itself(
    build, into, out, batch, dtype
):
    net, x = build(), torch.randn(*batch, *into)
    y = net(x)
    assert y.shape == (*batch, *out)
    assert y.dtype == dtype
    for index in torch.cartesian_prod(*[torch.arange(n) for n in (*batch, 1)]).reshape(
        -1, len(batch) + 1
    )[:, :-1]:
        place = tuple(index.tolist())
        torch.testing.assert_close(net(x[place]), y[place], rtol=1e-5, atol=1e-5)


@networks
def test_integer_levels_are_cast_to_the_dtype_of_the_weights(build, into, out):
    levels = torch.randint(9, (3, *into), dtype=torch.uint8)
    for net in (build(), build().float()):
        weights = next(net.parameters()).dtype
        y = net(levels)
        assert y.dtype == weights
        torch.testing.assert_close(y, net(levels.to(weights)), rtol=0, atol=0)


@networks
def test_every_parameter_of_a_network_gets_a_gradient(build, into, out):
    net = build()
    net(torch.randn(6, *into)).square().sum().backward()
    assert all(bool(p.grad.abs().max() > 0) for p in net.parameters())


@pytest.mark.parametrize(
    "make", [dgm.mlp, dgm.gated_mlp, lambda *s: dgm.nn.MLP(s), lambda *s: dgm.nn.GatedMLP(s)]
)
@pytest.mark.parametrize("sizes", [(), (3,)])
def test_a_network_of_one_size_is_refused(make, sizes):
    with pytest.raises(
        ValueError, match=r"MLP: expected sizes \(in, \*hidden, out\), got .*Fix: sizes=\[in, out\]"
    ):
        make(*sizes)


def test_an_mlp_ends_in_a_linear_layer_and_has_one_activation_between_two_layers():
    assert [type(m) for m in dgm.mlp(2, 3, 4, 5, activation=nn.Tanh)] == [
        nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear,
    ]  # fmt: skip


def test_a_gated_layer_is_its_value_times_the_sigmoid_of_its_gate():
    layer, x = GatedLinear(3, 2), torch.randn(5, 3)
    (w, v), (b, c) = layer.both.weight.chunk(2), layer.both.bias.chunk(2)
    torch.testing.assert_close(layer(x), (x @ w.T + b) * torch.sigmoid(x @ v.T + c))


def test_joined_contexts_broadcast_and_keep_their_order():
    first, second = torch.randn(4, 5, 2), torch.randn(5, 3)
    joined = dgm.Concat(nn.Identity())(first, second)
    assert joined.shape == (4, 5, 5)
    assert torch.equal(joined[..., :2], first)
    assert torch.equal(joined[2, :, 2:], second)


def test_images_are_joined_along_their_channels():
    first, second = torch.randn(4, 1, 2, 3, 5), torch.randn(6, 1, 3, 5)
    joined = concat_inputs(first, second, event_dim=3)
    assert joined.shape == (4, 6, 3, 3, 5)
    assert torch.equal(joined[:, :, :2], first.expand(4, 6, 2, 3, 5))
    assert torch.equal(joined[1, :, 2:], second)


def test_join_takes_the_widest_dtype():
    labels, half, single = (
        torch.ones(3, 2, dtype=torch.long),
        torch.ones(3, 1).half(),
        torch.ones(3, 1).float(),
    )
    assert concat_inputs(labels, half, single).dtype == torch.float32
    assert concat_inputs(labels, labels).dtype == torch.long
    assert dgm.Concat(dgm.mlp(4, 2))(labels, labels).dtype == torch.get_default_dtype()


def test_join_refuses_batches_that_do_not_broadcast():
    with pytest.raises(RuntimeError, match="broadcast|match"):
        concat_inputs(torch.ones(3, 2), torch.ones(4, 2))


def test_cast_keeps_a_tensor_that_has_the_dtype_already():
    x = torch.randn(3)
    assert cast(x, nn.Linear(1, 1)) is x


def test_rescale_maps_levels_onto_minus_one_to_one():
    assert dgm.nn.Rescale(0, 255)(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
    assert dgm.nn.Rescale(-3, 1)(torch.tensor([-3.0, -1.0, 1.0])).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1)])
def test_rescale_refuses_an_empty_range(low, high):
    with pytest.raises(
        ValueError, match=rf"Rescale: expected low < high, got low={low}, high={high}"
    ):
        dgm.nn.Rescale(low, high)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 8), (7, 7), (28, 28), (9, 16)], ids=str)
@pytest.mark.parametrize("channels", [(2,), (2, 3), (2, 3, 4)], ids=str)
def test_the_decoder_mirrors_the_encoder_at_every_image_size(size, channels):
    shape = (2, *size)
    code = dgm.ConvEncoder(shape, 5, channels)(torch.randn(3, *shape))
    assert code.shape == (3, 5)
    assert dgm.ConvDecoder(5, shape, channels)(code).shape == (3, *shape)


@pytest.mark.parametrize("wrong", [(3, 28, 27), (3, 784), (28, 28)], ids=str)
def test_an_image_of_another_shape_is_refused_with_the_fix(wrong):
    with pytest.raises(
        ValueError, match=r"ConvEncoder: expected images \(\*batch, 1, 28, 28\), got .*Fix: reshape"
    ):
        dgm.ConvEncoder((1, 28, 28), 4)(torch.zeros(wrong))


def test_level_units_are_locations_within_the_levels_and_log_scales_in_levels():
    raw = torch.randn(5, 6)
    loc, log_scale = dgm.nn.LevelUnits(17)(raw).chunk(2, -1)
    torch.testing.assert_close(loc, 16 * torch.sigmoid(raw[:, :3]))
    torch.testing.assert_close(log_scale.exp(), 17 * (raw[:, 3:] - 2).exp())


def test_level_units_of_an_image_are_those_of_its_channels():
    raw = torch.randn(5, 2 * 3, 4, 2)
    image = dgm.nn.LevelUnits(17, dim=-3)(raw)
    vector = dgm.nn.LevelUnits(17)(raw.movedim(-3, -1))
    torch.testing.assert_close(image, vector.movedim(-1, -3), rtol=0, atol=0)
    likelihood = dgm.DiscretizedLogistic(dgm.nn.LevelUnits(17, dim=-3), levels=17, event_dim=3)
    assert likelihood(raw).event_shape == (3, 4, 2)


def test_level_units_refuse_one_level_and_an_odd_number_of_outputs():
    with pytest.raises(ValueError, match=r"LevelUnits: expected at least 2 levels, got 1"):
        dgm.nn.LevelUnits(1)
    with pytest.raises(
        ValueError,
        match=r"halves of dim -1; got \(2, 6, 4, 3\)\. Fix: LevelUnits\(levels, dim=-3\)",
    ):
        dgm.nn.LevelUnits(17)(torch.zeros(2, 6, 4, 3))


# Settings and mistakes -----------------------------------------------------------------------------------------------

REPRS = {
    "MLP(sizes=(4, 8, 3),\n": lambda: dgm.mlp(4, 8, 3),
    "GatedMLP(sizes=(4, 8, 3),\n": lambda: dgm.gated_mlp(4, 8, 3),
    "GatedLinear(3, 2,\n": lambda: GatedLinear(3, 2),
    "Rescale(low=0, high=255)": lambda: dgm.nn.Rescale(0, 255),
    "LevelUnits(levels=17, dim=-3)": lambda: dgm.nn.LevelUnits(17, dim=-3),
    "ConvEncoder((1, 8, 8), out=4, channels=(2, 3),\n": lambda: dgm.ConvEncoder(
        (1, 8, 8), 4, [2, 3]
    ),
    "ConvDecoder(code=4, shape=(1, 8, 8), channels=(2, 3),\n": lambda: dgm.ConvDecoder(
        4, (1, 8, 8), (2, 3)
    ),
    "GatedConvNet(1, 2, hidden=4, blocks=1,\n": lambda: dgm.nn.GatedConvNet(1, 2, 4, 1),
    "GatedBlock(channels=3,\n": lambda: GatedBlock(3),
    "GatedPixelCNN((1, 4, 4), out_channels=2, context=3, channels=4, blocks=1, kernel=5,\n": (
        lambda: dgm.nn.GatedPixelCNN((1, 4, 4), 2, 3, 4, 1, 5)
    ),
    "VerticalBlock(channels=4, kernel=3, context=0,\n": lambda: VerticalBlock(4, 3, 0),
    "HorizontalBlock(channels=4, kernel=3,\n": lambda: HorizontalBlock(4, 3),
    "CausalConv(1, 2, kernel_size=(2, 3), stride=(1, 1), zeros=(1, 1, 1, 0))": lambda: CausalConv(
        1, 2, (2, 3), (1, 1, 1, 0)
    ),
}


@pytest.mark.parametrize(("start", "build"), list(REPRS.items()), ids=range(len(REPRS)))
def test_a_network_prints_its_settings(start, build):
    assert repr(build()).startswith(start)


@pytest.mark.parametrize("make", [dgm.mlp, lambda *s, **k: dgm.nn.MLP(s, **k)])
def test_a_built_activation_is_refused_with_the_fix(make):
    with pytest.raises(
        TypeError, match=r"MLP: expected an activation .* got the module ReLU. Fix: .*=nn.ReLU,"
    ):
        make(3, 4, 2, activation=nn.ReLU())


@pytest.mark.parametrize(
    "build",
    [
        lambda shape: dgm.ConvEncoder(shape, 4),
        lambda shape: dgm.ConvDecoder(4, shape),
        lambda shape: dgm.nn.GatedPixelCNN(shape, 2),
    ],
    ids=["ConvEncoder", "ConvDecoder", "GatedPixelCNN"],
)
def test_the_shape_of_what_is_no_image_is_refused_with_the_fix(build):
    message = (
        r"expected shape \(channels, height, width\), got \(28, 28\). Fix: shape=\(1, 28, 28\)"
    )
    with pytest.raises(ValueError, match=message):
        build((28, 28))


def test_a_concatenation_of_no_context_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"Concat: expected at least one context, got none. Fix: "):
        dgm.Concat(nn.Identity())()


def test_an_empty_range_and_one_level_name_their_fix():
    with pytest.raises(ValueError, match=r"Fix: Rescale\(0, 255\) for bytes"):
        dgm.nn.Rescale(1, 1)
    with pytest.raises(ValueError, match=r"got 1. Fix: levels=256 for bytes"):
        dgm.nn.LevelUnits(1)
