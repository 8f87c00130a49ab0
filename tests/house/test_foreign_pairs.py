"""Pairs as others write them: each gives the number that is known in closed form, or a refusal with its fix.

The toy is z ~ N(0, I), x | z ~ N(z, I) in two dims, so that x ~ N(0, 2 I) and z | x ~ N(x / 2, I / 2). Its guide has a
variance of 0.55 in place of 0.5, so that weights vary and the bound has a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

import pyro_dgm as dgm
from pyro_dgm.diagnostics import CollapsedWarning

N, D = 64, 2
VARIANCE = 0.55


def data() -> Tensor:
    return 2**0.5 * torch.randn(N, D, generator=torch.Generator().manual_seed(0))


def evidence(x: Tensor) -> float:
    """−log p(x), nats per datum."""
    return D / 2 * log(4 * pi) + (x**2).sum(1).mean().item() / 4


def nelbo(x: Tensor) -> float:
    """−ELBO of the guide: evidence and KL(q | p(z | x))."""
    ratio = VARIANCE / 0.5
    return evidence(x) + D / 2 * (ratio - 1 - log(ratio))


class Program(dgm.Program):
    """A function of the model's or guide's arguments as a program with a weight."""

    def __init__(self, run: Callable[..., Any]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.run = run

    def forward(self, x: Tensor | None = None) -> Any:
        return self.run(x)


def prior() -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(D), 1.0).to_event(1)


def given(z: Tensor) -> dist.TorchDistribution:
    return dist.Normal(z, 1.0).to_event(1)


def model_with(body: Callable[[Tensor, Tensor | None], Any]) -> Program:
    def run(x: Tensor | None) -> Any:
        with dgm.data_plate(x):
            return body(pyro.sample("z", prior()), x)

    return Program(run)


def observe(z: Tensor, x: Tensor | None) -> Tensor:
    return pyro.sample("x", given(z), obs=x)


def draw_code(x: Tensor) -> Tensor:
    return pyro.sample("z", dist.Normal(x / 2, VARIANCE**0.5).to_event(1))


def guide_with(body: Callable[[Tensor], Any]) -> Program:
    def run(x: Tensor) -> Any:
        with dgm.data_plate(x):
            return body(x)

    return Program(run)


MODEL, GUIDE = model_with(observe), guide_with(draw_code)


# -- factors, named values, scales, return values ----------------------------------------------------
def with_factor(z: Tensor, x: Tensor | None) -> Tensor:
    pyro.factor("extra", 0.7 * torch.ones(z.shape[:-1]))
    return observe(z, x)


def with_named_value(z: Tensor, x: Tensor | None) -> Tensor:
    loc = pyro.deterministic("loc", 1.0 * z, event_dim=1)
    observe(loc, x)
    return loc


def scaled_prior(x: Tensor | None) -> Tensor:
    with dgm.data_plate(x):
        with poutine.scale(scale=0.1):
            z = pyro.sample("z", prior())
        return observe(z, x)


def factor_of_guide(x: Tensor) -> None:
    z = draw_code(x)
    pyro.factor("pull", -3 * torch.ones(z.shape[:-1]), has_rsample=True)


def scaled_guide(x: Tensor) -> None:
    with poutine.scale(scale=0.1):
        draw_code(x)


def fixed_plate(x: Tensor | None) -> Tensor:
    with pyro.plate("data", N, dim=-1):
        return observe(pyro.sample("z", prior()), x)


def fixed_plate_of_guide(x: Tensor) -> Tensor:
    with pyro.plate("data", N, dim=-1):
        return draw_code(x)


PAIRS = {
    "plain": (MODEL, GUIDE, 0.0),
    "factor of the model": (model_with(with_factor), GUIDE, -0.7),
    "factor of the guide": (MODEL, guide_with(factor_of_guide), 0.0),
    "named value, which is returned": (model_with(with_named_value), GUIDE, 0.0),
    "scaled": (Program(scaled_prior), guide_with(scaled_guide), 0.0),
    "plates of a fixed size": (Program(fixed_plate), Program(fixed_plate_of_guide), 0.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_nll_is_the_evidence_with_the_factor_of_the_model(name):
    model, guide, extra = PAIRS[name]
    x = data()
    for chunk in (20_000, 1000):
        score = dgm.nll(model, guide, x, num=1000, chunk=chunk)
        assert score.mean == pytest.approx(evidence(x) + extra, abs=0.01)
        assert len(score.per_datum) == N


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("objective", [dgm.ELBO, dgm.IWELBO])
def test_nelbo_is_the_bound_whatever_the_loss(name, objective):
    model, guide, extra = PAIRS[name]
    x = data()
    bound = objective(model, guide, 1)
    bound.preflight(x)
    found = torch.stack([bound.terms(x)["nelbo"] for _ in range(300)])
    error = found.std().item() / 300**0.5
    assert found.mean().item() == pytest.approx(nelbo(x) + extra, abs=5 * error)


def test_the_loss_has_the_factor_of_the_guide_as_trace_elbo_has_it():
    model, guide, _ = PAIRS["factor of the guide"]
    x = data()
    pyro.set_rng_seed(1)
    ours = dgm.ELBO(model, guide)(x).item()
    pyro.set_rng_seed(1)
    theirs = pyro.infer.Trace_ELBO().loss(model, guide, x) / N
    assert ours == pytest.approx(theirs, rel=1e-6)


RETURNS = {
    "twice the data": lambda z, x: 2 * observe(z, x),
    "a pair": lambda z, x: (z, observe(z, x)),
    "the code": lambda z, x: (observe(z, x), z)[1],
    "nothing": lambda z, x: (observe(z, x), None)[1],
}


@pytest.mark.parametrize("name", RETURNS)
def test_generate_draws_the_observed_site_whatever_the_program_returns(name):
    x = dgm.generate(model_with(RETURNS[name]), 20_000)
    assert x.shape == (20_000, D)
    assert x.var().item() == pytest.approx(2.0, abs=5 * 2 * (2 / 40_000) ** 0.5)


def test_sbc_passes_for_an_exact_guide_whatever_the_model_returns():
    def exact(x: Tensor) -> Tensor:
        return pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    model = model_with(RETURNS["the code"])
    assert dgm.sbc(model, guide_with(exact), num_data=500, num_draws=50).passed(1e-4)


def subsample(x: Tensor | None) -> Tensor:
    with pyro.plate("data", N, subsample_size=16, dim=-1) as rows:
        z = pyro.sample("z", prior())
        return observe(z, None if x is None else x[rows])


def subsample_of_guide(x: Tensor) -> Tensor:
    with pyro.plate("data", N, subsample_size=16, dim=-1) as rows:
        return draw_code(x[rows])


@pytest.mark.parametrize("estimate", [dgm.nll, dgm.to_arviz])
def test_a_plate_that_subsamples_is_refused(estimate):
    with pytest.raises(ValueError, match="Fix: "):
        estimate(Program(subsample), Program(subsample_of_guide), data(), num=5)


# -- point masses, and densities of integers ---------------------------------------------------------
POINTS = {
    "event": lambda point: point,
    "mask": lambda point: point.mask(torch.tensor(True)),
    "affine": lambda point: dist.TransformedDistribution(
        point.base_dist, [dist.transforms.AffineTransform(0.0, 1.0)]
    ).to_event(1),
}


def point_guide(name: str) -> Program:
    wrap = POINTS[name]
    return guide_with(lambda x: pyro.sample("z", wrap(dist.Delta(x / 2).to_event(1))))


@pytest.mark.parametrize("name", POINTS)
def test_a_point_mass_gives_a_joint_density_that_nothing_takes_for_a_likelihood(name):
    guide, x = point_guide(name), data()
    score = dgm.nll(MODEL, guide, x, num=50)
    assert "joint density at a point" in str(score)
    assert "upper" not in str(score)
    others = {
        "compare": lambda: dgm.compare_elpd({"a": score, "b": dgm.nll(MODEL, GUIDE, x, num=50)}),
        "surgery": lambda: dgm.surgery(MODEL, guide, x),
        "ais": lambda: dgm.ais(MODEL, x, start=guide, num=10, steps=10),
        "bits": lambda: score.bits_per_dim(D),
    }
    for call in others.values():
        with pytest.raises(ValueError, match="(?s)point.*Fix: "):
            call()


def test_a_density_of_integers_is_no_mass():
    x = torch.randint(0, 3, (N, D)).to(torch.get_default_dtype())
    narrow = dist.Normal(torch.arange(3.0).expand(D, 3), 1e-3)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(D, 3)), narrow).to_event(1)
    uniform = dist.Categorical(torch.ones(D, 3) / 3).to_event(1)
    scores = {}
    for name, law in {"mass": uniform, "density": mixture}.items():
        model = guide_with(lambda x, law=law: pyro.sample("x", law, obs=x))
        scores[name] = dgm.nll(model, dgm.EmptyGuide(), x)
    assert scores["mass"].bits_per_dim(D).value == pytest.approx(log(3) / log(2))
    with pytest.raises(ValueError, match="(?s)density on levels.*Fix: "):
        scores["density"].bits_per_dim(D)
    with pytest.raises(ValueError, match="(?s)measure.*Fix: "):
        dgm.compare_elpd(scores)


# -- networks that are written for rows, or mix them ---------------------------------------------------
CONVOLUTION = nn.Conv1d(1, 1, 3, padding=1).double()
GROUPS = nn.GroupNorm(2, 8).double()
TWINS = {
    "normalize over dim 1": (
        lambda h: nn.functional.normalize(h, dim=1),
        lambda h: nn.functional.normalize(h, dim=-1),
    ),
    "cumsum over dim 1": (lambda h: h.cumsum(1) / 4, lambda h: h.cumsum(-1) / 4),
    "group norm": (GROUPS, lambda h: GROUPS(h.reshape(-1, 8)).reshape(h.shape)),
    "flatten": (lambda h: h.view(len(h), 2, 4).flatten(1), lambda h: h),
    "index of dim 1": (lambda h: h[:, torch.arange(7, -1, -1)], lambda h: h.flip(-1)),
    "convolution": (
        lambda h: CONVOLUTION(h.unsqueeze(1)).squeeze(1),
        lambda h: CONVOLUTION(h.reshape(-1, 1, 8)).reshape(h.shape),
    ),
}
MIXING = {
    "the mean of the batch": lambda h: h - h.mean(0, keepdim=True),
    "softmax over the batch": lambda h: h.softmax(0),
}


def pair_of(act: Callable[[Tensor], Tensor]) -> tuple[Program, dgm.AmortizedGuide]:
    """A decoder that ends in a function, and an encoder; the same weights for all functions."""
    torch.manual_seed(5)
    decoder, encoder = nn.Linear(2, 8), nn.Linear(8, 4)
    model = model_with(lambda z, x: pyro.sample("x", given(act(decoder(z))), obs=x))
    return model, dgm.AmortizedGuide(dgm.Conditional(dist.Normal, encoder))


@pytest.mark.parametrize("name", TWINS)
def test_a_network_written_for_rows_gives_the_numbers_of_its_twin(name):
    x = torch.randn(6, 8)
    by_rows, twin = (pair_of(act) for act in TWINS[name])
    scores = [dgm.nll(*pair, x, num=50).per_datum for pair in (by_rows, twin)]
    torch.testing.assert_close(scores[0], scores[1])
    losses = []
    for pair in (by_rows, twin):
        torch.manual_seed(1)
        bound = dgm.ELBO(*pair, num_particles=20)
        bound.preflight(x)
        losses.append(bound(x))
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("name", MIXING)
def test_a_network_that_mixes_data_has_no_number_of_one_datum(name):
    with pytest.raises(ValueError, match="(?s)depends on that datum alone.*Fix: "):
        dgm.nll(*pair_of(MIXING[name]), torch.randn(6, 8), num=50)


# -- figures that are none ---------------------------------------------------------------------------
def test_a_figure_that_is_no_number_is_refused():
    """A scale below the rounding of z: log q is infinite at its own draws."""
    guide = guide_with(lambda x: pyro.sample("z", dist.Normal(x / 2, 1e-320).to_event(1)))
    refusal = "(?s)expected -log p.x. as numbers, got NaN or -inf.*Fix: "
    with (
        pytest.warns(CollapsedWarning, match="rounding collapsed"),
        pytest.raises(ValueError, match=refusal),
    ):
        dgm.nll(MODEL, guide, data(), num=50)


def test_models_with_factors_are_not_ranked_against_each_other():
    model, guide, _ = PAIRS["factor of the model"]
    score = dgm.nll(model, guide, data(), num=50)
    with pytest.raises(ValueError, match="(?s)constant of its own.*Fix: "):
        dgm.compare_elpd({"a": score, "b": score})


def test_a_mixture_of_a_mass_and_a_density_by_mask_is_neither():
    mask = torch.tensor([True, False])
    law = dist.MaskedMixture(
        mask, dist.Normal(torch.zeros(N, D), 1.0), dist.Bernoulli(torch.full((N, D), 0.5))
    ).to_event(1)
    model = guide_with(lambda x: pyro.sample("x", law, obs=x))
    x = torch.stack([torch.randint(0, 2, (N,)).double(), torch.randn(N)], 1)
    score = dgm.nll(model, dgm.EmptyGuide(), x)
    assert "mass and density" in str(score)
    with pytest.raises(ValueError, match="Fix: "):
        score.bits_per_dim(D)
