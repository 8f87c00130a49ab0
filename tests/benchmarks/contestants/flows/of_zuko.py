"""zuko's flows; couplings with a mask of halves, as any mask goes."""

from __future__ import annotations

from functools import partial

import torch
import zuko
from torch import nn
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.transforms import MonotonicRQSTransform

from .training import BATCH, BINS, DIM, LAYERS, UNITS, Flow

NETWORK = {"hidden_features": (UNITS,), "activation": nn.SiLU}


def coupling() -> Flow:
    return _flow(zuko.flows.RealNVP(DIM, transforms=LAYERS, **NETWORK))


def spline() -> Flow:
    layers = []
    for i in range(LAYERS):
        mask = (torch.arange(DIM) < DIM // 2) == (i % 2 == 0)
        univariate = partial(MonotonicRQSTransform, bound=4.0)
        shapes = [(BINS,), (BINS,), (BINS - 1,)]
        layers.append(
            GeneralCouplingTransform(
                DIM, mask=mask, univariate=univariate, shapes=shapes, **NETWORK
            )
        )
    base = zuko.flows.MAF(DIM, transforms=1).base
    return _flow(zuko.lazy.Flow(layers, base))


def maf() -> Flow:
    return _flow(zuko.flows.MAF(DIM, transforms=LAYERS, **NETWORK))


def iaf() -> Flow:
    flow = zuko.flows.MAF(DIM, transforms=LAYERS, **NETWORK)
    return _flow(zuko.lazy.Flow(flow.transform.inv, flow.base))


def _flow(flow: nn.Module) -> Flow:
    return Flow(flow, lambda x: flow().log_prob(x), lambda: flow().rsample_and_log_prob((BATCH,)))
