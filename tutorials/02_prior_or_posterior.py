# %% [markdown]
# # What ails a VAE: its prior, its posterior, or both?
#
# A plain VAE has a standard normal prior and a diagonal normal posterior. Either can be the bottleneck. This
# script changes **one thing at a time** and measures: every row of its table is the same decoder, the same
# encoder network, the same training, and one other argument.
#
# Run it whole with `PYRO_DGM_SMOKE=1` in seconds (digits, toy sizes; the numbers then mean nothing). The real
# runs:
#
# ```console
# python tutorials/02_prior_or_posterior.py --data=Digits --latent=16 --hidden=256 --epochs=200 \
#     --seeds=[0,1,2]
# python tutorials/02_prior_or_posterior.py --data=Idx --data.folder=data/mnist --epochs=50 --out=runs/mnist
# python tutorials/02_prior_or_posterior.py --data=FreyFaces --data.path=data/frey_faces.npz --out=runs/frey \
#     --rows=[standard,vamp,coupling_prior] --lr=5e-4 --cosine=false --warmup=100 --epochs=2000 \
#     --patience=50 --num=5000
# ```
#
# Each (row, seed) is a folder with checkpoints: a run that was stopped goes on where it was.
#
# ## What it found
# Dynamically binarized MNIST, 40 epochs; NLL with 1,000 draws on 1,000 test images (± 0.77 within a run), the gain
# paired over the images. Of three seeds: means, NLL ± over the seeds, gain ± over seeds and images together; of one
# seed: over 87.70, the first of standard, ± over the images. Seconds per epoch on one core
# (CPU time of the mixture and of the VampPrior).
#
# | row | NLL | gain | −ELBO | KL | active | s/epoch | seeds |
# |---|---|---|---|---|---|---|---|
# | standard | 87.69 ± 0.08 | | 92.53 | 26.4 | 21 | 5 | 3 |
# | mixture, 500 components | 85.87 ± 0.10 | 1.83 ± 0.16 | 90.40 | 24.7 | 21 | 8 | 3 |
# | VampPrior, 500 pseudo-inputs | 84.55 ± 0.07 | 3.15 ± 0.12 | 88.81 | 23.8 | 22 | 21 | 3 |
# | coupling prior | 84.51 ± 0.02 | 3.18 ± 0.11 | 88.76 | 24.0 | 40 | 6 | 3 |
# | MAF prior | **84.39 ± 0.08** | **3.30 ± 0.10** | **88.58** | 23.8 | 40 | 6 | 3 |
# | full covariance | 87.96 | −0.25 ± 0.13 | 92.03 | 22.0 | 40 | 6 | 1 |
# | coupling posterior | 88.08 | −0.37 ± 0.14 | 92.23 | 22.2 | 38 | 8 | 1 |
# | IAF posterior | 87.85 ± 0.13 | −0.16 ± 0.15 | 91.97 | 22.4 | 40 | 8 | 3 |
# | spline posterior | 88.23 | −0.53 ± 0.14 | 92.45 | 22.5 | 39 | 10 | 1 |
# | coupling prior and posterior | 85.64 | 2.07 ± 0.13 | 89.65 | 21.7 | 32 | 11 | 1 |
# | two levels | 88.47 | −0.76 ± 0.21 | 92.71 | 20.0 | 28 | 10 | 1 |
#
# A better prior is worth three nats; a better posterior is worth half a nat of the bound and none of the
# likelihood. With more training its share grows: after 150 epochs the standard VAE is at 85.03 (−ELBO 89.69),
# the IAF posterior at 84.95 (89.09): 0.60 nats of the bound, 0.08 ± 0.12 of the likelihood. Why not more?
# Refine the standard encoder's answer to each of 200 test images by gradient ascent (`SemiAmortizedGuide`):
# the bound rises by **2.06 ± 0.14** nats, all of it the *amortization* gap, which no family mends. Between
# the best diagonal normal and the likelihood is left **1.66 ± 0.04** (or a little more: the likelihood is an
# importance estimate); a richer family can win only there.
#
# The digits have 1,347 training images, and there every richer posterior overfits. Three seeds, 200 epochs,
# test NLL: standard 88.72 ± 0.19; gains over the seeds: mixture 1.18 ± 0.59, coupling prior 0.41 ± 0.54, MAF
# prior 0.25 ± 0.29, VampPrior 0.06 ± 0.17; full covariance −1.19 ± 0.18, coupling posterior −0.82 ± 0.13, IAF
# −0.95 ± 0.09, spline −1.04 ± 0.24, both −0.44 ± 0.20, two levels −1.83 ± 0.28.

# %%
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

import pyro
import pyro.distributions as dist
import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure
from torch import Tensor, nn

import pyro_dgm as dgm
from pyro_dgm.datasets import Data, Digits

SMOKE = bool(os.environ.get("PYRO_DGM_SMOKE"))
FIGURES = Path(
    os.environ.get(
        "PYRO_DGM_FIGURES", "runs/smoke/prior_or_posterior" if SMOKE else "runs/prior_or_posterior"
    )
)
FLOOR = (
    0.05  # the smallest scale of a posterior, as in the VampPrior paper (log-variance at least -6)
)

# %% [markdown]
# ## What stays the same
# Two gated dense layers each way. Binary images get a Bernoulli likelihood, grey ones a discretized logistic.


# %%
class Parts:
    """The networks of one data set: `features(out)` reads an image, `likelihood(*sizes)` reads codes."""

    def __init__(self, data: Data, latent: int, hidden: int):
        self.dim, self.levels, self.latent, self.hidden = (
            data.train.shape[1],
            data.levels,
            latent,
            hidden,
        )
        self.inputs = data.train[:500] / 255 if data.dynamic else data.train[:500]

    def features(self, out: int) -> nn.Module:
        net = dgm.gated_mlp(self.dim, self.hidden, self.hidden, out)
        return net if self.levels == 2 else nn.Sequential(dgm.nn.Rescale(0, self.levels - 1), net)

    def likelihood(self, code: int) -> nn.Module:
        if self.levels == 2:
            return dgm.Bernoulli(dgm.gated_mlp(code, self.hidden, self.hidden, self.dim))
        net = nn.Sequential(
            dgm.gated_mlp(code, self.hidden, self.hidden, 2 * self.dim),
            dgm.nn.LevelUnits(self.levels),
        )
        return dgm.DiscretizedLogistic(net, self.levels, min_scale=0.011 * self.levels)


# %% [markdown]
# ## What changes: four priors …
# Each is a function of the parts and of the encoder, which the VampPrior refers to.


# %%
def standard(parts: Parts, encoder: nn.Module) -> nn.Module:
    return dgm.StandardNormal(parts.latent)


def mixture(parts: Parts, encoder: nn.Module) -> nn.Module:
    return dgm.MixturePrior(parts.latent, num_components=500)


def vamp(parts: Parts, encoder: nn.Module) -> nn.Module:
    return dgm.VampPrior(encoder, parts.inputs)


def coupling_prior(parts: Parts, encoder: nn.Module) -> nn.Module:
    return dgm.Flow(dgm.StandardNormal(parts.latent), dgm.realnvp(parts.latent, layers=8))


def maf_prior(parts: Parts, encoder: nn.Module) -> nn.Module:
    return dgm.Flow(dgm.StandardNormal(parts.latent), dgm.maf(parts.latent, layers=4))


# %% [markdown]
# … and five posteriors. The base of a flow is the diagonal posterior, from the same network: its last hidden
# layer goes, by a linear map, to the base and to every layer of the flow. (A narrower way in would change two
# things at a time: 128 features with a nonlinearity behind them cost the *plain* VAE 1.2 nats on MNIST, and
# hid what a flow gains.)


# %%
def diagonal(parts: Parts) -> nn.Module:
    return dgm.Conditional(dist.Normal, parts.features(2 * parts.latent), floor=FLOOR)


def full_covariance(parts: Parts) -> nn.Module:
    d = parts.latent
    return dgm.MultivariateNormal(parts.features(2 * d + d * (d - 1) // 2), d)


def flow_posterior(parts: Parts, flow: Callable, layers: int) -> nn.Module:
    base = dgm.Conditional(dist.Normal, nn.Linear(parts.hidden, 2 * parts.latent), floor=FLOOR)
    return dgm.Flow(
        base, flow(parts.latent, layers, context=parts.hidden), parts.features(parts.hidden)
    )


coupling_posterior = partial(flow_posterior, flow=dgm.realnvp, layers=8)
iaf_posterior = partial(flow_posterior, flow=dgm.iaf, layers=4)
spline_posterior = partial(flow_posterior, flow=dgm.spline_coupling, layers=4)

# %% [markdown]
# ## Two levels of latents
# A hierarchical VAE is a program with two `pyro.sample` statements more. Nothing of the library needs to
# know:
#
# $$p(z_2)\, p(z_1 \mid z_2)\, p(x \mid z_1, z_2), \qquad q(z_1 \mid x)\, q(z_2 \mid z_1, x).$$


# %%
class TwoLevels(dgm.Program):
    def __init__(self, parts: Parts):
        super().__init__()
        half, hidden = parts.latent // 2, parts.hidden
        self.top = dgm.StandardNormal(half)
        self.middle = dgm.Conditional(dist.Normal, dgm.gated_mlp(half, hidden, hidden, 2 * half))
        self.likelihood = parts.likelihood(2 * half)

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x):
            z2 = pyro.sample("z2", self.top())
            z1 = pyro.sample("z1", self.middle(z2))
            return pyro.sample("x", self.likelihood(torch.cat([z1, z2], dim=-1)), obs=x)


class TwoLevelsGuide(dgm.Program):
    def __init__(self, parts: Parts):
        super().__init__()
        half, hidden = parts.latent // 2, parts.hidden
        self.features = parts.features(hidden)
        self.middle = dgm.Conditional(
            dist.Normal, dgm.gated_mlp(hidden, hidden, 2 * half), floor=FLOOR
        )
        top = dgm.Concat(dgm.gated_mlp(hidden + half, hidden, 2 * half))
        self.top = dgm.Conditional(dist.Normal, top, floor=FLOOR)

    def forward(self, x: Tensor | None = None) -> None:
        with dgm.data_plate(x):
            features = self.features(x)
            z1 = pyro.sample("z1", self.middle(features))
            pyro.sample("z2", self.top(features, z1))


# %% [markdown]
# ## The rows


# %%
class Pair(nn.Module):
    """A model and its guide under one roof."""

    def __init__(self, model: nn.Module, guide: nn.Module):
        super().__init__()
        self.model, self.guide = model, guide


def one_level(
    parts: Parts, prior: Callable = standard, posterior: Callable = diagonal
) -> nn.Module:
    encoder = posterior(parts)
    return dgm.VAE(prior(parts, encoder), parts.likelihood(parts.latent), encoder)


def two_levels(parts: Parts) -> nn.Module:
    return Pair(TwoLevels(parts), TwoLevelsGuide(parts))


ROWS = {
    "standard": one_level,
    "mixture": partial(one_level, prior=mixture),
    "vamp": partial(one_level, prior=vamp),
    "coupling_prior": partial(one_level, prior=coupling_prior),
    "maf_prior": partial(one_level, prior=maf_prior),
    "full_covariance": partial(one_level, posterior=full_covariance),
    "coupling_posterior": partial(one_level, posterior=coupling_posterior),
    "iaf_posterior": partial(one_level, posterior=iaf_posterior),
    "spline_posterior": partial(one_level, posterior=spline_posterior),
    "both": partial(one_level, prior=coupling_prior, posterior=coupling_posterior),
    "two_levels": two_levels,
}

# %% [markdown]
# ## One cell of the table
# Adam with a warm-up of the KL; the weights of the best validation epoch; then the numbers, on test data
# alone. The gradient is clipped: while the KL costs nothing, two flows can throw a draw far out, and one
# gradient of 10⁶ in Adam's second moment slows the next ten thousand steps.


# %%
def fitted(pair: nn.Module, data: Data, folder: Path, s: dict) -> float:
    """Train; returns the seconds per epoch."""
    steps = s["warmup"] * -(-len(data.train) // s["batch_size"])
    sites = dgm.preflight(pair.model, pair.guide, data.val[:2]).latent
    beta = {site: dgm.LinearWarmup(steps) for site in sites} if steps else None
    schedule = (
        partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=s["epochs"])
        if s["cosine"]
        else None
    )
    objective = dgm.ELBO(pair.model, pair.guide, beta=beta)
    trainer = dgm.SVITrainer(
        objective, lr=s["lr"], compile=s["compile"], schedule=schedule, clip=s["clip"]
    )
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        trainer.resume(checkpoint)
    train = data.batches(s["batch_size"])
    # An early stop does not count the epochs of the warm-up, as in the paper.
    for last, patience in ((s["warmup"], None), (s["epochs"], s["patience"])):
        epochs = min(last, s["epochs"]) - trainer.num_epochs
        if epochs > 0:
            trainer.fit(
                train,
                data.val,
                epochs,
                patience=patience,
                seed=s["seed"],
                checkpoint=checkpoint,
                progress=False,
            )
    return sorted(trainer.history.column("seconds"))[len(trainer.history) // 2]


def measured(pair: nn.Module, data: Data, s: dict) -> dict:
    test = data.test[: s["limit"]]
    bound = dgm.nll(pair.model, pair.guide, data.test, num=10, seed=s["seed"])
    score = dgm.nll(pair.model, pair.guide, test, num=s["num"], seed=s["seed"])
    variances = dgm.active_units(pair.guide, test, num=20, seed=s["seed"])
    return {
        "nelbo": bound.nelbo.mean().item(),
        "kl": bound.kl.mean().item(),
        "nll": score.mean,
        "nll_stderr": score.stderr,
        "bits_per_dim": dgm.bits_per_dim(score.mean, data.train.shape[1]),
        "khat_above": score.share_unreliable,
        "active": sum(int((v > 0.01).sum()) for v in variances.values()),
        "parameters": sum(p.numel() for p in pair.parameters()),
        "per_datum": score.per_datum.tolist(),
    }


def cell(row: str, data: Data, folder: Path, s: dict) -> dict:
    results = folder / "results.json"
    if not results.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(s["seed"])
        pair, start = ROWS[row](Parts(data, s["latent"], s["hidden"])), perf_counter()
        seconds = fitted(pair, data, folder, s)
        found = {
            "seconds_per_epoch": seconds,
            **measured(pair, data, s),
            "seconds": perf_counter() - start,
        }
        dgm.save_weights(pair, folder / "weights.safetensors")
        results.write_text(json.dumps({"row": row, "settings": s, **found}))
    return json.loads(results.read_text())


# %% [markdown]
# ## The table
# NLL ± its standard error over seeds, and the gain over the standard row: paired over test data, so that its
# standard error says what changing that one thing is worth.


# %%
def table(cells: dict[str, list[dict]]) -> str:
    head = (
        "| row | NLL | gain | −ELBO | KL | bits/dim | active | k-hat above | s/epoch | seeds |\n"
        + "|---" * 10
        + "|"
    )
    return "\n".join(
        [head, *(line(row, found, cells.get("standard")) for row, found in cells.items())]
    )


def line(row: str, found: list[dict], plain: list[dict] | None) -> str:
    def over(key: str) -> list[float]:
        return [cell[key] for cell in found]

    error = stdev(over("nll")) / len(found) ** 0.5 if len(found) > 1 else found[0]["nll_stderr"]
    gain = "" if plain is None else gained(found, plain)
    nll = f"{mean(over('nll')):.2f} ± {error:.2f}"
    return (
        f"| {row} | {nll} | {gain} | {mean(over('nelbo')):.2f} | {mean(over('kl')):.2f} "
        f"| {mean(over('bits_per_dim')):.3f} | {mean(over('active')):.0f} | {mean(over('khat_above')):.0%} "
        f"| {mean(over('seconds_per_epoch')):.1f} | {len(found)} |"
    )


def gained(found: list[dict], plain: list[dict]) -> str:
    """NLL of the standard row minus this one's, paired; ± over the test data and, with two or more, over the seeds."""
    pairs = list(zip(plain, found, strict=False))
    per_seed = torch.tensor([one["nll"] - other["nll"] for one, other in pairs])
    one, other = (torch.tensor([pair[side]["per_datum"] for pair in pairs]) for side in (0, 1))
    per_datum = (one - other).mean(0)
    variance = per_datum.var() / len(per_datum)
    if len(pairs) > 1:
        variance = variance + per_seed.var() / len(pairs)
    return f"{per_datum.mean():.2f} ± {variance.sqrt():.2f}"


def picture(cells: dict[str, list[dict]], path: Path) -> None:
    figure = Figure(figsize=(7, 0.4 * len(cells) + 1.2), layout="constrained")
    axes = figure.subplots()
    names = list(cells)
    for name, marker, label in (("nll", "o", "NLL"), ("nelbo", "|", "−ELBO")):
        axes.plot(
            [mean(c[name] for c in cells[row]) for row in names],
            range(len(names)),
            marker,
            label=label,
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("nats per test datum")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main(
    data: Data,
    rows: tuple[str, ...] = tuple(ROWS),
    seeds: tuple[int, ...] = (0,),
    latent: int = 40,
    hidden: int = 300,
    epochs: int = 50,
    batch_size: int = 100,
    lr: float = 1e-3,
    cosine: bool = True,
    warmup: int = 10,
    clip: float = 100.0,
    patience: int | None = None,
    num: int = 1000,
    limit: int = 1000,
    compile: bool = True,
    out: str = str(FIGURES),
) -> None:
    """Fit and measure every row, and print the table.

    Args:
        data: `Digits`, `Idx`, `OpenML` or `FreyFaces` of `pyro_dgm.datasets`.
        rows: which rows.
        seeds: of weights, noise and order; one fit each.
        latent: latent dims.
        hidden: hidden units.
        epochs: at most so many.
        batch_size: data per step.
        lr: learning rate (Adam).
        cosine: whether the learning rate falls to 0 over the epochs.
        warmup: epochs over which the weight of the KL grows from 0 to 1.
        clip: largest norm of a gradient.
        patience: stop after so many epochs without a better validation −ELBO.
        num: importance draws.
        limit: NLL on so many test data (−ELBO on all).
        compile: as in `SVITrainer`.
        out: folder of the results.
    """
    settings = {n: v for n, v in locals().items() if n not in ("data", "rows", "seeds", "out")}
    cells: dict[str, list[dict]] = {}
    for seed in seeds:
        for row in rows:
            found = cell(row, data, Path(out) / f"{row}-{seed}", {**settings, "seed": seed})
            cells.setdefault(row, []).append(found)
            print(
                f"{row}, seed {seed}: NLL {found['nll']:.2f}, −ELBO {found['nelbo']:.2f}",
                flush=True,
            )
    text = table(cells)
    (Path(out) / "table.md").write_text(text + "\n")
    picture(cells, Path(out) / "table.png")
    print(text)


if __name__ == "__main__":
    if SMOKE:
        main(Digits(), latent=4, hidden=16, epochs=2, warmup=1, num=20, limit=50, compile=False)
    else:
        auto_cli(main, as_positional=False)
