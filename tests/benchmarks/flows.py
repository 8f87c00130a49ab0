"""Time of one training step of a flow, as ratios to the same flow written by hand in plain torch.

    pip install -e .[benchmarks]
    python tests/benchmarks/flows.py --rounds 30 --threads 1 --out flows.json

8 affine layers on 64 coordinates, batch 256, one hidden layer of 128 units, the default of this library: the smaller
the networks, the more a library's own work shows. A step is the loss, its gradient and fused Adam. To score is the
mean of -log p(x) over given points; to sample and score is the mean of log q(z) - log N(z) over the flow's own draws,
by couplings and by IAF (MADE in the direction that samples fast). Processes and ratios are those of `steps.py`.

The floor computes exactly what ours does, which is checked before anything is timed, without any interface: couplings
never join their halves, densities are sums of squares. Everyone has SiLU networks of the same sizes and the same number
of parameters (99 840 of the couplings, 198 656 of the MADEs), and the halves or the order alternate. What differs:
the scale is exp of a soft bound here (tanh, as ours) and in zuko (rational), exp of a hard bound in Pyro, sigmoid or
softplus in nflows; zuko and nflows split by index, as their masks may be any; Pyro splits at a fixed place, so that
each coupling needs a permutation beside it, and needs its cache cleared at each step, or else it scores the last batch
again. Argument validation is off in all, except where a name says so; nflows has none to switch off.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.util import find_spec
from math import log, pi
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.nn import AutoRegressiveNN, DenseNN
from steps import SUITES, Step, interleaved, summary
from torch import Tensor, nn
from torch.nn.functional import linear, silu

import pyro_dgm as dgm

DIM, LAYERS, BATCH, HIDDEN = 64, 8, 256, (128,)
ORDERS = [torch.arange(DIM), torch.arange(DIM).flip(0)]
Draw = Callable[[], tuple[Tensor, Tensor]]


# The floor: plain torch, by hand.
def log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * log(2 * pi))


def bounded(raw: Tensor) -> Tensor:
    return 3 * (raw / 3).tanh()


class CouplingByHand(nn.Module):
    """RealNVP whose halves never meet: the next layer moves the half that this one kept."""

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(dense(DIM // 2, DIM) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = reversed(x.chunk(2, dim=-1))  # the last layer moved the first half
        log_det = 0.0
        for net in reversed(self.nets):
            shift, raw = net(kept).chunk(2, dim=-1)
            log_scale = bounded(raw)
            kept, moved = (moved - shift) * (-log_scale).exp(), kept
            log_det = log_det + log_scale.sum(-1)
        return log_normal(kept) + log_normal(moved) - log_det

    def draw(self) -> tuple[Tensor, Tensor]:
        eps = torch.randn(BATCH, DIM)
        kept, moved = eps.chunk(2, dim=-1)
        log_det = 0.0
        for net in self.nets:
            shift, raw = net(kept).chunk(2, dim=-1)
            log_scale = bounded(raw)
            kept, moved = moved * log_scale.exp() + shift, kept
            log_det = log_det + log_scale.sum(-1)
        return torch.cat([kept, moved], dim=-1), log_normal(eps) - log_det


class MaskedLinear(nn.Linear):
    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float())

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.mask * self.weight, self.bias)


class MADEByHand(nn.Sequential):
    def __init__(self, degree: Tensor):
        degrees = [degree, *(torch.linspace(0, DIM - 2, size).round() for size in HIDDEN)]
        layers: list[nn.Module] = []
        for into, out in zip(degrees[:-1], degrees[1:], strict=True):
            layers += [MaskedLinear(out[:, None] >= into), nn.SiLU()]
        super().__init__(*layers, MaskedLinear((degree[:, None] > degrees[-1]).repeat(2, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = super().forward(x).chunk(2, dim=-1)
        return shift, bounded(raw)


class AutoregressiveByHand(nn.Module):
    """Stacked MADEs in their fast direction: scores as MAF, draws as IAF."""

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(MADEByHand(ORDERS[i % 2]) for i in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        z, log_det = self._through(reversed(self.nets), x)
        return log_normal(z) + log_det

    def draw(self) -> tuple[Tensor, Tensor]:
        eps = torch.randn(BATCH, DIM)
        z, log_det = self._through(self.nets, eps)
        return z, log_normal(eps) - log_det

    def _through(self, nets: nn.ModuleList, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = 0.0
        for net in nets:
            shift, log_scale = net(x)
            x, log_det = x * log_scale.exp() + shift, log_det + log_scale.sum(-1)
        return x, log_det


class DenseNet(nn.Sequential):
    """An MLP that takes the context that nflows hands over."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x)


def dense(num_in: int, num_out: int) -> DenseNet:
    sizes = [num_in, *HIDDEN, num_out]
    layers = [
        m for a, b in zip(sizes[:-1], sizes[1:], strict=True) for m in (nn.Linear(a, b), nn.SiLU())
    ]
    return DenseNet(*layers[:-1])


# Steps: the same loss, gradient and optimizer for everyone.
def training(module: nn.Module, loss: Callable[[], Tensor]) -> Step:
    # Small steps: weights that run off to infinity, or to denormal numbers, would be timed too.
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def scoring(module: nn.Module, log_prob: Callable[[Tensor], Tensor]) -> Step:
    x = torch.randn(BATCH, DIM)
    return training(module, lambda: -log_prob(x).mean())


def drawing(module: nn.Module, draw: Draw) -> Step:
    def loss() -> Tensor:
        z, log_q = draw()
        return (log_q - log_normal(z)).mean()

    return training(module, loss)


def by_hand(module: nn.Module, *, draws: bool, compiled: bool) -> Step:
    kernels = torch.compile if compiled else lambda function: function
    return drawing(module, kernels(module.draw)) if draws else scoring(module, kernels(module))


def ours(stack: dgm.flows.Stack, *, draws: bool, validate: bool) -> Step:
    pyro.enable_validation(validate)
    flow = dgm.Flow(dgm.StandardNormal(DIM), stack)

    def draw() -> tuple[Tensor, Tensor]:
        q = flow()
        z = q.rsample((BATCH,))
        return z, q.log_prob(z)

    return drawing(flow, draw) if draws else scoring(flow, lambda x: flow().log_prob(x))


def ours_compiled(stack: dgm.flows.Stack) -> Step:
    pyro.enable_validation(False)
    flow, x = dgm.Flow(dgm.StandardNormal(DIM), stack), torch.randn(BATCH, DIM)
    trainer = dgm.SVITrainer(
        dgm.ELBO(dgm.DensityModel(flow), dgm.EmptyGuide()), lr=1e-5, compile=True
    )
    return lambda: trainer.step(x)


def by_zuko(name: str, *, draws: bool) -> Step:
    import zuko

    flow = getattr(zuko.flows, name)(
        DIM, transforms=LAYERS, hidden_features=HIDDEN, activation=nn.SiLU
    )
    if draws and name == "MAF":
        flow = zuko.lazy.Flow(flow.transform.inv, flow.base)
    if draws:
        return drawing(flow, lambda: flow().rsample_and_log_prob((BATCH,)))
    return scoring(flow, lambda x: flow().log_prob(x))


def by_nflows(name: str, *, draws: bool) -> Step:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import (
        AffineCouplingTransform,
        CompositeTransform,
        InverseTransform,
        MaskedAffineAutoregressiveTransform,
        ReversePermutation,
    )

    layers: list[nn.Module] = []
    for i in range(LAYERS):
        if name == "RealNVP":
            layers.append(AffineCouplingTransform((torch.arange(DIM) < DIM // 2) == i % 2, dense))
        else:
            layers.append(
                MaskedAffineAutoregressiveTransform(
                    DIM,
                    HIDDEN[0],
                    num_blocks=len(HIDDEN) - 1,
                    use_residual_blocks=False,
                    activation=silu,
                )
            )
            layers.append(ReversePermutation(DIM))
    stack = CompositeTransform(layers)
    flow = Flow(
        InverseTransform(stack) if draws and name == "MAF" else stack, StandardNormal((DIM,))
    )
    return (
        drawing(flow, lambda: flow.sample_and_log_prob(BATCH))
        if draws
        else scoring(flow, flow.log_prob)
    )


def by_pyro(name: str, *, draws: bool) -> Step:
    pyro.enable_validation(False)
    layers: list[transforms.Transform] = []
    for i in range(LAYERS):
        if name == "RealNVP":
            net = DenseNN(DIM // 2, [*HIDDEN], [DIM // 2, DIM // 2], nonlinearity=nn.SiLU())
            layers += [transforms.AffineCoupling(DIM // 2, net), transforms.Permute(ORDERS[1])]
        else:
            net = AutoRegressiveNN(
                DIM, [*HIDDEN], permutation=ORDERS[i % 2], nonlinearity=nn.SiLU()
            )
            layers.append(transforms.AffineAutoregressive(net))
    maps = [layer.inv for layer in layers] if name == "MAF" and not draws else layers
    base = dist.Normal(torch.zeros(DIM), torch.ones(DIM)).to_event(1)

    def log_prob(x: Tensor) -> Tensor:
        for layer in layers:
            layer.clear_cache()
        return dist.TransformedDistribution(base, maps).log_prob(x)

    def draw() -> tuple[Tensor, Tensor]:
        flow = dist.TransformedDistribution(base, maps)
        z = flow.rsample((BATCH,))
        return z, flow.log_prob(z)

    module = nn.ModuleList(layer for layer in layers if isinstance(layer, nn.Module))
    return drawing(module, draw) if draws else scoring(module, log_prob)


def suite(
    name: str, hand: type[nn.Module], stack: Callable[[], dgm.flows.Stack], *, draws: bool
) -> dict:
    compiled = {} if draws else {"ours, compiled": lambda: ours_compiled(stack())}
    return {
        "by hand, eager (baseline)": lambda: by_hand(hand(), draws=draws, compiled=False),
        "ours": lambda: ours(stack(), draws=draws, validate=False),
        "ours, arguments validated": lambda: ours(stack(), draws=draws, validate=True),
        "zuko": lambda: by_zuko(name, draws=draws),
        "nflows": lambda: by_nflows(name, draws=draws),
        "Pyro": lambda: by_pyro(name, draws=draws),
        "by hand, torch.compile": lambda: by_hand(hand(), draws=draws, compiled=True),
        **compiled,
    }


def realnvp() -> dgm.flows.Stack:
    return dgm.realnvp(DIM, LAYERS, hidden=HIDDEN)


def maf() -> dgm.flows.Stack:
    return dgm.maf(DIM, LAYERS, hidden=HIDDEN)


def iaf() -> dgm.flows.Stack:
    return dgm.iaf(DIM, LAYERS, hidden=HIDDEN)


# The processes of `steps.py` look their step up by suite and name.
SUITES.clear()
SUITES |= {
    "coupling: score": suite("RealNVP", CouplingByHand, realnvp, draws=False),
    "MAF: score": suite("MAF", AutoregressiveByHand, maf, draws=False),
    "coupling: sample and score": suite("RealNVP", CouplingByHand, realnvp, draws=True),
    "IAF: sample and score": suite("MAF", AutoregressiveByHand, iaf, draws=True),
}


@torch.no_grad()
def check_floor() -> None:
    """With the same weights, ours and the floor agree on the density of given points, and on draws of one seed."""
    x = torch.randn(BATCH, DIM)
    for hand, scored, sampled in (
        (CouplingByHand(), realnvp, realnvp),
        (AutoregressiveByHand(), maf, iaf),
    ):
        torch.testing.assert_close(with_weights_of(hand, scored()).log_prob(x), hand(x))
        q = with_weights_of(hand, sampled())
        torch.manual_seed(0)
        z = q.rsample((BATCH,))
        torch.manual_seed(0)
        torch.testing.assert_close((z, q.log_prob(z)), hand.draw())


def with_weights_of(hand: nn.Module, stack: dgm.flows.Stack) -> dist.TransformedDistribution:
    for parameter, theirs in zip(stack.parameters(), hand.parameters(), strict=True):
        parameter.copy_(theirs)
    return dgm.Flow(dgm.StandardNormal(DIM), stack)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    check_floor()
    for library in ("zuko", "nflows"):
        if find_spec(library) is None:
            print(f"{library}: not installed, skipped (pip install {library})")
            for contestants in SUITES.values():
                del contestants[library]
    report = {
        t: summary(interleaved(t, options.rounds, options.steps, options.threads)) for t in SUITES
    }
    print(f"\nmedian ratio [quartiles], {options.rounds} rounds, {options.threads} threads")
    print(f"{'':<28}" + "".join(f"{title:>28}" for title in report))
    for name in dict.fromkeys(name for rows in report.values() for name in rows):
        print(f"{name:<28}" + "".join(f"{cell(rows.get(name)):>28}" for rows in report.values()))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def cell(row: dict[str, float] | None) -> str:
    if row is None:
        return "–"
    if row["low"] == row["high"] == 1:
        return f"{row['ms']:.2f} ms"
    return f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


if __name__ == "__main__":
    main()
