import pytest
import torch
from torch import nn

from pyro_dgm.inference.training.averaging import Ema


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_average_follows_its_formula_with_the_ramp(decay):
    module = nn.Linear(2, 3)
    ema = Ema(module, decay)
    expected = module.weight.detach().clone()
    for t in range(1, 8):
        with torch.no_grad():
            module.weight += torch.randn(3, 2)
        ema.update(t)
        d = min(decay, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * module.weight.detach()
    torch.testing.assert_close(ema.average[0], expected)


def test_applied_swaps_the_weights_in_and_back_even_when_it_raises():
    module = nn.Linear(2, 3)
    ema = Ema(module, 0.9)
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1
    current = module.weight.detach().clone()

    def inside():
        with ema.applied():
            assert torch.equal(module.weight, start)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        inside()
    assert torch.equal(module.weight, current)


def test_the_state_round_trips():
    module = nn.Linear(2, 3)
    one, other = Ema(module, 0.9), Ema(nn.Linear(2, 3), 0.9)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.average, other.average, strict=True))


def test_the_average_is_no_view_of_the_weights():
    module = nn.Linear(2, 3)
    ema = Ema(module, 0.9)
    before = ema.average[0].clone()
    with torch.no_grad():
        module.weight += 1
    assert torch.equal(ema.average[0], before)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_outside_zero_and_one_raises(decay):
    with pytest.raises(
        ValueError, match=rf"Ema: expected a decay in \[0, 1\), got {decay}. Fix: ema=0.999"
    ):
        Ema(nn.Linear(2, 3), decay)
