"""A digest of a data set."""

from __future__ import annotations

from hashlib import sha256

from .datasets import SPLITS, Data


def fingerprint(data: Data) -> str:
    """SHA-256 over dtype, shape and bytes of all splits, context included."""
    digest = sha256()
    for name in SPLITS:
        for tensor in data.split(name):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
