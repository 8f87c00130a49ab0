import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from toys import toy_vae

import pyro_dgm as dgm
from pyro_dgm.experiments.recipes.compositions import levels_vae
from pyro_dgm.files.errors import FileError
from pyro_dgm.inference.training.checkpoints import CheckpointFile, load_state, save_state


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


def test_a_written_file_leaves_nothing_beside_it(tmp_path):
    save_state({"a": 1}, tmp_path / "state.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


ELSEWHERE = """
import sys, torch
import pyro_dgm as dgm
from pyro_dgm.experiments.recipes.compositions import levels_vae
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


# -- what a file may have become ------------------------------------------------------------------------
def damage(content, kind):
    """The bytes of a file after an accident."""
    middle = len(content) // 2
    return {
        "cut off": content[:middle],
        "without its last byte": content[:-1],
        "longer by a byte": content + b"x",
        "empty": b"",
        "a PNG": b"\x89PNG\r\n\x1a\n" + content,
        "text": b"loss: 3.0\n",
        "zeros": bytes(len(content)),
    }[kind]


ACCIDENTS = (
    "cut off",
    "without its last byte",
    "longer by a byte",
    "empty",
    "a PNG",
    "text",
    "zeros",
)


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_damaged_weights_are_refused_by_name_and_leave_the_module_as_it_was(accident, tmp_path):
    module, path = nn.Linear(2, 2), tmp_path / "w.safetensors"
    dgm.save_weights(nn.Linear(2, 2), path)
    path.write_bytes(damage(path.read_bytes(), accident))
    before = module.weight.detach().clone()
    with pytest.raises(FileError, match=r"w\.safetensors: expected weights .*, got .*Fix: "):
        dgm.load_weights(module, path)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_a_damaged_checkpoint_is_refused_by_name(accident, tmp_path):
    path = tmp_path / "run.pt"
    save_state({"a": torch.randn(5)}, path)
    path.write_bytes(damage(path.read_bytes(), accident))
    with pytest.raises(FileError, match=r"run\.pt: expected a checkpoint.*, got .*Fix: "):
        load_state(path)


@pytest.mark.parametrize("kind", ["weights", "state"])
def test_a_missing_file_is_refused_by_name(kind, tmp_path):
    read = {"weights": lambda p: dgm.load_weights(nn.Linear(1, 1), p), "state": load_state}[kind]
    with pytest.raises(FileError, match=r"nowhere: expected .*, got no file\. Fix: the file"):
        read(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"expected .*, got a folder\. Fix: the file"):
        read(tmp_path)


def flips(content, num):
    """Copies of a file, each with one bit flipped, spread over all of it."""
    generator = torch.Generator().manual_seed(len(content))
    for place in torch.randint(8 * len(content), (num,), generator=generator).tolist():
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)


def test_every_flipped_bit_of_weights_is_found(tmp_path):
    module, path = nn.Linear(7, 5), tmp_path / "w"
    dgm.save_weights(module, path)
    for flipped in flips(path.read_bytes(), 60):
        path.write_bytes(flipped)
        with pytest.raises(FileError, match="w: expected"):
            dgm.load_weights(module, path)


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path):
    path = tmp_path / "run.pt"
    save_state({"a": torch.randn(7, 5), "rows": [{"epoch": 1, "loss": 0.5}]}, path)
    for flipped in flips(path.read_bytes(), 60):
        path.write_bytes(flipped)
        with pytest.raises(FileError, match=r"run\.pt: expected"):
            load_state(path)


def test_files_of_a_newer_format_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_dgm.files.stamps.FORMAT", 9)
    save_state({"a": 1}, tmp_path / "run.pt")
    dgm.save_weights(nn.Linear(1, 1), tmp_path / "w")
    monkeypatch.undo()
    newer = "format 1 or older, got format 9, of a newer pyro_dgm. Fix: git pull"
    with pytest.raises(FileError, match=newer):
        load_state(tmp_path / "run.pt")
    with pytest.raises(FileError, match=newer):
        dgm.load_weights(nn.Linear(1, 1), tmp_path / "w")


def test_files_without_a_digest_are_read_under_a_warning(tmp_path):
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save({"a": 1}, tmp_path / "old.pt")
    save_file(module.state_dict(), tmp_path / "old.safetensors")
    with pytest.warns(
        UserWarning, match=r"old\.pt: expected a digest, got none.*Fix: save it again"
    ):
        assert load_state(tmp_path / "old.pt") == {"a": 1}
    with pytest.warns(UserWarning, match=r"old\.safetensors: expected a digest, got none"):
        dgm.load_weights(other, tmp_path / "old.safetensors")
    assert equal(module, other)


def test_a_flipped_bit_in_a_tensor_of_a_checkpoint_without_a_digest_is_found(tmp_path):
    path, tensor = tmp_path / "old.pt", torch.full((64,), 1.5, dtype=torch.float64)
    torch.save({"a": tensor}, path)
    content = path.read_bytes()
    place = content.index(tensor.numpy().tobytes())
    path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    with pytest.raises(
        FileError, match=r"old\.pt: expected a checkpoint that is whole, got one that"
    ):
        load_state(path)


def test_an_archive_that_would_run_code_is_refused(tmp_path):
    torch.save({"a": nn.Linear(1, 1)}, tmp_path / "model.pt")
    with (
        pytest.warns(UserWarning, match="expected a digest"),
        pytest.raises(FileError, match=r"model\.pt: expected a checkpoint of tensors and plain"),
    ):
        load_state(tmp_path / "model.pt")


def test_a_file_that_is_no_run_is_refused_at_resume(tmp_path):
    layer = nn.Linear(1, 1)
    vae = toy_vae()
    save_state(layer.state_dict(), tmp_path / "w.pt")
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    with pytest.raises(
        FileError, match=r"w\.pt: expected the checkpoint of a run, got a file without"
    ):
        trainer.resume(tmp_path / "w.pt")


# -- the last ones are kept --------------------------------------------------------------------------------
def test_the_checkpoint_before_the_newest_is_kept_and_is_the_fix_of_a_damaged_one(tmp_path):
    path = tmp_path / "run.pt"
    for step in range(4):
        save_state({"step": step}, path, keep=3)
    assert [load_state(tmp_path / n)["step"] for n in ("run.pt", "run.pt.1", "run.pt.2")] == [
        3,
        2,
        1,
    ]
    assert len(list(tmp_path.iterdir())) == 3
    path.write_bytes(b"torn")
    with pytest.raises(FileError, match=r"Fix: go on from the one before it, .*run\.pt\.1: mv "):
        load_state(path)


@pytest.mark.parametrize(
    ("damaged", "fix"),
    [
        (["run.pt", "run.pt.1"], r"go on from the one before it, .*run\.pt\.2: mv .*run\.pt\.2 "),
        (["run.pt", "run.pt.1", "run.pt.2"], r"the file that fit\(checkpoint=…\) .* or train anew"),
    ],
)
def test_a_fix_names_a_checkpoint_that_is_whole_alone(damaged, fix, tmp_path):
    for step in range(4):
        save_state({"step": step}, tmp_path / "run.pt", keep=3)
    for name in damaged:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    with pytest.raises(FileError, match=rf"run\.pt: expected a checkpoint that is .*Fix: {fix}"):
        load_state(tmp_path / "run.pt")


def test_fit_keeps_two_checkpoints_unless_told_otherwise(tmp_path):
    for name, options, files in (
        ("two", {}, ["run.pt", "run.pt.1"]),
        ("one", {"checkpoint_keep": 1}, ["run.pt"]),
    ):
        vae = toy_vae()
        trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
        x = torch.randn(8, 3)
        trainer.fit(x, epochs=3, progress=False, checkpoint=tmp_path / name / "run.pt", **options)
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == files


def test_fewer_than_one_checkpoint_kept_is_refused():
    with pytest.raises(ValueError, match="checkpoint_keep: expected at least 1, got 0. Fix"):
        CheckpointFile("run.pt", keep=0)
