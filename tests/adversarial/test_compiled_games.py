"""Moves as graphs: the terms, gradients, weights, averages and buffers of the eager ones, and when no graph is used."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor.config as inductor_config
from torch import nn
from torch.nn.functional import one_hot
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR
from toys import BatchNorm, assert_equal, everything, same_toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.gan import Move
from pyro_dgm.inference.process.states import fork_rng

over = pytest.mark.parametrize

GAMES = [
    dgm.gan.Minimax(),
    dgm.NonSaturating(),
    dgm.gan.LeastSquares(),
    dgm.gan.Hinge(),
    dgm.gan.Wasserstein(),
    dgm.PairedRelativistic(),
    dgm.gan.FDivergence(dgm.gan.KL()),
    dgm.gan.FDivergence(dgm.gan.SquaredHellinger()),
]
PENALTIES = {
    "r1": (dgm.R1(0.5),),
    "r2 and gp": (dgm.R2(0.3), dgm.gan.GradientPenalty(0.2)),
}
PLAYS = {
    "alternating": dgm.gan.Alternating(n_critic=2),
    "simultaneous": dgm.gan.Simultaneous(),
}
each_game = over("game", GAMES, ids=repr)
each_penalty = pytest.mark.parametrize(
    "penalties",
    [
        pytest.param(PENALTIES["r1"], id="r1"),
        pytest.param(PENALTIES["r2 and gp"], id="r2 and gp", marks=pytest.mark.slow),
    ],
)
each_play = over("play", PLAYS.values(), ids=PLAYS)
each_move = over("move", Move)


@pytest.fixture
def graphs(monkeypatch):
    """Graphs without kernels, in milliseconds; the list that they are put into."""
    return without_kernels(monkeypatch)


@pytest.fixture
def same_noise():
    """Let compiled kernels draw from the streams of eager torch."""
    torch._dynamo.reset()
    with inductor_config.patch(fallback_random=True):
        yield
    torch._dynamo.reset()


def data(num=10):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


def build(game=None, seed=1, bound=False, **options):
    """A trainer whose weights are a function of the seed; noise and buffers on both sides."""
    vae = same_toy_vae(seed)
    with fork_rng(seed=seed):
        net = vae.generator.likelihood.net
        net[1] = nn.Sequential(BatchNorm(6), nn.SiLU())
        output = dgm.nn.spectral_norm(nn.Linear(8, 1))
        critic = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.SiLU(), output)
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": dgm.LinearWarmup(9)}) if bound else None
    return dgm.GANTrainer(
        vae.generator, critic, game or dgm.NonSaturating(), bound=objective, **options
    )


def fit(trainer, x=None, **options):
    options = {"epochs": 3, "batch_size": 4, "progress": False, **options}
    return trainer.fit(data() if x is None else x, **options)


def differentiated(trainer, move, batch, *, eager, seed=5):
    """Terms, gradients and buffers of a move under a seed, from empty gradients."""
    trainer.module.zero_grad(set_to_none=True)
    with fork_rng(seed=seed), pyro.validation_enabled(False):
        terms = trainer._moves.backend(move, eager=eager).backward(*batch)
    gradients = {}
    for name, parameter in trainer.module.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.clone()
    buffers = {name: buffer.clone() for name, buffer in trainer.module.named_buffers()}
    return terms, gradients, buffers


def assert_moves_alike(trainer, move, batch, **tolerance):
    """Two steps in a row, from the same weights and buffers each."""
    trainer.preflight(*batch)
    start = {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()}
    for seed in (5, 6):
        found = []
        for eager in (True, False):
            trainer.module.load_state_dict(start)
            found.append(differentiated(trainer, move, batch, eager=eager, seed=seed))
        torch.testing.assert_close(found[1], found[0], **tolerance)
    return found[0]


# A move ---------------------------------------------------------------------------------------------------------------


@each_penalty
@each_game
def test_the_graph_of_a_move_has_the_terms_gradients_and_buffers_of_autograd(
    game, penalties, graphs
):
    trainer = build(game, penalties=penalties, noise=True, compile=True)
    for move in Move:
        assert_moves_alike(trainer, move, (data(),), rtol=1e-10, atol=1e-10)
    assert len(graphs) == 3


@each_move
def test_only_the_parameters_of_those_who_move_have_gradients(move, graphs):
    trainer = build(compile=True)
    terms, gradients, _ = assert_moves_alike(trainer, move, (data(),))
    sides = {name.split(".")[0] for name in gradients}
    assert (
        sides
        == {
            Move.CRITIC: {"critic"},
            Move.GENERATOR: {"generator"},
            Move.BOTH: {"critic", "generator"},
        }[move]
    )
    assert ("critic" in terms) is (move is not Move.GENERATOR)


@each_move
def test_the_graph_of_a_move_beside_a_bound_is_that_of_autograd(move, graphs):
    trainer = build(bound=True, weight=0.3, noise=True, compile=True)
    terms, *_ = assert_moves_alike(trainer, move, (data(),), rtol=1e-10, atol=1e-10)
    assert ("kl[z]" in terms) is (move is not Move.CRITIC)


@pytest.mark.slow
@each_move
def test_kernels_of_a_move_have_the_terms_gradients_and_buffers_of_autograd(move, same_noise):
    """Double gradients of three penalties among them, which become kernels as any other operation."""
    penalties = (dgm.R1(0.5), dgm.R2(0.3), dgm.gan.GradientPenalty(0.2))
    trainer = build(dgm.PairedRelativistic(), penalties=penalties, noise=True, compile=True)
    assert_moves_alike(trainer, move, (data(),), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@each_game
def test_kernels_of_every_game_have_the_terms_and_gradients_of_autograd(game, same_noise):
    with fork_rng(seed=1):
        critic = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.SiLU(), nn.Linear(8, 1))
    trainer = dgm.GANTrainer(same_toy_vae().generator, critic, game, compile=True)
    assert_moves_alike(trainer, Move.BOTH, (data(),), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@each_move
def test_kernels_of_a_move_beside_a_bound_are_those_of_autograd(move, same_noise):
    trainer = build(bound=True, weight=0.3, noise=True, compile=True)
    assert_moves_alike(trainer, move, (data(),), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@each_move
def test_kernels_of_convolutions_under_a_penalty_are_those_of_autograd(move, same_noise):
    with fork_rng(seed=2):
        decoder = dgm.ConvDecoder(2, (1, 8, 8), channels=(4,))
        generator = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(decoder, event_dim=3))
        layers = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten()
        critic = nn.Sequential(*layers, nn.Linear(64, 1))
        x = torch.randn(6, 1, 8, 8)
    trainer = dgm.GANTrainer(generator, critic, compile=True)
    assert_moves_alike(trainer, move, (x,), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_a_frozen_part_of_a_side_is_noticed(graphs):
    trainer = build(compile=True)
    for part in (None, trainer.critic[0], trainer.generator.likelihood.net[0]):
        if part is not None:
            part.requires_grad_(False)
        for move in Move:
            assert_moves_alike(trainer, move, (data(),))
    assert len(graphs) == 9


def test_a_context_is_an_input_of_the_graph(graphs):
    model = dgm.LatentVariableModel(
        dgm.StandardNormal(2), dgm.Normal(dgm.Concat(dgm.mlp(2 + 2, 6, 3)))
    )
    trainer = dgm.GANTrainer(model, dgm.Concat(dgm.mlp(3 + 2, 6, 1)), compile=True)
    labels = one_hot(torch.arange(10) % 2, 2).to(torch.get_default_dtype())
    for context in (labels, 1 - labels):
        for move in Move:
            assert_moves_alike(trainer, move, (data(), context))
    assert len(graphs) == 3


def test_a_move_that_nobody_has_checked_is_made_a_graph_of(graphs):
    eager, compiled = build(), build(compile=True)
    for trainer in (eager, compiled):
        for seed in range(3):
            with fork_rng(seed=seed):
                trainer.step(data())
    torch.testing.assert_close(compiled.module.state_dict(), eager.module.state_dict())
    assert len(graphs) == 2


# A run ----------------------------------------------------------------------------------------------------------------


@each_play
@each_game
def test_training_by_graphs_is_training_eagerly(game, play, graphs):
    """The noise is the same, and so are weights, averages, moments and history; the last batch is ragged."""
    found = []
    for compile_ in (False, True):
        trainer = build(game, play=play, ema=0.9, compile=compile_)
        fit(trainer, epochs=2)
        found.append(everything(trainer))
    (tensors, rows, *counts), (others, other_rows, *other_counts) = found
    torch.testing.assert_close(others, tensors, rtol=1e-8, atol=1e-8)
    assert other_counts == counts
    assert [[*row] for row in other_rows] == [[*row] for row in rows]
    for row, other in zip(rows, other_rows, strict=True):
        assert other == pytest.approx(row, rel=1e-8)


SETTINGS = {
    "clip": {
        "play": dgm.gan.Alternating(dgm.gan.Player(clip=0.01), dgm.gan.Player(clip=0.02)),
    },
    "gradient descent": {
        "play": dgm.gan.Simultaneous(
            dgm.gan.Player(optimizer=partial(SGD, lr=0.1, momentum=0.5)), dgm.gan.Player(clip=0.1)
        ),
    },
    "schedules": {
        "play": dgm.gan.Alternating(
            dgm.gan.Player(schedule=partial(ExponentialLR, gamma=0.5)),
            dgm.gan.Player(schedule=partial(ExponentialLR, gamma=0.2)),
        ),
    },
    "noise, no penalty": {"noise": True, "penalties": ()},
    "bound": {"bound": True, "weight": 0.3, "ema": 0.9},
    "bound, critic alone": {"bound": True, "play": dgm.gan.Alternating(n_critic=3), "ema": 0.9},
    "bound, both at once": {"bound": True, "play": dgm.gan.Simultaneous(dgm.gan.Player(clip=0.1))},
}


@over("options", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_acts_on_graphs_as_it_acts_eagerly(options, graphs):
    found = []
    for compile_ in (False, True):
        trainer = build(compile=compile_, **options)
        fit(trainer, val=data(7))
        found.append(everything(trainer))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-8, atol=1e-8)
    for row, other in zip(found[0][1], found[1][1], strict=True):
        assert other == pytest.approx(row, rel=1e-8)
    assert graphs


def test_one_graph_serves_each_move_of_a_run_and_the_ragged_batch_runs_eager(graphs):
    trainer = build(compile=True, play=dgm.gan.Alternating(n_critic=2))
    fit(trainer)
    fit(trainer)
    assert (trainer.num_critic_steps, trainer.num_generator_steps) == (18, 9)
    assert len(graphs) == 2
    joint = build(compile=True, play=dgm.gan.Simultaneous())
    fit(joint)
    assert len(graphs) == 3


def test_no_gradient_is_left_anywhere(graphs):
    trainer = build(compile=True, bound=True)
    fit(trainer)
    assert all(p.grad is None for p in trainer.module.parameters())


def stopped_and_resumed(file, **options):
    """A run of five epochs, and one that was stopped in the middle of the third and went on in another trainer."""
    whole, stopped, resumed = build(**options), build(**options), build(seed=99, **options)
    fit(whole, epochs=5)

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, epochs=5, checkpoint=file, checkpoint_every=2, on_epoch=stop)
    resumed.resume(file)
    fit(resumed, epochs=5 - resumed.num_epochs)
    return whole, resumed


RUNS = {
    "plain": {},
    "everything": {
        "ema": 0.9,
        "noise": True,
        "bound": True,
        "penalties": (dgm.R1(0.1), dgm.gan.GradientPenalty(0.3)),
        "play": dgm.gan.Alternating(
            dgm.gan.Player(1e-2, schedule=partial(ExponentialLR, gamma=0.5)),
            dgm.gan.Player(2e-2, clip=0.5, schedule=partial(ExponentialLR, gamma=0.9)),
            n_critic=2,
        ),
    },
    "simultaneous": {"play": dgm.gan.Simultaneous(), "ema": 0.9},
}


@over("kernels", [False, pytest.param(True, marks=pytest.mark.slow)])
@over(
    "options",
    [
        pytest.param(RUNS["plain"], id="plain"),
        pytest.param(RUNS["everything"], id="everything", marks=pytest.mark.slow),
        pytest.param(RUNS["simultaneous"], id="simultaneous"),
    ],
)
def test_a_compiled_run_that_is_resumed_equals_one_that_never_stopped(
    options, kernels, tmp_path, request
):
    if not kernels:
        request.getfixturevalue("graphs")
    whole, resumed = stopped_and_resumed(tmp_path / "gan.pt", compile=True, **options)
    assert whole.num_epochs == resumed.num_epochs == 5
    assert_equal(everything(resumed), everything(whole))


# When no graph is used ------------------------------------------------------------------------------------------------


def test_a_step_or_a_move_of_a_subclass_is_the_one_that_fit_takes(graphs):
    class Counting(dgm.GANTrainer):
        """Counts the steps of its critic."""

        num = 0

        def critic_step(self, *batch):
            self.num += 1
            return super().critic_step(*batch)

    trainer = Counting(same_toy_vae().generator, dgm.mlp(3, 8, 1), compile=True)
    fit(trainer, data(8), epochs=2)
    assert trainer.num == trainer.num_critic_steps == 4


def test_a_step_that_was_put_in_its_place_is_the_one_that_fit_takes(graphs, monkeypatch):
    trainer, steps = build(compile=True), []
    step = trainer.step
    monkeypatch.setattr(trainer, "step", lambda *batch: steps.append(batch) or step(*batch))
    fit(trainer, data(8), epochs=2)
    assert len(steps) == 4


def test_steps_that_are_not_finite_are_passed_over_by_graphs_as_well(graphs):
    class Pole(nn.Module):
        """A critic that is infinite at far data."""

        def __init__(self):
            super().__init__()
            self.net = dgm.mlp(3, 8, 1)

        def forward(self, x):
            return self.net(x) / (x[:, :1] > -5).to(x.dtype)

    x = data(12)
    x[4] = -9.0
    found = []
    for compile_ in (False, True):
        with fork_rng(seed=3):
            trainer = dgm.GANTrainer(same_toy_vae().generator, Pole(), compile=compile_)
        fit(trainer, dgm.Batches(x, 4, shuffle=False), epochs=2, max_skips=2)
        assert trainer.num_skipped == 2
        found.append(trainer.module.state_dict())
    torch.testing.assert_close(found[1], found[0])
    assert graphs


# What reaches the compiler, and what is refused -----------------------------------------------------------------------


def test_the_name_of_a_mode_reaches_the_compiler_with_every_move(monkeypatch):
    found = []
    monkeypatch.setattr(
        torch._inductor, "compile", lambda graph, _, options: found.append(options) or graph
    )
    fit(build(compile="reduce-overhead"))
    assert found == [torch._inductor.list_mode_options("reduce-overhead")] * 2


@over(
    ("compile_", "error", "message"),
    [
        ("fast", ValueError, r"compile: expected .*'reduce-overhead'.*got 'fast'"),
        (1.5, TypeError, r"compile: expected True, False, 'auto' or the name of a mode"),
    ],
)
def test_what_is_no_mode_is_refused(compile_, error, message):
    with pytest.raises(error, match=message):
        build(compile=compile_)


def test_a_bound_that_sums_over_latents_is_refused():
    class Clusters(dgm.Program):
        """A mixture of two normals whose component is summed over."""

        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.eye(2, 3))

        def forward(self, x=None):
            with dgm.data_plate(x):
                component = dist.Categorical(torch.ones(2))
                c = pyro.sample("c", component, infer={"enumerate": "parallel"})
                return pyro.sample("x", dist.Normal(self.loc[c], 1.0).to_event(1), obs=x)

    objective = dgm.ELBO(Clusters(), dgm.EmptyGuide())
    trainer = dgm.HybridTrainer(objective, dgm.mlp(3, 8, 1), noise=True, compile=True)
    with pytest.raises(ValueError, match=r"got \['c'\], which are summed over.*Fix: compile=False"):
        fit(trainer)


def test_a_critic_that_reads_values_is_refused_with_the_fix(graphs):
    class Branching(nn.Module):
        """A critic with a branch on its data."""

        def __init__(self):
            super().__init__()
            self.net = dgm.mlp(3, 8, 1)

        def forward(self, x):
            return self.net(x) if x.sum() > 0 else -self.net(x)

    trainer = dgm.GANTrainer(same_toy_vae().generator, Branching(), penalties=(), compile=True)
    with pytest.raises(ValueError, match=r"(?s)compile: .*test_compiled_games.*compile=False"):
        fit(trainer)


def test_the_hybrid_trainer_passes_compilation_and_average_on(graphs):
    vae = same_toy_vae()
    objective = dgm.ELBO(vae.model, vae.guide)
    trainer = dgm.HybridTrainer(objective, dgm.mlp(3, 8, 1), ema=0.9, compile=True)
    assert (trainer.ema.decay, trainer.compile) == (0.9, True)
    fit(trainer)
    assert len(graphs) == 2
