"""The public entries, each as one call on tiny data, and the pairs and data that they are called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_dgm as dgm
from pyro_dgm.diagnostics import normalization

N, D = 6, 9  # data, and numbers in each


# -- the pairs ------------------------------------------------------------------------------------
class Labelled(nn.Module):
    """A network over a value and a label, which it looks up in a table."""

    def __init__(self, num_in: int, num_out: int):
        super().__init__()
        self.table = nn.Embedding(3, 2)
        self.net = dgm.Concat(nn.Linear(num_in + 2, num_out))

    def forward(self, value: Tensor, label: Tensor) -> Tensor:
        return self.net(value, self.table(label))


class Silent(dgm.Program):
    """A model that returns nothing."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, D)

    def forward(self, x: Tensor | None = None) -> None:
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


class Critic(nn.Module):
    """One logit per datum, whatever the context."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(D, 1)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        return self.net(x)


def vae_of(likelihood: nn.Module, encoder_net: nn.Module) -> dgm.VAE:
    return dgm.VAE(dgm.StandardNormal(2), likelihood, dgm.Conditional(dist.Normal, encoder_net))


def conditional_pair() -> dgm.VAE:
    likelihood = dgm.Normal(dgm.Concat(nn.Linear(2 + 3, D)))
    return vae_of(likelihood, dgm.Concat(nn.Linear(D + 3, 4)))


PAIRS = {
    "real": lambda: vae_of(dgm.Normal(nn.Linear(2, D)), nn.Linear(D, 4)),
    "real, mlp": lambda: vae_of(dgm.Normal(dgm.mlp(2, D)), dgm.mlp(D, 4)),
    "binary": lambda: vae_of(dgm.Bernoulli(nn.Linear(2, D)), nn.Linear(D, 4)),
    "binary, mlp": lambda: vae_of(dgm.Bernoulli(dgm.mlp(2, D)), dgm.mlp(D, 4)),
    "levels": lambda: vae_of(dgm.DiscretizedLogistic(dgm.mlp(2, 2 * D), 16), dgm.mlp(D, 4)),
    "counts": lambda: vae_of(dgm.Poisson(dgm.mlp(2, D)), dgm.mlp(D, 4)),
    "conditional": conditional_pair,
    "labelled": lambda: vae_of(dgm.Normal(Labelled(2, D)), Labelled(D, 4)),
    "float32": lambda: vae_of(dgm.Normal(nn.Linear(2, D)), nn.Linear(D, 4)).float(),
}


def build(name: str) -> dgm.VAE:
    """A pair, the same whatever was drawn before."""
    with torch.random.fork_rng(), torch.device("cpu"):
        torch.manual_seed(3)
        return PAIRS[name]()


def normal(*shape: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, device="cpu")


def real() -> Tensor:
    return normal(N, D)


def binary() -> Tensor:
    return (real() > 0).to(real().dtype)


def levels() -> Tensor:
    return (4 * real()).round().clamp(-8, 7) + 8


def context() -> Tensor:
    return normal(N, 3, seed=6)


def spoilt(value: float) -> Tensor:
    x = real()
    x[4, 3] = value
    return x


# -- the entries that take data -------------------------------------------------------------------
def data_of(batch: tuple[Any, ...]) -> Any:
    return batch[0] if len(batch) == 1 else batch


def fit(objective: type, **options: Any) -> Callable[..., Any]:
    def entry(model, guide, *batch, seed=0):
        trainer = dgm.SVITrainer(objective(model, guide, **options))
        return trainer.fit(data_of(batch), batch_size=8, progress=False, seed=seed).rows

    return entry


def fit_with_val(model, guide, *batch, seed=0):
    trainer = dgm.SVITrainer(dgm.ELBO(model, guide))
    data = data_of(batch)
    return trainer.fit(data, data, batch_size=8, progress=False, seed=seed).rows


def evaluate(model, guide, *batch, seed=0):
    return dgm.SVITrainer(dgm.ELBO(model, guide)).evaluate(data_of(batch), seed=seed)


def fit_gan(model, guide, *batch, seed=0):
    with torch.random.fork_rng(), torch.inference_mode(mode=False), torch.device("cpu"):
        torch.manual_seed(4)
        critic = Critic().to(dtype_of(model))
    trainer = dgm.GANTrainer(model, critic, penalties=())
    return trainer.fit(data_of(batch), batch_size=8, progress=False, seed=seed).rows


def dtype_of(model: Any) -> torch.dtype:
    tensors = list(model.parameters()) if isinstance(model, nn.Module) else []
    return tensors[0].dtype if tensors else torch.get_default_dtype()


def mask_of(batch: tuple[Any, ...]) -> Tensor:
    """The first four dims, as a mask of one datum."""
    shape = (D,)
    if batch and isinstance(batch[0], Tensor) and batch[0].dim() > 1:
        shape = tuple(batch[0].shape[1:])
    return (torch.arange(torch.Size(shape).numel(), device="cpu") < 4).reshape(shape)


def impute(model, guide, *batch, **options):
    return dgm.impute(
        model, guide, *batch, observed=mask_of(batch), **{"num": 2, "num_weights": 4} | options
    )


def conditional_nll(model, guide, *batch, **options):
    given = mask_of(batch)
    return dgm.conditional_nll(model, guide, *batch, of=~given, given=given, **{"num": 4} | options)


def marginal_nll(model, guide, *batch, **options):
    return dgm.marginal_nll(model, guide, *batch, observed=mask_of(batch), **{"num": 4} | options)


def guide_error(model, guide, *batch, seed=0):
    with torch.inference_mode(mode=False):
        vae = build("real")
    chains = dgm.hmc(vae.model, real(), num=4, warmup=4, chains=2, leapfrog=2)
    return dgm.guide_error(guide, chains, *batch, seed=seed)


def check(model, guide, *batch, **options):
    """The report; where its first item says that the data do not fit the pair, that is the answer."""
    report = dgm.check(model, guide, *batch, **{"num": 4, "num_simulated": 20} | options)
    found = report["data and sites"]
    if found.status.value != "PASS" and "density on levels" not in found.finding:
        raise ValueError(f"{found.finding} Fix: {found.advice}")


def draw(model, guide, *batch, num=2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return dgm.draw(model, guide, *batch, num=num).log_weight


def call(verb: Callable[..., Any], **defaults: Any) -> Callable[..., Any]:
    def entry(model, guide, *batch, **options):
        return verb(model, guide, *batch, **defaults | options)

    return entry


def of_model(verb: Callable[..., Any], *first: Any, **defaults: Any) -> Callable[..., Any]:
    def entry(model, guide, *batch, **options):
        return verb(model, *first, *batch, **defaults | options)

    return entry


def of_guide(verb: Callable[..., Any], **defaults: Any) -> Callable[..., Any]:
    def entry(model, guide, *batch, **options):
        return verb(guide, *batch, **defaults | options)

    return entry


ON_DATA: dict[str, Callable[..., Any]] = {
    "fit of ELBO": fit(dgm.ELBO),
    "fit of IWELBO": fit(dgm.IWELBO, num_particles=3),
    "fit with val": fit_with_val,
    "evaluate": evaluate,
    "fit of GAN": fit_gan,
    "preflight": call(dgm.preflight),
    "draw": draw,
    "nll": call(dgm.nll, num=4),
    "evidence": call(dgm.evidence, num=4),
    "surgery": call(dgm.surgery, num=20),
    "gaps": call(dgm.gaps, num=4, num_steps=2),
    "unit_kl": call(dgm.unit_kl, num=4),
    "active_units": of_guide(dgm.active_units, num=4),
    "collapse": call(dgm.collapse, num=4),
    "aggregate_test": call(dgm.aggregate_test, num=20, num_permutations=9),
    "normalization": call(normalization, num_data=2),
    "ais": of_model(dgm.ais, num=2, steps=2, leapfrog=2),
    "hmc": of_model(dgm.hmc, num=4, chains=2, warmup=4, leapfrog=2),
    "check": check,
    "to_arviz": call(dgm.to_arviz, num=4),
    "encode": of_guide(dgm.encode, num=2),
    "reconstruct": call(dgm.reconstruct, num=2),
    "impute": impute,
    "conditional_nll": conditional_nll,
    "marginal_nll": marginal_nll,
    "guide_error": guide_error,
}

# The entries whose model makes the data.
ORIGIN = torch.zeros(3, 2, dtype=torch.float64)
OF_PRIOR: dict[str, Callable[..., Any]] = {
    "generate": of_model(dgm.generate, 3),
    "sbc": call(dgm.sbc, num_data=20, num_draws=9),
    "tarp": call(dgm.tarp, num_data=20, num_draws=9),
    "bdmc": of_model(dgm.bdmc, num_data=3, num=2, steps=2, leapfrog=2),
    "decode": of_model(dgm.decode, ORIGIN),
    "traverse": of_model(dgm.traverse, ORIGIN),
    "interpolate": of_model(dgm.interpolate, ORIGIN, ORIGIN + 1),
}

TRAINED = ("fit of ELBO", "fit of IWELBO", "fit with val", "evaluate", "fit of GAN")
MODEL_ALONE = ("ais", "hmc", "generate", "bdmc", "decode", "traverse", "interpolate")
GUIDE_ALONE = ("active_units", "encode", "guide_error")
GAN = "fit of GAN"
MASKED = ("impute", "conditional_nll", "marginal_nll")
