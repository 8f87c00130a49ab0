"""What a pair and its data are coded as, and in which blocks; refusals of what has no bits."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.distributions import TransformedDistribution

from ..contract import Site, noise_name
from ..inference.data.tensors import Batch, repeat_rows, split_rows, take_rows
from ..inference.run.structure import Structure
from ..inference.run.traces import PairTrace, run_pair
from ..inference.sites.kinds import Kind
from ..inference.sites.supports import are_integers, innermost, support_of_numbers
from .codecs import LARGEST_TABLE
from .grids import MOST_BITS, Grid, Integers, Space, unit_grid
from .local import BITS_OF_NOISE
from .observing import require_blind, require_data_themselves, require_repeatable

COARSE = 18  # binary digits of a latent
FINE = 28  # of one with a flow, whose slopes are looked at through cells
OF_NOISE = 32  # of the noise between two integers
ROWS = 1000  # data that are looked at at once
LEAST_DRAWS = 200  # that tell where a latent lies: of few data there are several each
CELLS = 8  # of a grid in a standard deviation, at least
SCALES = 2**10  # the digits are those of so many standard deviations at most
MOST_LANES = 128


def check_structure(structure: Structure) -> str:
    """The name of the data's site, of a pair with one and with latents of each datum's own.

    Raises:
        ValueError: for any other pair.
    """
    structure.require_own_latents()
    if len(structure.observed) != 1:
        raise ValueError(
            f"compress: expected one observed site, got {list(structure.observed)}. "
            "Fix: the others as context, compress(model, guide, x, *context)."
        )
    if structure.summed or structure.factors:
        raise ValueError(
            "compress: expected latents that are drawn and no factors, got "
            f"{[*structure.summed, *structure.factors]}, which no bits stand for. "
            "Fix: a guide that draws them, without infer={'enumerate': 'parallel'}."
        )
    auxiliary = [site.name for site in structure.sites if site.kind is Kind.AUXILIARY]
    if structure.fixed_size or auxiliary:
        got = f"auxiliary draws {auxiliary}" if auxiliary else "a plate of all data at once"
        raise ValueError(
            f"compress: expected programs of any number of data, whose draws the model has, got {got}. "
            "Fix: `with data_plate(x):` in both programs, and Conditional(dist.Normal, net) as the guide."
        )
    if structure.points:
        raise ValueError(
            f"compress: expected a guide with a density, got point masses at {list(structure.points)}. "
            "Fix: Conditional(dist.Normal, net)."
        )
    return structure.observed[0]


def spaces_of(model: Any, guide: Any, batch: Batch, observed: str) -> tuple[dict[str, Space], int]:
    """Site → what its values are coded as, and of how many bits the latents of one datum are drawn, at most about.

    Latents lie on a grid around their draws, noise of a dequantizer on one of [0, 1], data are integers.
    """
    ranges: dict[str, Range] = {}
    size = 1
    copies = -(-LEAST_DRAWS // len(batch[0]))
    for block in split_rows(tuple([repeat_rows(value, copies) for value in batch]), ROWS):
        pair = run_pair(model, guide, block)
        for name, site in pair.latent.items():
            found = ranges.setdefault(name, Range(has_flow=_has_flow(pair, name)))
            found.add(site["value"], scale_of(site["fn"]))
        size = max(size, _num_integers(observed, pair.observed[observed], block[0]))
        require_data_themselves(observed, pair.observed[observed]["value"], block[0])
        require_repeatable(model, guide, pair, block)
        require_blind(model, pair, block)
    grids = {name: found.grid for name, found in ranges.items()}
    noise = noise_name(observed)
    if noise in grids:
        grids[noise] = unit_grid(OF_NOISE)
    num_bits = 0
    for name, found in ranges.items():
        num_bits += found.num_dims * (grids[name].bits + found.has_flow * BITS_OF_NOISE)
    return {**grids, observed: Integers(size)}, num_bits


class Range:
    """Where the draws of a latent lie.

    Args:
        has_flow: whether it is coded by local bits-back, on finer cells.
    """

    def __init__(self, *, has_flow: bool):
        self.has_flow = has_flow
        self.low, self.high = inf, -inf
        self.scale, self.least = inf, inf
        self.num_dims = 0

    def add(self, value: Tensor, least: float) -> None:
        """Take in draws `(B, *event)`, and the least standard deviation of their distribution."""
        self.least = min(self.least, least)
        self.num_dims = value[0].numel()
        ordered = value.double().flatten().sort().values
        tail = len(ordered) // 100
        self.low = min(self.low, ordered[0].item())
        self.high = max(self.high, ordered[-1].item())
        self.scale = min(self.scale, (ordered[-1 - tail] - ordered[tail]).item())

    @property
    def grid(self) -> Grid:
        """A grid over all of them, whose middle 98 % have `FINE` or `COARSE` digits; more of a narrow guide.

        Raises:
            ValueError: for a guide that is narrower than the cells of any grid.
        """
        bits = FINE if self.has_flow else COARSE
        span = self.high - self.low
        scale = max(min(self.scale, SCALES * self.least), span * 2.0 ** (bits - MOST_BITS))
        found = Grid.around(self.low, self.high, bits, scale)
        if self.least < CELLS * found.width:
            raise ValueError(
                f"compress: expected a guide of standard deviations above {CELLS * found.width:.2g}, for latents "
                f"that are spread over {span:.2g}, got {self.least:.2g}. Fix: a guide that is no point mass, "
                "Conditional(dist.Normal, net)."
            )
        return found


def scale_of(distribution: Any) -> float:
    """The least standard deviation of a normal's numbers, each given those before it; infinite for other families."""
    scale = getattr(distribution, "scale_tril", None)
    base = innermost(distribution)
    if scale is not None:
        scale = scale.diagonal(dim1=-2, dim2=-1)
    elif isinstance(base, torch.distributions.Normal):
        scale = base.scale
    return inf if scale is None else scale.min().item()


def _has_flow(pair: PairTrace, name: str) -> bool:
    """Whether a latent is coded by local bits-back in one of the programs."""
    for site in (pair.guide_sites[name], pair.model_sites[name]):
        if isinstance(site["fn"], TransformedDistribution) and site["fn"].event_shape:
            return True
    return False


def _num_integers(name: str, site: Site, x: Tensor) -> int:
    """How many integers a site's distribution has masses for: those of its support, or those up to the largest datum.

    Raises:
        ValueError: for a density, and for data that are not integers from 0 on, or of another shape than x.
    """
    value = site["value"]
    support = support_of_numbers(site["fn"].support)
    if not getattr(support, "is_discrete", False):
        raise ValueError(
            f"compress: site '{name}': expected a mass function of integers, got the density {site['fn']}, which "
            "gives real numbers no bits. Fix: DiscretizedLogistic(net, levels), Bernoulli, Categorical or counts."
        )
    if value.shape != x.shape or not are_integers(value) or value.min().item() < 0:
        raise ValueError(
            f"compress: site '{name}': expected integers from 0 on in the shape of x, {tuple(x.shape)}, got "
            f"values from {value.min().item():g} to {value.max().item():g} of shape {tuple(value.shape)}. "
            "Fix: pyro.sample('x', …, obs=x) of integers x."
        )
    upper = getattr(
        support, "upper_bound", 1 if support is torch.distributions.constraints.boolean else None
    )
    if upper is None:
        upper = value.max()
    return int(torch.as_tensor(upper).max().item()) + 1


def num_lanes(num_data: int, num_dims: int, size: int) -> int:
    """How many data are coded at once: a twentieth of them, so that their heads are few of the bits.

    Example:
        >>> num_lanes(10_000, 784, 2), num_lanes(50, 64, 17)
        (128, 2)
    """
    of_memory = LARGEST_TABLE // (num_dims * size)
    return max(1, min(num_data // 20, MOST_LANES, of_memory))


def sizes_of_blocks(num_data: int, lanes: int) -> Iterator[int]:
    """Numbers of data of one block after the other: few at first, for which few bits have to be there.

    Example:
        >>> sizes = list(sizes_of_blocks(100, 4))
        >>> sizes[:3], max(sizes), sum(sizes)
        ([1, 1, 1], 4, 100)
    """
    done = 0
    while done < num_data:
        size = min(max(1, done // 8), lanes, num_data - done)
        yield size
        done += size


def blocks_of(batch: Batch, lanes: int) -> Iterator[Batch]:
    """The data in blocks of these sizes."""
    start = 0
    for size in sizes_of_blocks(len(batch[0]), lanes):
        yield take_rows(batch, slice(start, start + size))
        start += size
