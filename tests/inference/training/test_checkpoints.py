import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toys import toy_vae

import pyro_dgm as dgm
from pyro_dgm.experiments.recipes import levels_vae
from pyro_dgm.inference.training import checkpoints
from pyro_dgm.inference.training.checkpoints import load_state, save_state


def equal(one, other):
    return all(torch.equal(t, other.state_dict()[name]) for name, t in one.state_dict().items())


def test_weights_round_trip_through_safetensors(tmp_path):
    one, other = toy_vae(), toy_vae()
    assert not equal(one, other)
    dgm.save_weights(one, tmp_path / "deep" / "weights.safetensors")
    dgm.load_weights(other, tmp_path / "deep" / "weights.safetensors")
    assert equal(one, other)


def test_buffers_travel_with_the_weights(tmp_path):
    one, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    one(torch.randn(5, 3))
    dgm.save_weights(one, tmp_path / "w")
    dgm.load_weights(other, tmp_path / "w")
    assert equal(one, other)


def test_a_shared_tensor_is_written_once_and_stays_shared(tmp_path):
    module = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    module[1].weight = module[0].weight
    dgm.save_weights(module, tmp_path / "w")
    assert sorted(load_file(tmp_path / "w")) == ["0.bias", "0.weight", "1.bias"]
    dgm.load_weights(module, tmp_path / "w")
    assert module[1].weight is module[0].weight


def test_weights_of_other_names_or_shapes_raise(tmp_path):
    dgm.save_weights(nn.Linear(2, 3), tmp_path / "w")
    with pytest.raises(
        ValueError,
        match=r"w: expected the module's 1 tensors, got 2; they differ in \['bias'\]. Fix:",
    ):
        dgm.load_weights(nn.Linear(2, 3, bias=False), tmp_path / "w")
    with pytest.raises(
        ValueError,
        match=r"w: expected 'bias' of shape \(4,\), got \(3,\)|'weight' of shape \(4, 2\)",
    ):
        dgm.load_weights(nn.Linear(2, 4), tmp_path / "w")


def test_weights_that_are_refused_leave_the_module_as_it_was(tmp_path):
    module, saved = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}), nn.ModuleDict()
    saved["a"], saved["b"] = nn.Linear(2, 2), nn.Linear(2, 5)
    dgm.save_weights(saved, tmp_path / "w")
    before = module["a"].weight.detach().clone()
    with pytest.raises(ValueError, match="expected 'b.weight'"):
        dgm.load_weights(module, tmp_path / "w")
    assert torch.equal(module["a"].weight, before)


def test_state_round_trips_with_weights_only(tmp_path):
    state = {
        "tensor": torch.randn(3),
        "rows": [{"epoch": 1, "loss": 2.5}],
        "none": None,
        "counts": [1, 2],
    }
    save_state(state, tmp_path / "state.pt")
    found = load_state(tmp_path / "state.pt")
    assert torch.equal(found.pop("tensor"), state.pop("tensor"))
    assert found == state
    assert torch.load(tmp_path / "state.pt", weights_only=True)["counts"] == [1, 2]


@pytest.mark.parametrize("kind", ["weights", "state"])
def test_a_write_killed_before_its_end_leaves_the_old_file(kind, tmp_path, monkeypatch):
    path, module = tmp_path / "file", nn.Linear(2, 2)
    save = {
        "weights": lambda: dgm.save_weights(module, path),
        "state": lambda: save_state({"a": 1}, path),
    }[kind]
    save()
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save()
    assert path.read_bytes() == before
    monkeypatch.undo()
    save()
    assert path.read_bytes() == before


def test_a_writer_that_fails_halfway_leaves_the_old_file_and_no_other(tmp_path):
    def torn(target):
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    save_state({"a": 1}, tmp_path / "state.pt")
    with pytest.raises(OSError, match="No space left"):
        checkpoints._write_atomically(tmp_path / "state.pt", torn)
    assert load_state(tmp_path / "state.pt") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_written_file_leaves_nothing_beside_it(tmp_path):
    save_state({"a": 1}, tmp_path / "state.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


ELSEWHERE = """
import sys, torch
import pyro_dgm as dgm
from pyro_dgm.experiments.recipes import levels_vae
torch.set_default_dtype(torch.float64)
vae = levels_vae(dim=4, levels=3, latent=2, hidden=8)
dgm.load_weights(vae, sys.argv[1])
print(dgm.nll(vae.model, vae.guide, torch.ones(3, 4), num=5).mean.hex())
"""


@pytest.mark.slow
def test_weights_mean_the_same_in_another_process(tmp_path):
    vae = levels_vae(dim=4, levels=3, latent=2, hidden=8)
    dgm.save_weights(vae, tmp_path / "weights.safetensors")
    here = dgm.nll(vae.model, vae.guide, torch.ones(3, 4), num=5).mean
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "weights.safetensors")]
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert float.fromhex(there.strip()) == pytest.approx(here, rel=1e-12)
