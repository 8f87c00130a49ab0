"""One mistake, one answer: what newcomers get wrong, through every public entry that takes it.

An entry either works, and then gives what the right call gives, or it refuses with what was expected, what it got, and
the same fix as every other entry. A mistake is one line of a table, an entry is another; every cell of the product is a
test. Entries to which a mistake does no harm, or that have a better answer of their own, stand in its line by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pyro_dgm as dgm
from pyro_dgm.diagnostics import IntegerWarning, normalization

N, D = 6, 9  # data, and numbers in each

# (entry, mistake) -> why this entry does not give the common answer yet
ALONE = "runs the model without explaining its errors, as the structure of a session does"
NOISE = "its check takes noise from the estimate, and looks at other rows of integers"
COUNT = "compares the count before it looks whether it is one: require_positive(num=num) first"
SEED = "seeds the random state itself: check_seed(seed) first"
GRADIENT = "takes gradients through tensors of inference mode"
BUILT = "modules built in inference mode"
NOT_YET: dict[tuple[str, str], str] = {
    ("active_units", "a batch of one"): "warns of a variance of one datum: name more data",
    ("collapse", "a batch of one"): "warns of a variance of one datum: name more data",
    ("gaps", "integers under a Normal with mlp"): NOISE,
    ("ais", "integers under a Normal with mlp"): NOISE,
    ("hmc", "integers under a Normal with mlp"): NOISE,
    ("ais", "a context left out"): ALONE,
    ("hmc", "a context left out"): ALONE,
    ("ais", "labels that no program takes"): ALONE,
    ("hmc", "labels that no program takes"): ALONE,
    ("ais", "labels as floats"): ALONE,
    ("hmc", "labels as floats"): ALONE,
    ("gaps", "a generator"): "reads the generator twice",
    ("guide_error", "prior and guide of different sizes"): "compares draws of other event shapes",
    ("hmc", "num=0"): "its message has no fix",
    ("active_units", "num as text"): COUNT,
    ("collapse", "num as text"): COUNT,
    ("hmc", "num as text"): COUNT,
    ("check", "seed as a NumPy integer"): SEED,
    ("check", "seed as text"): SEED,
    ("check", "a generator as the seed"): SEED,
    ("check", "no seed"): SEED,
    ("gaps", BUILT): GRADIENT,
    ("ais", BUILT): GRADIENT,
    ("hmc", BUILT): GRADIENT,
    ("bdmc", BUILT): GRADIENT,
    ("check", BUILT): GRADIENT,
}


# -- the pairs ------------------------------------------------------------------------------------
class Labelled(nn.Module):
    """A network over a value and a label, which it looks up in a table."""

    def __init__(self, num_in: int, num_out: int):
        super().__init__()
        self.table = nn.Embedding(3, 2)
        self.net = dgm.Concat(nn.Linear(num_in + 2, num_out))

    def forward(self, value: Tensor, label: Tensor) -> Tensor:
        return self.net(value, self.table(label))


class Silent(dgm.Program):
    """A model that returns nothing."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, D)

    def forward(self, x: Tensor | None = None) -> None:
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


class Critic(nn.Module):
    """One logit per datum, whatever the context."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(D, 1)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        return self.net(x)


def vae_of(likelihood: nn.Module, encoder_net: nn.Module) -> dgm.VAE:
    return dgm.VAE(dgm.StandardNormal(2), likelihood, dgm.Conditional(dist.Normal, encoder_net))


def conditional_pair() -> dgm.VAE:
    likelihood = dgm.Normal(dgm.Concat(nn.Linear(2 + 3, D)))
    return vae_of(likelihood, dgm.Concat(nn.Linear(D + 3, 4)))


PAIRS = {
    "real": lambda: vae_of(dgm.Normal(nn.Linear(2, D)), nn.Linear(D, 4)),
    "real, mlp": lambda: vae_of(dgm.Normal(dgm.mlp(2, D)), dgm.mlp(D, 4)),
    "binary": lambda: vae_of(dgm.Bernoulli(nn.Linear(2, D)), nn.Linear(D, 4)),
    "binary, mlp": lambda: vae_of(dgm.Bernoulli(dgm.mlp(2, D)), dgm.mlp(D, 4)),
    "levels": lambda: vae_of(dgm.DiscretizedLogistic(dgm.mlp(2, 2 * D), 16), dgm.mlp(D, 4)),
    "counts": lambda: vae_of(dgm.Poisson(dgm.mlp(2, D)), dgm.mlp(D, 4)),
    "conditional": conditional_pair,
    "labelled": lambda: vae_of(dgm.Normal(Labelled(2, D)), Labelled(D, 4)),
    "float32": lambda: vae_of(dgm.Normal(nn.Linear(2, D)), nn.Linear(D, 4)).float(),
}


def build(name: str) -> dgm.VAE:
    """A pair, the same whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return PAIRS[name]()


def normal(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def real() -> Tensor:
    return normal(N, D)


def binary() -> Tensor:
    return (real() > 0).to(real().dtype)


def levels() -> Tensor:
    return (4 * real()).round().clamp(-8, 7) + 8


def context() -> Tensor:
    return normal(N, 3, seed=6)


def spoilt(value: float) -> Tensor:
    x = real()
    x[4, 3] = value
    return x


# -- the entries that take data -------------------------------------------------------------------
def data_of(batch: tuple[Any, ...]) -> Any:
    return batch[0] if len(batch) == 1 else batch


def fit(objective: type, **options: Any) -> Callable[..., Any]:
    def entry(model, guide, *batch, seed=0):
        trainer = dgm.SVITrainer(objective(model, guide, **options))
        return trainer.fit(data_of(batch), batch_size=8, progress=False, seed=seed).rows

    return entry


def fit_with_val(model, guide, *batch, seed=0):
    trainer = dgm.SVITrainer(dgm.ELBO(model, guide))
    data = data_of(batch)
    return trainer.fit(data, data, batch_size=8, progress=False, seed=seed).rows


def evaluate(model, guide, *batch, seed=0):
    return dgm.SVITrainer(dgm.ELBO(model, guide)).evaluate(data_of(batch), seed=seed)


def fit_gan(model, guide, *batch, seed=0):
    with torch.random.fork_rng(), torch.inference_mode(mode=False):
        torch.manual_seed(4)
        critic = Critic().to(dtype_of(model))
    trainer = dgm.GANTrainer(model, critic, penalties=())
    return trainer.fit(data_of(batch), batch_size=8, progress=False, seed=seed).rows


def dtype_of(model: Any) -> torch.dtype:
    tensors = list(model.parameters()) if isinstance(model, nn.Module) else []
    return tensors[0].dtype if tensors else torch.get_default_dtype()


def mask_of(batch: tuple[Any, ...]) -> Tensor:
    """The first four dims, as a mask of one datum."""
    shape = (D,)
    if batch and isinstance(batch[0], Tensor) and batch[0].dim() > 1:
        shape = tuple(batch[0].shape[1:])
    return (torch.arange(torch.Size(shape).numel()) < 4).reshape(shape)


def impute(model, guide, *batch, **options):
    return dgm.impute(
        model, guide, *batch, observed=mask_of(batch), **{"num": 2, "num_weights": 4} | options
    )


def conditional_nll(model, guide, *batch, **options):
    given = mask_of(batch)
    return dgm.conditional_nll(model, guide, *batch, of=~given, given=given, **{"num": 4} | options)


def marginal_nll(model, guide, *batch, **options):
    return dgm.marginal_nll(model, guide, *batch, observed=mask_of(batch), **{"num": 4} | options)


def guide_error(model, guide, *batch, seed=0):
    with torch.inference_mode(mode=False):
        vae = build("real")
    chains = dgm.hmc(vae.model, real(), num=4, warmup=4, chains=2, leapfrog=2)
    return dgm.guide_error(guide, chains, *batch, seed=seed)


def check(model, guide, *batch, **options):
    """The report; where its first item says that the data do not fit the pair, that is the answer."""
    report = dgm.check(model, guide, *batch, **{"num": 4, "num_simulated": 20} | options)
    found = report["data and sites"]
    if found.status.value != "PASS":
        raise ValueError(f"{found.finding} Fix: {found.advice}")


def draw(model, guide, *batch, num=2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return dgm.draw(model, guide, *batch, num=num).log_weight


def call(verb: Callable[..., Any], **defaults: Any) -> Callable[..., Any]:
    def entry(model, guide, *batch, **options):
        return verb(model, guide, *batch, **defaults | options)

    return entry


def of_model(verb: Callable[..., Any], *first: Any, **defaults: Any) -> Callable[..., Any]:
    def entry(model, guide, *batch, **options):
        return verb(model, *first, *batch, **defaults | options)

    return entry


def of_guide(verb: Callable[..., Any], **defaults: Any) -> Callable[..., Any]:
    def entry(model, guide, *batch, **options):
        return verb(guide, *batch, **defaults | options)

    return entry


ON_DATA: dict[str, Callable[..., Any]] = {
    "fit of ELBO": fit(dgm.ELBO),
    "fit of IWELBO": fit(dgm.IWELBO, num_particles=3),
    "fit with val": fit_with_val,
    "evaluate": evaluate,
    "fit of GAN": fit_gan,
    "preflight": call(dgm.preflight),
    "draw": draw,
    "nll": call(dgm.nll, num=4),
    "surgery": call(dgm.surgery, num=20),
    "gaps": call(dgm.gaps, num=4, num_steps=2),
    "unit_kl": call(dgm.unit_kl, num=4),
    "active_units": of_guide(dgm.active_units, num=4),
    "collapse": call(dgm.collapse, num=4),
    "aggregate_test": call(dgm.aggregate_test, num=20, num_permutations=9),
    "normalization": call(normalization, num_data=2),
    "ais": of_model(dgm.ais, num=2, steps=2, leapfrog=2),
    "hmc": of_model(dgm.hmc, num=4, chains=2, warmup=4, leapfrog=2),
    "check": check,
    "to_arviz": call(dgm.to_arviz, num=4),
    "encode": of_guide(dgm.encode, num=2),
    "reconstruct": call(dgm.reconstruct, num=2),
    "impute": impute,
    "conditional_nll": conditional_nll,
    "marginal_nll": marginal_nll,
    "guide_error": guide_error,
}

# The entries whose model makes the data.
ORIGIN = torch.zeros(3, 2, dtype=torch.float64)
OF_PRIOR: dict[str, Callable[..., Any]] = {
    "generate": of_model(dgm.generate, 3),
    "sbc": call(dgm.sbc, num_data=20, num_draws=9),
    "bdmc": of_model(dgm.bdmc, num_data=3, num=2, steps=2, leapfrog=2),
    "decode": of_model(dgm.decode, ORIGIN),
    "traverse": of_model(dgm.traverse, ORIGIN),
    "interpolate": of_model(dgm.interpolate, ORIGIN, ORIGIN + 1),
}

TRAINED = ("fit of ELBO", "fit of IWELBO", "fit with val", "evaluate", "fit of GAN")
MODEL_ALONE = ("ais", "hmc", "generate", "bdmc", "decode", "traverse", "interpolate")
GUIDE_ALONE = ("active_units", "encode", "guide_error")
GAN = "fit of GAN"
MASKED = ("impute", "conditional_nll", "marginal_nll")


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
        "binary", lambda: (binary().bool(),), "x.double()", answers=INTEGERS
    ),
    "integers under a Bernoulli": Mistake(
        "binary",
        lambda: (binary().long(),),
        "x.double()",
        answers=INTEGERS,
    ),
    "integers under a Bernoulli with mlp": Mistake(
        "binary, mlp",
        lambda: (binary().long(),),
        "x.double()",
        harmless=GUIDE_ALONE,
        answers=INTEGERS,
    ),
    "bool under a Normal": Mistake(
        "real", lambda: (binary().bool(),), "x.double()", answers=INTEGERS
    ),
    "integers under a Normal": Mistake(
        "real",
        lambda: (levels().long(),),
        "x.double()",
        harmless=("ais", "hmc"),
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
    "a model that returns nothing": WrongPair(
        lambda vae: (Silent(), vae.guide),
        answers={
            **dict.fromkeys(("generate", "decode", "traverse", "interpolate"), "site='x'"),
            **dict.fromkeys(("sbc", "bdmc", "aggregate_test"), "return pyro.sample('x', …)"),
        },
    ),
}


# -- the mistakes in the options ------------------------------------------------------------------
@dataclass(frozen=True)
class WrongOption:
    """Options of a call, and the entries that have them."""

    options: Mapping[str, Any]
    entries: tuple[str, ...]
    fix: str | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    harmless: tuple[str, ...] = ()

    answer = Mistake.answer


WITH_NUM = (
    *("draw", "nll", "surgery", "gaps", "unit_kl", "active_units", "collapse", "aggregate_test"),
    *("ais", "hmc", "check", "to_arviz", "encode", "reconstruct", "impute", "conditional_nll"),
    *("marginal_nll", "bdmc"),
)
WITH_SEED = tuple(
    name
    for name in (*ON_DATA, *OF_PRIOR)
    if name not in ("preflight", "draw", "decode", "traverse", "interpolate")
)
IN_OPTIONS: dict[str, WrongOption] = {
    "num=0": WrongOption({"num": 0}, WITH_NUM, "num="),
    "num as text": WrongOption({"num": "many"}, WITH_NUM, "num="),
    "num as a NumPy integer": WrongOption({"num": np.int64(4)}, WITH_NUM),
    "seed as a NumPy integer": WrongOption({"seed": np.int64(0)}, WITH_SEED),
    "seed as text": WrongOption({"seed": "first"}, WITH_SEED, "seed=0"),
    "a generator as the seed": WrongOption({"seed": torch.Generator()}, WITH_SEED, "seed=0"),
    "no seed": WrongOption({"seed": None}, WITH_SEED, "seed=0"),
}


# -- what a cell must do --------------------------------------------------------------------------
def expect(answer: str | None, run: Callable[[], Any]) -> Any:
    """The result if there is no answer to expect; else the error, which names what, and the fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegerWarning)  # a warning is no answer
        warnings.filterwarnings("ignore", message=".*gradient.*")
        if answer is None:
            return run()
        with pytest.raises((TypeError, ValueError)) as caught:
            run()
    words = str(caught.value)
    assert "expected" in words
    assert "got" in words
    assert answer in words.partition("Fix:")[2], words
    return None


def numbers(result: Any) -> list[Tensor]:
    """All numbers of a result, in their order; the seconds that a fit took are none of it."""
    if isinstance(result, (Tensor, int, float)):
        return [torch.as_tensor(result, dtype=torch.float64)]
    if is_dataclass(result):
        result = {f.name: getattr(result, f.name) for f in fields(result)}
    if isinstance(result, Mapping):
        result = [value for name, value in result.items() if name != "seconds"]
    found = []
    if isinstance(result, (list, tuple)):
        for value in result:
            found += numbers(value)
    return found


def cells(entries: Mapping[str, Any], mistakes: Mapping[str, Any]) -> list[Any]:
    """All pairs of an entry and a mistake; those that are known not to hold are expected to fail."""
    found = []
    for mistake in mistakes:
        for entry in entries:
            marks = []
            if (entry, mistake) in NOT_YET:
                marks = [pytest.mark.xfail(strict=False, reason=NOT_YET[entry, mistake])]
            found.append(pytest.param(entry, mistake, marks=marks, id=f"{entry}-{mistake}"))
    return found


@pytest.mark.parametrize(("entry", "mistake"), cells(ON_DATA, IN_DATA))
def test_a_mistake_in_the_data_has_one_answer(entry, mistake):
    case = IN_DATA[mistake]
    vae = build(case.pair)
    answer = case.answer(entry)
    result = expect(answer, lambda: ON_DATA[entry](vae.model, vae.guide, *case.batch()))
    if answer is not None or case.right is None or entry in TRAINED:
        return  # the noise goes by batches, whose sizes and order are a loader's own
    right = expect(None, lambda: ON_DATA[entry](vae.model, vae.guide, *case.right()))
    torch.testing.assert_close(numbers(result), numbers(right), equal_nan=True)


@pytest.mark.parametrize(("entry", "mistake"), cells(ON_DATA | OF_PRIOR, IN_PROGRAMS))
def test_a_mistake_in_the_programs_has_one_answer(entry, mistake):
    case = IN_PROGRAMS[mistake]
    model, guide = case.programs(build("real"))
    batch = case.batch() if entry in ON_DATA else ()
    if entry in (*MODEL_ALONE, *GUIDE_ALONE, GAN) and not batch and entry in ON_DATA:
        batch = (real(),)  # takes no guide, or the data are the guide
    run = (ON_DATA | OF_PRIOR)[entry]
    expect(case.answer(entry), lambda: run(model, guide, *batch))


OPTION_CELLS = [
    cell for cell in cells(ON_DATA | OF_PRIOR, IN_OPTIONS)
    if cell.values[0] in IN_OPTIONS[cell.values[1]].entries
]  # fmt: skip


@pytest.mark.parametrize(("entry", "mistake"), OPTION_CELLS)
def test_a_mistake_in_an_option_has_one_answer(entry, mistake):
    case, vae = IN_OPTIONS[mistake], build("real")
    batch = (real(),) if entry in ON_DATA else ()
    run = (ON_DATA | OF_PRIOR)[entry]
    expect(case.answer(entry), lambda: run(vae.model, vae.guide, *batch, **case.options))


# -- what is around a call ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "around", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"]
)
@pytest.mark.parametrize("entry", list(ON_DATA | OF_PRIOR))
def test_an_entry_gives_the_same_without_gradients_around_it(entry, around):
    run, batch = (ON_DATA | OF_PRIOR)[entry], (real(),) if entry in ON_DATA else ()
    right = run(build("real").model, build("real").guide, *batch)
    vae = build("real")
    with around():
        found = run(vae.model, vae.guide, *batch)
    torch.testing.assert_close(numbers(found), numbers(right), equal_nan=True)


@pytest.mark.parametrize(("entry", "mistake"), cells(ON_DATA | OF_PRIOR, {BUILT: None}))
def test_modules_that_were_built_in_inference_mode_work_or_are_refused(entry, mistake):
    run, batch = (ON_DATA | OF_PRIOR)[entry], (real(),) if entry in ON_DATA else ()
    with torch.inference_mode():
        vae = build("real")
    trained = entry in TRAINED or entry in ("draw", "check")
    trained = trained or entry in ("gaps", "ais", "hmc", "bdmc")
    answer = "outside of it" if trained else None
    expect(answer, lambda: run(vae.model, vae.guide, *batch))


# -- constructions --------------------------------------------------------------------------------
S = lambda: dgm.StandardNormal(2)  # noqa: E731
L = lambda: dgm.Normal(nn.Linear(2, D))  # noqa: E731
E = lambda: dgm.Conditional(dist.Normal, nn.Linear(D, 4))  # noqa: E731
PAIR = lambda: (build("real").model, build("real").guide)  # noqa: E731


def frozen() -> tuple[nn.Module, nn.Module]:
    model, guide = PAIR()
    return model.requires_grad_(False), guide.requires_grad_(False)


CONSTRUCTIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "VAE of a distribution as prior": (lambda: dgm.VAE(a_distribution(), L(), E()), "prior=StandardNormal(8)"),
    "VAE of a class as prior": (lambda: dgm.VAE(dgm.StandardNormal, L(), E()), "prior=StandardNormal(8)"),
    "VAE of a network as likelihood": (lambda: dgm.VAE(S(), nn.Linear(2, D), E()), "likelihood=Bernoulli(net)"),
    "VAE of a network as encoder": (lambda: dgm.VAE(S(), L(), nn.Linear(D, 4)), "Conditional(dist.Normal, net)"),
    "VAE of a guide as encoder": (lambda: dgm.VAE(S(), L(), build("real").guide), "Conditional(dist.Normal, net)"),
    "DensityModel of a distribution": (lambda: dgm.DensityModel(a_distribution()), "Flow(StandardNormal"),
    "Flow of a distribution": (lambda: dgm.Flow(a_distribution(), dgm.maf(2, 1)), "StandardNormal("),
    "Flow of a transformer": (lambda: dgm.Flow(S(), dgm.flows.Affine()), "Coupling(dim, transformer=Affine())"),
    "Flow of a list of transformers": (lambda: dgm.Flow(S(), [dgm.flows.Spline()]), "Coupling(dim, transformer=Spline())"),
    "Conditional of a distribution": (lambda: dgm.Conditional(a_distribution(), nn.Linear(D, 4)), "dist.Normal"),
    "Conditional without a network": (lambda: dgm.Conditional(dist.Normal, nn.Linear), "net=mlp("),
    "ELBO of a VAE": (lambda: dgm.ELBO(build("real")), "vae.model, vae.guide"),
    "ELBO of a model alone": (lambda: dgm.ELBO(PAIR()[0]), "ELBO(model, guide)"),
    "ELBO of no particles": (lambda: dgm.ELBO(*PAIR(), num_particles=0), "num_particles=1"),
    "IWELBO of no particles": (lambda: dgm.IWELBO(*PAIR(), num_particles=0), "num_particles=1"),
    "NoiseGuide of a distribution": (lambda: dgm.NoiseGuide(a_distribution()), "UnitUniform()"),
    "SVITrainer of a model": (lambda: dgm.SVITrainer(PAIR()[0]), "ELBO("),
    "SVITrainer of a VAE": (lambda: dgm.SVITrainer(build("real")), "ELBO(vae.model, vae.guide)"),
    "SVITrainer of a class": (lambda: dgm.SVITrainer(dgm.ELBO), "ELBO("),
    "SVITrainer of no parameters": (
        lambda: dgm.SVITrainer(dgm.ELBO(dgm.DensityModel(S()), dgm.EmptyGuide())), "",
    ),
    "SVITrainer of frozen programs": (lambda: dgm.SVITrainer(dgm.ELBO(*frozen())), "requires_grad_(True)"),
    "GANTrainer of a VAE": (lambda: dgm.GANTrainer(build("real"), Critic()), "vae.generator"),
    "GANTrainer of a class as critic": (lambda: dgm.GANTrainer(PAIR()[0], Critic), "Critic("),
    "GANTrainer of a class as game": (
        lambda: dgm.GANTrainer(PAIR()[0], Critic(), dgm.NonSaturating), "NonSaturating()",
    ),
    "khat of one row": (lambda: dgm.khat(torch.randn(100)), "log_weight[:, None]"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CONSTRUCTIONS))
def test_a_mistake_in_a_construction_is_refused_with_the_fix(name):
    build_it, fix = CONSTRUCTIONS[name]
    expect(fix, build_it)


@pytest.mark.parametrize(
    "convert", [lambda w: w.numpy(), lambda w: w.bfloat16()], ids=["array", "bfloat16"]
)
def test_khat_takes_arrays_and_half_precision(convert):
    log_weight = normal(100, 2).bfloat16().to(torch.get_default_dtype())
    found, right = dgm.khat(convert(log_weight)), dgm.khat(log_weight.float())
    torch.testing.assert_close(found.double(), right.double(), rtol=1e-3, atol=1e-3)


def test_there_are_at_least_twenty_five_mistakes():
    assert len(IN_DATA) + len(IN_PROGRAMS) + len(IN_OPTIONS) + len(CONSTRUCTIONS) >= 75
