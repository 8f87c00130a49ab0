import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over, randomize
from conftest import both_dtypes
from toys import LinearGaussian, Series, Written, toy_vae

import pyro_dgm as dgm

WITH_MEAN = {
    n: b
    for n, b in PAIRS.items()
    if n not in ("vae_pixelcnn", "vae_image_flow", "vae_dequantized") and "density" not in n
}


def latent_of(name):
    return "z2" if name == "two_latents_bare" else "z"


def test_the_mean_at_a_point_is_that_of_the_likelihood():
    model = LinearGaussian(latent=2, observed=4)
    z = torch.randn(5, 2)
    torch.testing.assert_close(dgm.decode(model, z), (z @ model.weight.T + model.bias).detach())


def test_the_mean_at_a_point_is_over_the_other_latents():
    """E[x | z2] of a stranger's model by 20,000 draws of z1."""
    case, z = PAIRS["two_latents_bare"](), torch.randn(3, 2)
    found = dgm.decode(case.model, z, latent="z2", num=20_000)
    with torch.no_grad():
        exact = case.model.bottom(case.model.middle(z))
        error = 0.5 * case.model.bottom.weight.norm(dim=1) / 20_000**0.5
    assert ((found - exact).abs() < 5 * error).all()


def test_a_context_belongs_to_its_point():
    case = PAIRS["vae_labels"]()
    z, c = torch.randn(3, 2), torch.eye(3)
    found = dgm.decode(case.model, z, c)
    alone = torch.cat([dgm.decode(case.model, z[i : i + 1], c[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(found, alone)
    torch.testing.assert_close(found, case.model.likelihood(z, c).mean.detach())
    lines = dgm.traverse(case.model, z, c, steps=3)
    moved = z.clone()
    moved[:, 1] = 3.0
    torch.testing.assert_close(lines[1, 2], case.model.likelihood(moved, c).mean.detach())


def test_a_further_plate_of_the_observation_follows_the_points():
    z = torch.randn(4)
    found = dgm.decode(Series(), z, num=4000)
    assert found.shape == (4, 3)
    assert ((found - z[:, None] - 0.2).abs() < 5 / 4000**0.5).all()


@both_dtypes
@pytest.mark.parametrize(**over(WITH_MEAN))
def test_lines_of_every_pair_have_the_shape_of_its_data(build, dtype):
    case = build()
    randomize(case.model)
    x, *context = case.batch(4)
    name = "z2" if build is PAIRS["two_latents_bare"] else "z"
    z = dgm.encode(case.guide, x, *context)[name].mean(0)
    lines = dgm.traverse(case.model, z, *context, steps=3, latent=name)
    assert lines.shape == (z.shape[1], 3, *x.shape)
    path = dgm.interpolate(
        case.model, z, z.flip(0), *context, steps=5, latent=name, path=dgm.diagnostics.slerp
    )
    assert path.shape == (5, *x.shape)
    assert path.dtype == dtype or not path.is_floating_point()
    if name == "z":
        torch.testing.assert_close(
            path[0], dgm.decode(case.model, z, *context), rtol=1e-3, atol=1e-3, equal_nan=True
        )


def test_one_coordinate_moves_and_the_others_stay():
    model = LinearGaussian(latent=3, observed=4)
    z = torch.randn(5, 3)
    found = dgm.traverse(model, z, dims=[2, 0], span=2.0, steps=5)
    for row, dim in enumerate((2, 0)):
        for step, value in enumerate((-2.0, -1.0, 0.0, 1.0, 2.0)):
            moved = z.clone()
            moved[:, dim] = value
            torch.testing.assert_close(found[row, step], dgm.decode(model, moved))


def flow_model():
    return randomize(
        dgm.LatentVariableModel(
            dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2, hidden=(8,))),
            dgm.Normal(dgm.mlp(2, 8, 3)),
        )
    )


def test_a_line_runs_through_the_base_space_of_a_flow_prior():
    model = flow_model()
    transform = model.prior().transforms[0]
    eps = torch.randn(4, 2)
    with torch.no_grad():
        z = transform(eps)
        found = dgm.traverse(model, z, dims=[1], steps=3)
        for step, value in enumerate((-3.0, 0.0, 3.0)):
            moved = torch.stack([eps[:, 0], torch.full((4,), value)], 1)
            torch.testing.assert_close(found[0, step], model.likelihood(transform(moved)).mean)
        straight = dgm.traverse(model, z, dims=[1], steps=3, whiten=False)
        torch.testing.assert_close(
            straight[0, 1], model.likelihood(z * torch.tensor([1.0, 0.0])).mean
        )


def test_a_path_in_the_base_space_differs_from_one_in_z():
    model = flow_model()
    z = dgm.generate(model, 6, site="z")
    based, straight = (dgm.interpolate(model, z[:3], z[3:], whiten=w) for w in (True, False))
    torch.testing.assert_close(based[[0, -1]], straight[[0, -1]])
    assert (based[3] - straight[3]).abs().max() > 1e-4


def test_an_arc_keeps_its_radius_and_its_speed():
    start, end = torch.randn(7, 3), torch.randn(7, 3)
    start, end = start / start.norm(dim=1, keepdim=True), end / end.norm(dim=1, keepdim=True)
    t = torch.linspace(0, 1, 9)
    arc = torch.stack([dgm.diagnostics.slerp(start, end, s) for s in t])
    torch.testing.assert_close(arc.norm(dim=-1), torch.ones(9, 7))
    angles = (arc[1:] * arc[:-1]).sum(-1).clamp(-1, 1).acos()
    torch.testing.assert_close(angles, (start * end).sum(-1).acos().expand(8, 7) / 8)
    torch.testing.assert_close(arc[[0, -1]], torch.stack([start, end]))


def test_an_arc_between_parallel_points_is_straight():
    start = torch.randn(4, 3)
    for end in (start, 2 * start, -start):
        t = torch.tensor(0.3)
        torch.testing.assert_close(
            dgm.diagnostics.slerp(start, end, t), dgm.diagnostics.lerp(start, end, t)
        )


def test_an_arc_to_the_origin_is_finite():
    assert (
        dgm.diagnostics.slerp(torch.randn(4, 3), torch.zeros(4, 3), torch.tensor(0.3))
        .isfinite()
        .all()
    )


def test_a_bounded_latent_stays_in_its_support():
    def model(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Beta(program.weight + 1.5, 2.0))
            return pyro.sample("x", dist.Normal(z, 0.1), obs=x)

    found = dgm.traverse(Written(model), torch.tensor([0.2, 0.7]), span=30.0, steps=5)
    assert found.shape == (1, 5, 2)
    assert ((found >= 0) & (found <= 1)).all()
    torch.testing.assert_close(found[0, 2], torch.tensor([0.5, 0.5]))


def test_nothing_outside_moves():
    vae, z = toy_vae(), torch.randn(4, 2)
    before = torch.get_rng_state()
    found = dgm.traverse(vae.model, z)
    assert torch.equal(dgm.traverse(vae.model, z), found)
    assert torch.equal(torch.get_rng_state(), before)
    assert vae.model.training
    assert not found.requires_grad


# Errors --------------------------------------------------------------------------------------------------------------


def test_an_unknown_latent_raises_with_those_there_are():
    with pytest.raises(
        ValueError,
        match=r"expected a site inside the plate 'data' alone, one of \['z', 'x'\], got 'y'",
    ):
        dgm.decode(toy_vae().model, torch.zeros(3, 2), latent="y")
    with pytest.raises(ValueError, match=r"one of \['z'\], got 'u'. Fix: latent='z'"):
        dgm.decode(Series(), torch.zeros(3, 2), latent="u")


def test_points_of_another_shape_raise():
    with pytest.raises(
        ValueError, match=r"expected points of shape \(S, 2\), got \(3, 4\). Fix: encode"
    ):
        dgm.traverse(toy_vae().model, torch.zeros(3, 4))


@pytest.mark.parametrize("returned", ["z", "x", "nothing"])
def test_the_observed_site_is_decoded_whatever_is_returned(returned):
    def model(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(program.weight, 1.0))
            x = pyro.sample("x", dist.Normal(3.0 * z, 1.0), obs=x)
            return {"z": z, "x": x, "nothing": None}[returned]

    z = torch.arange(3.0)
    torch.testing.assert_close(dgm.decode(Written(model), z), 3.0 * z)


def test_an_observation_without_a_mean_raises():
    case = PAIRS["vae_pixelcnn"]()
    with pytest.raises(
        NotImplementedError, match="site 'x': expected a distribution that has a mean"
    ):
        dgm.decode(case.model, torch.zeros(3, 2))


@pytest.mark.parametrize("name", ["steps", "num"])
def test_counts_below_one_raise(name):
    run = dgm.traverse if name == "steps" else dgm.decode
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        run(toy_vae().model, torch.zeros(3, 2), **{name: 0})
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        dgm.interpolate(toy_vae().model, torch.zeros(3, 2), torch.zeros(3, 2), steps=0)


@pytest.mark.parametrize("dims", [[2], [0, -3]])
def test_a_coordinate_that_the_latent_does_not_have_raises(dims):
    with pytest.raises(
        ValueError,
        match=rf"expected coordinates of a latent that has 2, got \[{dims[-1]}\]. Fix: dims=range\(2",
    ):
        dgm.traverse(toy_vae().model, torch.zeros(3, 2), dims=dims)


def test_one_number_in_place_of_coordinates_raises():
    with pytest.raises(
        TypeError, match=r"expected a sequence of coordinates, got 1. Fix: dims=\[0\]"
    ):
        dgm.traverse(toy_vae().model, torch.zeros(3, 2), dims=1)


def test_a_name_in_place_of_a_path_raises():
    with pytest.raises(
        TypeError,
        match=r"expected a function \(zeta0, .* got 'slerp'. Fix: path=dgm.diagnostics.slerp",
    ):
        dgm.interpolate(toy_vae().model, torch.zeros(3, 2), torch.ones(3, 2), path="slerp")


def test_a_program_that_needs_data_is_answered_with_what_helps():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    with pytest.raises(
        ValueError, match=r"expected model\(None\) to make data.*Fix: x=None in the model"
    ):
        dgm.traverse(model, torch.zeros(1, 2))
