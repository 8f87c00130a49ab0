"""Programs in Pyro's own idioms, unedited: one table of what they are asked, and Pyro's own answers beside ours."""

from math import isfinite, isnan
from pathlib import Path

import pyro
import pytest
import torch
from gallery import pyro_programs
from gallery.programs import GALLERY
from pyro.infer import SVI, TraceGraph_ELBO

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import derive_seed

pytestmark = pytest.mark.filterwarnings("ignore:site 'obs'. the data are integers")  # of 8 schools

STEPS = 40
RATE = 0.01


def over_gallery(column):
    """All programs; those that lack this column yet are expected to fail, and to say so when they do not."""
    parameters = []
    for name, entry in GALLERY.items():
        marks = []
        if column in entry.lacks:
            marks = [pytest.mark.xfail(strict=True, reason=entry.lacks[column])]
        parameters.append(pytest.param(entry, id=name, marks=marks))
    return pytest.mark.parametrize("entry", parameters)


@pytest.fixture(autouse=True)
def clean_store():
    """Programs of Pyro keep their parameters in its store."""
    yield
    pyro.clear_param_store()


def built(entry, seed=3):
    """The programs, their objective and arguments, with parameters made as at the first step under a seed."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    model, guide, batch = entry.build()
    num = entry.num or len(batch[0])
    pyro.set_rng_seed(seed)
    return model, guide, batch, num


def objective_of(entry, model, guide):
    """The default objective; Pyro's estimator by itself where a site is drawn without a gradient."""
    elbo = entry.elbo()
    if isinstance(elbo, TraceGraph_ELBO):
        return dgm.PyroObjective(model, guide, elbo)
    return dgm.ELBO(model, guide)


def trained(entry):
    model, guide, batch, num = built(entry)
    objective = objective_of(entry, model, guide)
    objective.preflight(*batch)
    trainer = dgm.SVITrainer(objective, lr=RATE)
    data = dgm.Batches(batch, batch_size=len(batch[0]), shuffle=False)
    history = trainer.fit(data, epochs=STEPS, progress=False, seed=1)
    entry.take_all(model)
    return model, guide, batch, [row["train_loss"] * num for row in history.rows]


def test_no_program_of_the_gallery_knows_the_library():
    for path in Path(pyro_programs.__path__[0]).glob("*.py"):
        assert "dgm" not in path.read_text()


@over_gallery("preflight")
def test_preflight_passes(entry):
    model, guide, batch, _ = built(entry)
    structure = dgm.preflight(model, guide, *batch)
    assert structure.observed


@over_gallery("elbo")
def test_the_elbo_is_that_of_pyro(entry):
    model, guide, batch, num = built(entry)
    objective = objective_of(entry, model, guide)
    objective.preflight(*batch)
    pyro.set_rng_seed(7)
    ours = objective(*batch).item() * num
    pyro.set_rng_seed(7)
    theirs = entry.elbo().loss(model, guide, *batch)
    assert ours == pytest.approx(theirs, rel=1e-9)


@over_gallery("trains")
def test_training_goes_where_svi_goes(entry):
    """Same weights, noise, optimizer and steps: the same losses, all along."""
    model, guide, batch, _ = built(entry)
    objective_of(entry, model, guide).preflight(*batch)  # the parameters, as `trained` makes them
    svi = SVI(model, guide, pyro.optim.Adam({"lr": RATE}), entry.elbo())
    torch.manual_seed(derive_seed(1, 0, 0))  # the noise of a trainer of seed 1
    theirs = [svi.step(*batch) for _ in range(STEPS)]
    *_, ours = trained(entry)
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
@over_gallery("estimate")
def test_the_figure_is_one_of_the_evidence(entry):
    """Of many draws it is a tighter bound than the loss; where the evidence is known it is that."""
    model, guide, batch, losses = trained(entry)
    is_known = True
    if entry.has_globals:
        evidence = dgm.evidence(model, guide, *batch, num=2000)
        found, is_known = evidence.value, not isnan(evidence.stderr)
    else:
        found = -dgm.nll(model, guide, *batch, num=2000).mean * len(batch[0])
    if entry.exact is not None:
        exact = entry.exact(*batch)
        assert found < exact + 0.01 * abs(exact)
        assert not is_known or found == pytest.approx(exact, rel=0.01)  # else k-hat says so
    if entry.is_bound:
        assert -found < max(losses[-10:])
    assert isfinite(found)


def test_an_estimate_of_a_program_that_subsamples_asks_for_all_data():
    model, guide, batch, _ = built(GALLERY["probabilistic PCA, subsampled"])
    with pytest.raises(ValueError, match="a plate that takes 10 of 40"):
        dgm.nll(model, guide, *batch)


@over_gallery("to_arviz")
def test_it_is_exported(entry):
    model, guide, batch, _ = trained(entry)
    tree = dgm.to_arviz(model, guide, *batch, num=20)
    assert set(dgm.preflight(model, guide, *batch).latent) <= set(tree["posterior"].data_vars)


@pytest.mark.slow
@over_gallery("check")
def test_it_is_checked(entry):
    model, guide, batch, _ = trained(entry)
    assert str(dgm.check(model, guide, *batch))
