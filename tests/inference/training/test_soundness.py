"""A finite loss with a NaN gradient: nothing that is not finite is kept, saved, left or returned."""

import pyro.distributions as dist
import pytest
import torch
import torch._inductor
from torch import nn
from toys import assert_equal, everything, without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.training.checkpoints import load_state, save_state
from pyro_dgm.inference.training.loop import LOOK_EVERY

D = 3


class Faulty(nn.Module):
    r"""$h + \sqrt{s + (0 h)^2} - \sqrt{s}$, which is h; its gradient is NaN at s = 0.

    s and 0 are buffers, and so inputs of a graph, which would else be simplified.
    """

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("safe", torch.ones(()), persistent=False)
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, x):
        h = self.net(x)
        return h + (self.safe + (self.zero * h).square()).sqrt() - self.safe.sqrt()


def data(num=10):
    with fork_rng(seed=11):
        return torch.randn(num, D)


def build_vae(**options):
    with fork_rng(seed=1):
        encoder = dgm.Conditional(dist.Normal, Faulty(dgm.mlp(D, 8, 4)))
        vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 8, D)), encoder)
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), **{"lr": 1e-2, **options})
    return trainer, encoder.net.safe


def build_gan(side, **options):
    with fork_rng(seed=1):
        critic = Faulty(dgm.mlp(D, 8, 1))
        decoder = Faulty(dgm.mlp(2, 8, D))
    generator = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(decoder))
    trainer = dgm.GANTrainer(generator, critic, penalties=(), **options)
    return trainer, (critic if side == "critic" else decoder).safe


def build_hybrid(**options):
    with fork_rng(seed=1):
        encoder = dgm.Conditional(dist.Normal, Faulty(dgm.mlp(D, 8, 4)))
        vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 8, D)), encoder)
        critic = dgm.mlp(D, 8, 1)
    trainer = dgm.HybridTrainer(dgm.ELBO(vae.model, vae.guide), critic, weight=0.1, **options)
    return trainer, encoder.net.safe


BUILD = {
    "vae": build_vae,
    "vae_averaged": lambda: build_vae(ema=0.9),
    "vae_clipped": lambda: build_vae(clip=1.0),
    "vae_sgd": lambda: build_vae(optimizer=lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9)),
    "critic": lambda: build_gan("critic"),
    "generator_averaged": lambda: build_gan("generator", ema=0.9),
    "hybrid": build_hybrid,
}
every_trainer = pytest.mark.parametrize("build", BUILD.values(), ids=list(BUILD))


def fit(trainer, val=None, epochs=4, num=10, **options):
    options = {"batch_size": 4, "progress": False, **options}
    return trainer.fit(data(num), val, epochs=epochs, **options)


def faulty_at(trainer, safe, step):
    """The trainer, whose gradients are NaN in one step, counted from 0, and never again."""
    take = trainer.step

    def stepping(*batch):
        if trainer.num_steps == step and float(safe) > 0 and not getattr(trainer, "failed", False):
            trainer.failed = True
            safe.zero_()
            try:
                return take(*batch)
            finally:
                safe.fill_(1.0)
        return take(*batch)

    trainer.step = stepping
    return trainer


def assert_same(one, other):
    assert_equal(everything(one), everything(other))


def is_finite(tensors):
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def assert_finite_file(path):
    state = load_state(path)
    assert is_finite(state["module"].values())
    assert is_finite(state["ema"] or [])
    assert state["history"] == [row for row in state["history"] if row == row]


# A fault in a step -------------------------------------------------------------------------------


@pytest.mark.parametrize("validated", [True, False])
@every_trainer
def test_a_nan_gradient_raises_and_the_run_goes_on_from_its_last_good_epoch(build, validated):
    """The rest, once the fault is mended, equals a run that never had it, bit for bit."""
    val = data(7) if validated else None
    whole, _ = build()
    fit(whole, val, epochs=4)
    trainer, safe = build()
    faulty_at(trainer, safe, 7)
    with pytest.raises(ValueError, match=r"non-finite|expected finite weights, got NaN"):
        fit(trainer, val, epochs=4)
    assert is_finite(trainer.module.state_dict().values())
    assert trainer.num_epochs < 3
    fit(trainer, val, epochs=4 - trainer.num_epochs)
    assert_same(trainer, whole)


@every_trainer
def test_a_checkpoint_is_never_written_with_what_is_not_finite(build, tmp_path):
    """At every step a file: the last that was written is good, and the run that goes on from it is the whole one."""
    file = tmp_path / "run.pt"
    whole, _ = build()
    fit(whole, data(7), epochs=4)
    trainer, safe = build()
    faulty_at(trainer, safe, 7)
    with pytest.raises(ValueError, match="or shortly before step 8"):
        fit(trainer, data(7), epochs=4, checkpoint=file, checkpoint_every=1)
    assert_finite_file(file)
    other, _ = build()
    other.resume(file)
    assert other.num_steps == 7
    fit(other, data(7), epochs=2)
    assert_same(other, whole)


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_nan_gradient_of_a_graph_raises_and_the_run_goes_on(kernels, monkeypatch, tmp_path):
    if kernels:
        torch._dynamo.reset()
    else:
        without_kernels(monkeypatch)

    def build():
        return build_vae(ema=0.9, compile=True)

    file = tmp_path / "run.pt"
    whole, _ = build()
    fit(whole, data(7), epochs=4)
    trainer, safe = build()
    faulty_at(trainer, safe, 7)
    with pytest.raises(ValueError, match="expected finite weights"):
        fit(trainer, data(7), epochs=4, checkpoint=file, checkpoint_every=1)
    assert_finite_file(file)
    fit(trainer, data(7), epochs=4 - trainer.num_epochs)
    assert_same(trainer, whole)


def test_the_parameters_are_named_whose_gradient_was_not_finite():
    trainer, safe = build_vae()
    faulty_at(trainer, safe, 0)
    with pytest.raises(
        ValueError,
        match=r"finite weights, got NaN .* in 'guide.encoder.net.net.0.weight', .* step 1: a gradi"
        r".* Fix: no square root.*max_skips=10",
    ) as caught:
        fit(trainer)
    assert "'model." not in str(caught.value)


def test_terms_that_are_not_finite_come_with_the_weights_that_are_not_either():
    trainer, safe = build_gan("critic")
    faulty_at(trainer, safe, 0)
    with pytest.raises(
        ValueError,
        match=r"non-finite generator at .* step 1.* By then 'generator.* and 4 more hold NaN",
    ):
        fit(trainer)


def test_a_step_with_a_nan_gradient_can_be_passed_over():
    trainer, safe = build_vae()
    faulty_at(trainer, safe, 7)
    fit(trainer, max_skips=1)
    assert trainer.num_skipped == 1
    assert is_finite(trainer.module.state_dict().values())


def test_a_fault_in_a_long_epoch_is_found_within_fifty_steps():
    trainer, safe = build_vae()
    faulty_at(trainer, safe, 40)
    with pytest.raises(ValueError, match=f"shortly before step {32 + LOOK_EVERY}"):
        fit(trainer, num=400)


def test_a_fault_in_the_last_step_of_short_epochs_is_found_before_fit_returns():
    trainer, safe = build_vae()
    faulty_at(trainer, safe, 11)
    with pytest.raises(ValueError, match="finite weights"):
        fit(trainer, epochs=4)
    assert is_finite(trainer.module.state_dict().values())


def test_an_interrupted_run_leaves_no_weights_that_are_not_finite():
    trainer, safe = build_vae()
    faulty_at(trainer, safe, 6)
    step = trainer.step

    def stopping(*batch):
        if trainer.num_steps == 7:
            raise KeyboardInterrupt
        return step(*batch)

    trainer.step = stopping
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    assert is_finite(trainer.module.state_dict().values())


# Weights that are not finite, wherever they come from ---------------------------------------------


def spoiled(**options):
    trainer, _ = build_vae(**options)
    with torch.no_grad():
        trainer.objective.model.likelihood.net[0].weight[0, 0] = torch.nan
    return trainer


def test_weights_that_are_not_finite_are_not_trained_saved_or_asked_about(tmp_path):
    name = r"in 'model.likelihood.net.0.weight'.*Fix: "
    with pytest.raises(ValueError, match=rf"fit: expected finite weights to begin with.*{name}"):
        fit(spoiled())
    with pytest.raises(ValueError, match=rf"evaluate: expected finite weights.*{name}"):
        spoiled().evaluate(data())
    with pytest.raises(ValueError, match=rf"expected finite weights.*{name}"):
        spoiled().save(tmp_path / "run.pt")
    assert not (tmp_path / "run.pt").exists()


def test_a_file_with_weights_that_are_not_finite_is_refused_and_nothing_is_taken(tmp_path):
    trainer, _ = build_vae()
    fit(trainer, checkpoint=tmp_path / "run.pt")
    state = load_state(tmp_path / "run.pt")
    state["module"]["model.likelihood.net.0.weight"][0, 0] = torch.inf
    save_state(state, tmp_path / "run.pt")
    other, _ = build_vae()
    before = everything(other)
    with pytest.raises(ValueError, match=r"resume: expected .* finite weights.*net.0.weight'. Fix"):
        other.resume(tmp_path / "run.pt")
    assert_equal(everything(other), before)


class Masked(nn.Module):
    """A network with an infinite mask beside its weights, as attention has."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(D, 4)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x):
        return self.net(x) + self.mask.exp().sum() - 1


def test_a_buffer_may_hold_an_infinity_from_the_start(tmp_path):
    encoder = dgm.Conditional(dist.Normal, Masked())
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, D)), encoder)
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), ema=0.9)
    trainer.save(tmp_path / "run.pt")
    trainer.resume(tmp_path / "run.pt")
    fit(trainer, data(7), checkpoint=tmp_path / "run.pt")
    trainer.resume(tmp_path / "run.pt")
    assert trainer.num_epochs == 4


def test_moments_that_overflow_are_found_though_the_weights_stay_finite():
    """A gradient of 1e200 has a square of infinity: Adam would never move that weight again."""
    trainer, _ = build_vae()
    weight = trainer.objective.model.likelihood.net[0].weight
    weight.register_hook(lambda gradient: gradient * 1e200)
    with pytest.raises(
        ValueError, match=r"expected finite weights, got .* 'optimizer.state.*avg_sq"
    ):
        fit(trainer)


# Validation --------------------------------------------------------------------------------------


class Scripted(dgm.ELBO):
    """An ELBO that reports losses from a list for the validation data, which are 5."""

    def __init__(self, values):
        with fork_rng(seed=1):
            encoder = dgm.Conditional(dist.Normal, dgm.mlp(D, 4))
            vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, D)), encoder)
        super().__init__(vae.model, vae.guide)
        self.values = list(values)

    def terms(self, *batch):
        found = super().terms(*batch)
        if len(batch[0]) == 5:
            found["nelbo"] = torch.tensor(self.values.pop(0))
        return found


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_a_validation_loss_that_is_no_number_raises_and_the_best_weights_stay(bad, tmp_path):
    trainer = dgm.SVITrainer(Scripted([4.0, 3.0, bad, 1.0]), lr=1e-2)
    with pytest.raises(
        ValueError, match=r"fit: after epoch 3: expected losses that are numbers, .* val_nelbo. Fix"
    ):
        fit(trainer, dgm.Batches(data(5), 5), checkpoint=tmp_path / "run.pt")
    assert trainer.history.column("val_nelbo") == [4.0, 3.0]
    assert trainer.best["epoch"] == 2
    torch.testing.assert_close(dict(trainer.module.state_dict()), trainer.best["weights"])
    assert len(load_state(tmp_path / "run.pt")["history"]) == 2


def test_an_evaluation_that_is_no_number_raises():
    trainer = dgm.SVITrainer(Scripted([torch.nan]))
    with pytest.raises(ValueError, match="evaluate: expected losses that are numbers.* in nelbo"):
        trainer.evaluate(data(5))
