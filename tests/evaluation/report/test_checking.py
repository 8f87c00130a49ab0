"""Items that take others for granted: no number passes beside a failed test that it presupposes."""

from __future__ import annotations

import json

import pyro
import pyro.distributions as dist
import pytest
import torch
from reports import QUICK, pair, statuses, warned
from toys import Written

import pyro_dgm as dgm
from pyro_dgm.diagnostics import CHECKS, Check, Item, Status
from pyro_dgm.evaluation.report.checking import withhold

OF_WEIGHTS = ("NLL-ELBO gap", "k-hat", "importance ESS")


def pair_that_misses_a_mode():
    """x = |z| + noise: the posterior has two modes, and the guide knows one; its weights there are nearly equal."""

    def model(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(z.abs(), 0.1), obs=x)

    def guide(program, x):
        precision = 1 + 1 / 0.1**2
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x / 0.1**2 / precision, precision**-0.5))

    return Written(model), Written(guide)


@pytest.fixture(scope="module")
def missed():
    model, guide = pair_that_misses_a_mode()
    x = 1 + torch.rand(200, generator=torch.Generator().manual_seed(0))
    return dgm.check(model, guide, x, num=200, num_simulated=1000)


def test_good_weights_of_a_guide_that_misses_a_mode_are_no_pass(missed):
    assert {"SBC", "aggregate-prior test"} <= warned(missed)
    for name in OF_WEIGHTS:
        item = missed[name]
        assert item.status is Status.VOID
        assert item.threshold.holds(item.value), "by itself it would pass"
        assert item.finding.startswith("Can't be read while SBC and aggregate-prior test warn: ")
        assert item.advice.startswith("mend what SBC found first; ais(model, x) and hmc(model, x)")
    assert not missed.passed
    assert missed.verdict is Status.WARN


def test_text_page_table_and_json_say_that_it_can_not_be_read(missed, tmp_path):
    text = str(missed)
    words = " ".join(text.split())
    assert " 3 can't be read, " in words
    assert "VOID k-hat: Can't be read while SBC and aggregate-prior test warn: " in words
    (line,) = [line for line in text.splitlines() if line.startswith("  k-hat ")]
    assert " VOID " in line
    assert max(map(len, text.splitlines())) <= 100
    missed.html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count('<span class="status VOID">VOID</span>') == 2 * len(OF_WEIGHTS)
    assert page.count("Can&#x27;t be read while SBC and aggregate-prior test warn") == 3
    assert missed._repr_html_().count(">VOID<") == 3
    table = missed.to_dataframe().set_index("item")
    assert set(table.loc[list(OF_WEIGHTS), "status"]) == {"VOID"}
    missed.save(tmp_path / "report.json")
    rows = json.loads((tmp_path / "report.json").read_text("utf-8"))["items"]
    assert [row["name"] for row in rows if row["status"] == "VOID"] == list(OF_WEIGHTS)


def test_weights_can_not_be_read_of_data_that_the_model_does_not_make():
    """An exact guide; the data are not the model's, and the aggregate-prior test says so."""
    model, guide = pair()
    x = model.data(1000) + 4 * model.weight.detach().sum(1)
    report = dgm.check(model, guide, x, **QUICK)
    assert report["SBC"].status is Status.PASS
    for name in OF_WEIGHTS:
        assert report[name].status is Status.VOID
        assert "while aggregate-prior test warns" in report[name].finding


def test_a_small_gap_can_not_be_read_beside_a_large_khat():
    """A guide of 0.3 of the width in one dim: KL 0.75 nats, weights without a variance, and so a gap below 1."""
    model, guide = pair(latent=1, spread=0.3)
    report = dgm.check(model, guide, model.data(100), num=200, num_simulated=300)
    assert report["k-hat"].status is Status.WARN
    assert report["NLL-ELBO gap"].value < 1
    assert report["NLL-ELBO gap"].status is Status.VOID
    assert "Can't be read while k-hat and SBC" in report["NLL-ELBO gap"].finding


def test_an_exact_pair_of_its_own_data_has_nothing_void():
    model, guide = pair()
    report = dgm.check(model, guide, model.data(1000), num=200, limit=300, num_simulated=1000)
    assert set(statuses(report).values()) == {Status.PASS}
    assert "can't be read" not in str(report)


def test_what_is_not_asked_for_withholds_nothing():
    model, guide = pair_that_misses_a_mode()
    checks = [entry for entry in CHECKS if entry.name in OF_WEIGHTS]
    report = dgm.check(model, guide, 1 + torch.rand(50), num=100, checks=checks)
    assert set(statuses(report).values()) == {Status.PASS}


def test_checks_of_the_user_presuppose_others_as_well():
    model, guide = pair()
    broken = Check("my data", lambda findings: Item(Status.WARN, "not mine", advice="ask"))
    mine = Check("mine", lambda findings: Item(Status.PASS, "fine"), presupposes=("my data",))
    report = dgm.check(model, guide, model.data(5), checks=[mine, broken])
    assert statuses(report) == {"mine": Status.VOID, "my data": Status.WARN}


@pytest.mark.parametrize("status", [Status.WARN, Status.SKIP])
def test_only_a_pass_is_withheld(status):
    item = Item(status, "as it is", "k-hat")
    assert withhold(item, ["SBC"], {"SBC"}) is item
    assert withhold(Item(Status.PASS, "fine"), ["SBC"], {"k-hat"}).status is Status.PASS
