"""Compressed data: the bytes, and how they compare with the bound."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from math import nan, prod
from pathlib import Path
from typing import Any

import numpy as np

from ..display.tabular import Tabular
from ..files.errors import FileError
from ..files.reading import describe, read_file
from ..files.stamps import digest_of
from ..files.writing import write_file
from .grids import Space, space_of
from .stack import Heads, Words

MAGIC = b"pyro_dgm bits 1\n"
NUM_HEX = 16


@dataclass(frozen=True)
class Header:
    """What `decompress` has to know beside the two programs.

    Attributes:
        shape: of the data `(N, *event)`.
        dtype: of the data, as torch calls it.
        observed: the name of their site.
        spaces: site → what its values are coded as.
        bits_of_latents: of how many bits the latents of one datum are drawn, at most about.
        lanes: how many data are coded at once, at most.
        seed: of the initial bits.
        borrowed: how many words of them were used.
        data: digest of the data.
        weights: digest of the tensors of both programs.
        machine: where the numbers were computed.
    """

    shape: tuple[int, ...]
    dtype: str
    observed: str
    spaces: dict[str, Space]
    bits_of_latents: int
    lanes: int
    seed: int
    borrowed: int
    data: str
    weights: str
    machine: str

    @classmethod
    def of(cls, written: dict[str, Any]) -> Header:
        """The header that `asdict` has written down."""
        written["spaces"] = {name: space_of(space) for name, space in written["spaces"].items()}
        written["shape"] = tuple(written["shape"])
        return cls(**written)


@dataclass(frozen=True)
class Compressed(Tabular):
    r"""Data as bytes: N data take `net_bits` bits more than the `initial_bits` that a receiver has again afterwards.

    Attributes:
        header: what `decompress` reads.
        payload: the heads and the tail of the stack.
        net_bits: what coding has added.
        initial_bits: random bits that were there before, and come back: they might have been other data.
        bound: $-\mathrm{ELBO}$ in bits per datum, at the very latents that were coded.
        stderr: its standard error over the data.
    """

    header: Header
    payload: bytes
    net_bits: float
    initial_bits: float
    bound: float
    stderr: float

    @property
    def num_data(self) -> int:
        """Number N of data."""
        return self.header.shape[0]

    @property
    def content(self) -> bytes:
        """The file: header, payload, and the digest of both."""
        figures = [self.net_bits, self.initial_bits, self.bound, self.stderr]
        head = zlib.compress(json.dumps([asdict(self.header), figures]).encode(), level=9)
        whole = b"".join([MAGIC, len(head).to_bytes(4, "little"), head, self.payload])
        return whole + digest_of(whole)[:NUM_HEX].encode()

    @property
    def num_bytes(self) -> int:
        """The length of the file."""
        return len(self.content)

    @property
    def bits_per_datum(self) -> float:
        """Net bits of one datum."""
        return self.net_bits / self.num_data

    @property
    def bits_per_dim(self) -> float:
        """Net bits of one number of a datum."""
        return self.bits_per_datum / prod(self.header.shape[1:])

    @property
    def excess(self) -> float:
        r"""$\mathrm{net} / (N \cdot \mathrm{bound}) - 1$: what coding costs beyond the bound; NaN of a bound of 0."""
        return self.bits_per_datum / self.bound - 1 if self.bound else nan

    @property
    def excess_of_file(self) -> float:
        r"""$8 \cdot \mathrm{bytes} / (N \cdot \mathrm{bound} + \mathrm{initial}) - 1$: the same of the whole file."""
        return 8 * self.num_bytes / (self.num_data * self.bound + self.initial_bits) - 1

    def columns(self) -> dict[str, Any]:
        """One row."""
        return {
            "data": self.num_data,
            "bytes": self.num_bytes,
            "bits_per_datum": self.bits_per_datum,
            "bits_per_dim": self.bits_per_dim,
            "bound": self.bound,
            "stderr": self.stderr,
            "excess": self.excess,
            "initial_bits": self.initial_bits,
            "excess_of_file": self.excess_of_file,
        }

    def __str__(self) -> str:
        return (
            f"{self.num_data:,} data in {self.num_bytes:,} bytes: {self.bits_per_datum:.2f} bits/datum, "
            f"{self.bits_per_dim:.4f} bits/dim, without the {self.initial_bits:,.0f} initial bits; "
            f"-ELBO {self.bound:.2f} ± {self.stderr:.2f} bits/datum at the same draws "
            f"({self.excess:+.2%}; the file {self.excess_of_file:+.2%} with the initial bits)"
        )

    def stack(self) -> tuple[Heads, Words]:
        """The heads and the tail that coding has ended with."""
        size, got = 8 * self.header.lanes, len(self.payload)
        if got < size or got % 4:
            raise ValueError(
                f"Compressed: expected a payload of {size} bytes of heads and words of 4, got {got} bytes. "
                "Fix: results.Compressed.load(path), which refuses damaged files."
            )
        heads = np.frombuffer(self.payload[:size], "<u8").astype(np.uint64)
        return heads, np.frombuffer(self.payload[size:], "<u4").astype(np.uint32)

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            FileError: if it can't be written.
        """
        write_file(path, self.content)

    @classmethod
    def load(cls, path: str | Path) -> Compressed:
        """Read a file that `save` has written.

        Raises:
            FileError: if it is missing, another file, damaged, or of another version.
        """
        what, fix = "data of Compressed.save", "compress(…).save(path) again"
        content = read_file(path, what, fix)
        if not content.startswith(MAGIC):
            raise FileError(path, what, describe(content), fix)
        whole, digest = content[:-NUM_HEX], content[-NUM_HEX:]
        if digest_of(whole)[:NUM_HEX].encode() != digest:
            raise FileError(path, what, "bytes that differ from their digest", fix)
        try:
            return cls._parse(whole[len(MAGIC) :])
        except (TypeError, KeyError, ValueError, zlib.error) as error:
            got = f"a header of another version of pyro_dgm ({error})"
            raise FileError(path, what, got, fix) from error

    @classmethod
    def _parse(cls, whole: bytes) -> Compressed:
        """The parts of a file behind its first line."""
        end = 4 + int.from_bytes(whole[:4], "little")
        header, figures = json.loads(zlib.decompress(whole[4:end]))
        return cls(Header.of(header), whole[end:], *figures)


def require_compressed(value: Any) -> Compressed:
    """What `compress` has returned; bytes, paths and anything else are refused with the call that reads them."""
    if isinstance(value, Compressed):
        return value
    raise TypeError(
        f"decompress: expected what compress has returned, got {type(value).__name__}. "
        "Fix: compressed.save(path), and decompress(model, guide, results.Compressed.load(path))."
    )


def payload_of(heads: Heads, tail: Words) -> bytes:
    """Heads and tail as bytes."""
    return heads.astype("<u8").tobytes() + tail.astype("<u4").tobytes()
