# %% [markdown]
# # A variational autoencoder, from declaration to numbers
#
# A latent variable model says how data come about: draw a code $z \sim p(z)$, then an image
# $x \sim p(x \mid z)$. To fit it we need the likelihood $p(x) = \int p(z)\, p(x \mid z)\, dz$, which is
# intractable. Variational inference brings in a *guide* $q(z \mid x)$ and maximizes a lower bound instead:
#
# $$\log p(x) \ge \mathrm{ELBO} = E_{q(z \mid x)}[\log p(x \mid z)] - KL(q(z \mid x) \,\|\, p(z)).$$
#
# Here we declare such a pair, train it on handwritten digits, look at it, and measure how good it is. At full
# size (`EPOCHS = 150`) the script takes less than a minute on one core; `PYRO_DGM_SMOKE=1` runs it in a few.

# %%
import os
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import pyro_dgm as dgm

SMOKE = bool(os.environ.get("PYRO_DGM_SMOKE"))
EPOCHS, DRAWS = (3, 20) if SMOKE else (150, 1000)
FIGURES = Path(
    os.environ.get("PYRO_DGM_FIGURES", "runs/smoke/tutorial_01" if SMOKE else "runs/tutorial_01")
)
FIGURES.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# %% [markdown]
# ## Data
# 1,797 images of 8×8 pixels, each an *integer* from 0 to 16. That they are integers matters: the likelihood
# below gives a probability to every level, so that the result is a number of nats (or bits) and not a density
# without a scale.

# %%
digits = torch.tensor(load_digits().data, dtype=torch.float32)
digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
test, val, train = digits[:300], digits[300:450], digits[450:]

# %% [markdown]
# ## Declaration
# Three *conditionals*. Each is a module that maps a context to a Pyro distribution, nothing more.
#
# * The **prior** $p(z)$: the plain one is a standard normal. It asks all codes together to look like one
#   round blob, which they don't want to. A *flow prior* bends the blob. `maf` is the direction that scores
#   fast, which is what training asks of a prior.
# * The **likelihood** $P(x \mid z)$: every pixel is a logistic density cut into 17 levels, with open ends.
# * The **encoder** $q(z \mid x)$: a diagonal normal, bent by an `iaf` flow, the direction that samples fast.


# %%
def declare(*, flows: bool) -> dgm.VAE:
    torch.manual_seed(0)
    prior = dgm.StandardNormal(8)
    base = dgm.Conditional(dist.Normal, dgm.mlp(128, 2 * 8))
    embed = torch.nn.Sequential(dgm.nn.Rescale(0, 16), dgm.mlp(64, 256, 128), torch.nn.SiLU())
    if flows:
        prior = dgm.Flow(prior, dgm.maf(8, layers=2))
        encoder = dgm.Flow(base, dgm.iaf(8, layers=2, context=128), embed)
    else:
        encoder = dgm.Conditional(dist.Normal, torch.nn.Sequential(embed, base.net))
    likelihood = dgm.DiscretizedLogistic(dgm.mlp(8, 256, 2 * 64), levels=17, min_scale=0.3)
    return dgm.VAE(prior, likelihood, encoder)


vae = declare(flows=True)
print(dgm.preflight(vae.model, vae.guide, train[:5]))

# %% [markdown]
# `preflight` ran the pair once and found nothing wrong; the table shows the shape of every site. Break the
# contract and it says which site, what it expected, what it got, and how to mend it:

# %%
try:
    dgm.preflight(vae.model, vae.guide, train[:5] / 16)
except ValueError as error:
    print(str(error).split("\n")[0])

# %% [markdown]
# ## Training
# `ELBO` is the loss, in nats per image. The trainer keeps the weights of the best validation epoch.

# %%
trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=2e-3)
history = trainer.fit(train, val, epochs=EPOCHS, batch_size=100, progress=False)
print(f"best epoch {trainer.best['epoch']}: validation −ELBO {trainer.best['value']:.2f} nats")

figure = Figure(figsize=(6, 3.5), layout="constrained")
axes = figure.subplots()
for name in ("train_nelbo", "val_nelbo"):
    axes.plot(history.column("epoch"), history.column(name), label=name)
axes.set(xlabel="epoch", ylabel="nats per image", ylim=(75, 130))
axes.legend(frameon=False)
figure.savefig(FIGURES / "learning_curve.png", dpi=120)

# %% [markdown]
# ## How likely are images it has never seen?
# The ELBO is only a bound. Importance sampling tightens it: $\log \frac1K \sum_k p(x, z_k) / q(z_k \mid x)$
# with $z_k \sim q(z \mid x)$. Beside the estimate stand its standard error, the effective sample size, and
# k-hat, which says whether the importance weights can be trusted at all (below 0.7).

# %%
score = dgm.nll(vae.model, vae.guide, test, num=DRAWS)
print(score)
print(
    f"−ELBO {score.nelbo.mean():.2f} nats; "
    f"the guide costs {score.nelbo.mean() - score.mean:.2f} nats at least"
)
print(
    f"{dgm.bits_per_dim(score.mean, 64):.3f} bits/dim; a uniform guess needs {torch.tensor(17.0).log2():.3f}"
)

# %% [markdown]
# ## What did the flows buy?
# The same network without flows, from the same seed, trained the same way. (One seed is an anecdote: the
# paired difference per image below says how sure the *test set* makes us, not what another seed would give.)

# %%
plain = declare(flows=False)
dgm.SVITrainer(dgm.ELBO(plain.model, plain.guide), lr=2e-3).fit(
    train, val, EPOCHS, batch_size=100, progress=False
)
plain_score = dgm.nll(plain.model, plain.guide, test, num=DRAWS)
gain = plain_score.per_datum - score.per_datum
error = gain.std() / len(gain) ** 0.5
print(
    f"without flows: NLL {plain_score.mean:.2f}; the flows gain {gain.mean():.2f} ± {error:.2f} nats"
)

# %% [markdown]
# ## Look at it
# New digits from the model, and reconstructions: the image, then $E[x' \mid z]$ for its codes.


# %%
def show(rows: list[torch.Tensor], path: Path) -> None:
    figure = Figure(figsize=(8, 0.9 * len(rows)), layout="constrained")
    for row, line in zip(rows, figure.subplots(len(rows), 10), strict=True):
        for image, axes in zip(row, line, strict=True):
            axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            axes.axis("off")
    figure.savefig(path, dpi=120)


show(list(dgm.generate(vae.model, 30).split(10)), FIGURES / "samples.png")
show(
    [test[:10], dgm.reconstruct(vae.model, vae.guide, test[:10], num=20)["x"]],
    FIGURES / "reconstructions.png",
)

# %% [markdown]
# ## It is still Pyro
# Model and guide are Pyro programs: conditioning, tracing and Pyro's own SVI work on them.

# %%
svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-4}), pyro.infer.Trace_ELBO())
print(f"one step of pyro.infer.SVI: {svi.step(train[:100]) / 100:.2f} nats per image")
code = pyro.poutine.trace(vae.guide).get_trace(test[:1]).nodes["z"]["value"]
image = pyro.poutine.condition(vae.model, {"z": code})(None)
print("an image for a code of our choice:", tuple(image.shape))

# %% [markdown]
# ## And ArviZ reads it
# Draws, log-likelihoods and importance weights of some test images, with named dims.

# %%
posterior = dgm.to_arviz(
    vae.model, vae.guide, test[:20], num=min(DRAWS, 200), dims={"z": ["latent"], "x": ["pixel"]}
)
print(posterior.posterior["z"].sizes)
