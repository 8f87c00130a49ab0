"""What the draws of many blocks of data add up to, for every latent dim."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor
from torch.distributions import Categorical

from ...contract import DATA, Site
from ...densities.factors import independent_numbers
from ...inference.run.limits import check_divergence
from ...inference.run.particles import Particles
from ...inference.run.traces import plate_names, plate_value
from ...inference.sites.measure_checks import require_density
from ...inference.sites.measures import point_sites
from ...inference.sites.supports import innermost


class PosteriorMoments:
    r"""$E[z \mid x_i]$ and $\mathrm{Var}(z \mid x_i)$ of every latent site from K draws, block of data by block."""

    def __init__(self) -> None:
        self.num_draws = 0
        self.means: dict[str, list[Tensor]] = defaultdict(list)
        self.variances: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, name: str, site: Site) -> None:
        """Note the draws of a site for a block of data; labels have no mean and are left out.

        Raises:
            ValueError: if the site lies outside the data plate.
        """
        draws = data_second(name, site)  # (K, rows, *plates, *event)
        if isinstance(innermost(site["fn"]), Categorical):
            return
        z = draws if draws.is_floating_point() else draws.double()
        self.num_draws = len(z)
        self.means[name].append(z.mean(0))
        self.variances[name].append(z.var(0))

    def variance_of_means(self) -> dict[str, Tensor]:
        r"""Site → $\mathrm{Var}_x(E[z \mid x])$ `(*event)`, without the variance of the K draws in the means.

        Raises:
            ValueError: for one datum.
        """
        found = {}
        for name, blocks in self.means.items():
            means = torch.cat(blocks)
            require_two_data(len(means))
            noise = torch.cat(self.variances[name]).mean(0) / self.num_draws
            found[name] = means.var(0) - noise
        return found


class KLShares:
    r"""$\log q(z_d \mid x_i) - \log p(z_d)$ of every latent dim, the mean of K draws, block of data by block."""

    def __init__(self) -> None:
        self.blocks: dict[str, list[Tensor]] = defaultdict(list)
        self.num_draws = self.num_sites = 0

    def add(self, particles: Particles, names: tuple[str, ...]) -> None:
        """Note K draws for a block of data; sites that are no product over their dims have no shares.

        A prior that is a sum over a discrete site is no such product.

        Raises:
            ValueError: for a guide that is a point mass at a latent site.
        """
        pair = particles.pair
        require_density("unit_kl", point_sites(pair.guide_sites, pair.model_sites))
        self.num_sites = len(names)
        for name in names:
            site = pair.latent[name]
            q = independent_numbers(site["fn"])
            p = independent_numbers(pair.modelled[name]["fn"])
            if q is None or p is None or name in particles.mixed:
                continue
            z = site["value"]
            self.num_draws = len(z)
            log_ratio = (q.log_prob(z) - p.log_prob(z)).expand(z.shape)
            of_block = data_second(name, site, log_ratio)
            self.blocks[name].append(of_block.double().mean(0))

    def mean(self) -> dict[str, Tensor]:
        """Site → the mean over the data `(*plates, *event)`.

        Raises:
            ValueError: for a share that is negative beyond its error. Shares of several sites may be: they are terms of
                a chain rule, whose order may be another one in the guide than in the model.
        """
        found = {}
        for name, blocks in self.blocks.items():
            shares = torch.cat(blocks)
            found[name] = shares.mean(0)
            if self.num_sites == 1 and shares.numel():
                lowest = int(found[name].argmin())
                of_lowest = shares.reshape(len(shares), -1)[:, lowest]
                check_divergence(f"site '{name}', unit {lowest}", of_lowest, self.num_draws)
        return found


def require_two_data(num: int) -> None:
    """Refuse one datum."""
    if num < 2:
        raise ValueError(
            "data: expected at least 2 data, over which the posterior means vary, got 1. "
            "Fix: more data, x[:100]."
        )


def data_second(name: str, site: Site, value: Tensor | None = None) -> Tensor:
    """Draws of a site, or numbers of their shape, `(K, N, *plates, *event)`: the data right behind the draws.

    Raises:
        ValueError: if the site lies outside the data plate.
    """
    value = plate_value(site, value)
    plates = plate_names(site)
    if DATA not in plates:
        raise ValueError(
            f"site '{name}': expected a site inside the plate '{DATA}', got a global one, which is "
            f"the same for every datum. Fix: move pyro.sample('{name}', …) under "
            "`with data_plate(x):`."
        )
    return value.movedim(plates.index(DATA), 1)
