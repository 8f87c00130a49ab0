"""One run: train, evaluate, write the run directory; and reading one back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod, sqrt
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..arviz_export.export import to_arviz
from ..arviz_export.netcdf import netcdf_content, num_bytes_of_draws
from ..evaluation.likelihood.importance import nll
from ..evaluation.likelihood.pareto import LEAST_DRAWS
from ..evaluation.likelihood.psis import khat_threshold
from ..evaluation.likelihood.results import NLL
from ..files.locking import require_room
from ..files.manifest import Manifest
from ..files.records import append_record
from ..inference.drawing.generation import generate, reconstruct
from ..inference.objectives.elbo import Objective
from ..inference.process.distributed import raise_together, rank_and_world
from ..inference.run.structure import Structure
from ..inference.sites.measures import Measure
from ..inference.training.checkpoints import load_weights, weights_content
from ..inference.training.history import History
from ..inference.training.svi import SVITrainer
from ..programs.vae import VAE
from .configurations import build
from .data.datasets import Data
from .metrics import append_metrics, rebuild_metrics
from .plots.canvas import save_picture
from .plots.curves import learning_curve
from .plots.images import reconstructions, samples

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
METRICS = "metrics.jsonl"
RESULTS = "results.jsonl"
OWN_RESULTS = "results.json"
PICTURE = "samples.png"
# Room that a run takes, in sizes of its weights: two checkpoints and a third one as it is written, each with weights,
# their average, the best ones and two moments of the optimizer; and the weights themselves.
ROOM = 16
ROOM_FOR_THE_REST = 2**22  # bytes
NUM_DESCRIBED = 100  # data in posterior.nc
DRAWS_DESCRIBED = 200

# What `results.json` holds: numbers, and the kind and the measure of the likelihood.
Results = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A directory with `config.yaml`, `metrics.jsonl`, `weights.safetensors`, `results.jsonl` and pictures.

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
        fix = f"pyro-dgm fit --out={self.folder} --resume=true"
        Manifest(self.folder).read(WEIGHTS, "the weights of the run", fix)
        load_weights(self.vae, self.folder / WEIGHTS)

    def check(self, limit: int | None) -> None:
        """Look at all that is needed after training before it begins.

        Raises:
            ValueError: for splits that are empty or of different shapes, and for a limit below 2.
        """
        if limit is not None and limit < 2:
            raise ValueError(
                f"limit: expected at least 2 test data, for a standard error, got {limit}. "
                "Fix: --limit=100, or leave it out."
            )
        shape = tuple(self.data.train.shape[1:])
        for name, split in (
            ("train", self.data.train),
            ("val", self.data.val),
            ("test", self.data.test),
        ):
            if len(split) < 2 or tuple(split.shape[1:]) != shape:
                raise ValueError(
                    f"data: expected at least 2 data of shape {shape} in '{name}', got {tuple(split.shape)}. "
                    "Fix: Data(train, val, test, event_shape, levels) with splits of one kind."
                )

    def train(
        self,
        objective: Callable[[nn.Module, nn.Module], Objective],
        trainer: Callable[[Objective], SVITrainer],
        epochs: int,
        batch_size: int,
        patience: int | None,
        seed: int,
        *,
        resume: bool,
    ) -> History:
        """Train up to `epochs` epochs in all; returns the rows of all of them.

        Metrics and checkpoints are written as it goes, the weights by `save`.

        Raises:
            ValueError: if a resumed run has more epochs already.
            FileError: if the disk is full or read-only, before the first step; for a damaged checkpoint.
        """
        loss = build("objective", lambda: objective(self.vae.model, self.vae.guide))
        fitted = build("trainer", lambda: trainer(loss.to(self._device)))
        batches = self.data.batches(batch_size)
        first = batches.first()[0].to(self._device)
        structure = build("vae", lambda: loss.preflight(first))
        is_writing = rank_and_world()[0] == 0
        with raise_together():
            if is_writing:
                self._require_room(structure)
        checkpoint = self.folder / CHECKPOINT
        if resume and checkpoint.exists():
            fitted.resume(checkpoint)
        num_left = _epochs_left(epochs, fitted.num_epochs)
        metrics = self.folder / METRICS
        if is_writing:
            rebuild_metrics(metrics, fitted.history)
        if num_left == 0:  # it was stopped between training and evaluation
            fitted.state.deploy()
        else:
            fitted.fit(
                batches,
                self.data.val,
                num_left,
                patience=patience,
                seed=seed,
                checkpoint=checkpoint,
                on_epoch=(lambda row: append_metrics(metrics, row)) if is_writing else None,
            )
        return fitted.history

    def save(self, history: History) -> None:
        """Write what training leaves: weights, digests and the learning curve."""
        manifest = Manifest(self.folder)
        manifest.write(WEIGHTS, weights_content(self.vae))
        manifest.write(METRICS, (self.folder / METRICS).read_bytes())
        save_picture(learning_curve(history), self.folder / "learning_curve.png")

    def _require_room(self, structure: Structure) -> None:
        """Refuse a disk that would be full before the run has ended."""
        size = sum(t.numel() * t.element_size() for t in self.vae.state_dict().values())
        of_draws = num_bytes_of_draws(structure, NUM_DESCRIBED, DRAWS_DESCRIBED)
        require_room(self.folder, ROOM * size + of_draws + ROOM_FOR_THE_REST)

    def evaluate(self, num: int, limit: int | None, seed: int) -> Results:
        """Score the test data, in nats per datum and bits per dim."""
        test = self._test_data(limit)
        start = perf_counter()
        score = nll(self.vae.model, self.vae.guide, test, num=num, seed=seed)
        return {
            **results_of(score, prod(self.data.event_shape)),
            "num_test": len(test),
            "num_draws": num,
            "parameters": sum(p.numel() for p in self.vae.parameters()),
            "evaluation_seconds": perf_counter() - start,
        }

    def record(self, results: Results, **arguments: Any) -> None:
        """Add a row to `results.jsonl`: the figures, what they were made with, when, and by which version.

        The run's own evaluation stands in `results.json` as well.
        """
        when = datetime.now(UTC).isoformat(timespec="seconds")
        row = {"time": when, "version": __version__, **arguments, **results}
        append_record(self.folder / RESULTS, row)
        if arguments["command"] == "fit":
            text = json.dumps(results, indent=2)
            Manifest(self.folder).write(OWN_RESULTS, f"{text}\n".encode())

    def draw(self, num: int, seed: int, name: str = PICTURE) -> Tensor:
        """Draw data from the model and write a picture of them."""
        x = generate(self.vae.model, num, seed=seed)
        save_picture(samples(x, self.data.event_shape, self.data.levels), self.folder / name)
        return x

    def describe(
        self, seed: int, num_data: int = NUM_DESCRIBED, num_draws: int = DRAWS_DESCRIBED
    ) -> None:
        """Write `reconstructions.png` and `posterior.nc` of the first test data."""
        test = self._test_data(num_data)
        self._draw_reconstructions(test[:10], seed)
        dims = {"z": ["latent"], "x": ["pixel"]}
        posterior = to_arviz(
            self.vae.model, self.vae.guide, test, num=num_draws, dims=dims, seed=seed
        )
        Manifest(self.folder).write("posterior.nc", netcdf_content(posterior))

    def _draw_reconstructions(self, x: Tensor, seed: int) -> None:
        means = reconstruct(self.vae.model, self.vae.guide, x, num=20, seed=seed)["x"]
        picture = reconstructions(x, means, self.data.event_shape, self.data.levels)
        save_picture(picture, self.folder / "reconstructions.png")

    @property
    def _device(self) -> torch.device:
        return next(self.vae.parameters()).device

    def _test_data(self, limit: int | None) -> Tensor:
        return self.data.test[:limit].to(self._device)


def table(results: Results) -> str:
    """The results as a short table."""
    name_of_khat, khat = _khat_line(results)
    lines = {
        "-ELBO": f"{_with_error(results, 'nelbo')} nats",
        "NLL": f"{_with_error(results, 'nll')} nats ({results['nll_measure']}, {results['nll_kind']})",
        "NLL, bits/dim": _bits(results),
        "KL(q | p)": f"{_with_error(results, 'kl')} nats",
        "effective sample size": f"{results['ess']:.1f} of {results['num_draws']:.0f}",
        name_of_khat: khat,
        "test data": f"{results['num_test']:.0f}",
        "parameters": f"{results['parameters']:,.0f}",
    }
    if "seconds" in results:
        lines["training, seconds"] = f"{results['seconds']:.1f}"
    lines["evaluation, seconds"] = f"{results['evaluation_seconds']:.1f}"
    return "\n".join(f"{name:<22} {value}" for name, value in lines.items())


def _khat_line(results: Results) -> tuple[str, str]:
    """The share of data whose weights can't be relied on, or that the draws are too few to tell."""
    if results["num_draws"] < LEAST_DRAWS:
        return "k-hat", f"needs {LEAST_DRAWS} draws or more (--num), got {results['num_draws']:.0f}"
    above = f"data with k-hat > {results['khat_threshold']:.2f}"
    return above, f"{results['share_khat_above']:.1%}"


def _epochs_left(epochs: int, num_done: int) -> int:
    if epochs < num_done:
        raise ValueError(
            f"expected more epochs than the {num_done} of the run, got {epochs}. "
            f"Fix: --epochs={num_done + epochs}."
        )
    return epochs - num_done


def results_of(score: NLL, num_pixels: int) -> Results:
    """Means over the data with their standard errors, and how far the weights can be relied on."""
    return {
        **_bits_per_dim(score, num_pixels),
        "nll_kind": str(score.kind),
        "nll_measure": score.measure.value,
        "nelbo": score.nelbo.mean().item(),
        "nelbo_stderr": _standard_error(score.nelbo),
        "nll": score.mean,
        "nll_stderr": score.stderr,
        "ess": score.ess.mean().item(),
        "khat_threshold": khat_threshold(score.num),
        "share_khat_above": score.share_unreliable,
        "kl": score.kl.mean().item(),
        "kl_stderr": _standard_error(score.kl),
    }


def _bits_per_dim(score: NLL, num_pixels: int) -> Results:
    """Bits per dim of a mass; a density of pixels on levels, or a joint density at a point, has none."""
    if score.measure is not Measure.MASS:
        return {}
    bits = score.bits_per_dim(num_pixels)
    return {"bits_per_dim": bits.value, "bits_per_dim_stderr": bits.stderr}


def _standard_error(per_datum: Tensor) -> float:
    return per_datum.std().item() / sqrt(len(per_datum))


def _bits(results: Results) -> str:
    if "bits_per_dim" not in results:
        return f"none: of a {results['nll_measure']}"
    return _with_error(results, "bits_per_dim", digits=4)


def _with_error(results: Results, name: str, digits: int = 3) -> str:
    return f"{results[name]:.{digits}f} ± {results[f'{name}_stderr']:.{digits}f}"
