"""What every estimate shares: placed data, counts, and no trace left behind."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from toys import linear_gaussian

import pyro_dgm as dgm
from pyro_dgm.inference.estimating import at_least_one, device_of, estimating, placed


def test_arrays_become_tensors_and_other_arguments_stay():
    x, c, flag = placed(None, (np.ones((3, 2)), torch.zeros(3), "yes"))
    assert torch.equal(x, torch.ones(3, 2, dtype=torch.float64))
    assert c.shape == (3,)
    assert flag == "yes"


def test_tensors_of_different_lengths_raise():
    with pytest.raises(ValueError, match=r"expected tensors of one length, got \[3, 4\]\. Fix: one row per datum"):
        placed(None, (torch.zeros(3, 2), torch.zeros(4, 1)))


def test_a_program_without_tensors_is_on_the_cpu():
    assert device_of(lambda x: x, dgm.EmptyGuide()) == torch.device("cpu")
    assert device_of(dgm.StandardNormal(2)) == torch.device("cpu")


def test_counts_below_one_raise_with_their_name():
    at_least_one(num=1, chunk=2)
    with pytest.raises(ValueError, match="chunk: expected at least 1, got 0"):
        at_least_one(num=1, chunk=0)


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
    with pytest.raises(TypeError, match=r"expected a model and its guide, got .* and Tensor\. Fix: nll\(vae\.model"):
        dgm.nll(model, x)


def test_swapped_programs_are_refused():
    model, guide, x = linear_gaussian()
    with pytest.raises(ValueError, match="model: expected an observed site, got none"):
        dgm.nll(guide, model, x, num=5)


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
