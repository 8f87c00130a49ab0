"""Ragged sequences: nothing lost, nothing twice, padded places masked; a deep Markov model trains on them."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_dgm import ELBO, SVITrainer
from pyro_dgm.inference.data.sequences import LengthBuckets
from pyro_dgm.inference.training.compiled.compilation import Compiled, Eager
from pyro_dgm.inference.training.compiled.graphs import LONG


def _ragged(lengths, width=3):
    return [torch.randn(length, width) for length in lengths]


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_step_of_every_sequence_comes_once(shuffle):
    sequences = _ragged([3, 17, 5, 16, 9, 1, 33])
    buckets = LengthBuckets(sequences, batch_size=2, step=8, shuffle=shuffle)
    for _ in range(2):
        found = []
        for x, mask in buckets:
            assert x.shape[1] % 8 == 0
            assert (x * ~mask[..., None] == 0).all()
            found += [row[kept] for row, kept in zip(x, mask, strict=True)]
        assert len(found) == len(sequences)
        for sequence in sequences:
            assert sum(torch.equal(sequence, other) for other in found) == 1
    assert [len(x) for x, _ in buckets].count(2) == 3  # and one of the shortest
    assert len(list(buckets)) == len(buckets) == 4
    assert buckets.num_steps == 84


def test_a_new_pass_has_a_new_order_of_the_same_seed():
    sequences = _ragged(range(1, 40))
    first, again = (LengthBuckets(sequences, 4, 8, shuffle=True, seed=1) for _ in range(2))
    orders = [[mask.sum().item() for _, mask in buckets] for buckets in (first, first, again)]
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        ([], "at least one sequence"),
        ([torch.zeros(0, 2)], "one step or more"),
        ([torch.zeros(2, 2), torch.zeros(2, 3)], "one shape and dtype"),
    ],
)
def test_what_is_no_set_of_sequences_is_refused(sequences, words):
    with pytest.raises(ValueError, match=words) as error:
        LengthBuckets(sequences)
    assert "Fix:" in str(error.value)


@pytest.fixture(autouse=True)
def cleared_store(clean_globals):
    """The programs put their parameters into Pyro's store, as `pyro.module` does."""
    yield
    pyro.clear_param_store()


class MarkovModel(nn.Module):
    """A linear deep Markov model with a guide that looks ahead, in Pyro's words."""

    def __init__(self, width=3, latent=2):
        super().__init__()
        self.transition = nn.Linear(latent, latent)
        self.emission = nn.Linear(latent, width)
        self.encoder = nn.GRU(width, 8, batch_first=True)
        self.to_normal = nn.Linear(8 + latent, 2 * latent)
        self.latent = latent

    def model(self, x, mask):
        pyro.module("dmm", self)
        z = x.new_zeros(len(x), self.latent)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=mask[:, t]):
                    z = pyro.sample(f"z_{t}", dist.Normal(self.transition(z), 1.0).to_event(1))
                    p_x = dist.Normal(self.emission(z), 1.0).to_event(1)
                    pyro.sample(f"x_{t}", p_x, obs=x[:, t])

    def guide(self, x, mask):
        pyro.module("dmm", self)
        ahead = self.encoder(x.flip(1))[0].flip(1)
        z = x.new_zeros(len(x), self.latent)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                loc, scale = self.to_normal(torch.cat([ahead[:, t], z], -1)).chunk(2, -1)
                with poutine.mask(mask=mask[:, t]):
                    q_z = dist.Normal(loc, nn.functional.softplus(scale)).to_event(1)
                    z = pyro.sample(f"z_{t}", q_z)


def test_what_is_padded_has_no_share_in_the_bound():
    dmm = MarkovModel()
    objective = ELBO(dmm.model, dmm.guide)
    ((x, mask),) = LengthBuckets(_ragged([4, 4]), 2, 4)
    padded = torch.cat([x, torch.full((2, 3, 3), 7.0)], 1)
    longer = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
    model_terms = []
    for batch in ((x, mask), (padded, longer)):
        torch.manual_seed(0)
        guide = poutine.trace(dmm.guide).get_trace(*batch)
        run = poutine.trace(poutine.replay(dmm.model, trace=guide)).get_trace(*batch)
        names = [name for name, site in run.nodes.items() if site["type"] == "sample"]
        names = [n for n in names if n.startswith("x_") and int(n[2:]) >= 4]
        run.compute_log_prob()
        model_terms.append([run.nodes[name]["log_prob_sum"].item() for name in names])
    assert model_terms == [[], [0.0, 0.0, 0.0]]
    assert objective(padded, longer).isfinite()


def test_a_trainer_takes_the_buckets_as_they_come():
    dmm = MarkovModel()
    train = LengthBuckets(_ragged([3, 5, 2, 6, 4, 8]), 2, 4, shuffle=True)
    history = SVITrainer(ELBO(dmm.model, dmm.guide), lr=1e-2).fit(train, epochs=5, progress=False)
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.slow
def test_a_long_graph_is_a_script_with_the_gradients_of_the_program():
    dmm = MarkovModel()
    objective = ELBO(dmm.model, dmm.guide)
    (batch,) = LengthBuckets(_ragged([40, 33]), 2, 40)
    objective.preflight(*batch)
    eager, compiled = Eager(objective), Compiled(objective)
    stages = []
    compiled.announce = stages.append
    for _ in range(2):  # the noise of a script is torch's own
        found = []
        for road in (eager, compiled):
            if road is compiled:
                road.backward(*batch)  # builds the graph, and takes noise
            torch.manual_seed(0)
            terms = road.backward(*batch)
            found.append((terms["loss"], [p.grad.clone() for p in objective.parameters()]))
        (loss, gradients), (again, others) = found
        torch.testing.assert_close(again, loss)
        for gradient, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-5)
    (graph,) = compiled._graphs.values()
    assert isinstance(graph.function.script, torch.jit.ScriptFunction)
    assert any(f"{LONG:,}" < stage for stage in stages)
    assert len(stages) == 4
    assert stages[-1] == ""
