"""An update by lists is the optimizer's own step, bit for bit."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from pyro_dgm.inference.training.compiled.updates import Update, is_fused

OPTIMIZERS = {
    "Adam": lambda p: Adam(p, lr=0.1, fused=True),
    "AdamW": lambda p: AdamW(p, lr=0.1, weight_decay=0.1, fused=True),
    "Adam, L2": lambda p: Adam(p, lr=0.1, weight_decay=0.1, betas=(0.5, 0.7), fused=True),
    "amsgrad": lambda p: Adam(p, lr=0.1, amsgrad=True, fused=True),
    "groups": lambda p: Adam([{"params": p[:2], "lr": 0.3}, {"params": p[2:]}], fused=True),
    "not fused": lambda p: Adam(p, lr=0.1),
    "SGD": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "RMSprop": lambda p: RMSprop(p, lr=0.1),
}


def parameters():
    generator = torch.Generator().manual_seed(1)
    shapes = [(3, 2), (3,), (), (1, 4)]
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float32)) for s in shapes]


def gradients(num, missing=()):
    """`num` steps of gradients, of which some parameters have none in some steps."""
    generator = torch.Generator().manual_seed(2)
    found = []
    for step in range(num):
        row = []
        for place, p in enumerate(parameters()):
            gradient = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            row.append(None if (step, place) in missing else gradient)
        found.append(row)
    return found


def by_optimizer(build, steps):
    moved = parameters()
    optimizer = build(moved)
    for row in steps:
        for p, gradient in zip(moved, row, strict=True):
            p.grad = gradient
        optimizer.step()
    return moved, optimizer


@pytest.mark.parametrize("missing", [(), ((0, 1), (1, 1), (4, 0))])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_moves_as_its_optimizer_does(name, missing):
    steps = gradients(6, missing)
    expected, theirs = by_optimizer(OPTIMIZERS[name], steps)
    moved = parameters()
    optimizer = OPTIMIZERS[name](moved)
    with Update(optimizer, moved).bound() as update:
        for row in steps[:5]:
            update(row)
        inside = copy.deepcopy(optimizer.state_dict())  # as a checkpoint in mid-epoch holds it
        update(steps[5])
    assert all(torch.equal(a, b) for a, b in zip(moved, expected, strict=True))
    assert all(p.grad is gradient for p, gradient in zip(moved, steps[5], strict=True))
    torch.testing.assert_close(optimizer.state_dict(), theirs.state_dict(), rtol=0, atol=0)

    again = OPTIMIZERS[name](parameters())
    again.load_state_dict(inside)
    _, five = by_optimizer(OPTIMIZERS[name], steps[:5])
    torch.testing.assert_close(again.state_dict(), five.state_dict(), rtol=0, atol=0)


def test_after_an_update_the_optimizer_goes_on_alone():
    steps = gradients(7)
    expected, _ = by_optimizer(OPTIMIZERS["Adam"], steps)
    moved = parameters()
    optimizer = OPTIMIZERS["Adam"](moved)
    with Update(optimizer, moved).bound() as update:
        for row in steps[:6]:
            update(row)
    for p, gradient in zip(moved, steps[6], strict=True):
        p.grad = gradient
    optimizer.step()  # a count that is still shared would be moved once for each parameter
    assert all(torch.equal(a, b) for a, b in zip(moved, expected, strict=True))


def test_the_rate_is_read_at_every_step():
    steps = gradients(4)
    moved = parameters()
    optimizer = OPTIMIZERS["Adam"](moved)
    with Update(optimizer, moved).bound() as update:
        for row in steps[:3]:
            update(row)
        optimizer.param_groups[0]["lr"] = 0.0
        before = [p.detach().clone() for p in moved]
        update(steps[3])
    assert all(torch.equal(a, b) for a, b in zip(moved, before, strict=True))


def test_only_the_plain_fused_kernel_is_called_past_its_optimizer():
    class Own(Adam):
        """A step of its own."""

    hooked = Adam(parameters(), fused=True)
    hooked.register_step_pre_hook(lambda *_: None)
    assert is_fused(OPTIMIZERS["AdamW"](parameters()))
    for optimizer in (
        Own(parameters(), fused=True),
        hooked,
        Adam(parameters()),
        Adam(parameters(), lr=torch.tensor(0.1), fused=True),
        Adam(parameters(), maximize=True, fused=True),
    ):
        assert not is_fused(optimizer)
