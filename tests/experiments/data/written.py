"""Small files of every format, written as their own tools write them."""

import gzip
import struct

import numpy as np

CODES = {"u1": 8, "i1": 9, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def write_array(path, array):
    """An IDX file, gzipped if its name says so."""
    code = CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_pictures(folder, num, size=(6, 5), mode="L", seed=0, suffix=".png"):
    """Random pictures, and their bytes."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    shape = size if mode == "L" else (*size, len(mode))
    arrays = np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)
    for number, array in enumerate(arrays):
        Image.fromarray(array, mode=None).save(folder / f"{number:03}{suffix}")
    return arrays


def multiset(rows):
    """Rows of all splits in an order of their own."""
    return sorted(map(tuple, np.asarray(rows).tolist()))


def everything(data):
    """The rows of all splits."""
    return np.concatenate([np.asarray(part) for part in (data.train, data.val, data.test)])
