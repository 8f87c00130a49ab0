"""The report as a table and as JSON: repeatable, and nothing else moves."""

from __future__ import annotations

import json
from math import isnan

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS
from reports import QUICK, pair, report_of_images, statuses
from torch.utils.data import DataLoader, TensorDataset
from toys import Written, toy_vae

import pyro_dgm as dgm
from pyro_dgm.diagnostics import Status


@pytest.fixture(scope="module")
def digits():
    return report_of_images()


def test_json_says_everything_and_is_strict(digits, tmp_path):
    digits.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert read == json.loads(json.dumps(digits.as_dict()))
    assert read["settings"] == {
        **{"num_data": 80, "num_scored": 50, "num": 100, "limit": 50, "num_simulated": 200},
        **{"seed": 0, "image_shape": [6, 6]},
    }
    for item, row in zip(digits.items, read["items"], strict=True):
        assert (row["name"], row["status"], row["value"]) == (item.name, item.status, item.value)
        assert row["threshold"] is None or row["threshold"]["reason"]
    assert len(read["items"][6]["rows"]) == 12


def test_the_table_fits_a_terminal_and_names_what_to_do(digits):
    lines = str(digits).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("Check of a fitted model and its guide: WARN.")
    assert all(
        any(line.split("  ")[1] == item.name for line in lines[2:14]) for item in digits.items
    )
    assert f"WARN SBC: {digits['SBC'].finding[:30]}" in str(digits)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_report_to_the_last_bit(tmp_path):
    vae = toy_vae()
    x = torch.randn(40, 3)
    first, second, other = (
        dgm.check(vae.model, vae.guide, x, **QUICK, seed=seed) for seed in (0, 0, 1)
    )
    assert first == second != other
    for number, report in enumerate((first, second)):
        report.html(tmp_path / f"{number}.html")
    assert (tmp_path / "0.html").read_bytes() == (tmp_path / "1.html").read_bytes()


def test_it_leaves_weights_modes_gradients_and_the_random_state_alone():
    vae, before = toy_vae(), torch.get_rng_state()
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    dgm.check(
        vae.model,
        vae.guide,
        torch.randn(30, 3, generator=torch.Generator().manual_seed(1)),
        **QUICK,
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    assert all(m.training for m in vae.modules())
    assert all(p.grad is None for p in vae.parameters())


def test_what_is_skipped_is_counted_and_told_once_for_each_reason(tmp_path):
    case = PAIRS["density_flow"]()
    report = dgm.check(case.model, case.guide, *case.batch(20), **QUICK)
    text = str(report)
    assert text.splitlines()[0].startswith(
        "Check of a fitted model and its guide: PASS. 2 of 11 items pass, 0 warn, 9 skipped."
    )
    assert text.count("\nSKIP ") == 2, "no latents, and no normalization"
    words = " ".join(text.split())
    assert (
        "SKIP active units, mutual information, NLL-ELBO gap, k-hat, importance ESS, SBC, aggregate-prior gap"
        in words
    )
    assert "aggregate-prior test: the pair has no latents." in words
    report.html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("the pair has no latents.") == 1
    assert page.count('href="#item-3"') == 8


def test_reasons_have_one_full_stop_and_one_fix_and_no_table_of_sites(tmp_path):
    def fails(_, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample(
                "x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x @ torch.zeros(5, 3)
            )

    model, guide = pair()
    for broken, x in (
        (Written(fails), model.data(6)),
        (model, torch.randn(6, 3)),
        (guide, model.data(6)),
    ):
        report = dgm.check(broken, guide if broken is not guide else model, x, **QUICK)
        report.html(tmp_path / "report.html")
        for text in (str(report), (tmp_path / "report.html").read_text("utf-8")):
            assert ".." not in text
            assert "Trace Shapes" not in text
            assert "Fix:" not in text
            assert "What to do:" in text


def test_a_loader_is_read_whole_and_gives_the_report_of_its_concatenation():
    model, guide = pair()
    x = model.data(50)
    loader = DataLoader(TensorDataset(x), batch_size=16)
    assert dgm.check(model, guide, loader, **QUICK) == dgm.check(model, guide, x, **QUICK)


def test_the_table_has_a_row_per_item(digits):
    table = digits.to_dataframe()
    assert list(table["item"]) == [item.name for item in digits.items]
    assert list(table["status"]) == [item.status.value for item in digits.items]
    for value, item in zip(table["value"], digits.items, strict=True):
        assert value == item.value or (isnan(value) and item.value is None)
    khat = table.set_index("item").loc["k-hat"]
    assert khat["threshold"] == "≤ 0.1"
    assert khat["unit"].startswith("of data with k-hat > ")
    assert khat["finding"] == digits["k-hat"].finding


def test_a_notebook_shows_the_table_of_the_page_without_links(digits):
    shown = digits._repr_html_()
    assert shown.startswith("<p>Check of a fitted model and its guide: WARN. ")
    assert shown.count("<tr>") == 1 + len(digits.items)
    assert all(f">{item.name}</td>" in shown for item in digits.items)
    assert "href" not in shown


def test_an_item_that_is_not_there_is_told(digits):
    with pytest.raises(KeyError, match="got 'khat'. Fix: report.items"):
        digits["khat"]


def test_checks_of_the_user_join_and_only_what_they_ask_for_is_computed():
    seen = []

    def large(findings):
        seen.append(dict(findings.found))
        return dgm.diagnostics.Item(Status.WARN, f"{findings.num_data} data", advice="collect more")

    def never(findings):
        raise dgm.diagnostics.Skipped("no reason")

    model, guide = pair()
    checks = [dgm.diagnostics.Check("sample size", large), dgm.diagnostics.Check("nothing", never)]
    report = dgm.check(model, guide, model.data(6), checks=checks)
    assert seen == [{}]
    assert statuses(report) == {"sample size": Status.WARN, "nothing": Status.SKIP}
    assert report["sample size"].advice == "collect more"
    assert "WARN sample size: 6 data. What to do: collect more." in str(report)
    assert dgm.check(model, guide, model.data(6), checks=checks[1:]).verdict is Status.SKIP
