"""Twelve posteriors of posteriordb as plain Pyro programs, and the reader of their data and reference draws.

A program takes the data of its posterior as a dict; its sites are named as the reference draws.
Where Stan names no prior it is flat: `ImproperUniform`.

References:
    Magnusson, Torgander, Bürkner, Zhang, Carpenter, Vehtari 2024, *posteriordb*, arXiv:2407.04967.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

Data = dict[str, Any]
Quantities = dict[str, Tensor]


@dataclass(frozen=True)
class Posterior:
    """A program, and where its data and its reference draws lie."""

    model: Callable[[Data], None]
    data_file: str
    draws_file: str

    def data(self, folder: Path) -> Data:
        """The data, lists of numbers as float64 tensors."""
        found = {}
        for name, value in _read(folder / f"{self.data_file}.data.json.zip").items():
            is_list = isinstance(value, list)
            found[name] = torch.tensor(value, dtype=torch.float64) if is_list else value
        return found

    def draws(self, folder: Path) -> Quantities:
        """Quantity → reference draws of all chains, float64."""
        chains = _read(folder / f"{self.draws_file}.draws.json.zip")
        draws = {}
        for name in chains[0]:
            draws[name] = torch.tensor([chain[name] for chain in chains], dtype=torch.float64)
        return {name: value.flatten() for name, value in draws.items()}


def _read(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def named_numbers(quantities: Quantities) -> Quantities:
    """Columns by the names of Stan, `beta[1]`, from quantities `(K)` or `(K, D)`."""
    columns = {}
    for name, value in quantities.items():
        if value.dim() == 1:
            columns[name] = value
            continue
        for i in range(value.shape[-1]):
            columns[f"{name}[{i + 1}]"] = value[..., i]
    return columns


def flat(name: str, dim: int) -> Tensor:
    """A vector with a flat prior."""
    return pyro.sample(name, dist.ImproperUniform(constraints.real_vector, (), (dim,)))


def flat_positive(name: str) -> Tensor:
    return pyro.sample(name, dist.ImproperUniform(constraints.positive, (), ()))


def observe(y: Tensor, loc: Tensor, scale: Tensor) -> None:
    pyro.sample("y", dist.Normal(loc, scale).to_event(1), obs=y)


def discounted_sum(r: Tensor, a: Tensor) -> Tensor:
    r"""$e_t = r_t + a\, e_{t-1}$ from $e_0 = r_0$, as $\prod_k (1 + a^{2^k} S^{2^k})\, r$ with the shift S."""
    step = 1
    while step < r.shape[-1]:
        shifted = torch.nn.functional.pad(r[..., :-step], (step, 0))
        r = r + a * shifted
        a = a * a
        step *= 2
    return r


# The programs ----------------------------------------------------------------------------------------------------


def eight_schools_noncentered(data: Data) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    t = pyro.sample("t", dist.Normal(0.0, 1.0).expand([len(data["y"])]).to_event(1))
    theta = pyro.deterministic("theta", mu + tau * t, event_dim=1)
    observe(data["y"], theta, data["sigma"])


def kidscore_momiq(data: Data) -> None:
    beta = flat("beta", 2)
    sigma = pyro.sample("sigma", dist.HalfCauchy(torch.tensor(2.5)))
    observe(data["kid_score"], beta[0] + beta[1] * data["mom_iq"], sigma)


def kidscore_interaction(data: Data) -> None:
    beta = flat("beta", 4)
    sigma = pyro.sample("sigma", dist.HalfCauchy(torch.tensor(2.5)))
    high_school, iq = data["mom_hs"], data["mom_iq"]
    x = torch.stack([torch.ones_like(iq), high_school, iq, high_school * iq], dim=-1)
    observe(data["kid_score"], x @ beta, sigma)


def logearn_interaction(data: Data) -> None:
    beta = flat("beta", 4)
    sigma = flat_positive("sigma")
    height, male = data["height"], data["male"]
    x = torch.stack([torch.ones_like(height), height, male, height * male], dim=-1)
    observe(data["earn"].log(), x @ beta, sigma)


def logmesquite_logvas(data: Data) -> None:
    beta = flat("beta", 7)
    sigma = flat_positive("sigma")
    d1, d2, height = data["diam1"], data["diam2"], data["canopy_height"]
    columns = [
        torch.ones_like(d1),
        (d1 * d2 * height).log(),
        (d1 * d2).log(),
        (d1 / d2).log(),
        data["total_height"].log(),
        data["density"].log(),
        data["group"],
    ]
    observe(data["weight"].log(), torch.stack(columns, dim=-1) @ beta, sigma)


def nes(data: Data) -> None:
    beta = flat("beta", 9)
    sigma = flat_positive("sigma")
    age = data["age_discrete"]
    columns = [torch.ones_like(age), data["real_ideo"], data["race_adj"]]
    columns += [(age == group).double() for group in (2, 3, 4)]
    columns += [data["educ1"], data["gender"], data["income"]]
    observe(data["partyid7"], torch.stack(columns, dim=-1) @ beta, sigma)


def ark(data: Data) -> None:
    y, order = data["y"], data["K"]
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([order]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(torch.tensor(2.5)))
    lags = torch.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], dim=-1)
    observe(y[order:], alpha + lags @ beta, sigma)


def arma11(data: Data) -> None:
    y = data["y"]
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = pyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = pyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(torch.tensor(2.5)))
    first = y[:1] - mu * (1 + phi)
    errors = discounted_sum(torch.cat([first, y[1:] - mu - phi * y[:-1]]), -theta)
    pyro.sample("y", dist.Normal(y - errors, sigma).to_event(1), obs=y)


def garch11(data: Data) -> None:
    y = data["y"]
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    alpha0 = flat_positive("alpha0")
    alpha1 = pyro.sample("alpha1", dist.Uniform(torch.tensor(0.0), 1.0))
    share = pyro.sample("share", dist.Uniform(torch.tensor(0.0), 1.0))
    beta1 = pyro.deterministic("beta1", share * (1 - alpha1))
    pyro.factor("flat_beta1", torch.log1p(-alpha1))  # d beta1 / d share
    first = torch.full_like(y[:1], data["sigma1"] ** 2)
    later = alpha0 + alpha1 * (y[:-1] - mu).square()
    variance = discounted_sum(torch.cat([first, later]), beta1)
    observe(y, mu, variance.sqrt())


def gp_pois_regr(data: Data) -> None:
    x = data["x"]
    rho = pyro.sample("rho", dist.Gamma(torch.tensor(25.0), 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(torch.tensor(2.0)))
    noise = pyro.sample("f_tilde", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
    square_distance = (x[:, None] - x).square()
    covariance = alpha**2 * (-square_distance / (2 * rho**2)).exp()
    jitter = 1e-10 * torch.eye(len(x), dtype=x.dtype)
    f = pyro.deterministic("f", torch.linalg.cholesky(covariance + jitter) @ noise, event_dim=1)
    pyro.sample("k", dist.Poisson(f.exp()).to_event(1), obs=data["k"])


def low_dim_gauss_mix(data: Data) -> None:
    ordered = constraints.ordered_vector
    mu = pyro.sample("mu", dist.ImproperUniform(ordered, (), (2,)))
    pyro.factor("prior_of_mu", dist.Normal(0.0, 2.0).log_prob(mu).sum(-1))
    sigma = pyro.sample("sigma", dist.HalfNormal(torch.tensor(2.0)).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(torch.tensor(5.0), 5.0))
    weights = torch.stack([theta, 1 - theta], dim=-1)
    log_p = weights.log() + dist.Normal(mu, sigma).log_prob(data["y"][:, None])
    pyro.factor("y", log_p.logsumexp(-1).sum(-1))


def blr(data: Data) -> None:
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([data["D"]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(torch.tensor(10.0)))
    observe(data["y"], data["X"] @ beta, sigma)


POSTERIORS = {
    "eight_schools": Posterior(
        eight_schools_noncentered, "eight_schools", "eight_schools-eight_schools_noncentered"
    ),
    "kidscore_momiq": Posterior(kidscore_momiq, "kidiq", "kidiq-kidscore_momiq"),
    "kidscore_interaction": Posterior(kidscore_interaction, "kidiq", "kidiq-kidscore_interaction"),
    "logearn_interaction": Posterior(
        logearn_interaction, "earnings", "earnings-logearn_interaction"
    ),
    "logmesquite_logvas": Posterior(logmesquite_logvas, "mesquite", "mesquite-logmesquite_logvas"),
    "nes1980": Posterior(nes, "nes1980", "nes1980-nes"),
    "arK": Posterior(ark, "arK", "arK-arK"),
    "arma11": Posterior(arma11, "arma", "arma-arma11"),
    "garch11": Posterior(garch11, "garch", "garch-garch11"),
    "gp_pois_regr": Posterior(gp_pois_regr, "gp_pois_regr", "gp_pois_regr-gp_pois_regr"),
    "low_dim_gauss_mix": Posterior(
        low_dim_gauss_mix, "low_dim_gauss_mix", "low_dim_gauss_mix-low_dim_gauss_mix"
    ),
    "sblrc_blr": Posterior(blr, "sblrc", "sblrc-blr"),
}
