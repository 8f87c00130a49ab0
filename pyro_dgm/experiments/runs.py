"""One run: train, evaluate, write the run directory; and reading one back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import log, prod
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from ..arviz_export.export import to_arviz
from ..evaluation.likelihood.importance import nll
from ..evaluation.likelihood.psis import khat_threshold
from ..evaluation.likelihood.results import bits_per_dim
from ..inference.objectives.elbo import Objective
from ..inference.run.generation import generate, reconstruct
from ..inference.training.checkpoints import load_weights, save_weights
from ..inference.training.history import Row
from ..inference.training.svi import SVITrainer
from ..programs.vae import VAE
from .data import Data
from .figures import image_grid, learning_curve


@dataclass(frozen=True)
class Run:
    """A directory with `config.yaml`, `metrics.jsonl`, `weights.safetensors`, `results.json` and pictures.

    Attributes:
        folder: the directory.
        vae: the model and its guide.
        data: the data.
    """

    folder: Path
    vae: VAE
    data: Data

    def load(self) -> None:
        """Read the weights of the directory into the VAE."""
        load_weights(self.vae, self.folder / "weights.safetensors")

    def train(
        self,
        objective: Callable[[torch.nn.Module, torch.nn.Module], Objective],
        trainer: Callable[[Objective], SVITrainer],
        epochs: int,
        batch_size: int,
        patience: int | None,
        seed: int,
        *,
        resume: bool,
    ) -> float:
        """Train up to `epochs` epochs in all; returns the seconds it took."""
        start = perf_counter()
        device = next(self.vae.parameters()).device
        fitted = trainer(objective(self.vae.model, self.vae.guide).to(device))
        if resume:
            fitted.resume(self.folder / "checkpoint.pt")
        if epochs < fitted.num_epochs:
            raise ValueError(
                f"expected more epochs than the {fitted.num_epochs} of the run, got {epochs}. Fix: --epochs."
            )
        if epochs == fitted.num_epochs:  # it was stopped between training and evaluation
            self.load()
            return 0.0
        with (self.folder / "metrics.jsonl").open("a" if resume else "w") as file:
            fitted.fit(
                self.data.batches(batch_size),
                self.data.val,
                epochs - fitted.num_epochs,
                patience=patience,
                seed=seed,
                checkpoint=self.folder / "checkpoint.pt",
                on_epoch=lambda row: print(json.dumps(row), file=file, flush=True),
            )
        save_weights(self.vae, self.folder / "weights.safetensors")
        learning_curve(fitted.history, self.folder / "learning_curve.png")
        return perf_counter() - start

    def evaluate(self, num: int, limit: int | None, seed: int) -> Row:
        """Score the test data, in nats per datum and bits per dim."""
        test = self._test(limit)
        start = perf_counter()
        score = nll(self.vae.model, self.vae.guide, test, num=num, seed=seed)
        dim = prod(self.data.image_shape)
        return {
            "nelbo": score.nelbo.mean().item(),
            "nelbo_stderr": _standard_error(score.nelbo),
            "nll": score.mean,
            "nll_stderr": score.stderr,
            "bits_per_dim": bits_per_dim(score.mean, dim),
            "bits_per_dim_stderr": score.stderr / dim / log(2),
            "ess": score.ess.mean().item(),
            "khat_threshold": khat_threshold(score.num),
            "share_khat_above": score.share_unreliable,
            "kl": score.kl.mean().item(),
            "kl_stderr": _standard_error(score.kl),
            "num_test": len(test),
            "num_draws": num,
            "parameters": sum(p.numel() for p in self.vae.parameters()),
            "evaluation_seconds": perf_counter() - start,
        }

    def draw(self, num: int, seed: int) -> Tensor:
        """Draw data from the model and write `samples.png`."""
        x = generate(self.vae.model, num, seed=seed)
        width = max(1, int(num**0.5))
        rows = list(x[: width * (num // width)].split(width))
        image_grid(
            rows, self.data.image_shape, self.folder / "samples.png", "x ~ p(x | z), z ~ p(z)"
        )
        return x

    def describe(self, seed: int, num_data: int = 100, num_draws: int = 200) -> None:
        """Write `reconstructions.png` and `posterior.nc` of the first test data."""
        test = self._test(num_data)
        mean = reconstruct(self.vae.model, self.vae.guide, test[:10], num=20, seed=seed)["x"]
        title = "test digits (above) and E[x | z], z ~ q(z | x) (below)"
        image_grid(
            [test[:10], mean], self.data.image_shape, self.folder / "reconstructions.png", title
        )
        dims = {"z": ["latent"], "x": ["pixel"]}
        posterior = to_arviz(
            self.vae.model, self.vae.guide, test, num=num_draws, dims=dims, seed=seed
        )
        posterior.to_netcdf(self.folder / "posterior.nc", engine="h5netcdf")

    def _test(self, limit: int | None) -> Tensor:
        return self.data.test[:limit].to(next(self.vae.parameters()).device)


def _standard_error(per_datum: Tensor) -> float:
    return per_datum.std().item() / len(per_datum) ** 0.5


def table(results: Row) -> str:
    """The results as a short table."""
    lines = {
        "-ELBO": f"{results['nelbo']:.3f} ± {results['nelbo_stderr']:.3f} nats",
        "NLL": f"{results['nll']:.3f} ± {results['nll_stderr']:.3f} nats",
        "NLL, bits/dim": f"{results['bits_per_dim']:.4f} ± {results['bits_per_dim_stderr']:.4f}",
        "KL(q | p)": f"{results['kl']:.3f} ± {results['kl_stderr']:.3f} nats",
        "effective sample size": f"{results['ess']:.1f} of {results['num_draws']:.0f}",
        f"data with k-hat > {results['khat_threshold']:.2f}": f"{results['share_khat_above']:.1%}",
        "test data": f"{results['num_test']:.0f}",
        "parameters": f"{results['parameters']:,.0f}",
        "training, seconds": f"{results['seconds']:.1f}" if "seconds" in results else "",
        "evaluation, seconds": f"{results['evaluation_seconds']:.1f}",
    }
    return "\n".join(f"{name:<22} {value}" for name, value in lines.items() if value)
