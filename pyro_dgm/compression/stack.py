"""A stack of bits that codes many lanes at once: range asymmetric numeral systems (rANS) in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PRECISION = 24  # bits of a probability: no coin is surer than 1 - 2^-24
WORD = 32  # bits that a lane hands to the common tail
# Of a head, behind its leading bit: they give its log2 to an eighth, and are no part of draws.
BITS_OF_SIZE = 3
LEAST_HEAD = np.uint64(1 << WORD)  # between steps a head lies in [2^32, 2^64)
LOW_WORD = np.uint64((1 << WORD) - 1)
ROOM = np.uint64(64 - PRECISION)
SLOTS = np.uint64((1 << PRECISION) - 1)

Words = NDArray[np.uint32]
Heads = NDArray[np.uint64]
Counts = NDArray[np.uint64]  # of the outcome 0, in 1, …, 2^24 - 1
Coins = NDArray[np.bool_]


class EmptyStackError(ValueError):
    """More bits are asked of a stack than were put on it."""


@dataclass(frozen=True)
class Reservoir:
    """The random bits that lie under everything: a function of the seed alone.

    Attributes:
        lanes: how many heads they start.
        seed: of the bits.
    """

    lanes: int
    seed: int

    @cached_property
    def heads(self) -> Heads:
        """The heads before anything was coded, uniform in [2^32, 2^33)."""
        low = self._generator(0).integers(0, 1 << WORD, size=self.lanes, dtype=np.uint64)
        return low + LEAST_HEAD

    def words(self, number: int) -> Words:
        """The uppermost words below the heads, the uppermost one last."""
        return _random_words(self._generator(1), number)[::-1]

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed % 2**64, stream]))


class Stack:
    r"""Last in, first out: `push` of a symbol of probability p adds $-\log_2 p$ bits, `pop` takes them off.

    Each is the exact inverse of the other. `pop` of a stack of random bits draws a symbol of probability p. The first
    lanes of a stack code one symbol each at a time; full heads hand 32 bits to one common tail.

    Args:
        heads: one state per lane `(L,)`, in [2^32, 2^64).
        tail: words `(n,)`, the uppermost one last.
        reservoir: of random words, which are borrowed where a `pop` finds none; `None`: it raises.

    References:
        Duda 2013, *Asymmetric numeral systems*, arXiv:1311.2540; Giesen 2014, *Interleaved entropy coders*,
        arXiv:1402.3392; Townsend, Bird, Barber 2019, arXiv:1901.04866.
    """

    def __init__(self, heads: Heads, tail: Words, reservoir: Reservoir | None = None):
        self.heads = heads.copy()
        self.num_borrowed = 0
        self._reservoir = reservoir
        self._words = tail.copy()  # with room behind the words that count
        self._num = len(tail)

    @classmethod
    def random(cls, reservoir: Reservoir) -> Stack:
        """The stack of random bits that coding starts with."""
        return cls(reservoir.heads, np.empty(0, np.uint32), reservoir)

    @property
    def tail(self) -> Words:
        """The words below the heads `(n,)`, the uppermost one last."""
        return self._words[: self._num]

    @property
    def bits(self) -> float:
        r"""$32 n + \sum_l \log_2 h_l$: how much it holds."""
        return WORD * self._num + float(np.log2(self.heads).sum())

    @property
    def initial_bits(self) -> float:
        """What it has held before anything was coded: its first heads, and the words that it has borrowed."""
        if self._reservoir is None:
            return 0.0
        return WORD * self.num_borrowed + float(np.log2(self._reservoir.heads).sum())

    def holds(self, reservoir: Reservoir, num: int) -> bool:
        """Whether it is the stack of random bits again, of which `num` words were borrowed."""
        same_heads = np.array_equal(self.heads, reservoir.heads)
        return same_heads and np.array_equal(self.tail, reservoir.words(num))

    def scramble(self, num: int, *key: int) -> None:
        """Exclusive or of the heads and the uppermost words with random bits; twice, it is undone.

        What was coded by a model of other data is no random bits: draws made of them would be off. Of a head the high
        bits change, too, since draws take them before they ask for a word; only its leading bit and three more stay,
        which say how much it holds. Where there are fewer words they are borrowed first.

        Args:
            num: how many words.
            key: of the random bits.
        """
        if num > self._num:
            self._borrow(num - self._num)
        random = np.random.Generator(np.random.PCG64(key))
        self.tail[self._num - num :] ^= _random_words(random, num)
        low, high = _random_words(random, (2, len(self.heads))).astype(np.uint64)
        below = _below_leading_bit(self.heads) >> np.uint64(BITS_OF_SIZE)
        self.heads ^= (low | high << np.uint64(WORD)) & below

    def push(self, coins: Coins, counts: Counts) -> None:
        r"""Add coins `(B, C)`, the last column first; 0 has probability $c / 2^{24}$ with the counts c `(B, C)`."""
        starts, sizes = _interval(coins, counts)
        limits = sizes << ROOM
        for column in reversed(range(coins.shape[1])):
            self._push(starts[:, column], sizes[:, column], limits[:, column])

    def pop(self, counts: Counts) -> Coins:
        """Take coins `(B, C)` off, the first column first: the inverse of `push`."""
        coins = np.empty(counts.shape, np.bool_)
        for column in range(counts.shape[1]):
            coins[:, column] = self._pop(counts[:, column])
        return coins

    def _push(self, start: Counts, size: Counts, limit: Counts) -> None:
        heads = self.heads[: len(start)]
        is_full = heads >= limit
        if is_full.any():
            self._put((heads[is_full] & LOW_WORD).astype(np.uint32))
            heads = np.where(is_full, heads >> np.uint64(WORD), heads)
        quotient = heads // size
        remainder = heads - quotient * size
        self.heads[: len(start)] = (quotient << np.uint64(PRECISION)) + remainder + start

    def _pop(self, count: Counts) -> Coins:
        heads = self.heads[: len(count)]
        slot = heads & SLOTS
        coin = slot >= count
        start, size = _interval(coin, count)
        heads = size * (heads >> np.uint64(PRECISION)) + slot - start
        is_low = heads < LEAST_HEAD
        num_low = int(is_low.sum())
        if num_low:
            words = self._take(num_low).astype(np.uint64)
            heads[is_low] = (heads[is_low] << np.uint64(WORD)) | words
        self.heads[: len(count)] = heads
        return coin

    def _put(self, words: Words) -> None:
        end = self._num + len(words)
        if end > len(self._words):
            room = np.empty(2 * end, np.uint32)
            room[: self._num] = self.tail
            self._words = room
        self._words[self._num : end] = words
        self._num = end

    def _take(self, num: int) -> Words:
        if num > self._num:
            self._borrow(num - self._num)
        self._num -= num
        return self._words[self._num : self._num + num]

    def _borrow(self, num: int) -> None:
        """Put further words of the reservoir under all others."""
        if self._reservoir is None:
            raise EmptyStackError("expected bits on the stack, got none")
        self.num_borrowed += num
        below = self._reservoir.words(self.num_borrowed)[:num]
        self._words = np.concatenate([below, self.tail])
        self._num = len(self._words)


def _interval(coins: Coins, counts: Counts) -> tuple[Counts, Counts]:
    """Where the slots of the outcomes begin, and how many they are."""
    whole = np.uint64(1 << PRECISION)
    starts = np.where(coins, counts, np.uint64(0))
    return starts, np.where(coins, whole - counts, counts)


def _random_words(random: np.random.Generator, shape: int | tuple[int, ...]) -> Words:
    """Uniform words."""
    return random.integers(0, 1 << WORD, size=shape, dtype=np.uint64).astype(np.uint32)


def _below_leading_bit(numbers: Heads) -> Heads:
    r"""$2^{\lfloor \log_2 h \rfloor} - 1$ of each, without rounding."""
    filled = numbers.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        filled |= filled >> np.uint64(shift)
    return filled >> np.uint64(1)
