"""Do generator, critic and data fit together? One run that says what does not, before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from ..contract import Site
from ..inference.data.tensors import check_data
from ..inference.process.states import eval_mode, fork_rng
from ..inference.run.explain import fix_by_words, fix_of_dtype, fix_of_shape
from ..inference.run.traces import latent_sites
from ..inference.sites.supports import IntegerWarning, are_integers
from .critics import is_batch_norm, logits, mixes_data
from .drawing import Fakes
from .penalties import Penalty

ADD_NOISE = (
    "integer levels get noise, Batches(x, transform=lambda x: within_cell(x, torch.rand(x.shape)))"
)


def check_match(
    fakes: Fakes, critic: nn.Module, batch: tuple[Any, ...], penalties: Sequence[Penalty] = ()
) -> None:
    """Run both programs once with validation on; weights, buffers and seeds stay as they are.

    Warns of integer data where the generator makes real numbers, and of a critic that mixes data under a penalty.

    Args:
        fakes: of the generator.
        critic: maps x `(B, *event)`, or `(x, *context)`, to logits `(B,)` or `(B, 1)`.
        batch: data `(x, *context)`.
        penalties: on the critic's gradient.

    Raises:
        ValueError: with what was expected, what came and the fix, for: empty, NaN or infinite data; a
            generator or a critic that fails; data that the generator could not have made; a generator that no
            gradient reaches or that draws nothing; a critic without one logit per datum.
    """
    for position, argument in enumerate(batch):
        if isinstance(argument, Tensor):
            check_data(argument, f"argument {position}")
    x, *context = batch
    with (
        fork_rng(*batch),
        eval_mode(fakes.program, critic),
        pyro.validation_enabled(True),
        torch.enable_grad(),
    ):
        _inspect(fakes, batch)
        fake = _generate(fakes, batch)
        _check_data(fake, x)
        _check_gradients(fakes, fake, batch)
        _check_critic(critic, "data", x, context)
        _check_critic(critic, "fakes", fake, context)
    if penalties:
        warn_of_mixing(critic, penalties, batch)


# -- the generator ------------------------------------------------------------------------------
def _inspect(fakes: Fakes, batch: tuple[Any, ...]) -> None:
    try:
        fakes.inspect(*batch)
    except Exception as error:
        shapes = [tuple(b.shape) if isinstance(b, Tensor) else type(b).__name__ for b in batch]
        fix = fix_by_words(error, batch) or (
            "expected a program that generates, got this. "
            "Fix: GANTrainer(program, critic) with a program such as vae.generator, "
            "called as program(x, *context), and with None for x to generate."
        )
        raise ValueError(
            f"the generator fails on a batch of shapes {shapes}: {error}\n{fix}"
        ) from error


def _generate(fakes: Fakes, batch: tuple[Any, ...]) -> Tensor:
    try:
        return fakes(*batch)
    except Exception as error:
        if str(error).startswith(f"site '{fakes.site}': expected"):
            raise
        raise ValueError(
            "the generator runs on data, but not to make fakes: expected networks that take the "
            "latents of K fakes as (K, 1, …), or as K rows where the programs' plate is "
            f"data_plate(x); got: {error}\n"
            "Fix: `with data_plate(x, c):` in the generator, and ConvDecoder(code, shape) for images."
        ) from error


# -- the data -----------------------------------------------------------------------------------
def _check_data(fake: Tensor, x: Tensor) -> None:
    if fake.shape != x.shape:
        made, given = tuple(fake.shape[1:]), tuple(x.shape[1:])
        fix = "x[None], for one datum" if x.dim() == 1 else fix_of_shape(made, given)
        raise ValueError(
            f"data: expected the event shape {made} that the generator makes, got {given}. "
            f"Fix: {fix}."
        )
    if fake.dtype != x.dtype:
        fix = fix_of_dtype(fake.dtype) if x.is_floating_point() else ADD_NOISE
        raise ValueError(
            f"data: expected the dtype {fake.dtype} that the generator makes, got {x.dtype}. "
            f"Fix: {fix}."
        )
    _warn_of_integers(fake, x)
    if not bool(fake.isfinite().all()):
        raise ValueError(
            "generator: expected finite values, got NaN or infinite ones. "
            "Fix: a distribution with a finite mean, or noise=True."
        )


def _warn_of_integers(fake: Tensor, x: Tensor) -> None:
    """Integers and real numbers: a critic need not look at what they show."""
    is_constant = bool((x == x.flatten()[0]).all())
    if is_constant or not are_integers(x) or are_integers(fake):
        return
    warnings.warn(
        f"data: they are integers, {x.min().item():g} to {x.max().item():g}, "
        "and the generator makes real numbers: a critic tells them apart by that alone. "
        f"Fix: {ADD_NOISE}.",
        IntegerWarning,
        stacklevel=2,
    )


# -- the gradients ------------------------------------------------------------------------------
def _check_gradients(fakes: Fakes, fake: Tensor, batch: tuple[Any, ...]) -> None:
    """Refuse parameters that would silently stay as they are."""
    if not fake.requires_grad:
        raise ValueError(
            f"site '{fakes.site}': expected values through which a gradient reaches the generator, "
            "got none: its mean does not depend smoothly on any parameter. "
            "Fix: noise=True, or a likelihood with a differentiable mean."
        )
    trace = poutine.trace(fakes.run).get_trace(*batch)
    latent = latent_sites(trace)
    latent.pop(str(fakes.site), None)
    for name, site in latent.items():
        _check_latent(name, site)
    if not latent and not fakes.noise:
        _check_randomness(trace, str(fakes.site))


def _check_latent(name: str, site: Site) -> None:
    """Refuse a distribution to be trained that passes no gradient on to its parameters."""
    distribution = site["fn"]
    if distribution.has_rsample:
        return
    is_trained = distribution.log_prob(site["value"].detach()).requires_grad
    if is_trained:
        raise ValueError(
            f"site '{name}': expected reparameterized draws from a distribution with parameters "
            f"to train, got {distribution}: no gradient of the critic reaches them. "
            "Fix: a flow prior, or prior.requires_grad_(False)."
        )


def _check_randomness(trace: Trace, name: str) -> None:
    """Refuse a generator without latents whose every fake is one point, the mean of its observation."""
    site = latent_sites(trace)[name]
    if not torch.equal(site["value"], site["fn"].mean):
        raise ValueError(
            f"site '{name}': expected latents, or draws of the observation, got neither: "
            f"the mean of {site['fn']} is one point. Fix: GANTrainer(…, noise=True)."
        )


# -- the critic ---------------------------------------------------------------------------------
def _check_critic(critic: nn.Module, kind: str, x: Tensor, context: list[Any]) -> None:
    try:
        logits(critic, x, *context)
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith("critic: "):
            raise
        arguments = ["x"]
        for position in range(len(context)):
            arguments.append(f"context[{position}]")
        raise ValueError(
            f"critic: it fails on {kind} of shape {tuple(x.shape)} and dtype {x.dtype}: {error}\n"
            f"Fix: a critic that is called as critic({', '.join(arguments)})."
        ) from error


def warn_of_mixing(critic: nn.Module, penalties: Sequence[Penalty], batch: tuple[Any, ...]) -> None:
    """Warn of penalties on a critic's gradient at one datum where its output depends on the whole batch."""
    if mixes_data(critic, *batch):
        names = [type(penalty).__name__ for penalty in penalties]
        layers = sorted(
            {type(module).__name__ for module in critic.modules() if is_batch_norm(module)}
        )
        warnings.warn(
            f"critic: expected a critic whose logit of a datum depends on that datum alone, for {names} take its "
            f"gradient there; got one that mixes the data of a batch in training mode, by {layers or 'its forward'}. "
            "Fix: nn.LayerNorm in place of nn.BatchNorm (arXiv:1704.00028, section 4), or penalties=().",
            UserWarning,
            stacklevel=2,
        )
