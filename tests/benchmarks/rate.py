"""The bytes that binarised MNIST takes by bits-back coding, beside the bound that the pair prints.

python tests/benchmarks/rate.py data/mnist --epochs 8
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time

import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_dgm as dgm
from pyro_dgm.datasets import Idx

PIXELS, DIM, HIDDEN = 784, 20, 300


def decoder() -> dgm.Bernoulli:
    return dgm.Bernoulli(dgm.mlp(DIM, HIDDEN, PIXELS))


def plain() -> dgm.VAE:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(PIXELS, HIDDEN, 2 * DIM))
    return dgm.VAE(dgm.StandardNormal(DIM), decoder(), encoder)


def flows() -> dgm.VAE:
    prior = dgm.Flow(dgm.StandardNormal(DIM), dgm.maf(DIM, layers=2))
    encoder = dgm.Flow(
        dgm.Conditional(dist.Normal, dgm.mlp(HIDDEN, 2 * DIM)),
        dgm.iaf(DIM, layers=2, context=HIDDEN),
        embed=dgm.mlp(PIXELS, HIDDEN, HIDDEN),
    )
    return dgm.VAE(prior, decoder(), encoder)


def vamp() -> dgm.VAE:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(PIXELS, HIDDEN, 2 * DIM))
    prior = dgm.VampPrior(encoder, torch.rand(100, PIXELS).round())
    return dgm.VAE(prior, decoder(), encoder)


PAIRS = {"plain": plain, "vamp": vamp, "flows": flows}


def measure(vae: dgm.VAE, x: Tensor) -> None:
    """Code the images, decode them, and print both bounds."""
    start = process_time()
    compressed = dgm.compress(vae.model, vae.guide, x)
    coded = process_time()
    same = torch.equal(dgm.decompress(vae.model, vae.guide, compressed), x)
    print(f"  {compressed}")
    print(
        f"  decoded bit for bit: {same}; {coded - start:.0f} s to code, {process_time() - coded:.0f} s to decode"
    )
    score = dgm.nll(vae.model, vae.guide, x, num=10)
    bound = score.nelbo.mean().item() / torch.tensor(2.0).log().item()
    print(
        f"  -ELBO of other draws, 10 per image: {bound:.3f} bits/datum; coding takes "
        f"{compressed.bits_per_datum / bound - 1:+.3%}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", help="folder of the IDX files")
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--weights", type=Path, help="folder to keep weights and files in")
    options = parser.parse_args()
    data = Idx(options.mnist)
    for name in options.pairs:
        torch.manual_seed(0)
        vae, start = PAIRS[name](), process_time()
        trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), compile=True)
        batches = dgm.Batches(data.train, batch_size=128, transform=dgm.binarize)
        trainer.fit(batches, epochs=options.epochs, progress=False)
        print(f"{name}: {options.epochs} epochs, {process_time() - start:.0f} s", flush=True)
        if options.weights:
            dgm.save_weights(vae, options.weights / f"{name}.safetensors")
        measure(vae, data.test[: options.images])


if __name__ == "__main__":
    main()
