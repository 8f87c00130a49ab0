"""Every seed of several that are trained at once is what its solo run is."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from torch import Tensor, nn
from toys import everything, toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.training.replicates import choice

Replicates = dgm.training.Replicates
SEEDS = (3, 0, 7)


def solo(build, seed, *data, **options):
    """The run of one seed by itself, as the docstring says it."""
    torch.manual_seed(seed)
    trainer = build()
    trainer.fit(*data, seed=seed, progress=False, **options)
    return trainer


def assert_as_alone(build, *data, seeds=SEEDS, runs=None, tolerance=1e-9, **options):
    """Weights, averages, moments, random state and history of each seed are those of its solo run."""
    if runs is None:
        runs = Replicates(build, seeds)
        runs.fit(*data, progress=False, **options)
    for seed, trainer in zip(seeds, runs, strict=True):
        alone = everything(solo(build, seed, *data, **options))
        together = everything(trainer)
        torch.testing.assert_close(together[0], alone[0], rtol=tolerance, atol=tolerance)
        assert together[2:] == alone[2:]
        for own, other in zip(together[1], alone[1], strict=True):
            assert own == pytest.approx(other, rel=tolerance, abs=tolerance)
    return runs


def vae_trainer(objective=dgm.ELBO, **options):
    vae = toy_vae()
    return dgm.SVITrainer(objective(vae.model, vae.guide), lr=1e-2, **options)


@pytest.mark.parametrize(**over(PAIRS))
@pytest.mark.slow
def test_each_seed_of_a_pair_is_as_if_trained_alone(build):
    torch.manual_seed(5)
    data = build().batch(10)

    def trainer():
        pair = build()
        return dgm.SVITrainer(dgm.ELBO(pair.model, pair.guide), lr=1e-3)

    runs = assert_as_alone(trainer, data, data, seeds=(3, 0), epochs=2, batch_size=4)
    assert runs.at_once == 2


OBJECTIVES = {
    "particles": lambda m, g: dgm.ELBO(m, g, num_particles=3),
    "analytic": lambda m, g: dgm.ELBO(m, g, analytic_kl=True),
    "free bits": lambda m, g: dgm.ELBO(m, g, free_bits={"z": 0.5}),
    "warm-up": lambda m, g: dgm.ELBO(m, g, beta={"z": dgm.training.LinearWarmup(7)}),
    "weighted": lambda m, g: dgm.IWELBO(m, g, num_particles=4),
    "sticking": lambda m, g: dgm.IWELBO(m, g, 4, estimator=dgm.training.StickingTheLanding()),
    "doubly": lambda m, g: dgm.IWELBO(m, g, 4, estimator=dgm.training.DoublyReparameterized()),
    "renyi": lambda m, g: dgm.Renyi(m, g, alpha=0.5, num_particles=4),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_each_seed_of_an_objective_is_as_if_trained_alone(objective):
    x = torch.randn(11, 3)
    runs = assert_as_alone(partial(vae_trainer, objective), x, x, epochs=3, batch_size=4)
    assert runs.at_once == 3


TRAINERS = {
    "clipped": {"clip": 0.5},
    "averaged": {"ema": 0.9},
    "scheduled": {"schedule": lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5)},
    "all": {
        "clip": 1.0,
        "ema": 0.99,
        "schedule": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    },
    "SGD": {"optimizer": partial(torch.optim.SGD, lr=1e-2, momentum=0.9)},
    "AdamW": {"optimizer": partial(torch.optim.AdamW, lr=1e-2, fused=True, amsgrad=True)},
    "Adam, not fused": {"optimizer": partial(torch.optim.Adam, lr=1e-2)},
}


@pytest.mark.parametrize("options", TRAINERS.values(), ids=TRAINERS)
def test_each_seed_of_a_trainer_is_as_if_trained_alone(options):
    x = torch.randn(14, 3)
    runs = assert_as_alone(partial(vae_trainer, **options), x, x, epochs=3, batch_size=4)
    assert runs.at_once == 3


def test_runs_in_groups_are_as_if_trained_alone(monkeypatch):
    monkeypatch.setattr(choice, "num_at_once", lambda *_: 2)
    x = torch.randn(14, 3)
    build = partial(vae_trainer, clip=1.0, ema=0.9)
    runs = assert_as_alone(build, x, x, seeds=(3, 0, 7, 1), epochs=2, batch_size=4)
    assert runs.at_once == 2


def test_the_number_at_once_divides_the_number_of_runs_and_stays_in_near_memory(monkeypatch):
    trainer = vae_trainer()
    structure = choice.Structure(trainer.objective)
    batch = (torch.zeros(4, 3),)
    size = sum(t.numel() * t.element_size() for t in (*structure.tensors, *batch))
    for limit, num in ((1, 1), (2, 2), (5, 4), (11, 6), (12, 12), (99, 12)):
        monkeypatch.setattr(choice, "NEAR", limit * size)
        assert choice.num_at_once(structure, batch, 12) == num


def test_a_run_that_stops_early_stands_as_if_trained_alone_while_the_others_go_on():
    x = torch.randn(30, 3)
    build = partial(vae_trainer, optimizer=partial(torch.optim.SGD, lr=0.2))
    options = {"epochs": 12, "batch_size": 8, "patience": 1}
    seeds = (0, 1, 2, 3)
    runs = assert_as_alone(build, x, x[:7], seeds=seeds, tolerance=1e-6, **options)
    assert len({trainer.num_epochs for trainer in runs}) > 1
    assert runs.history["val_nelbo"].shape[0] == 4


@pytest.mark.slow
def test_a_resumed_fit_goes_on_as_if_it_had_never_stopped(tmp_path):
    x = torch.randn(14, 3)
    build = partial(vae_trainer, ema=0.9, clip=1.0)
    whole = Replicates(build, SEEDS)
    whole.fit(x, x, epochs=4, batch_size=4, progress=False)
    Replicates(build, SEEDS).fit(x, x, epochs=2, batch_size=4, checkpoint=tmp_path, progress=False)
    resumed = Replicates(build, (5, 6, 9))
    resumed.seeds = [*SEEDS]
    resumed.resume(tmp_path)
    resumed.fit(x, x, epochs=2, batch_size=4, progress=False)
    twice = Replicates(build, SEEDS)
    twice.fit(x, x, epochs=2, batch_size=4, progress=False)
    twice.fit(x, x, epochs=2, batch_size=4, progress=False)
    for one, other, third in zip(whole, resumed, twice, strict=True):
        for found in (other, third):
            torch.testing.assert_close(everything(found)[0], everything(one)[0], rtol=1e-9, atol=0)


def test_a_checkpoint_in_the_middle_of_an_epoch_is_that_of_the_solo_run(tmp_path):
    x = torch.randn(22, 3)
    options = {"epochs": 1, "batch_size": 4, "checkpoint_every": 3}
    (tmp_path / "alone").mkdir()
    runs = Replicates(vae_trainer, SEEDS)
    runs.fit(x, checkpoint=tmp_path, progress=False, **options)
    for seed in SEEDS:
        path = tmp_path / "alone" / f"{seed}.pt"
        solo(vae_trainer, seed, x, checkpoint=path, **options)
        found, expected = vae_trainer(), vae_trainer()
        found.resume(tmp_path / f"seed-{seed}.pt.1")
        expected.resume(f"{path}.1")
        for trainer in (found, expected):
            trainer.fit(x, epochs=1, batch_size=4, seed=seed, progress=False)
        torch.testing.assert_close(everything(found)[0], everything(expected)[0], rtol=1e-9, atol=0)
        assert found.num_steps == expected.num_steps == 6


def test_a_checkpoint_of_one_run_holds_no_memory_of_the_others(tmp_path):
    x = torch.randn(8, 3)
    runs = Replicates(vae_trainer, range(12))
    runs.fit(x, batch_size=4, checkpoint=tmp_path, progress=False)
    solo(vae_trainer, 0, x, batch_size=4, checkpoint=tmp_path / "alone.pt")
    size = (tmp_path / "alone.pt").stat().st_size
    assert (tmp_path / "seed-0.pt").stat().st_size < 1.2 * size


class Diverging(dgm.Program):
    r"""$p(x) = N(\theta, 1)$, whose density is no number once θ has passed a limit that a seed draws."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2))
        self.register_buffer("limit", 0.02 * torch.rand(()))

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x):
            is_below = torch.sign(self.limit - self.theta.sum()).clamp(min=-0.5)
            return pyro.sample(
                "x", dist.Normal(self.theta + is_below.log(), 1.0).to_event(1), obs=x
            )


def test_a_run_whose_numbers_diverge_ends_alone_and_stands_at_its_last_good_epoch():
    def build():
        return dgm.SVITrainer(dgm.ELBO(Diverging(), dgm.EmptyGuide()), lr=1e-3)

    def limit(seed):
        torch.manual_seed(seed)
        return float(Diverging().limit)

    x = torch.full((8, 2), 5.0)
    # Each step moves both entries by 0.001: two epochs of two steps come to 0.008, three to 0.012.
    good = next(seed for seed in range(99) if limit(seed) > 0.014)
    bad = next(seed for seed in range(99) if 0.0045 < limit(seed) < 0.0055)
    runs = Replicates(build, [good, bad])
    with pytest.warns(UserWarning, match=f"seed {bad}: .*finite"):
        runs.fit(x, epochs=2, batch_size=4, progress=False)
    assert list(runs.errors) == [bad]
    assert_as_alone(build, x, seeds=[good], runs=[runs.trainers[0]], epochs=2, batch_size=4)
    torch.manual_seed(bad)
    alone = build()
    with pytest.raises(ValueError, match="finite"):
        alone.fit(x, epochs=2, batch_size=4, seed=bad, progress=False)
    torch.testing.assert_close(everything(runs.trainers[1])[0], everything(alone)[0])
    runs.fit(x, epochs=1, batch_size=4, progress=False)
    assert [trainer.num_epochs for trainer in runs] == [3, alone.num_epochs]


def test_a_run_whose_validation_is_no_number_ends_alone():
    class Scored(dgm.Program):
        """Its density in evaluation mode is no number from the second epoch on, for a seed that draws so."""

        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(2))
            self.register_buffer("fails", (torch.rand(()) < 0.5).double())

        def forward(self, x: Tensor | None = None) -> Tensor:
            with dgm.data_plate(x):
                has_moved = (self.theta.abs().sum() > 0.006).double()
                bad = self.fails * has_moved * (not self.training)
                mean = self.theta + torch.log(1.0 - 2.0 * bad)
                return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def build():
        return dgm.SVITrainer(dgm.ELBO(Scored(), dgm.EmptyGuide()), lr=1e-3)

    def fails(seed):
        torch.manual_seed(seed)
        return bool(Scored().fails)

    good = next(seed for seed in range(99) if not fails(seed))
    bad = next(seed for seed in range(99) if fails(seed))
    x = torch.full((8, 2), 5.0)
    runs = Replicates(build, [good, bad])
    with pytest.warns(UserWarning, match=f"seed {bad}: "):
        runs.fit(x, x, epochs=3, batch_size=4, progress=False)
    assert list(runs.errors) == [bad]
    assert_as_alone(build, x, x, seeds=[good], runs=runs.trainers[:1], epochs=3, batch_size=4)
    assert [trainer.num_epochs for trainer in runs] == [3, 1]


class GammaGuide(dgm.Program):
    r"""A guide whose noise depends on a value: $q(z) = \mathrm{Gamma}(e^\phi, 1)$, drawn by rejection."""

    def __init__(self):
        super().__init__()
        self.phi = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor | None = None) -> None:
        with dgm.data_plate(x):
            pyro.sample("z", dist.Gamma(self.phi.exp(), torch.ones(2)).to_event(1))


class OfGamma(dgm.Program):
    r"""$p(z) p(x | z)$ of such a guide."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Gamma(torch.ones(2), torch.ones(2)).to_event(1))
            return pyro.sample("x", dist.Normal(self.scale * z, 1.0).to_event(1), obs=x)


def of_gammas():
    return dgm.SVITrainer(dgm.ELBO(OfGamma(), GammaGuide()), lr=1e-2)


class WithDropout(nn.Module):
    """A network whose noise is multiplied with values."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.3), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def with_dropout():
    encoder = dgm.Conditional(dist.Normal, WithDropout())
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 6, 3)), encoder)
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=1e-2)


def gan():
    generator = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 2)))
    return dgm.GANTrainer(generator, dgm.mlp(2, 1), ema=0.9)


OTHERS = {"rejection": of_gammas, "game": gan}


@pytest.mark.parametrize("build", OTHERS.values(), ids=OTHERS)
def test_runs_without_a_graph_of_several_take_their_own_steps_to_the_same_end(build):
    x = torch.randn(10, 2)
    runs = assert_as_alone(build, x, epochs=2, batch_size=4, tolerance=1e-12)
    assert runs.at_once == 1


def test_masks_of_dropout_are_each_run_s_own():
    assert assert_as_alone(with_dropout, torch.randn(10, 3), epochs=2, batch_size=4).at_once == 3


def test_seeds_that_differ_in_their_learning_rate_each_keep_it():
    def build():
        vae = toy_vae()
        rate = 10 ** -float(2 + torch.rand(()))
        return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=rate)

    x = torch.randn(10, 3)
    runs = assert_as_alone(build, x, epochs=2, batch_size=4)
    rates = {trainer.optimizer.param_groups[0]["lr"] for trainer in runs}
    assert len(rates) == 3
    assert runs.at_once == 3


def test_statistics_of_a_batch_are_each_run_s_own():
    def build():
        body = nn.Sequential(nn.Linear(3, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 4))
        encoder = dgm.Conditional(dist.Normal, body)
        vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 6, 3)), encoder)
        return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=1e-2)

    runs = assert_as_alone(build, torch.randn(12, 3), epochs=2, batch_size=4)
    assert runs.at_once == 3


@pytest.mark.slow
def test_data_sets_loaders_and_noise_in_batches_are_drawn_by_each_run_itself():
    x = torch.randn(12, 3)

    def noisy(x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn(x.shape)

    batches = dgm.training.Batches(x, batch_size=5, transform=noisy)
    assert assert_as_alone(vae_trainer, batches, epochs=2).at_once == 3
    loader = torch.utils.data.DataLoader(x, 5, shuffle=True)
    assert assert_as_alone(vae_trainer, loader, epochs=2).at_once == 3


def test_compiled_runs_equal_eager_solo_runs_and_share_one_compilation(monkeypatch):
    graphs = without_kernels(monkeypatch)
    x = torch.randn(10, 3)
    runs = Replicates(partial(vae_trainer, compile=True), SEEDS)
    for _ in range(2):
        runs.fit(x, x, epochs=1, batch_size=4, progress=False)
    assert len(graphs) == 1
    for seed, trainer in zip(SEEDS, runs, strict=True):
        alone = solo(vae_trainer, seed, x, x, epochs=2, batch_size=4)
        found = everything(trainer)[0]
        torch.testing.assert_close(found, everything(alone)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_kernels_of_several_runs_equal_eager_solo_runs():
    def build(compile):
        prior = dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, layers=2))
        encoder = dgm.Flow(
            dgm.Conditional(dist.Normal, dgm.mlp(8, 4)),
            dgm.iaf(2, layers=2, context=8),
            embed=dgm.mlp(9, 8, 8),
        )
        vae = dgm.VAE(prior, dgm.DiscretizedLogistic(dgm.mlp(2, 8, 18), levels=5), encoder)
        objective = dgm.ELBO(vae.model.double(), vae.guide.double())
        return dgm.SVITrainer(objective, lr=1e-3, compile=compile, clip=1.0, ema=0.9)

    x = torch.randint(5, (22, 9)).double()
    runs = Replicates(partial(build, compile=True), SEEDS)
    runs.fit(x, x, epochs=2, batch_size=5, progress=False)
    assert runs.at_once == 3
    for seed, trainer in zip(SEEDS, runs, strict=True):
        alone = solo(partial(build, compile=False), seed, x, x, epochs=2, batch_size=5)
        found = everything(trainer)[0]
        torch.testing.assert_close(found, everything(alone)[0], rtol=1e-8, atol=1e-8)


def test_the_history_has_a_dimension_of_seeds():
    runs = Replicates(vae_trainer, SEEDS)
    seen = []
    history = runs.fit(
        torch.randn(8, 3),
        epochs=2,
        batch_size=4,
        on_epoch=lambda seed, row: seen.append((seed, row["epoch"])),
        progress=False,
    )
    assert history["train_nelbo"].shape == (3, 2)
    assert history["train_nelbo"][1, 0] == runs.trainers[1].history.rows[0]["train_nelbo"]
    assert sorted(seen) == sorted((seed, epoch) for seed in SEEDS for epoch in (1, 2))
    table = history.to_dataframe()
    assert table.shape[0] == 6
    last = history["train_nelbo"][:, -1]
    assert "3 seeds, 2 epochs" in str(history)
    assert f"train_nelbo  {last.mean():.4g} ± {last.std(ddof=1):.2g}" in str(history)
    with pytest.raises(KeyError, match="expected one of"):
        history["val_nelbo"]


def test_the_random_state_and_the_modes_of_the_user_are_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.no_grad(), pyro.validation_enabled(True):
        runs = Replicates(vae_trainer, SEEDS)
        runs.fit(torch.randn(8, 3, generator=torch.Generator()), batch_size=4, progress=False)
        assert not torch.is_grad_enabled()
        assert pyro.settings.get("validate_poutine")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_can_be_no_replicates_is_refused_with_the_fix():
    shared = dgm.mlp(2, 6, 3)

    def sharing():
        encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 6, 4))
        vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(shared), encoder)
        return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))

    def growing():
        vae = toy_vae()
        vae.model.extra = nn.Linear(2, int(torch.randint(1, 1000, ())))
        return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))

    with pytest.raises(TypeError, match="a function that builds a trainer, got SVITrainer"):
        Replicates(vae_trainer(), SEEDS)
    with pytest.raises(TypeError, match="one that builds VAE"):
        Replicates(toy_vae, SEEDS)
    with pytest.raises(ValueError, match="each once"):
        Replicates(vae_trainer, (1, 1))
    with pytest.raises(ValueError, match="at least one seed"):
        Replicates(vae_trainer, ())
    with pytest.raises(ValueError, match=r"parts of its own.*Fix: build networks"):
        Replicates(sharing, SEEDS)
    with pytest.raises(ValueError, match="the same parameters and buffers for every seed"):
        Replicates(growing, SEEDS).fit(torch.randn(8, 3), progress=False)
    with pytest.raises(ValueError, match="finite"):
        Replicates(vae_trainer, SEEDS).fit(torch.full((8, 3), torch.nan), progress=False)


def test_programs_that_differ_in_a_number_are_refused():
    def build():
        vae = toy_vae()
        scale = float(torch.rand(()))
        vae.guide.register_forward_pre_hook(lambda _, inputs: (scale * inputs[0],))
        return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))

    with pytest.raises(ValueError, match="differ in their weights alone"):
        Replicates(build, SEEDS).fit(torch.randn(8, 3), progress=False)


def test_each_run_may_have_epochs_of_its_own():
    x = torch.randn(24, 3)
    straight, resumed = Replicates(vae_trainer, SEEDS), Replicates(vae_trainer, SEEDS)
    expected = straight.fit(x, epochs=3, batch_size=8, progress=False)
    resumed.fit(x, epochs=[2, 0, 1], batch_size=8, progress=False)
    assert [trainer.num_epochs for trainer in resumed] == [2, 0, 1]
    found = resumed.fit(x, epochs=[1, 3, 2], batch_size=8, progress=False)
    np.testing.assert_allclose(found["train_loss"], expected["train_loss"], rtol=1e-9)


@pytest.mark.parametrize("epochs", [[1, 2], [0, 0, 0]])
def test_epochs_of_each_run_are_one_for_each_seed_and_not_all_0(epochs):
    runs = Replicates(vae_trainer, SEEDS)
    with pytest.raises(ValueError, match=r"one for each of 3 seeds.*Fix: epochs=10"):
        runs.fit(torch.randn(8, 3), epochs=epochs, progress=False)


class Announced(nn.Module):
    """Programs in Pyro's own words, whose `pyro.module` statements all seeds share by name."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 3), nn.Linear(3, 2)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def announced_trainer():
    programs = Announced()
    return dgm.SVITrainer(dgm.ELBO(programs.model, programs.guide), lr=1e-2)


def test_seeds_whose_modules_have_one_name_in_pyros_store_train_their_own(clean_store):
    runs = assert_as_alone(announced_trainer, torch.randn(10, 3), epochs=2, batch_size=4)
    assert runs.at_once == len(SEEDS)
    for trainer in runs:
        assert not [n for n, _ in trainer.module.named_parameters() if "statements" in n]


@pytest.fixture
def clean_store():
    yield
    pyro.clear_param_store()
