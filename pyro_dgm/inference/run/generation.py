"""Draws: new data from the model, latents from the guide, reconstructions through both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA
from .estimates import check_pair, estimating, placed, placed_context, require_positive, take_rows
from .particles import draw
from .structure import check_sites, data_sites
from .traces import (
    Site,
    fork_rng,
    plate_depth,
    plate_names,
    plate_value,
    sample_sites,
    vectorized,
)


def generate(
    model: Callable,
    num: int,
    *context: Tensor,
    site: str | None = None,
    mean: bool = False,
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
        site: name of the site to return; default: what the program returns.
        mean: whether to return the mean of the site's law, given all that was drawn before it.
        seed: of the draws; the random state outside stays as it is.
        chunk: how many draws are made at once.

    Shape:
        `(num, *event)` without a context, `(num, N, *event)` with one.

    Raises:
        ValueError: if the program returns no tensor and no site is named, or has no such site.
        NotImplementedError: for the mean of a law that has none, as that of a flow.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> generate(model, 4).shape, generate(model, 4, mean=True).shape
        (torch.Size([4, 3]), torch.Size([4, 3]))
    """
    require_positive(num=num, chunk=chunk)
    context = placed_context(model, context)
    with estimating(model, seed=seed):
        depth = plate_depth(poutine.trace(model).get_trace(None, *context))
        traces = (
            _generated(model, min(chunk, num - start), depth, context)
            for start in range(0, num, chunk)
        )
        x = torch.cat([generated_value(trace, site, mean=mean) for trace in traces])
    return x if context else x.flatten(0, 1)[:num]


def _generated(model: Callable, num: int, depth: int, context: tuple) -> Trace:
    """A run of `num` particles that generates."""
    return poutine.trace(vectorized(model, num, depth)).get_trace(None, *context)


def generated_value(trace: Trace, site: str | None = None, *, mean: bool = False) -> Tensor:
    """What a run of K particles generated, `(K, N, *event)`: a site's value or mean, or what the program returned."""
    sites, returned = dict(sample_sites(trace)), trace.nodes["_RETURN"]["value"]
    if site is None:
        site = next((name for name, s in sites.items() if s["value"] is returned), None)
        if site is None and isinstance(returned, Tensor) and not mean:
            return returned
    if site not in sites:
        raise ValueError(
            f"generate: expected a model that returns a {'site' if mean else 'tensor'}, or a site among {list(sites)}; "
            f"got {type(returned).__name__ if site is None else repr(site)}. "
            "Fix: return pyro.sample('x', …), or site='x'."
        )
    found = sites[site]
    return data_dim_first({**found, "value": mean_of(site, found["fn"])} if mean else found)


def data_dim_first(site: Site) -> Tensor:
    """The value of a site under K particles, `(K, N, *plates, *event)`: the data right behind the particles."""
    value, names = plate_value(site), plate_names(site)
    return value.movedim(names.index(DATA), 1) if DATA in names else value.unsqueeze(1)


def encode(guide: Callable, *batch: Any, num: int = 1, seed: int = 0) -> dict[str, Tensor]:
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
    require_positive(num=num)
    return {
        name: plate_value(site)
        for name, site in encoded(guide, placed(guide, batch), num, seed).items()
    }


def encoded(guide: Callable, batch: tuple, num: int, seed: int) -> dict[str, Site]:
    """The sites of K draws of the guide, with their plates."""
    with estimating(guide, seed=seed):
        _check_rows(guide, batch)
        trace = poutine.trace(guide).get_trace(*batch)
        if observed := data_sites(trace):
            raise ValueError(
                f"guide: expected a program that draws latents, got {type(guide).__name__}, which observes {observed}: "
                "is it the model? Fix: encode(guide, x)."
            )
        depth = plate_depth(trace)
        return dict(sample_sites(poutine.trace(vectorized(guide, num, depth)).get_trace(*batch)))


def _check_rows(guide: Callable, batch: tuple) -> None:
    """Refuse one datum in place of a batch: a guide that runs on it as one row, but not on what its first row is."""
    if _fails(guide, take_rows(batch, slice(1))) and not _fails(
        guide, tuple(_as_row(value) for value in batch)
    ):
        raise ValueError(
            f"data: expected a row per datum, got one datum of event shape {tuple(batch[0].shape)}. "
            "Fix: x[None] for one datum."
        )


def _as_row(value: Any) -> Any:
    return value[None] if isinstance(value, Tensor) else value


def _fails(guide: Callable, batch: tuple) -> bool:
    try:
        with fork_rng(*batch):
            guide(*batch)
    except Exception:  # whatever a user's program raises
        return True
    return False


def reconstruct(
    model: Callable, guide: Callable, *batch: Any, num: int = 1, seed: int = 0
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
    check_pair(model, guide)
    require_positive(num=num)
    batch = placed(model, batch)
    with estimating(model, guide, seed=seed):
        particles = draw(model, guide, *batch, num=num)
        check_sites(particles.guide_trace, particles.model_trace)
        return {
            name: mean_of(name, distribution).mean(0)
            for name, distribution in particles.observations.items()
        }


def mean_of(name: str, distribution: TorchDistribution) -> Tensor:
    """The mean of a site's law.

    Raises:
        NotImplementedError: if it has none.
    """
    try:
        return distribution.mean
    except NotImplementedError as error:
        raise NotImplementedError(
            f"site '{name}': expected a law that has a mean, got {distribution}. Fix: draws of it, "
            "generate(model, num), to_arviz(…).posterior_predictive, or a likelihood with a mean."
        ) from error
