"""What a run carries: the weights that are asked about and those that it goes on from, and the file of both."""

import pytest
import torch
from torch import nn

from pyro_dgm.inference.training.averaging import Ema
from pyro_dgm.inference.training.epochs import PartialEpoch
from pyro_dgm.inference.training.state import TrainingState


def build(value=1.0, ema=None):
    """The state of a run over one weight."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(value)
    state = TrainingState(layer, None if ema is None else Ema(layer, ema))
    state.optimizers = {"optimizer": torch.optim.SGD(layer.parameters(), lr=0.1)}
    return state


def weight(state):
    return state.module.weight.item()


def test_the_best_weights_are_deployed_and_the_last_ones_wait():
    state = build(1.0)
    state.keep_if_best("val_loss", 3.0)
    state.module.weight.data.fill_(2.0)
    state.keep_if_best("val_loss", 4.0)
    state.keep_if_best("val_loss", float("nan"))
    state.deploy()
    assert (weight(state), state.last["weight"].item()) == (1.0, 2.0)
    assert state.is_deployed()
    with state.training(seed=0):
        assert weight(state) == 2.0
        assert not state.last


def test_weights_that_somebody_changed_are_what_training_goes_on_from():
    state = build(1.0)
    state.keep_if_best("val_loss", 3.0)
    state.module.weight.data.fill_(2.0)
    state.deploy()
    state.module.weight.data.fill_(7.0)
    assert not state.is_deployed()
    with state.last_applied():
        assert weight(state) == 7.0
    with state.training(seed=0):
        assert weight(state) == 7.0


def test_the_last_weights_can_be_looked_at_without_writing_into_a_tensor():
    state = build(1.0)
    state.keep_if_best("val_loss", 3.0)
    state.module.weight.data.fill_(2.0)
    state.deploy()
    storage = state.module.weight.data_ptr()
    with state.last_applied():
        assert weight(state) == 2.0
    assert weight(state) == 1.0
    assert state.module.weight.data_ptr() == storage


def test_the_best_of_another_metric_is_forgotten():
    state = build()
    state.keep_if_best("val_loss", 3.0)
    state.compare_by("val_loss")
    assert state.best
    state.compare_by("train_loss")
    assert not state.best


def test_training_has_its_own_random_state_gradients_and_mode_and_gives_all_back():
    state = build()
    state.module.eval()
    before = torch.get_rng_state()
    with torch.no_grad():
        with state.training(seed=3):
            first = torch.rand(3)
            assert torch.is_grad_enabled()
            assert state.module.training
        assert not torch.is_grad_enabled()
    assert not state.module.training
    assert torch.equal(torch.get_rng_state(), before)
    with state.training(seed=3):  # carried on, not seeded again
        assert not torch.equal(torch.rand(3), first)


def test_the_state_round_trips_through_a_file(tmp_path):
    one, other = build(1.0, ema=0.9), build(5.0, ema=0.9)
    one.history.append({"epoch": 1, "train_loss": 2.0})
    one.num_epochs, one.num_steps, one.skips.num_skipped = 1, 3, 2
    one.keep_if_best("train_loss", 2.0)
    one.save(tmp_path / "state.pt")
    other.load(tmp_path / "state.pt")
    assert weight(other) == 1.0
    assert list(other.history) == list(one.history)
    assert (other.num_epochs, other.num_steps, other.skips.num_skipped) == (1, 3, 2)
    assert other.best == one.best
    assert other.ema.average[0].item() == 1.0


def test_a_partial_epoch_draws_its_order_again_and_passes_over_what_is_done():
    def batches():
        order = torch.randperm(5)
        yield from ((x,) for x in order[:, None])

    epoch = PartialEpoch({"cpu": torch.get_rng_state(), "cuda": None})
    whole = [int(x) for (x,) in batches()]
    for _ in range(2):
        epoch.add({"loss": torch.tensor(1.0)}, 1)
    again = PartialEpoch.from_state_dict(epoch.state_dict(), torch.device("cpu"))
    torch.rand(7)
    now = torch.get_rng_state()
    rest = again.pass_over(batches(), torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), now)
    assert [int(x) for (x,) in rest] == whole[2:]


@pytest.mark.parametrize(("kept", "found"), [(0.9, None), (None, 0.9)])
def test_a_file_with_an_average_where_none_is_kept_is_refused_before_anything_is_taken(kept, found):
    one, other = build(1.0, ema=found), build(5.0, ema=kept)
    with pytest.raises(
        ValueError, match=r"resume: expected a checkpoint with .*EMA, got .*Fix: th"
    ):
        other.load_state_dict(one.state_dict())
    assert weight(other) == 5.0


def test_a_file_of_other_optimizers_is_refused_before_anything_is_taken():
    one, other = build(1.0), build(5.0)
    other.optimizers = {}
    with pytest.raises(
        ValueError, match=r"state of \[\], got one with \['optimizer'\]. Fix: the same optimizer="
    ):
        other.load_state_dict(one.state_dict())
    assert weight(other) == 5.0
