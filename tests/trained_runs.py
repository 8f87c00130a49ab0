"""Runs as a run directory gives them back, of programs that are trained here: three seeds, a few epochs."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
import yaml
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.datasets import Data, Digits
from pyro_dgm.experiments.runs.results import results_of
from pyro_dgm.experiments.verbs.comparing import RunComparison, _compared, _mean_over_seeds
from pyro_dgm.experiments.verbs.fitting import fit
from pyro_dgm.results import NLL
from pyro_dgm.training import SeedHistory


@dataclass(frozen=True)
class TrainedRun:
    """What `load_run` returns, as far as pages read it."""

    folder: Path
    data: Data
    seeds: list[int]
    pairs: list[tuple[nn.Module, nn.Module]]
    history: SeedHistory
    results: list[dict[str, Any]]
    scores: dict[int, NLL]


def few_digits(num: int = 200) -> Data:
    """Digits with classes that follow from their brightness."""
    digits = Digits()
    splits = [
        split[:num].to(torch.get_default_dtype())
        for split in (digits.train, digits.val, digits.test)
    ]
    labels = {"test": splits[2].mean(1).div(2).long()}
    said = ["levels 0 to 16, by the largest number of the training data"]
    return Data(*splits, digits.event_shape, digits.levels, labels=labels, said=said)


def vae_of(latent: int, hidden: int) -> dgm.VAE:
    """A plain VAE of the digits."""
    likelihood = dgm.DiscretizedLogistic(dgm.mlp(latent, hidden, 128), 17, 0.3)
    network = nn.Sequential(dgm.nn.Rescale(0, 16), dgm.mlp(64, hidden, 2 * latent))
    return dgm.VAE(dgm.StandardNormal(latent), likelihood, dgm.Conditional(dist.Normal, network))


def train_run(
    folder: Path,
    data: Data,
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: int = 12,
    latent: int = 4,
    hidden: int = 32,
) -> TrainedRun:
    """Train and evaluate every seed, and write what a run directory holds in part."""
    pairs, histories, results, scores = [], [], [], {}
    for seed in seeds:
        torch.manual_seed(seed)
        vae = vae_of(latent, hidden)
        trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=3e-3)
        history = trainer.fit(data.batches(50), data.val, epochs, seed=seed, progress=False)
        score = dgm.nll(vae.model, vae.guide, data.test, num=100)
        pairs.append((vae.model, vae.guide))
        scores[seed] = score
        histories.append(list(history))
        about = {
            "num_test": len(data.test),
            "num_draws": 100,
            "parameters": sum(p.numel() for p in vae.parameters()),
            "seconds": sum(history.column("seconds")),
        }
        results.append({"seed": seed, "command": "fit", **results_of(score, data.dim), **about})
    config = {"model": {"latent": latent, "hidden": hidden}, "epochs": epochs, "seeds": len(seeds)}
    write_files(folder, config)
    history = SeedHistory(seeds, histories)
    return TrainedRun(folder, data, list(seeds), pairs, history, results, scores)


def compared(runs: dict[str, TrainedRun]) -> RunComparison:
    """What `compare` makes of run directories, of these."""
    means = {name: _mean_over_seeds(run.scores.values()) for name, run in runs.items()}
    names = sorted(runs, key=lambda name: float(means[name].mean()))
    best = names[0]
    rows = []
    for name in names:
        rows.append(_compared(runs[name].scores, means[name], runs[best].scores, means[best]))
    return RunComparison(
        names,
        **{key: np.array([row[key] for row in rows]) for key in rows[0]},
        kinds=[str(next(iter(runs[name].scores.values())).kind) for name in names],
        scores={name: runs[name].scores for name in names},
        runs={name: runs[name] for name in names},
    )


def write_files(folder: Path, config: dict[str, Any]) -> None:
    """Some files of a run directory."""
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "weights" / "seed-0.safetensors").write_bytes(b"")
    about = {
        "torch": torch.__version__,
        "command": "pyro-dgm fit <mine>",
        "data": {"sha256": "0a" * 32},
    }
    (folder / "environment.json").write_text(json.dumps(about))


def without(run: TrainedRun, **changes: Any) -> TrainedRun:
    """The run with other parts."""
    return replace(run, **changes)


def fit_small(out: Path, latent: int, seeds: int) -> Any:
    """A run directory of the digits, by the verb itself."""
    with warnings.catch_warnings():
        # The parser looks each class up under its shortest path, pyro_dgm.Objective among them.
        warnings.filterwarnings("ignore", message=r"dgm\.\w+ has moved")
        return fit(
            model={"latent": latent},
            evaluation={"num": 30, "limit": 40},
            trainer={"compile": False},
            epochs=2,
            seeds=seeds,
            out=out,
            device="cpu",
            progress=False,
        )
