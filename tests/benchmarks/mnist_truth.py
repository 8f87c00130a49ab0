"""What is known of a VAE on MNIST: importance sampling against annealing, surgery, the inference gap.

    python tutorials/02_prior_or_posterior.py --data=Idx --data.folder=data/mnist --rows='[standard]' --epochs=150 \
        --out=runs/mnist
    python tests/benchmarks/mnist_truth.py data/mnist runs/mnist/standard-0 --device=cuda

Measured (standard prior, 784-300-300-40 gated, 150 epochs, one seed; an H100, six minutes), nats per image:

| on 100 test images | −log p(x) | importance sampling − it |
|---|---|---|
| importance sampling, 5,000 draws | 83.43 | |
| importance sampling, 100,000 draws | 83.25 | |
| AIS from the guide, 300 temperatures | 83.01 | 0.42 ± 0.06 |
| AIS from the guide, 1,000 temperatures | 83.02 | 0.41 ± 0.06 |
| AIS from the prior, 1,000 temperatures | 83.06 | 0.37 ± 0.06 |
| AIS from the prior, 3,000 temperatures | 83.01 | 0.42 ± 0.06 |

BDMC on 100 simulated images: −94.409 to −94.403, a gap of 0.006 ± 0.007. Inference gap 3.90 ± 0.20 = amortization
2.09 ± 0.17 + approximation 1.81 ± 0.05, against the last row. Surgery on 50,000 training images: KL 26.02 ± 0.06 =
mutual information 10.762 ± 0.004 (at most log N = 10.820) + marginal KL 15.26 ± 0.06, nearly all of it total
correlation. All 10,000 test images, 5,000 draws: 86.10 ± 0.23.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from time import perf_counter
from types import ModuleType

import torch

import pyro_dgm as dgm
from pyro_dgm.datasets import Idx

EXPERIMENT = Path(__file__).parents[2] / "tutorials" / "02_prior_or_posterior.py"


def experiment() -> ModuleType:
    """The script that trained the VAE, for its declaration."""
    spec = importlib.util.spec_from_file_location("prior_or_posterior", EXPERIMENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded(data: Idx, folder: Path, device: str) -> dgm.VAE:
    script = experiment()
    vae = script.ROWS["standard"](script.Parts(data, 40, 300))
    dgm.load_weights(vae, folder / "weights.safetensors")
    return vae.to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", help="folder of the IDX files")
    parser.add_argument("run", type=Path, help="folder of the trained VAE")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    data = Idx(options.mnist)
    vae = loaded(data, options.run, options.device)
    x, start = data.test[: options.images].to(options.device), perf_counter()

    def say(title: str, found: object) -> None:
        print(f"[{perf_counter() - start:5.0f} s] {title}: {found}", flush=True)

    bound = dgm.nll(vae.model, vae.guide, x, num=5000, chunk=500_000)
    say("importance sampling", bound)
    for steps in options.steps:
        for name, guide in (("guide", vae.guide), ("prior", None)):
            found = dgm.ais(vae.model, x, num=16, steps=steps, start=guide, chunk=1_000_000)
            off = bound.per_datum - found.per_datum
            error = off.std() / len(off) ** 0.5
            say(
                f"AIS from the {name}",
                f"{found}; importance sampling is {off.mean():.3f} ± {error:.3f} above",
            )
    say("gaps", dgm.gaps(vae.model, vae.guide, x, truth=found))
    torch.manual_seed(0)
    train = dgm.binarize(data.train).to(options.device)
    say(
        "surgery",
        dgm.surgery(
            vae.model, vae.guide, train, chunk=4_000_000 if options.device != "cpu" else 200_000
        ),
    )


if __name__ == "__main__":
    main()
