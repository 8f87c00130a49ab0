"""Data as users have them: one set in every form, with stand-ins for libraries that may be missing."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.utils.data import ChainDataset, DataLoader, Dataset, IterableDataset, get_worker_info

N, D = 10, 9  # batches of 3 leave a rest of one datum, which training joins to the one before
GENERATOR = torch.Generator().manual_seed(5)
X = (torch.rand(N, D, generator=GENERATOR, device="cpu") > 0.5).float()
LABELS = torch.arange(N, device="cpu") % 3
COUNTS = torch.poisson(torch.ones(N, D, device="cpu"), generator=GENERATOR)


# -- map-style -------------------------------------------------------------------------------------
class Rows(Dataset):
    """A map-style dataset of a function of the place."""

    def __init__(self, row):
        self.row = row

    def __len__(self):
        return N

    def __getitem__(self, place):
        if not 0 <= place < N:
            raise IndexError(place)
        return self.row(place)


class Columns:
    """A dataset as `datasets.Dataset` is one: no class of torch, dict rows, lists where no format was set."""

    def __init__(self, **columns):
        self.columns = columns

    @property
    def shape(self):
        return len(self), len(self.columns)

    def __len__(self):
        return N

    def __iter__(self):
        return (self[place] for place in range(N))

    def __getitem__(self, place):
        return {name: column[place] for name, column in self.columns.items()}

    def __getitems__(self, places):
        return [self[place] for place in places]


# -- streams ---------------------------------------------------------------------------------------
class Stream(IterableDataset):
    """A stream as those of `datasets` and `webdataset`: no length, read anew by each iterator, cut by workers."""

    def __init__(self, row, num=N):
        self.row, self.num, self.epochs = row, num, []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return (self.row(place) for place in range(first, self.num, step))


# -- arrays that are read --------------------------------------------------------------------------
class ArrayOnDisk:
    """What h5py calls an array: ascending numbers without repetition, or ranges; it counts what it is asked for."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.shape, self.dtype = self.array.shape, self.array.dtype
        self.most = 0

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        assert isinstance(rows, slice) or (np.diff(rows) > 0).all()
        found = self.array[rows]
        self.most = max(self.most, len(found))
        return found


class BackedCounts(ArrayOnDisk):
    """A matrix that is backed by a file, as anndata has it: it gives sparse rows."""

    def __getitem__(self, rows):
        import scipy.sparse

        return scipy.sparse.csr_matrix(super().__getitem__(rows))


def memory_map(tmp_path, array):
    path = tmp_path / "x.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def hdf5(tmp_path, array):
    h5py = pytest.importorskip("h5py")
    return h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=array)


def zarr_array(tmp_path, array):
    return pytest.importorskip("zarr").array(array)


# -- libraries that may be missing -----------------------------------------------------------------
def hugging_face() -> ModuleType:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets


def hf_rows(**columns):
    return hugging_face().Dataset.from_dict(columns)


def hf_stream(form):
    def rows():
        for place in range(N):
            yield {"x": X[place].numpy()}

    return hugging_face().IterableDataset.from_generator(rows).with_format(form)


def web_dataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = str(tmp_path / "x-000000.tar")
    with webdataset.TarWriter(path) as writer:
        for place in range(N):
            sample = {"__key__": f"{place:04d}", "x.npy": X[place].numpy()}
            writer.write({**sample, "cls": int(LABELS[place])})
    return webdataset.WebDataset(path, shardshuffle=False).decode()


def web_loader(stream, **options):
    return sys.modules["webdataset"].WebLoader(stream, **options)


# -- the table: each form of x, in the order of the data -------------------------------------------
FORMS = {
    "an array": lambda tmp_path: X.numpy(),
    "bytes": lambda tmp_path: X.byte(),
    "a memory map": lambda tmp_path: memory_map(tmp_path, X.numpy()),
    "a memory map of bytes": lambda tmp_path: memory_map(tmp_path, X.byte().numpy()),
    "an array on disk": lambda tmp_path: ArrayOnDisk(X),
    "HDF5": lambda tmp_path: hdf5(tmp_path, X.numpy()),
    "zarr": lambda tmp_path: zarr_array(tmp_path, X.numpy()),
    "a Dataset": lambda tmp_path: Rows(lambda i: X[i]),
    "a Dataset of tuples of arrays": lambda tmp_path: Rows(lambda i: (X[i].numpy(),)),
    "a Dataset of dicts": lambda tmp_path: Rows(lambda i: {"x": X[i]}),
    "a Dataset of batches": lambda tmp_path: DataLoader(
        [x.clone() for x in X.split(3)], batch_size=None
    ),
    "columns of lists": lambda tmp_path: Columns(x=X.tolist()),
    "columns of tensors": lambda tmp_path: Columns(x=X),
    "a list of rows": lambda tmp_path: list(X),
    "a loader": lambda tmp_path: DataLoader(Rows(lambda i: X[i]), 3),
    "a loader of rows one by one": lambda tmp_path: DataLoader(Rows(lambda i: X[i]), None),
    "a loader with workers": lambda tmp_path: DataLoader(
        Rows(lambda i: X[i]), 3, num_workers=2, persistent_workers=True
    ),
    "a loader with a collate_fn": lambda tmp_path: DataLoader(
        Rows(lambda i: (X[i], i)), 3, collate_fn=first_column
    ),
    "a list of batches": lambda tmp_path: [x.clone() for x in X.split(3)],
    "a stream": lambda tmp_path: Stream(lambda i: X[i]),
    "a stream of dicts of lists": lambda tmp_path: Stream(lambda i: {"x": X[i].tolist()}),
    "a stream of samples": lambda tmp_path: Stream(
        lambda i: {"__key__": str(i), "x": X[i].numpy()}
    ),
    "a stream of batches": lambda tmp_path: Stream(
        lambda i: (X[3 * i : 3 * i + 3].clone(),), num=4
    ),
    "a stream of dicts of lists of arrays": lambda tmp_path: Stream(
        lambda i: {"x": list(X[3 * i : 3 * i + 3].numpy())}, num=4
    ),
    "a stream in a loader": lambda tmp_path: DataLoader(Stream(lambda i: X[i]), 3),
    "a stream in a loader with a worker": lambda tmp_path: DataLoader(
        Stream(lambda i: X[i]), 3, num_workers=1
    ),
    "a chain of streams": lambda tmp_path: ChainDataset([Stream(lambda i: X[i])]),
    "Hugging Face": lambda tmp_path: hf_rows(x=X.tolist()),
    "Hugging Face tensors": lambda tmp_path: hf_rows(x=X.tolist()).with_format("torch"),
    "Hugging Face column": lambda tmp_path: hf_rows(x=X.tolist()).with_format("torch")["x"],
    "Hugging Face in a loader": lambda tmp_path: DataLoader(
        hf_rows(x=X.tolist()).with_format("torch"), 3
    ),
    "Hugging Face stream": lambda tmp_path: hf_stream(None),
    "Hugging Face stream of tensors": lambda tmp_path: hf_stream("torch"),
    "Hugging Face stream in a loader": lambda tmp_path: DataLoader(hf_stream("torch"), 3),
    "Hugging Face stream of batches": lambda tmp_path: hf_stream(None).batch(3),
    "WebDataset": lambda tmp_path: web_dataset(tmp_path).to_tuple("x.npy"),
    "WebDataset of batches": lambda tmp_path: web_dataset(tmp_path).to_tuple("x.npy").batched(3),
    "WebLoader": lambda tmp_path: web_loader(web_dataset(tmp_path).to_tuple("x.npy"), batch_size=3),
    "WebLoader of batches": lambda tmp_path: web_loader(
        web_dataset(tmp_path).to_tuple("x.npy").batched(3), batch_size=None
    ),
}


def first_column(rows):
    return torch.stack([row[0] for row in rows])


def sparse_forms():
    """The counts as sparse rows, by name."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    dense = COUNTS.numpy()
    found = {
        name: getattr(scipy_sparse, name)(dense)
        for name in ("csr_matrix", "csr_array", "csc_matrix", "coo_matrix", "lil_matrix")
    }
    found["sparse_csr"] = COUNTS.to_sparse_csr()
    found["sparse_coo"] = COUNTS.to_sparse()
    found["backed by a file"] = BackedCounts(dense)
    found["a list of batches"] = [scipy_sparse.csr_matrix(dense[i : i + 3]) for i in (0, 3, 6, 9)]
    found["a stream of rows"] = Stream(lambda i: found["csr_matrix"][i])
    return found
