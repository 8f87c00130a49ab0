"""Time of one training step of a flow, beside the same flow by hand, zuko, nflows, normflows, Pyro and NumPyro.

    pip install -e '.[benchmarks]'
    python tests/benchmarks/flows.py --rounds 15 --out flows.json

8 layers on 64 coordinates, batch 256, one hidden layer of 128 units, splines of 8 bins: the smaller the networks, the
more a library's own work shows. A step is the loss, its gradient and fused Adam. To score is the mean of -log p(x) over
given points; to sample and score is the mean of log q(z) - log N(z) over the flow's own draws. How they take turns is
told in `races/racing.py`.

By hand is a floor without any interface that computes exactly what ours does, which is checked before anything is
timed; splines have none. Everyone has networks of the same sizes, as the column of parameters shows, and the halves or
the order alternate. What differs: the scale is exp of a soft bound here (tanh, as ours) and in zuko (rational), exp of
a hard bound in Pyro and NumPyro, exp in couplings of normflows, sigmoid or softplus else; zuko and nflows split by
index, as their masks may be any. Argument validation is off in all, except where a name says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from contestants.flows import by_hand, of_pyro, ours
from contestants.flows.training import BATCH, DIM, drawing, scoring
from races.racing import Build, is_chosen, is_there, parser, race, rules_of, summary
from torch import nn

import pyro_dgm as dgm

Builds = dict[str, Build]
Kind = Callable[[Any], Any]  # a library's flow of one kind, from its file

OURS = "ours"
TORCH_PEERS = ("zuko", "nflows", "normflows")
HAND = "by hand, eager", "by hand, torch.compile"


def of_peers(kind: Kind, train: Callable[..., Any]) -> Builds:
    found: Builds = {}
    for name in TORCH_PEERS:
        if is_there(name):
            library = import_module(f"contestants.flows.of_{name}")
            found[name] = partial(train, kind(library))
    return found


def of_numpyro(name: str) -> Builds:
    if not is_there("numpyro"):
        return {}
    return {"NumPyro, loop": getattr(import_module("contestants.flows.of_numpyro"), name)}


def with_floor(kind: Kind, train: Callable[..., Any]) -> Builds:
    eager, compiled = HAND
    return {
        eager: partial(train, kind(by_hand)),
        compiled: partial(train, kind(by_hand), compiled=True),
        "Pyro": partial(train, kind(of_pyro)),
    }


def of_ours(kind: Kind, train: Callable[..., Any]) -> Builds:
    return {OURS: partial(train, kind(ours))}


def compiled(stack: Callable[[], dgm.flows.Stack]) -> Builds:
    return {"ours, compiled": partial(ours.compiled_scoring, stack)}


def races() -> dict[str, Callable[[], Builds]]:
    """Contestants by title, built when asked for."""

    def coupling(library: Any) -> Any:
        return library.coupling

    def spline(library: Any) -> Any:
        return library.spline

    def maf(library: Any) -> Any:
        return library.maf

    def iaf(library: Any) -> Any:
        return library.iaf

    validated = {"ours, arguments validated": partial(scoring, ours.validated_coupling)}
    return {
        "coupling: score": lambda: {
            **of_ours(coupling, scoring),
            **compiled(ours.coupling_stack),
            **validated,
            **with_floor(coupling, scoring),
            **of_peers(coupling, scoring),
        },
        "coupling: sample and score": lambda: {
            **of_ours(coupling, drawing),
            **with_floor(coupling, drawing),
            **of_peers(coupling, drawing),
        },
        "MAF: score": lambda: {
            **of_ours(maf, scoring),
            **compiled(ours.maf_stack),
            **with_floor(maf, scoring),
            **of_peers(maf, scoring),
            **of_numpyro("scoring"),
        },
        "IAF: sample and score": lambda: {
            **of_ours(iaf, drawing),
            **with_floor(iaf, drawing),
            **of_peers(iaf, drawing),
            **of_numpyro("drawing"),
        },
        "spline coupling: score": lambda: {
            **of_ours(spline, scoring),
            **compiled(ours.spline_stack),
            **of_peers(spline, scoring),
        },
        "spline coupling: sample and score": lambda: {
            **of_ours(spline, drawing),
            **of_peers(spline, drawing),
        },
    }


@torch.no_grad()
def check_floor() -> None:
    """With the same weights, ours and the floor agree on the density of given points, and on draws of one seed."""
    x = torch.randn(BATCH, DIM)
    for hand, scored, sampled in (
        (by_hand.CouplingByHand(), ours.coupling_stack, ours.coupling_stack),
        (by_hand.AutoregressiveByHand(), ours.maf_stack, ours.iaf_stack),
    ):
        for parameter in hand.parameters():
            parameter.normal_(std=0.1)
        torch.testing.assert_close(with_weights_of(hand, scored()).log_prob(x), hand(x))
        q = with_weights_of(hand, sampled())
        torch.manual_seed(0)
        z = q.rsample((BATCH,))
        torch.manual_seed(0)
        torch.testing.assert_close((z, q.log_prob(z)), hand.draw())


def with_weights_of(hand: nn.Module, stack: dgm.flows.Stack) -> Any:
    for parameter, theirs in zip(stack.parameters(), hand.parameters(), strict=True):
        parameter.copy_(theirs)
    return dgm.Flow(dgm.StandardNormal(DIM), stack)()


def show(title: str, report: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}\n{'':<28}{'wall ms':>9}{'CPU ms':>9}{'÷ ours':>8}  quartiles      parameters")
    for name, row in report.items():
        quartiles = f"{row['low']:.2f} … {row['high']:.2f}"
        times = f"{row['wall_ms']:>9.2f}{row['cpu_ms']:>9.2f}{row['ratio']:>8.2f}"
        print(f"{name:<28}{times}  {quartiles:<14}{row['parameters']:>11,}")
    sys.stdout.flush()


def main() -> None:
    options = parser(__doc__.splitlines()[0]).parse_args()
    rules = rules_of(options)
    check_floor()
    report: dict[str, Any] = {"rules": vars(rules)}
    for title, builds in races().items():
        if not is_chosen(title, options):
            continue
        report[title] = summary(race(builds(), rules), OURS, rules.clock)
        show(title, report[title])
        if options.out:
            options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
