"""What only flows of images know: masks, contexts that are images, and what such a flow can stand for."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from cases import plane, randomize
from conftest import both_dtypes, in_float64
from torch import nn

import pyro_dgm as dgm

SHAPE = (1, 4, 4)
IDENTITIES = {
    "affine": dgm.flows.Affine,
    "additive": dgm.flows.Additive,
    "spline": lambda: dgm.flows.Spline(4),
}


def calls_of(flow: nn.Module) -> list[nn.Module]:
    """A list that grows by one with every network call in the bijectors of a flow."""
    calls: list[nn.Module] = []
    for module in flow.modules():
        if isinstance(module, dgm.nn.GatedConvNet):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    return calls


def small(shape=SHAPE, layers=2, context=0, transformer=None):
    return dgm.image_realnvp(shape, layers, context, hidden=4, blocks=1, transformer=transformer)


def density(scale=0.3):
    return randomize(dgm.Flow(dgm.StandardNormal(SHAPE), small()), scale)


# Masks ---------------------------------------------------------------------------------------------------------------


def test_a_checkerboard_keeps_every_second_pixel_and_its_flip_the_others():
    mask, flipped = (dgm.flows.checkerboard_mask((2, 3, 4), flip=flip) for flip in (False, True))
    assert torch.equal(mask, ~flipped)
    for c, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        assert bool(mask[c, i, j]) == ((i + j) % 2 == 0)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_channel_mask_keeps_the_first_half_of_the_channels_and_its_flip_the_others(channels):
    mask, flipped = (dgm.flows.channel_mask((channels, 2, 3), flip=flip) for flip in (False, True))
    assert torch.equal(mask, ~flipped)
    assert bool(mask[: channels // 2].all())
    assert not bool(mask[channels // 2 :].any())


@pytest.mark.parametrize("make", [dgm.flows.checkerboard_mask, dgm.flows.channel_mask])
@in_float64
def test_a_coupling_moves_what_is_not_kept_by_what_is_kept_alone(make):
    mask = make((2, 4, 4))
    layer, x = randomize(dgm.flows.ImageCoupling(mask, hidden=4, blocks=1)), torch.randn(2, 4, 4)
    assert torch.equal(layer(x)[0] != x, ~mask)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0], x).reshape(32, 32)
    kept = mask.flatten()
    assert torch.equal(jacobian[kept], torch.eye(32)[kept])
    assert torch.equal(jacobian[~kept][:, ~kept], torch.diag(jacobian.diagonal()[~kept]))
    assert bool((jacobian[~kept][:, kept] != 0).any())
    torch.testing.assert_close(layer(x)[1], jacobian.diagonal()[~kept].log().sum())


def test_the_masks_of_a_stack_alternate_and_move_every_pixel():
    x = torch.randn(9, *SHAPE)
    one, two = (randomize(small(layers=n))(x)[0] != x for n in (1, 2))
    assert torch.equal(one, (~dgm.flows.checkerboard_mask(SHAPE)).expand_as(one))
    assert bool(two.all())


def test_masks_are_buffers_that_no_state_dict_carries():
    layer = dgm.flows.ImageCoupling(dgm.flows.checkerboard_mask(SHAPE), hidden=4, blocks=1)
    assert "mask" in dict(layer.named_buffers())
    assert "mask" not in layer.state_dict()


MASKS = {"all_kept": torch.ones(SHAPE), "none_kept": torch.zeros(SHAPE), "no_image": torch.eye(4)}


@pytest.mark.parametrize("mask", MASKS.values(), ids=list(MASKS))
def test_a_mask_that_makes_no_coupling_is_refused(mask):
    with pytest.raises(
        ValueError,
        match=r"ImageCoupling: expected a mask \(C, H, W\) that keeps some .*Fix: checker",
    ):
        dgm.flows.ImageCoupling(mask)


def test_one_channel_is_too_few_for_a_channel_mask_unless_there_is_a_context():
    with pytest.raises(ValueError, match="keeps 0 of 16.*channel_mask needs two channels"):
        dgm.flows.ImageCoupling(dgm.flows.channel_mask(SHAPE))
    assert dgm.flows.ImageCoupling(dgm.flows.channel_mask(SHAPE), context=1).context == 1


# Start, cost, contexts -----------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("law", IDENTITIES.values(), ids=list(IDENTITIES))
@pytest.mark.parametrize("context", [0, 2])
def test_a_fresh_stack_is_the_identity(law, context, dtype):
    stack, x = small(context=context, transformer=law()), 2 * torch.randn(3, *SHAPE)
    c = torch.randn(3, context, 4, 4) if context else None
    for f in (stack.forward, stack.inverse):
        y, log_det = f(x, c)
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(log_det, torch.zeros(3), atol=1e-5, rtol=0)


def test_the_parameters_are_those_of_the_published_network_without_its_scaling_factor():
    flow = dgm.image_realnvp((1, 28, 28), layers=8)
    assert sum(p.numel() for p in flow.parameters()) + 8 == 556_312
    dequantizer = dgm.image_realnvp((1, 28, 28), layers=4, context=1, hidden=16)
    assert sum(p.numel() for p in dequantizer.parameters()) + 4 == 628_388 - 556_312


def test_the_parameters_of_the_multi_scale_flow_are_the_published_ones_without_the_scaling_factors():
    """1,711,818 in all, with a dequantizer of 4 (18,018 + 1); one factor for each channel of a coupling."""
    flow = dgm.multiscale_realnvp((1, 28, 28))
    assert sum(p.numel() for p in flow.parameters()) + 2 * 1 + 2 * 4 + 4 * 8 == 1_711_818 - 72_076


@pytest.mark.parametrize(
    ("shape", "hidden"), [((1, 4, 4), (4,)), ((1, 4, 4), (4, 4)), ((3, 8, 4), (4, 4, 4))]
)
def test_a_multi_scale_flow_is_a_distribution_over_images(shape, hidden):
    size = shape[0] * shape[1] * shape[2]
    flow = randomize(
        dgm.Flow(dgm.StandardNormal(size), dgm.multiscale_realnvp(shape, hidden, blocks=1)), 0.1
    )
    calls, law = calls_of(flow), flow()
    x = law.rsample((3, 2))
    own = law.log_prob(x)
    assert (law.event_shape, own.shape) == (shape, (3, 2))
    assert (
        len(calls)
        == flow.directions().sample
        == flow.directions().density
        == 2 * (len(hidden) + (len(hidden) > 1))
    )
    torch.testing.assert_close(flow().log_prob(x.clone()), own, rtol=1e-6, atol=1e-6)


@in_float64
def test_a_fresh_multi_scale_flow_is_a_standard_normal_over_pixels():
    x = torch.randn(5, 1, 8, 8)
    flow = dgm.Flow(dgm.StandardNormal(64), dgm.multiscale_realnvp((1, 8, 8), (4, 4, 4), blocks=1))
    torch.testing.assert_close(flow().log_prob(x), dgm.StandardNormal((1, 8, 8))().log_prob(x))


def test_a_size_that_can_not_be_halved_so_often_is_refused():
    with pytest.raises(
        ValueError,
        match=r"Squeeze: expected an even height and width, got an image of shape \(2, 7",
    ):
        dgm.multiscale_realnvp((1, 14, 14), (4, 4, 4))


GIVEN = {
    "none": None,
    "channels": torch.zeros(5, 3, 4, 4),
    "size": torch.zeros(5, 2, 4, 2),
    "flat": torch.zeros(5, 32),
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=list(GIVEN))
def test_a_context_of_another_shape_is_refused_with_the_fix(given):
    stack = small(context=2)
    for direction in (stack.forward, stack.inverse):
        with pytest.raises(
            ValueError,
            match=r"expected as context an image of shape \(\*batch, 2, 4, 4\), got .*Fix",
        ):
            direction(torch.zeros(5, *SHAPE), given)


def test_a_context_that_was_not_asked_for_is_refused_with_the_fix():
    with pytest.raises(
        ValueError, match=r"expected as context none, got \(2, 4, 4\)\. Fix: context=2 in the stack"
    ):
        small()(torch.zeros(5, *SHAPE), torch.zeros(5, 2, 4, 4))


# Flows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)], ids=str)
def test_a_flow_of_images_has_their_shape_and_scores_its_own_draws_without_a_second_call(batch):
    flow = randomize(dgm.Flow(dgm.StandardNormal(SHAPE), small(context=2)))
    calls, context = calls_of(flow), torch.randn(*batch, 2, 4, 4)
    law = flow(context)
    assert (law.batch_shape, law.event_shape) == (batch, SHAPE)
    x = law.rsample((3,))
    own = law.log_prob(x)
    assert len(calls) == flow.directions().sample == 2
    assert (x.shape, own.shape) == ((3, *batch, *SHAPE), (3, *batch))
    torch.testing.assert_close(flow(context).log_prob(x.clone()), own)
    assert len(calls) == 2 + flow.directions().density == 4


@in_float64
def test_a_flow_of_two_pixels_has_mass_one():
    """By quadrature over the plane, with a spline in each coupling."""
    shape = (1, 1, 2)
    law = randomize(
        dgm.Flow(dgm.StandardNormal(shape), small(shape, transformer=dgm.flows.Spline(4))), 0.2
    )()
    grid, weights = plane(law, num=281)
    mass = (law.log_prob(grid).exp() * weights).sum()
    torch.testing.assert_close(mass, torch.ones(()), rtol=1e-3, atol=0)


@pytest.mark.slow
def test_a_density_of_images_trains_compiled_as_it_does_eager():
    """One flow at one start, three steps on the same data; an exact density has no noise to differ by."""
    x, losses = torch.randn(8, *SHAPE), []
    for compiled in (False, True):
        torch.manual_seed(0)
        objective = dgm.ELBO(dgm.DensityModel(density(0.05)), dgm.EmptyGuide())
        trainer = dgm.SVITrainer(objective, lr=1e-2, compile=compiled)
        losses.append([float(trainer.step(x)["loss"]) for _ in range(3)])
    assert losses[0][2] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_density_of_images_generates_them():
    model = dgm.DensityModel(density())
    assert dgm.generate(model, 6).shape == (6, *SHAPE)


def test_a_stack_of_one_step_is_learned_by_the_other_way_round():
    """`Inverse` scores fast with a law whose inverse is searched for."""
    stack = randomize(small(transformer=dgm.flows.LogisticMixture(3)), 0.1)
    flow, x = dgm.Flow(dgm.StandardNormal(SHAPE), dgm.Inverse(stack)), torch.randn(5, *SHAPE)
    z, log_det = stack(x)
    torch.testing.assert_close(flow().log_prob(x), flow.base().log_prob(z) + log_det)


def dequantizer(levels=17):
    layers = [*small(context=1), dgm.Levels(1, alpha=0.0, event_dim=3)]
    flow = dgm.Flow(dgm.StandardNormal(SHAPE), layers, embed=dgm.nn.Rescale(0, levels - 1))
    return randomize(flow, 0.1)


@both_dtypes
def test_a_variational_dequantizer_draws_from_the_unit_cell_of_every_pixel(dtype):
    levels = torch.randint(17, (6, *SHAPE), dtype=torch.uint8)
    law = dequantizer()(levels)
    u = law.rsample((3,))
    assert u.dtype == dtype
    assert bool(((u > 0) & (u < 1)).all())
    log_q = law.log_prob(u)
    assert log_q.shape == (3, 6)


@in_float64
def test_the_density_of_a_dequantizer_integrates_to_one_over_the_cell():
    """Importance sampling with 20,000 uniform draws on four pixels; 5 standard errors."""
    shape = (1, 2, 2)
    layers = [*small(shape, context=1), dgm.Levels(1, alpha=0.0, event_dim=3)]
    flow = randomize(dgm.Flow(dgm.StandardNormal(shape), layers), 0.1)
    weights = flow(torch.randn(shape)).log_prob(torch.rand(20_000, *shape)).exp().detach()
    standard_error = weights.std() / len(weights) ** 0.5
    assert float((weights.mean() - 1).abs() / standard_error) < 5
    assert float(standard_error) < 0.05


def test_a_density_over_levels_is_finite_at_both_ends():
    layers = [*small(), dgm.Levels(256, event_dim=3)]
    flow = dgm.Flow(dgm.StandardNormal(SHAPE), layers).float()
    ends = torch.tensor([0.0, 256.0]).float()[:, None, None, None]
    log_p = flow().log_prob(ends.expand(2, *SHAPE))
    torch.testing.assert_close(log_p[0], log_p[1])
    assert bool(log_p.isfinite().all())


def test_a_likelihood_of_images_is_a_flow_at_a_decoded_context():
    likelihood = dgm.Flow(
        dgm.Conditional(dist.Normal, dgm.nn.GatedConvNet(2, 2, 4, 1), event_dim=3),
        small(context=2),
        embed=dgm.ConvDecoder(3, (2, 4, 4), (4,)),
    )
    encoder = dgm.Conditional(dist.Normal, dgm.ConvEncoder(SHAPE, 2 * 3, (4,)))
    vae = dgm.VAE(dgm.StandardNormal(3), likelihood, encoder)
    loss = dgm.ELBO(vae.model, vae.guide)(torch.randn(5, *SHAPE))
    loss.backward()
    assert bool(loss.isfinite())
    assert dgm.generate(vae.model, 4).shape == (4, *SHAPE)
