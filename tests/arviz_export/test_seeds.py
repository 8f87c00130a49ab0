"""Seeds as chains."""

import arviz as az
import numpy as np
import pytest
import torch
from arviz_operations import one_chain
from toys import toy_vae

import pyro_dgm as dgm

seeds_to_arviz = dgm.training.seeds_to_arviz


def pairs(num):
    found = []
    for seed in range(num):
        torch.manual_seed(seed)
        vae = toy_vae()
        found.append((vae.model, vae.guide))
    return found


def test_the_draws_of_each_pair_are_those_of_its_own_export():
    x = torch.randn(4, 3)
    own = pairs(3)
    found = seeds_to_arviz(own, x, seeds=(5, 1, 9), num=20, seed=2)
    assert found.posterior["seed"].values.tolist() == [5, 1, 9]
    for chain, (model, guide) in enumerate(own):
        alone = dgm.to_arviz(model, guide, x, num=20, seed=2)
        for group in (
            "posterior",
            "sample_stats",
            "posterior_predictive",
            "conditional_log_likelihood",
            "prior",
        ):
            for name, values in alone[group].items():
                np.testing.assert_array_equal(found[group][name].values[chain], one_chain(values))
        elbo = found["per_datum"]["elbo"].sel(chain=chain).values
        np.testing.assert_array_equal(elbo, alone["per_datum"]["elbo"].values)
    assert "chain" not in found.observed_data.dims


def test_arviz_reads_seeds_as_chains():
    torch.manual_seed(0)
    vae = toy_vae()
    same = seeds_to_arviz([(vae.model, vae.guide)] * 2, torch.randn(2, 3), num=2000)
    other = seeds_to_arviz(pairs(2), torch.randn(2, 3), num=2000)
    assert float(az.rhat(same)["z"].max()) < 1.01
    assert float(az.rhat(other)["z"].max()) > 1.01
    assert len(az.summary(other, var_names=["z"])) == 4


def test_a_wrong_number_of_seeds_is_refused():
    with pytest.raises(ValueError, match=r"a pair for each of 3 seeds, got 2\. Fix: "):
        seeds_to_arviz(pairs(2), torch.randn(2, 3), seeds=(1, 2, 3), num=5)


def test_a_single_seed_has_the_chains_of_its_export():
    x = torch.randn(4, 3)
    (pair,) = pairs(1)
    found = seeds_to_arviz([pair], x, seeds=(7,), num=20)
    alone = dgm.to_arviz(*pair, x, num=20)
    np.testing.assert_array_equal(found.posterior["z"], alone.posterior["z"])
    assert found.posterior["seed"].values.tolist() == [7] * 4
    assert np.isfinite(az.rhat(found)["z"]).all()
