# %% [markdown]
# # The zoo: one table over all families
#
# Four families of generative models, the same 8×8 digits of 17 grey levels, one yardstick. They differ in
# what they know of their own density, and in what a sample costs:
#
# | family | here | density | a sample |
# |---|---|---|---|
# | tractable, autoregressive | `PixelCNN` | exact | 64 passes |
# | tractable, a flow | RealNVP of $x + u$, learned noise | exact for $x + u$; for integers a bound | one pass |
# | approximate, a VAE | discretized logistics, flow prior | a bound | one pass |
# | implicit, a GAN | the VAE's declaration, against a critic | none; a bound with an observation model | one pass |
#
# | row | NLL, nats | bits/dim | kind | C2ST | C2ST, train | MMD² | 1-NN test | 1-NN train |
# |---|---|---|---|---|---|---|---|---|
# | test data | | | | 0.493 | 0.463 | −0.002 | 0.467 | 0.533 |
# | PixelCNN | **80.6 ± 0.6** | **1.817** | exact | 0.640* | 0.853* | 0.008* | 0.730* | 0.805 |
# | flow | 85.2 ± 0.6 | 1.920 | upper bound | 0.587* | 0.717* | 0.004 | 0.743* | 0.749 |
# | VAE | 82.7 ± 0.8 | 1.863 | upper bound | 0.573 | **0.664*** | **0.001** | **0.630*** | 0.689 |
# | GAN | 132.9 ± 0.7 | 2.995 | upper bound, added model | 0.893* | 0.985* | 0.015* | 0.950* | 0.997 |
#
# | row | precision | recall | density | coverage | Fréchet | CPU s, 1,000 images |
# |---|---|---|---|---|---|---|
# | test data | 0.987 | 0.940 | 1.045 | 0.987 | 92 | |
# | PixelCNN | 0.800 | 0.953 | 0.536 | 0.620 | 250 | 1.60 |
# | flow | 0.900 | 0.893 | 0.745 | 0.753 | 155 | 0.02 |
# | VAE | **0.967** | **0.960** | **0.985** | **0.933** | **133** | 0.02 |
# | GAN | 0.847 | 0.287 | 0.575 | 0.500 | 416 | 0.05 |
#
# Test data, 300 images: NLL of all, the other columns 150 against 150 (`C2ST, train`: 1,347 training images
# against as many samples, for the first row against the test set). * p ≤ 0.01: another distribution than the
# data's. ± over the test data.
#
# **The order of the likelihoods is not that of the samples.** The PixelCNN has the best likelihood, and of
# the three trained by likelihood the classifier tells it best. Section "What the numbers say" goes through
# the metrics.
#
# At full size the script takes two to three minutes on one core; `PYRO_DGM_SMOKE=1` runs it in seconds, and
# its numbers then mean nothing. All numbers in the text come from that full run, with one seed.

# %%
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import pyro_dgm as dgm
from pyro_dgm.datasets import Digits

SMOKE = bool(os.environ.get("PYRO_DGM_SMOKE"))
PIXEL_EPOCHS, FLOW_EPOCHS, VAE_EPOCHS, GAN_EPOCHS, GUIDE_EPOCHS = (
    (1, 1, 1, 1, 1) if SMOKE else (60, 80, 120, 120, 10)
)
DRAWS, NUM, RELABELLINGS = (10, 160, 19) if SMOKE else (500, 1347, 999)
WIDTHS = (2.0, 1.0) if SMOKE else (3.0, 2.4, 1.9, 1.5)
FIGURES = Path(
    os.environ.get("PYRO_DGM_FIGURES", "runs/smoke/the_zoo" if SMOKE else "runs/the_zoo")
)
FIGURES.mkdir(parents=True, exist_ok=True)
LATENT, HIDDEN, BUMPS = 8, 256, 5
START = time.process_time()

digits = Digits()
LEVELS = digits.levels


def fit(
    model: nn.Module, guide: nn.Module, epochs: int, train: Tensor, val: Tensor, lr: float = 2e-3
) -> None:
    """Maximum likelihood, or its bound; the weights of the best validation epoch are kept."""
    schedule = partial(CosineAnnealingLR, T_max=epochs)
    trainer = dgm.SVITrainer(dgm.ELBO(model, guide), lr=lr, clip=50.0, schedule=schedule)
    trainer.fit(train, val, epochs, batch_size=100, progress=False)


samples: dict[str, Tensor] = {}
scores: dict[str, dgm.results.NLL] = {}
seconds: dict[str, float] = {}


def draw(name: str, make: Callable[[], Tensor]) -> None:
    """Integer images `(NUM, 64)` of a model, and how long they took."""
    start = time.process_time()
    samples[name] = make().flatten(1)
    seconds[name] = time.process_time() - start
    print(
        f"{name}: {1000 * seconds[name] / NUM:.2f} s for 1,000 images; "
        f"until now {time.process_time() - START:.0f} s"
    )


# %% [markdown]
# ## Tractable density, one pixel after the other
# $P(x) = \prod_i P(x_i \mid x_{<i})$, every factor a mixture of five discretized logistics. No latent, no
# noise, no guide: a datum's mass is one pass of the network, and exact. A draw is 64 passes of its horizontal
# stack, one a pixel.

# %%
torch.manual_seed(0)
network = dgm.nn.GatedPixelCNN((1, 8, 8), 3 * BUMPS, channels=32, blocks=3)
emission = dgm.DiscretizedLogisticMixture(nn.Identity(), LEVELS, BUMPS, min_scale=0.3, event_dim=3)
pixelcnn = dgm.DensityModel(
    dgm.PixelCNN(network, emission, scale=dgm.nn.Rescale(0, LEVELS - 1), progress=False)
)
train, val, test = (x.reshape(-1, 1, 8, 8) for x in (digits.train, digits.val, digits.test))
fit(pixelcnn, dgm.EmptyGuide(), PIXEL_EPOCHS, train, val)
scores["PixelCNN"] = dgm.nll(pixelcnn, dgm.EmptyGuide(), test)
draw("PixelCNN", lambda: dgm.generate(pixelcnn, NUM))
print(scores["PixelCNN"], scores["PixelCNN"].bits_per_dim(64))

# %% [markdown]
# ## Tractable density, all pixels at once
# Eight couplings and a sigmoid onto the levels, the flow of `03_discrete_data.py`. As a density of real
# numbers it is exact; integers ask for the mass of a cell, $P(x) = \int p(x + u)\, du$, and that is a bound:
# the noise u is drawn by a guide, a second flow, and averaged with importance weights. A draw is one pass.

# %%
torch.manual_seed(0)
cube = dgm.Levels(1)
embed = nn.Sequential(dgm.nn.Rescale(0, LEVELS - 1), dgm.mlp(64, 64, 64))
noise = dgm.NoiseGuide(
    dgm.Flow(dgm.UnitUniform(64), [dgm.Inverse(cube), *dgm.realnvp(64, 4, 64, (64,)), cube], embed)
)
density = dgm.Flow(dgm.StandardNormal(64), [*dgm.realnvp(64, 8, hidden=(128,)), dgm.Levels(LEVELS)])
flow = dgm.dequantized(dgm.DensityModel(density), levels=LEVELS)
fit(flow, noise, FLOW_EPOCHS, digits.train, digits.val, lr=1e-3)
scores["flow"] = dgm.nll(flow, noise, digits.test, num=DRAWS)
draw("flow", lambda: dgm.generate(flow, NUM))
print(scores["flow"], scores["flow"].bits_per_dim(64))


# %% [markdown]
# ## Approximate density
# $P(x) = \int p(z)\, P(x \mid z)\, dz$, with a flow as the prior and one discretized logistic for every pixel
# (a mixture of one, for its scaling). The integral is the bound's business: 500 draws of the guide. A draw is
# one pass.


# %%
def declare() -> dgm.VAE:
    torch.manual_seed(0)
    decoder = dgm.mlp(LATENT, HIDDEN, HIDDEN, 3 * 64)
    likelihood = dgm.DiscretizedLogisticMixture(decoder, LEVELS, num_components=1, min_scale=0.3)
    encoder = dgm.Conditional(
        dist.Normal, nn.Sequential(dgm.nn.Rescale(0, LEVELS - 1), dgm.mlp(64, HIDDEN, 2 * LATENT))
    )
    return dgm.VAE(
        dgm.Flow(dgm.StandardNormal(LATENT), dgm.realnvp(LATENT, 4)), likelihood, encoder
    )


vae = declare()
fit(vae.model, vae.guide, VAE_EPOCHS, digits.train, digits.val)
scores["VAE"] = dgm.nll(vae.model, vae.guide, digits.test, num=DRAWS)
draw("VAE", lambda: dgm.generate(vae.model, NUM))
print(scores["VAE"], scores["VAE"].bits_per_dim(64))

# %% [markdown]
# ## Implicit density
# The same declaration down to the prior, without the guide: a critic compares $G(z) = E[x \mid z]$ with the
# data. It compares real numbers, so that data get noise, half a level to each side; samples are G(z),
# rounded. A draw is one pass.

# %%
gan = declare()
critic = nn.Sequential(dgm.nn.Rescale(0, LEVELS - 1), dgm.mlp(64, HIDDEN, HIDDEN, 1))
noisy = dgm.Batches(digits.train, 100, transform=lambda x: x + torch.rand_like(x) - 0.5)
game = dgm.GANTrainer(gan.generator, critic, dgm.NonSaturating(), (dgm.R1(1.0),), ema=0.99)
game.fit(noisy, epochs=GAN_EPOCHS, progress=False)


@torch.no_grad()
def rounded() -> Tensor:
    """G(z), the mean of an image given its code, to the nearest level."""
    return gan.generator.likelihood(dgm.generate(gan.generator, NUM, site="z")).mean.round()


draw("GAN", rounded)
for name, x in (("GAN", samples["GAN"]), ("data", digits.test)):
    print(f"{name}: {(x == 8).double().mean():.1%} of the pixels are level 8")


# %% [markdown]
# What mass does it give to an image? As declared, none that means anything: the critic has seen the means of
# its logistics alone, and their widths served these. So all pixels get one width s around G(z), a guide is
# fitted to the generator, which stays, and s is chosen on validation data. That is a mass of integers as
# well, and it stands in the same column; but s is ours.


# %%
class Around(nn.Module):
    r"""$P(x \mid z)$: the cells of logistic distributions of one width s around G(z)."""

    def __init__(self, mean: nn.Module, width: float):
        super().__init__()
        self.mean, self.width = mean, width

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return dgm.distributions.Discretized(
            dist.Logistic(self.mean(z), self.width), LEVELS
        ).to_event(1)


centre = dgm.distributions.MeanOf(gan.generator.likelihood)
inverse, found = gan, []
for width in WIDTHS:
    around = gan.replace(likelihood=Around(centre, width))
    inverse = dgm.refit_guide(
        around, digits.train, inverse.guide.encoder, digits.val, GUIDE_EPOCHS, batch_size=100
    )
    found.append(
        (dgm.nll(inverse.model, inverse.guide, digits.val, num=DRAWS).mean, width, inverse)
    )
    print(
        f"width {width}: {found[-1][0]:.2f} nats on validation data; "
        f"until now {time.process_time() - START:.0f} s"
    )
_, width, inverse = min(found, key=lambda row: row[0])
scores["GAN"] = dgm.nll(inverse.model, inverse.guide, digits.test, num=DRAWS)
print(scores["GAN"], scores["GAN"].bits_per_dim(64))

# %% [markdown]
# ## One yardstick
# `compare_samples` splits the test set once; every row is compared with the same half of it, and the first
# row is the other half. 150 images against 150 are few, so the classifier is asked again with the training
# images, 1,347 against as many of each model.

# %%
table = dgm.compare_samples(
    samples,
    train=digits.train,
    test=digits.test,
    nll=scores,
    k=3 if SMOKE else 5,
    num_permutations=RELABELLINGS,
)
print(table)
for name, images in {"test data": digits.test, **samples}.items():
    told = dgm.c2st(real=digits.train, fake=images, num_permutations=RELABELLINGS)
    bits = scores[name].bits_per_dim(64) if name in scores else ""
    print(f"{name:10} C2ST against training data {told.accuracy}, p = {told.p_value:.3f}   {bits}")

# %% [markdown]
# ## Samples
# Two lines of each, the first ones, not chosen.

# %%
rows = {"test data": digits.test, **samples}
figure = Figure(figsize=(8.5, 1.2 * len(rows)), layout="constrained")
lines = figure.subplots(2 * len(rows), 16)
for number, (name, images) in enumerate(rows.items()):
    for image, axes in zip(images[:32], lines[2 * number : 2 * number + 2].flat, strict=True):
        axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=LEVELS - 1)
        axes.set(xticks=[], yticks=[])
    lines[2 * number, 0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.savefig(FIGURES / "samples.png", dpi=120)
print(f"processor time: {time.process_time() - START:.0f} s")

# %% [markdown]
# ## What the numbers say
# * **NLL.** The PixelCNN is ahead by 2 nats of the VAE and 5 of the flow, and its figure is exact. The other
#   two are upper bounds: k-hat distrusts 86 % of the VAE's data and 97 % of the flow's, so that part of the
#   distance may be the guide's and not the model's. The GAN's 133 nats (s = 1.9 levels) belong to generator,
#   added likelihood and guide together, and k-hat distrusts all of the data.
# * **C2ST** on 75 held-out images of each kind passes the VAE alone (0.573). With 674 of each it tells all:
#   0.664 for the VAE, 0.985 for the GAN. "Passed" is a statement about sizes. (These 1,347 are what the
#   models were trained on; one that copied them would pass.) Of the models trained by likelihood it tells the
#   PixelCNN best (0.853).
# * **MMD** passes the VAE and the flow. Its kernel is as wide as the median distance of two images.
# * **1-NN, test** passes the test data alone.
# * **Density and coverage** separate what **precision and recall** blur: 0.54 and 0.62 for the PixelCNN,
#   whose recall of 0.95 is higher than that of the data. For the GAN recall is 0.29: it leaves much of the
#   data out.
# * **Fréchet distance** has the same order as coverage. Its floor here is 92, not 0: 150 data for 64 × 64
#   covariances.
# * **1-NN, train** is above one half everywhere, so that this test finds no copies of training data.
#
# By samples the VAE is first in every column; its lead over the flow in C2ST is within the error with 75
# images of each kind, and three standard errors with 674 (0.664 ± 0.013 and 0.717 ± 0.012). What is
# wrong with the PixelCNN's samples can't be read off one number. An explanation that would fit, and was not
# tested: each pixel's distribution is good given a real beginning, and 64 draws one after the other leave the
# data before the image is full.
#
# The GAN's samples have a fault that can be seen: grey patches. 19 % of its pixels are level 8, of the data's
# 3 %. The critic sees the mean of a logistic distribution that is cut off at 0 and 16, and one of boundless
# width has the mean 8: where a pixel is 8 the median width is 160,000 levels, elsewhere 0.3 (read off once,
# beside the script). The declaration that suits the VAE gives the GAN a dead end; with the normal likelihood
# of `07_gan_shares_the_generator.py` it has none.
#
# All of this is one seed, one size of each model and 1,347 images: it compares these four programs, not four
# families. What does belong to the families is the first table: who has a density, of which kind, and what a
# sample costs. The PixelCNN pays for its exact mass with 64 passes a draw, some eighty times the processor
# time of the flow or the VAE.
