"""The models of `steps.py` in NumPyro, as its users write them: a jitted loop of `svi.update`, and one jitted step.

`svi.run` is such a loop. The MLPs and their initial values are those of torch's `nn.Linear`; the flows are NumPyro's
own `InverseAutoregressiveTransform` with networks of as many units.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Step = Callable[[], object]

IN_A_LOOP = 20  # steps of one call


def one_thread() -> None:
    """Before JAX is imported: one thread, as every contestant has."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def dense(key: Any, num_in: int, num_out: int) -> dict[str, Any]:
    """A linear layer as `nn.Linear` begins."""
    from jax import random

    bound = num_in**-0.5
    weight, bias = random.split(key)
    return {
        "weight": random.uniform(weight, (num_in, num_out), minval=-bound, maxval=bound),
        "bias": random.uniform(bias, (num_out,), minval=-bound, maxval=bound),
    }


def mlp(key: int, *sizes: int) -> list[dict[str, Any]]:
    """Layers with SiLU between them."""
    from jax import random

    keys = random.split(random.PRNGKey(key), len(sizes))
    return [dense(k, a, b) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)]


def apply(layers: list[dict[str, Any]], x: Any) -> Any:
    from jax.nn import silu

    for number, layer in enumerate(layers):
        x = x @ layer["weight"] + layer["bias"]
        if number + 1 < len(layers):
            x = silu(x)
    return x


def vae(dim: int, hidden: int, latent: int) -> tuple[Any, Any]:
    """Standard normal prior, diagonal normal guide, Bernoulli likelihood."""
    import numpyro
    import numpyro.distributions as dist
    from jax.nn import softplus

    encoder, decoder = mlp(0, dim, hidden, 2 * latent), mlp(1, latent, hidden, dim)

    def model(x: Any) -> None:
        layers = numpyro.param("decoder", decoder)
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([latent]).to_event(1))
            p_x = dist.Bernoulli(logits=apply(layers, z)).to_event(1)
            numpyro.sample("x", p_x, obs=x)

    def guide(x: Any) -> None:
        found = apply(numpyro.param("encoder", encoder), x)
        loc, raw = found[:, :latent], found[:, latent:]
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.Normal(loc, softplus(raw) + 1e-6).to_event(1))

    return model, guide


def flow_vae(
    dim: int, hidden: int, latent: int, layers: int = 2, units: int = 128
) -> tuple[Any, Any]:
    """The same with a flow prior, fast to score, and a flow guide, fast to sample, that reads the features of x."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from jax import random
    from jax.nn import softplus
    from numpyro.distributions.flows import InverseAutoregressiveTransform as Iaf
    from numpyro.nn import AutoregressiveNN

    decoder = mlp(1, latent, hidden, dim)
    embed, head = mlp(0, dim, hidden, hidden), mlp(2, hidden, 2 * latent)
    initialize, network = AutoregressiveNN(latent, [units], nonlinearity=_tanh())
    own = [initialize(random.PRNGKey(k), (latent,))[1] for k in range(2 * layers)]
    context = [dense(random.PRNGKey(9 + k), hidden, 2 * latent) for k in range(layers)]

    def flow(number: int, shift: Any = None) -> Any:
        weights = numpyro.param(f"flow_{number}", own[number])

        def arn(z: Any) -> tuple[Any, Any]:
            loc, raw = network(weights, z)
            return (loc, raw) if shift is None else (loc + shift[0], raw + shift[1])

        return Iaf(arn)

    def model(x: Any) -> None:
        params = numpyro.param("decoder", decoder)
        base = dist.Normal(0.0, 1.0).expand([latent]).to_event(1)
        prior = [flow(k).inv for k in range(layers)]
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.TransformedDistribution(base, prior))
            numpyro.sample("x", dist.Bernoulli(logits=apply(params, z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        features = softplus(apply(numpyro.param("embed", embed), x))
        found = apply(numpyro.param("head", head), features)
        base = dist.Normal(found[:, :latent], softplus(found[:, latent:]) + 1e-6).to_event(1)
        transforms = []
        for k in range(layers):
            layer = numpyro.param(f"context_{k}", context[k])
            shift = jnp.split(features @ layer["weight"] + layer["bias"], 2, -1)
            transforms.append(flow(layers + k, shift))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.TransformedDistribution(base, transforms))

    return model, guide


def _tanh() -> Any:
    from jax.example_libraries import stax

    return stax.Tanh


@dataclass(frozen=True)
class Many:
    """A call that takes many steps.

    Attributes:
        call: takes them.
        num: how many they are.
    """

    call: Callable[[], object]
    num: int

    def __call__(self) -> None:
        self.call()


def stepping(name: str, batch: int, dim: int, hidden: int, latent: int, *, loop: bool) -> Step:
    """`svi.update` jitted: one step a call, or `IN_A_LOOP` of them over as many batches.

    Args:
        name: of the model, `vae` or `flow_vae`.
        batch: data in a step.
        dim, hidden, latent: sizes of the model.
        loop: whether the steps are a loop inside of one jitted function.
    """
    one_thread()
    import jax
    from jax import lax, random
    from numpyro import optim
    from numpyro.infer import SVI, Trace_ELBO

    programs = {"vae": vae, "flow_vae": flow_vae}[name](dim, hidden, latent)
    svi = SVI(*programs, optim.Adam(1e-3), Trace_ELBO())
    data = random.bernoulli(random.PRNGKey(2), 0.5, (IN_A_LOOP * batch, dim)).astype("float32")
    state = [svi.init(random.PRNGKey(3), data[:batch])]

    def body(number: Any, carry: Any) -> Any:
        now, total = carry
        now, cost = svi.update(now, lax.dynamic_slice_in_dim(data, number * batch, batch))
        return now, total + cost

    run = jax.jit(lambda now: lax.fori_loop(0, IN_A_LOOP, body, (now, 0.0)))
    one = jax.jit(lambda now: svi.update(now, data[:batch]))

    def step() -> None:
        state[0], cost = run(state[0]) if loop else one(state[0])
        jax.block_until_ready(cost)

    return Many(step, IN_A_LOOP) if loop else step
