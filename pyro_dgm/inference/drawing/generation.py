"""Draws: new data from the model, latents from the guide, reconstructions through both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ...contract import PyroProgram, Site
from ...display.progress import watched
from ..data.tensors import Batch
from ..run.sessions import Session, require_positive, session
from ..run.traces import latent_sites, plate_depth, plate_value, vectorized
from ..vectorization.counting import num_rows
from ..vectorization.rows import OneAtATime
from .observation import generated_value, mean_of, observation_of, refuse_factors
from .prior_sessions import session_of_prior
from .simulation import check_size, generative_trace, run_without_data

FIX = "like=x, data as its first argument takes them; or x=None in the model, `with data_plate(x):`"


def generate(
    model: PyroProgram,
    num: int,
    *context: Tensor,
    site: str | None = None,
    mean: bool = False,
    like: Any = None,
    seed: int = 0,
    chunk: int = 10_000,
) -> Tensor:
    r"""$x \sim p(x)$, or $x \sim p(x \mid c)$ for each row of a context, by running the declared program.

    With `mean`, $G(z) = E[x \mid z]$ of $z \sim p(z)$ in place of x: images without the noise of their pixels, and what
    the critic of a `GANTrainer` without `noise` sees. Its law is another one than p(x).

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        num: draws, per row of the context where there is one.
        context: the program's further arguments.
        site: name of the site to return; default: the one that observes the first argument, whatever the program
            returns. It is found by giving some draws back to the model as data.
        mean: whether to return the mean of the site's law, given all that was drawn before it.
        like: data as the model's first argument takes them, for a model that does not run on `None`: what it observes
            is drawn in their place, by `poutine.uncondition`, and their values do not count.
        seed: of the draws; the random state outside stays as it is.
        chunk: how many draws are made at once.

    Shape:
        `(num, *event)` without a context, `(num, N, *event)` with one.

    Raises:
        ValueError: if several sites or none are observed and no site is named, if the program has no such site, for
            a `pyro.factor` that weighs draws unequally, or, with `like`, for a model whose draws depend on its data.
        NotImplementedError: for the mean of a law that has none, as that of a flow.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> generate(model, 4).shape, generate(model, 4, mean=True).shape
        (torch.Size([4, 3]), torch.Size([4, 3]))
    """
    with session_of_prior(model, None, *context, chunk=chunk, seed=seed, like=like) as opened:
        context, model = opened.context, opened.model
        depth = plate_depth(run_without_data(opened.programs[0], context, fix=FIX))
        require_positive(num=num)
        _require_many(model)
        draws: list[Tensor] = []
        starts = range(0, num, chunk)
        for start in watched(starts, len(starts), "block", "generate"):
            trace = generative_trace(model, min(chunk, num - start), 1, context, depth)
            if not draws:
                refuse_factors(model, trace, context, depth)
                site = site or observation_of(model, trace, context)
            draws.append(generated_value(trace, site, mean=mean))
        x = torch.cat(draws)
        check_size(x.shape[1], num_rows(context))
    return x if context else x.flatten(0, 1)[:num]


def _require_many(model: PyroProgram) -> None:
    """Refuse a model that can't draw several data sets at once."""
    if isinstance(model, OneAtATime):
        raise ValueError(
            "generate: expected a model of which several draws can be made at once, got one whose values mean "
            "something else, or fail, under a dim of draws. Fix: dims indexed from the right, w[..., 0], and "
            "latents unsqueezed beside the data plate; or to_arviz(model, guide, *data).prior_predictive, run by run."
        )


def encode(guide: PyroProgram, *batch: Any, num: int = 1, seed: int = 0) -> dict[str, Tensor]:
    r"""$z \sim q(z \mid x)$: draws of every latent site.

    Args:
        guide: a Pyro guide.
        batch: the data, observation first.
        num: draws K per datum.
        seed: of the draws.

    Returns:
        site → `(K, N, *event)`.

    Raises:
        ValueError: for counts below 1, bad data, one datum without its dim, or a model in place of the guide.
    """
    with session(None, guide, *batch, num=num, seed=seed) as opened:
        blocks = [encoded(opened, block) for block in opened.blocks()]
        return {name: _joined([block[name] for block in blocks]) for name in blocks[0]}


def _joined(sites: Sequence[Site]) -> Tensor:
    """A site of several blocks of data, along the data plate, which is the last one."""
    values = [plate_value(site) for site in sites]
    return (
        values[0] if len(values) == 1 else torch.cat(values, -1 - len(sites[0]["fn"].event_shape))
    )


def encoded(opened: Session, block: Batch) -> dict[str, Site]:
    """The sites of K draws of the guide for a block of data, with their plates."""
    depth = opened.structure.depth
    if opened.structure.observed:
        raise ValueError(
            f"guide: expected a program that draws latents, got {type(opened.guide).__name__}, which observes "
            f"{list(opened.structure.observed)}: is it the model? Fix: encode(guide, x)."
        )
    particles = vectorized(opened.guide, opened.num, depth)
    return latent_sites(poutine.trace(particles).get_trace(*block))


def reconstruct(
    model: PyroProgram, guide: PyroProgram, *batch: Any, num: int = 1, seed: int = 0
) -> dict[str, Tensor]:
    r"""$E[x' \mid z]$ with $z \sim q(z \mid x)$: the mean of every observed site, averaged over K draws of the guide.

    Args:
        model: a Pyro program.
        guide: its guide.
        batch: the data, observation first.
        num: draws K per datum.
        seed: of the draws.

    Returns:
        observed site → `(*plates, N, *event)`, the data plate last.

    Raises:
        NotImplementedError: if an observation has no mean, as a flow likelihood.
    """
    with session(model, guide, *batch, num=num, seed=seed) as pair:
        means = {}
        for name, distribution in pair.draw().observations.items():
            means[name] = mean_of(name, distribution).mean(0)
        return means
