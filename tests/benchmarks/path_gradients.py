"""CPU time of one gradient of E[log q - log p] for a flow: with the score, by a fast path, by an inversion.

    python tests/benchmarks/path_gradients.py

`fast` pushes the score along the layers beside the draw (`Flow.draw_with_score`); `inversion` is sticking the
landing by a second scoring with detached parameters; `plain` keeps the score of the parameters. The target is a
standard normal, whose own gradient costs nothing. The least of four interleaved rounds, 128 draws, one thread, float64.
"""

from __future__ import annotations

import time
import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call

import pyro_dgm as dgm

NUM = 128
FLOWS = {
    ("realnvp, 6 layers", 10): lambda d: dgm.realnvp(d, 6, hidden=(64, 64)),
    ("realnvp, 6 layers", 64): lambda d: dgm.realnvp(d, 6, hidden=(128, 128)),
    ("spline coupling, 4 layers", 10): lambda d: dgm.spline_coupling(d, 4),
    ("iaf, 4 layers", 10): lambda d: dgm.iaf(d, 4),
    ("iaf, 4 layers", 64): lambda d: dgm.iaf(d, 4),
}


class Scorer(nn.Module):
    def __init__(self, flow: dgm.Flow):
        super().__init__()
        self.flow = flow

    def forward(self, y: Tensor) -> Tensor:
        return self.flow().log_prob(y)


def plain(flow: dgm.Flow) -> None:
    posterior = flow()
    y = posterior.rsample((NUM,))
    (posterior.log_prob(y) + y.square().sum(-1) / 2).mean().backward()


def fast(flow: dgm.Flow) -> None:
    drawn = flow.draw_with_score(NUM)
    drawn.y.backward((drawn.score + drawn.y.detach()) / NUM)


def inversion(flow: dgm.Flow) -> None:
    posterior = flow()
    y = posterior.rsample((NUM,))
    detached = {f"flow.{name}": p.detach() for name, p in flow.named_parameters()}
    given = y.detach().requires_grad_()
    log_q = functional_call(Scorer(flow), detached, (given,))
    (score,) = torch.autograd.grad(log_q.sum(), given)
    y.backward((score + y.detach()) / NUM)


def main() -> None:
    warnings.simplefilter("ignore", dgm.flows.DirectionWarning)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    for (name, dim), stack in FLOWS.items():
        flow = dgm.Flow(dgm.StandardNormal(dim), stack(dim))
        best = dict.fromkeys((plain, fast, inversion), float("inf"))
        for _ in range(4):
            for step in best:
                start = time.process_time()
                for _ in range(5):
                    step(flow)
                best[step] = min(best[step], (time.process_time() - start) / 5)
        times = ", ".join(f"{step.__name__} {1e3 * t:.1f} ms" for step, t in best.items())
        print(f"{name}, D = {dim}: {times}; fast / inversion {best[fast] / best[inversion]:.2f}")


if __name__ == "__main__":
    main()
