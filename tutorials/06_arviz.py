# %% [markdown]
# # A fitted VAE in ArviZ
#
# A guide gives independent draws of $q(z \mid x_i)$ for every datum, with their weights; ArviZ reads draws.
# `to_arviz` writes all that belongs together into one object: draws, predictions, log densities, weights, one
# line of diagnostics per datum, the history of the training. It can be saved, plotted, and compared with
# other models.
#
# 1. One object, and what is in it.
# 2. The worst data first.
# 3. Summaries and plots: one posterior, predictions before and after seeing the data.
# 4. Draws of the posterior rather than of the guide.
# 5. What must *not* be done with it, and why.
# 6. Which model is better? Held-out log p(x), paired over the data.
# 7. Saved and read again.
#
# At full size the script takes about half a minute on one core; `PYRO_DGM_SMOKE=1` runs it in seconds, and its
# numbers then mean nothing. All numbers in the text come from that full run, with ArviZ 0.23. It runs as it
# stands with ArviZ 1.x, where the same object is an `xarray.DataTree`.

# %%
import os
import tempfile
import warnings
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
warnings.filterwarnings("ignore", message=".*ArviZ is undergoing a major refactor.*")

import arviz as az
import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch
import xarray
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.datasets import Digits

SMOKE = bool(os.environ.get("PYRO_DGM_SMOKE"))
EPOCHS, DRAWS, SIMULATED = (2, 60, 30) if SMOKE else (100, 500, 1000)
FIGURES = Path(
    os.environ.get("PYRO_DGM_FIGURES", "runs/smoke/tutorial_06" if SMOKE else "runs/tutorial_06")
)
FIGURES.mkdir(parents=True, exist_ok=True)


def save(name: str) -> None:
    plt.gcf().savefig(FIGURES / name, dpi=120, bbox_inches="tight")
    plt.close("all")


digits = Digits()
train, val, test = digits.train, digits.val, digits.test


def fitted(prior: nn.Module, latent: int) -> tuple[dgm.VAE, dgm.results.History]:
    torch.manual_seed(0)
    encoder = dgm.Conditional(
        dist.Normal, nn.Sequential(dgm.nn.Rescale(0, 16), dgm.mlp(64, 256, 2 * latent))
    )
    likelihood = dgm.DiscretizedLogistic(dgm.mlp(latent, 256, 2 * 64), digits.levels, min_scale=0.3)
    vae = dgm.VAE(prior, likelihood, encoder)
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=2e-3)
    return vae, trainer.fit(train, val, EPOCHS, batch_size=100, progress=False)


vae, history = fitted(dgm.StandardNormal(8), 8)

# %% [markdown]
# ## 1. One object
# Statistics that were computed anyway go in as extra groups: the likelihood of every datum, the ranks of a
# simulation-based calibration, the history.

# %%
score = dgm.nll(vae.model, vae.guide, test, num=DRAWS)
extra = {
    "per_datum": dgm.diagnostics.per_datum_dataset(score),
    "prior_sbc": dgm.diagnostics.sbc_dataset(dgm.sbc(vae.model, vae.guide, num_data=SIMULATED)),
    "training": dgm.training.training_dataset(history),
}
names = {"z": ["latent"], "x": ["pixel"]}
found = dgm.to_arviz(vae.model, vae.guide, test, num=DRAWS, max_data=20, extra=extra, dims=names)
for name, group in found.items():
    print(f"{name:>26}: {dict(group.sizes)}")
print(found["posterior"].attrs["kept"])

# %% [markdown]
# The groups and attributes are those of the InferenceData schema. The draws are independent, and are cut into four
# chains, so that R-hat and the effective sample size are there to be read. Log densities say `units: nats`; grey
# levels are integers, which ArviZ draws as counts.
#
# Draws are kept for 20 data here (at most 200 unless you ask for more: 300 images with 500 predictions of 64
# pixels would be 38 MB), statistics for all 300. The coordinate `datum` is the index in the data set, so that
# rows of different groups belong together.
#
# ## 2. The worst data first

# %%
per_datum = found["per_datum"]
columns = ["log_p", "elbo", "kl", "khat", "ess"]
table = xarray.Dataset({name: per_datum[name] for name in columns})
print(table.isel(datum=score.worst(3)).to_dataframe().round(2))

# %% [markdown]
# Three to ten effective draws out of 500: for these images the guide has missed the posterior, and the estimate of log
# p(x) may be off by more than its error bar. They are the ones to look at, or to give to `hmc`.
#
# ## 3. Summaries and plots

# %%
few = found["posterior"]["datum"].values[:2].tolist()
print(az.summary(found, var_names=["z"], coords={"datum": few[:1]}, kind="stats"))
az.plot_forest(found, var_names=["z"], coords={"datum": few}, combined=True)
save("two_posteriors.png")


def predictive_check(group: str) -> None:
    if az.__version__.startswith("0."):
        az.plot_ppc(found, group=group, num_pp_samples=20, kind="cumulative", random_seed=0)
    else:
        az.plot_ppc_dist(found, group=f"{group}_predictive", num_samples=20, kind="ecdf")
    save(f"{group}_predictive.png")


with warnings.catch_warnings():
    warnings.filterwarnings(
        "ignore", message=".*look discrete"
    )  # ArviZ 1.x: cumulative steps do fit them
    for group in ("prior", "posterior"):
        predictive_check(group)

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.hist(per_datum["khat"].where(abs(per_datum["khat"]) < 4), 40)
axes.axvline(dgm.diagnostics.khat_threshold(DRAWS), color="C1", ls="--", label="threshold")
axes.set(xlabel="k-hat", ylabel="images")
axes.legend(frameon=False)
save("khat.png")

# %% [markdown]
# Predictions from the prior already have the grey levels of the data: the model has learned its images. k-hat
# lies above its threshold for most of the images: the draws of *this* guide should not be taken for the
# posterior's.
#
# ## 4. Draws of the posterior rather than of the guide
# The draws above are the guide's, unweighted; `sample_stats.log_weight` says how far they are from the
# posterior's. With `resampled=True` they are drawn again with Pareto-smoothed importance weights, so that
# every further summary is one of $p(z \mid x)$, as far as k-hat allows.

# %%
resampled = dgm.to_arviz(
    vae.model, vae.guide, test, num=DRAWS, max_data=20, resampled=True, dims=names, extra=extra
)
draws, every = found["posterior"]["z"], ("chain", "draw")
moved = resampled["posterior"]["z"].mean(every) - draws.mean(every)
in_sd = abs(moved / draws.std(every))
print(f"posterior means move by {float(in_sd.mean()):.2f} sd of the guide")

# %% [markdown]
# Half a standard deviation on average. Where k-hat is above its threshold the resampled draws are few
# different ones, and `hmc` is the honest way to the posterior of single data.
#
# ## 5. What must not be done with it
# Leave-one-out cross-validation reweights the draws of *one* posterior to what it would be without a datum.
# Here every datum has a z of its own: without the datum its z falls back to the prior, and weights
# $1 / p(x_i \mid z_i)$ can't bridge that. ArviZ would give a number; the export makes it refuse, and keeps
# $\log p(x_i \mid z_i)$ in a group of another name. A model whose data share all latents has its LOO:
# `tutorials/09_your_own_pyro_program.py`.

# %%
try:
    az.loo(found, var_name="x")
except TypeError as error:
    print(error)
print(dict(found["conditional_log_likelihood"]["x"].sizes))

# %% [markdown]
# ## 6. Which model is better?
# Held-out data have a log p(x), with z integrated out. `compare_elpd` pairs the models over the data and
# passes on what kind of number each is; `elpd_data` gives the same to `az.compare` and its plots.

# %%
flow, _ = fitted(dgm.Flow(dgm.StandardNormal(8), dgm.maf(8, layers=3)), 8)
small, _ = fitted(dgm.StandardNormal(2), 2)
results = {
    "8 latents": score,
    "8 latents, MAF prior": dgm.nll(flow.model, flow.guide, test, num=DRAWS),
    "2 latents": dgm.nll(small.model, small.guide, test, num=DRAWS),
}
print(dgm.compare_elpd(results).to_string())
az.plot_compare(az.compare(dgm.diagnostics.elpd_data(results)))
save("compare.png")

# %% [markdown]
# Ten times its `dse` is what the MAF prior wins over the plain one, 2.4 nats an image, and two latents are
# out of the question. `nll_kind` reminds that each −log p is an upper bound: a guide that is tighter for one
# model would favour it. (`elpd_loo` on an axis of ArviZ 0.x is the only label it knows; nothing was left out here,
# these are held-out data.)
#
# ## 7. Saved and read again

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "vae.nc"
    found.to_netcdf(file, engine="h5netcdf")
    again = dgm.results.read_posterior(file)
    print(f"netCDF: {file.stat().st_size / 1e6:.1f} MB, {len(dict(again.items()))} groups")

# %% [markdown]
# `found.to_zarr("vae.zarr")` writes zarr (`pip install zarr`), which `read_posterior` reads as well.
# Files go from either ArviZ to the other, and `az.from_netcdf` opens them too.
