"""What to do next follows from numbers and thresholds."""

from __future__ import annotations

from types import SimpleNamespace

from pyro_dgm.diagnostics import Item, Status
from pyro_dgm.experiments.pages.advice import advise
from pyro_dgm.training import SeedHistory


def run_of(results=(), train=(100.0,), val=(100.0,), seeds=(0, 1, 2)):
    rows = [
        {"epoch": i, "train_nelbo": a, "val_nelbo": b}
        for i, (a, b) in enumerate(zip(train, val, strict=True), 1)
    ]
    history = SeedHistory(list(seeds), [rows for _ in seeds])
    return SimpleNamespace(
        seeds=list(seeds), results=list(results), history=history, folder="runs/a"
    )


def evaluated(*nll, stderr=0.5, share=0.0):
    return [
        {"seed": seed, "nll": value, "nll_stderr": stderr, "share_khat_above": share}
        for seed, value in enumerate(nll)
    ]


def topics(run, items=()):
    return [advice.topic for advice in advise(run, items)]


def test_a_run_that_is_fine_needs_nothing():
    assert topics(run_of(evaluated(90.0, 90.1, 90.2))) == []


def test_a_run_that_is_not_evaluated_needs_an_evaluation():
    assert topics(run_of()) == ["Evaluation"]


def test_one_seed_tells_no_spread():
    assert topics(run_of(evaluated(90.0), seeds=(0,))) == ["Seeds"]


def test_a_spread_beyond_the_error_of_a_run_asks_for_means_over_seeds():
    found = advise(run_of(evaluated(90.0, 92.0, 94.0)), ())
    assert [advice.topic for advice in found] == ["Seeds"]
    assert "2.00 nats per datum (sd)" in found[0].text
    assert "no difference below 2.31 nats" in found[0].text  # 2 · 2 / √3


def test_heavy_weights_ask_for_other_draws_or_guides_and_are_told_once():
    warning = Item(Status.WARN, "72% of the data", "k-hat", advice="take more")
    found = advise(run_of(evaluated(90.0, 90.1, 90.2, share=0.4)), (warning,))
    assert [advice.topic for advice in found] == ["k-hat"]
    assert "40% of the test data" in found[0].text
    assert topics(run_of(evaluated(90.0, 90.1, 90.2, share=0.1))) == []


def test_a_gap_to_validation_is_overfitting():
    results = evaluated(90.0, 90.1, 90.2)
    assert topics(run_of(results, train=[90.0], val=[95.0])) == ["Overfitting"]
    assert topics(run_of(results, train=[94.5], val=[95.0])) == []
    # 5 of 1,000 nats are less than 2 %
    assert topics(run_of(results, train=[990.0], val=[995.0])) == []


def test_a_curve_that_still_falls_asks_for_more_epochs():
    results = evaluated(90.0, 90.1, 90.2)
    falling = [120.0 - i for i in range(20)]
    found = advise(run_of(results, falling, falling), ())
    assert [advice.topic for advice in found] == ["Training"]
    assert "by 2.00 nats" in found[0].text
    assert "--epochs=40" in found[0].text
    settled = [100 + 100 / 4**i for i in range(20)]
    assert topics(run_of(results, settled, settled)) == []


def test_a_check_that_warns_gives_its_advice_and_others_none():
    items = (
        Item(Status.WARN, "9 of 10 units idle", "active units", advice="try LinearWarmup"),
        Item(Status.PASS, "fine", "SBC"),
        Item(Status.SKIP, "no latents", "mutual information"),
    )
    found = advise(run_of(evaluated(90.0, 90.1, 90.2)), items)
    assert [(advice.topic, advice.text) for advice in found] == [
        ("Active units", "9 of 10 units idle. Try LinearWarmup.")
    ]
