"""A number and its standard error."""

import torch

from pyro_dgm.evaluation.estimate import Estimate, estimate_columns, estimated


def terms(num: int, generator: torch.Generator) -> torch.Tensor:
    """Draws `(num, 30)` around the means 0, …, 29 of thirty data, with unit noise."""
    return torch.arange(30.0) + torch.randn(num, 30, generator=generator)


def test_several_draws_give_the_standard_error_about_the_mean_of_these_data():
    """500 repetitions; the relative error of a standard deviation is 1/sqrt(1000) = 0.032."""
    generator = torch.Generator().manual_seed(0)
    found = [estimated(terms(3, generator)) for _ in range(500)]
    spread = torch.tensor([f.value for f in found]).std()
    stated = torch.tensor([f.stderr for f in found]).square().mean().sqrt()
    assert abs(stated / spread - 1) < 5 * 0.032
    assert abs(spread / (1 / 90) ** 0.5 - 1) < 5 * 0.032


def test_one_draw_for_each_datum_gives_an_upper_bound():
    found = estimated(terms(1, torch.Generator().manual_seed(0)))
    assert found.stderr > (1 / 30) ** 0.5


def test_the_error_of_a_single_number_is_unknown():
    found = estimated(torch.ones(1, 1))
    assert found.value == 1.0
    assert found.stderr != found.stderr


def test_it_prints_both():
    assert str(Estimate(2.0, 0.25)) == "2.000 ± 0.250"


def test_an_estimate_is_a_row_and_two_columns_of_its_owners_table():
    found = Estimate(0.5, 0.1)
    assert found.to_dataframe().to_dict("records") == [{"value": 0.5, "stderr": 0.1}]
    assert estimate_columns({"auc": found, "num": 9}) == {"auc": 0.5, "auc_stderr": 0.1, "num": 9}
