"""The batches of a loader are looked at in every epoch: values for NaN, and each form once by the programs."""

import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from toys import same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.data.batches import Batches, LoaderBatches
from pyro_dgm.inference.data.streams import StreamCheck


class Fresh(Dataset):
    """Data whose third batch of some reading is bad; each reading makes them anew."""

    def __init__(self, bad_epoch, spoil):
        self.bad_epoch, self.spoil, self.reads = bad_epoch, spoil, 0

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.reads += 1
        x = torch.full((3,), 0.1 * index)
        return self.spoil(x) if self.reads // 12 >= self.bad_epoch and index == 9 else x


def nan(x):
    return x.index_fill(0, torch.tensor(1), torch.nan)


def infinite(x):
    return x.index_fill(0, torch.tensor(1), torch.inf)


def svi():
    vae = same_toy_vae()
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))


def gan():
    return dgm.GANTrainer(same_toy_vae().generator, dgm.mlp(3, 8, 1))


@pytest.mark.parametrize("build", [svi, gan])
@pytest.mark.parametrize("spoil", [nan, infinite])
def test_a_value_that_goes_bad_in_a_later_epoch_is_found_and_the_weights_stay_good(build, spoil):
    trainer = build()
    loader = DataLoader(Fresh(4, spoil), batch_size=4)
    with pytest.raises(
        ValueError, match=r"data: expected finite values in every epoch, got .* in batch 3 of this"
    ):
        trainer.fit(loader, epochs=9, progress=False)
    assert all(p.isfinite().all() for p in trainer.module.parameters())


def test_a_value_that_goes_bad_in_a_later_epoch_of_the_validation_data_is_found():
    loader = DataLoader(Fresh(4, nan), batch_size=4)
    with pytest.raises(ValueError, match=r"data: expected finite values in every epoch.* batch 3"):
        svi().fit(torch.randn(8, 3), loader, epochs=9, progress=False)


def counts():
    net = dgm.mlp(3, 4)
    vae = dgm.VAE(
        dgm.StandardNormal(2), dgm.Poisson(dgm.mlp(2, 3)), dgm.Conditional(dist.Normal, net)
    )
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))


@pytest.mark.parametrize("bad", [-1.0, 0.5])
def test_a_value_that_leaves_the_support_in_a_later_epoch_is_found(bad):
    class Counts(Fresh):
        def __getitem__(self, index):
            x = super().__getitem__(index)
            return x if self.is_bad(x) else x.round()

        def is_bad(self, x):
            return bool((x == bad).any())

    def spoil(x):
        return x.index_fill(0, torch.tensor(1), bad)

    trainer = counts()
    with pytest.raises(ValueError, match=r"site 'x': expected .* in IntegerGreaterThan"):
        trainer.fit(DataLoader(Counts(4, spoil), batch_size=4), epochs=9, progress=False)
    assert trainer.num_epochs < 5
    late = DataLoader(Counts(4, spoil), batch_size=4)
    with pytest.raises(ValueError, match=r"site 'x': expected .* in IntegerGreaterThan"):
        counts().fit(torch.zeros(12, 3), late, epochs=9, progress=False)


def test_a_transform_that_leaves_the_support_in_a_later_epoch_is_found():
    calls = []

    def transform(x):
        calls.append(x)
        return x - 1 if len(calls) > 12 else x

    with pytest.raises(ValueError, match=r"site 'x': expected .* in IntegerGreaterThan"):
        counts().fit(Batches(torch.zeros(8, 3), 4, transform=transform), epochs=99, progress=False)


def test_only_values_beyond_all_before_are_checked_again():
    seen = []
    check = StreamCheck(stream(torch.zeros(2, 3)), seen.append, every=True)
    check.add((torch.tensor([[-1.0], [5.0], [2.0], [0.0]]),))
    check.end_epoch()
    seen.clear()
    check.add((torch.tensor([[4.0], [-1.0]]),))
    check.refuse()
    assert seen == []
    check.add((torch.tensor([[4.0], [6.0], [0.0], [1.0]]),))
    check.add((torch.tensor([[0.5], [1.0]]),))
    check.add((torch.tensor([[0.25], [3.0]]),))
    check.refuse()
    assert [x.flatten().tolist() for x in seen] == [[0.0, 6.0, 4.0, 0.0], [0.5, 1.0]]


def test_a_transform_that_makes_nan_is_found():
    calls = []

    def transform(x):
        calls.append(x)
        return x * torch.nan if len(calls) > 6 else x

    batches = Batches(torch.randn(8, 3), 4, transform=transform)
    with pytest.raises(ValueError, match="data: expected finite values in every epoch"):
        svi().fit(batches, epochs=9, progress=False)


def test_a_batch_of_a_new_form_is_checked_by_the_programs_in_any_epoch():
    loader = DataLoader(Fresh(4, lambda x: x), batch_size=4)
    trainer = svi()
    other = DataLoader(Fresh(4, lambda x: x), batch_size=4)
    forms = iter([loader, loader, (x[:, :2] for x in other)])

    class Changing:
        def __iter__(self):
            return iter(next(forms))

    with pytest.raises(ValueError, match=r"site 'z'|event shape|expected"):
        trainer.fit(Changing(), epochs=9, progress=False)
    assert trainer.num_epochs == 1


def stream(x):
    return LoaderBatches([x], ["x"], torch.device("cpu"))


def test_the_programs_see_every_batch_of_the_first_epoch_and_then_new_forms_alone():
    seen = []
    check = StreamCheck(stream(torch.zeros(2, 3)), seen.append, every=True)
    for batch in (torch.zeros(2, 3), torch.zeros(2, 3)):
        check.add((batch,))
    check.end_epoch()
    assert len(seen) == 2
    for batch in (torch.zeros(5, 3), torch.zeros(2, 4), torch.zeros(2, 3).int(), torch.ones(1, 4)):
        check.add((batch,))
    assert [(tuple(x.shape), x.dtype) for x in seen[2:]] == [
        ((2, 4), torch.get_default_dtype()),
        ((2, 3), torch.int32),
    ]


def test_large_finite_values_of_any_dtype_are_finite():
    check = StreamCheck(stream(torch.zeros(1)), lambda *_: None, every=False)
    check.add((torch.full((9, 9), 6e4, dtype=torch.float16),))
    check.add((torch.full((9, 9), 3e38, dtype=torch.float32), torch.zeros(9, 1).long()))
    check.refuse()
    check.add((torch.zeros(2, 2), torch.tensor([[torch.nan]])))
    with pytest.raises(ValueError, match="in batch 3 of this one"):
        check.refuse()


def test_data_in_memory_are_not_looked_at_again():
    seen = []
    check = StreamCheck(
        Batches(torch.zeros(4, 2), 2), lambda *batch: seen.append(batch), every=True
    )
    check.add((torch.full((2, 2), torch.nan),))
    check.end_epoch()
    assert not seen
    of_stream = StreamCheck(stream(torch.zeros(4, 2)), lambda *_: None, every=True)
    of_stream.add((torch.full((2, 2), torch.nan),))
    with pytest.raises(ValueError, match="expected finite"):
        of_stream.end_epoch()
