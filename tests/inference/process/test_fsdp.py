"""Networks whose parameters torch shards over the ranks: `torch.distributed.fsdp.fully_shard`."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from forked import run_ranks
from torch import distributed, nn
from toys import same_toy_vae

import pyro_dgm as dgm

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of torch's own


def data(num=16):
    return torch.randn(num, 3, generator=torch.Generator().manual_seed(3))


class Located(dgm.Program):
    """x ~ N(f(1), 1)."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x=None):
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Normal(self.net(torch.ones(1)), 1.0).to_event(1), obs=x)


def density():
    torch.manual_seed(0)
    return Located(), dgm.EmptyGuide()


def vae():
    found = same_toy_vae(1)
    return found.model, found.guide


def trained(rank=0, *, pair, size, epochs=3, is_sharded=True, num=16, **options):
    """Weights put together, rows and likelihood of a run."""
    trainer = make(pair, is_sharded=is_sharded)
    trainer.fit(data(num), data(), epochs=epochs, batch_size=size, progress=False, **options)
    return found_by(trainer)


def make(pair, *, is_sharded):
    from torch.distributed.fsdp import fully_shard

    objective = dgm.ELBO(*pair())
    if is_sharded:
        mesh = distributed.init_device_mesh("cpu", (distributed.get_world_size(),))
        for module in list(objective.modules()):
            if isinstance(module, nn.Sequential):
                fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return dgm.SVITrainer(objective, lr=1e-2, clip=1.0, ema=0.9)


def found_by(trainer):
    objective = trainer.objective
    whole = {
        name: p.full_tensor() if hasattr(p, "full_tensor") else p.detach()
        for name, p in objective.named_parameters()
    }
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history]
    nll = dgm.nll(objective.model, objective.guide, data(), num=20, chunk=100).mean
    num_sharded = sum(hasattr(p, "full_tensor") for p in objective.parameters())
    return {"weights": whole, "rows": rows, "nll": nll}, num_sharded


def test_a_sharded_network_is_trained_as_one_process_trains_it():
    whole, _ = trained(pair=density, size=8, is_sharded=False)
    for found, num_sharded in run_ranks(partial(trained, pair=density, size=4), 2):
        assert num_sharded > 0
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)


def test_a_sharded_run_goes_on_from_its_file_bit_for_bit_and_alone_as_well(tmp_path):
    path = tmp_path / "run.pt"

    def work(rank):
        trained(rank, pair=vae, size=4, epochs=2, checkpoint=path)
        again = make(vae, is_sharded=True)
        again.resume(path)
        again.fit(data(), data(), epochs=1, batch_size=4, progress=False)
        return found_by(again), trained(rank, pair=vae, size=4)

    for again, whole in run_ranks(work, 2):
        assert whole[1] > 0
        torch.testing.assert_close(again, whole, rtol=0, atol=0)
    alone = make(vae, is_sharded=False)
    alone.resume(path)
    alone.fit(data(), epochs=1, batch_size=4, progress=False)
    assert alone.num_epochs == 3


def test_unequal_parts_are_refused_where_each_pass_needs_all_ranks():
    for found in run_ranks(partial(trained, pair=density, size=4, num=19), 2):
        assert "expected as many batches on every rank for a module that fully_shard" in found
