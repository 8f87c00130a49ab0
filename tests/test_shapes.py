"""Where each number of an image goes, and the shapes that a flow tells its distribution."""

from __future__ import annotations

import pytest
import torch

import pyro_dgm as dgm


def test_a_squeeze_puts_every_square_of_pixels_into_the_channels_of_one():
    x = torch.randn(5, 2, 4, 6)
    y, log_det = dgm.Squeeze((2, 4, 6))(x)
    assert torch.equal(log_det, torch.zeros(5))
    for c, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(6)).tolist():
        assert torch.equal(y[:, 4 * c + 2 * (i % 2) + j % 2, i // 2, j // 2], x[:, c, i, j])


@pytest.mark.parametrize("shape", [(1, 7, 8), (1, 8, 7)], ids=str)
def test_a_squeeze_refuses_odd_sizes(shape):
    with pytest.raises(ValueError, match=r"Squeeze: expected an even height and width, got .*7.*Fix: pad the images"):
        dgm.Squeeze(shape)


def test_a_vector_becomes_an_image_row_by_row():
    x = torch.arange(12.0).expand(3, 12)
    assert torch.equal(dgm.Unflatten((2, 2, 3))(x)[0], x.reshape(3, 2, 2, 3))


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)], ids=str)
def test_a_flow_from_vectors_to_images_is_a_distribution_over_images(batch):
    """Its density is that of the vector, and so are its draws."""
    layers = [dgm.Unflatten((4, 1, 3)), dgm.Inverse(dgm.Squeeze((1, 2, 6)))]
    law = dgm.Flow(dgm.StandardNormal(12), layers)(*([torch.randn(*batch, 2)] if batch else []))
    assert (law.batch_shape, law.event_shape) == (batch, (1, 2, 6))
    x = law.sample((7,))
    assert x.shape == (7, *batch, 1, 2, 6)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum((-3, -2, -1))
    for value in (x, x.clone()):
        torch.testing.assert_close(law.log_prob(value), expected)


def test_a_stack_and_its_inverse_say_the_shapes_of_both_sides():
    stack = dgm.Stack([dgm.Unflatten((4, 2, 3)), dgm.Inverse(dgm.Squeeze((1, 4, 6)))])
    assert stack.forward_shape((7, 24)) == (7, 1, 4, 6)
    assert stack.inverse_shape((7, 1, 4, 6)) == (7, 24)
    assert dgm.Inverse(stack).forward_shape((1, 4, 6)) == (24,)
    assert dgm.Inverse(stack).inverse_shape((5, 24)) == (5, 1, 4, 6)
    assert dgm.Permutation(3).forward_shape((2, 3)) == dgm.Permutation(3).inverse_shape((2, 3)) == (2, 3)
