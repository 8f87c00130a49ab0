"""Objectives of users: a subclass with `terms`, or one with a `bound`, trains as those of the library do."""

import math

import pytest
import torch
from toys import toy_vae

import pyro_dgm as dgm


class OwnELBO(dgm.training.Objective):
    """−ELBO, from draws of its own."""

    def terms(self, x):
        nelbo = -self.draw(x, num=2).log_weight.mean()
        return {"loss": nelbo, "nelbo": nelbo}


class OwnIWELBO(dgm.training.Weighted):
    """The importance-weighted bound, by its one line."""

    def bound(self, log_w):
        return log_w.logsumexp(0) - math.log(self.num_particles)


def seeded(objective, x):
    torch.manual_seed(3)
    return objective(x)


def test_draws_of_an_objective_are_those_of_the_elbo():
    vae, x = toy_vae(), torch.randn(6, 3)
    own, elbo = OwnELBO(vae.model, vae.guide), dgm.ELBO(vae.model, vae.guide, num_particles=2)
    torch.testing.assert_close(seeded(own, x), seeded(elbo, x).to(torch.float64))


def test_a_loss_of_own_draws_becomes_one_graph(monkeypatch):
    graphs = []
    monkeypatch.setattr(torch._inductor, "compile", lambda g, *_, **__: graphs.append(g) or g)
    vae = toy_vae()
    trainer = dgm.SVITrainer(OwnELBO(vae.model, vae.guide), compile=True)
    history = trainer.fit(torch.randn(6, 3), epochs=2, progress=False)
    assert len(graphs) == 1
    assert history[-1]["train_nelbo"] == history[-1]["train_loss"]


def test_seeds_of_an_own_objective_are_trained_at_once():
    def build():
        vae = toy_vae()
        return dgm.SVITrainer(OwnELBO(vae.model, vae.guide))

    runs = dgm.training.Replicates(build, seeds=range(2))
    runs.fit(torch.randn(6, 3), epochs=1, progress=False)
    assert runs.at_once == 2


def test_an_own_bound_of_the_weights_is_one_method():
    vae, x = toy_vae(), torch.randn(6, 3)
    own, iwelbo = OwnIWELBO(vae.model, vae.guide, 4), dgm.IWELBO(vae.model, vae.guide, 4)
    torch.testing.assert_close(seeded(own, x), seeded(iwelbo, x))


def test_no_draws_are_refused():
    vae = toy_vae()
    objective = OwnELBO(vae.model, vae.guide)
    with pytest.raises(ValueError, match=r"OwnELBO: expected num >= 1, got 0.*Fix: num=1"):
        objective.draw(torch.randn(6, 3), num=0)
