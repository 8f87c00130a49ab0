"""Files of a run on some ranks that goes on on others, estimates that ranks share, and ranks that are killed."""

from __future__ import annotations

import os
import signal
from functools import partial
from time import perf_counter

import pytest
import torch
from forked import run_ranks
from torch.utils.data import DataLoader, TensorDataset
from toys import assert_equal, everything, same_toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.evaluation.likelihood.scoring import Scoring
from pyro_dgm.inference.process import meeting

pytestmark = [
    pytest.mark.slow,  # several processes
    pytest.mark.filterwarnings("ignore:data. got the same"),
]
NUM, BATCH = 23, 3
STOP = 2  # steps of the second epoch before a run is stopped


def data():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(NUM, 3, generator=generator)
    x[:, 0] = torch.arange(NUM)  # by which a datum is known
    return x


def build(**options):
    vae = same_toy_vae(1)
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), **{"lr": 1e-2, "ema": 0.9, **options})


SOURCES = {
    "tensor": data,
    "loader": lambda: DataLoader(TensorDataset(data()), BATCH, shuffle=True),
}


def fit(trainer, source, **options):
    """Train; returns the data of each step by epoch, of this rank."""
    seen, step = {}, trainer.step

    def stepping(*batch):
        if batch:
            seen.setdefault(trainer.num_epochs, []).extend(batch[0][:, 0].long().tolist())
        return step(*batch)

    trainer.step = stepping
    try:
        trainer.fit(source, **{"batch_size": BATCH, "progress": False, **options})
    finally:
        trainer.step = step
    return seen


def stopped(rank, path, source, *, num_steps):
    """Write a file after so many steps in all, in the middle of the second epoch."""
    trainer = build()
    average = trainer.average

    def averaging():
        average()
        if trainer.num_steps == num_steps + 1:
            raise KeyboardInterrupt

    trainer.average = averaging
    seen = {}
    try:
        seen = fit(trainer, source(), epochs=3, checkpoint=path, checkpoint_every=1)
    except KeyboardInterrupt:
        return None
    return seen


def steps_of_epoch(world):
    return len(torch.arange(NUM)[::world].split(BATCH))


def seen_until(world, source):
    """The data that the ranks have seen in the second epoch until it was stopped: they are the same as without stop."""

    def work(rank):
        trainer = build()
        batches = []
        step = trainer.step

        def stepping(*batch):
            if trainer.num_epochs == 1 and len(batches) < STOP:
                batches.append(batch[0][:, 0].long().tolist() if batch else [])
            return step(*batch)

        trainer.step = stepping
        trainer.fit(source(), epochs=2, batch_size=BATCH, progress=False)
        return [x for batch in batches for x in batch]

    return [x for found in run_ranks(work, world) for x in found]


def resumed(rank, path, source):
    trainer = build()
    trainer.resume(path)
    seen = fit(trainer, source(), epochs=2)
    return seen, everything(trainer), weights(trainer)


def weights(trainer):
    return {"last": trainer.state.last, "ema": trainer.ema.average}


@pytest.mark.parametrize("name", list(SOURCES))
def test_on_as_many_ranks_a_run_goes_on_bit_for_bit_from_the_middle_of_an_epoch(name, tmp_path):
    source = SOURCES[name]

    def work(rank):
        path = tmp_path / "run.pt"
        stopped(rank, path, source, num_steps=steps_of_epoch(2) + STOP)
        _, halves, _ = resumed(rank, path, source)
        whole = build()
        fit(whole, source(), epochs=3)
        return halves, everything(whole)

    for halves, whole in run_ranks(work, 2):
        assert_equal(halves, whole)


@pytest.mark.parametrize("name", list(SOURCES))
@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2), (2, 3)])
def test_on_other_ranks_the_rest_of_an_epoch_is_shared_out_and_each_datum_is_read_once(
    old, new, name, tmp_path
):
    source, path = SOURCES[name], tmp_path / "run.pt"
    num_steps = steps_of_epoch(old) + STOP
    run_ranks(partial(stopped, path=path, source=source, num_steps=num_steps), old)
    before = seen_until(old, source)
    found = run_ranks(partial(resumed, path=path, source=source), new)
    rest = [x for seen, *_ in found for x in seen[1]]
    assert sorted(before + rest) == list(range(NUM))
    last = [x for seen, *_ in found for x in seen[2]]
    assert sorted(last) == list(range(NUM))
    for *_, other in found:
        torch.testing.assert_close(other, found[0][-1], rtol=0, atol=0)


def trained(rank=0, *, batch_size, **options):
    """A density without noise, on data that the ranks share in unequal parts."""
    torch.manual_seed(rank)  # the ranks start from other weights
    program = dgm.DensityModel(dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 2, hidden=(8,))))
    trainer = dgm.SVITrainer(dgm.ELBO(program, dgm.EmptyGuide()), lr=1e-2, clip=1.0, **options)
    x = data() / NUM
    trainer.fit(x, x, epochs=3, batch_size=batch_size, progress=False)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history]
    return weights(trainer) | {"rows": rows}


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize(("world", "size"), [(2, 3), (3, 4)])
def test_ranks_with_unequal_parts_equal_one_process_on_the_joined_batch(
    world, size, compile, monkeypatch
):
    """On two ranks 12 and 11 data in batches of 3 are one process's in batches of 6; on three 8, 8 and 7."""
    without_kernels(monkeypatch)
    options = {"ema": 0.9, "compile": compile}
    whole = trained(batch_size=size * world, **options)
    for found in run_ranks(partial(trained, batch_size=size, **options), world):
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)


def asked(rank=0):
    vae, x = same_toy_vae(1), data()
    loader = DataLoader(TensorDataset(x), 5)
    nll = [dgm.nll(vae.model, vae.guide, source, num=400, chunk=160) for source in (x, loader)]
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    rows = [trainer.evaluate(source, batch_size=5) for source in (x, loader)]
    return nll, rows


@pytest.mark.parametrize("world", [2, 3])
def test_an_estimate_that_ranks_share_has_the_figures_of_one_process(world):
    nll, rows = asked()
    for of_rank in run_ranks(asked, world):
        for one, other in zip(nll, of_rank[0], strict=True):
            for name in ("per_datum", "nelbo", "kl", "monte_carlo", "ess", "khat"):
                own, found = getattr(one, name), getattr(other, name)
                torch.testing.assert_close(own, found, rtol=0, atol=0, equal_nan=True)
            assert (one.kind, one.measure, one.num) == (other.kind, other.measure, other.num)
        for row, found in zip(rows, of_rank[1], strict=True):
            assert found == pytest.approx(row, rel=1e-12)


def test_each_rank_scores_its_own_blocks():
    def work(rank):
        sizes, score = [], Scoring.__call__

        def counted(scoring, block):
            sizes.append(len(block[0]))
            return score(scoring, block)

        Scoring.__call__ = counted
        vae = same_toy_vae(1)
        dgm.nll(vae.model, vae.guide, data(), num=400, chunk=160)
        return sizes

    assert run_ranks(work, 2) == [[5, 5, 3], [5, 5]]


def test_a_question_that_one_rank_asks_is_answered_by_that_rank(monkeypatch):
    monkeypatch.setattr(meeting, "PATIENCE", 0.5)

    def work(rank):
        vae = same_toy_vae(1)
        if rank == 1:
            return dgm.nll(vae.model, vae.guide, data()[:7], num=40, seed=5).mean
        with pytest.warns(UserWarning, match="rank 0 does all of it. Fix: call nll on every rank"):
            return dgm.nll(vae.model, vae.guide, data(), num=40).mean

    def other(rank):
        with pytest.warns(UserWarning, match=f"rank {rank} does all of it"):
            return work(rank)

    vae = same_toy_vae(1)
    expected = [
        dgm.nll(vae.model, vae.guide, data(), num=40).mean,
        dgm.nll(vae.model, vae.guide, data()[:7], num=40, seed=5).mean,
    ]
    assert run_ranks(lambda rank: other(rank) if rank else work(rank), 2) == expected


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(TensorDataset):
    """Kills the process that reads its 12th item."""

    def __getitem__(self, index):
        if index == 11:
            die()
        return super().__getitem__(index)


def killed_in_a_step(rank, **options):
    trainer = build(**options)

    def end(row):
        if rank == 1:
            die()

    trainer.fit(data(), epochs=3, batch_size=BATCH, progress=False, on_epoch=end)


def killed_in_evaluate(rank):
    dataset = Deadly if rank == 1 else TensorDataset
    build().evaluate(DataLoader(dataset(data()), 3))


def killed_in_nll(rank):
    if rank == 1:
        Scoring.__call__ = lambda scoring, block: die()
    vae = same_toy_vae(1)
    dgm.nll(vae.model, vae.guide, data(), num=400, chunk=160)


KILLS = {
    "step": killed_in_a_step,
    "compiled step": partial(killed_in_a_step, compile=True, ema=None),
    "evaluate": killed_in_evaluate,
    "nll": killed_in_nll,
}


@pytest.mark.parametrize("name", list(KILLS))
def test_a_rank_that_is_killed_ends_the_others_by_name_in_seconds(name, monkeypatch):
    without_kernels(monkeypatch)
    begin = perf_counter()
    zero, one = run_ranks(KILLS[name], 2)
    assert one is None
    assert zero.startswith("LostRankError: rank 0 of 2: expected every rank to take part")
    assert perf_counter() - begin < 40
