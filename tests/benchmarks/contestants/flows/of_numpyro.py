"""NumPyro's autoregressive flows, jitted: a loop of steps in one call, as `svi.run` has it. It has no couplings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpyro.distributions as dist
from jax import lax, random
from numpyro import optim

from ..numpyro_vae import IN_A_LOOP, made, masked
from ..sizes import Contestant, Size
from .training import BATCH, DIM, LAYERS, RATE, UNITS

SIZE = Size((DIM,), 0, DIM, BATCH, units=UNITS, layers=LAYERS)


def base() -> Any:
    return dist.Normal(0.0, 1.0).expand([DIM]).to_event(1)


def flow_of(params: Any, *, inverse: bool) -> Any:
    layers = [masked(layer, DIM, k) for k, layer in enumerate(params)]
    return dist.TransformedDistribution(base(), [t.inv for t in layers] if inverse else layers)


def scoring() -> Contestant:
    """A MAF; every step has other points."""

    def loss(params: Any, key: Any) -> Any:
        x = random.normal(key, (BATCH, DIM))
        return -flow_of(params, inverse=True).log_prob(x).mean()

    return _training(loss)


def drawing() -> Contestant:
    """An IAF."""

    def loss(params: Any, key: Any) -> Any:
        flow = flow_of(params, inverse=False)
        z, intermediates = flow.sample_with_intermediates(key, (BATCH,))
        return (flow.log_prob(z, intermediates) - base().log_prob(z)).mean()

    return _training(loss)


def _training(loss: Callable[[Any, Any], Any]) -> Contestant:
    params = [made(k, SIZE) for k in range(LAYERS)]
    adam = optim.Adam(RATE)

    def body(number: Any, carry: Any) -> Any:
        state, key = carry
        gradient = jax.grad(loss)(adam.get_params(state), random.fold_in(key, number))
        return adam.update(gradient, state), key

    run = jax.jit(lambda carry: lax.fori_loop(0, IN_A_LOOP, body, carry))
    key = random.PRNGKey(0)
    carry = [(adam.init(params), key)]

    def step() -> None:
        carry[0] = run(carry[0])
        jax.block_until_ready(carry[0])

    parameters = sum(p.size for p in jax.tree.leaves(params))
    return Contestant(step, parameters, float(jax.jit(loss)(params, key)), IN_A_LOOP)
