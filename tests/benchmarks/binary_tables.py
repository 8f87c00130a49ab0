"""DOCSTRING"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from math import ceil, cos, nan, pi
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from time import process_time
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

import pyro_dgm as dgm

Tables = dict[str, Tensor]
Line = dict[str, Any]

# Mean test log-likelihoods of Peharz et al. 2019, table 1; that of the VAE is a bound of 5 draws.
PUBLISHED = {
    "nltcs": {"VAE": -5.99, "MADE": -6.04},
    "plants": {"VAE": -12.34, "MADE": -12.32},
    "baudio": {"VAE": -38.67, "MADE": -38.95},
    "jester": {"VAE": -51.54, "MADE": -52.23},
    "bnetflix": {"VAE": -54.73, "MADE": -55.16},
}
SUMMABLE = 16  # columns of a table all of whose rows are summed over


@dataclass(frozen=True)
class Recipe:
    """What is the same for every table and every program."""

    latent: int = 16
    hidden: int = 256
    particles: int = 5
    pseudo_inputs: int = 100
    dropout: float = 0.3
    weight_decay: float = 0.05
    lr: float = 3e-3
    ema: float = 0.998
    steps: int = 2500
    draws: int = 200
    val_draws: int = 100
    sum_draws: int = 400
    compile: bool | str = "auto"

    def batch_size(self, num: int) -> int:
        """150 data, at most 500 steps an epoch, and at least ten steps an epoch of few data."""
        return min(num, max(16, min(150, num // 10), num // 500))

    def epochs(self, num: int) -> int:
        """So many steps, and at least ten epochs of many data."""
        return max(min(10, self.steps), ceil(self.steps / max(1, num // self.batch_size(num))))


class Dropout(nn.Module):
    r"""$x_d\, b_d / (1 - p)$, $b_d \sim \mathrm{Bern}(1 - p)$, of noise whose size alone depends on x."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.get_default_dtype())
        if not self.training or self.p == 0:
            return x
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p)


class Parts:
    """The parts of which the programs of one table are made.

    Args:
        recipe: their sizes.
        train: the data.
    """

    def __init__(self, recipe: Recipe, train: Tensor):
        self.recipe = recipe
        self.train = train
        self.dim = train.shape[1]

    def encoder(self) -> nn.Module:
        recipe = self.recipe
        return dgm.Conditional(dist.Normal, dgm.mlp(self.dim, recipe.hidden, 2 * recipe.latent))

    def net(self) -> nn.Module:
        return dgm.mlp(self.recipe.latent, self.recipe.hidden, self.dim)

    def flow(self) -> nn.Module:
        latent = self.recipe.latent
        return dgm.Flow(dgm.StandardNormal(latent), dgm.maf(latent, layers=2, hidden=(64,)))

    def columns(self, net: nn.Module | None = None, dropout: float = 0.0) -> nn.Module:
        made = dgm.flows.MADE(self.dim, hidden=(self.recipe.hidden,), num_params=1)
        return dgm.distributions.AutoregressiveBernoulli(made, net, scale=Dropout(dropout))


def vae(parts: Parts) -> dgm.training.Objective:
    """Standard normal prior, independent columns, normal guide."""
    prior = dgm.StandardNormal(parts.recipe.latent)
    pair = dgm.VAE(prior, dgm.Bernoulli(parts.net()), parts.encoder())
    return dgm.ELBO(pair.model, pair.guide)


def flow_prior(parts: Parts) -> dgm.training.Objective:
    """The VAE with a masked autoregressive flow as its prior."""
    pair = dgm.VAE(parts.flow(), dgm.Bernoulli(parts.net()), parts.encoder())
    return dgm.ELBO(pair.model, pair.guide)


def vamp_prior(parts: Parts) -> dgm.training.Objective:
    """The VAE with a VampPrior, whose pseudo-inputs start at data."""
    encoder = parts.encoder()
    prior = dgm.VampPrior(encoder, parts.train[: parts.recipe.pseudo_inputs])
    pair = dgm.VAE(prior, dgm.Bernoulli(parts.net()), encoder)
    return dgm.ELBO(pair.model, pair.guide)


def importance_weighted(pair: dgm.VAE, parts: Parts) -> dgm.training.Objective:
    """The importance-weighted bound, with the gradient that its encoder needs."""
    estimator = dgm.DoublyReparameterized()
    return dgm.IWELBO(pair.model, pair.guide, parts.recipe.particles, estimator=estimator)


def iwelbo(parts: Parts) -> dgm.training.Objective:
    """The VAE trained by the importance-weighted bound."""
    prior = dgm.StandardNormal(parts.recipe.latent)
    pair = dgm.VAE(prior, dgm.Bernoulli(parts.net()), parts.encoder())
    return importance_weighted(pair, parts)


def autoregressive(parts: Parts) -> dgm.training.Objective:
    """A masked network and no latents: exact."""
    return dgm.ELBO(dgm.DensityModel(parts.columns()), dgm.EmptyGuide())


def combined(parts: Parts) -> dgm.training.Objective:
    """Flow prior, autoregressive columns given z, which see a part of each other, the importance-weighted bound."""
    columns = parts.columns(parts.net(), parts.recipe.dropout)
    pair = dgm.VAE(parts.flow(), columns, parts.encoder())
    return importance_weighted(pair, parts)


PROGRAMS: dict[str, Callable[[Parts], dgm.training.Objective]] = {
    "combined": combined,
    "IWELBO": iwelbo,
    "VAE": vae,
    "autoregressive": autoregressive,
    "flow prior": flow_prior,
    "VampPrior": vamp_prior,
}


def read(path: Path) -> Tables:
    """Training, validation and test data of a table, zeros and ones `(N, D)`."""
    with np.load(path) as file:
        dim = int(file["num_vars"])
        found = {}
        for name in ("train", "valid", "test"):
            bits = np.unpackbits(file[name], axis=1)[:, :dim]
            found[name] = torch.from_numpy(bits.astype(np.float32))
    return found


def trained(program: str, recipe: Recipe, tables: Tables, seeds: int) -> dgm.training.Replicates:
    """All seeds, each at the weights of its best epoch by validation data."""
    train = tables["train"]
    epochs = recipe.epochs(len(train))

    def rate(epoch: int) -> float:
        return 0.02 + 0.49 * (1 + cos(pi * min(1.0, epoch / epochs)))

    def optimizer(parameters: Any) -> Optimizer:
        return AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)

    def build() -> dgm.SVITrainer:
        return dgm.SVITrainer(
            PROGRAMS[program](Parts(recipe, train)),
            optimizer=optimizer,
            compile=recipe.compile,
            schedule=lambda adam: LambdaLR(adam, rate),
            ema=recipe.ema,
        )

    runs = dgm.training.Replicates(build, range(seeds))
    runs.fit(
        train,
        tables["valid"],
        epochs,
        recipe.batch_size(len(train)),
        monitor="val_loss",
        patience=max(5, epochs // 4),
        progress=False,
    )
    return runs


def cell(job: tuple[Path, str, Recipe, int]) -> Line:
    """One program on one table: validation and test NLL of each seed, in nats per datum."""
    path, program, recipe, seeds = job
    torch.set_num_threads(1)
    start = process_time()
    tables = read(path)
    runs = trained(program, recipe, tables, seeds)
    fitted = process_time()
    line: Line = {"set": path.stem, "program": program, "recipe": asdict(recipe), "seeds": seeds}
    for name, num in (("valid", recipe.val_draws), ("test", recipe.draws)):
        found = []
        for model, guide in runs.pairs:
            found.append(dgm.nll(model, guide, tables[name], num=num).mean)
        line[name] = found
    line["epochs"] = [trainer.best["epoch"] for trainer in runs]
    line["at_once"] = runs.at_once
    if tables["train"].shape[1] <= SUMMABLE and program in ("VAE", "combined", "autoregressive"):
        line["sum"] = sum_of_masses(*runs.pairs[0], tables["train"].shape[1], recipe.sum_draws)
    line["cpu_seconds"] = {"fit": fitted - start, "score": process_time() - fitted}
    return line


def sum_of_masses(model: nn.Module, guide: nn.Module, dim: int, num: int) -> dict[str, float]:
    r"""$\sum_x \hat p(x)$ over all rows x of zeros and ones, with the standard error of the draws."""
    rows = torch.tensor(list(product([0.0, 1.0], repeat=dim)))
    score = dgm.nll(model, guide, rows, num=num)
    masses = (-score.per_datum).exp()
    variances = (score.num / score.ess - 1).clamp(min=0) / max(1, score.num - 1)  # 0 if exact
    stderr = (masses.square() * variances).sum().sqrt()
    return {"sum": masses.sum().item(), "stderr": stderr.item()}


def cells(jobs: list[Any], workers: int) -> Iterator[Line]:
    """The lines of all jobs, as they come."""
    if workers == 1:
        yield from map(cell, jobs)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(cell, jobs)


def lines_of(out: Path) -> list[Line]:
    """What a file holds so far."""
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text().splitlines()]


def table_of(lines: Iterable[Line]) -> str:
    """Mean test log-likelihoods ± their standard errors over seeds; the choice on validation data and what it beats."""
    by_set: dict[str, list[Line]] = {}
    for line in lines:
        by_set.setdefault(line["set"], []).append(line)
    rows, beaten = [], {"VAE": 0, "MADE": 0}
    for name, own in by_set.items():
        rows.extend(row_of(line) for line in own)
        chosen = min(own, key=lambda line: mean(line["valid"]))
        found = -mean(chosen["test"])
        verdicts = []
        for rival, published in PUBLISHED.get(name, {}).items():
            is_beaten = found > published
            beaten[rival] += is_beaten
            verdicts.append(f"{rival} {published} {'beaten' if is_beaten else 'not beaten'}")
        rows.append(f"{name:9s} -> {chosen['program']} {found:.3f}; {', '.join(verdicts)}")
    num = sum(name in PUBLISHED for name in by_set)
    rows.append(f"VAE beaten on {beaten['VAE']} of {num}, MADE on {beaten['MADE']} of {num}")
    return "\n".join(rows)


def row_of(line: Line) -> str:
    """A cell as a row."""
    test = line["test"]
    error = stdev(test) / len(test) ** 0.5 if len(test) > 1 else nan
    row = f"{line['set']:9s} {line['program']:15s} {-mean(test):9.3f} ± {error:.3f}"
    seconds = sum(line["cpu_seconds"].values())
    row = f"{row}  valid {-mean(line['valid']):9.3f}  {seconds:5.0f} s"
    if "sum" in line:
        row = f"{row}  sum {line['sum']['sum']:.4f} ± {line['sum']['stderr']:.4f}"
    return row


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("folder", type=Path, help="of NAME.npz with train, valid, test, num_vars")
    options.add_argument("--sets", nargs="+", help="names; all files of the folder by default")
    options.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=Recipe.steps, help="of each run")
    options.add_argument("--draws", type=int, default=Recipe.draws, help="importance draws")
    options.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    options.add_argument("--out", type=Path, default=Path("binary_tables.jsonl"))
    options.add_argument("--eager", action="store_true", help="without kernels, for a short try")
    options.add_argument("--table", action="store_true", help="print what --out holds, run nothing")
    return options


def main() -> None:
    """Run what is missing, print the table."""
    chosen = parser().parse_args()
    if not chosen.table:
        names = chosen.sets or sorted(path.stem for path in chosen.folder.glob("*.npz"))
        done = {(line["set"], line["program"]) for line in lines_of(chosen.out)}
        kernels = False if chosen.eager else "auto"
        recipe = Recipe(steps=chosen.steps, draws=chosen.draws, compile=kernels)
        jobs = []
        for program, name in product(chosen.programs, names):
            if (name, program) not in done:
                jobs.append((chosen.folder / f"{name}.npz", program, recipe, chosen.seeds))
        for line in cells(jobs, chosen.workers):
            with chosen.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(table_of(lines_of(chosen.out)))


if __name__ == "__main__":
    main()
