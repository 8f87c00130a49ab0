"""Games whose networks run in bfloat16: losses and penalties in float32, eager and as graphs."""

from __future__ import annotations

from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
from half import HalfProducts
from toys import assert_equal, everything, without_kernels

import pyro_dgm as dgm
from pyro_dgm.adversarial.critics import Scores
from pyro_dgm.gan import Move
from pyro_dgm.inference.process.autocast import autocast_networks
from pyro_dgm.inference.process.states import fork_rng

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True, ids=["float32"])
BF16 = torch.bfloat16


def parts(seed=1):
    with fork_rng(seed=seed):
        vae = dgm.VAE(
            dgm.StandardNormal(2),
            dgm.Normal(dgm.mlp(2, 16, 3)),
            dgm.Conditional(dist.Normal, dgm.mlp(3, 16, 4)),
        )
        return vae, dgm.mlp(3, 16, 1)


def data(num=12):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


def test_a_penalty_is_taken_of_the_critic_in_float32():
    _, critic = parts()
    x = data()
    score = Scores(critic)
    exact = dgm.R1(1.0)(Scores(critic), x, x)
    with autocast_networks(critic, BF16):
        rounded = score(x)
        penalty = dgm.R1(1.0)(score, x, x)
    assert torch.equal(penalty, exact)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, critic(x).flatten())


def test_both_sides_move_by_products_in_bfloat16_near_those_of_float32():
    """Three roundings of 2^-8 a layer, four layers from the noise to the logit, forward and back: 24 x 2^-8 = 0.1."""
    moved = []
    for autocast in (None, BF16):
        vae, critic = parts()
        trainer = dgm.GANTrainer(vae.generator, critic, autocast=autocast)
        with fork_rng(seed=3), HalfProducts() as seen:
            backend = trainer._moves.eager[Move.BOTH]
            trainer.fakes.inspect(data())
            terms = backend.backward(data())
        assert (BF16 in seen.dtypes) == (autocast is not None)
        assert {value.dtype for value in terms.values()} == {torch.float32}
        sides = (*trainer._generator.parameters, *trainer._critic.parameters)
        moved.append(torch.cat([p.grad.flatten() for p in sides if p.grad is not None]))
    exact, rounded = moved
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() < 0.1 * exact.norm()


def test_a_hybrid_trains_in_bfloat16_and_resumes_bit_for_bit(tmp_path):
    def build(autocast=BF16):
        vae, critic = parts()
        objective = dgm.ELBO(vae.model, vae.guide)
        return dgm.HybridTrainer(objective, critic, weight=0.1, autocast=autocast)

    def fit(trainer, epochs):
        trainer.fit(data(), epochs=epochs, batch_size=4, progress=False)
        return trainer

    whole, first, second = fit(build(), 4), fit(build(), 2), build()
    first.save(tmp_path / "run")
    second.resume(tmp_path / "run")
    assert_equal(everything(fit(second, 2)), everything(whole))
    exact = fit(build(None), 4).history.rows[-1]
    row = whole.history.rows[-1]
    assert row["train_nelbo"] != exact["train_nelbo"]
    assert row["train_nelbo"] == pytest.approx(exact["train_nelbo"], rel=0.02)


@pytest.mark.parametrize("move", Move)
def test_the_graph_of_a_move_repeats_the_move(move, monkeypatch):
    """Up to roundings: a graph adds a bias to a product that is rounded, and eager torch before it is."""
    without_kernels(monkeypatch)
    vae, critic = parts()
    trainer = dgm.GANTrainer(vae.generator, critic, compile=True, autocast=BF16)
    trainer.preflight(data())
    found = []
    for eager in (True, False):
        with fork_rng(seed=3), pyro.validation_enabled(False):
            terms = trainer._moves.backend(move, eager=eager).backward(data())
        found.append(terms)
    torch.testing.assert_close(found[0], found[1], rtol=0.01, atol=0.01)


def test_what_autocast_can_t_do_is_refused():
    vae, critic = parts()
    with pytest.raises(ValueError, match=r"GANTrainer: expected parameters in float32.*Fix: "):
        dgm.GANTrainer(vae.generator, deepcopy(critic).double(), autocast=BF16)
    trainer = dgm.GANTrainer(vae.generator, critic, autocast=BF16)
    assert repr(trainer).endswith("compile=False, autocast=torch.bfloat16)")
