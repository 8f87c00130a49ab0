# %% [markdown]
# # Likelihood is not quality
#
# A model can draw perfect samples and have a terrible likelihood; another one can have a fine likelihood and
# draw rubbish. Neither is a curiosity: each is a Pyro program of a few lines. This tutorial writes both down,
# on a toy whose distribution is known, and then puts them into one table with the truth and with models that
# were really trained:
#
# 1. **Great samples, poor likelihood**: narrow kernels at the training data.
# 2. **Great likelihood, poor samples**: 1 % truth and 99 % noise.
# 3. **One yardstick**: held-out likelihood beside what tests of samples say: `compare_samples`.
# 4. **Which metric sees what**, and what none of them sees.
#
# At full size the script takes one to three minutes on one core; `PYRO_DGM_SMOKE=1` runs it in seconds, and its
# numbers then mean nothing. All numbers in the text come from that full run.

# %%
import os
from math import log
from pathlib import Path

import pyro.distributions as dist
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestClassifier
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.datasets import ring

SMOKE = bool(os.environ.get("PYRO_DGM_SMOKE"))
SIZE, EPOCHS, DRAWS, RELABELLINGS = (60, 2, 20, 19) if SMOKE else (600, 300, 1000, 999)
FIGURES = Path(
    os.environ.get("PYRO_DGM_FIGURES", "runs/smoke/tutorial_08" if SMOKE else "runs/tutorial_08")
)
FIGURES.mkdir(parents=True, exist_ok=True)

toy = ring(num_modes=8, radius=2.0, sd=0.1)  # eight normals on a circle
train, test, val = toy.sample(SIZE, seed=0), toy.sample(2 * SIZE, seed=1), toy.sample(SIZE, seed=2)


class Known(nn.Module):
    """A conditional that is one fixed distribution."""

    def __init__(self, distribution: dist.TorchDistribution):
        super().__init__()
        self.distribution = distribution

    def forward(self) -> dist.TorchDistribution:
        return self.distribution


truth = dgm.DensityModel(Known(toy.distribution))

# %% [markdown]
# ## 1. Great samples, poor likelihood
# $$p_1(x) = \frac1N \sum_n \mathcal N(x; x_n, h^2 I), \qquad h = 10^{-4}.$$
#
# The aggregated posterior of an encoder that answers with its own input is such a mixture. Its samples *are*
# data, but for the fourth decimal. A test datum, however, is many thousand bandwidths away from the next
# kernel.


# %%
def kernels(bandwidth: float) -> dgm.DensityModel:
    return dgm.DensityModel(dgm.AggregatePrior(dgm.Normal(nn.Identity(), scale=bandwidth), train))


memoriser = kernels(1e-4)

# %% [markdown]
# ## 2. Great likelihood, poor samples
# $$p_2(x) = 0.01\, p(x) + 0.99\, \mathcal N(x; 0, 4^2 I) \quad\Rightarrow\quad
#   \log p_2(x) \ge \log p(x) - \log 100 \quad \text{for every } x.$$
#
# Of a hundred samples one is from the truth. That costs at most $\log 100 = 4.6$ nats *per datum*, whatever
# the number of dims. Likelihoods of images differ by hundreds of nats between models that look alike; next to
# that, 4.6 nats are nothing.

# %%
loc = torch.cat([toy.centres, torch.zeros(1, 2)])
scale = torch.tensor([toy.sd] * 8 + [4.0])[:, None].expand(9, 2)
weights = torch.tensor([0.01 / 8] * 8 + [0.99])
mixture = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, scale).to_event(1))
noisy = dgm.DensityModel(Known(mixture))

side = torch.linspace(-9, 9, 301)
everywhere = torch.cartesian_prod(side, side)
loss = toy.distribution.log_prob(everywhere) - mixture.log_prob(everywhere)
print(
    f"largest log p − log p₂ on {len(everywhere)} points: {loss.max():.4f} nats; log 100 = {log(100):.4f}"
)

# %% [markdown]
# In every panel 600 points (of the noise four in ten lie outside the frame), above it the mean log-likelihood
# of the test data.

# %%
models = {"truth": truth, "kernels": memoriser, "1 % truth": noisy}
scores = {name: dgm.nll(model, dgm.EmptyGuide(), test) for name, model in models.items()}
samples = {name: dgm.generate(model, SIZE) for name, model in models.items()}


def scatter(axes: Axes, name: str) -> None:
    axes.plot(*samples[name].T, ".", ms=2, color="C0" if name == "truth" else "C1")
    axes.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal", xticks=[], yticks=[])
    score = scores.get(name)
    bound = "" if score is None or score.kind == "exact" else "≥ "
    likelihood = "no likelihood" if score is None else f"log p(x) {bound}{-score.mean:,.2f} nats"
    axes.set_title(f"{name}\n{likelihood}", fontsize=10)


figure = Figure(figsize=(9, 3.55), layout="constrained")
for axes, name in zip(figure.subplots(1, 3), samples, strict=True):
    scatter(axes, name)
figure.savefig(FIGURES / "two_programs.png", dpi=130)

# %% [markdown]
# ## 3. One yardstick
# Three models that were really trained, to stand beside them. An autoregressive flow and a flow of couplings,
# whose likelihood is exact; and a VAE, whose likelihood is estimated by importance sampling, an upper bound
# of the NLL in expectation. (This is also the place for a GAN: samples without a likelihood are a row like
# any other.)


# %%
def trained(model: nn.Module, guide: nn.Module) -> None:
    trainer = dgm.SVITrainer(dgm.ELBO(model, guide), lr=3e-3)
    trainer.fit(train, val, EPOCHS, batch_size=100, patience=60, progress=False)


torch.manual_seed(0)
autoregressive = dgm.DensityModel(
    dgm.Flow(dgm.StandardNormal(2), dgm.spline_maf(2, 3, hidden=(64,)))
)
coupling = dgm.DensityModel(
    dgm.Flow(dgm.StandardNormal(2), dgm.spline_coupling(2, 4, hidden=(64,)))
)
vae = dgm.VAE(
    dgm.StandardNormal(2),
    dgm.Normal(dgm.mlp(2, 128, 128, 2)),
    dgm.Conditional(dist.Normal, dgm.mlp(2, 128, 128, 2 * 2)),
)
for name, (model, guide) in {
    "autoregressive": (autoregressive, dgm.EmptyGuide()),
    "coupling flow": (coupling, dgm.EmptyGuide()),
    "VAE": (vae.model, vae.guide),
}.items():
    trained(model, guide)
    samples[name] = dgm.generate(model, SIZE)
    scores[name] = dgm.nll(model, guide, test, num=DRAWS)

# %% [markdown]
# `compare_samples` takes samples and, where there is one, a likelihood. It splits the test set once; every
# row compares its samples with the same half. The first row holds the other half of the test set: real data,
# which show what each metric says of a perfect model *at these sizes*. (It is not always 0 or 1.)

# %%
table = dgm.compare_samples(
    samples, train=train, test=test, nll=scores, k=3 if SMOKE else 5, num_permutations=RELABELLINGS
)
print(table)

# %% [markdown]
# The three trained models, and all of them in one plane: likelihood to the right, quality upwards. The truth
# is at the top right. If likelihood and quality were one thing, all models would lie on one line that falls
# to the left: the kernels, far to the left and at the top, do not. And the noise is next to the VAE in
# likelihood, and far below it.


# %%
def plane(axes: Axes) -> None:
    for number, row in enumerate(table.rows[1:]):
        lost = row["nll"] - scores["truth"].mean
        axes.errorbar(lost, row["c2st"], row["c2st_stderr"], fmt="o", color=f"C{number}")
        side = 1 if row["model"] in ("truth", "autoregressive") else -1
        place = {
            "xytext": (9 * side, -3),
            "textcoords": "offset points",
            "ha": "left" if side > 0 else "right",
        }
        axes.annotate(row["model"], (lost, row["c2st"]), fontsize=9, **place)
    axes.axhline(0.5, color="0.6", ls="--", lw=1)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xticks([10.0**i for i in range(5, -2, -1)] + [0.0], minor=False)
    axes.set(xlim=(1e6, -0.5), ylim=(1.0, 0.45), ylabel="accuracy of the classifier (better ↑)")
    axes.set_xlabel("NLL of test data above that of the truth, nats (better →)")


figure = Figure(figsize=(10, 6.4), layout="constrained")
upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.1])
for axes, name in zip(upper.subplots(1, 3), list(samples)[3:], strict=True):
    scatter(axes, name)
plane(lower.subplots())
figure.savefig(FIGURES / "likelihood_and_quality.png", dpi=130)

# %% [markdown]
# ## 4. Which metric sees what
# * **Likelihood** ruins the kernels and forgives the noise: 99 % of rubbish cost 3.7 nats, and could cost no
#   more than 4.6 in any number of dims.
# * **C2ST** finds the noise and the blurred ring of the VAE. It passes both flows (0.518 and 0.532), whose
#   dust between the modes is too little for it at these sizes, and the kernels: their samples are data.
# * **MMD** finds the noise alone. Its kernel is as wide as the median distance, about the radius of the ring;
#   what happens on the scale of one mode is invisible to it. A small `bandwidth=` would see that, and little
#   else.
# * **Fréchet distance** compares means and covariances. A ring without modes has the same ones: the VAE
#   scores nearly as well as the truth.
# * **Precision** and **density** say *what* is wrong: more than half of the VAE's samples lie between the
#   modes (precision 0.45), and the dust of the flows shows (0.91 and 0.92, where the truth has 0.98 ± 0.01).
#   **Recall** is 1 for pure noise, for sparse points have wide balls; **coverage** (0.14) is not fooled.
# * **1-NN against test data** (0.71) notices that the kernels repeat themselves: 600 draws out of 600 data
#   hit some of them thrice, and copies are each other's neighbours.
# * **1-NN against training data** (0.22) alone says what the kernels *are*: nearer to the training data than
#   these are to each other.
#
# A classifier is only as good as itself. The noise could be told with an accuracy of
# $\frac12 + \frac12 TV(p, p_2)$; here both densities are known, so that we can compute it, and see how much
# of it a classifier finds:

# %%
x, y = toy.sample(100_000, seed=3), dgm.generate(noisy, 100_000)
log_ratio = [mixture.log_prob(points) - toy.distribution.log_prob(points) for points in (x, y)]
best = ((log_ratio[0] < 0).double().mean() + (log_ratio[1] > 0).double().mean()) / 2
fakes = samples["1 % truth"]
print(f"best accuracy: {best:.3f}")
for classifier in (None, RandomForestClassifier()):
    print(
        dgm.c2st(real=test[:SIZE], fake=fakes, classifier=classifier, num_permutations=RELABELLINGS)
    )

# %% [markdown]
# The test is valid with any classifier (a bad one never sees a difference that is not there), but its
# accuracy is a lower bound, and should be named together with the classifier.
#
# ## 5. From memory to model: one parameter
# The width of the kernels leads from memorising to smoothing. Three figures along the way:

# %%
bandwidths = [10 ** (-4 + 0.25 * i) for i in range(14)][:: 6 if SMOKE else 1]
curve = []
for bandwidth in bandwidths:
    model = kernels(bandwidth)
    pair = {"fake": dgm.generate(model, SIZE), "num_permutations": RELABELLINGS}
    near = [
        dgm.nearest_neighbour(real=real, **pair).accuracy.value for real in (test[:SIZE], train)
    ]
    curve.append((dgm.nll(model, dgm.EmptyGuide(), test).mean, *near))
nll_of, against_test, against_train = zip(*curve, strict=True)

figure = Figure(figsize=(9, 3.4), layout="constrained")
left, right = figure.subplots(1, 2)
left.loglog(bandwidths, nll_of, "o-", ms=3)
left.axhline(scores["truth"].mean, color="0.6", ls="--", lw=1)
left.annotate("truth", (bandwidths[0], scores["truth"].mean), va="bottom", fontsize=9)
left.set(
    xlabel="bandwidth h", ylabel="NLL of test data, nats", title="likelihood: poor, best, poor"
)
right.semilogx(bandwidths, against_test, "o-", ms=3, label="against test data")
right.semilogx(bandwidths, against_train, "o-", ms=3, label="against training data")
right.axhline(0.5, color="0.6", ls="--", lw=1)
right.annotate("ideal", (bandwidths[0], 0.505), fontsize=9)
right.set(
    xlabel="bandwidth h",
    ylabel="1-NN accuracy",
    title="below ½: copies; above ½: told apart",
    ylim=(0, 1),
)
right.legend(frameon=False, fontsize=9)
figure.savefig(FIGURES / "bandwidth.png", dpi=130)
best = min(range(len(curve)), key=lambda i: nll_of[i])
print(
    f"best likelihood at h = {bandwidths[best]:.3g}: "
    f"NLL {nll_of[best]:.3f}, 1-NN train {against_train[best]:.3f}"
)

# %% [markdown]
# At the best width the likelihood of this simplest of models is within a tenth of a nat of the truth's, and
# the comparison with the training data finds no copies any more (0.47): on a toy in two dimensions, smoothing
# is all it takes. To choose the width is to trade one fault for the other, and it needs both numbers to see
# that.
#
# What to remember: **report both**. A likelihood (and whether it is exact or a bound) says how well the model
# covers held-out data; tests of samples say what it draws. A model without a likelihood, such as a GAN, can
# be judged by the second kind alone: then compare with the training data too.
