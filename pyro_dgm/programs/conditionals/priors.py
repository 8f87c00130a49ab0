"""Priors beyond the standard normal: a mixture of normals, and mixtures of the encoder's own posteriors."""

from __future__ import annotations

import warnings
from math import expm1, inf, log

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ...densities.precision import at_least_float32
from ...display.representation import SettingsFirst
from ..distributions.mixtures import Mixture
from ..requirements import require_conditional, require_sizes
from ..weights import Weights
from .conditional import positive

NARROW = 0.05  # of the mean, or of 1: pseudo-inputs of a smaller spread are no data


class MixturePrior(SettingsFirst):
    r"""$p(z) = \sum_{k=1}^K \pi_k\, \mathcal N(z; \mu_k, \mathrm{diag}\, \sigma_k^2)$, all learned. Exact.

    Components are joint over the dims: one k for the whole of z. At the start their locations are random and
    the mixture has about zero mean and unit variance.

    Args:
        dim: size D of z.
        num_components: number K of components.

    Shape:
        c: nothing, or `(*batch, C)`  ->  batch_shape `()` or `(*batch)`, event_shape `(dim,)`.

    Raises:
        ValueError: for a size or a number of components below 1.

    Example:
        >>> MixturePrior(2, num_components=5)().log_prob(torch.zeros(7, 2)).shape
        torch.Size([7])
    """

    def __init__(self, dim: int, num_components: int):
        super().__init__()
        require_sizes("MixturePrior", dim=dim, num_components=num_components)
        # Half of the unit variance lies between the components, half within each.
        std = 0.5**0.5
        raw_scale = log(expm1(std))
        self.loc = nn.Parameter(std * torch.randn(num_components, dim))
        self.raw_scale = nn.Parameter(torch.full((num_components, dim), raw_scale))
        self.logits = nn.Parameter(torch.zeros(num_components))

    def extra_repr(self) -> str:
        num_components, dim = self.loc.shape
        return f"{dim}, {num_components}"

    def forward(self, *contexts: Tensor) -> Mixture:
        log_weights = self.logits.log_softmax(-1)
        weights = Weights("MixturePrior", self)
        return Mixture(self._component, log_weights, contexts, weights=weights)

    def _component(self, k: Tensor, *contexts: Tensor) -> dist.TorchDistribution:
        scale = positive(self.raw_scale[k])
        return dist.Normal(self.loc[k], scale).to_event(1)


class VampPrior(SettingsFirst):
    r"""$p(z) = \frac1K \sum_{k=1}^K q(z \mid u_k)$: encoder q, learned pseudo-inputs $u_k$. Exact.

    The encoder is a reference to the guide's own, not a copy: training moves the two as one. With an encoder
    that scores given points slowly (`iaf`) the density takes D network calls; coupling layers take one.

    Learned is $v_k$ in $u_k = c + s\, v_k$, with c the mean of the pseudo-inputs at their start and the unit s: a step
    of Adam moves $u_k$ by about `lr` · s, so that one learning rate suits every scale of data. The unit is the spread
    of the pseudo-inputs, which is right where they start as data do. Started as narrow noise around one value, as in
    the paper, they would hardly move in it, and the prior would stay one component: give the data's own spread as
    `unit`.

    Args:
        encoder: the guide's conditional for $q(z \mid x)$, of any family that can score given points.
        pseudo_inputs: where the $u_k$ start `(K, *event)`: data, as in `train[:500]`, or random numbers like
            them.
        unit: s, such as `train.std()`; the standard deviation of all numbers in `pseudo_inputs` unless given.

    Raises:
        TypeError: for an encoder that is no conditional.
        ValueError: for no pseudo-inputs, or a unit that is not above 0 and finite.

    Warns:
        UserWarning: without a unit, for pseudo-inputs whose spread is below a twentieth of their mean, or of 1; for
            several that are all equal, which have equal gradients and stay equal.

    References:
        Tomczak, Welling 2018, *VAE with a VampPrior*, arXiv:1705.07120.

    Example:
        >>> from pyro_dgm import Conditional
        >>> encoder = Conditional(dist.Normal, nn.Linear(3, 2 * 2))
        >>> VampPrior(encoder, torch.randn(5, 3))().event_shape
        torch.Size([2])
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, encoder: nn.Module, pseudo_inputs: Tensor, unit: float | Tensor | None = None
    ):
        super().__init__()
        require_conditional("encoder", encoder, "Conditional(dist.Normal, net)")
        inputs = _require_rows("VampPrior", "pseudo_inputs", pseudo_inputs)
        if not inputs.is_floating_point():
            inputs = inputs.to(torch.get_default_dtype())
        self.encoder = encoder
        self.register_buffer("centre", inputs.mean())
        self.register_buffer("spread", _unit_of(inputs, unit))
        self.standardized = nn.Parameter((inputs - self.centre) / self.spread)

    def extra_repr(self) -> str:
        return f"pseudo_inputs={tuple(self.standardized.shape)}, unit={self.spread.item():.4g}"

    @property
    def pseudo_inputs(self) -> Tensor:
        r"""The $u_k$ `(K, *event)`, in the unit of the data."""
        return self.centre + self.spread * self.standardized

    def forward(self, *contexts: Tensor) -> Mixture:
        weights = Weights("VampPrior", self)
        return _mixture_of_posteriors(self.encoder, self.pseudo_inputs, contexts, weights)


def _unit_of(inputs: Tensor, unit: float | Tensor | None) -> Tensor:
    """The unit in which pseudo-inputs are learned: the one that is given, or their spread."""
    spread = inputs.std(correction=0)
    _warn_of_equal_rows(inputs)
    if unit is None:
        _warn_of_narrow(spread.item(), inputs.mean().item())
        return spread.where(spread > 0, 1.0)
    given = torch.as_tensor(unit).detach().to(inputs)
    if given.numel() != 1 or not 0 < given.item() < inf:
        raise ValueError(
            f"VampPrior: expected a unit that is one number above 0, got {unit}. "
            "Fix: unit=train.std()."
        )
    return given.reshape(())


def _warn_of_narrow(spread: float, centre: float) -> None:
    """Warn of pseudo-inputs that are learned in steps too small to leave where they start."""
    if 0 < spread < NARROW * max(1.0, abs(centre)):
        warnings.warn(
            "VampPrior: expected pseudo-inputs as widely spread as the data, got a standard "
            f"deviation of {spread:.2g} around {centre:.2g}: they are learned in that unit, move by "
            "lr times it a step, and the prior stays one component. Fix: unit=train.std(), the "
            "spread of the data, or pseudo_inputs=train[:500].",
            stacklevel=4,
        )


def _warn_of_equal_rows(inputs: Tensor) -> None:
    """Warn of several pseudo-inputs that are one: no gradient tells them apart."""
    if len(inputs) > 1 and bool((inputs == inputs[:1]).all()):
        warnings.warn(
            f"VampPrior: expected pseudo-inputs that differ, got {len(inputs)} equal ones: their "
            "gradients are equal, so that they stay equal. Fix: pseudo_inputs=train[:500].",
            stacklevel=4,
        )


class AggregatePrior(SettingsFirst):
    r"""$p(z) = \frac1N \sum_{n=1}^N q(z \mid x_n)$, the aggregated posterior of N stored data. Exact.

    A density takes N terms. The optimal prior of a fixed encoder on those data, and an overfitting one: a
    yardstick. The encoder is a reference to the guide's own; the data travel in the state dict.

    Args:
        encoder: the guide's conditional for $q(z \mid x)$, of any family that can score given points.
        data: the stored data `(N, *event)`.

    Raises:
        TypeError: for an encoder that is no conditional.
        ValueError: for no data.

    References:
        Hoffman, Johnson 2016, *ELBO surgery*; Tomczak, Welling 2018, arXiv:1705.07120.
    """

    data: Tensor

    def __init__(self, encoder: nn.Module, data: Tensor):
        super().__init__()
        require_conditional("encoder", encoder, "Conditional(dist.Normal, net)")
        self.encoder = encoder
        self.register_buffer("data", _require_rows("AggregatePrior", "data", data).clone())

    def extra_repr(self) -> str:
        return f"data={tuple(self.data.shape)}"

    def forward(self, *contexts: Tensor) -> Mixture:
        weights = Weights("AggregatePrior", self)
        return _mixture_of_posteriors(self.encoder, self.data, contexts, weights)


def _mixture_of_posteriors(
    encoder: nn.Module, inputs: Tensor, contexts: tuple[Tensor, ...], weights: Weights
) -> Mixture:
    r"""$\frac1K \sum_k q(z \mid u_k, c)$."""
    num = len(inputs)
    log_weights = torch.full((num,), -log(num), device=inputs.device)
    reference = contexts[0] if contexts else inputs
    if reference.is_floating_point():
        log_weights = log_weights.to(at_least_float32(reference.dtype))
    return Mixture(lambda k, *c: encoder(inputs[k], *c), log_weights, contexts, weights=weights)


def _require_rows(owner: str, argument: str, tensor: Tensor) -> Tensor:
    """The tensor of one or more data, detached."""
    if not isinstance(tensor, Tensor):  # a tensor stays where it is
        tensor = torch.as_tensor(tensor)
    tensor = tensor.detach()
    if tensor.dim() < 2 or len(tensor) < 1:
        raise ValueError(
            f"{owner}: expected {argument} of shape (K, *event), got {tuple(tensor.shape)}. "
            f"Fix: {argument}=train[:500]."
        )
    return tensor
