"""All pairs log q(z_i | x_j) against the guide run on one pair after the other."""

import warnings

import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over, randomize
from conftest import in_float64
from pyro import poutine
from torch import nn
from toys import SeriesGuide, Written

import pyro_dgm as dgm
from pyro_dgm.densities.factors import independent_dims
from pyro_dgm.evaluation.latents import aggregate
from pyro_dgm.evaluation.latents.aggregate import Stopwatch, sum_over_others
from pyro_dgm.evaluation.latents.pairwise import (
    DiagonalNormal,
    OneSite,
    Points,
    SeveralSites,
    pairwise_density,
)
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.run.traces import latent_sites, log_density

NOT_SCORED = {"vae_one_way", "density_flow", "density_dequantized", "density_image"}
NOISY = {"vae_dequantized", "vae_image_flow"}
SCORED = {n: b for n, b in PAIRS.items() if n not in NOT_SCORED | NOISY}


def points_of(guide, batch, depth=1) -> Points:
    """One draw for each datum, `(N, *plates, *event)`."""
    trace = poutine.trace(guide).get_trace(*batch)
    values = {}
    for name, site in latent_sites(trace).items():
        value = site["value"].detach()
        value = value.reshape(*[1] * (depth - len(site["fn"].batch_shape)), *value.shape)
        values[name] = value.movedim(depth - 1, 0)
    return Points(values, torch.arange(len(batch[0])))


def one_by_one(guide, batch, points):
    """log q(z_i | x_j) by conditioning the guide on one draw and running it on one datum."""
    rows = []
    for i in range(len(points)):
        row = []
        for j in range(len(batch[0])):
            given = {
                n: v[i].unsqueeze(v.dim() - 1 - num_event(guide, batch)[n])
                for n, v in points.values.items()
            }
            trace = poutine.trace(poutine.condition(guide, data=given)).get_trace(
                *(b[j : j + 1] for b in batch)
            )
            row.append(sum(log_density(trace.nodes[n]).sum() for n in given))
        rows.append(torch.stack(row))
    return torch.stack(rows).detach()


def num_event(guide, batch):
    with fork_rng():
        trace = poutine.trace(guide).get_trace(*batch)
    return {n: len(s["fn"].event_shape) for n, s in latent_sites(trace).items()}


@in_float64
@pytest.mark.parametrize(**over(SCORED))
@torch.no_grad()
def test_all_pairs_equal_the_guide_run_on_each_pair(build):
    case = build()
    guide = randomize(case.guide)
    batch = case.batch(4)
    points = points_of(guide, batch)
    found = pairwise_density(guide, batch, list(points.values), 1)(points)
    torch.testing.assert_close(found, one_by_one(guide, batch, points), rtol=1e-8, atol=1e-8)


@in_float64
@torch.no_grad()
def test_a_guide_with_a_further_plate_is_scored_on_each_pair():
    guide, batch = SeriesGuide(), (torch.randn(4, 3),)
    points = points_of(guide, batch, depth=2)
    assert points.values["u"].shape == (4, 3)
    found = pairwise_density(guide, batch, ["z", "u"], 2)(points)
    torch.testing.assert_close(found, one_by_one(guide, batch, points), rtol=1e-10, atol=1e-10)


class Normals(nn.Module):
    """Diagonal normals whose locations and scales differ by orders of magnitude."""

    def forward(self, x):
        return dist.Normal(30.0 + 5 * x, 0.01 + x.square()).to_event(x.dim() - 1)


@in_float64
@pytest.mark.parametrize("event", [(3,), (2, 2)])
def test_matrix_products_agree_with_log_prob(event):
    """Also by dim, and for events of several dims."""
    guide, x = dgm.AmortizedGuide(Normals()), torch.randn(20, *event)
    points = points_of(guide, (x,))
    fast = pairwise_density(guide, (x,), ["z"], 1)
    assert type(fast) is DiagonalNormal
    slow = OneSite("z", latent_sites(poutine.trace(guide).get_trace(x))["z"])
    torch.testing.assert_close(fast(points), slow(points), rtol=1e-8, atol=1e-8)
    for found, expected in zip(fast.dims(points), slow.dims(points), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sum(slow.dims(points)), slow(points), rtol=1e-10, atol=1e-10)


def test_the_type_of_the_distribution_chooses_how_pairs_are_scored():
    roads = {"vae_normal": DiagonalNormal, "vae_realnvp": OneSite, "two_latents_bare": SeveralSites}
    for name, road in roads.items():
        case = PAIRS[name]()
        batch = case.batch(3)
        assert (
            type(pairwise_density(case.guide, batch, list(points_of(case.guide, batch).values), 1))
            is road
        )

    class Shifted(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value) + 1.0

    guide = Written(lambda self, x: _sampled(x, Shifted(x, 1.0).to_event(1)))
    assert type(pairwise_density(guide, (torch.randn(3, 2),), ["z"], 1)) is OneSite


def _sampled(x, law):
    import pyro

    with dgm.data_plate(x):
        return pyro.sample("z", law)


@in_float64
@pytest.mark.parametrize("chunk", [1, 3, 7, 40, 1000])
@pytest.mark.parametrize("name", ["vae_normal", "vae_realnvp", "two_latents_bare"])
@torch.no_grad()
def test_sums_leave_out_a_draws_own_datum_whatever_the_chunks(name, chunk):
    case = PAIRS[name]()
    guide, batch = randomize(case.guide), case.batch(6)
    points = points_of(guide, batch)[slice(1, 5)]
    log_q = pairwise_density(guide, batch, list(points.values), 1)(points).double()
    for others in (torch.arange(6), torch.tensor([5, 2, 0])):
        found = sum_over_others(guide, batch, points, others, 1, chunk, dims=name == "vae_normal")
        kept = [[j for j in others.tolist() if j != i] for i in range(1, 5)]
        expected = torch.stack([log_q[i, row].logsumexp(0) for i, row in enumerate(kept)])
        torch.testing.assert_close(found.joint, expected, rtol=1e-9, atol=1e-9)
        assert found.num.tolist() == [len(row) for row in kept]
        assert found.dims.shape == (4, 2 if name == "vae_normal" else 0)


@in_float64
@torch.no_grad()
def test_at_most_chunk_pairs_are_in_memory(monkeypatch):
    case = PAIRS["vae_realnvp"]()
    batch, sizes = case.batch(9), []
    points, scored = points_of(case.guide, batch), OneSite.__call__
    monkeypatch.setattr(
        OneSite,
        "__call__",
        lambda self, p: sizes.append(scored(self, p).numel()) or scored(self, p),
    )
    sum_over_others(case.guide, batch, points, torch.arange(9), 1, 20, dims=False)
    assert max(sizes) <= 20
    assert sum(sizes) == 81


def test_factors_are_found_below_any_number_of_event_dims():
    normal = dist.Normal(torch.zeros(2, 3, 4), 1.0)
    assert independent_dims(normal.to_event(2)).event_shape == ()
    assert independent_dims(normal.to_event(1).to_event(1)).event_shape == ()
    assert independent_dims(dist.Dirichlet(torch.ones(2, 3)).to_event(1)) is None
    assert independent_dims(normal) is None


def test_dims_that_have_no_density_of_their_own_are_refused_with_the_fix():
    case = PAIRS["two_latents_bare"]()
    batch = case.batch(3)
    points = points_of(case.guide, batch)
    several = pairwise_density(case.guide, batch, list(points.values), 1)
    with pytest.raises(NotImplementedError, match=r"one latent site.*Fix: dims=False, or override"):
        several.dims(points)
    correlated = dgm.MultivariateNormal(dgm.mlp(3, 4, 9), 3)
    guide, x = dgm.AmortizedGuide(correlated), torch.randn(3, 3)
    one = pairwise_density(guide, (x,), ["z"], 1)
    with pytest.raises(ValueError, match=r"site 'z': expected a distribution whose dims are indep"):
        next(one.dims(points_of(guide, (x,))))


def test_a_long_run_is_announced_once_with_its_cost(monkeypatch):
    times = iter([900.0, 910.0, 920.0])
    monkeypatch.setattr(aggregate, "perf_counter", lambda: next(times))
    watch = Stopwatch(1_000_000)
    watch.count(1000)  # of the slow start nothing is told
    with pytest.warns(
        UserWarning, match=r"1,000,000 pairs \(z_i, x_j\) at 1e\+04 µs each .* about 167 minutes"
    ):
        watch.count(1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.count(1000)


def test_a_short_run_is_silent(monkeypatch):
    times = iter([0.0, 1.0, 700.0])
    monkeypatch.setattr(aggregate, "perf_counter", lambda: next(times))
    watch = Stopwatch(1200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.count(200)
        watch.count(500)
        watch.count(500)
    assert watch.left == 0
