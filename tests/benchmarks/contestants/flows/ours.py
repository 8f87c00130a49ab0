"""This library's flows; by the flow itself, or a density compiled by the trainer."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch

import pyro_dgm as dgm

from ..sizes import Contestant, count_in
from .training import BATCH, DIM, LAYERS, RATE, UNITS, Draws, Flow

HIDDEN = (UNITS,)


def coupling_stack() -> dgm.flows.Stack:
    return dgm.flows.realnvp(DIM, LAYERS, hidden=HIDDEN)


def spline_stack() -> dgm.flows.Stack:
    return dgm.flows.spline_coupling(DIM, LAYERS, hidden=HIDDEN)


def maf_stack() -> dgm.flows.Stack:
    return dgm.flows.maf(DIM, LAYERS, hidden=HIDDEN)


def iaf_stack() -> dgm.flows.Stack:
    return dgm.flows.iaf(DIM, LAYERS, hidden=HIDDEN)


def of_stack(stack: dgm.flows.Stack, *, validate: bool = False) -> Flow:
    pyro.enable_validation(validate)
    flow = dgm.Flow(dgm.StandardNormal(DIM), stack)

    def draw() -> Draws:
        q = flow()
        z = q.rsample((BATCH,))
        return z, q.log_prob(z)

    return Flow(flow, lambda x: flow().log_prob(x), draw)


def coupling() -> Flow:
    return of_stack(coupling_stack())


def spline() -> Flow:
    return of_stack(spline_stack())


def maf() -> Flow:
    return of_stack(maf_stack())


def iaf() -> Flow:
    return of_stack(iaf_stack())


def validated_coupling() -> Flow:
    return of_stack(coupling_stack(), validate=True)


def compiled_scoring(stack: Callable[[], dgm.flows.Stack]) -> Contestant:
    """The density under the trainer, with `compile=True`."""
    pyro.enable_validation(False)
    flow, x = dgm.Flow(dgm.StandardNormal(DIM), stack()), torch.randn(BATCH, DIM)
    loss = dgm.ELBO(dgm.DensityModel(flow), dgm.EmptyGuide())
    with torch.no_grad():
        first = loss(x).item()
    trainer = dgm.SVITrainer(loss, lr=RATE, compile=True)
    return Contestant(lambda: trainer.step(x), count_in(loss), first)
