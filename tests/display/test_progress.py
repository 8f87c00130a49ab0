"""Bars are for terminals and for what takes longer than two seconds, and can be switched off for all that is inside."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.display import progress


@pytest.fixture
def made(monkeypatch):
    """The settings of every bar that is made, and how far it came."""
    found, bar_class = [], progress.tqdm

    class Bar(bar_class):
        def __init__(self, **settings):
            self.settings = {**settings, "done": 0}
            found.append(self.settings)
            super().__init__(**{**settings, "disable": True})

        def update(self, n=1):
            self.settings["done"] += n

    monkeypatch.setattr(progress, "tqdm", Bar)
    return found


def pair():
    encoder = dgm.Conditional(dist.Normal, nn.Linear(3, 4))
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(nn.Linear(2, 3)), encoder)
    return vae.model, vae.guide


def test_a_bar_is_for_a_terminal_and_shows_after_two_seconds(made):
    assert list(progress.watched("abc", 3, "block", "nll")) == ["a", "b", "c"]
    (bar,) = made
    assert (bar["total"], bar["done"], bar["desc"]) == (3, 3, "nll")
    assert bar["delay"] == 2.0
    assert bar["disable"] is None  # tqdm's word for: where the output is no terminal


def test_bars_are_switched_off_for_all_that_is_inside_and_on_again_after_it(made):
    with progress.bars(shown=False):
        progress.progress_bar(1, "block")
        with progress.bars(shown=True):
            progress.progress_bar(1, "block")
    progress.progress_bar(1, "block")
    assert [bar["disable"] for bar in made] == [True, True, None]


def test_a_likelihood_counts_its_blocks(made):
    """2,000 pairs of a draw and a datum are a block: 7 data of 1,000 draws are 4."""
    dgm.nll(*pair(), torch.randn(7, 3), num=1000)
    assert [(bar["desc"], bar["total"], bar["done"]) for bar in made] == [("nll", 4, 4)]


def test_an_export_and_draws_count_theirs(made):
    model, guide = pair()
    dgm.to_arviz(model, guide, torch.randn(7, 3), num=1000)
    assert ("to_arviz", 4, 4) in [(bar["desc"], bar["total"], bar["done"]) for bar in made]
    made.clear()
    dgm.generate(model, 10, chunk=4)
    assert [(bar["desc"], bar["total"], bar["done"]) for bar in made] == [("generate", 3, 3)]


def test_a_stream_has_a_bar_without_an_end(made):
    batches = [torch.randn(3, 3), torch.randn(4, 3)]
    dgm.nll(*pair(), batches, num=1000)
    assert [(bar["total"], bar["done"]) for bar in made] == [(None, 4)]


def test_nothing_is_printed_where_there_is_no_terminal(capfd):
    dgm.nll(*pair(), torch.randn(7, 3), num=1000)
    assert capfd.readouterr() == ("", "")
