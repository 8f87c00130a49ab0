import pytest
import torch
from toys import toy_vae

import pyro_dgm as dgm


@pytest.mark.parametrize("start", [0.0, 0.25])
def test_linear_warmup_is_linear_and_then_one(start):
    beta = dgm.LinearWarmup(4, start=start)
    values = []
    for _ in range(7):
        values.append(beta())
        beta.advance()
    expected = [start + (1 - start) * min(t / 4, 1) for t in range(7)]
    torch.testing.assert_close(torch.stack(values), torch.tensor(expected))


def test_the_state_of_a_warmup_is_a_buffer():
    one, other = dgm.LinearWarmup(10), dgm.LinearWarmup(10)
    for _ in range(3):
        one.advance()
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(), one())
    assert not list(one.parameters())


def test_values_are_tensors_never_floats():
    assert isinstance(dgm.Constant(0.5)(), torch.Tensor)
    assert isinstance(dgm.LinearWarmup(3)(), torch.Tensor)


def test_a_constant_stays():
    beta = dgm.Constant(0.5)
    beta.advance()
    assert beta() == 0.5


def test_a_warmup_of_no_steps_raises():
    with pytest.raises(ValueError, match=r"expected num_steps >= 1, got 0. Fix: Constant\(1.0\)"):
        dgm.LinearWarmup(0)


def test_an_objective_advances_a_schedule_once_even_if_two_sites_share_it():
    vae, beta = toy_vae(), dgm.LinearWarmup(4)
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": beta, "x": beta})
    objective.advance()
    assert beta() == 0.25


@pytest.mark.parametrize("method", ["forward"])
def test_the_abstract_schedule_has_no_value(method):
    with pytest.raises(NotImplementedError, match="Schedule has no value"):
        getattr(dgm.Schedule(), method)()
