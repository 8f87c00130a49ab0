"""Where each number of an image goes, and the shapes that a flow tells its distribution."""

from __future__ import annotations

import pytest
import torch
from cases import randomize
from conftest import in_float64

import pyro_dgm as dgm


def test_a_squeeze_puts_every_square_of_pixels_into_the_channels_of_one():
    x = torch.randn(5, 2, 4, 6)
    y, log_det = dgm.flows.Squeeze((2, 4, 6))(x)
    assert torch.equal(log_det, torch.zeros(5))
    for c, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(6)).tolist():
        assert torch.equal(y[:, 4 * c + 2 * (i % 2) + j % 2, i // 2, j // 2], x[:, c, i, j])


@pytest.mark.parametrize("shape", [(1, 7, 8), (1, 8, 7)], ids=str)
def test_a_squeeze_refuses_odd_sizes(shape):
    with pytest.raises(
        ValueError,
        match=r"Squeeze: expected an even height and width, got .*7.*Fix: pad the images",
    ):
        dgm.flows.Squeeze(shape)


def test_a_vector_becomes_an_image_row_by_row():
    x = torch.arange(12.0).expand(3, 12)
    assert torch.equal(dgm.flows.Unflatten((2, 2, 3))(x)[0], x.reshape(3, 2, 2, 3))


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)], ids=str)
def test_a_flow_from_vectors_to_images_is_a_distribution_over_images(batch):
    """Its density is that of the vector, and so are its draws."""
    layers = [dgm.flows.Unflatten((4, 1, 3)), dgm.Inverse(dgm.flows.Squeeze((1, 2, 6)))]
    law = dgm.Flow(dgm.StandardNormal(12), layers)(*([torch.randn(*batch, 2)] if batch else []))
    assert (law.batch_shape, law.event_shape) == (batch, (1, 2, 6))
    x = law.sample((7,))
    assert x.shape == (7, *batch, 1, 2, 6)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum((-3, -2, -1))
    for value in (x, x.clone()):
        torch.testing.assert_close(law.log_prob(value), expected)


def test_a_stack_and_its_inverse_say_the_shapes_of_both_sides():
    stack = dgm.flows.Stack(
        [dgm.flows.Unflatten((4, 2, 3)), dgm.Inverse(dgm.flows.Squeeze((1, 4, 6)))]
    )
    assert stack.forward_shape((7, 24)) == (7, 1, 4, 6)
    assert stack.inverse_shape((7, 1, 4, 6)) == (7, 24)
    assert dgm.Inverse(stack).forward_shape((1, 4, 6)) == (24,)
    assert dgm.Inverse(stack).inverse_shape((5, 24)) == (5, 1, 4, 6)
    assert (
        dgm.flows.Permutation(3).forward_shape((2, 3))
        == dgm.flows.Permutation(3).inverse_shape((2, 3))
        == (2, 3)
    )


# Scales --------------------------------------------------------------------------------------------------------------


def test_the_start_of_the_vector_is_the_half_of_the_channels_that_leaves():
    layer, x = dgm.flows.FactorOut((3, 2, 2), dgm.flows.Unflatten((1, 2, 2))), torch.randn(5, 12)
    y, log_det = layer(x)
    assert torch.equal(y[:, 1:], x[:, :8].reshape(5, 2, 2, 2))
    assert torch.equal(y[:, :1], x[:, 8:].reshape(5, 1, 2, 2))
    assert torch.equal(log_det, torch.zeros(5))


@pytest.mark.parametrize(
    ("shape", "rest"), [((2, 4, 4), (2, 4, 4)), ((4, 4, 4), (2, 2, 8)), ((1, 2, 2), (0, 2, 2))]
)
def test_a_rest_onto_another_shape_is_refused_with_the_fix(shape, rest):
    with pytest.raises(
        ValueError,
        match=r"FactorOut: expected at least 2 channels and a rest onto .*Fix: Unflatten\(",
    ):
        dgm.flows.FactorOut(shape, dgm.flows.Unflatten(rest))


@in_float64
def test_the_parts_of_a_scale_are_as_likely_as_the_published_sum_says():
    r"""$\log p(y) = \log N(\text{left}) + \log N(z) + \log|\det|$: score the parts one after the other by hand."""
    shape = (1, 4, 4)
    stack = randomize(dgm.multiscale_realnvp(shape, (4, 4, 4), layers=1, blocks=1))
    factored, middle, unsqueeze, fine = stack
    second, *rest = factored.rest
    x, normal = torch.randn(6, *shape), torch.distributions.Normal(0.0, 1.0)
    x1, first_log_det = fine.inverse(x)
    x2, middle_log_det = middle.inverse(dgm.flows.Squeeze(shape)(x1)[0])
    kept, leaving = x2.split([2, 2], dim=1)
    z, coarse_log_det = dgm.flows.Squeeze((2, 2, 2))(kept)[0], torch.zeros(6)
    for layer in reversed(rest[:-1]):
        z, log_det = layer.inverse(z)
        coarse_log_det = coarse_log_det + log_det
    expected = normal.log_prob(leaving).sum((1, 2, 3)) + normal.log_prob(z).sum((1, 2, 3))
    expected = expected + first_log_det + middle_log_det + coarse_log_det
    flow = dgm.Flow(dgm.StandardNormal(16), stack)
    torch.testing.assert_close(flow().log_prob(x), expected)
    assert isinstance(second, dgm.flows.Unflatten)


# Pixels --------------------------------------------------------------------------------------------------------------


@in_float64
def test_a_linear_map_of_every_pixel_is_a_convolution_of_one_by_one():
    linear, x = randomize(dgm.flows.LULinear(3)), torch.randn(5, 3, 4, 2)
    y, log_det = dgm.flows.PerPixel(linear)(x)
    matrix = torch.func.jacrev(lambda v: linear(v)[0])(torch.zeros(3))
    bias = linear(torch.zeros(3))[0]
    torch.testing.assert_close(y, torch.nn.functional.conv2d(x, matrix[:, :, None, None], bias))
    torch.testing.assert_close(log_det, (8 * matrix.slogdet().logabsdet).expand(5))


def test_the_norm_of_images_standardizes_every_channel():
    layer, images = (
        dgm.flows.PerPixel(dgm.flows.ActNorm(3)),
        5 + torch.tensor([1.0, 2.0, 3.0])[:, None, None] * torch.randn(7, 3, 4, 2),
    )
    layer.bijector.initialize(images.movedim(-3, -1))
    y, log_det = layer(images)
    pixels = y.movedim(-3, -1).reshape(-1, 3)
    torch.testing.assert_close(pixels.mean(0), torch.zeros(3), atol=1e-10, rtol=0)
    torch.testing.assert_close(pixels.std(0), torch.ones(3))
    spread = images.movedim(-3, -1).reshape(-1, 3).std(0)
    torch.testing.assert_close(log_det, (-8 * spread.log().sum()).expand(7))


def test_a_layer_of_images_is_no_layer_of_pixels():
    with pytest.raises(
        ValueError,
        match=r"PerPixel: expected a bijector of vectors, got Squeeze from events with 3 dims",
    ):
        dgm.flows.PerPixel(dgm.flows.Squeeze((1, 2, 2)))
