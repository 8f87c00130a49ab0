"""Weights of blocks of data: the same figure whatever the memory, from a loader, and by kernels."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyro_dgm as dgm
from pyro_dgm.evaluation.likelihood import scoring
from pyro_dgm.inference.run import blocks
from pyro_dgm.inference.run.blocks import rows_of_block, sizes_of_parts
from pyro_dgm.inference.training.compiled import functions


def vae(flow=False):
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(6, 8, 4))
    if flow:
        encoder = dgm.Flow(encoder, dgm.flows.iaf(2, 2, context=6), nn.Identity())
    return dgm.VAE(dgm.StandardNormal(2), dgm.Bernoulli(dgm.mlp(2, 8, 6)), encoder)


class WithPlates(nn.Module):
    """Three latents of each datum in a plate beside that of the data."""

    def forward(self, x):
        with dgm.data_plate(x), pyro.plate("parts", 3, dim=-2):
            return pyro.sample("z", dist.Normal(x.mean(-1), 1.0))


class OfPlates(nn.Module):
    def forward(self, x=None):
        with dgm.data_plate(x):
            with pyro.plate("parts", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = z.sum(-2)[..., None].expand(*z.shape[:-2], z.shape[-1], 6)
            return pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def pair(name):
    if name == "plates":
        return OfPlates(), WithPlates()
    whole = vae(flow=name == "flow")
    return whole.model, whole.guide


def data(num=5):
    return torch.rand(num, 6).bernoulli()


def require_same(found, expected):
    for field in ("per_datum", "monte_carlo", "ess", "khat", "nelbo", "kl"):
        value, truth = getattr(found, field), getattr(expected, field)
        torch.testing.assert_close(value, truth, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", ["vae", "flow", "plates"])
@pytest.mark.parametrize("num", [3, 40])
@pytest.mark.parametrize("chunk", [1, 4, 7, 33, 199])
def test_the_figure_is_the_same_whatever_the_chunk(name, num, chunk, monkeypatch):
    monkeypatch.setattr(blocks, "ON_A_CPU", 30)  # also with parts of blocks
    model, guide = pair(name)
    x = data()
    expected = dgm.nll(model, guide, x, num=num)
    require_same(dgm.nll(model, guide, x, num=num, chunk=chunk), expected)


def test_the_figure_of_a_loader_is_that_of_its_data():
    model, guide = pair("vae")
    x = data(50)
    loader = DataLoader(TensorDataset(x), batch_size=7)
    expected = dgm.nll(model, guide, x, num=100)
    require_same(dgm.nll(model, guide, loader, num=100, chunk=90), expected)


def test_a_block_draws_what_it_would_draw_without_the_others(monkeypatch):
    """Whoever scores the first two data: the third has the noise of its own block."""
    model, guide = pair("vae")
    x = data(3)
    monkeypatch.setattr(blocks, "ON_A_CPU", 20)
    expected = dgm.nll(model, guide, x, num=20).per_datum
    changed = torch.cat([1 - x[:2], x[2:]])
    found = dgm.nll(model, guide, changed, num=20).per_datum
    assert found[2] == expected[2]
    assert (found[:2] != expected[:2]).all()


def test_a_block_holds_as_many_pairs_as_it_may():
    cpu = torch.device("cpu")
    assert rows_of_block(1000, cpu) == 2
    assert sum(sizes_of_parts(4500, 3, cpu)) == 4500
    assert max(sizes_of_parts(4500, 3, cpu)) * 3 <= blocks.ON_A_CPU


def test_a_mixture_in_pieces_has_the_same_distribution():
    """Sums over discrete sites are drawn in pieces: other noise, and the exact figure where no draw matters."""
    torch.manual_seed(0)

    @pyro.infer.config_enumerate
    def model(x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Bernoulli(0.3))
            return pyro.sample("x", dist.Normal(4 * c, 1.0), obs=x)

    x = torch.randn(9)
    whole = dgm.nll(model, dgm.EmptyGuide(), x, num=2)
    torch.testing.assert_close(
        dgm.nll(model, dgm.EmptyGuide(), x, num=2, chunk=4).per_datum, whole.per_datum
    )


@pytest.fixture(params=["script", pytest.param("kernels", marks=pytest.mark.slow)])
def compiled(request, monkeypatch):
    if request.param == "script":  # which takes no compiler
        monkeypatch.setattr(functions, "LONG", 0)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", ["vae", "flow"])
def test_kernels_give_the_figure_of_the_programs(name, monkeypatch):
    monkeypatch.setattr(blocks, "ON_A_CPU", 64)  # five full parts, and one that is not
    model, guide = pair(name)
    x = data(11)
    expected = dgm.nll(model, guide, x, num=32, compile=False)
    found = dgm.nll(model, guide, x, num=32, compile=True)
    require_same(found, expected)
    assert (found.measure, found.kind) == (expected.measure, expected.kind)


@pytest.mark.usefixtures("compiled")
def test_kernels_are_taken_for_the_parts_that_come_after_many(monkeypatch):
    monkeypatch.setattr(blocks, "ON_A_CPU", 30)
    monkeypatch.setattr(scoring, "MANY", 2)
    model, guide = pair("vae")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    x = data(6)
    expected = dgm.nll(model, guide, x, num=30, compile=False)
    num = len(calls)
    calls.clear()
    require_same(dgm.nll(model, guide, x, num=30), expected)
    assert len(calls) == num - 4 + 2  # four parts by kernels, after a capture and a comparison


def test_programs_that_read_a_value_are_scored_without_kernels_unless_they_are_asked_for(
    monkeypatch,
):
    monkeypatch.setattr(scoring, "MANY", 0)
    model, _ = pair("vae")

    class Branching(nn.Module):
        def forward(self, x):
            with dgm.data_plate(x):
                scale = 1.0 if x.sum().item() > 0 else 2.0
                mean = x[..., :2]
                return pyro.sample("z", dist.Normal(mean, scale).to_event(1))

    x = data()
    guide = Branching()
    expected = dgm.nll(model, guide, x, num=9, compile=False)
    require_same(dgm.nll(model, guide, x, num=9, compile="auto"), expected)
    with pytest.raises(ValueError, match="compile=False"):
        dgm.nll(model, guide, x, num=9, compile=True)


@pytest.mark.usefixtures("compiled")
def test_draws_that_were_rounded_are_seen_by_kernels_and_in_pieces():
    model, _ = pair("vae")

    class Collapsed(nn.Module):
        def forward(self, x):
            with dgm.data_plate(x):
                return pyro.sample("z", dist.Normal(3.0 + x[..., :2], 1e-30).to_event(1))

    x = data()
    for options in ({"compile": True}, {"chunk": 7}):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            dgm.nll(model, Collapsed(), x, num=20, **options)
        assert any("collapsed" in str(w.message) for w in found), options


@pytest.mark.parametrize("estimate", [dgm.ais, dgm.hmc])
def test_an_option_that_means_nothing_is_refused(estimate):
    model, guide = pair("vae")
    with pytest.raises(ValueError, match="expected True, False or 'auto', got 'fast'"):
        dgm.nll(model, guide, data(), num=3, compile="fast")
    with pytest.raises(ValueError, match="expected True, False or 'auto', got 'fast'"):
        estimate(model, data(), compile="fast")
