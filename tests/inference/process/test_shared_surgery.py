"""Ranks that take the KL of a pair apart together, and the report that does so among other things."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from forked import run_ranks
from toys import same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.evaluation.latents import elbo_surgery
from pyro_dgm.evaluation.latents.pairwise import DiagonalNormal

NUM = 23


def data(num=NUM):
    return torch.randn(num, 3, generator=torch.Generator().manual_seed(3))


def several_sites():
    """A guide of two sites, which is run on every pair."""

    def model(x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            u = pyro.sample("u", dist.Normal(z[..., 0], 1.0))
            loc = torch.stack([u, z[..., 0], z[..., 1]], -1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(x[..., :2] / 2, 0.7).to_event(1))
            pyro.sample("u", dist.Normal((x[..., 0] + z[..., 0]) / 3, 0.6))

    return model, guide


def pair_of(name):
    if name == "several sites":
        return several_sites()
    vae = same_toy_vae(1)
    return vae.model, vae.guide


def figures(found):
    numbers = [(n, v.value, v.stderr) for n, v in vars(found).items() if hasattr(v, "stderr")]
    dims = None if found.kl_of_dims is None else found.kl_of_dims.tolist()
    return numbers, dims, (found.num, found.others, found.num_data, found.measure)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", ["one site", "several sites"])
@pytest.mark.parametrize("settings", [{"num": 100}, {"num": 7, "others": 11, "chunk": 30}])
def test_a_surgery_that_ranks_share_has_the_figures_of_one_process(name, world, settings):
    """Each draw's sum over the data is whole with one rank: rounding of float64 alone, of tiles of other sizes."""

    def work(rank):
        torch.manual_seed(rank)
        return figures(dgm.surgery(*pair_of(name), data(), **settings))

    expected = work(0)
    assert expected[0]
    for found in run_ranks(work, world):
        assert [n for n, *_ in found[0]] == [n for n, *_ in expected[0]]
        for own, other in zip(found[0], expected[0], strict=True):
            assert own[1:] == pytest.approx(other[1:], rel=1e-10, abs=1e-10)
        assert (found[1] is None) == (expected[1] is None)
        if expected[1] is not None:
            assert found[1] == pytest.approx(expected[1], rel=1e-10, abs=1e-10)
        assert found[2] == expected[2]


def test_each_rank_scores_its_own_draws():
    def work(rank):
        sizes, score = [], DiagonalNormal.__call__

        def counted(density, points):
            sizes.append(len(points))
            return score(density, points)

        DiagonalNormal.__call__ = counted
        dgm.surgery(*pair_of("one site"), data(), num=47, chunk=10_000)
        return sum(sizes)

    assert run_ranks(work, 2) == [34, 35]  # of 3 at each of 23 data
    assert run_ranks(work, 1) == [69]


def test_fewer_draws_than_ranks_are_scored_by_each():
    def work(rank):
        return figures(dgm.surgery(*pair_of("one site"), data(2), num=2))

    assert run_ranks(work, 3) == [work(0)] * 3


def test_what_one_rank_raises_ends_all():
    def work(rank):
        def failing(*arguments, **options):
            raise ValueError("rank 1 alone")

        if rank == 1:
            elbo_surgery.sum_over_others = failing
        dgm.surgery(*pair_of("one site"), data(), num=40)

    for found in run_ranks(work, 2):
        assert "rank 1 alone" in found


def test_a_report_on_several_ranks_is_that_of_one_process():
    def work(rank):
        report = dgm.check(*pair_of("one site"), data(60), num=50, num_simulated=200)
        return [(item.name, item.status.name, item.finding) for item in report.items]

    expected = work(0)
    assert len(expected) > 5
    assert run_ranks(work, 2) == [expected, expected]
