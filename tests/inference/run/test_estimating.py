"""What every estimate shares: placed data, counts, and no trace left behind."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import DataLoader
from toys import linear_gaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.run.estimates import device_of, estimating, placed, require_positive


def test_arrays_become_tensors_and_other_arguments_stay():
    x, c, flag = placed(dgm.EmptyGuide(), (np.ones((3, 2)), torch.zeros(3), "yes"))
    assert torch.equal(x, torch.ones(3, 2, dtype=torch.float64))
    assert c.shape == (3,)
    assert flag == "yes"


def test_tensors_of_different_lengths_raise():
    with pytest.raises(
        ValueError, match=r"expected tensors of one length, got \[3, 4\]\. Fix: one row per datum"
    ):
        placed(dgm.EmptyGuide(), (torch.zeros(3, 2), torch.zeros(4, 1)))


def test_a_program_without_tensors_is_on_the_cpu():
    assert device_of(lambda x: x, dgm.EmptyGuide()) == torch.device("cpu")
    assert device_of(dgm.StandardNormal(2)) == torch.device("cpu")


def test_counts_below_one_raise_with_their_name():
    require_positive(num=1, chunk=2)
    with pytest.raises(ValueError, match="chunk: expected at least 1, got 0"):
        require_positive(num=1, chunk=0)


def test_the_estimates_take_arrays_as_training_does():
    model, guide, x = linear_gaussian()
    as_array, as_tensor = (dgm.nll(model, guide, data, num=5).per_datum for data in (x.numpy(), x))
    assert torch.equal(as_array, as_tensor)
    assert dgm.encode(guide, x.numpy(), num=2)["z"].shape[:2] == (2, len(x))


@pytest.mark.parametrize(
    "call",
    [
        lambda model, guide, x: dgm.generate(model, 0),
        lambda model, guide, x: dgm.encode(guide, x, num=0),
        lambda model, guide, x: dgm.reconstruct(model, guide, x, num=0),
        lambda model, guide, x: dgm.to_arviz(model, guide, x, num=0),
    ],
    ids=["generate", "encode", "reconstruct", "to_arviz"],
)
def test_no_draws_are_refused_everywhere(call):
    with pytest.raises(ValueError, match="num: expected at least 1, got 0"):
        call(*linear_gaussian())


def test_estimating_gives_back_modes_validation_and_random_state():
    model, guide, _ = linear_gaussian()
    model.train()
    before = torch.get_rng_state()
    with estimating(model, guide, seed=3):
        assert not model.training
        assert not torch.is_grad_enabled()
        first = torch.rand(1)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    assert pyro.poutine.util.is_validation_enabled()
    with estimating(model, guide, seed=3):
        assert torch.equal(first, torch.rand(1))


def test_a_vae_in_place_of_its_programs_raises_with_the_fix():
    model, guide, x = linear_gaussian()
    with pytest.raises(
        TypeError, match=r"expected a model and its guide, got .* and Tensor\. Fix: vae\.model, vae"
    ):
        dgm.nll(model, x)
    with pytest.raises(
        TypeError,
        match=r"expected a model and its guide, got VAE and ExactGuide\. Fix: vae\.model, vae",
    ):
        dgm.surgery(toy_vae(), guide, x)


OF_ONE_PROGRAM = {
    "ais": dgm.ais,
    "hmc": dgm.hmc,
    "bdmc": lambda program, *_: dgm.bdmc(program),
    "active_units": dgm.active_units,
    "encode": dgm.encode,
    "generate": lambda program, *_: dgm.generate(program, 3),
}


@pytest.mark.parametrize("call", OF_ONE_PROGRAM.values(), ids=list(OF_ONE_PROGRAM))
def test_a_vae_in_place_of_one_program_raises_with_the_fix(call):
    with pytest.raises(
        TypeError, match=r"expected a Pyro program, .* got VAE\. Fix: vae\.model or vae\.guide"
    ):
        call(toy_vae(), torch.randn(4, 3))


def test_a_compiled_program_is_a_program():
    model, guide, x = linear_gaussian()
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(
        dgm.nll(compiled, guide, x, num=2).per_datum, dgm.nll(model, guide, x, num=2).per_datum
    )


@pytest.mark.parametrize("call", [dgm.encode, dgm.active_units])
def test_a_program_too_many_raises_with_the_calls_that_take_one(call):
    model, guide, x = linear_gaussian()
    with pytest.raises(
        TypeError,
        match=r"got ExactGuide, a program too many\. Fix: encode\(guide, x\), active_units",
    ):
        call(model, guide, x)


OF_DATA = {
    **{
        f.__name__: f
        for f in (
            dgm.nll,
            dgm.surgery,
            dgm.collapse,
            dgm.aggregate_test,
            dgm.to_arviz,
            dgm.reconstruct,
        )
    },
    **{f.__name__: f for f in (dgm.check, dgm.diagnostics.normalization, dgm.unit_kl)},
    "impute": lambda model, guide, *batch: dgm.impute(model, guide, *batch, observed=torch.ones(1)),
    "ais": lambda model, guide, *batch: dgm.ais(model, *batch),
    "hmc": lambda model, guide, *batch: dgm.hmc(model, *batch),
    "active_units": lambda model, guide, *batch: dgm.active_units(guide, *batch),
    "encode": lambda model, guide, *batch: dgm.encode(guide, *batch),
}


@pytest.mark.parametrize("call", OF_DATA.values(), ids=list(OF_DATA))
def test_every_estimate_refuses_what_is_no_tensor_of_data(call):
    model, guide, x = linear_gaussian()
    with pytest.raises(
        ValueError,
        match=r"data: expected x after the programs, got none\. Fix: nll\(model, guide, x\)",
    ):
        call(model, guide)
    for wrong in (x.tolist(), (x,), DataLoader(x), None):
        kind = type(wrong).__name__
        with pytest.raises(
            TypeError,
            match=rf"expected x as a tensor or an array .*, got {kind}\. Fix: torch\.as_tensor",
        ):
            call(model, guide, wrong)
    with pytest.raises(ValueError, match=r"got a 0-dim tensor 3\.0\. Fix: x\[None\]"):
        call(model, guide, torch.tensor(3.0))


@pytest.mark.parametrize("call", [dgm.nll, dgm.surgery, dgm.collapse])
def test_swapped_programs_are_asked_about(call):
    model, guide, x = linear_gaussian()
    with pytest.raises(
        ValueError,
        match=r"none, and \['x'\] in the guide: are model and guide swapped\? Fix: the model",
    ):
        call(guide, model, x, num=5)


class Shares(dgm.Program):
    """A density of whole events: x in the simplex."""

    def forward(self, x=None):
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Dirichlet(torch.full((3,), 2.0)), obs=x)


def test_where_a_support_is_of_whole_events_every_datum_is_looked_at():
    """Neither the smallest nor the largest number is at fault in row 20."""
    x = torch.distributions.Dirichlet(torch.ones(3)).sample((50,))
    dgm.nll(Shares(), dgm.EmptyGuide(), x)
    x[20] = torch.tensor([0.3, 0.3, 0.3])
    with pytest.raises(ValueError, match=r"site 'x': expected values in Simplex"):
        dgm.nll(Shares(), dgm.EmptyGuide(), x)
