"""Two ranks, once, through everything that they must agree on; each test reads what they have found."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import zip_longest
from time import perf_counter
from unittest.mock import patch

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor
from torch import distributed, multiprocessing, nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

import pyro_dgm as dgm
from pyro_dgm.inference.process.distributed import gather

WORLD = 2
pytestmark = pytest.mark.slow  # two processes import torch


class Heads(dgm.Program):
    """x ~ N(W 1, 1) by the head that this rank uses; the third is used by none."""

    def __init__(self, head):
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                "a": nn.Linear(1, 3),
                "b": nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 3)),
                "c": nn.Linear(1, 3),
            }
        )
        self.head = head

    def forward(self, x=None):
        with dgm.data_plate(x):
            loc = self.heads[self.head](torch.ones(1))
            return pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


class Spoilt(Heads):
    """NaN in training where a datum is above 90: preflight, in evaluation mode, does not see it."""

    def forward(self, x=None):
        with dgm.data_plate(x):
            loc = self.heads["a"](torch.ones(1))
            if self.training and x is not None:
                loc = loc + torch.where(x > 90, torch.nan, 0.0)
            return pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


class Stream(IterableDataset):
    """Batches whose number only reading tells."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def data(seed, num=8):
    return torch.randn(num, 3, generator=torch.Generator().manual_seed(seed))


def density(rank, kind=Heads):
    torch.manual_seed(rank)  # the ranks start from other weights
    return kind("ab"[rank])


def svi(program, **options):
    objective = dgm.ELBO(program, dgm.EmptyGuide())
    make = lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.5)  # noqa: E731
    return dgm.SVITrainer(objective, make, **options)


def weights(module):
    return {name: t.detach().clone() for name, t in module.state_dict().items()}


def attempt(run):
    """What it gives, or the text of its error."""
    try:
        return run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def own_batches(rank, num=1, size=8):
    """A list of batches of this rank alone."""
    return [data(10 * rank + i, size) for i in range(num)]


def fit(trainer, train, **options):
    trainer.fit(train, **{"epochs": 1, "progress": False} | options)
    return trainer


def unused(rank, *, compile):
    torch.manual_seed(7)
    trainer = svi(Heads("ab"[rank]), compile=compile, ema=0.5)
    before = weights(trainer.module)
    fit(trainer, own_batches(rank))
    missing = [n for n, p in trainer.module.named_parameters() if p.grad is None]
    return {
        "before": before,
        "after": trainer.state.last,
        "ema": trainer.ema.average,
        "missing": missing,
    }


def unused_in_a_game(rank, *, hybrid):
    torch.manual_seed(rank)
    critic = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    program = density(rank)
    bound = dgm.ELBO(program, dgm.EmptyGuide()) if hybrid else None
    ema = None if hybrid else 0.5
    trainer = dgm.GANTrainer(program, critic, penalties=(), bound=bound, ema=ema, noise=True)
    fit(trainer, own_batches(rank, 3), epochs=2, max_skips=1)
    return weights(trainer.module)


def played(rank, *, compile):
    """A game by graphs without kernels, or eagerly; each rank draws noise of its own, and rank 1 has a batch more."""
    torch.manual_seed(7)
    play = dgm.gan.Alternating(critic=dgm.gan.Player(clip=0.1), n_critic=2)
    settings = {"play": play, "ema": 0.5, "noise": True, "compile": compile}
    trainer = dgm.GANTrainer(density(0), dgm.mlp(3, 4, 1), **settings)
    with patch.object(torch._inductor, "compile", lambda graph, *_, **__: graph):
        fit(trainer, own_batches(rank, 4 + rank, size=5 + rank), epochs=2)
    return weights(trainer.module)


def skipped(rank):
    program = density(rank, Spoilt)
    trainer = svi(program)
    batches = own_batches(rank, 3)
    clean = [batch.clone() for batch in batches]
    if rank == 1:
        batches[1][0] = 99.0
    last_is_bad = [clean[0], batches[1]]
    fit(trainer, batches, max_skips=1)
    refused = attempt(lambda: fit(svi(density(rank, Spoilt)), last_is_bad))
    spent = attempt(lambda: fit(svi(density(rank, Spoilt)), batches, epochs=2, max_skips=1))
    fit(trainer, clean)
    return {
        "num": trainer.num_skipped,
        "weights": weights(trainer.module),
        "refused": refused,
        "spent": spent,
    }


def counts(rank):
    program = density(rank)
    unequal = own_batches(rank, 3 + rank, size=5 + rank)
    equal = own_batches(rank, 3)
    stream = lambda batches: DataLoader(Stream(batches), batch_size=None)  # noqa: E731
    trainer = fit(svi(program), stream(equal))
    kinds = {
        "known": unequal,
        "unknown": stream(unequal),
        "mixed": stream(unequal) if rank else unequal,
        "none on rank 0": stream(unequal if rank else []),
    }
    return {
        "unequal": {name: attempt(partial(uneven, rank, kind)) for name, kind in kinds.items()},
        "steps": trainer.num_steps,
        "epochs": attempt(lambda: fit(svi(program), equal, epochs=1 + rank)),
    }


def uneven(rank, batches):
    """Two epochs of all that a step moves, at batches of other numbers and sizes on each rank."""
    torch.manual_seed(7)
    objective = dgm.ELBO(Heads("a"), dgm.EmptyGuide())
    trainer = dgm.SVITrainer(objective, lr=1e-2, ema=0.5, clip=1.0)
    fit(trainer, batches, epochs=2, max_skips=3)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history]
    return {
        "weights": weights(trainer.module),
        "ema": trainer.ema.average,
        "moments": trainer.optimizer.state_dict()["state"],
        "rows": rows,
        "steps": trainer.num_steps,
    }


def loaders(rank):
    program, whole, part = density(rank), TensorDataset(data(1)), TensorDataset(data(rank))
    sampler = DistributedSampler(whole)
    batches = torch.utils.data.BatchSampler(DistributedSampler(whole), 2, drop_last=False)
    own = DistributedSampler(part, num_replicas=1, rank=0)
    sources = {
        "in order": DataLoader(whole, 2),
        "shuffled": DataLoader(whole, 2, shuffle=True),
        "one list": [data(1), data(2)],
        "one stream": DataLoader(Stream([data(1), data(2)]), batch_size=None),
        "other tensors": data(rank),
        "sampler": DataLoader(whole, 2, sampler=sampler),
        "sampler of batches": DataLoader(whole, batch_sampler=batches),
        "parts": DataLoader(part, 2, sampler=own),
        "part without a sampler": DataLoader(part, 2),
        "dataset": whole,
        "tensors": data(1),
    }
    steps = lambda source: fit(svi(program), source, batch_size=2).num_steps  # noqa: E731
    return {name: attempt(partial(steps, source)) for name, source in sources.items()}


def structures(rank):
    wide = Heads("a")
    wide.heads["b"] = nn.Sequential(nn.Linear(1, 4 + rank), nn.Linear(4 + rank, 3))
    frozen = Heads("a")
    frozen.heads["b"].requires_grad_(rank == 0)
    more = Heads("a")
    if rank:
        more.heads["d"] = nn.Linear(1, 1)
    programs = {"wide": wide, "frozen": frozen, "more": more}
    return {name: attempt(lambda p=p: fit(svi(p), data(1))) for name, p in programs.items()}


def apart(rank):
    """One rank changes a weight after the first of three epochs."""
    program = density(rank)

    def change(row):
        if rank == 1 and row["epoch"] == 1:
            with torch.no_grad():
                program.heads["b"][0].bias.add_(1.0)

    return attempt(lambda: fit(svi(program), data(1), epochs=3, on_epoch=change))


def errors(rank):
    program = density(rank)

    def fail(row):
        raise OSError("the disk is full")

    x = data(1)
    bad = x * torch.nan if rank else x
    outside = data(1)[:, :2] if rank else data(1)
    return {
        "callback": attempt(lambda: fit(svi(program), x, on_epoch=fail if rank else None)),
        "data": attempt(lambda: fit(svi(program), bad)),
        "preflight": attempt(lambda: fit(svi(program), [outside + rank])),
        "evaluate": attempt(lambda: svi(program).evaluate([outside + rank])),
    }


def estimates(rank):
    program, x = density(0), data(1, num=5)
    nll = lambda source: dgm.nll(program, dgm.EmptyGuide(), source, num=1).per_datum  # noqa: E731
    trainer = svi(program)
    return {
        "of a tensor": nll(x),
        "of Batches": nll(dgm.Batches(x, 2)),
        "of a Dataset": nll(TensorDataset(x)),
        "losses": [
            trainer.evaluate(source)["loss"] for source in (x, TensorDataset(x), dgm.Batches(x, 2))
        ],
        "too few": attempt(lambda: trainer.evaluate(x[:1])),
    }


class Stops(Heads):
    """Raises in a step of one rank."""

    def forward(self, x=None):
        if self.training and self.head == "b":
            raise ArithmeticError("this rank stops")
        return super().forward(x)


def lost(rank):
    if rank == 1:
        distributed.destroy_process_group()  # as a process that ends
        return ""
    return attempt(lambda: fit(svi(density(rank)), data(1)))


def stopped(rank):
    """A rank raises in a step, lives on, and takes part in whatever comes next."""
    begin = perf_counter()
    trainer = svi(density(rank, Stops))
    found = attempt(lambda: fit(trainer, data(1), epochs=3))
    seconds = perf_counter() - begin
    return {"fit": found, "seconds": seconds, "next": gather(rank)}


SCENARIOS = {
    "unused": lambda rank: unused(rank, compile=False),
    "unused, compiled": lambda rank: unused(rank, compile=True),
    "game": lambda rank: unused_in_a_game(rank, hybrid=False),
    "hybrid": lambda rank: unused_in_a_game(rank, hybrid=True),
    "played": lambda rank: played(rank, compile=False),
    "played, compiled": lambda rank: played(rank, compile=True),
    "skipped": skipped,
    "counts": counts,
    "loaders": loaders,
    "structures": structures,
    "apart": apart,
    "errors": errors,
    "estimates": estimates,
    "stopped": stopped,
    "lost": lost,
}


def worker(rank, folder):
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    found = {name: scenario(rank) for name, scenario in SCENARIOS.items()}
    torch.save(found, f"{folder}/{rank}.pt")
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def of_scenario(ranks, name):
    return [found[name] for found in ranks]


@pytest.mark.parametrize("name", ["unused", "unused, compiled"])
def test_a_parameter_that_a_rank_does_not_use_has_half_the_gradient_of_the_other(ranks, name):
    zero, one = of_scenario(ranks, name)
    for part in ("after", "ema"):
        torch.testing.assert_close(zero[part], one[part], rtol=0, atol=0)
    expected = Heads("a")
    start = {
        n.removeprefix("model."): t for n, t in zero["before"].items() if n.startswith("model.")
    }
    expected.load_state_dict(start)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, weight_decay=0.5)
    for rank, head in enumerate("ab"):
        x = own_batches(rank)[0]
        (loc,) = [expected.heads[head](torch.ones(1))]
        (0.5 * (x - loc).square().sum(1).mean() / WORLD).backward()
    optimizer.step()
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(zero["after"][f"model.{key}"], value)


def test_a_game_by_graphs_is_that_of_autograd_on_every_rank(ranks):
    eager, compiled = of_scenario(ranks, "played"), of_scenario(ranks, "played, compiled")
    torch.testing.assert_close(compiled, eager, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(compiled[0], compiled[1], rtol=0, atol=0)


def test_what_no_rank_uses_has_no_gradient_and_does_not_move(ranks):
    """With a gradient of zero its weight would decay."""
    for found in of_scenario(ranks, "unused"):
        assert found["missing"] == ["model.heads.c.weight", "model.heads.c.bias"]
        for name in found["missing"]:
            assert torch.equal(found["before"][name], found["after"][name])


@pytest.mark.parametrize("name", ["game", "hybrid"])
def test_both_sides_of_a_game_agree_with_their_buffers(ranks, name):
    zero, one = of_scenario(ranks, name)
    assert any("running_mean" in key for key in zero)
    torch.testing.assert_close(zero, one, rtol=0, atol=0)


def test_a_step_is_passed_over_by_all_ranks_or_by_none(ranks):
    zero, one = of_scenario(ranks, "skipped")
    assert zero["num"] == one["num"] == 1
    torch.testing.assert_close(zero["weights"], one["weights"], rtol=0, atol=0)
    assert all(t.isfinite().all() for t in zero["weights"].values())


@pytest.mark.parametrize("case", ["refused", "spent"])
def test_a_loss_that_is_not_finite_on_one_rank_is_named_on_all(ranks, case):
    for found in of_scenario(ranks, "skipped"):
        assert "expected finite losses, got non-finite" in found[case]
        assert "[x]" in found[case]


@pytest.mark.parametrize("case", ["known", "unknown", "mixed", "none on rank 0"])
def test_ranks_with_unequal_numbers_of_batches_equal_one_process_on_the_joined_ones(ranks, case):
    """Batches of 5 and of 6 data; in the last step one rank has none, and follows the other."""
    zero, one = (found["unequal"][case] for found in of_scenario(ranks, "counts"))
    torch.testing.assert_close(zero, one, rtol=0, atol=0)
    own = [[] if case == "none on rank 0" else own_batches(0, 3, size=5), own_batches(1, 4, size=6)]
    whole = [torch.cat(parts) for parts in zip_longest(*own, fillvalue=torch.empty(0, 3))]
    torch.testing.assert_close(zero, uneven(0, whole), rtol=1e-12, atol=1e-12)
    assert zero["steps"] == 8


def test_streams_of_equal_unknown_length_are_trained_on(ranks):
    assert [found["steps"] for found in of_scenario(ranks, "counts")] == [3, 3]


@pytest.mark.parametrize("case", ["one list", "one stream"])
def test_data_that_all_ranks_would_see_are_named(ranks, case):
    for found in of_scenario(ranks, "loaders"):
        assert found[case].startswith("ValueError: data: expected")
        assert "DistributedSampler(data)" in found[case].partition("Fix:")[2]


def test_other_tensors_on_each_rank_are_named(ranks):
    for found in of_scenario(ranks, "loaders"):
        assert "expected the same tensors on each of 2 ranks" in found["other tensors"]


@pytest.mark.parametrize(
    ("case", "steps"),
    [
        ("in order", 2),
        ("shuffled", 2),
        ("sampler", 2),
        ("sampler of batches", 2),
        ("parts", 4),
        ("part without a sampler", 4),
        ("dataset", 2),
        ("tensors", 2),
    ],
)
def test_data_that_are_shared_out_are_trained_on(ranks, case, steps):
    assert [found[case] for found in of_scenario(ranks, "loaders")] == [steps, steps]


@pytest.mark.parametrize(
    ("case", "got"),
    [
        ("wide", "'model.heads.b.0.weight' (4, 1)"),
        ("frozen", "'model.heads.b.0.weight' (4, 1), torch.float64, requires_grad=True on rank 0"),
        ("more", "'model.heads.d.weight' (1, 1)"),
    ],
)
def test_ranks_with_other_programs_are_named_before_they_exchange_anything(ranks, case, got):
    for found in of_scenario(ranks, "structures"):
        assert found[case].startswith("ValueError: fit: expected the same programs and settings")
        assert got in found[case]


def test_ranks_with_other_settings_are_named(ranks):
    for found in of_scenario(ranks, "counts"):
        assert "got epochs=1 on rank 0, epochs=2 on rank 1" in found["epochs"]


def test_weights_that_come_apart_are_named_at_the_end_of_the_epoch(ranks):
    for found in of_scenario(ranks, "apart"):
        assert "expected equal weights on every rank" in found
        assert "from 'model.heads.b.0.bias' on" in found


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("callback", "OSError: the disk is full"),
        ("data", "expected finite values"),
        ("preflight", "expected"),
        ("evaluate", "expected"),
    ],
)
def test_what_one_rank_raises_all_raise(ranks, case, text):
    zero, one = (found[case] for found in of_scenario(ranks, "errors"))
    assert zero.startswith("RuntimeError: expected every rank to go on, got an error of rank 1")
    assert text in zero
    assert text in one


def test_an_estimate_on_several_ranks_is_of_all_data(ranks):
    for found in of_scenario(ranks, "estimates"):
        assert len(found["of a tensor"]) == 5
        assert torch.equal(found["of Batches"], found["of a tensor"])
        assert torch.equal(found["of a Dataset"], found["of a tensor"])
        assert found["losses"] == pytest.approx([found["of a tensor"].mean().item()] * 3)
        assert found["too few"]["loss"] == pytest.approx(found["of a tensor"][0].item())


def test_a_rank_that_raises_in_a_step_ends_the_others_at_once_with_its_error(ranks):
    zero, one = of_scenario(ranks, "stopped")
    assert one["fit"] == "ArithmeticError: this rank stops"
    assert zero["fit"] == (
        "RuntimeError: expected every rank to go on, got an error of rank 1: ArithmeticError: this rank stops"
    )
    for found in (zero, one):
        assert found["seconds"] < 20  # of the 60 of the timeout
        assert found["next"] == [0, 1]


def test_a_rank_that_is_lost_ends_the_others_by_name(ranks):
    zero, _ = of_scenario(ranks, "lost")
    assert zero.startswith("LostRankError: rank 0 of 2: expected every rank to take part")
    assert "Fix: read the first error of the other ranks" in zero
