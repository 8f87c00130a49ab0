import pyro
import pytest
import torch
import torch._inductor
from cases import PAIRS
from pyro import poutine
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset
from toys import STILL, LinearGaussian, same_toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.training.checkpoints import load_state, save_state
from pyro_dgm.inference.training.trainer import Trainer


def grey_or_binary(x):
    """Fresh binary noise, moved off the integers, which a density would rather not see."""
    return 0.9 * dgm.binarize(x) + 0.05


def data(num=10):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


def build(seed=1, warmup=6, **options):
    """A trainer whose weights are a function of the seed."""
    vae = same_toy_vae(seed)
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": dgm.LinearWarmup(warmup)})
    return dgm.SVITrainer(objective, **{"lr": 1e-2, **options})


def fit(trainer, train=None, val=None, epochs=1, **options):
    train = data() if train is None else train
    return trainer.fit(train, val, epochs=epochs, **{"batch_size": 4, "progress": False, **options})


def states(trainer):
    """Everything a trainer carries, without wall-clock times."""
    rows = [{n: v for n, v in row.items() if n != "seconds"} for row in trainer.history]
    ema = None if trainer.ema is None else [t.clone() for t in trainer.ema.average]
    best = {k: v for k, v in trainer.best.items() if k in ("value", "epoch", "weights")}
    optimizers = trainer.state.state_dict()["trainer"]
    return dict(trainer.module.state_dict()), trainer.state.last, optimizers, rows, ema, best


def assert_same(one, other):
    torch.testing.assert_close(states(one), states(other), rtol=0, atol=0, equal_nan=True)


# 2 + 2 = 4 -----------------------------------------------------------------------------------------------------------

EVERYTHING = {"ema": 0.9, "clip": 0.5, "schedule": lambda optimizer: StepLR(optimizer, 1, 0.7)}
RUNS = {
    "plain": ({}, lambda: data(), None),
    "validated": ({}, lambda: data(), lambda: data(7)),
    "averaged": ({"ema": 0.9}, lambda: data(), None),
    "everything": (EVERYTHING, lambda: data(), lambda: data(7)),
    "fresh_noise_in_the_data": (
        {"ema": 0.9},
        lambda: dgm.Batches(torch.full((10, 3), 0.5), 4, transform=grey_or_binary),
        lambda: dgm.Batches(torch.full((7, 3), 0.5), 4, transform=grey_or_binary),
    ),
    "shuffling_loader": (
        {},
        lambda: DataLoader(TensorDataset(data()), 4, shuffle=True),
        lambda: DataLoader(TensorDataset(data(7)), 4),
    ),
}
every_run = pytest.mark.parametrize(("options", "train", "val"), RUNS.values(), ids=list(RUNS))


def halves(options, train, val, path=None):
    """Trainers after 4 epochs at once, after 2 + 2, and (with a path) after 2, a checkpoint, and 2 in new objects."""
    make_val = val or (lambda: None)
    whole, parts = build(**options), build(**options)
    fit(whole, train(), make_val(), epochs=4)
    fit(parts, train(), make_val(), epochs=2, checkpoint=path)
    if path is not None:
        parts = build(seed=99, **options)
        parts.resume(path)
    fit(parts, train(), make_val(), epochs=2)
    return whole, parts


@every_run
def test_two_and_two_epochs_equal_four_bit_for_bit(options, train, val):
    assert_same(*halves(options, train, val))


@every_run
def test_two_epochs_a_checkpoint_and_two_in_new_objects_equal_four(options, train, val, tmp_path):
    assert_same(*halves(options, train, val, tmp_path / "checkpoint.pt"))


@every_run
def test_a_trainer_saved_between_two_fits_goes_on_as_if_it_had_not_stopped(
    options, train, val, tmp_path
):
    """`save` after `fit`: the module then holds the best or averaged weights, and the seeds are the user's."""
    make_val = val or (lambda: None)
    whole, first, second = build(**options), build(**options), build(seed=99, **options)
    fit(whole, train(), make_val(), epochs=4)
    fit(first, train(), make_val(), epochs=2)
    torch.rand(17)
    first.save(tmp_path / "state.pt")
    second.resume(tmp_path / "state.pt")
    fit(second, train(), make_val(), epochs=2)
    assert_same(whole, second)


def stopped_after(trainer, num_steps):
    """The trainer, interrupted at the beginning of a later step."""
    step = trainer.step

    def stopping(*batch):
        if trainer.num_steps == num_steps:
            raise KeyboardInterrupt
        return step(*batch)

    trainer.step = stopping
    return trainer


@pytest.mark.parametrize("num_steps", [1, 4, 5, 7])  # three steps an epoch, a ragged one last
@every_run
def test_a_run_resumed_at_any_step_equals_one_that_never_stopped(
    options, train, val, num_steps, tmp_path
):
    make_val = val or (lambda: None)
    whole, first, second = (
        build(**options),
        stopped_after(build(**options), num_steps),
        build(seed=99, **options),
    )
    fit(whole, train(), make_val(), epochs=4)
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(first, train(), make_val(), epochs=4, checkpoint=file, checkpoint_every=1)
    second.resume(file)
    assert second.num_steps == num_steps
    second.save(file)  # a run that is only passed on stays where it is
    second.resume(file)
    fit(second, train(), make_val(), epochs=4 - second.num_epochs)
    assert_same(whole, second)


def test_the_ragged_last_batch_of_a_resumed_epoch_runs_eager_as_it_would_have(
    tmp_path, monkeypatch
):
    graphs = without_kernels(monkeypatch)
    options, file = {**EVERYTHING, "compile": True}, tmp_path / "checkpoint.pt"
    whole, first, second = (
        build(**options),
        stopped_after(build(**options), 5),
        build(seed=99, **options),
    )
    fit(whole, data(), epochs=2)
    with pytest.raises(KeyboardInterrupt):
        fit(first, data(), epochs=2, checkpoint=file, checkpoint_every=2)
    assert len(graphs) == 2
    second.resume(file)
    assert second.num_steps == 5
    fit(second, data(), epochs=1)
    assert_same(whole, second)
    assert len(graphs) == 2


def test_a_file_that_knows_nothing_of_partial_epochs_was_written_between_two(tmp_path):
    whole, first, second = build(), build(), build(seed=99)
    file = tmp_path / "checkpoint.pt"
    fit(whole, data(), epochs=3)
    fit(first, data(), epochs=2, checkpoint=file)
    state = load_state(file)
    del state["partial"]
    save_state(state, file)
    second.resume(file)
    fit(second, data(), epochs=1)
    assert_same(whole, second)


def test_steps_between_checkpoints_need_a_file():
    with pytest.raises(
        ValueError,
        match=r"checkpoint_every=5 with a file, got none\. Fix: checkpoint=",
    ):
        build().fit(data(), checkpoint_every=5)
    with pytest.raises(ValueError, match="checkpoint_every: expected at least 1, got 0"):
        build().fit(data(), checkpoint="x", checkpoint_every=0)


def test_resumed_graphs_equal_uninterrupted_ones(tmp_path, monkeypatch):
    without_kernels(monkeypatch)
    options, train, val = RUNS["everything"]
    assert_same(*halves({**options, "compile": True}, train, val, tmp_path / "checkpoint.pt"))


@pytest.mark.slow
def test_resumed_compiled_training_equals_uninterrupted_training(tmp_path):
    torch._dynamo.reset()
    options, train, val = RUNS["everything"]
    assert_same(*halves({**options, "compile": True}, train, val, tmp_path / "checkpoint.pt"))
    torch._dynamo.reset()


def test_a_fit_that_raised_can_go_on():
    trainer = build()

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(trainer, epochs=4, on_epoch=stop)
    fit(trainer, epochs=3)
    whole = build()
    fit(whole, epochs=4)
    assert_same(whole, trainer)


def test_a_checkpoint_loads_with_weights_only(tmp_path):
    trainer = build(**EVERYTHING)
    fit(trainer, val=data(7), epochs=2, checkpoint=tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    assert state.keys() == load_state(tmp_path / "c.pt").keys()
    assert state["counts"][:2] == [2, 6]
    assert len(state["history"]) == 2


def test_a_checkpoint_holds_the_schedule_of_beta(tmp_path):
    trainer, other = build(), build()
    fit(trainer, epochs=1, checkpoint=tmp_path / "c.pt")
    other.resume(tmp_path / "c.pt")
    assert other.objective.beta["z"]() == 0.5


# Noise and order -----------------------------------------------------------------------------------------------------


class Recording(dgm.SVITrainer):
    """Remembers the batches it took."""

    def step(self, *batch):
        self.batches = [*getattr(self, "batches", []), batch[0].clone()]
        return super().step(*batch)


def test_the_next_epoch_has_another_order():
    vae = same_toy_vae()
    trainer = Recording(dgm.ELBO(vae.model, vae.guide))
    fit(trainer, data(40), epochs=2, batch_size=40)
    fit(trainer, data(40), batch_size=40)
    first, second, third = trainer.batches
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(first.sort(0).values, third.sort(0).values)


def test_the_next_epoch_has_other_noise():
    trainer = build(optimizer=STILL, warmup=1)
    fit(trainer, dgm.Batches(data(), 10, shuffle=False), epochs=3)
    fit(trainer, dgm.Batches(data(), 10, shuffle=False), epochs=1)
    assert len(set(trainer.history.column("train_nelbo"))) == 4


def test_validation_has_the_same_noise_in_every_epoch():
    trainer = build(optimizer=STILL)
    fit(trainer, val=data(7), epochs=3)
    assert len(set(trainer.history.column("val_nelbo"))) == 1


def test_the_seed_decides_noise_and_order():
    runs = [build() for _ in range(3)]
    for trainer, seed in zip(runs, (0, 0, 1), strict=True):
        torch.rand(int(torch.randint(9, ())))  # whatever the user did before
        fit(trainer, epochs=2, seed=seed)
    assert_same(runs[0], runs[1])
    assert runs[0].history.column("train_nelbo") != runs[2].history.column("train_nelbo")


@pytest.mark.parametrize("seed", [1, 256, 2**32])
def test_the_seed_decides_the_noise_by_itself(seed):
    """At one order of the data: on the CPU `torch.manual_seed` reads the low 32 bits of its argument alone."""
    runs = [build() for _ in range(2)]
    for trainer, s in zip(runs, (0, seed), strict=True):
        trainer.fit(dgm.Batches(data(20), 5, shuffle=False), epochs=1, seed=s, progress=False)
    assert runs[0].history.column("train_nelbo") != runs[1].history.column("train_nelbo")


# What fit leaves alone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_fit_leaves_the_users_seed_modes_and_validation_alone(validation, fails):
    trainer = build()
    trainer.module.eval()
    before, loader = torch.get_rng_state(), DataLoader(TensorDataset(data()), 4, shuffle=True)

    def on_epoch(row):
        assert trainer.module.training
        assert not torch.distributions.Distribution._validate_args
        if fails:
            raise KeyboardInterrupt

    with pyro.validation_enabled(validation):
        if fails:
            with pytest.raises(KeyboardInterrupt):
                fit(trainer, loader, loader, on_epoch=on_epoch)
        else:
            fit(trainer, loader, loader, on_epoch=on_epoch)
        assert torch.distributions.Distribution._validate_args is validation
        assert poutine.util.is_validation_enabled() is validation
    assert torch.equal(torch.get_rng_state(), before)
    assert not trainer.module.training


def test_evaluate_moves_no_weight_no_optimizer_and_no_seed():
    """Defect 8: an evaluation that calls `svi.step` lets Adam's momentum move the weights."""
    trainer = build(ema=0.9)
    fit(trainer, epochs=2)
    before, random = torch.get_rng_state(), repr(states(trainer))
    first = trainer.evaluate(data(7))
    assert trainer.evaluate(data(7)) == first
    assert trainer.evaluate(data(7), seed=3) != first
    assert repr(states(trainer)) == random
    assert torch.equal(torch.get_rng_state(), before)
    assert trainer.num_steps == 6


# Metrics -------------------------------------------------------------------------------------------------------------


def test_validation_counts_each_datum_once():
    """Defect 9: the mean of batch means is not the mean over the data when the last batch is smaller."""
    case = PAIRS["density_flow"]()
    trainer, x = dgm.SVITrainer(dgm.ELBO(case.model, case.guide), lr=1e-3), 3 * torch.randn(10, 3)
    fit(trainer, x, x, batch_size=4)
    exact = -case.model.density().log_prob(x).mean().item()
    assert trainer.history.column("val_nelbo") == pytest.approx([exact])
    for batch_size in (1, 3, 10):
        assert trainer.evaluate(x, batch_size=batch_size)["nelbo"] == pytest.approx(exact)
    batch_means = (
        torch.stack([-case.model.density().log_prob(part).mean() for part in x.split(4)])
        .mean()
        .item()
    )
    assert abs(batch_means - exact) > 1e-3


def test_training_counts_each_datum_once_too():
    case = PAIRS["density_flow"]()
    trainer, x = dgm.SVITrainer(dgm.ELBO(case.model, case.guide), STILL), 3 * torch.randn(10, 3)
    fit(trainer, x, batch_size=4)
    assert trainer.history.column("train_nelbo") == pytest.approx(
        [-case.model.density().log_prob(x).mean().item()]
    )


def test_the_history_has_a_row_per_epoch_with_every_term():
    trainer, rows = build(), []
    history = fit(trainer, val=data(7), epochs=3, on_epoch=rows.append)
    assert history is trainer.history
    assert list(history) == rows
    terms = ["loss", "nelbo", "rec[x]", "kl[z]"]
    assert list(rows[0]) == [
        "epoch",
        *(f"train_{t}" for t in terms),
        *(f"val_{t}" for t in terms),
        "seconds",
    ]
    assert history.column("epoch") == [1, 2, 3]


def test_training_lowers_the_loss():
    trainer = build(warmup=1)
    history = fit(trainer, data(200), epochs=30, batch_size=50)
    assert history.column("train_nelbo")[-1] < history.column("train_nelbo")[0] - 0.3


# The best weights ----------------------------------------------------------------------------------------------------


class Scripted(dgm.ELBO):
    """An ELBO that reports losses from a list for the validation data, which are 5."""

    def __init__(self, values):
        vae = same_toy_vae()
        super().__init__(vae.model, vae.guide)
        self.values = list(values)

    def terms(self, *batch):
        found = super().terms(*batch)
        if len(batch[0]) == 5:
            found["nelbo"] = torch.tensor(self.values.pop(0))
        return found


def scripted_run(values, epochs, **options):
    """A run with scripted validation losses, and the weights after each of its epochs."""
    trainer, weights = dgm.SVITrainer(Scripted(values), lr=1e-2), []
    fit(
        trainer,
        val=dgm.Batches(data(5), 5),
        epochs=epochs,
        on_epoch=remember(trainer, weights),
        **options,
    )
    return trainer, weights


def assert_weights(trainer, weights):
    torch.testing.assert_close(dict(trainer.module.state_dict()), weights, rtol=0, atol=0)


def test_the_weights_of_the_best_epoch_stay():
    trainer, weights = scripted_run([5.0, 3.0, 4.0, 3.0], 4)
    assert trainer.history.column("val_nelbo") == [5.0, 3.0, 4.0, 3.0]
    assert (trainer.best["epoch"], trainer.best["value"], trainer.best["metric"]) == (
        2,
        3.0,
        "val_nelbo",
    )
    assert_weights(trainer, weights[1])


def test_patience_stops_after_so_many_epochs_without_a_better_one():
    trainer, weights = scripted_run([5.0, 4.0, 4.5, 4.2, 1.0], 5, patience=2)
    assert trainer.num_epochs == 4
    assert_weights(trainer, weights[1])


def test_patience_begins_anew_with_each_better_epoch():
    trainer, _ = scripted_run([5.0, 6.0, 4.0, 6.0, 3.0, 6.0, 6.0], 7, patience=2)
    assert trainer.num_epochs == 7


def test_an_infinite_validation_loss_is_never_the_best():
    trainer, weights = scripted_run([torch.inf, 5.0, torch.inf, 6.0], 4)
    assert trainer.best["epoch"] == 2
    assert_weights(trainer, weights[1])


def test_patience_runs_out_when_no_validation_loss_is_finite():
    trainer, _ = scripted_run([torch.inf] * 5, 5, patience=2)
    assert trainer.num_epochs == 2
    assert not trainer.best


def remember(trainer, weights):
    """A callback that appends the weights after each epoch."""
    return lambda _: weights.append({n: t.clone() for n, t in trainer.module.state_dict().items()})


def test_without_validation_data_the_last_weights_stay():
    trainer, weights = build(), []
    fit(
        trainer,
        epochs=3,
        on_epoch=remember(trainer, weights),
    )
    assert_weights(trainer, weights[-1])


def test_a_later_fit_without_validation_data_leaves_its_own_last_weights():
    trainer, weights = build(), []
    fit(trainer, val=data(7), epochs=2)
    fit(
        trainer,
        epochs=2,
        on_epoch=remember(trainer, weights),
    )
    assert_weights(trainer, weights[-1])


def test_the_best_of_one_metric_is_not_compared_with_another():
    trainer = build(optimizer=STILL)
    fit(trainer, val=data(7), epochs=1, monitor="val_kl[z]")
    fit(trainer, val=data(7), epochs=1, monitor="val_nelbo")
    assert trainer.best["metric"] == "val_nelbo"
    assert trainer.best["value"] == trainer.history[-1]["val_nelbo"]


@pytest.mark.parametrize("monitor", ["train_loss", "val_rec[x]", "val_kl[z]"])
def test_every_term_can_be_monitored(monitor):
    trainer = build(warmup=1)
    history = fit(trainer, val=data(7), epochs=4, monitor=monitor)
    assert trainer.best["value"] == min(history.column(monitor))


@pytest.mark.parametrize(
    ("monitor", "val"), [("val_accuracy", True), ("val_nelbo", False), ("loss", True)]
)
def test_a_metric_that_does_not_exist_raises_before_the_first_step(monitor, val):
    trainer = build()
    with pytest.raises(
        ValueError, match=rf"fit: expected a metric among \['train_loss'.*got monitor='{monitor}'"
    ):
        fit(trainer, val=data(7) if val else None, monitor=monitor)
    assert trainer.num_steps == 0


def test_patience_without_a_metric_raises():
    with pytest.raises(ValueError, match=r"fit: patience needs a metric.*Fix: give val="):
        fit(build(), patience=2)


# The average of the weights ------------------------------------------------------------------------------------------


def test_the_average_follows_its_formula_over_the_steps_and_is_left_in_the_module():
    trainer = build(ema=0.9)
    expected = [p.detach().clone() for p in trainer.module.parameters()]
    step = trainer.step

    def stepping(*batch):
        terms = step(*batch)
        decay = min(0.9, (2 + trainer.num_steps) / (11 + trainer.num_steps))
        for mean, parameter in zip(expected, trainer.module.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)
        return terms

    trainer.step = stepping
    fit(trainer, epochs=2)
    torch.testing.assert_close([p.detach() for p in trainer.module.parameters()], expected)


def test_the_average_is_what_validation_sees():
    trainer = build(ema=0.9)
    fit(trainer, val=data(7))
    with trainer.ema.applied():
        assert trainer.evaluate(data(7), batch_size=4)["nelbo"] == trainer.history[-1]["val_nelbo"]


# Losses that are not finite ------------------------------------------------------------------------------------------


class Failing(dgm.ELBO):
    """An ELBO whose reconstruction is NaN in some training steps, counted from 1."""

    def __init__(self, bad):
        vae = same_toy_vae()
        super().__init__(vae.model, vae.guide)
        self.bad, self.calls = bad, 0

    def terms(self, *batch):
        found = super().terms(*batch)
        if self.training:
            self.calls += 1
            if self.calls in self.bad:
                found = {
                    **found,
                    "loss": found["loss"] * torch.nan,
                    "rec[x]": found["rec[x]"] * torch.nan,
                }
        return found


def test_a_loss_that_is_not_finite_raises_and_names_the_site():
    with pytest.raises(
        ValueError, match=r"got non-finite rec\[x\].* at or shortly before step 2.*Fix: a lower lr"
    ):
        fit(dgm.SVITrainer(Failing({2})))


def test_a_run_that_diverges_raises_at_the_end_of_its_epoch():
    trainer = build(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30))
    with pytest.raises(ValueError, match=r"non-finite .*rec\[x\]"):
        fit(trainer, epochs=3)


def test_a_long_epoch_is_watched_every_fifty_steps():
    trainer = dgm.SVITrainer(Failing({35}))
    with pytest.raises(ValueError, match="step 82"):  # 50 after the last of the early looks
        fit(trainer, data(200), batch_size=1)


def test_skipped_steps_move_nothing_and_are_counted():
    trainer = dgm.SVITrainer(Failing({1, 2, 3}), lr=1e-2)
    before = {n: t.clone() for n, t in trainer.module.state_dict().items()}
    with pytest.raises(ValueError, match="every step was skipped"):
        fit(trainer, max_skips=3)
    assert_weights(trainer, before)
    assert trainer.num_skipped == 3


def test_skips_are_passed_over():
    trainer = dgm.SVITrainer(Failing({2, 5}), lr=1e-2)
    history = fit(trainer, epochs=2, max_skips=2)
    assert trainer.num_skipped == 2
    assert all(abs(v) < float("inf") for v in history.column("train_loss"))
    assert all(p.isfinite().all() for p in trainer.module.parameters())


def test_more_skips_than_allowed_raise_and_name_the_site():
    with pytest.raises(ValueError, match=r"non-finite rec\[x\]"):
        fit(dgm.SVITrainer(Failing({1, 2, 3})), max_skips=2)


# Bad data through fit ------------------------------------------------------------------------------------------------


def digits_trainer():
    case = PAIRS["vae_flow"]()
    return dgm.SVITrainer(dgm.ELBO(case.model, case.guide))


def hidden(value):
    """Levels 0…8 with one bad value far beyond the first batch."""
    x = torch.randint(9, (500, 4)).double()
    x[431, 2] = value
    return x


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (17, "site 'x': expected values in .* to 17"),
        (-1, "site 'x': expected values in .* from -1"),
        (3.5, "site 'x': expected integer levels"),
        (torch.nan, "expected finite values, got 1 NaN"),
    ],
)
def test_a_bad_value_beyond_the_first_batch_raises_before_the_first_step(
    value, message, batch_size
):
    trainer = digits_trainer()
    with pytest.raises(ValueError, match=message):
        fit(trainer, hidden(value), batch_size=batch_size)
    assert trainer.num_steps == 0


def test_a_bad_value_in_the_validation_data_raises_too():
    with pytest.raises(ValueError, match="site 'x': expected values in .* to 17"):
        fit(digits_trainer(), torch.randint(9, (50, 4)), hidden(17))


def test_a_grey_pixel_beyond_the_first_batch_raises():
    case = PAIRS["vae_bernoulli"]()
    x = torch.bernoulli(torch.full((500, 6), 0.5))
    x[402, 1] = 0.25
    with pytest.raises(ValueError, match="expected binary values .* grey values"):
        fit(dgm.SVITrainer(dgm.ELBO(case.model, case.guide)), x)


def test_evaluate_refuses_what_fit_refuses():
    with pytest.raises(ValueError, match="site 'x': expected values in"):
        digits_trainer().evaluate(hidden(17))


def test_a_loader_that_yields_nothing_raises():
    loader = DataLoader(TensorDataset(data()), 64, drop_last=True)
    with pytest.raises(ValueError, match="a loader that yields nothing"):
        fit(build(), loader)
    with pytest.raises(ValueError, match="a loader that yields nothing"):
        fit(build(), data(), loader)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_data_set_smaller_than_the_batch_is_one_batch(epochs):
    trainer = build()
    fit(trainer, data(2), epochs=epochs, batch_size=100)
    assert trainer.num_steps == epochs


# Optimizers ----------------------------------------------------------------------------------------------------------


def test_an_optimizer_and_a_function_that_builds_it_train_alike():
    one, other = same_toy_vae(), same_toy_vae()
    objectives = [dgm.ELBO(vae.model, vae.guide) for vae in (one, other)]
    built = dgm.SVITrainer(
        objectives[0], lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9)
    )
    given = dgm.SVITrainer(
        objectives[1], torch.optim.SGD(objectives[1].parameters(), lr=1e-2, momentum=0.9)
    )
    for trainer in (built, given):
        fit(trainer, epochs=2)
    assert_same(built, given)


def test_the_default_optimizer_is_adam_with_fused_kernels_and_the_lr():
    optimizer = build(lr=3e-3).optimizer
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["fused"]) == (3e-3, True)


def test_the_schedule_steps_once_per_epoch():
    rates = []
    trainer = build(schedule=lambda optimizer: StepLR(optimizer, 2, 0.1))
    fit(trainer, epochs=5, on_epoch=lambda _: rates.append(trainer.schedule.get_last_lr()[0]))
    assert rates == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4, 1e-4])


def test_clipping_bounds_the_norm_of_the_gradient():
    trainer = build(clip=1e-3, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    before = [p.detach().clone() for p in trainer.module.parameters()]
    trainer.step(data())
    moved = torch.cat(
        [(p - q).flatten() for p, q in zip(trainer.module.parameters(), before, strict=True)]
    )
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_beta_advances_once_per_step():
    trainer = build(warmup=12)
    fit(trainer, epochs=2)
    assert trainer.objective.beta["z"]() == 0.5


def test_frozen_parameters_stay():
    trainer_model = LinearGaussian()
    trainer_model.bias.requires_grad_(False)
    vae = dgm.Conditional(pyro.distributions.Normal, dgm.mlp(4, 4))
    trainer = dgm.SVITrainer(dgm.ELBO(trainer_model, dgm.AmortizedGuide(vae)), ema=0.9)
    before = trainer_model.bias.clone()
    fit(trainer, torch.randn(10, 4), epochs=2)
    assert torch.equal(trainer_model.bias, before)


@pytest.mark.parametrize("pair", list(PAIRS))
def test_every_pair_trains(pair):
    case = PAIRS[pair]()
    trainer = dgm.SVITrainer(dgm.ELBO(case.model, case.guide), lr=1e-2)
    before = [p.detach().clone() for p in trainer.module.parameters()]
    fit(trainer, case.batch(12), case.batch(5), epochs=2)
    moved = [
        not torch.equal(p, q) for p, q in zip(trainer.module.parameters(), before, strict=True)
    ]
    assert all(moved)


def test_the_abstract_trainer_says_what_a_subclass_gives():
    with pytest.raises(
        TypeError, match="abstract methods end_epoch, model, preflight, step, terms"
    ):
        Trainer(same_toy_vae())


def test_weights_that_were_changed_between_two_fits_are_kept():
    vae = same_toy_vae()
    x = torch.randn(20, 3)
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), STILL)
    trainer.fit(x, x, epochs=2, progress=False)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.fill_(0.25)
    trainer.fit(x, epochs=1, progress=False)
    assert all((p == 0.25).all() for p in vae.parameters())


def test_a_bad_batch_deep_in_a_loader_is_found_in_the_first_epoch():
    vae = same_toy_vae()
    x = torch.randn(12, 3)
    x[9, 1] = torch.nan
    loader = torch.utils.data.DataLoader(x, batch_size=2)
    with pytest.raises(ValueError, match="expected finite values, got 1 NaN or infinite"):
        dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide)).fit(loader, progress=False)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}])
def test_no_epochs_or_data_per_step_raise(options):
    vae = same_toy_vae()
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected at least 1, got 0"):
        dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide)).fit(
            torch.randn(4, 3), progress=False, **options
        )


@pytest.mark.parametrize("saved", [True, False])
def test_resuming_into_another_trainer_says_what_differs(saved, tmp_path):
    def trainer(**options):
        vae = same_toy_vae()
        return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), **options)

    def schedule(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1)

    for options, message in (
        ({"ema": 0.9}, "EMA"),
        ({"schedule": schedule}, "schedule"),
    ):
        first, second = (options, {}) if saved else ({}, options)
        trainer(**first).save(tmp_path / "checkpoint.pt")
        with pytest.raises(ValueError, match=f"(?s)checkpoint with .*{message}.* Fix: the same"):
            trainer(**second).resume(tmp_path / "checkpoint.pt")


def test_what_is_no_torch_optimizer_is_a_type_error():
    vae = same_toy_vae()
    for optimizer in ("adam", pyro.optim.Adam({"lr": 1e-3})):
        with pytest.raises(
            TypeError, match="expected a torch optimizer or a function that builds one, got"
        ):
            dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), optimizer=optimizer)


# What is handed over -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "got"),
    [
        (lambda vae: vae.model, r"got LatentVariableModel. Fix: SVITrainer\(ELBO\(vae.model, vae"),
        (lambda vae: vae, r"got VAE. Fix: SVITrainer\(ELBO\(vae.model, vae.guide\)\)"),
        (lambda vae: dgm.IWELBO, r"got the class IWELBO. Fix: SVITrainer\(IWELBO\(vae.model, vae"),
        (lambda vae: vae.parameters(), r"got generator. Fix: SVITrainer\(ELBO\(vae.model, vae.gu"),
    ],
    ids=["model", "vae", "class", "parameters"],
)
def test_what_is_no_objective_is_refused(objective, got):
    with pytest.raises(TypeError, match=f"SVITrainer: expected an objective over a model.*{got}"):
        dgm.SVITrainer(objective(same_toy_vae()))


def test_an_objective_without_parameters_is_refused():
    objective = dgm.ELBO(dgm.DensityModel(dgm.StandardNormal(2)), dgm.EmptyGuide())
    with pytest.raises(ValueError, match=r"with parameters to train, got ELBO without any. Fix: a"):
        dgm.SVITrainer(objective)


def test_an_objective_that_is_frozen_is_refused():
    vae = same_toy_vae().requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"all 9 are frozen. Fix: objective.requires_grad_\(True\)"
    ):
        dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))


def test_parameters_made_in_inference_mode_are_refused():
    with torch.inference_mode():
        vae = same_toy_vae()
    with pytest.raises(
        ValueError, match=r"made inside torch.inference_mode\(\). Fix: build model, guide and"
    ):
        dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))


@pytest.mark.parametrize("outside", [torch.no_grad, torch.inference_mode])
def test_fit_trains_where_gradients_are_switched_off(outside):
    """Bit for bit, with an average and best weights, and the trainer can be used afterwards."""
    whole, other = build(**EVERYTHING), build(**EVERYTHING)
    fit(whole, val=data(7), epochs=4)
    with outside():
        fit(other, val=data(7), epochs=2)
        assert not torch.is_grad_enabled()
    fit(other, val=data(7), epochs=2)
    assert_same(whole, other)


def test_a_trainer_built_where_gradients_are_switched_off_trains():
    trainer = build(**EVERYTHING)
    vae = same_toy_vae(1)
    with torch.inference_mode():
        objective = dgm.ELBO(vae.model, vae.guide)
        other = dgm.SVITrainer(objective, lr=1e-2, ema=0.9, clip=0.5)
    fit(other, epochs=2)
    fit(trainer, epochs=2)
    assert other.num_steps == trainer.num_steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "expected lr > 0, got -1.0. Fix: lr=1e-3"),
        ({"lr": 0}, "SVITrainer: expected lr > 0, got 0. Fix: lr=1e-3"),
        ({"lr": float("nan")}, "expected lr > 0, got nan"),
        ({"clip": 0.0}, "expected clip > 0, got 0.0. Fix: clip=None"),
        ({"ema": 1.0}, r"expected a decay in \[0, 1\), got 1.0. Fix: ema=0.999"),
    ],
)
def test_numbers_that_make_no_step_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "expected patience >= 1, got 0. Fix: patience=20"),
        ({"max_skips": -1}, "expected max_skips >= 0, got -1. Fix: max_skips=0"),
    ],
)
def test_limits_that_stop_before_the_start_are_refused(options, message):
    trainer = build()
    with pytest.raises(ValueError, match=message):
        fit(trainer, val=data(7), **options)
    assert trainer.num_steps == 0


def test_a_bad_batch_deep_in_a_loader_of_validation_data_is_found_in_the_first_epoch():
    x = data(12)
    x[9, 1] = torch.nan
    loader = DataLoader(TensorDataset(x), batch_size=2)
    with pytest.raises(ValueError, match="expected finite values, got 1 NaN or infinite"):
        fit(build(), val=loader)


def test_a_trainer_prints_its_settings():
    assert repr(build()) == (
        "SVITrainer(ELBO, optimizer=Adam(lr=0.01), schedule=None, clip=None, ema=None, compile=False)"
    )
    assert repr(build(**EVERYTHING, compile="reduce-overhead")) == (
        "SVITrainer(ELBO, optimizer=Adam(lr=0.01), schedule=StepLR, clip=0.5, ema=0.9, "
        "compile='reduce-overhead')"
    )
