"""What newcomers get wrong, one line each: in the data, in the programs, in the options of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from house.entries import (
    GAN,
    GUIDE_ALONE,
    MASKED,
    MODEL_ALONE,
    TRAINED,
    D,
    N,
    Silent,
    binary,
    context,
    levels,
    normal,
    real,
    spoilt,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pyro_dgm as dgm


# -- the mistakes in the data ---------------------------------------------------------------------
@dataclass(frozen=True)
class Mistake:
    """What is handed over in place of x.

    Attributes:
        pair: whose data they are.
        batch: the arguments after the programs.
        fix: what every entry names; `None` where all of them work.
        right: arguments that must give the same numbers, where they work.
        harmless: entries that work.
        answers: entry -> the fix that is right there.
    """

    pair: str
    batch: Callable[[], tuple[Any, ...]]
    fix: str | None = None
    right: Callable[[], tuple[Any, ...]] | None = None
    harmless: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)

    def answer(self, entry: str) -> str | None:
        """The fix that an entry must name, or `None` if it must work."""
        return None if entry in self.harmless else self.answers.get(entry, self.fix)


def loader(x: Tensor, size: int = 4, **options: Any) -> DataLoader:
    return DataLoader(TensorDataset(x), size, **options)


ROWS = "x[x.isfinite()"
OTHER_DATA = {"guide_error": "the same x for both"}  # than the chains have
NO_DENSITY = (*GUIDE_ALONE, GAN)  # no density of x is asked for
MODELS_DRAWS = ("ais", "hmc")  # no encoder sees the data
INTEGERS = {GAN: "integer levels get noise"}
HALF_NAMED = dict.fromkeys(MASKED, "observed & x.isfinite()")

IN_DATA: dict[str, Mistake] = {
    "the right call": Mistake("real", lambda: (real(),)),
    "a batch of one": Mistake(
        "real",
        lambda: (real()[:1],),
        answers={
            **OTHER_DATA,
            **dict.fromkeys(("active_units", "collapse", "aggregate_test"), "more data"),
        },
    ),
    "images not flattened": Mistake("real", lambda: (real().reshape(N, 3, 3),), "x.flatten(1)"),
    "another width": Mistake("real", lambda: (normal(N, 7),), "(7,)"),
    "one datum without its dim": Mistake(
        "real", lambda: (real()[0],), "x[None]", answers=OTHER_DATA
    ),
    "a 0-dim tensor": Mistake("real", lambda: (torch.tensor(3.0),), "x[None]"),
    "NaN": Mistake("real", lambda: (spoilt(np.nan),), ROWS, answers=HALF_NAMED),
    "infinite": Mistake("real", lambda: (spoilt(np.inf),), ROWS, answers=HALF_NAMED),
    "empty": Mistake("real", lambda: (real()[:0],), "at least one"),
    "None": Mistake("real", lambda: (None,), "torch.as_tensor(x)"),
    "a number": Mistake("real", lambda: (3,), "torch.as_tensor(x)"),
    "a list of numbers": Mistake("real", lambda: (real().tolist(),), "torch.as_tensor(x)"),
    "a tuple of arguments": Mistake(
        "conditional", lambda: ((real(), context()),), "*x", harmless=TRAINED
    ),
    "an array": Mistake("real", lambda: (real().numpy(),), right=lambda: (real(),)),
    "uint16": Mistake("levels", lambda: (levels().to(torch.uint16),), answers=INTEGERS),
    "negative strides": Mistake(
        "real", lambda: (real().numpy()[::-1],), right=lambda: (real().flip(0),)
    ),
    "big-endian": Mistake("real", lambda: (real().numpy().astype(">f8"),), right=lambda: (real(),)),
    "a DataFrame": Mistake("real", lambda: (pd.DataFrame(real()),), right=lambda: (real(),)),
    "a DataFrame with a text column": Mistake(
        "real", lambda: (pd.DataFrame(real()).assign(name="a"),), "select_dtypes('number')"
    ),
    "bool under a Bernoulli": Mistake(
        "binary", lambda: (binary().bool(),), "x.double()", harmless=MODELS_DRAWS, answers=INTEGERS
    ),
    "integers under a Bernoulli": Mistake(
        "binary",
        lambda: (binary().long(),),
        "x.double()",
        harmless=MODELS_DRAWS,
        answers=INTEGERS,
    ),
    "integers under a Bernoulli with mlp": Mistake(
        "binary, mlp",
        lambda: (binary().long(),),
        right=lambda: (binary(),),
        answers=INTEGERS,
    ),
    "bool under a Normal": Mistake(
        "real", lambda: (binary().bool(),), "x.double()", harmless=MODELS_DRAWS, answers=INTEGERS
    ),
    "integers under a Normal": Mistake(
        "real",
        lambda: (levels().long(),),
        "x.double()",
        harmless=MODELS_DRAWS,
        answers=INTEGERS,
    ),
    "integers under a Normal with mlp": Mistake(
        "real, mlp",
        lambda: (levels().long(),),
        right=lambda: (levels(),),
        answers=INTEGERS | dict.fromkeys(MASKED, "x.float()"),
    ),
    "float64 under float32 networks": Mistake(
        "float32", lambda: (real().double(),), "x.float()", harmless=("ais", "hmc")
    ),
    "grey values under a Bernoulli": Mistake(
        "binary", lambda: (real().sigmoid(),), "binarize(x / x.max())", harmless=NO_DENSITY
    ),
    "negative counts": Mistake("counts", lambda: (levels() - 12,), "x - (", harmless=NO_DENSITY),
    "a context of another length": Mistake(
        "conditional", lambda: (real(), context()[:4]), "one row per datum"
    ),
    "a context of one row": Mistake(
        "conditional", lambda: (real(), context()[:1]), "one row per datum"
    ),
    "a context without rows": Mistake(
        "conditional", lambda: (real(), context()[0]), "one row per datum"
    ),
    "a context left out": Mistake("conditional", lambda: (real(),), "context"),
    "labels that no program takes": Mistake(
        "real", lambda: (real(), torch.arange(N)), "drop the labels"
    ),
    "labels as floats": Mistake(
        "labelled", lambda: (real(), torch.arange(N) % 3 * 1.0), "labels.long()"
    ),
    "a loader": Mistake("real", lambda: (loader(real()),), right=lambda: (real(),)),
    "a Dataset": Mistake("real", lambda: (TensorDataset(real()),), right=lambda: (real(),)),
    "a list of batches": Mistake("real", lambda: (list(real().split(4)),), right=lambda: (real(),)),
    "a loader and a context": Mistake(
        "conditional",
        lambda: (loader(real()), context()),
        "batches (x, context)",
        answers=dict.fromkeys(TRAINED, "DataLoader"),
    ),
    "an empty loader": Mistake(
        "real", lambda: (loader(real(), 8, drop_last=True),), "drop_last=False"
    ),
    "a generator": Mistake(
        "real",
        lambda: (iter(real().split(4)),),
        right=lambda: (real(),),
        answers=dict.fromkeys(TRAINED, "a DataLoader"),
    ),
    "NaN in a later batch": Mistake(
        "real", lambda: (loader(spoilt(np.nan)),), ROWS, answers=HALF_NAMED
    ),
}


# -- the mistakes in the programs -----------------------------------------------------------------
@dataclass(frozen=True)
class WrongPair:
    """What is handed over in place of the two programs: as `Mistake`."""

    programs: Callable[[dgm.VAE], tuple[Any, Any]]
    fix: str | None = None
    harmless: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    batch: Callable[[], tuple[Any, ...]] = lambda: (real(),)

    answer = Mistake.answer


def other_size(vae: dgm.VAE) -> tuple[Any, Any]:
    return vae.model, dgm.AmortizedGuide(dgm.Conditional(dist.Normal, nn.Linear(D, 6)))


def a_distribution() -> Any:
    return dist.Normal(torch.zeros(2), 1.0).to_event(1)


A_MODEL = "LatentVariableModel(prior, likelihood)"
A_GUIDE = "AmortizedGuide(Conditional(dist.Normal, net))"
NO_GUIDE = (*MODEL_ALONE, GAN)  # take no guide
SWAPPED = {
    **dict.fromkeys(MODEL_ALONE, "the model"),
    **dict.fromkeys(GUIDE_ALONE, "encode(guide, x)"),
    GAN: "GANTrainer(",
}

IN_PROGRAMS: dict[str, WrongPair] = {
    "pair swapped": WrongPair(
        lambda vae: (vae.guide, vae.model), "the model first, then its guide", answers=SWAPPED
    ),
    "a VAE in place of both": WrongPair(
        lambda vae: (vae, vae),
        "vae.model",
        answers={GAN: "vae.generator"} | dict.fromkeys(GUIDE_ALONE, "vae.guide"),
    ),
    "a VAE in place of the model": WrongPair(
        lambda vae: (vae, vae.guide),
        "vae.model",
        harmless=GUIDE_ALONE,
        answers={GAN: "vae.generator"},
    ),
    "a VAE in place of the guide": WrongPair(
        lambda vae: (vae.model, vae), "vae.guide", harmless=NO_GUIDE
    ),
    "None in place of the guide": WrongPair(
        lambda vae: (vae.model, None), "vae.guide", harmless=NO_GUIDE
    ),
    "no guide, the data in its place": WrongPair(
        lambda vae: (vae.model, real()),
        "vae.guide",
        harmless=NO_GUIDE,
        batch=tuple,
    ),
    "a distribution in place of the model": WrongPair(
        lambda vae: (a_distribution(), vae.guide), A_MODEL, harmless=GUIDE_ALONE
    ),
    "a distribution in place of the guide": WrongPair(
        lambda vae: (vae.model, a_distribution()), A_GUIDE, harmless=NO_GUIDE
    ),
    "a conditional in place of the model": WrongPair(
        lambda vae: (dgm.Normal(nn.Linear(2, D)), vae.guide), A_MODEL, harmless=GUIDE_ALONE
    ),
    "a conditional in place of the guide": WrongPair(
        lambda vae: (vae.model, dgm.Conditional(dist.Normal, nn.Linear(D, 4))),
        A_GUIDE,
        harmless=NO_GUIDE,
    ),
    "a network in place of the guide": WrongPair(
        lambda vae: (vae.model, nn.Linear(D, 4)), A_GUIDE, harmless=NO_GUIDE
    ),
    "a class in place of the model": WrongPair(
        lambda vae: (dgm.LatentVariableModel, vae.guide),
        "an instance, LatentVariableModel(…)",
        harmless=GUIDE_ALONE,
        answers={GAN: "an instance, such as LatentVariableModel(…)"},
    ),
    "a class in place of the guide": WrongPair(
        lambda vae: (vae.model, dgm.AmortizedGuide),
        "an instance, AmortizedGuide(…)",
        harmless=NO_GUIDE,
    ),
    "an objective in place of the model": WrongPair(
        lambda vae: (dgm.ELBO(vae.model, vae.guide), vae.guide),
        "objective.model",
        harmless=GUIDE_ALONE,
    ),
    "prior and guide of different sizes": WrongPair(
        other_size,
        "one size for prior and guide",
        harmless=(*NO_GUIDE, "active_units", "encode"),
        answers={"guide_error": "the guide of the model"},
    ),
    "a model that returns nothing": WrongPair(  # right: its data are read from the site
        lambda vae: (Silent(), vae.guide),
    ),
}
