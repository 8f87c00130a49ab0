"""Functions of programs as kernels, or as a script where they are long."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_dgm.inference.training.compiled import functions
from pyro_dgm.inference.training.compiled.functions import CompiledFunction, RepeatedFunction


@pytest.fixture
def as_script(monkeypatch):
    """Every graph counts as long: a script takes no compiler."""
    monkeypatch.setattr(functions, "LONG", 0)


def noisy(net, calls=None):
    """A function of a network that draws twice, and says when it runs."""

    def function(x):
        if calls is not None:
            calls.append(len(x))
        return [net(x) + torch.randn_like(x), torch.rand(3)]

    return function


def under(seed, function, *inputs):
    torch.manual_seed(seed)
    with torch.no_grad():
        return [value.clone() for value in function(*inputs)]


@pytest.mark.usefixtures("as_script")
def test_a_script_draws_the_numbers_of_the_function():
    net = nn.Linear(2, 2)
    function = noisy(net)
    compiled = CompiledFunction(function, [net, None], (torch.zeros(4, 2),))
    x = torch.randn(4, 2)
    torch.testing.assert_close(under(1, compiled, x), under(1, function, x))


@pytest.mark.slow
def test_kernels_draw_the_numbers_of_the_function():
    net = nn.Linear(2, 2)
    function = noisy(net)
    compiled = CompiledFunction(function, [net], (torch.zeros(4, 2),))
    x = torch.randn(4, 2)
    torch.testing.assert_close(under(1, compiled, x), under(1, function, x))


@pytest.mark.slow
def test_kernels_take_arguments_of_any_strides():
    net = nn.Linear(2, 2)
    compiled = CompiledFunction(lambda x: [net(x)], [net], (torch.zeros(4, 2),))
    x = torch.randn(2, 4).T
    torch.testing.assert_close(compiled(x)[0], net(x).detach())


@pytest.mark.usefixtures("as_script")
def test_the_function_runs_no_more_once_it_is_built():
    calls = []
    net = nn.Linear(2, 2)
    compiled = CompiledFunction(noisy(net, calls), [net], (torch.zeros(4, 2),))
    num = len(calls)
    compiled(torch.ones(4, 2))
    assert len(calls) == num


@pytest.mark.usefixtures("as_script")
def test_parameters_are_those_of_the_modules_when_they_are_changed_in_place():
    net = nn.Linear(2, 2)
    compiled = CompiledFunction(lambda x: [net(x)], [net], (torch.zeros(4, 2),))
    with torch.no_grad():
        net.weight.mul_(2.0)
    x = torch.randn(4, 2)
    torch.testing.assert_close(compiled(x)[0], net(x).detach())


@pytest.mark.usefixtures("as_script")
def test_building_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    CompiledFunction(noisy(nn.Identity()), [], (torch.ones(4, 2),))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_function_that_reads_a_value_is_refused_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="can't be traced into one graph"):
        CompiledFunction(lambda x: [x * x.sum().item()], [], (torch.ones(2),))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("as_script")
def test_numbers_drawn_outside_torch_are_refused():
    import random

    with pytest.raises(ValueError, match="kernels to repeat the programs"):
        CompiledFunction(lambda x: [x * random.random()], [], (torch.ones(2),))


@pytest.mark.usefixtures("as_script")
def test_each_kind_of_arguments_has_kernels_of_its_own():
    calls = []
    repeated = RepeatedFunction(noisy(nn.Identity(), calls), [], compile=True)
    for num in (2, 3, 2, 3):
        assert repeated(torch.zeros(num, 2))[0].shape == (num, 2)
    assert calls == [2, 2, 3, 3]  # one capture and one comparison each


def test_where_there_can_be_no_kernels_the_function_runs():
    def branching(x):
        return [x if x.sum() > 0 else -x]

    assert RepeatedFunction(branching, [], compile=None)(torch.ones(2))[0].tolist() == [1, 1]
    assert RepeatedFunction(branching, [], compile=False)(-torch.ones(2))[0].tolist() == [1, 1]
    with pytest.raises(ValueError, match="compile=False"):
        RepeatedFunction(branching, [], compile=True)(torch.ones(2))
