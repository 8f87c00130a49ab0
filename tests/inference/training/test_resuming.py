"""A checkpoint inside an epoch goes on with the batches it began with, and one that does not fit changes nothing."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from toys import assert_equal, everything, same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.data.batches import Batches, LoaderBatches
from pyro_dgm.inference.data.fingerprints import ROWS_AT_ONCE, hash_tensors, identify
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.training.checkpoints import load_state, save_state


def data(num=10, seed=11):
    with fork_rng(seed=seed):
        return torch.randn(num, 3)


def svi(seed=1, **options):
    vae = same_toy_vae(seed)
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), **{"lr": 1e-2, **options})


def gan(seed=1, **options):
    generator = same_toy_vae(seed).generator
    with fork_rng(seed=seed):
        critic = dgm.mlp(3, 8, 1)
    return dgm.GANTrainer(generator, critic, **options)


def hybrid(seed=1):
    vae = same_toy_vae(seed)
    with fork_rng(seed=seed):
        critic = dgm.mlp(3, 8, 1)
    return dgm.HybridTrainer(dgm.ELBO(vae.model, vae.guide), critic)


every_trainer = pytest.mark.parametrize("build", [svi, gan, hybrid])


def fit(trainer, train=None, **options):
    train = data() if train is None else train
    return trainer.fit(train, **{"batch_size": 4, "progress": False, **options})


def stopped_file(build, path, train=None, **options):
    """A file that was written after the 4th step, the 1st of the second epoch."""
    trainer = build()
    step = trainer.step

    def stepping(*batch):
        if trainer.num_steps == 4:
            raise KeyboardInterrupt
        return step(*batch)

    trainer.step = stepping
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, train, epochs=4, checkpoint=path, checkpoint_every=1, **options)
    return path


# The rest of an epoch ----------------------------------------------------------------------------

OTHERS = {
    "batch_size": (lambda: data(), {"batch_size": 5}, "batch_size=4, got batch_size=5"),
    "seed": (lambda: data(), {"seed": 1}, "seed=0, got seed=1"),
    "fewer": (lambda: data()[:8], {}, "num_data=10, got .*num_data=8"),
    "values": (lambda: data(seed=2), {}, "data=.*, got data="),
    "one_bit": (lambda: data().nextafter(torch.tensor(9.0)), {}, "data=.*, got data="),
    "order": (lambda: data().flip(0), {}, "data=.*, got data="),
    "columns": (lambda: data().flip(1), {}, "data=.*, got data="),
    "unshuffled": (lambda: Batches(data(), 4, shuffle=False), {}, "shuffle=True, got shuffle=Fa"),
    "loader": (
        lambda: DataLoader(TensorDataset(data()), 4),
        {},
        "shuffle=True, got .*shuffle=False",
    ),
}


@pytest.mark.parametrize(("train", "options", "message"), OTHERS.values(), ids=list(OTHERS))
@every_trainer
def test_the_rest_of_an_epoch_needs_the_batches_it_began_with(
    build, train, options, message, tmp_path
):
    path = stopped_file(build, tmp_path / "run.pt")
    trainer, whole = build(seed=9), build()
    trainer.resume(path)
    before = everything(trainer)
    with pytest.raises(ValueError, match=f"fit: .* after 1 steps, .*{message}.*Fix: the data, "):
        fit(trainer, train(), **options)
    assert_equal(everything(trainer), before)
    fit(trainer, epochs=3)  # and with the right ones it goes on as if nothing had been
    fit(whole, epochs=4)
    assert_equal(everything(trainer), everything(whole))


def loader(x, size):
    return DataLoader(TensorDataset(x), size, shuffle=True)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (lambda: loader(data(), 5), "batch_size=4, got batch_size=5"),
        (lambda: loader(data(seed=2), 4), "data="),
        (lambda: loader(data(8), 4), "num_data=10"),
    ],
)
def test_the_rest_of_an_epoch_of_a_loader_needs_the_same_loader(train, message, tmp_path):
    path = stopped_file(svi, tmp_path / "run.pt", loader(data(), 4))
    trainer = svi()
    trainer.resume(path)
    with pytest.raises(ValueError, match=message):
        fit(trainer, train())


class Items(Dataset):
    """A map-style data set of its own, whose items may have noise of their own."""

    def __init__(self, x, noise=None):
        self.x, self.noise = x, noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index]
        return {"x": x if self.noise is None else x + self.noise()}


NOISES = {
    "none": None,
    "of_torch": lambda: 1e-3 * torch.randn(()),
    "of_python": lambda: 1e-3 * random.random(),
    "of_a_generator": lambda: 1e-3 * GENERATOR.random(),
}
GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_the_rest_of_an_epoch_of_a_data_set_needs_the_same_items(noise, tmp_path):
    path = stopped_file(svi, tmp_path / "run.pt", DataLoader(Items(data(), noise), 4))
    trainer = svi()
    trainer.resume(path)
    if noise is not NOISES["of_a_generator"]:  # whose items nothing tells
        with pytest.raises(ValueError, match="expected the batches of the epoch.* items="):
            fit(trainer, DataLoader(Items(data(seed=2), noise), 4))
    fit(trainer, DataLoader(Items(data(), noise), 4), epochs=3)
    assert trainer.num_epochs == 4


def test_a_fingerprint_moves_no_random_state():
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    batches = LoaderBatches(
        DataLoader(Items(data(), NOISES["of_torch"]), 4), ["x"], torch.device("cpu")
    )
    assert identify(batches, seed=0) == identify(batches, seed=0)
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


class Stream:
    """Batches that say nothing of themselves."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def __iter__(self):
        return iter(data(sum(self.sizes)).split(self.sizes))


@pytest.mark.parametrize("sizes", [(3, 3, 3), ()])
def test_a_stream_with_other_batches_is_found_by_their_sizes(sizes, tmp_path):
    path = stopped_file(svi, tmp_path / "run.pt", Stream(4, 4, 2))
    trainer = svi()
    trainer.resume(path)
    before = everything(trainer)
    with pytest.raises(
        ValueError, match=r"expected 4 data in the 1 batches before|at least one ba"
    ):
        fit(trainer, Stream(*sizes))
    after = everything(trainer)
    assert_equal(after, before)
    assert trainer.state.partial is not None


@every_trainer
def test_between_two_epochs_other_data_may_follow(build, tmp_path):
    first, second = build(), build()
    fit(first, epochs=2, checkpoint=tmp_path / "run.pt")
    second.resume(tmp_path / "run.pt")
    fit(second, data(14, seed=2), batch_size=7, seed=5)
    assert second.num_epochs == 3


def test_a_file_without_an_identity_is_taken(tmp_path):
    path = stopped_file(svi, tmp_path / "run.pt")
    state = load_state(path)
    del state["partial"]["identity"], state["partial"]["num_seen"], state["warm_up"]
    save_state(state, path)
    trainer, whole = svi(), svi()
    trainer.resume(path)
    fit(trainer, epochs=3)
    fit(whole, epochs=4)
    assert_equal(everything(trainer), everything(whole))


# All or nothing ----------------------------------------------------------------------------------


def spoil(name):
    def spoiled(state):
        state["module"][name] = state["module"][name][:1]

    return spoiled


def drop_optimizer(state):
    state["trainer"].pop(next(n for n in state["trainer"] if n != "rules"))


def cut_history(state):
    del state["history"]


def cut_counts(state):
    state["counts"] = [1]


def cut_moments(state):
    part = state["trainer"].get("optimizer") or state["trainer"]["critic"]["optimizer"]
    part["param_groups"][0]["params"].pop()


def spoil_random(state):
    state["partial"] = {"random": None}


MISFITS = [drop_optimizer, cut_history, cut_counts, cut_moments, spoil_random]


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("fitted", [True, False])
@pytest.mark.parametrize("build", [svi, gan])
def test_a_resume_that_fails_leaves_all_as_it_was(build, fitted, misfit, tmp_path):
    """Weights deployed and last, moments, average, history, best epoch, counts, random state: and what comes then."""
    first, second, twin = build(ema=0.9), build(seed=9, ema=0.9), build(seed=9, ema=0.9)
    fit(first, epochs=3, checkpoint=tmp_path / "run.pt")
    if fitted:
        fit(second, val=data(6), epochs=2, monitor="val_kl[z]" if build is svi else "val_critic")
        fit(twin, val=data(6), epochs=2, monitor="val_kl[z]" if build is svi else "val_critic")
    state = load_state(tmp_path / "run.pt")
    misfit(state)
    save_state(state, tmp_path / "run.pt")
    before = everything(second)
    with pytest.raises(ValueError, match=r"(?s)expected (a|the) checkpoint .*, got .*Fix: "):
        second.resume(tmp_path / "run.pt")
    assert_equal(everything(second), before)
    fit(second, epochs=2)
    fit(twin, epochs=2)
    assert_equal(everything(second), everything(twin))


def test_the_weights_of_another_module_are_refused_by_name(tmp_path):
    fit(svi(), checkpoint=tmp_path / "run.pt")
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(nn.Linear(2, 3)), same_toy_vae().guide.encoder)
    other = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    with pytest.raises(ValueError, match=r"whose tensors differ in 'model.likelihood.net.0.bias'"):
        other.resume(tmp_path / "run.pt")
    wide = same_toy_vae()
    wide.generator.likelihood.net[0] = nn.Linear(2, 7)
    wide.generator.likelihood.net[2] = nn.Linear(7, 3)
    with pytest.raises(ValueError, match=r"'model.*' of shape \(7, 2\), got \(6, 2\). Fix: build"):
        dgm.SVITrainer(dgm.ELBO(wide.model, wide.guide)).resume(tmp_path / "run.pt")


def test_another_game_is_refused_and_nothing_is_taken(tmp_path):
    fit(gan(), checkpoint=tmp_path / "run.pt")
    other = gan(seed=9, penalties=())
    before = everything(other)
    with pytest.raises(ValueError, match="resume: expected a checkpoint of the game"):
        other.resume(tmp_path / "run.pt")
    assert_equal(everything(other), before)


def test_a_resume_takes_nothing_of_the_state_itself():
    """Two trainers that took one state do not move each other."""
    first, one, other = svi(ema=0.9), svi(ema=0.9), svi(ema=0.9)
    fit(first, epochs=2)
    state = first.state.state_dict()
    one.state.load_state_dict(state)
    other.state.load_state_dict(state)
    before = everything(other)
    fit(one, epochs=2)
    assert_equal(everything(other), before)


# Fingerprints ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64, torch.complex128]
)
def test_a_hash_changes_with_every_bit_of_any_dtype(kind):
    x = torch.zeros(50, 4).to(kind)
    seen = {hash_tensors((x,))}
    for place in ((0, 0), (0, 1), (49, 3), (20, 2)):
        y = x.clone()
        y[place] = 1
        seen.add(hash_tensors((y,)))
    assert len(seen) == 5
    assert hash_tensors((x.clone(),)) in seen


def test_a_hash_does_not_depend_on_blocks_and_strides():
    x = torch.arange(2 * ROWS_AT_ONCE // 8).double().reshape(-1, 16)
    assert hash_tensors((x,)) == hash_tensors((x.T.contiguous().T,))
    assert hash_tensors((x,)) != hash_tensors((x.flip(0),))
    assert hash_tensors((x, None)) != hash_tensors((x, 3))


def test_the_rest_of_an_epoch_of_a_list_or_a_transform_needs_the_same(tmp_path):
    def halved(x):
        return x / 2

    for name, right, wrong in (
        ("list", list(data().split(4)), list(data(seed=2).split(4))),
        ("transform", Batches(data(), 4), Batches(data(), 4, transform=halved)),
        ("sampler", loader(data(), 4), DataLoader(TensorDataset(data()), 4)),
    ):
        path = stopped_file(svi, tmp_path / f"{name}.pt", right)
        trainer = svi()
        trainer.resume(path)
        with pytest.raises(ValueError, match="(?s)expected the batches of the epoch.*Fix: "):
            fit(trainer, wrong)
