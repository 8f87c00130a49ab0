"""The fingerprint of data: SHA-256 by hand, on disk as in memory, changed by every bit."""

import hashlib

import numpy as np
import pytest
import torch

from pyro_dgm.datasets import Data, File, fingerprint
from pyro_dgm.experiments.data import fingerprints
from pyro_dgm.experiments.data.readers import stored

X = torch.arange(24, dtype=torch.float64).reshape(6, 4)


def data_of(x, context=None, **further):
    parts = {name: x[2 * k : 2 * k + 2] for k, name in enumerate(("train", "val", "test"))}
    beside = None
    if context is not None:
        names = enumerate(("train", "val", "test"))
        beside = {name: (context[2 * k : 2 * k + 2],) for k, name in names}
    return Data(**parts, event_shape=x.shape[1:], context=beside, **further)


def test_it_is_sha256_of_name_dtype_shape_and_bytes():
    x, c = X.float(), torch.arange(6)[:, None] % 2 == 0
    found = hashlib.sha256()
    for k, name in enumerate(("train", "val", "test")):
        rows = slice(2 * k, 2 * k + 2)
        found.update(f"{name}[0] torch.float32 (2, 4)\n".encode() + x[rows].numpy().tobytes())
        found.update(f"{name}[1] torch.bool (2, 1)\n".encode() + c[rows].numpy().tobytes())
    assert fingerprint(data_of(x, c)) == found.hexdigest()


def test_blocks_and_strides_do_not_count(monkeypatch):
    whole = fingerprint(data_of(X))
    monkeypatch.setattr(fingerprints, "BLOCK", 1)
    assert fingerprint(data_of(X)) == whole
    assert fingerprint(data_of(X.T.contiguous().T)) == whole


def test_every_bit_dtype_and_place_counts():
    changed = X.clone()
    changed[5, 3] += 1e-12
    context = torch.zeros(6, 1)
    variants = [
        data_of(X),
        data_of(changed),
        data_of(X.float()),
        data_of(X.flip(0)),
        data_of(X.reshape(6, 2, 2)),
        data_of(X, context),
        data_of(X, context + 1),
    ]
    assert len({fingerprint(data) for data in variants}) == len(variants)
    assert fingerprint(data_of(X, levels=24)) == fingerprint(data_of(X))


@pytest.mark.parametrize("number", [torch.bfloat16, torch.float16, torch.uint8, torch.int64])
def test_all_dtypes_have_one(number):
    assert len(fingerprint(data_of(X.to(number)))) == 64


def test_a_map_on_disk_has_that_of_its_rows_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "ON_DISK", 1)
    x = np.random.default_rng(0).normal(size=(30, 4))
    np.save(tmp_path / "x.npy", x)
    mapped = File(str(tmp_path / "x.npy"))
    x = torch.as_tensor(x)
    assert fingerprint(mapped) == fingerprint(Data(x[:24], x[24:27], x[27:], (4,)))


@pytest.mark.cuda
def test_it_is_the_same_on_a_gpu():
    assert fingerprint(data_of(X.cuda())) == fingerprint(data_of(X))
