"""The benchmarks' contestants take a step, with as many parameters and as large a loss as each other."""

import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from pyro.poutine.util import is_validation_enabled

sys.path.insert(0, str(Path(__file__).parent))

import binary_tables
import cost
import flows
import khat
import rate
from contestants import by_hand, ours, plain_pyro
from contestants.flows import by_hand as flows_by_hand
from contestants.flows import of_pyro, training
from contestants.flows import ours as our_flows
from contestants.sizes import Size
from costs.page import written
from costs.scale import Cluster, Job, computed, epoch
from costs.sweeps import MEMORY, TIMES
from races.bars import FIT, LOOP, MLP_RACE, OURS, judged
from races.racing import Result, Rules, race, ratio
from steps import RACES

import pyro_dgm as dgm

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # peers warn of their own ways
    pytest.mark.parametrize("dtype", ["float32"], indirect=True),
]

DENSE = Size((9,), 8, 3, batch=64, units=6)
SIZES = {
    "mlp": DENSE,
    "conv": Size((1, 8, 8), 0, 3, batch=64, channels=(2, 3)),
    "flows": DENSE,
    "iwae": replace(DENSE, particles=3),
    "vamp": replace(DENSE, pseudo_inputs=7),
    "iaf": DENSE,
}


@pytest.fixture(autouse=True)
def _no_trace_in_a_global(clean_globals):
    validates = is_validation_enabled()
    yield
    pyro.clear_param_store()
    pyro.enable_validation(validates)


def file_of(peer, name):
    """A peer's file of contestants."""
    if find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed")
    if peer == "zuko":
        dgm.flows.import_zuko()  # by itself zuko would switch validation off for all tests to come
    return import_module(f"contestants.{name}")


def by_torch(model):
    """The hand-written contestant, after a step."""
    return stepped(by_hand.stepping(getattr(by_hand, model), SIZES[model], compiled=False))


def stepped(contestant):
    contestant.warm_up()
    contestant.step()
    return contestant


def assert_alike(contestant, reference):
    """Equal networks; losses differ by the draws of few weights and noise."""
    assert contestant.parameters == reference.parameters
    assert contestant.loss == pytest.approx(reference.loss, rel=0.3)


@pytest.mark.parametrize("model", SIZES)
def test_ours_is_the_model_that_is_written_by_hand(model):
    reference = by_torch(model)
    assert_alike(
        stepped(ours.stepping(getattr(ours, model), SIZES[model], compiled=False)), reference
    )
    assert_alike(stepped(ours.by_svi(getattr(ours, model), SIZES[model])), reference)


@pytest.mark.parametrize("model", ["mlp", "conv", "flows", "iwae"])
def test_plain_pyro_is_the_model_that_is_written_by_hand(model):
    contestant = stepped(plain_pyro.stepping(getattr(plain_pyro, model), SIZES[model]))
    assert_alike(contestant, by_torch(model))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "conv", "flows", "iwae"])
def test_numpyro_is_the_model_that_is_written_by_hand(model):
    numpyro_vae = file_of("numpyro", "numpyro_vae")
    pair = getattr(numpyro_vae, model)
    assert_alike(stepped(numpyro_vae.stepping(pair, SIZES[model], loop=False)), by_torch(model))


@pytest.mark.parametrize(("model", "more"), [("mlp", 0), ("vamp", 9), ("iaf", 0)])
def test_pythae_is_the_model_that_is_written_by_hand(model, more):
    pythae_vae = file_of("pythae", "pythae_vae")
    contestant = stepped(pythae_vae.stepping(getattr(pythae_vae, model), SIZES[model]))
    reference = by_torch(model)
    assert_alike(replace(contestant, parameters=contestant.parameters - more), reference)


def test_floor_of_the_flows_computes_what_ours_does():
    flows.check_floor()


@pytest.mark.parametrize("kind", ["coupling", "maf", "iaf", "spline"])
@pytest.mark.parametrize("peer", ["zuko", "nflows", "normflows"])
def test_peers_have_flows_as_large_as_ours(kind, peer):
    library = file_of(peer, f"flows.of_{peer}")
    train = training.drawing if kind == "iaf" else training.scoring
    ours_ = stepped(train(getattr(our_flows, kind)))
    theirs = stepped(train(getattr(library, kind)))
    assert theirs.parameters == ours_.parameters
    assert isfinite(theirs.loss)


@pytest.mark.parametrize("kind", ["coupling", "maf"])
def test_floor_and_pyro_have_flows_as_large_as_ours(kind):
    sizes = set()
    for library in (our_flows, flows_by_hand, of_pyro):
        sizes.add(stepped(training.scoring(getattr(library, kind))).parameters)
    assert len(sizes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["scoring", "drawing"])
def test_numpyro_has_flows_as_large_as_ours(step):
    contestant = stepped(getattr(file_of("numpyro", "flows.of_numpyro"), step)())
    assert contestant.parameters == training.scoring(our_flows.maf).parameters
    assert isfinite(contestant.loss)


def test_khat_is_raced_on_the_numbers_of_arviz():
    khat.check()
    loss = {name: stepped(build()).loss for name, build in khat.builds(200, 30).items()}
    assert loss["ours"] == pytest.approx(loss[khat.ARVIZ], abs=0.15)  # of other weights


def test_every_race_has_contestants():
    assert all(RACES.values())
    assert all(builds() for builds in flows.races().values())


def test_a_ratio_is_the_median_over_the_rounds_that_both_ran():
    results = {
        OURS: Result(1, 0.0, 1, {"cpu": [1.0, 2.0, 4.0], "wall": [1.0] * 3}),
        LOOP: Result(1, 0.0, 1, {"cpu": [2.0, 1.0, 2.0], "wall": [1.0] * 3}),
        FIT: Result(1, 0.0, 200, {"cpu": [1.5, None, None], "wall": [1.0] * 3}),
    }
    assert ratio(results, OURS, LOOP, "cpu")["ratio"] == 2.0
    assert ratio(results, FIT, OURS, "cpu") == {"ratio": 1.5, "low": 1.5, "high": 1.5, "rounds": 1}
    found = judged(MLP_RACE, results, "cpu")
    assert not found[f"{OURS} ÷ {LOOP}"]["met"]
    assert found[f"{OURS} ÷ {LOOP}"]["bar"] == "≤ 1.05"


@pytest.mark.slow
def test_contestants_take_turns_in_processes_of_their_own():
    builds = {
        "by hand": partial(by_hand.stepping, by_hand.mlp, DENSE, compiled=False),
        "ours": partial(ours.stepping, ours.mlp, DENSE, compiled=False),
    }
    results = race(builds, Rules(rounds=2, seconds=0.01))
    for result in results.values():
        assert result.parameters == results["by hand"].parameters
        assert all(t > 0 for clock in ("cpu", "wall") for t in result.ms[clock])


@pytest.mark.slow
@pytest.mark.parametrize("pair", rate.PAIRS)
def test_a_file_of_images_is_as_long_as_the_bound_says(pair, capsys):
    """Of 1,000 images of untrained pairs: within 1 % of the bound and the initial bits, decoded bit for bit."""
    x = (torch.rand(1_000, rate.PIXELS) < 0.3).float()
    compressed = rate.measure(pair, rate.PAIRS[pair](), x)
    assert capsys.readouterr().out.endswith("yes\n")
    assert abs(compressed.excess_of_file) < 0.01
    assert abs(compressed.excess) < 1e-3


def test_exponent_is_the_slope_of_a_power_law():
    found = cost.exponent((1, 2, 4, 8, 16), [3.0 * size**1.25 for size in (1, 2, 4, 8, 16)])
    assert found["exponent"] == pytest.approx(1.25)
    assert found["at the top"] == pytest.approx(1.25)
    assert found["stderr"] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("sweep", [*TIMES, *MEMORY], ids=lambda s: f"{s.title}, {s.by}")
def test_calls_whose_cost_is_measured_run(sweep):
    if "compiled" in sweep.title:
        pytest.skip("its kernels take longer to compile than a test may")
    sweep.prepare({"pairs": 400, "layers": 1}.get(sweep.by, 8))()


def test_the_page_on_cost_has_a_place_for_each_table():
    page = (Path(__file__).parents[2] / "tutorials" / "cost.md").read_text()
    found = cost.row(TIMES[0], [0.001, 0.002, 0.004, 0.008, 0.016], "seconds")
    title = f"{TIMES[0].title}, by {TIMES[0].by}"
    report = {"time": {title: found}, "memory": {}, "computed, not measured": computed()}
    page = written(page, report)
    assert f"| time: {TIMES[0].title} | batch | 64 … 640 | 1 … 16 ms |" in page
    assert "| parameters | 652,824 | 652,824 | 50,000,000 | 50,000,000 |" in page


def test_an_epoch_on_many_gpus_is_the_sum_of_its_parts():
    """1,000 images, 4 GPUs of 10 flop/s and 10 bytes/s; 5 images a GPU and step, 2 multiplications an image."""
    cluster = Cluster(4, flops=10.0, utilization=0.5, bytes_per_second=10.0, latency=1.0)
    job = Job(1000, 8, parameters=5, multiplications=2, batch=5)
    found = epoch(job, cluster)
    assert found["steps"] == 50
    assert found["compute_seconds_per_step"] == pytest.approx(6 * 2 * 5 / 5)
    assert found["all_reduce_seconds_per_step"] == pytest.approx(1.5 * 20 / 10 + 4)
    assert found["seconds_per_epoch"] == pytest.approx(50 * (12 + 7))
    assert found["bytes_read_per_second"] == pytest.approx(20 * 8 / 19)
    assert epoch(job, replace(cluster, launch=20.0))["compute_seconds_per_step"] == 20.0
    assert epoch(job, replace(cluster, gpus=1))["all_reduce_seconds_per_step"] == 0.0


def binary_table(path, num, dim):
    """A file of three splits, of columns that one latent makes alike."""
    rng = np.random.default_rng(0)
    bits = {}
    for name in ("train", "valid", "test"):
        z = rng.normal(size=(num, 1))
        rows = rng.random((num, dim)) < 1 / (1 + np.exp(-2 * z))
        bits[name] = np.packbits(rows, axis=1)
    np.savez(path, num_vars=dim, **bits)


@pytest.mark.slow
def test_binary_tables_are_run_once_and_chosen_on_validation_data(tmp_path, capsys, monkeypatch):
    binary_table(tmp_path / "nltcs.npz", 40, 6)
    binary_table(tmp_path / "wide.npz", 12, 200)
    command = ["", str(tmp_path), "--seeds=2", "--steps=4", "--draws=5", "--eager"]
    command += [f"--out={tmp_path / 'lines'}", "--programs", "VAE", "autoregressive"]
    monkeypatch.setattr(sys, "argv", command)
    binary_tables.main()
    text = capsys.readouterr().out
    lines = binary_tables.lines_of(tmp_path / "lines")
    assert len(lines) == 4
    for line in lines:
        assert len(line["test"]) == 2
        assert all(isfinite(figure) for figure in line["test"])
    for line in lines:
        if line["program"] == "autoregressive" and line["set"] == "nltcs":
            assert line["sum"]["sum"] == pytest.approx(1, abs=1e-5)
            assert line["sum"]["stderr"] == 0
    assert "of 1, MADE on" in text
    binary_tables.main()
    assert binary_tables.lines_of(tmp_path / "lines") == lines


def test_verdicts_are_of_the_program_with_the_best_validation_figure():
    """Published on jester: VAE -51.54, MADE -52.23; the better test figure is of the worse validation figure."""
    lines = []
    for program, valid, test in (("VAE", 52.0, [51.8, 52.0]), ("IWELBO", 52.5, [51.0, 51.0])):
        seconds = {"fit": 1.0, "score": 1.0}
        line = {"set": "jester", "program": program, "valid": [valid] * 2, "test": test}
        lines.append({**line, "cpu_seconds": seconds})
    table = binary_tables.table_of(lines)
    assert "-> VAE -51.900; VAE -51.54 not beaten, MADE -52.23 beaten" in table
    assert table.endswith("VAE beaten on 0 of 1, MADE on 1 of 1")


def test_a_small_table_has_small_batches_and_a_large_one_ten_epochs():
    recipe = binary_tables.Recipe()
    assert (recipe.batch_size(20), recipe.epochs(20)) == (16, 2500)
    assert (recipe.batch_size(300), recipe.epochs(300)) == (30, 250)
    assert (recipe.batch_size(15_000), recipe.epochs(15_000)) == (150, 25)
    assert (recipe.batch_size(291_000), recipe.epochs(291_000)) == (582, 10)
