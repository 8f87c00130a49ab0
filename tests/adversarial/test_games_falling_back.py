"""`compile="auto"` of games: a move without a graph takes the very steps of `compile=False`, with one warning."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from toys import assert_equal, everything, same_toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng


@pytest.fixture
def graphs(monkeypatch):
    """Graphs without kernels, in milliseconds; the list that they are put into."""
    return without_kernels(monkeypatch)


class Branching(nn.Module):
    """A critic with a branch on its data."""

    def __init__(self):
        super().__init__()
        self.net = dgm.mlp(3, 8, 1)

    def forward(self, x):
        return self.net(x) if x.sum() > 0 else -self.net(x)


class Clusters(dgm.Program):
    """A model whose clusters are summed over."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]))

    def forward(self, x=None):
        with dgm.data_plate(x):
            component = dist.Categorical(torch.ones(2))
            c = pyro.sample("c", component, infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.Normal(self.loc[c], 1.0).to_event(1), obs=x)


class BranchingEncoder(dgm.Conditional):
    """An encoder with a branch on its data: a bound that has no graph beside a game that has one."""

    def forward(self, x):
        p = super().forward(x)
        return p if x.sum() > 0 else p


def build(critic, compile_, seed=1, bound=None, **options):
    vae = same_toy_vae(seed)
    generator, objective = vae.generator, None
    with fork_rng(seed=seed):
        if bound == "summed":
            objective = dgm.ELBO(Clusters(), dgm.EmptyGuide())
            generator = objective.model
            options["noise"] = True
        elif bound is not None:
            encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 6, 4))
            if bound == "branching":
                encoder = BranchingEncoder(dist.Normal, dgm.mlp(3, 6, 4))
            objective = dgm.ELBO(vae.model, dgm.AmortizedGuide(encoder))
        return dgm.GANTrainer(
            generator, critic(), bound=objective, penalties=(), compile=compile_, **options
        )


def plain_critic():
    return dgm.mlp(3, 8, 1)


def fit(trainer, **options):
    with fork_rng(seed=3):
        x = torch.randn(10, 3)
    return trainer.fit(x, **{"epochs": 3, "batch_size": 4, "progress": False, **options})


twice = dgm.gan.Alternating(n_critic=2)
GAMES = {
    "a critic that reads": (Branching, {}),
    "beside a bound": (Branching, {"bound": "plain", "play": twice, "ema": 0.9}),
    "at once": (Branching, {"play": dgm.gan.Simultaneous()}),
    "a summed bound": (plain_critic, {"bound": "summed", "play": twice}),
}


@pytest.mark.parametrize(("critic", "options"), GAMES.values(), ids=GAMES)
def test_a_game_without_a_graph_takes_the_steps_of_the_eager_one_bit_for_bit(
    critic, options, graphs
):
    eager, auto = build(critic, False, **options), build(critic, "auto", **options)
    fit(eager)
    with pytest.warns(UserWarning, match="GANTrainer: compile='auto' takes eager") as caught:
        fit(auto)
    assert len(caught) == 1
    assert not graphs
    assert_equal(everything(auto), everything(eager))


def test_a_game_with_graphs_takes_compiled_moves_and_says_nothing(graphs):
    trainers = [build(plain_critic, compile_) for compile_ in (True, "auto")]
    for trainer in trainers:
        fit(trainer)
    assert len(graphs) == 4
    assert_equal(everything(trainers[1]), everything(trainers[0]))
    vae = same_toy_vae()
    hybrid = dgm.HybridTrainer(dgm.ELBO(vae.model, vae.guide), plain_critic(), compile="auto")
    fit(hybrid)
    assert len(graphs) == 6


@pytest.mark.filterwarnings("ignore:.*compile='auto'")
def test_each_move_is_decided_by_itself_however_often_a_run_stops(graphs, tmp_path):
    """The critic's move has a graph, the generator's has none, for its bound reads a value."""
    options = {"bound": "branching"}
    whole, first, second = (build(plain_critic, "auto", seed, **options) for seed in (1, 1, 99))
    fit(whole, epochs=4)
    assert len(graphs) == 1
    fit(first, epochs=2)
    first.save(tmp_path / "game.pt")
    second.resume(tmp_path / "game.pt")
    fit(second, epochs=2)
    assert_equal(everything(second), everything(whole))
    eager = build(plain_critic, False, **options)
    fit(eager, epochs=4)
    torch.testing.assert_close(everything(whole)[0], everything(eager)[0])
