"""Do generator, critic and data fit together? One run that says what does not, before the first step."""

from __future__ import annotations

import warnings

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from ..inference.run.data import check_data
from ..inference.run.states import eval_mode, fork_rng
from ..inference.run.supports import IntegerWarning
from ..inference.run.traces import Site, sample_sites
from .critics import logits
from .drawing import Fakes

NOISE = (
    "integer levels get noise, Batches(x, transform=lambda x: within_cell(x, torch.rand(x.shape)))"
)


def check_match(fakes: Fakes, critic: nn.Module, batch: tuple) -> None:
    """Run both programs once with validation on; weights, buffers and seeds stay as they are.

    Warns of integers beside a generator of real numbers.

    Raises:
        ValueError: with what was expected, what came and the fix, for: empty, NaN or infinite data; a generator or a
            critic that fails; data that the generator could not have made; a generator that no gradient reaches or
            that draws nothing; a critic without one logit per datum.
    """
    for position, tensor in enumerate(batch):
        if isinstance(tensor, Tensor):
            check_data(tensor, f"argument {position}")
    with (
        fork_rng(*batch),
        eval_mode(fakes.program, critic),
        pyro.validation_enabled(True),
        torch.enable_grad(),
    ):
        fake = _generated(fakes, batch)
        _check_data_of(fake, batch[0])
        _check_gradients(fakes, fake, batch)
        for kind, x in (("data", batch[0]), ("fakes", fake)):
            _check_critic(critic, kind, x, batch[1:])


def _generated(fakes: Fakes, batch: tuple) -> Tensor:
    try:
        fakes.inspect(*batch)
    except Exception as error:
        shapes = [tuple(b.shape) if isinstance(b, Tensor) else type(b).__name__ for b in batch]
        raise ValueError(
            f"the generator fails beside a batch of shapes {shapes}: {error}\n"
            "A generator is a program such as vae.generator, called with x to be read and with None to generate."
        ) from error
    try:
        return fakes(*batch)
    except Exception as error:
        if str(error).startswith(f"site '{fakes.site}': expected"):
            raise
        raise ValueError(
            "the generator runs on data, but not to make fakes: expected networks that broadcast over leading dims, "
            f"since the latents of K fakes arrive as (K, 1, …); got: {error}\n"
            "Fix: ConvDecoder(code, shape) for images, nn.Unflatten(-1, …) and dims indexed from the right; "
            "nn.LayerNorm in place of nn.BatchNorm, which takes dim 1 for channels."
        ) from error


def _check_data_of(fake: Tensor, x: Tensor) -> None:
    if fake.shape != x.shape:
        raise ValueError(
            f"data: expected the event shape {tuple(fake.shape[1:])} that the generator makes, got "
            f"{tuple(x.shape[1:])}. Fix: x.reshape(len(x), *{tuple(fake.shape[1:])}), or networks for "
            f"{tuple(x.shape[1:])}."
        )
    if fake.dtype != x.dtype:
        raise ValueError(
            f"data: expected the dtype {fake.dtype} that the generator makes, got {x.dtype}. "
            f"Fix: {f'x.to({fake.dtype})' if x.is_floating_point() else NOISE}."
        )
    _warn_of_integers(fake, x)
    if not bool(fake.isfinite().all()):
        raise ValueError(
            "generator: expected finite values, got NaN or infinite ones. Fix: a law with a finite mean, or noise=True."
        )


def _warn_of_integers(fake: Tensor, x: Tensor) -> None:
    """Real numbers beside integers: a critic need not look at what they show."""
    if (
        bool((x == x.round()).all())
        and bool((x != x.flatten()[0]).any())
        and not bool((fake == fake.round()).all())
    ):
        warnings.warn(
            f"data: they are integers, {x.min().item():g} to {x.max().item():g}, and the generator makes real numbers: "
            f"a critic tells them apart by that alone. Fix: {NOISE}.",
            IntegerWarning,
            stacklevel=2,
        )


def _check_gradients(fakes: Fakes, fake: Tensor, batch: tuple) -> None:
    """Refuse parameters that would silently stay as they are."""
    if not fake.requires_grad:
        raise ValueError(
            f"site '{fakes.site}': expected values through which a gradient reaches the generator, got none: its mean "
            "does not depend smoothly on any parameter. Fix: noise=True, or a likelihood with a differentiable mean."
        )
    trace = poutine.trace(fakes.run).get_trace(*batch)
    latent = {name: site for name, site in sample_sites(trace) if name != fakes.site}
    for name, site in latent.items():
        _check_latent(name, site)
    if not latent and not fakes.noise:
        _check_constant(trace, fakes.site)


def _check_latent(name: str, site: Site) -> None:
    distribution = site["fn"]
    if not distribution.has_rsample and distribution.log_prob(site["value"].detach()).requires_grad:
        raise ValueError(
            f"site '{name}': expected reparameterized draws from a law with parameters to train, got {distribution}: no "
            "gradient of the critic reaches them. Fix: a flow prior, or prior.requires_grad_(False)."
        )


def _check_constant(trace: Trace, name: str | None) -> None:
    site = dict(sample_sites(trace))[str(name)]
    if not torch.equal(site["value"], site["fn"].mean):
        raise ValueError(
            f"site '{name}': expected latents, or draws of the observation, got neither: the mean of {site['fn']} is "
            "one point. Fix: GANTrainer(…, noise=True)."
        )


def _check_critic(critic: nn.Module, kind: str, x: Tensor, context: tuple) -> None:
    try:
        logits(critic, x, *context)
    except ValueError as error:
        if str(error).startswith("critic: "):
            raise
        raise _failed(kind, x, context, error) from error
    except Exception as error:
        raise _failed(kind, x, context, error) from error


def _failed(kind: str, x: Tensor, context: tuple, error: Exception) -> ValueError:
    arguments = ", ".join(["x", *(f"context[{i}]" for i in range(len(context)))])
    return ValueError(
        f"critic: it fails on {kind} of shape {tuple(x.shape)} and dtype {x.dtype}: {error}\n"
        f"Fix: a critic that is called as critic({arguments})."
    )
