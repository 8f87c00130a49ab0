"""Real data sets as they lie in a folder, where there is one: PYRO_DGM_DATA=FOLDER pytest."""

import os
from pathlib import Path

import pytest
import torch

from pyro_dgm.datasets import File, FreyFaces, Idx, Kind

FOLDER = Path(os.environ.get("PYRO_DGM_DATA", "nowhere"))


def path_of(name):
    if not (FOLDER / name).exists():
        pytest.skip(f"needs {name} in the folder PYRO_DGM_DATA")
    return str(FOLDER / name)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_and_its_relative_are_split_as_is_usual(name):
    data, usual = File(path_of(name)), Idx(path_of(name), binary=False)
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(data, split), getattr(usual, split))
        assert len(data.labels[split]) == len(getattr(data, split))
    assert (data.event_shape, data.levels, len(data.classes)) == ((28, 28), 256, 10)
    first = {"mnist": [5, 0, 4, 1, 9], "fashion_mnist": [9, 0, 0, 3, 0]}[name]
    assert data.labels["train"][:5].tolist() == first


@pytest.mark.parametrize(
    ("name", "dim", "sizes"),
    [
        ("nltcs", 16, [16_181, 2_157, 3_236]),
        ("plants", 69, [17_412, 2_321, 3_482]),
        ("baudio", 100, [15_000, 2_000, 3_000]),
        ("jester", 100, [9_000, 1_000, 4_116]),
        ("bnetflix", 100, [15_000, 2_000, 3_000]),
    ],
)
def test_binary_tables_have_the_sizes_of_the_literature(name, dim, sizes):
    path_of(f"debd/{name}.npz")
    data = File(str(FOLDER / "debd" / name))
    assert [len(part) for part in (data.train, data.val, data.test)] == sizes
    assert (data.event_shape, data.kind) == ((dim,), Kind.BINARY)


def test_frey_faces_are_the_same_pictures():
    path = path_of("frey_faces/frey_faces.npz")
    data, usual = File(path), FreyFaces(path)
    assert (data.event_shape, data.levels) == (usual.event_shape, usual.levels)
    both = [torch.cat([d.train, d.val, d.test]).sum().item() for d in (data, usual)]
    assert both[0] == both[1]
