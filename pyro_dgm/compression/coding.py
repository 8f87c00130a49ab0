"""Runs of a program whose draws come off a stack, or go onto it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..contract import PyroProgram, noise_name
from ..densities.precision import dtype_of
from ..densities.scoring import log_prob_of
from ..inference.data.tensors import Batch
from ..inference.sites.kinds import is_data, is_deterministic, is_drawn, is_subsample
from .codecs import FIX, codec_of
from .digits import Codec
from .grids import Grid, NoisyIntegers, Space
from .stack import WORD, Stack


class CodedRun(Messenger):
    """A run of a program with every site's value from elsewhere: `cells_of` says from where. Abstract.

    Args:
        spaces: of every site by its name.
        like: data whose dtype and device the program takes.
        num_data: number B of data.
        noise: site → the value of noise that is coded together with the data.

    Attributes:
        cells: site → cells `(B, *event)`, in the order of the run.
    """

    def __init__(
        self,
        spaces: Mapping[str, Space],
        like: Tensor,
        num_data: int,
        noise: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        self.spaces = spaces
        self.like = like
        self.num_data = num_data
        self.noise = noise or {}
        self.codecs: dict[str, Codec] = {}
        self.cells: dict[str, Tensor] = {}
        self.sites: list[tuple[Any, Tensor]] = []  # distributions, and what the program was given

    def cells_of(self, name: str, codec: Codec) -> Tensor:
        """The cells of a site."""
        raise NotImplementedError

    def log_density(self) -> Tensor:
        """The sum of the sites' log densities at their values `(B,)`, float64."""
        total = torch.zeros(self.num_data, dtype=torch.float64)
        for distribution, value in self.sites:
            total += log_prob_of(distribution, value).double().cpu()
        return total

    def _pyro_sample(self, msg: Any) -> None:
        if is_subsample(msg) or is_deterministic(msg) or not (is_drawn(msg) or is_data(msg)):
            return
        name, distribution = msg["name"], msg["fn"]
        if name in self.noise:
            msg["value"] = self.noise[name]
            return
        codec = self._codec(name, msg)
        cells = self.cells_of(name, codec)
        self.codecs[name], self.cells[name] = codec, cells
        dtype = self.like.dtype if msg["is_observed"] else dtype_of(distribution)
        value = self.spaces[name].values(cells).to(dtype=dtype, device=self.like.device)
        self.sites.append((distribution, value))
        msg["value"] = value

    def _codec(self, name: str, msg: Any) -> Codec:
        distribution = msg["fn"]
        if name not in self.spaces:
            raise ValueError(
                f"compress: expected the sites {list(self.spaces)}, got '{name}'. Fix: the programs that have coded."
            )
        if msg["mask"] is not None:
            raise ValueError(f"compress: site '{name}': expected no mask, got one. Fix: {FIX}.")
        if distribution.batch_shape != (self.num_data,):
            raise ValueError(
                f"compress: site '{name}': expected one plate, that of the data, got the batch "
                f"shape {tuple(distribution.batch_shape)} of {self.num_data} data. "
                "Fix: `with data_plate(x):` alone, and .to_event(…) for all dims of a datum."
            )
        try:
            return codec_of(distribution, self.spaces[name])
        except NotImplementedError as error:
            raise ValueError(f"compress: site '{name}': expected {error}. Fix: {FIX}.") from error


class Popped(CodedRun):
    """A run that draws what it draws, or observes, from a stack.

    Args:
        stack: of bits.
        arguments: of `CodedRun`.
    """

    def __init__(self, stack: Stack, *arguments: Any):
        super().__init__(*arguments)
        self.stack = stack

    def cells_of(self, name: str, codec: Codec) -> Tensor:  # noqa: D102
        return codec.pop(self.stack)


class Known(CodedRun):
    """A run with known values, which `push` puts on a stack, the last site first.

    Args:
        known: site → cells `(B, *event)`.
        arguments: of `CodedRun`.
    """

    def __init__(self, known: Mapping[str, Tensor], *arguments: Any):
        super().__init__(*arguments)
        self.known = known

    def cells_of(self, name: str, codec: Codec) -> Tensor:  # noqa: D102
        return self.known[name]

    def push(self, stack: Stack) -> None:
        """Put all sites on a stack."""
        for name in reversed(self.codecs):
            self.codecs[name].push(stack, self.cells[name])


class BlockCoder:
    r"""Bits-back coding of B data at a time: $\log_2 q(z \mid x) - \log_2 p(x, z)$ bits of each.

    `push` takes z off the stack by the guide, and puts x and z on it by the model; `pop` does the reverse. Both run the
    programs on tensors of the same shapes and in the same order, so that all numbers are the same to the last bit. The
    model never sees x as its argument, but a template of zeros, which is all that `pop` has.

    Bits of earlier data are random as far as their model is right. `push` scrambles those that z is drawn of, so
    that z has the guide's distribution, and the bits are those of the bound, also of other data.

    Of a dequantized model x and its noise u are coded as one, $v = x + u$, by the density of v.

    Args:
        model: the model.
        guide: its guide.
        observed: the name of the data's site.
        spaces: site → what its values are coded as.
        like: data `(…, *event)` of the shape, dtype and device of those that are coded.
        bits_of_latents: of how many bits the latents of one datum are drawn, at most about.

    References:
        Townsend, Bird, Barber 2019, *Practical lossless compression with latent variables using bits back coding*,
        arXiv:1901.04866; Hinton, van Camp 1993, *Keeping neural networks simple*.
    """

    def __init__(
        self,
        model: PyroProgram,
        guide: PyroProgram,
        observed: str,
        spaces: Mapping[str, Space],
        like: Tensor,
        bits_of_latents: int,
    ):
        self.bits_of_latents = bits_of_latents
        self.model, self.guide = model, guide
        self.observed = observed
        self.spaces = dict(spaces)
        self.like = like
        self.noise = noise_name(observed)
        self.joint: NoisyIntegers | None = None
        integers, grid = spaces[observed], spaces.get(self.noise)
        if isinstance(grid, Grid):
            self.joint = NoisyIntegers(integers.size, grid)

    def push(self, stack: Stack, cells: Tensor, context: Batch, *key: int) -> Tensor:
        r"""Add data; $\log q(z \mid x) - \log p(x, z)$ in nats at the z that was drawn `(B,)`.

        Args:
            stack: of bits.
            cells: the data `(B, *event)`.
            context: the programs' further arguments.
            key: of the bits that z is drawn with.
        """
        num = len(cells)
        stack.scramble(self._words(num), *key)
        drawn = Popped(stack, self.spaces, self.like, num)
        with drawn:
            self.guide(self._data(cells), *context)
        known = self._joined(drawn.cells | {self.observed: cells})
        scored = Known(known, *self._of_model(num, drawn.cells.get(self.noise)))
        with scored:
            self.model(self._template(num), *context)
        scored.push(stack)
        return drawn.log_density() - scored.log_density()

    def pop(self, stack: Stack, num: int, context: Batch, *key: int) -> Tensor:
        """Take the data off that were added last, as cells `(B, *event)`."""
        found = Popped(stack, *self._of_model(num, None))
        with found:
            self.model(self._template(num), *context)
        known = self._split(found.cells)
        given = Known(known, self.spaces, self.like, num)
        with given:
            self.guide(self._data(known[self.observed]), *context)
        given.push(stack)
        stack.scramble(self._words(num), *key)
        return known[self.observed]

    def _words(self, num: int) -> int:
        """How many words the draws of a block are made of, about."""
        return -(-num * self.bits_of_latents // WORD)

    def _of_model(self, num: int, noise: Tensor | None) -> tuple[Any, ...]:
        """The arguments of a run of the model, in which noise comes with the data."""
        if self.joint is None:
            return self.spaces, self.like, num
        if noise is None:
            noise = torch.zeros((num, *self.like.shape[1:]), dtype=torch.int64)
        value = self.joint.noise.values(noise).to(_floating(self.like))
        return self.spaces | {self.observed: self.joint}, self.like, num, {self.noise: value}

    def _joined(self, cells: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.joint is None:
            return cells
        joined = self.joint.join(cells[self.observed], cells[self.noise])
        return {**cells, self.observed: joined}

    def _split(self, cells: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.joint is None:
            return cells
        integers, noise = self.joint.split(cells[self.observed])
        return {**cells, self.observed: integers, self.noise: noise}

    def _data(self, cells: Tensor) -> Tensor:
        return self.spaces[self.observed].values(cells).to(self.like)

    def _template(self, num: int) -> Tensor:
        return self.like.new_zeros((num, *self.like.shape[1:]))


def _floating(tensor: Tensor) -> Tensor:
    """The tensor, or an empty one of the default dtype for integers."""
    return tensor if tensor.is_floating_point() else torch.empty(0, device=tensor.device)
