"""The models in NumPyro, as its users write them: a jitted loop of `svi.update`, and one jitted step.

`svi.run` is such a loop. Linear layers start as torch's `nn.Linear` does; the flows are NumPyro's own
`InverseAutoregressiveTransform` over masked networks of the same sizes, with the context in the hidden layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from jax.nn import sigmoid, softplus
from numpyro import optim
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO
from numpyro.nn.auto_reg_nn import create_mask

from .sizes import Contestant, Size

IN_A_LOOP = 20  # steps of one call

Layer = dict[str, Any]
Pair = tuple[Callable[..., Any], Callable[..., Any]]


def linear(key: Any, num_in: int, num_out: int) -> Layer:
    """A linear layer as `nn.Linear` begins."""
    bound = num_in**-0.5
    weight, bias = random.split(key)
    return {
        "weight": random.uniform(weight, (num_in, num_out), minval=-bound, maxval=bound),
        "bias": random.uniform(bias, (num_out,), minval=-bound, maxval=bound),
    }


def silu(x: Any) -> Any:
    return x * sigmoid(x)


def dense(seed: int, *sizes: int) -> list[Layer]:
    keys = random.split(random.PRNGKey(seed), len(sizes))
    return [linear(k, a, b) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)]


def apply(layers: list[Layer], x: Any) -> Any:
    """Layers with SiLU between them."""
    for number, layer in enumerate(layers):
        x = x @ layer["weight"] + layer["bias"]
        if number + 1 < len(layers):
            x = silu(x)
    return x


# Networks of the Gaussian VAEs ----------------------------------------------------------------------------------------


def mlp(size: Size) -> Pair:
    encoder = dense(0, size.dim, size.hidden, 2 * size.latent)
    decoder = dense(1, size.latent, size.hidden, size.dim)
    return gaussian(size, encoder, decoder, apply, apply)


iwae = mlp  # under another bound


def conv(size: Size) -> Pair:
    """Channels last, as JAX has them."""
    num, height, width = size.event
    first, second = size.channels
    coarse = (height // 4, width // 4, second)
    features = second * height * width // 16
    keys = random.split(random.PRNGKey(0), 6)
    encoder = {
        "first": kernel(keys[0], num, first),
        "second": kernel(keys[1], first, second),
        "last": linear(keys[2], features, 2 * size.latent),
    }
    decoder = {
        "first": linear(keys[3], size.latent, features),
        "second": kernel(keys[4], second, first),
        "last": kernel(keys[5], first, num),
    }

    def encode(params: Any, x: Any) -> Any:
        x = x.reshape(-1, height, width, num)
        x = silu(convolve(params["first"], x))
        x = silu(convolve(params["second"], x))
        return apply([params["last"]], x.reshape(len(x), -1))

    def decode(params: Any, z: Any) -> Any:
        x = apply([params["first"]], z).reshape(-1, *coarse)
        x = convolve_transposed(params["second"], silu(x))
        x = convolve_transposed(params["last"], silu(x))
        return x.reshape(len(x), -1)

    return gaussian(size, encoder, decoder, encode, decode)


def kernel(key: Any, num_in: int, num_out: int) -> Layer:
    layer = linear(key, 9 * num_in, num_out)
    return {**layer, "weight": layer["weight"].reshape(3, 3, num_in, num_out)}


def convolve(layer: Layer, x: Any) -> Any:
    """Stride 2: half the height and width."""
    dims = ("NHWC", "HWIO", "NHWC")
    padding = [(1, 1), (1, 1)]
    out = lax.conv_general_dilated(x, layer["weight"], (2, 2), padding, dimension_numbers=dims)
    return out + layer["bias"]


def convolve_transposed(layer: Layer, x: Any) -> Any:
    """Stride 2: twice the height and width."""
    padding = [(1, 2), (1, 2)]
    return lax.conv_transpose(x, layer["weight"], (2, 2), padding) + layer["bias"]


def gaussian(size: Size, encoder: Any, decoder: Any, encode: Any, decode: Any) -> Pair:
    """Standard normal prior, diagonal normal guide, Bernoulli likelihood."""

    def model(x: Any) -> None:
        params = numpyro.param("decoder", decoder)
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([size.latent]).to_event(1))
            p_x = dist.Bernoulli(logits=decode(params, z)).to_event(1)
            numpyro.sample("x", p_x, obs=x)

    def guide(x: Any) -> None:
        raw = encode(numpyro.param("encoder", encoder), x)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", diagonal_normal(raw))

    return model, guide


def diagonal_normal(raw: Any) -> Any:
    loc, raw_scale = jnp.split(raw, 2, -1)
    return dist.Normal(loc, softplus(raw_scale) + 1e-6).to_event(1)


# Flows ----------------------------------------------------------------------------------------------------------------


def made(seed: int, size: Size, context: int = 0) -> Layer:
    """One hidden layer, which sees the context unmasked; zero at the start."""
    first, last, extra = random.split(random.PRNGKey(seed), 3)
    params = {
        "first": linear(first, size.latent, size.units),
        "last": jax.tree.map(jnp.zeros_like, linear(last, size.units, 2 * size.latent)),
    }
    if context:
        params["context"] = linear(extra, context, size.units)["weight"]
    return params


def masked(params: Layer, dim: int, number: int, context: Any = None) -> Any:
    """The transform of a layer; the order of the coordinates alternates."""
    units = params["first"]["bias"].shape[0]
    order = jnp.arange(dim)[::-1] if number % 2 else jnp.arange(dim)
    (first, last), _ = create_mask(dim, [units], order, 2)

    def network(z: Any) -> Any:
        hidden = z @ (params["first"]["weight"] * first) + params["first"]["bias"]
        if context is not None:
            hidden = hidden + context @ params["context"]
        out = silu(hidden) @ (params["last"]["weight"] * last) + params["last"]["bias"]
        return jnp.split(out, 2, -1)

    return InverseAutoregressiveTransform(network)


def flows(size: Size) -> Pair:
    """A flow prior, fast to score, and a flow guide, fast to sample, that reads the features of x."""
    decoder = dense(1, size.latent, size.hidden, size.dim)
    embed = dense(0, size.dim, size.hidden, size.hidden)
    head = dense(2, size.hidden, 2 * size.latent)
    prior = [made(3 + k, size) for k in range(size.layers)]
    posterior = [made(9 + k, size, size.hidden) for k in range(size.layers)]

    def model(x: Any) -> None:
        params = numpyro.param("decoder", decoder)
        base = dist.Normal(0.0, 1.0).expand([size.latent]).to_event(1)
        layers = numpyro.param("prior", prior)
        maps = [masked(layer, size.latent, k).inv for k, layer in enumerate(layers)]
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.TransformedDistribution(base, maps))
            numpyro.sample("x", dist.Bernoulli(logits=apply(params, z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        features = silu(apply(numpyro.param("embed", embed), x))
        base = diagonal_normal(apply(numpyro.param("head", head), features))
        layers = numpyro.param("posterior", posterior)
        maps = [masked(layer, size.latent, k, features) for k, layer in enumerate(layers)]
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.TransformedDistribution(base, maps))

    return model, guide


# Steps ----------------------------------------------------------------------------------------------------------------


def stepping(pair: Callable[[Size], Pair], size: Size, *, loop: bool, seeds: int = 0) -> Contestant:
    """`svi.update` jitted: one step a call, or `IN_A_LOOP` of them, over as many batches, in one jitted function.

    With `seeds` the loop is that of so many states under `vmap`, all over the batches in one order.
    """
    loss = RenyiELBO(num_particles=size.particles) if size.particles > 1 else Trace_ELBO()
    svi = SVI(*pair(size), optim.Adam(1e-3), loss)
    shape = (IN_A_LOOP * size.batch, size.dim)
    data = random.bernoulli(random.PRNGKey(2), 0.5, shape).astype("float32")
    x = data[: size.batch]
    start = svi.init(random.PRNGKey(3), x)
    first = float(jax.jit(svi.evaluate)(start, x)) / size.batch
    parameters = sum(p.size for p in jax.tree.leaves(svi.get_params(start)))

    def body(number: Any, carry: Any) -> Any:
        state, total = carry
        batch = lax.dynamic_slice_in_dim(data, number * size.batch, size.batch)
        state, cost = svi.update(state, batch)
        return state, total + cost

    run = jax.jit(lambda now: lax.fori_loop(0, IN_A_LOOP, body, (now, 0.0)))
    one = jax.jit(lambda now: svi.update(now, x))
    take = run if loop else one
    state = [start]
    if seeds:
        take = jax.jit(jax.vmap(lambda now: lax.fori_loop(0, IN_A_LOOP, body, (now, 0.0))))
        keys = random.split(random.PRNGKey(3), seeds)
        state = [jax.vmap(lambda key: svi.init(key, x))(keys)]

    def step() -> None:
        state[0], cost = take(state[0])
        jax.block_until_ready(cost)

    return Contestant(step, parameters, first, (IN_A_LOOP if loop else 1) * max(1, seeds))
