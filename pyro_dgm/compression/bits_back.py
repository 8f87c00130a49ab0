"""`compress` and `decompress`: a pair of programs as a lossless code of its data."""

from __future__ import annotations

from collections.abc import Iterator
from math import log, nan, sqrt
from typing import Any

import torch
from torch import Tensor

from ..contract import PyroProgram
from ..display.progress import watched
from ..files.stamps import digest_of
from ..inference.data.tensors import Batch, take_rows
from ..inference.process.states import named_tensors
from ..inference.run.sessions import Session, session
from .coding import BlockCoder
from .compressed import NUM_HEX, Compressed, Header, payload_of, require_compressed
from .planning import blocks_of, check_structure, num_lanes, sizes_of_blocks, spaces_of
from .stack import EmptyStackError, Reservoir, Stack


def compress(model: PyroProgram, guide: PyroProgram, *batch: Any, seed: int = 0) -> Compressed:
    r"""Data as bytes, of $-\mathrm{ELBO} / \log 2$ bits per datum; `decompress` has them again, bit for bit.

    Bits-back coding: z is drawn from $q(z \mid x)$ by bits that were coded before, then x is coded by $p(x \mid z)$ and
    z by $p(z)$, which costs $-\log_2 p(x, z) + \log_2 q(z \mid x)$ net. So the length of the bytes is the bound, and
    proves it: nothing that is no probability of the data could be decoded.

    Latents are coded on a grid that is far finer than the guide's scale, normals by their masses in its cells, mixtures
    with the bits of their component back, flows by local bits-back. Several latent sites are taken in their order. The
    first data need bits where there are none: the random `initial_bits`, which a receiver has again afterwards.

    Decoding computes the very numbers that coding has computed. It takes the same weights, and may fail (it then says
    so, and never gives wrong data) with another processor, device, number of threads, or version of torch.

    Args:
        model: a Pyro program with one observed site, of masses: Bernoulli, Categorical, DiscretizedLogistic, counts.
        guide: its guide; `EmptyGuide()` for a model without latents.
        batch: integers x from 0 on, a row per datum, then the context.
        seed: of the initial bits.

    Raises:
        ValueError: for a density of x, global or auxiliary latents, enumerated sites, factors, masks, point masses, a
            model that observes a function of x or looks at x itself, and for distributions without a code, such as an
            autoregressive PixelCNN.

    References:
        Townsend, Bird, Barber 2019, arXiv:1901.04866; Ho, Lohn, Abbeel 2019, arXiv:1905.08500 (flows).

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import VAE, Bernoulli, Conditional, StandardNormal, mlp
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> x = torch.ones(20, 9)
        >>> bool((decompress(vae.model, vae.guide, compress(vae.model, vae.guide, x)) == x).all())
        True
    """
    with session(model, guide, *batch, seed=seed) as pair:
        x = pair.batch[0]
        observed = check_structure(pair.structure)
        spaces, bits_of_latents = spaces_of(*pair.programs, pair.batch, observed)
        lanes = num_lanes(len(x), x[0].numel(), spaces[observed].size)
        coder = BlockCoder(*pair.programs, observed, spaces, x, bits_of_latents)
        seed = int(seed)  # NumPy's integers wrap around
        stack = Stack.random(Reservoir(lanes, seed))
        costs = torch.cat(list(_push_all(coder, stack, pair.batch, lanes, seed)))
        header = Header(
            shape=tuple(x.shape),
            dtype=str(x.dtype).removeprefix("torch."),
            observed=observed,
            spaces=spaces,
            bits_of_latents=bits_of_latents,
            lanes=lanes,
            seed=seed,
            borrowed=stack.num_borrowed,
            data=_digest_of(x.long()),
            weights=_digest_of(*_tensors_of(pair)),
            machine=_machine(pair),
        )
    num = len(costs)
    return Compressed(
        header,
        payload_of(stack.heads, stack.tail),
        net_bits=stack.bits - stack.initial_bits,
        initial_bits=stack.initial_bits,
        bound=costs.mean().item() / log(2),
        stderr=costs.std().item() / sqrt(num) / log(2) if num > 1 else nan,
    )


def decompress(
    model: PyroProgram, guide: PyroProgram, compressed: Compressed, *context: Any
) -> Tensor:
    """The data of `compress`, bit for bit, in their dtype; see there what it takes.

    Args:
        model: the program that has coded them, with the same weights.
        guide: its guide, likewise.
        compressed: what `compress` has returned, or `results.Compressed.load(path)`.
        context: the programs' further arguments, as they were.

    Raises:
        ValueError: for other weights or sites; where other numbers come out than coding has computed.
        TypeError: for anything else than what `compress` has returned.
    """
    header = require_compressed(compressed).header
    template = torch.zeros(header.shape, dtype=getattr(torch, header.dtype))
    with session(model, guide, template, *context) as pair:
        _require_weights(header, _digest_of(*_tensors_of(pair)))
        x = pair.batch[0]
        coder = BlockCoder(
            *pair.programs, header.observed, header.spaces, x, header.bits_of_latents
        )
        stack = Stack(*compressed.stack())
        try:
            cells = _pop_all(coder, stack, pair.batch[1:], header)
        except EmptyStackError:
            raise _other_numbers(header, pair) from None
        whole = stack.holds(Reservoir(header.lanes, header.seed), header.borrowed)
        if not whole or _digest_of(cells) != header.data:
            raise _other_numbers(header, pair)
        return header.spaces[header.observed].values(cells).to(x)


def _push_all(
    coder: BlockCoder, stack: Stack, batch: Batch, lanes: int, seed: int
) -> Iterator[Tensor]:
    """Code all data; the cost of each block in nats."""
    blocks = list(blocks_of(batch, lanes))
    numbered = watched(enumerate(blocks), len(blocks), "block", "compress")
    for number, (x, *context) in numbered:
        yield coder.push(stack, x.long().cpu(), tuple(context), seed % 2**64, number)


def _pop_all(coder: BlockCoder, stack: Stack, context: Batch, header: Header) -> Tensor:
    """The cells of all data, of which the last were coded last."""
    sizes = list(enumerate(sizes_of_blocks(header.shape[0], header.lanes)))
    end, found = header.shape[0], []
    for number, size in watched(reversed(sizes), len(sizes), "block", "decompress"):
        rows = take_rows(context, slice(end - size, end))
        found.append(coder.pop(stack, size, rows, header.seed % 2**64, number))
        end -= size
    return torch.cat(found[::-1])


def _tensors_of(pair: Session) -> list[Tensor]:
    """The tensors of both programs."""
    found = []
    for program in pair.programs:
        if isinstance(program, torch.nn.Module):
            found += [tensor for _, tensor in named_tensors(program)]
    return found


def _digest_of(*tensors: Tensor) -> str:
    parts = [tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors]
    return digest_of(b"".join(parts))[:NUM_HEX]


def _machine(pair: Session) -> str:
    return f"torch {torch.__version__}, {pair.device.type}, {torch.get_num_threads()} threads"


def _require_weights(header: Header, got: str) -> None:
    if got != header.weights:
        raise ValueError(
            f"decompress: expected the weights that the data were coded with (digest {header.weights}), got "
            f"others ({got}). Fix: load_weights(vae, path) of those."
        )


def _other_numbers(header: Header, pair: Session) -> ValueError:
    return ValueError(
        "decompress: expected the numbers that coding has computed, got others, so that the data do not come "
        f"back. They were coded with {header.machine}; this is {_machine(pair)}. Fix: decompress there, with the "
        "same programs and context."
    )
