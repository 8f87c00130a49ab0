"""What every estimate shares: placed data, counts, and no trace left behind."""

import numpy as np
import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from house.answers import numbers
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from toys import linear_gaussian, same_toy_vae, toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import device_of, evaluation_mode
from pyro_dgm.inference.run.particles import draw
from pyro_dgm.inference.run.sessions import place_data, read_data, require_positive, session


def test_arrays_become_tensors_and_other_arguments_stay():
    x, c, flag = place_data(dgm.EmptyGuide(), (np.ones((3, 2)), torch.zeros(3), "yes"))
    assert torch.equal(x, torch.ones(3, 2, dtype=torch.float64))
    assert c.shape == (3,)
    assert flag == "yes"


def test_tensors_of_different_lengths_raise():
    with pytest.raises(
        ValueError, match=r"expected tensors of one length, got \[3, 4\]\. Fix: one row per datum"
    ):
        place_data(dgm.EmptyGuide(), (torch.zeros(3, 2), torch.zeros(4, 1)))


def test_a_program_without_tensors_is_on_the_cpu():
    assert device_of(lambda x: x, dgm.EmptyGuide()) == torch.device("cpu")
    assert device_of(dgm.StandardNormal(2)) == torch.device("cpu")


@pytest.mark.parametrize(
    "call",
    [
        lambda model, guide, x: dgm.nll(model, guide, x),
        lambda model, guide, x: dgm.encode(guide, x),
        lambda model, guide, x: dgm.hmc(model, x),
        lambda model, guide, x: dgm.impute(model, guide, x, observed=x.real > 0),
        lambda model, guide, x: dgm.preflight(model, guide, x),
        lambda model, guide, x: dgm.nll(model, guide, DataLoader(TensorDataset(x), 2)),
        lambda model, guide, x: dgm.SVITrainer(dgm.ELBO(model, guide)).fit(x, progress=False),
    ],
    ids=["nll", "encode", "hmc", "impute", "preflight", "loader", "fit"],
)
def test_complex_data_are_refused_with_their_real_and_imaginary_parts(call):
    vae = toy_vae()
    x = torch.ones(4, 3, dtype=torch.complex64)
    said = r"^data\[0\]: expected real numbers, got torch\.complex64, .*Fix: torch\.view_as_real"
    with pytest.raises(TypeError, match=said):
        call(vae.model, vae.guide, x)


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


def test_evaluation_mode_gives_back_modes_validation_and_random_state():
    model, guide, _ = linear_gaussian()
    model.train()
    before = torch.get_rng_state()
    with evaluation_mode(model, guide, seed=3):
        assert not model.training
        assert not torch.is_grad_enabled()
        first = torch.rand(1)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    assert pyro.poutine.util.is_validation_enabled()
    with evaluation_mode(model, guide, seed=3):
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
    "impute": lambda model, guide, *batch: dgm.impute(
        model, guide, *batch, observed=torch.tensor([True, False, True, True]), num_weights=40
    ),
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
    for wrong in (x.tolist(), (x,), None):
        kind = type(wrong).__name__
        with pytest.raises(
            TypeError,
            match=rf"expected x as a tensor or an array .*, got {kind}\. Fix: torch\.as_tensor",
        ):
            call(model, guide, wrong)
    with pytest.raises(TypeError, match=r"got list\. Fix: torch\.as_tensor"):
        call(model, guide, [torch.tensor(1.0), torch.tensor(0.0)])
    with pytest.raises(
        TypeError,
        match=r"got dict\. Fix: programs of arrays, `lambda c, x: model\({\*\*data, 'c': c, 'x': x}",
    ):
        call(model, guide, {"N": 3, "c": x, "x": x})
    with pytest.raises(ValueError, match=r"got a 0-dim tensor 3\.0\. Fix: x\[None\]"):
        call(model, guide, torch.tensor(3.0))


class Rows(Dataset):
    """A map-style data set of its own kind."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i]


class Stream(IterableDataset):
    """Data that can only be read in order."""

    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


class Batched(IterableDataset):
    """A stream that is batched already, as a WebLoader is, in batches of 3, 3 and 2."""

    def __init__(self, *values):
        self.values = values

    def __iter__(self):
        parts = [value.split(3) for value in self.values]
        return iter(parts[0]) if len(parts) == 1 else zip(*parts, strict=True)


FORMS = {
    "ndarray": lambda x: x.numpy(),
    "reversed_ndarray": lambda x: x.numpy()[::-1][::-1],
    "big_endian": lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
    "data_frame": lambda x: pandas.DataFrame(x.numpy()),
    "tensor_dataset": TensorDataset,
    "dataset": Rows,
    "stream": Stream,
    "stream_of_batches": Batched,
    "loader_of_batches": lambda x: DataLoader(Batched(x), batch_size=None),
    "loader": lambda x: DataLoader(TensorDataset(x), 4),
    "loader_of_tensors": lambda x: DataLoader(x, 3),
    "list_of_batches": lambda x: [(x[:5],), (x[5:],)],
    "list_of_tensors": lambda x: [x[:5], x[5:]],
    "batches": lambda x: dgm.Batches(x, 4),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_an_estimate_of_any_form_of_data_is_that_of_the_tensor(form):
    """Blocks of 3 data from batches of any size: the noise is that of the concatenated set, to the last bit."""
    vae, x = toy_vae(), torch.ones(8, 3).bernoulli()
    whole = dgm.nll(vae.model, vae.guide, x, num=5, chunk=15)
    found = dgm.nll(vae.model, vae.guide, form(x), num=5, chunk=15)
    torch.testing.assert_close(found.per_datum, whole.per_datum, rtol=1e-12, atol=1e-12)


class OfContext(dgm.Program):
    """x ~ Normal(w c, 1) and its guide, for an x and a c of any number of dims."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 3)

    def forward(self, x=None, c=None):
        with dgm.data_plate(x, c):
            return pyro.sample("x", dist.Normal(self.net(c), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("make", [Batched, lambda x, c: Stream([*zip(x, c, strict=True)])])
def test_a_stream_with_context_is_read_as_it_comes_or_batched(make):
    x, c = torch.randn(8, 3), torch.randn(8, 2)
    model, guide = OfContext(), dgm.EmptyGuide()
    whole = dgm.nll(model, guide, x, c, num=2)
    found = dgm.nll(model, guide, make(x, c), num=2)
    torch.testing.assert_close(found.per_datum, whole.per_datum, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [Batched, Stream])
@pytest.mark.parametrize("num_dims", [1, 2])
def test_a_guide_alone_tells_a_stream_of_batches_from_one_of_data(num_dims, make):
    net = nn.Sequential(nn.Flatten(), dgm.mlp(3, 4)) if num_dims == 2 else dgm.mlp(3, 4)
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, net))
    x = torch.randn(8, 3) if num_dims == 1 else torch.randn(8, 3, 1)
    whole = dgm.encode(guide, x)
    found = dgm.encode(guide, make(x))
    assert {name: found[name].shape for name in found} == {
        name: whole[name].shape for name in whole
    }


@pytest.mark.parametrize("make", [Batched, Stream])
def test_a_trainer_takes_the_same_steps_on_a_stream_of_batches_as_on_one_of_data(make):
    x = torch.randn(8, 3)
    rows = []
    for data in (make(x), DataLoader(TensorDataset(x), 3)):
        vae = same_toy_vae()
        trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
        rows.append(trainer.fit(data, epochs=2, batch_size=3, progress=False).column("train_loss"))
    assert rows[0] == rows[1]


@pytest.mark.parametrize("make", [Batched, Stream])
def test_a_game_takes_a_stream_of_batches_or_of_data(make):
    x = torch.randn(8, 3)
    rows = []
    for data in (make(x), DataLoader(TensorDataset(x), 3)):
        torch.manual_seed(0)
        trainer = dgm.GANTrainer(same_toy_vae().generator, dgm.mlp(3, 8, 1))
        rows.append([*trainer.fit(data, batch_size=3, progress=False)][0])
    for row in rows:
        row.pop("seconds")
    assert rows[0] == rows[1]


@pytest.mark.parametrize("num_data", [6, 8])
def test_batches_of_batches_are_refused_with_the_loader_that_helps(num_data):
    """Of 8 data the last batch is smaller, and the two do not even have one event shape."""
    vae = toy_vae()
    loader = DataLoader(Batched(torch.ones(num_data, 3)), 2 if num_data == 6 else 1)
    with pytest.raises(ValueError, match=r"DataLoader\(stream, batch_size=None\)"):
        dgm.nll(vae.model, vae.guide, loader, num=2)


def test_a_memory_map_is_read_as_the_tensor(tmp_path):
    model, guide, x = linear_gaussian()
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = dgm.nll(model, guide, mapped, num=5)
    assert torch.equal(found.per_datum, dgm.nll(model, guide, x, num=5).per_datum)


@pytest.mark.parametrize("form", [v for n, v in FORMS.items() if n != "batches"])
def test_data_with_holes_are_read_in_any_form(form):
    model, guide, x = linear_gaussian()
    x[1, 2] = torch.nan
    (found,) = read_data(model, guide, form(x))
    torch.testing.assert_close(found, x, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(ValueError, match="expected finite values"):
        dgm.nll(model, guide, form(x), num=5)


def test_a_loader_is_streamed():
    """No more than one block of data beyond those at work is read ahead."""
    model, guide, x = linear_gaussian()
    seen = []

    class Watched(Stream):
        def __iter__(self):
            for i, row in enumerate(self.x):
                seen.append(i)
                yield row

    with session(model, guide, DataLoader(Watched(x), 1), num=5, chunk=5) as pair:
        blocks = pair.blocks()
        next(blocks)
        assert seen == [0]
        assert pair.structure.latent == ("z",)


SLOW = ("ais", "hmc")


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, call in OF_DATA.items()
    ],
)
def test_every_estimate_takes_a_loader(call):
    model, guide, x = linear_gaussian()
    found = figures(call(model, guide, DataLoader(TensorDataset(x), 4)))
    right = figures(call(model, guide, x))
    assert len(found) == len(right)
    torch.testing.assert_close(found, right, equal_nan=True)


def figures(result):
    """The numbers of a result, of a report those of its items, of an export those of its draws."""
    if isinstance(result, dgm.results.Report):
        return numbers([item.value for item in result.items])
    if hasattr(result, "posterior"):
        return [torch.as_tensor(result.posterior["z"].values)]
    return numbers(result)


@pytest.mark.parametrize("bad", [torch.full((4, 4), torch.nan), torch.empty(0, 4)])
def test_bad_data_in_a_later_batch_of_a_loader_are_refused(bad):
    model, guide, x = linear_gaussian()
    with pytest.raises(ValueError, match=r"data\[0\]: expected (finite values|at least one datum)"):
        dgm.nll(model, guide, [(x,), (bad,)], num=5)


def test_an_empty_loader_is_refused():
    model, guide, _ = linear_gaussian()
    with pytest.raises(ValueError, match=r"got a loader that yields none\. Fix: drop_last=False"):
        dgm.nll(model, guide, DataLoader(torch.zeros(2, 4), 5, drop_last=True), num=5)


def test_the_check_takes_nothing_from_the_noise_of_an_estimate():
    model, guide, x = linear_gaussian()
    with session(model, guide, x, num=5, seed=3) as pair:
        checked = pair.structure.latent and pair.draw().log_weight
    with session(model, guide, x, num=5, seed=3) as pair:
        unchecked = draw(model, guide, x, num=5, depth=1).log_weight
    assert torch.equal(checked, unchecked)


def test_a_structure_says_what_each_site_is():
    vae = toy_vae()
    structure = dgm.preflight(vae.model, vae.guide, torch.ones(4, 3))
    assert [(site.name, site.kind.value) for site in structure.sites] == [
        ("z", "latent"),
        ("x", "observed"),
    ]
    assert not structure.is_exact
    assert list(structure.to_dataframe()["plates"]) == ["data", "data"]
    assert "log p(x) takes an integral" in str(structure)


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
