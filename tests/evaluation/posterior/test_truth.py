"""A guide against chains: nothing where it is exact, the stated shift and width where it is not."""

from math import pi, sqrt

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from torch.utils.data import DataLoader, TensorDataset
from toys import ExactGuide, Series, SeriesGuide, linear_gaussian, toy_vae

import pyro_dgm as dgm

CHAINS = {"num": 1000, "warmup": 300, "leapfrog": 5}


def compared(shift=0.0, spread=1.0):
    """Guide and chains compared, with the model's exact standard deviations and the error of the chains."""
    model, exact, x = linear_gaussian()
    truth = dgm.hmc(model, x, **CHAINS)
    found = dgm.guide_error(ExactGuide(model, shift, spread), truth, x)
    error = (1 / truth.ess["z"] + 1 / (4 * CHAINS["num"])).sqrt()
    return found, (exact.root @ exact.root.T).diagonal().sqrt(), error


@pytest.mark.slow
@in_float64
def test_an_exact_guide_has_no_error():
    found, _, error = compared()
    assert found.shift["z"].shape == (6, 2)
    assert bool((found.shift["z"].abs() < 5 * error).all())
    assert bool(((found.ratio["z"] - 1).abs() < 5 * error).all())
    assert bool((found.wasserstein["z"] < 5 * error).all())
    assert float(found.rhat["z"].max()) < 1.02
    assert float(found.chains["z"].max()) < 1.02


@pytest.mark.slow
@in_float64
def test_a_shifted_guide_is_off_by_its_shift_in_units_of_the_truth():
    found, deviation, error = compared(shift=0.4)
    expected = 0.4 / deviation
    assert bool(((found.shift["z"] - expected).abs() < 5 * error * (1 + expected)).all())
    assert bool(((found.wasserstein["z"] - expected).abs() < 5 * error * (1 + expected)).all())
    assert float(found.rhat["z"].min()) > 1.05


@pytest.mark.slow
@in_float64
def test_a_narrow_guide_has_the_distance_of_two_normals():
    r"""$W_1(N(0, s^2), N(0, 1)) = |1 - s|\, E|Z|$."""
    found, _, error = compared(spread=0.5)
    assert bool(((found.ratio["z"] - 0.5).abs() < 5 * error).all())
    assert bool(((found.wasserstein["z"] - 0.5 * sqrt(2 / pi)).abs() < 5 * error).all())
    assert float(found.rhat["z"].min()) > 1.05


@pytest.mark.slow
def test_the_table_names_sites_and_statistics():
    text = str(compared(shift=0.4)[0])
    assert "|shift| in sd" in text
    assert "  z " in text


def test_its_table_has_a_row_for_each_number_of_each_site():
    """Sites of two plate depths: the index is that of the number in the site's own tensor."""
    model, x = Series(), torch.randn(4, 3)
    found = dgm.guide_error(SeriesGuide(), dgm.hmc(model, x, num=8, warmup=8), x)
    table = found.to_dataframe()
    assert list(table.columns) == [
        "site",
        "index",
        "shift",
        "ratio",
        "wasserstein",
        "rhat",
        "chains",
    ]
    assert len(table) == sum(value.numel() for value in found.shift.values())
    for _, row in table.iterrows():
        assert row["shift"] == found.shift[row["site"]][row["index"]].item()
        assert row["chains"] == found.chains[row["site"]][row["index"]].item()
    assert "guide against chains" in found._repr_html_()


def test_data_may_be_an_array_or_a_loader():
    model, guide, x = linear_gaussian()
    truth = dgm.hmc(model, x, num=8, warmup=5)
    expected = dgm.guide_error(guide, truth, x).shift["z"]
    for data in (np.asarray(x), DataLoader(TensorDataset(x), batch_size=4), [(x[:4],), (x[4:],)]):
        assert torch.equal(dgm.guide_error(guide, truth, data).shift["z"], expected)


def test_data_that_are_not_flattened_raise_with_the_fix():
    model, guide, x = linear_gaussian()
    truth = dgm.hmc(model, x, num=5, warmup=5)
    with pytest.raises(
        ValueError, match=r"(?s)batch of shapes \[\(6, 2, 2\)\].*Fix: x\.flatten\(1\)"
    ):
        dgm.guide_error(guide, truth, x.reshape(6, 2, 2))


def test_a_vae_in_place_of_its_guide_raises():
    vae, x = toy_vae(), torch.randn(3, 3)
    truth = dgm.hmc(vae.model, x, num=5, warmup=5)
    with pytest.raises(
        TypeError, match=r"expected a Pyro program.*got VAE\. Fix: vae\.model or vae\.guide"
    ):
        dgm.guide_error(vae, truth, x)


def test_sites_of_another_shape_are_refused():
    model, _, x = linear_gaussian()
    truth = dgm.hmc(model, x, num=5, warmup=5)
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, torch.nn.Linear(4, 6)))
    with pytest.raises(
        ValueError,
        match=r"site 'z': expected draws of shape \(6, 2\), .*got \(6, 3\) from the guide\. Fix: guide_error",
    ):
        dgm.guide_error(guide, truth, x)


def test_other_data_and_other_sites_are_refused():
    model, guide, x = linear_gaussian()
    truth = dgm.hmc(model, x, num=5, warmup=5)
    with pytest.raises(
        ValueError, match=r"expected the 6 data of the chains, got 2. Fix: the same x"
    ):
        dgm.guide_error(guide, truth, x[:2])
    with pytest.raises(
        ValueError, match=r"expected the latent sites \['z'\], got a guide without \['z'\]"
    ):
        dgm.guide_error(dgm.EmptyGuide(), truth, x)


def test_the_guide_s_draws_move_no_seed():
    model, guide, x = linear_gaussian()
    truth = dgm.hmc(model, x, num=5, warmup=5)
    before = torch.get_rng_state()
    first, second = (dgm.guide_error(guide, truth, x, seed=3) for _ in range(2))
    assert torch.equal(first.shift["z"], second.shift["z"])
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_no_chains_raises_with_the_order_of_the_arguments():
    model, guide, x = linear_gaussian()
    truth = dgm.hmc(model, x, num=4, warmup=4, leapfrog=2)
    for wrong in ((guide, x, truth), (truth, guide, x)):
        with pytest.raises(
            TypeError,
            match=r"expected the chains of hmc after the guide.*Fix: guide_error\(guide, hmc",
        ):
            dgm.guide_error(*wrong)
    with pytest.raises(ValueError, match="data: expected x after the programs, got none"):
        dgm.guide_error(guide, truth)
    with pytest.raises(
        ValueError,
        match=r"got LinearGaussian, which observes \['x'\]: is it the model\? Fix: encode",
    ):
        dgm.guide_error(model, truth, x)
