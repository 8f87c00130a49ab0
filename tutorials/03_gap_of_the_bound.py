# %% [markdown]
# # How tight is the bound? Dequantization against exact masses
#
# A flow in two dimensions as a model of an 8 × 8 grid of integers. Two dimensions are few enough to
# integrate: the mass $P(y) = \int_{[0,1)^2} p(y + u)\, du$ of every cell by quadrature, and so the gap of
# every bound, exactly:
#
# $$\mathrm{gap} = \sum_y P_{data}(y) \left(\log P(y) - E_q[\log p(y + u) - \log q(u \mid y)]\right) =
#   E\, KL(q(u \mid y) \,\|\, p(u \mid y)).$$
#
# Training maximizes the bound, so that the gap is not only an error of measurement: the density itself has to
# be flat in each cell where the noise is uniform, and that costs likelihood. The script shows both.
#
# ```console
# python tutorials/03_gap_of_the_bound.py --seeds=[0,1,2,3,4]     # ten minutes on one core
# ```
#
# Over five seeds, in nats per datum (the entropy of the data, which no model can beat, is 3.337):
#
# | noise | exact NLL | −ELBO | gap | IW-20000 − exact |
# |---|---|---|---|---|
# | uniform | 3.477 ± 0.023 | 3.535 ± 0.020 | 0.0575 ± 0.0028 | −0.0001 ± 0.0001 |
# | variational | 3.448 ± 0.033 | 3.475 ± 0.034 | 0.0269 ± 0.0056 | −0.0000 ± 0.0001 |
#
# The learned noise is tighter in every one of the five, by 0.031 on average. Twenty thousand importance draws
# find the exact mass with either guide: what the bound loses, a better estimate wins back; what training on a
# loose bound has made of the density, it does not.

# %%
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.distributions import AffineTransform, SigmoidTransform
from torch.optim.lr_scheduler import CosineAnnealingLR

import pyro_dgm as dgm

SMOKE = bool(os.environ.get("PYRO_DGM_SMOKE"))
FIGURES = Path(
    os.environ.get(
        "PYRO_DGM_FIGURES", "runs/smoke/gap_of_the_bound" if SMOKE else "runs/gap_of_the_bound"
    )
)
LEVELS = 8
CELLS = torch.cartesian_prod(torch.arange(LEVELS), torch.arange(LEVELS))

# %% [markdown]
# ## The data: two moons, rounded down to the grid


# %%
def moons(num: int, seed: int) -> Tensor:
    """Cells `(num, 2)` of two noisy half circles."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.pi * torch.rand(num, generator=generator)
    upper = torch.rand(num, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    points = torch.stack([x, y], dim=-1) + 0.1 * torch.randn(num, 2, generator=generator)
    levels = (LEVELS * (points - torch.tensor([-1.5, -1.0])) / torch.tensor([4.0, 2.5])).floor()
    return levels[((levels >= 0) & (levels < LEVELS)).all(-1)]


def frequencies(levels: Tensor) -> Tensor:
    """The share of every cell `(64,)`, float64."""
    index = (LEVELS * levels[:, 0] + levels[:, 1]).long()
    return index.bincount(minlength=LEVELS**2).double() / len(index)


# %% [markdown]
# ## One density, two guides over its noise


# %%
def density() -> dgm.Flow:
    layers = dgm.realnvp(2, layers=8, hidden=(64,))
    return dgm.Flow(dgm.StandardNormal(2), [*layers, dgm.Pointwise(AffineTransform(4.0, 2.0))])


def uniform() -> nn.Module:
    return dgm.UnitUniform()


def variational() -> nn.Module:
    """A flow from uniform noise back onto the unit cube, conditional on the cell."""
    cube = dgm.Pointwise(SigmoidTransform())
    layers = dgm.realnvp(2, layers=4, context=32, hidden=(32,))
    embed = nn.Sequential(dgm.nn.Rescale(0, LEVELS - 1), dgm.mlp(2, 32, 32))
    return dgm.Flow(dgm.UnitUniform(2), [dgm.Inverse(cube), *layers, cube], embed)


def log_masses(flow: dgm.Flow, num: int = 60) -> Tensor:
    r"""$\log P(y)$ of every cell by Gauss-Legendre quadrature with 60 × 60 nodes, float64."""
    nodes, weights = (torch.tensor(a / 2) for a in np.polynomial.legendre.leggauss(num))
    grid, weight = (
        torch.cartesian_prod(nodes + 0.5, nodes + 0.5),
        torch.outer(weights, weights).flatten(),
    )
    with torch.no_grad():
        return (flow().log_prob(CELLS[:, None] + grid.float()).double() + weight.log()).logsumexp(
            -1
        )


# %% [markdown]
# ## Fit and measure


# %%
def fitted(
    dequantizer: Callable, seed: int, steps: int, compile: bool
) -> tuple[dict[str, float], dgm.Program]:
    torch.manual_seed(seed)
    flow, guide = density(), dgm.NoiseGuide(dequantizer())
    model = dgm.dequantized(dgm.DensityModel(flow), levels=LEVELS)
    train, batch_size = moons(100_000, seed), 1000
    epochs = max(1, steps * batch_size // len(train))
    schedule = partial(CosineAnnealingLR, T_max=epochs)
    trainer = dgm.SVITrainer(dgm.ELBO(model, guide), lr=2e-3, compile=compile, schedule=schedule)
    trainer.fit(train, epochs=epochs, batch_size=batch_size, seed=seed, progress=False)
    # The distribution of the data is known to 2,000,000 draws: averages over the 64 cells have no further
    # error of sampling.
    share, log_mass = (
        frequencies(moons(200_000 if SMOKE else 2_000_000, seed=10**6)),
        log_masses(flow),
    )
    bound = dgm.nll(model, guide, CELLS, num=200 if SMOKE else 20_000, seed=seed)
    exact, elbo, weighted = (
        float((share * v).sum()) for v in (-log_mass, bound.nelbo, bound.per_datum)
    )
    return {"nll": exact, "nelbo": elbo, "gap": elbo - exact, "iw": weighted - exact}, guide


def table(found: dict[str, list[dict[str, float]]]) -> str:
    def over(rows: list[dict[str, float]], key: str) -> str:
        values = [r[key] for r in rows]
        error = f" ± {stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
        return f"{mean(values):.4f}{error}"

    head = "| noise | exact NLL | −ELBO | gap | IW-20000 − exact | seeds |\n" + "|---" * 6 + "|"
    keys = ("nll", "nelbo", "gap", "iw")
    lines = [
        f"| {n} | {' | '.join(over(r, k) for k in keys)} | {len(r)} |" for n, r in found.items()
    ]
    return "\n".join([head, *lines])


def picture(guides: dict[str, dgm.Program], path: Path) -> None:
    """Draws of x + u: the noise that each guide adds to the cells."""
    figure = Figure(figsize=(4.2 * len(guides), 4), layout="constrained")
    shown = moons(6000, seed=5)
    for axes, (name, guide) in zip(figure.subplots(1, len(guides)), guides.items(), strict=True):
        noise = dgm.encode(guide, shown)["x_noise"][0]
        v = dgm.distributions.within_cell(shown, noise)
        axes.plot(*v.T, ".", markersize=1.2, alpha=0.6)
        axes.set_xticks(range(LEVELS + 1))
        axes.set_yticks(range(LEVELS + 1))
        axes.grid(alpha=0.5)
        axes.set_aspect("equal")
        axes.set_title(f"{name} noise")
    figure.savefig(path, dpi=130)


def main(
    seeds: tuple[int, ...] = (0,), steps: int = 3000, compile: bool = True, out: str = str(FIGURES)
) -> None:
    """Print the gap of both bounds, in nats per datum.

    Args:
        seeds: of weights, data, noise and order; two fits each.
        steps: of optimization, 1,000 data each.
        compile: as in `SVITrainer`.
        out: folder of the picture and the table.
    """
    found: dict[str, list[dict[str, float]]] = {}
    guides: dict[str, dgm.Program] = {}
    for seed in seeds:
        for dequantizer in (uniform, variational):
            row, guides[dequantizer.__name__] = fitted(dequantizer, seed, steps, compile)
            found.setdefault(dequantizer.__name__, []).append(row)
            print(f"{dequantizer.__name__}, seed {seed}: {row}", flush=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    picture(guides, Path(out) / "noise.png")
    (Path(out) / "table.md").write_text(table(found) + "\n")
    print(table(found))


if __name__ == "__main__":
    if SMOKE:
        main(steps=10, compile=False)
    else:
        auto_cli(main, as_positional=False)
