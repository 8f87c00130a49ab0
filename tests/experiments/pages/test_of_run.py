"""A run's page holds every section, opens offline, and says in a line what the run can't give."""

from __future__ import annotations

import re
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from pages import Page, assert_offline
from trained_runs import few_digits, train_run, vae_of, without, write_files

import pyro_dgm as dgm
from pyro_dgm.datasets import Data
from pyro_dgm.evaluation.report.findings import Skipped
from pyro_dgm.experiments.pages.of_run import run_page
from pyro_dgm.experiments.pages.sections import attempt
from pyro_dgm.experiments.runs.drawing import draws_of
from pyro_dgm.training import SeedHistory

QUICK = {"num": 60, "limit": 30, "num_simulated": 60, "num_samples": 20}
SECTIONS = [
    "Result",
    "What to do next",
    "Learning curve",
    "Samples",
    "Reconstructions",
    "Latent space",
    "Traversal",
    "Terms of the KL",
    "Importance weights",
    "Calibration",
    "Worst data",
    "Checks",
    "Data",
    "Configuration",
    "Environment",
    "Files",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    trained = train_run(tmp_path_factory.mktemp("runs") / "digits", few_digits(100), epochs=3)
    torch.set_default_dtype(before)
    return trained


@pytest.fixture(scope="module")
def text(run):
    return run_page(run, **QUICK)


def section_of(text: str, title: str) -> str:
    """The text between a heading and the next."""
    parts = re.split(r"<h2 [^>]*>([^<]*)</h2>", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def test_the_page_holds_every_section_and_is_offline(text):
    page = Page(text)
    assert_offline(text)
    assert page.headings == SECTIONS
    assert "Not shown" not in page.text
    assert len(page.alts) == 10
    assert 'name="viewport" content="width=device-width' in text


def test_the_table_has_a_row_for_each_seed_and_mean_and_sd_between_them(run, text):
    nll = torch.tensor([row["nll"] for row in run.results])
    result = section_of(text, "Result")
    assert result.count("<tr>") == 1 + 3 + 1
    assert f"<b>{nll.mean():.2f} ± {nll.std():.2f}</b>" in result
    assert "p(x) is a mass, the NLL an upper bound in expectation" in result
    assert 'data-label="NLL ± se"' in result


def test_names_from_files_are_escaped_and_linked(run, tmp_path):
    write_files(tmp_path, {"epochs": 3})
    (tmp_path / "a <b> &.txt").write_text("")
    text = run_page(without(run, folder=tmp_path), **QUICK)
    assert "pyro-dgm fit &lt;mine&gt;" in text
    files = section_of(text, "Files")
    assert '<a href="a%20%3Cb%3E%20%26.txt">a &lt;b&gt; &amp;.txt</a>' in files
    assert 'href="weights/seed-0.safetensors"' in files


def test_a_run_without_results_says_how_to_get_them(run, tmp_path):
    text = run_page(without(run, results=[], folder=tmp_path), **QUICK)
    assert f"no seed has been evaluated. Fix: pyro-dgm evaluate {tmp_path}." in text
    assert "Not shown: the run directory has no environment.json." in text
    assert "not evaluated yet" in Page(text).text


def test_the_page_leaves_random_state_and_modes_alone_and_is_the_same_by_its_seed(run, text):
    model, _ = run.pairs[0]
    model.train()
    state = torch.get_rng_state()
    assert run_page(run, **QUICK) == text
    assert torch.equal(state, torch.get_rng_state())
    assert model.training


def test_the_newest_evaluation_of_a_seed_counts(run):
    newer = {**run.results[0], "nll": 1234.5}
    text = run_page(without(run, results=[*run.results, newer]), **QUICK)
    assert "1,234.50" in section_of(text, "Result")


def test_data_of_another_shape_are_refused_before_anything_is_drawn(run):
    data = Data(run.data.train, run.data.val, run.data.test, (3, 3), run.data.levels)
    with pytest.raises(ValueError, match="image_shape"):
        run_page(without(run, data=data), **QUICK)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x: expected (N, 2), got (3,). Fix: x[None]."),
        NotImplementedError("a flow has no mean"),
        Skipped("the pair has no latents"),
    ],
)
def test_a_refusal_becomes_a_line(error):
    assert attempt(partial(throw, error)) == [
        f'<p class="skipped">Not shown: {error}'.rstrip(".") + ".</p>"
    ]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), KeyError("a bug")])
def test_an_error_that_is_no_refusal_passes(error):
    with pytest.raises(type(error), match="a bug"):
        attempt(partial(throw, error))


def throw(error):
    raise error


def test_counts_below_one_are_refused(run):
    with pytest.raises(ValueError, match="limit"):
        run_page(run, limit=0)


def history_of(trainer, x, **options):
    return SeedHistory([0], [list(trainer.fit(x, epochs=2, progress=False, **options))])


def plain_data(dim=3, num=40, context=None):
    x = torch.randn(3 * num, dim)
    return Data(x[:num], x[num : 2 * num], x[2 * num :], (dim,), context=context)


def run_of(run, tmp_path, model, guide, history, data):
    return without(
        run,
        folder=tmp_path,
        data=data,
        seeds=[0],
        pairs=[(model, guide)],
        history=history,
        results=[],
    )


def test_a_density_without_latents_has_a_page_that_says_what_it_lacks(run, tmp_path):
    data = plain_data()
    model = dgm.DensityModel(dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, 2)))
    guide = dgm.EmptyGuide()
    history = history_of(dgm.SVITrainer(dgm.ELBO(model, guide)), data.train, val=data.val)
    text = run_page(run_of(run, tmp_path, model, guide, history, data), **QUICK)
    assert_offline(text)
    for title in ("Reconstructions", "Latent space", "Traversal", "Importance weights"):
        assert "Not shown: the pair has no latents." in section_of(text, title)
    for title in ("Learning curve", "Samples", "Worst data"):
        assert "<img" in section_of(text, title)


def test_a_game_has_its_terms_and_shows_what_the_critic_saw(run, tmp_path):
    data = plain_data(2)
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.mlp(2, 2)),
        dgm.Conditional(dist.Normal, dgm.mlp(2, 4)),
    )
    history = history_of(dgm.GANTrainer(vae.model, dgm.mlp(2, 1)), data.train)
    text = run_page(run_of(run, tmp_path, vae.model, vae.guide, history, data), **QUICK)
    assert "Losses of critic and generator" in section_of(text, "Learning curve")
    assert "<img" in section_of(text, "Samples")


def test_contexts_travel_with_their_data(run, tmp_path):
    labels = tuple([torch.randn(40, 2) for _ in range(3)])
    context = {"train": (labels[0],), "val": (labels[1],), "test": (labels[2],)}
    data = plain_data(context=context)
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.Concat(dgm.mlp(4, 3))),
        dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(5, 4))),
    )
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    history = history_of(trainer, data.batches(20), val=data.split("val"))
    text = run_page(run_of(run, tmp_path, vae.model, vae.guide, history, data), **QUICK)
    for title in ("Samples", "Reconstructions", "Latent space", "Traversal", "Terms of the KL"):
        assert "<img" in section_of(text, title), section_of(text, title)


@pytest.mark.filterwarnings("ignore:data. they are integers")
def test_a_hybrid_is_drawn_from_its_likelihood_and_not_as_its_critic_saw_it(run, tmp_path):
    data = few_digits(40)
    vae = vae_of(2, 8)
    trainer = dgm.HybridTrainer(dgm.ELBO(vae.model, vae.guide), dgm.mlp(64, 1))
    history = history_of(trainer, data.train, val=data.val)
    hybrid = run_of(run, tmp_path, vae.model, vae.guide, history, data)
    x = draws_of(hybrid, 5, (), seed=0)
    torch.testing.assert_close(x, x.round())
