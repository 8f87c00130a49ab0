from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from pyro import poutine
from torch import nn
from toys import (
    BatchNorm,
    GlobalMean,
    GlobalMeanGuide,
    Series,
    SeriesGuide,
    Written,
    linear_gaussian,
    toy_vae,
)

import pyro_dgm as dgm
from pyro_dgm.inference.data.extremes import extreme_rows


@pytest.mark.parametrize(**over(PAIRS))
def test_every_pair_passes(build):
    case = build()
    report = dgm.preflight(case.model, case.guide, *case.batch(4))
    assert report.depth == 1
    assert report.observed == ("x",)
    assert "Sample Sites:" in report.table
    assert str(report).startswith(f"latent {list(report.latent)}, observed ['x'], plate depth 1")


def test_it_finds_the_plate_depth_and_the_sites():
    report = dgm.preflight(Series(), SeriesGuide(), torch.zeros(5, 3))
    assert (report.depth, report.latent, report.observed) == (2, ("z", "u"), ("x",))


def test_one_datum_is_enough():
    model, guide, x = linear_gaussian()
    assert dgm.preflight(model, guide, x[:1]).latent == ("z",)


class Fragile(dgm.Program):
    """A program whose run would move weights, buffers and seeds if it were let."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 3), BatchNorm(3), nn.Dropout())

    def forward(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


def fragile_guide(x):
    with dgm.data_plate(x):
        pyro.sample("z", dist.Normal(x, 1.0).to_event(1))


@pytest.mark.parametrize("validation", [True, False])
def test_it_leaves_seed_weights_buffers_modes_and_validation_as_they_are(validation):
    model = Fragile()
    model.net[2].eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    good, bad = torch.randn(4, 3), torch.randn(4, 2)
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    with pyro.validation_enabled(validation):
        dgm.preflight(model, fragile_guide, good)
        with pytest.raises(ValueError, match="the programs fail"):
            dgm.preflight(model, fragile_guide, bad)
        assert poutine.util.is_validation_enabled() is validation
        assert torch.distributions.Distribution._validate_args is validation
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


# What it refuses -----------------------------------------------------------------------------------------------------


def normal_guide(_, x):
    with dgm.data_plate(x):
        pyro.sample("z", dist.Normal(x.mean(1, keepdim=True), 1.0).to_event(1))


def normal_model(_, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(z.expand(*z.shape[:-1], 3), 1.0).to_event(1), obs=x)


def model_without_plate(_, x):
    z = pyro.sample("z", dist.Normal(torch.zeros(4, 1), 1.0).to_event(1))
    with dgm.data_plate(x):
        return pyro.sample("x", dist.Normal(z.expand(4, 3), 1.0).to_event(1), obs=x)


def model_with_other_site(_, x):
    with dgm.data_plate(x):
        pyro.sample("w", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)


def model_without_observation(_, x):
    with dgm.data_plate(x):
        return pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))


def model_with_delta(_, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample("x", dist.Delta(z.expand(*z.shape[:-1], 3)).to_event(1), obs=x)


def model_with_narrow_observation(_, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(z.expand(*z.shape[:-1], 2), 1.0).to_event(1), obs=x)


def model_with_wide_latent(_, x):
    with dgm.data_plate(x):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)


def model_that_forgets_to_event(_, x):
    with dgm.data_plate(x):
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(torch.zeros(4, 3), 1.0), obs=x)


def model_with_the_plate_elsewhere(_, x):
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x[:, None])


def model_with_a_wrong_plate_size(_, x):
    with pyro.plate("data", 1, dim=-1):
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample(
            "x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x.mean(0, keepdim=True)
        )


def model_with_a_plate_of_its_own(_, x):
    with dgm.data_plate(x):
        with pyro.plate("time", 1, dim=-2):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)


def model_that_does_not_broadcast(program, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample(
            "x", dist.Normal(torch.cat([z, torch.zeros(len(z), 2)], 1), 1.0).to_event(1), obs=x
        )


def model_that_crashes(_, x):
    raise RuntimeError("out of cheese")


BROKEN = {
    "site_outside_the_plate": (
        model_without_plate,
        r"site 'z': expected a site inside the plate 'data'.*data_plate\(",
    ),
    "other_latent_site": (
        model_with_other_site,
        r"expected the same latent sites, got \['w'\].*\['z'\].*same name",
    ),
    "no_observation": (
        model_without_observation,
        r"expected an observed site, got none. Fix: pyro.sample\('x'",
    ),
    "delta_observation": (
        model_with_delta,
        r"site 'x': a Delta observation has no density.*Fix: give an observation",
    ),
    "wrong_event_shape": (
        model_with_narrow_observation,
        r"site 'x': expected data of event shape \(2,\), got \(3,\).*Fix: reshape",
    ),
    "wrong_latent_event_shape": (
        model_with_wide_latent,
        r"site 'z': expected event_shape \(2,\) as in the model, got \(1,\) in the guide. Fix: one size",
    ),
    "forgotten_to_event": (
        model_that_forgets_to_event,
        r"site 'x'|[Ss]hape mismatch inside plate\('data'\)",
    ),
    "plate_at_another_dim": (
        model_with_the_plate_elsewhere,
        r"expected the plate 'data' at dim -1.*got dim -2.*Fix",
    ),
    "plate_of_another_size": (
        model_with_a_wrong_plate_size,
        r"site 'z': expected the plate 'data' over 4 data.*got a plate of 1. Fix",
    ),
    "plates_differ": (
        model_with_a_plate_of_its_own,
        r"site 'z': expected the same plates in both programs.*Fix",
    ),
    "crash": (
        model_that_crashes,
        r"the programs fail on a batch of shapes \[\(4, 3\)\]: out of cheese",
    ),
}


@pytest.mark.parametrize(("run", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_program_raises_with_the_site_and_the_fix(run, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        dgm.preflight(Written(run), Written(normal_guide), torch.randn(4, 3))


def test_a_program_that_does_not_broadcast_is_run_by_rows():
    structure = dgm.preflight(
        Written(model_that_does_not_broadcast), Written(normal_guide), torch.randn(4, 3)
    )
    assert "particles by rows" in str(structure)


def test_the_unbroken_program_passes():
    assert dgm.preflight(
        Written(normal_model), Written(normal_guide), torch.randn(4, 3)
    ).latent == ("z",)


def test_messages_end_with_the_table_of_site_shapes():
    with pytest.raises(ValueError, match=r"(?s)Sites of the model:.*Sample Sites:.*x dist"):
        dgm.preflight(Written(model_with_delta), Written(normal_guide), torch.randn(4, 3))


def test_a_delta_observation_is_refused_through_a_mask():
    def masked(program, x):
        with poutine.mask(mask=torch.ones(4, dtype=torch.bool)):
            return model_with_delta(program, x)

    with pytest.raises(ValueError, match="Delta observation"):
        dgm.preflight(Written(masked), Written(normal_guide), torch.randn(4, 3))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_data_that_are_not_finite_raise(bad):
    model, guide, x = linear_gaussian()
    x[2, 1] = bad
    with pytest.raises(
        ValueError, match=r"data\[0\]: expected finite values, got 1 NaN or infinite of 24. Fix:"
    ):
        dgm.preflight(model, guide, x)


def test_empty_data_raise():
    model, guide, x = linear_gaussian()
    with pytest.raises(
        ValueError, match=r"expected at least one datum, got a tensor of shape \(0, 4\)"
    ):
        dgm.preflight(model, guide, x[:0])


def test_context_that_is_not_finite_raises():
    case = PAIRS["vae_labels"]()
    x, c = case.batch(4)
    with pytest.raises(ValueError, match=r"data\[1\]: expected finite values"):
        dgm.preflight(case.model, case.guide, x, c / 0)


def test_data_of_another_width_raise_with_what_the_model_generates():
    vae = toy_vae()
    with pytest.raises(
        ValueError,
        match=r"(?s)batch of shapes \[\(4, 5\)\].*event shape \(3,\).*got \(5,\)\. Fix: networks for \(5,\)",
    ):
        dgm.preflight(vae.model, vae.guide, torch.randn(4, 5))


@pytest.mark.parametrize("num_rows", [1, 4])
def test_a_decoder_for_latents_of_another_size_than_the_priors_is_told_both_sizes(num_rows):
    decoder = dgm.Bernoulli(dgm.mlp(2, 9))
    vae = dgm.VAE(dgm.StandardNormal(4), decoder, dgm.Conditional(dist.Normal, dgm.mlp(9, 8)))
    with pytest.raises(ValueError, match=r"site 'z': expected 2 dims, .* got 4 by its prior") as e:
        dgm.preflight(vae.model, vae.guide, torch.ones(num_rows, 9))
    assert "a network that takes 4, mlp(4, …), or a prior of 2" in str(e.value)
    assert str(e.value).count("Fix:") == 1
    mended = dgm.VAE(
        dgm.StandardNormal(4),
        dgm.Bernoulli(dgm.mlp(4, 9)),
        dgm.Conditional(dist.Normal, dgm.mlp(9, 8)),
    )
    assert dgm.preflight(mended.model, mended.guide, torch.ones(num_rows, 9)).latent == ("z",)


def test_an_error_that_says_its_own_fix_gets_no_second_one():
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(9, 7))  # 7 outputs are no pairs
    vae = dgm.VAE(dgm.StandardNormal(4), dgm.Bernoulli(dgm.mlp(4, 9)), encoder)
    with pytest.raises(ValueError, match=r"nn\.Linear\(hidden, 2 \* D\)\.(\n\n|$)") as caught:
        dgm.preflight(vae.model, vae.guide, torch.ones(4, 9))
    assert str(caught.value).count("Fix:") == 1


class Labelled(Written):
    """A program with a further argument."""

    def forward(self, x=None, y=None):
        return self.run(self, x, y)


def guide_of_labelled(_, x, y):
    with dgm.data_plate(x):
        pyro.sample("z", dist.Normal(x.mean(1, keepdim=True), 1.0).to_event(1))


TAKE_LABELS = {
    "embedding": nn.Embedding(3, 3),
    "one_hot": lambda y: nn.functional.one_hot(y, 3),
    "index": lambda y: torch.eye(3)[y],
}


@pytest.mark.parametrize("take", TAKE_LABELS.values(), ids=list(TAKE_LABELS))
def test_real_labels_raise_with_the_shapes_of_the_data_and_the_fix_before_the_table(take):
    def labelled(_, x, y):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z + take(y), 1.0).to_event(1), obs=x)

    programs, x, y = (
        (Labelled(labelled), Labelled(guide_of_labelled)),
        torch.randn(9, 3),
        torch.zeros(9),
    )
    with pytest.raises(
        ValueError,
        match=r"(?s)\[\(9, 3\), \(9,\)\]: .*Fix: labels as integers, labels\.long\(\)\.(\n\nTrace Shapes:|$)",
    ):
        dgm.nll(*programs, x, y, num=2)
    assert dgm.nll(*programs, x, y.long(), num=2).per_datum.shape == (9,)


def test_data_of_another_dtype_than_the_networks_raise_with_the_fix():
    case = PAIRS["two_latents_bare"]()
    case.model.float(), case.guide.float()
    with pytest.raises(
        ValueError,
        match=r"(?s)the programs fail .*Fix: data of the networks' dtype, x\.float\(\)\.",
    ):
        dgm.nll(case.model, case.guide, torch.randn(4, 4, dtype=torch.float64))


def test_one_datum_raises_with_its_own_shape():
    vae = toy_vae()
    with pytest.raises(
        ValueError, match=r"(?s)batch of shapes \[\(5,\)\]: .*Fix: x\[None\] for one datum"
    ):
        dgm.nll(vae.model, vae.guide, torch.randn(5))


@pytest.mark.parametrize(
    ("pair", "value", "message"),
    [
        ("vae_flow", 9, r"site 'x': expected values in .*got from 0 to 9. Fix: levels=10 where"),
        (
            "vae_flow",
            -1,
            r"site 'x': expected values in .*got from -1 to 0. Fix: x - \(-1\) and levels=2",
        ),
        (
            "vae_flow",
            0.5,
            r"site 'x': expected integer levels in .*got non-integers from 0 to 0.5. Fix: \(x \*",
        ),
        (
            "vae_categorical",
            5,
            r"site 'x': expected values in .*got from 0 to 5. Fix: levels=6 where",
        ),
        (
            "vae_bernoulli",
            0.5,
            r"site 'x': expected binary values in \{0, 1\}, got grey values from 0 to 0.5. Fix: bin",
        ),
        (
            "vae_bernoulli",
            255,
            r"site 'x': expected binary values in \{0, 1\}, got grey values from 0 to 255. Fix: bin",
        ),
        ("vae_conv", 0.5, r"site 'x': expected binary values in \{0, 1\}, got grey values"),
    ],
)
def test_data_outside_the_support_raise(pair, value, message):
    case = PAIRS[pair]()
    x = torch.zeros_like(case.batch(4)[0], dtype=torch.get_default_dtype())
    x.view(-1)[-1] = value
    with pytest.raises(ValueError, match=message):
        dgm.preflight(case.model, case.guide, x)


def test_another_size_than_that_of_the_plate_raises():
    model, guide, x = linear_gaussian(size=60)
    with pytest.raises(ValueError, match=r"expected a data plate of size 50, got 60"):
        dgm.preflight(model, guide, x, size=50)
    assert dgm.preflight(model, guide, x, size=60).depth == 1


def test_the_size_of_the_plate_is_known_without_being_told():
    model, guide, x = linear_gaussian(size=60)
    assert dgm.preflight(model, guide, x).full_size == 60
    losses = []
    for size in (None, 60):
        objective = dgm.ELBO(model, guide, size=size)
        objective.preflight(x)
        torch.manual_seed(0)
        losses.append(objective(x))
    assert losses[0] == losses[1]


def test_a_global_site_is_shown_as_one():
    x = torch.randn(6)
    for size in (None, 30):
        structure = dgm.preflight(GlobalMean(size), GlobalMeanGuide(size), x)
        assert structure.latent == ("mu", "z")
        assert structure.shared == ("mu",)
        assert structure.has_globals
        assert structure.full_size == size


def test_a_global_site_beside_a_plate_without_size_raises():
    with pytest.raises(ValueError, match=r"expected a data plate of size 30, got 6"):
        dgm.preflight(GlobalMean(), GlobalMeanGuide(), torch.randn(6), size=30)


# The rows that a check of data in memory looks at ------------------------------------------------------------------


def test_extreme_rows_hold_the_smallest_the_largest_and_the_least_integer_value():
    x = torch.full((100, 2, 3), 4.0)
    x[70, 1, 2], x[81, 0, 0], x[92, 1, 1] = -1, 9, 4.5
    rows = extreme_rows(x, 10)
    assert {70, 81, 92} <= set(rows.tolist())
    assert len(rows) == len(set(rows.tolist())) == 10


@pytest.mark.parametrize("num", [1, 2, 3])
def test_extreme_rows_are_never_cut_off(num):
    x = torch.full((100, 2), 4.0)
    x[70, 1], x[81, 0], x[92, 1] = -1, 9, 4.5
    assert {70, 81, 92} <= set(extreme_rows(x, num).tolist())


@pytest.mark.parametrize("dtype_", [torch.uint8, torch.int64, torch.bool, torch.float32])
def test_extreme_rows_take_every_dtype_of_data(dtype_):
    assert len(extreme_rows(torch.ones(5, 2).to(dtype_), 4)) == 4


def test_labels_that_the_programs_do_not_take_raise_with_the_fix():
    vae = toy_vae()
    with pytest.raises(
        ValueError, match=r"(?s)got 2\. Fix: drop the labels, or take them .*Concat"
    ):
        dgm.preflight(vae.model, vae.guide, torch.randn(4, 3), torch.zeros(4))


def test_a_missing_to_event_raises_with_the_fix():
    class Model(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x):
                return pyro.sample("x", dist.Normal(torch.zeros(3), 1.0), obs=x)

    with pytest.raises(ValueError, match=r"(?s)Fix: \.to_event\(1\)"):
        dgm.preflight(Model(), dgm.EmptyGuide(), torch.randn(4, 3))


@pytest.mark.parametrize("dtype_of_data", [torch.bool, torch.uint8, torch.int64])
def test_zeros_and_ones_of_any_dtype_are_data_of_a_bernoulli(dtype_of_data):
    model = dgm.DensityModel(dgm.Bernoulli(Constant()))
    x = torch.ones(4, 3, dtype=dtype_of_data)
    assert dgm.preflight(model, dgm.EmptyGuide(), x).measure.value == "mass"
    right = torch.full((4,), 3 * log(2.0), dtype=torch.float64)
    torch.testing.assert_close(
        dgm.nll(model, dgm.EmptyGuide(), x).per_datum, right, rtol=1e-6, atol=0
    )


def test_a_density_that_fails_on_the_dtype_of_the_data_raises_with_the_fix():
    class OfFloats(dist.Normal):
        def log_prob(self, value):
            if value.dtype != torch.get_default_dtype():
                raise RuntimeError("wrong dtype")
            return super().log_prob(value)

    model = dgm.DensityModel(
        dgm.Conditional(OfFloats, Constant(), params=("loc",), fixed={"scale": 1.0})
    )
    x = torch.ones(4, 3).to(torch.float32)
    other = x.double() if torch.get_default_dtype() == torch.float32 else x
    with pytest.raises(ValueError, match=r"(?s)site 'x': .*dtype torch\..*Fix: .*x\.double\(\)"):
        dgm.preflight(model, dgm.EmptyGuide(), other)


class Constant(nn.Module):
    """Logits that depend on nothing."""

    def forward(self, *_):
        return torch.zeros(3)


def test_data_of_another_shape_and_the_same_size_raise_with_the_fix():
    vae = toy_vae()
    with pytest.raises(ValueError, match=r"(?s)got \(3, 1\)\. Fix: x\.flatten\(1\)"):
        dgm.preflight(vae.model, vae.guide, torch.randn(4, 3, 1))


@pytest.mark.parametrize("estimate", [dgm.nll, dgm.impute])
def test_draws_that_are_nan_are_named_as_such(estimate):
    """And not as a family of the wrong support."""
    vae, x = toy_vae(), torch.zeros(4, 3)
    with torch.no_grad():
        next(vae.guide.parameters()).fill_(torch.nan)
    options = {"observed": torch.arange(3) < 2} if estimate is dgm.impute else {}
    with pytest.raises(ValueError, match=r"site 'z': .* numbers, got \d+ NaN of \d+.*Fix: weights"):
        estimate(vae.model, vae.guide, x, **options)
