"""Compression of what is unusual: few data, huge counts, narrow guides; refusals of what would be silently wrong."""

from dataclasses import dataclass, replace
from math import log

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.files.errors import FileError
from pyro_dgm.results import Compressed

N, D, Z = 30, 6, 2


def bits(num=N):
    return (torch.rand(num, D) < 0.3).double()


def vae(num_latents=Z):
    likelihood = dgm.Bernoulli(dgm.mlp(num_latents, 8, D))
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(D, 8, 2 * num_latents))
    return dgm.VAE(dgm.StandardNormal(num_latents), likelihood, encoder)


def no_latents(law):
    """A model of x alone: the same law for each datum."""

    def model(x=None):
        with dgm.data_plate(x):
            pyro.sample("x", law, obs=x)

    return model, dgm.EmptyGuide()


def test_counts_in_the_thousands_take_the_bits_of_their_masses():
    """All masses in one call: one for each of 5,000 took minutes."""
    law = dist.Poisson(torch.full((2,), 4_900.0)).to_event(1)
    x = torch.full((40, 2), 4_900.0)
    x[0, 0] = 5_300.0  # six standard deviations up, so that nothing of weight is ruled out
    model, guide = no_latents(law)
    compressed = dgm.compress(model, guide, x)
    assert torch.equal(dgm.decompress(model, guide, compressed), x)
    assert compressed.net_bits == pytest.approx(-law.log_prob(x).sum().item() / log(2), abs=2)


def test_more_masses_than_memory_are_refused_by_their_number():
    model, guide = no_latents(dist.Poisson(torch.full((2,), 1e9)).to_event(1))
    with pytest.raises(
        ValueError, match="so many integers, up to 1,000,000,000, got Poisson.* Fix"
    ):
        dgm.compress(model, guide, torch.full((5, 2), 1e9))


@pytest.mark.parametrize("num", [1, 2, 7])
def test_few_data_take_the_bits_of_the_bound_too(num):
    """Where their latents lie is told by several draws of each."""
    pair, x = vae(1), bits(num)
    compressed = dgm.compress(pair.model, pair.guide, x)
    assert torch.equal(dgm.decompress(pair.model, pair.guide, compressed), x)
    assert compressed.net_bits == pytest.approx(num * compressed.bound, abs=0.5)


def test_a_guide_far_narrower_than_its_latents_are_spread_takes_the_bits_of_the_elbo():
    """E log q = -log(s sqrt(2 pi e)), and x ~ N(0, 1) at z = 0 or 1: the ELBO of two dims in closed form."""

    def model(x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(torch.full((2,), 0.5)).to_event(1), obs=x)

    def guide(x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x, 1e-6).to_event(1))

    x = bits(50)[:, :2]
    compressed = dgm.compress(model, guide, x)
    assert torch.equal(dgm.decompress(model, guide, compressed), x)
    kl = -log(1e-6) - 0.5 + 0.5 * (x**2).mean().item()  # of a dim
    # the log density of 100 normal draws has a standard deviation of 0.7 nats each
    assert compressed.bound == pytest.approx(2 + 2 * kl / log(2), abs=5 * 1.02 * (2 / 50) ** 0.5)
    assert compressed.net_bits == pytest.approx(50 * compressed.bound, abs=3)


def test_a_guide_that_no_grid_resolves_is_refused():
    def guide(x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x[:, :Z], 1e-14).to_event(1))

    with pytest.raises(ValueError, match=r"standard deviations above .* got 1e-14\. Fix"):
        dgm.compress(vae().model, guide, bits())


def test_one_category_takes_no_bits():
    model, guide = no_latents(dist.Categorical(torch.ones(D, 1)).to_event(1))
    x = torch.zeros(20, D, dtype=torch.int64)
    compressed = dgm.compress(model, guide, x)
    assert torch.equal(dgm.decompress(model, guide, compressed), x)
    assert compressed.net_bits == pytest.approx(0, abs=1)
    assert "20 data in" in str(compressed)


def test_booleans_come_back():
    law = dist.Bernoulli(torch.full((D,), 0.25)).to_event(1)
    model, guide = no_latents(law)
    x = bits().bool()
    compressed = dgm.compress(model, guide, x)
    again = dgm.decompress(model, guide, compressed)
    assert again.dtype == torch.bool
    assert torch.equal(again, x)
    exact = -law.log_prob(x.double()).sum().item() / log(2)
    assert N * compressed.bound == pytest.approx(exact)


def test_a_further_argument_that_has_no_rows_is_the_same_for_all_blocks():
    def model(x, scale=None):
        with dgm.data_plate(x):
            logits = torch.linspace(-1, 1, D) * (scale or 1.0)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    x = bits()
    for scale in (None, 2.0):
        compressed = dgm.compress(model, dgm.EmptyGuide(), x, scale)
        assert torch.equal(dgm.decompress(model, dgm.EmptyGuide(), compressed, scale), x)


def test_a_model_that_observes_a_function_of_x_is_refused():
    """x of the grey values could not come back."""

    def model(x=None):
        with dgm.data_plate(x):
            pyro.sample("x", dist.Bernoulli(torch.full((D,), 0.5)).to_event(1), obs=(x > 0.5) * 1.0)

    with pytest.raises(ValueError, match="site 'x': expected x itself as what is observed.* Fix"):
        dgm.compress(model, dgm.EmptyGuide(), torch.rand(N, D))


def test_a_model_that_looks_at_x_is_refused():
    """Its bits would be those of another model: that of zeros."""

    def model(x=None):
        with dgm.data_plate(x):
            before = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], -1)
            pyro.sample("x", dist.Bernoulli(logits=4 * before - 2).to_event(1), obs=x)

    with pytest.raises(ValueError, match="does not depend on the model's argument x.* Fix"):
        dgm.compress(model, dgm.EmptyGuide(), bits())


class AlwaysDropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.3, training=True)


@pytest.mark.parametrize(("where", "site"), [("model", "x"), ("guide", "z")])
def test_a_network_with_noise_of_its_own_is_refused_before_the_data_are_lost(where, site):
    networks = {"model": dgm.mlp(Z, 8, D), "guide": dgm.mlp(D, 8, 2 * Z)}
    networks[where] = nn.Sequential(networks[where], AlwaysDropout())
    encoder = dgm.Conditional(dist.Normal, networks["guide"])
    pair = dgm.VAE(dgm.StandardNormal(Z), dgm.Bernoulli(networks["model"]), encoder)
    with pytest.raises(ValueError, match=f"site '{site}': expected the same distribution in every"):
        dgm.compress(pair.model, pair.guide, bits())


def test_a_mask_inside_a_distribution_is_refused():
    law = dist.Bernoulli(torch.full((D,), 0.05)).mask(torch.arange(D) < 3).to_event(1)
    with pytest.raises(ValueError, match="site 'x': expected no mask, got one. Fix"):
        dgm.compress(*no_latents(law), bits())


def test_auxiliary_draws_are_refused():
    def guide(x=None):
        with dgm.data_plate(x):
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(shift[..., None] * torch.ones(Z), 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"got auxiliary draws \['shift'\]. Fix"):
        dgm.compress(vae().model, guide, bits())


def test_a_plate_of_all_data_at_once_is_refused():
    def model(x):
        with pyro.plate("data", N):
            pyro.sample("x", dist.Bernoulli(torch.full((D,), 0.5)).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"got a plate of all data at once. Fix: `with data_plate"):
        dgm.compress(model, dgm.EmptyGuide(), bits())


def test_a_flow_onto_the_simplex_is_refused():
    """Its cells would be of one dim more than the flow has, and take bits for it."""
    law = dist.TransformedDistribution(
        dist.Normal(torch.zeros(Z), 1.0).to_event(1), [dist.transforms.StickBreakingTransform()]
    )

    def model(x=None):
        with dgm.data_plate(x):
            pyro.sample("z", law)
            pyro.sample("x", dist.Bernoulli(torch.full((D,), 0.5)).to_event(1), obs=x)

    def guide(x=None):
        with dgm.data_plate(x):
            pyro.sample("z", law)

    with pytest.raises(
        ValueError, match=r"keeps the number of dims, got one from \(2,\) to \(3,\)"
    ):
        dgm.compress(model, guide, bits())


def test_a_seed_of_numpy_gives_the_same_bytes():
    pair, x = vae(), bits(5)
    first = dgm.compress(pair.model, pair.guide, x, seed=3)
    assert dgm.compress(pair.model, pair.guide, x, seed=np.int64(3)).content == first.content


def test_what_was_not_compressed_is_refused():
    law = dist.Bernoulli(torch.full((D,), 0.5)).to_event(1)
    model, guide = no_latents(law)
    compressed = dgm.compress(model, guide, bits())
    with pytest.raises(TypeError, match=r"expected what compress has returned, got bytes\. Fix"):
        dgm.decompress(model, guide, compressed.content)
    for payload in (compressed.payload[:-1], b""):
        with pytest.raises(ValueError, match=r"Compressed: expected a payload .* Fix"):
            dgm.decompress(model, guide, replace(compressed, payload=payload))

    def other(x=None):
        with dgm.data_plate(x):
            pyro.sample("y", law, obs=x)

    with pytest.raises(ValueError, match=r"expected the sites \['x'\], got 'y'\. Fix"):
        dgm.decompress(other, guide, compressed)


def test_a_header_of_another_version_is_refused(tmp_path):
    """With the right digest, so that nothing else is wrong with it."""
    model, guide = no_latents(dist.Bernoulli(torch.full((D,), 0.5)).to_event(1))
    compressed, path = dgm.compress(model, guide, bits()), tmp_path / "x.bits"

    @dataclass(frozen=True)
    class Later(type(compressed.header)):
        further: int = 1

    later = Later(**vars(compressed.header))
    replace(compressed, header=later).save(path)
    with pytest.raises(FileError, match=r"another version of pyro_dgm .*further.* Fix"):
        Compressed.load(path)
