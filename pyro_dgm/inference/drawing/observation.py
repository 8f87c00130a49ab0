"""Which site of a model is its observation, told by what it observes when it is given its own draws; and its values."""

from __future__ import annotations

from typing import Any, cast

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ..data.tensors import Batch, repeat_rows
from ..process.states import fork_rng
from ..run.traces import (
    latent_sites,
    log_density,
    observed_sites,
    plate_names,
    plate_value,
    sites_of,
    vectorized,
)
from ..sites.kinds import is_factor

PROBES = 16  # draws on which an observation is told


def observation_of(model: PyroProgram, trace: Trace, context: Batch) -> str | None:
    """The name of the site whose draws are the model's data; `None` if the program returns them, made of several.

    Draws are given back to the model as data: they are its data if every site that observes then has the very value
    that was drawn. A location that the program returns, or a latent, does not pass.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        trace: a run of it on `None` and the context, inside a plate of particles.
        context: the program's further arguments.

    Raises:
        ValueError: if no site passes, with the sites that might be meant.
    """
    drawn = latent_sites(trace)
    observed: set[str] = set()
    for name in reversed(drawn):
        seen = _observed_on(model, data_dim_first(drawn[name]), drawn, context)
        if seen and all(seen.values()):
            return name
        observed |= set(seen)
    returned = trace.nodes["_RETURN"]["value"]
    if isinstance(returned, Tensor) and returned.dim() > 1:
        seen = _observed_on(model, returned, drawn, context)
        if seen and all(seen.values()):
            return None
    last = next(reversed(drawn), None)
    if not observed and last is not None and drawn[last]["value"] is returned:
        return last  # a program that takes no data, such as a prior, and returns what it draws last
    raise ValueError(
        f"model: expected one observed site, whose draws are the data, got {sorted(observed) or list(drawn)} and "
        f"a program that returns {_describe(returned)}. Fix: pyro.sample('x', …, obs=x) of the first argument as it "
        "is, or a site by name, generate(model, num, site='x')."
    )


def _describe(returned: Any) -> str:
    kind = type(returned).__name__
    return f"a {kind} that it would not observe" if isinstance(returned, Tensor) else kind


def _observed_on(
    model: PyroProgram, draws: Tensor, drawn: dict[str, Site], context: Batch
) -> dict[str, bool]:
    """Site that observes when draws `(K, N, …)` are given as data → whether its value is the one that was drawn."""
    num = min(len(draws), max(1, PROBES // draws.shape[1]))
    rows = draws[:num].flatten(0, 1)
    batch = (rows, *[repeat_rows(value, num) for value in context])
    try:
        sites = sites_that_observe(model, batch)
    except Exception:  # whatever a user's program raises: these were not its data
        return {}
    found = {}
    for name, site in sites.items():
        if name in drawn:
            expected = data_dim_first(drawn[name])[:num].flatten(0, 1)
            found[name] = is_same(_data_first(site), expected)
    return found


def sites_that_observe(model: PyroProgram, batch: Batch) -> dict[str, Site]:
    """The observed sites of one run on these arguments; its noise is its own."""
    with fork_rng(*batch), torch.no_grad():
        return observed_sites(poutine.trace(model).get_trace(*batch))


def _data_first(site: Site) -> Tensor:
    """The value of a site without particles, the data first."""
    value, names = plate_value(site), plate_names(site)
    return value.movedim(names.index(DATA), 0) if DATA in names else value


def is_same(value: Tensor, expected: Tensor) -> bool:
    """Whether they are the same numbers, up to the rounding of a transform and its inverse."""
    if value.shape != expected.shape:
        return False
    return torch.allclose(value.double(), expected.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def data_dim_first(site: Site) -> Tensor:
    """The value of a site under K particles, `(K, N, *plates, *event)`: the data right behind the particles."""
    value, names = plate_value(site), plate_names(site)
    return value.movedim(names.index(DATA), 1) if DATA in names else value.unsqueeze(1)


def generated_value(trace: Trace, site: str | None, *, mean: bool = False) -> Tensor:
    """What a run of K particles generated, `(K, N, *event)`: a site's value or mean; of `None` what was returned."""
    sites = latent_sites(trace)
    if site is None and not mean:
        return cast(Tensor, trace.nodes["_RETURN"]["value"])
    if site not in sites:
        raise ValueError(
            f"generate: expected a site among {list(sites)}, which the model draws, got "
            f"{'data that are made of several' if site is None else repr(site)}. Fix: site='x'."
        )
    found = sites[site]
    return data_dim_first({**found, "value": mean_of(site, found["fn"])} if mean else found)


def mean_of(name: str, distribution: TorchDistribution) -> Tensor:
    """The mean of a site's distribution.

    Raises:
        NotImplementedError: if it has none.
    """
    try:
        return distribution.mean
    except NotImplementedError as error:
        raise NotImplementedError(
            f"site '{name}': expected a distribution that has a mean, got {distribution}. Fix: draws of it, "
            "generate(model, num), to_arviz(…).posterior_predictive, or a likelihood with a mean."
        ) from error


def refuse_factors(model: PyroProgram, trace: Trace, context: Batch, depth: int) -> None:
    """Refuse a model whose draws do not follow its density, since a `pyro.factor` weighs them unequally.

    A factor that is the same for all draws, such as one of parameters or of the context, does no harm.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        trace: a run of it.
        context: the program's further arguments.
        depth: number of plates of the program.

    Raises:
        ValueError: for such a factor.
    """
    if not any(is_factor(site) for site in sites_of(trace).values()):
        return
    some = next(iter(sites_of(trace).values()))["value"]
    with fork_rng(some), torch.no_grad():
        run = poutine.trace(vectorized(model, PROBES, depth)).get_trace(None, *context)
    for name, site in sites_of(run).items():
        if is_factor(site):
            log_f = log_density(site)
            if not torch.allclose(log_f, log_f[:1].expand_as(log_f), equal_nan=True):
                raise ValueError(
                    f"site '{name}': expected a model that draws from its own density, got a pyro.factor, which "
                    "weighs draws unequally: no run of the program is a draw of the joint. "
                    "Fix: hmc(model, x) for draws of its latents, or a pyro.sample in place of the factor."
                )
