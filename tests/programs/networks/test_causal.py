"""The network of the PixelCNN: what a pixel sees is what came before it, all of that, and nothing else."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from cases import randomize
from conftest import both_dtypes, in_float64
from torch import Tensor
from torch.nn.functional import conv2d, pad

import pyro_dgm as dgm
from pyro_dgm.programs.networks.causal import VerticalBlock, gated_activation


def small(shape=(1, 4, 5), out_channels=3, **settings):
    return randomize(dgm.nn.GatedPixelCNN(shape, out_channels, channels=4, **settings), scale=0.1)


def seen(network) -> Tensor:
    """Whether an output of pixel (i, j) has a derivative by channel c of pixel (k, l), `(H, W, C, H, W)`."""
    jacobian = torch.autograd.functional.jacobian(network, torch.randn(network.shape))
    return (jacobian != 0).any(0)


def field(height: int, width: int, reach: int) -> Tensor:
    """The stated receptive field, `(H, W, H, W)`."""
    i, j, k, m = (
        torch.arange(n).reshape([-1 if d == dim else 1 for d in range(4)])
        for dim, n in enumerate((height, width, height, width))
    )
    above = (k < i) & (k >= i - 1 - reach) & ((j - m).abs() <= reach)
    left = (k == i) & (m < j) & (m >= j - 1 - reach)
    return above | left


# Causality -----------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("kernel", "blocks"), [(3, 3), (3, 4), (5, 1), (5, 2), (7, 1)])
def test_a_pixel_depends_on_every_earlier_pixel_and_on_no_other(kernel, blocks, channels, context):
    """No blind spot, and not one derivative by the pixel itself or a later one: exact zeros."""
    network = small((channels, 4, 5), kernel=kernel, blocks=blocks, context=context)
    c = [torch.randn(context)] * bool(context)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: network(x, *c), torch.randn(network.shape)
    )
    order = torch.arange(4 * 5).reshape(4, 5)
    earlier = order[:, :, None, None, None] > order
    assert torch.equal((jacobian != 0).any(0), earlier.expand(4, 5, channels, 4, 5))


@in_float64
@pytest.mark.parametrize(("kernel", "blocks"), [(3, 1), (3, 2), (5, 1)])
def test_the_receptive_field_is_the_stated_one(kernel, blocks):
    network = small((1, 7, 9), kernel=kernel, blocks=blocks)
    expected = field(7, 9, (blocks + 1) * (kernel - 1) // 2)
    order = torch.arange(7 * 9).reshape(7, 9)
    assert not torch.equal(expected, order[:, :, None, None] > order), (
        "the image is too small to show the field"
    )
    assert torch.equal(seen(network)[:, :, 0], expected)


@in_float64
def test_a_convolution_over_the_rows_above_is_one_with_masked_weights():
    block, v = VerticalBlock(2, 5, 0), torch.randn(3, 2, 6, 7)
    square = pad(block.above.weight, (0, 0, 0, 2))  # rows below the own one: weights of 0
    torch.testing.assert_close(block.above(v), conv2d(v, square, block.above.bias, padding=2))


@in_float64
def test_a_gate_is_tanh_times_sigmoid_and_the_context_is_its_bias():
    a, b = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    torch.testing.assert_close(gated_activation(torch.cat([a, b], 1)), a.tanh() * b.sigmoid())
    block, v, c = VerticalBlock(2, 3, 6), torch.randn(3, 2, 4, 5), torch.randn(3, 6)
    of_v, of_h = (c @ block.of_context.weight.T)[..., None, None].split(4, dim=1)
    out, link = block(v, c)
    torch.testing.assert_close(out, gated_activation(block.above(v) + of_v))
    torch.testing.assert_close(link, block.link(block.above(v) + of_v) + of_h)


@in_float64
def test_the_border_is_no_dark_pixel():
    """The first layer alone: a row of dark pixels is another input than the padding above the image."""
    network = small((1, 3, 3))
    v = network.above(pad(network._with_ones(torch.zeros(1, 1, 3, 3)), (0, 0, 1, -1)))
    assert not torch.isclose(v[..., 0, 1], v[..., 1, 1]).any()


# Shapes --------------------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize(
    ("of_x", "of_c"),
    [
        ((), ()),
        ((5,), (5,)),
        ((5,), (2, 5)),
        ((2, 5), (5,)),
        ((2, 1), (5,)),
        ((5,), ()),
        ((), (2, 5)),
    ],
)
def test_images_and_contexts_broadcast_and_every_pair_is_computed_by_itself(of_x, of_c, dtype):
    network = small(context=3)
    x, c = torch.randn(*of_x, 1, 4, 5), torch.randn(*of_c, 3)
    raw, batch = network(x, c), torch.broadcast_shapes(of_x, of_c)
    assert (raw.shape, raw.dtype) == ((*batch, 3, 4, 5), dtype)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for index in product(*(range(n) for n in batch)):
        alone = network(x.expand(*batch, 1, 4, 5)[index], c.expand(*batch, 3)[index])
        torch.testing.assert_close(raw[index], alone, rtol=tolerance, atol=tolerance)


@in_float64
def test_every_output_depends_on_the_context():
    network = small(context=3)
    jacobian = torch.autograd.functional.jacobian(
        lambda c: network(torch.randn(1, 4, 5), c), torch.randn(3)
    )
    assert bool((jacobian != 0).all())


def test_integer_images_are_read():
    network, x = small(), torch.randint(256, (2, 1, 4, 5), dtype=torch.uint8)
    assert torch.equal(network(x), network(x.to(torch.get_default_dtype())))


@in_float64
def test_first_rows_and_first_columns_are_enough_for_a_pixel():
    network, x, c = small(context=3), torch.randn(2, 1, 4, 5), torch.randn(2, 3)
    raw = network(x, c)
    for i, j in product(range(4), range(5)):
        links = network.vertical(x[..., : i + 1, :], c)
        row = network.horizontal(
            x[..., i : i + 1, : j + 1], [link[..., i:, : j + 1] for link in links]
        )
        torch.testing.assert_close(row, raw[..., i : i + 1, : j + 1])


@in_float64
@pytest.mark.parametrize(("kernel", "blocks", "reach"), [(3, 1, 2), (3, 2, 3), (5, 1, 4)])
def test_the_last_of_reach_plus_two_rows_knows_all_that_it_may(kernel, blocks, reach):
    network, x, i = small((1, 9, 5), kernel=kernel, blocks=blocks), torch.randn(2, 1, 9, 5), 8
    assert network.reach == reach
    few, fewer = (network.vertical(x[..., i - 1 - r : i + 1, :]) for r in (reach, reach - 1))
    for link, part in zip(network.vertical(x), few, strict=True):
        torch.testing.assert_close(part[..., -1, :], link[..., i, :])
    assert not torch.allclose(fewer[-1][..., -1, :], few[-1][..., -1, :])


def test_no_image_at_all_has_no_output():
    assert small()(torch.zeros(0, 1, 4, 5)).shape == (0, 3, 4, 5)


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_a_kernel_without_a_middle_or_without_reach_is_refused(kernel):
    with pytest.raises(
        ValueError,
        match=rf"GatedPixelCNN: expected an odd kernel >= 3, got {kernel}. Fix: kernel=3",
    ):
        dgm.nn.GatedPixelCNN((1, 4, 4), 2, kernel=kernel)


def test_no_block_is_refused():
    with pytest.raises(
        ValueError, match=r"GatedPixelCNN: expected at least 1 block, got 0. Fix: blocks=4"
    ):
        dgm.nn.GatedPixelCNN((1, 4, 4), 2, blocks=0)


@pytest.mark.parametrize("wrong", [(1, 3, 5), (2, 4, 5), (4, 5), (20,)], ids=str)
def test_an_image_of_another_shape_is_refused_with_the_fix(wrong):
    with pytest.raises(
        ValueError, match=r"GatedPixelCNN: expected images \(\*batch, 1, 4, 5\), got .*Fix: reshape"
    ):
        small()(torch.zeros(wrong))


@pytest.mark.parametrize(
    ("context", "given", "message"),
    [
        (0, [(3,)], r"expected no context, got sizes \[3\]"),
        (3, [], r"expected one context of size 3, got sizes \[\]"),
        (3, [(4,)], r"expected one context of size 3, got sizes \[4\]"),
        (
            3,
            [(3,), (3,)],
            r"expected one context of size 3, got sizes \[3, 3\]. Fix: context=.*embed=Concat",
        ),
    ],
)
def test_another_context_than_the_declared_one_is_refused(context, given, message):
    with pytest.raises(ValueError, match=message):
        small(context=context)(torch.zeros(1, 4, 5), *(torch.zeros(shape) for shape in given))
