"""The network of image couplings against the published one: its layers, its size, and what an output sees."""

from __future__ import annotations

import pytest
import torch
from cases import randomize
from conftest import both_dtypes
from torch import nn
from torch.nn.functional import elu

import pyro_dgm as dgm
from pyro_dgm.programs.networks.convolutions import ChannelNorm, ConcatELU, GatedBlock


@pytest.mark.parametrize(("sizes", "num"), [((1, 2, 32, 3), 69_538), ((2, 2, 16, 3), 18_018)])
def test_the_number_of_parameters_is_the_published_one(sizes, num):
    assert sum(p.numel() for p in dgm.nn.GatedConvNet(*sizes).parameters()) == num


def test_concat_elu_keeps_both_signs():
    x = torch.randn(5, 2, 3, 4)
    y = ConcatELU()(x)
    assert y.shape == (5, 4, 3, 4)
    torch.testing.assert_close(y[:, :2], elu(x))
    torch.testing.assert_close(y[:, 2:], elu(-x))


def test_the_norm_is_over_the_channels_of_one_pixel():
    norm, x = randomize(ChannelNorm(6)), 3 + 2 * torch.randn(5, 6, 3, 4)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (
        norm.weight[:, None, None] * (x - mean) / (variance + 1e-5).sqrt()
        + norm.bias[:, None, None]
    )
    torch.testing.assert_close(norm(x), expected)


def test_a_block_adds_gated_values():
    block, x = randomize(GatedBlock(3)), torch.randn(2, 3, 4, 5)
    h = torch.cat([elu(x), elu(-x)], 1)
    h = nn.functional.conv2d(h, block[1].weight, block[1].bias, padding=1)
    h = nn.functional.conv2d(torch.cat([elu(h), elu(-h)], 1), block[3].weight, block[3].bias)
    torch.testing.assert_close(block(x), x + h[:, :3] * torch.sigmoid(h[:, 3:]))


@both_dtypes
@pytest.mark.parametrize("batch", [(), (5,), (2, 5)], ids=str)
def test_leading_dims_pass_through_and_every_image_is_computed_by_itself(batch, dtype):
    net, x = dgm.nn.GatedConvNet(2, 3, 8, 2), torch.randn(*batch, 2, 5, 6)
    y = net(x)
    assert (y.shape, y.dtype) == ((*batch, 3, 5, 6), dtype)
    first = (0,) * len(batch)
    torch.testing.assert_close(net(x[first]), y[first], rtol=1e-4, atol=1e-5)


def test_an_empty_batch_gives_an_empty_batch():
    assert dgm.nn.GatedConvNet(2, 3, 4, 1)(torch.zeros(0, 2, 4, 4)).shape == (0, 3, 4, 4)


def test_levels_are_cast_to_the_dtype_of_the_weights():
    net, levels = (
        dgm.nn.GatedConvNet(1, 2, 4, 1).float(),
        torch.randint(9, (3, 1, 4, 4), dtype=torch.uint8),
    )
    assert torch.equal(net(levels), net(levels.float()))


def test_every_parameter_gets_a_gradient():
    net = dgm.nn.GatedConvNet(2, 3, 8, 2)
    net(torch.randn(6, 2, 5, 6)).square().sum().backward()
    assert all(bool(p.grad.abs().max() > 0) for p in net.parameters())


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_an_output_sees_the_pixels_that_the_docstring_names(blocks):
    net, x = dgm.nn.GatedConvNet(1, 1, 4, blocks), torch.randn(1, 21, 21, requires_grad=True)
    net(x)[0, 10, 10].backward()
    seen, reach = x.grad[0] != 0, blocks + 2
    expected = torch.zeros(21, 21, dtype=torch.bool)
    expected[10 - reach : 11 + reach, 10 - reach : 11 + reach] = True
    assert torch.equal(seen, expected)
