import arviz
import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence
from toys import ExactGuide, LinearGaussian

import pyro_dgm as dgm


def two_models():
    """Two models with exact guides, and data of the first: their log p(x) is in closed form."""
    good, bad = LinearGaussian(scale=0.7), LinearGaussian(scale=1.1)
    bad.load_state_dict(good.state_dict())
    x = good.data(300)
    results = {
        "bad": dgm.nll(bad, ExactGuide(bad), x, num=5),
        "good": dgm.nll(good, ExactGuide(good), x, num=5),
    }
    return results, good.log_evidence(x).numpy(), bad.log_evidence(x).numpy()


def test_the_better_model_wins_by_the_exact_difference_of_log_evidence():
    results, good, bad = two_models()
    table = dgm.compare_elpd(results)
    assert list(table.index) == ["good", "bad"]
    np.testing.assert_allclose(table["elpd"], [good.sum(), bad.sum()], rtol=1e-9)
    np.testing.assert_allclose(table["elpd_diff"], [0, (bad - good).sum()], rtol=1e-9)
    np.testing.assert_allclose(
        table["se"], [(300 * v.var()) ** 0.5 for v in (good, bad)], rtol=1e-6
    )
    np.testing.assert_allclose(table["dse"], [0, (300 * (bad - good).var()) ** 0.5], rtol=1e-6)
    assert table["dse"]["bad"] < table["se"]["bad"]
    assert table["weight"]["good"] > 0.5


def test_the_difference_is_within_its_error_of_the_divergence_between_the_models():
    """E[log p_good(x) - log p_bad(x)] over x ~ p_good is KL(N(b, C) | N(b, C'))."""
    good, bad = LinearGaussian(scale=0.7), LinearGaussian(scale=1.1)
    bad.load_state_dict(good.state_dict())
    covariance, x = good.weight.detach() @ good.weight.detach().T, good.data(2000)
    laws = [
        MultivariateNormal(good.bias.detach(), covariance + s**2 * torch.eye(4)) for s in (0.7, 1.1)
    ]
    found = dgm.compare_elpd(
        {n: dgm.nll(m, ExactGuide(m), x, num=2) for n, m in (("good", good), ("bad", bad))}
    )
    assert abs(found["elpd_diff"]["bad"] + 2000 * kl_divergence(*laws)) < 5 * found["dse"]["bad"]


def test_arviz_compares_and_plots_what_it_is_given():
    import matplotlib.pyplot as plt

    results, good, _ = two_models()
    if arviz.__version__.startswith("0."):
        table = arviz.compare(dgm.diagnostics.elpd_data(results))
        assert table.loc["good", "elpd_loo"] == pytest.approx(good.sum())
        arviz.plot_compare(table)
    else:
        table = arviz.compare(dgm.diagnostics.elpd_data(results), round_to="none")
        assert table.loc["good", "elpd"] == pytest.approx(good.sum())
        arviz.plot_compare(table, backend="matplotlib")
    plt.close("all")


def test_the_kind_of_bound_and_unreliable_weights_are_said():
    model = LinearGaussian(latent=4)
    x = model.data(20)
    narrow, exact = ExactGuide(model, spread=0.3), ExactGuide(model)
    table = dgm.compare_elpd(
        {"narrow": dgm.nll(model, narrow, x, num=500), "exact": dgm.nll(model, exact, x, num=500)}
    )
    assert table["nll_kind"].tolist() == ["upper bound in expectation"] * 2
    assert table["warning"].to_dict() == {"narrow": True, "exact": False}


def test_results_that_cannot_be_paired_raise():
    model = LinearGaussian()
    results = {n: dgm.nll(model, ExactGuide(model), model.data(n), num=2) for n in (3, 4)}
    with pytest.raises(
        ValueError,
        match="expected nll of two or more models on the same data, got {'a': 3, 'b': 4}",
    ):
        dgm.compare_elpd({"a": results[3], "b": results[4]})
    with pytest.raises(ValueError, match=r"two or more models .* got {'a': 3} data\. Fix: compare"):
        dgm.compare_elpd({"a": results[3]})


def test_annealed_and_exact_figures_are_compared_as_sampled_ones_are():
    model = LinearGaussian()
    x = model.data(20)
    results = {
        "sampled": dgm.nll(model, ExactGuide(model), x, num=500),
        "annealed": dgm.ais(model, x, num=8, steps=20),
        "known": dgm.results.GivenNLL(-model.log_evidence(x), measure="density"),
    }
    table = dgm.compare_elpd(results)
    assert table["nll_kind"]["known"] == "exact"
    assert table["warning"].to_dict() == {
        "sampled": False,
        "annealed": True,
        "known": False,
    }  # 8 chains have no k-hat
    assert all(result.unit == "nats per datum" for result in results.values())
    assert results["annealed"].bits_per_dim(4).value == pytest.approx(
        dgm.bits_per_dim(results["annealed"].mean, 4)
    )
    assert set(dgm.diagnostics.per_datum_dataset(results["annealed"])) == {
        "log_p",
        "log_p_stderr",
        "ess",
    }
