import pytest
import torch
from cases import PAIRS
from torch import distributed, multiprocessing
from torch.utils.data import DataLoader

import pyro_dgm as dgm
from pyro_dgm.inference.data.batches import LoaderBatches
from pyro_dgm.inference.data.reading import as_batches
from pyro_dgm.inference.data.sharding import with_batches_of_rank, with_order_of_rank
from pyro_dgm.inference.process.distributed import (
    all_reduce_sum,
    average_gradients,
    copy_from_rank_zero,
    rank_and_world,
)

WORLD = 2


def make(seed):
    """Data, and a trainer of a model without latents, so that there is no noise; weights are a function of the seed."""
    torch.manual_seed(0)
    train, val = torch.randn(20, 3), torch.randn(7, 3)
    torch.manual_seed(seed)
    case = PAIRS["density_flow"]()
    objective = dgm.ELBO(case.model, case.guide)
    trainer = dgm.SVITrainer(
        objective, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), clip=5.0, ema=0.9
    )
    return trainer, train, val


def trained(seed, batch_size):
    torch.set_default_dtype(torch.float64)
    trainer, train, val = make(seed)
    trainer.fit(train, val, epochs=3, batch_size=batch_size, progress=False)
    rows = [
        {name: value for name, value in row.items() if name != "seconds"} for row in trainer.history
    ]
    return {
        "last": trainer.state.last,
        "module": trainer.module.state_dict(),
        "rows": rows,
        "ema": trainer.ema.average,
    }


def worker(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    try:
        torch.save(trained(seed=5 + rank, batch_size=4), f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_agree_and_equal_one_process_on_the_joined_batch(tmp_path):
    """Ranks start from other weights; 10 data each in batches of 4, 4, 2 are one process's batches of 8, 8, 4."""
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=WORLD)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    torch.testing.assert_close(ranks[0], ranks[1], rtol=0, atol=0)
    torch.testing.assert_close(ranks[0], trained(seed=5, batch_size=8))


def shuffled_flow(seed):
    """A density whose permutation, reflections and weights are all drawn by chance, trained; its value at fixed points.

    Before training the ranks hold other permutations; what counts is that afterwards they hold one.
    """
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    layers = [
        dgm.flows.Permutation(4, torch.randperm(4).tolist()),
        dgm.flows.Orthogonal(4),
        dgm.flows.Coupling(4, hidden=(8,)),
        dgm.flows.Permutation(4, torch.randperm(4).tolist()),
        dgm.flows.LULinear(4),
        dgm.flows.Coupling(4, hidden=(8,)),
    ]
    flow = dgm.Flow(dgm.MixturePrior(4, 3), layers)
    points = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    orders = [layers[0].order.clone(), layers[3].order.clone()]
    trainer = dgm.SVITrainer(dgm.ELBO(dgm.DensityModel(flow), dgm.EmptyGuide()), lr=1e-2)
    train = torch.randn(20, 4, generator=torch.Generator().manual_seed(2))
    trainer.fit(train, epochs=2, batch_size=5, progress=False)
    return {
        "before": orders,
        "after": [layers[0].order, layers[3].order],
        "log_p": flow().log_prob(points).detach(),
    }


def flow_worker(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    try:
        torch.save(shuffled_flow(seed=5 + rank), f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_one_density_through_permutations_and_rotations_drawn_by_chance(tmp_path):
    multiprocessing.spawn(flow_worker, (str(tmp_path),), nprocs=WORLD)
    zero, one = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    assert any(not torch.equal(a, b) for a, b in zip(zero["before"], one["before"], strict=True))
    for a, b in zip(zero["after"], one["after"], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(zero["log_p"], one["log_p"], rtol=0, atol=0)


def test_alone_nothing_is_sent():
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    total = torch.ones(2)
    average_gradients([parameter])
    copy_from_rank_zero([parameter])
    assert rank_and_world() == (0, 1)
    assert all_reduce_sum(total) is total
    assert torch.equal(parameter.grad, torch.ones(2))


RANKED = [
    f"pyro_dgm.inference.data.{module}.rank_and_world"
    for module in ("sharding", "batches", "loaders")
]


def of_each_rank(world, monkeypatch, run):
    """What a function gives on each rank."""
    found = []
    for rank in range(world):
        for name in RANKED:
            monkeypatch.setattr(name, lambda rank=rank: (rank, world))
        found.append(run())
    return found


def values(batches):
    return [x.tolist() for (x,) in batches]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num", [1, 7, 8, 9])
@pytest.mark.parametrize("world", [2, 3])
def test_in_training_each_datum_is_with_one_rank_and_a_step_has_the_batch_of_one_process(
    num, world, shuffle, monkeypatch
):
    batches, wide = (
        dgm.Batches(torch.arange(num), size, shuffle=shuffle) for size in (2, 2 * world)
    )
    whole = values(wide.epoch(seed=1, epoch=2))
    parts = of_each_rank(
        world, monkeypatch, lambda: values(batches.epoch(seed=1, epoch=2, training=True))
    )
    assert sorted(x for part in parts for batch in part for x in batch) == list(range(num))
    for step in range(num // (2 * world)):
        if all(len(part[step]) == 2 for part in parts):  # else a rest of one datum was joined
            assert sorted(x for part in parts for x in part[step]) == sorted(whole[step])


@pytest.mark.parametrize("num", [1, 7, 8, 9, 23])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_rank_knows_how_many_batches_of_training_it_has(num, world, monkeypatch):
    """By that the ranks know whether one must follow the others: a last batch of one datum is none of its own."""
    loader = DataLoader(torch.arange(num), 3, shuffle=True)
    build = lambda: LoaderBatches(with_order_of_rank(loader), ["x"], torch.device("cpu"))  # noqa: E731
    for batches in (build, lambda: dgm.Batches(torch.arange(num), 3)):
        found = of_each_rank(world, monkeypatch, lambda b=batches: counted(b()))
        assert all(told == read for told, read in found)


def counted(batches):
    """How many batches are told, and how many are read."""
    read = batches.epoch(1, 2, training=True)
    return batches.num_batches, len(list(read))


@pytest.mark.parametrize("world", [2, 3])
def test_in_evaluation_the_ranks_share_the_batches_of_one_process(world, monkeypatch):
    batches = dgm.Batches(torch.arange(7), 2, shuffle=False)
    whole = list(enumerate(values(batches.epoch())))
    loader, rows = DataLoader(batches.tensors[0], 2), DataLoader(batches.tensors[0], None)
    arguments = ["x"], torch.device("cpu")
    shared = lambda: LoaderBatches(with_batches_of_rank(loader), *arguments)  # noqa: E731
    stacked = lambda: LoaderBatches(with_batches_of_rank(rows, 2), *arguments, 2)  # noqa: E731
    for build in (lambda: batches, shared, stacked):
        parts = of_each_rank(
            world,
            monkeypatch,
            lambda b=build: [(i, x[0].tolist()) for i, x in tuples(b().numbered())],
        )
        assert sorted(pair for part in parts for pair in part) == whole


def tuples(numbered):
    return [(i, batch) for i, batch in numbered]


@pytest.mark.parametrize("worlds", [(2, 1), (1, 2), (2, 3), (3, 2, 1)])
def test_what_is_left_of_an_epoch_goes_to_other_ranks_and_each_datum_is_read_once(
    worlds, monkeypatch
):
    """Each number of ranks takes one step but the last, which takes all that is left."""
    batches, stages, seen = dgm.Batches(torch.arange(23), 3), [], []
    for world in worlds[:-1]:
        firsts = of_each_rank(
            world, monkeypatch, lambda s=stages: values(batches.epoch(training=True, stages=s))[0]
        )
        seen += [x for first in firsts for x in first]
        stages = [*stages, [len(first) for first in firsts]]
    rests = of_each_rank(
        worlds[-1], monkeypatch, lambda: values(batches.epoch(training=True, stages=stages))
    )
    rest = [x for part in rests for batch in part for x in batch]
    assert sorted(seen + rest) == list(range(23))


def test_on_as_many_ranks_the_rest_of_an_epoch_is_cut_as_it_would_have_been(monkeypatch):
    """Eleven data: the last batch of rank 1 takes in a single datum, that of rank 0 does not."""
    batches = dgm.Batches(torch.arange(11), 2)
    whole = of_each_rank(2, monkeypatch, lambda: values(batches.epoch(training=True)))
    assert [list(map(len, part)) for part in whole] == [[2, 2, 2], [2, 3]]
    for num_steps in range(3):
        nums = iter([sum(map(len, part[:num_steps])) for part in whole])
        rest = of_each_rank(
            2,
            monkeypatch,
            lambda nums=nums: values(batches.epoch(training=True, num_seen=next(nums))),
        )
        assert rest == [part[num_steps:] for part in whole]


def test_a_distributed_sampler_is_told_the_epoch():
    """Defect 14: without `set_epoch` every epoch has the order of the first."""
    x = torch.arange(20.0)
    dataset = torch.utils.data.TensorDataset(x)
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=2, rank=0, shuffle=True)
    loader = torch.utils.data.DataLoader(dataset, 10, sampler=sampler)
    batches = as_batches(loader, 10, dgm.EmptyGuide(), torch.device("cpu"))
    first, second = (next(batches.epoch(0, epoch))[0] for epoch in (0, 1))
    assert not torch.equal(first, second)
