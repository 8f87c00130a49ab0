"""What each check sees: rate of alarms over repeats, for planted faults and for exact guides.

    python tests/benchmarks/power.py --repeats 100 --null 400 --level 0.03 --out power.json

A repeat is 1,000 simulations with 99 draws each; an alarm is a p-value below the level after Holm's correction. At a
level of 0.03, a test that keeps it shows at most 0.05 in 400 repeats, up to two standard errors. Two posteriors in two
dims, whose exact guides are known: a normal one with a correlation of one half, and one with two
modes, of which the second holds a tenth. Many repeats are one long simulation, cut into pieces; `tarp` has other
reference points in every tenth of the repeats. `vsbc` reads the ranks of the dims, as refits of a normal guide would
give them. k-hat is that of single data, 1,000 draws each, and its alarms are counted over data.

Measured (400 repeats of the exact guides, 100 of the mean, 50 of the others):

                                      sbc                 tarp                vsbc                k-hat
    exact, correlation 0.5            3.8 % [2.3, 6.1]    2.5 % [1.4, 4.5]    2.8 % [1.5, 4.9]    0 %
    exact, two modes                  2.0 % [1.0, 3.9]    2.5 % [1.4, 4.5]    1.2 % [0.5, 2.9]    0 %
    mean + 0.1 sd                      91 % [84, 95]       59 %                71 %               0 %
    scale x 0.8                       100 %               100 %               100 %               2.5 %
    correlation 0.5 lost              100 %               100 %                 0 %               0.2 %
    a mode of a tenth lost            100 %               100 %               100 %               100 %

The best test of the shifted mean at this level would catch 96 %; marginal ranks can't see a lost correlation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_dgm as dgm

NUM = 1000  # simulations of a repeat
DRAWS = 99
PARTS = 10  # simulations that the repeats are cut from
OFFSET = 3.0  # of the modes, in standard deviations


class Posterior(dgm.Program):
    r"""$z \sim \sum_k \pi_k N(m_k, I)$, $x \mid z \sim N(H z, I)$: one component, or two that x hardly tells apart."""

    def __init__(self, *, modes: int = 1):
        super().__init__()
        if modes == 1:
            covariance = 0.5 * torch.tensor([[1.0, 0.5], [0.5, 1.0]])
            view = torch.linalg.cholesky(covariance.inverse() - torch.eye(2)).T
            weights, means = torch.ones(1), torch.zeros(1, 2)
        else:
            view = torch.tensor([[0.1, 0.0], [0.0, 1.0]])
            weights, means = torch.tensor([0.9, 0.1]), torch.tensor([[-OFFSET, 0], [OFFSET, 0]])
        self.register_buffer("view", view.double())
        self.register_buffer("weights", weights.double())
        self.register_buffer("means", means.double())

    def forward(self, x: Tensor | None = None) -> Tensor:
        """z from the mixture, x around H z."""
        components = dist.Normal(self.means, 1.0).to_event(1)
        prior = dist.MixtureSameFamily(dist.Categorical(self.weights), components)
        with dgm.data_plate(x):
            z = pyro.sample("z", prior)
            return pyro.sample("x", dist.Normal(z @ self.view.T, 1.0).to_event(1), obs=x)


class Guide(dgm.Program):
    r"""The exact posterior $\sum_k w_k(x) N(S (m_k + H^\top x), S)$, $S^{-1} = I + H^\top H$, or a fault planted in it.

    Args:
        model: whose posterior it is.
        shift: of the mean, in standard deviations, in every dim.
        scale: factor of the standard deviations.
        uncorrelated: whether only the marginals are those of the posterior.
    """

    def __init__(
        self,
        model: Posterior,
        shift: float = 0.0,
        scale: float = 1.0,
        *,
        uncorrelated: bool = False,
    ):
        super().__init__()
        eye = torch.eye(2, dtype=torch.float64)
        covariance = (eye + model.view.T @ model.view).inverse()
        self.model, self.covariance = [model], covariance
        self.shift = shift * covariance.diagonal().sqrt()
        kept = covariance.diagonal().diag() if uncorrelated else covariance
        self.root = scale * torch.linalg.cholesky(kept)

    def forward(self, x: Tensor) -> None:
        """One draw for each datum."""
        model = self.model[0]
        means = (model.means + (x @ model.view)[..., None, :]) @ self.covariance + self.shift
        evidence = torch.eye(2, dtype=torch.float64) + model.view @ model.view.T
        of_x = dist.MultivariateNormal(model.means @ model.view.T, evidence)
        logits = model.weights.log() + of_x.log_prob(x[..., None, :])
        components = dist.MultivariateNormal(means, scale_tril=self.root)
        with dgm.data_plate(x):
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=logits), components))


def cases() -> dict[str, tuple[Posterior, Guide]]:
    """Name → the pair; those called exact are the null."""
    normal, two = Posterior(), Posterior(modes=2)
    return {
        "exact": (normal, Guide(normal)),
        "exact, two modes": (two, Guide(two)),
        "mean + 0.1 sd": (normal, Guide(normal, shift=0.1)),
        "scale × 0.8": (normal, Guide(normal, scale=0.8)),
        "correlation 0.5 lost": (normal, Guide(normal, uncorrelated=True)),
        "mode of 10 % lost": (two, LostMode(two)),
    }


class LostMode(Guide):
    """The first mode alone."""

    def __init__(self, model: Posterior):
        super().__init__(model)

    def forward(self, x: Tensor) -> None:
        """One draw for each datum."""
        model = self.model[0]
        loc = (model.means[0] + x @ model.view) @ self.covariance
        with dgm.data_plate(x):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.root))


def pieces(found: dgm.results.SBC | dgm.results.TARP) -> Iterator:
    """A long result in repeats of 1,000 simulations."""
    for first in range(0, len(found.ranks), NUM):
        rows = slice(first, first + NUM)
        options = [found.names, found.ranks[rows], found.uniform[rows], found.num_draws]
        if isinstance(found, dgm.results.SBC) and found.of_weight is not None:
            options.append(found.of_weight[rows])
        yield type(found)(*options)


def dims_of(found: dgm.results.SBC) -> dgm.results.VSBC:
    """The ranks of the dims alone, as refits have them."""
    return dgm.results.VSBC(
        found.names[:2], found.ranks[:, :2], found.uniform[:, :2], found.num_draws
    )


def alarms(model: Posterior, guide: Guide, repeats: int, level: float) -> dict[str, list[bool]]:
    """Check → whether each repeat is an alarm."""
    found: dict[str, list[bool]] = {"sbc": [], "tarp": [], "vsbc": []}
    sizes = torch.arange(repeats).chunk(min(PARTS, repeats))
    for seed, part in enumerate(sizes):
        options = {"num_data": NUM * len(part), "num_draws": DRAWS, "seed": seed, "chunk": 400_000}
        for piece in pieces(dgm.sbc(model, guide, **options)):
            found["sbc"].append(not piece.passed(level))
            found["vsbc"].append(not dims_of(piece).passed(level))
        for piece in pieces(dgm.tarp(model, guide, **options)):
            found["tarp"].append(not piece.passed(level))
    return found


def alarms_of_khat(model: Posterior, guide: Guide, num_data: int) -> list[bool]:
    """Whether k-hat of each datum is above its threshold at 1,000 draws."""
    x = dgm.generate(model, num_data, seed=5)
    khat = dgm.nll(model, guide, x, num=1000).khat
    return (khat > dgm.diagnostics.khat_threshold(1000)).tolist()


def wilson(count: int, num: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share = count / num
    middle = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z * (share * (1 - share) / num + z**2 / (4 * num**2)) ** 0.5 / (1 + z**2 / num)
    return middle - half, middle + half


def table(
    repeats: int, null: int, level: float, report: Callable[[str], None] = print
) -> dict[str, dict[str, dict[str, float]]]:
    """Case → check → rate of alarms with its interval, printed as it comes."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    report(f"{'':<22}{'repeats':>8}" + "".join(f"{name:>24}" for name in COLUMNS))
    for case, (model, guide) in cases().items():
        num = null if case.startswith("exact") else repeats
        found = alarms(model, guide, num, level)
        found["k-hat"] = alarms_of_khat(model, guide, 400)
        rows[case] = {}
        line = f"{case:<22}{num:>8}"
        for name in COLUMNS:
            count, total = sum(found[name]), len(found[name])
            low, high = wilson(count, total)
            rows[case][name] = {"rate": count / total, "low": low, "high": high}
            cell = f"{count / total:.1%} [{low:.1%}, {high:.1%}]"
            line += f"{cell:>24}"
        report(line)
    return rows


COLUMNS = ("sbc", "tarp", "vsbc", "k-hat")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--null", type=int, default=400)
    parser.add_argument("--level", type=float, default=0.03)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = table(options.repeats, options.null, options.level)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
