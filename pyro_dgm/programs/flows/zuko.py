"""The adapter for flows of the package `zuko`: imported lazily, with the flags of the process left as they are."""

from __future__ import annotations

import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.util import is_validation_enabled
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, Uniform, constraints
from torch.distributions.transforms import _InverseTransform

from ...densities.precision import full_precision_networks
from ..networks.dense import cast
from ..weights import Weights
from .transform import tensor_state

# What `import zuko` overwrites (1.5 and 1.6). It also adds `Transform.call_and_ladj`, which it needs and
# torch lacks.
OVERWRITTEN: tuple[tuple[type, str], ...] = (
    (Distribution, "_validate_args"),
    (Distribution, "arg_constraints"),
    (_InverseTransform, "__name__"),
)


def import_zuko() -> ModuleType:
    """The package `zuko`, imported without its side effects.

    A plain `import zuko` switches the argument validation of `torch.distributions` off for the whole process and
    empties `Distribution.arg_constraints`. Here both keep the state that they had. If zuko was imported before, that
    state is unknown and nothing is changed; where validation is then off in torch but on in Pyro, a warning says so.

    Raises:
        ImportError: where zuko is not installed.

    Example:
        >>> zuko = import_zuko()
        >>> zuko.flows.MAF(features=2)().log_prob(torch.zeros(7, 2)).shape
        torch.Size([7])
    """
    before = [getattr(owner, name) for owner, name in OVERWRITTEN]
    try:
        zuko = import_module("zuko")
        _declare_no_arguments(zuko.distributions)
    except ModuleNotFoundError as error:
        if error.name != "zuko":
            raise
        raise ImportError(
            "Zuko: expected the package zuko, got none. Fix: pip install zuko."
        ) from error
    finally:
        for (owner, name), value in zip(OVERWRITTEN, before, strict=True):
            setattr(owner, name, value)
    if is_validation_enabled() and not Distribution._validate_args:
        warnings.warn(
            "argument validation is off in torch.distributions and on in Pyro, "
            "which is what a plain `import zuko` leaves behind. "
            "Fix: zuko = pyro_dgm.import_zuko() in its place, "
            "or pyro.enable_validation(True) after it.",
            stacklevel=2,
        )
    return zuko


def _declare_no_arguments(module: ModuleType) -> None:
    """Give zuko's own distributions the empty `arg_constraints` that it sets on all; else validation warns of each."""
    for value in vars(module).values():
        is_own_class = isinstance(value, type) and value.__module__ == module.__name__
        if is_own_class and "arg_constraints" not in vars(value):
            value.arg_constraints = {}


class Zuko(nn.Module):
    r"""$x = f_c^{-1}(\varepsilon)$ with $\varepsilon \sim \mathrm{base}(c)$, the flow f from zuko; exact, in nats.

    One type for prior, encoder and density, as `Flow` is; the parameters are those of the zuko flow.

    Cost: `zuko.flows.MAF` scores a given point in one network call per layer and draws in D + 1, which suits a prior
    or a density. Reversed, `zuko.lazy.Flow(flow.transform.inv, flow.base)`, it draws in one, which suits an encoder;
    with `passes=2`, a coupling, it draws in 3. Scoring its own draw costs no call, unless gradients are wanted of a
    draw made without. `compile=True` works for MAF and NSF; CNF, NICE and UNAF run eager only.

    Args:
        flow: a zuko flow such as `zuko.flows.NSF(features=8, context=16)`, not the distribution that it returns.
        embed: maps the contexts once; its output is the context of the flow.

    Shape:
        c: `(*batch, C)` or nothing  ->  a distribution with batch_shape `(*batch)` or `()` and event_shape `(D,)`.

    Raises:
        ImportError: where zuko is not installed.
        TypeError: for anything but a zuko flow.
        ValueError: for several contexts without `embed`, and for a base on a box (`zuko.flows.NCSF`).

    References:
        Rozet et al. 2022, *Zuko: normalizing flows in PyTorch*, doi:10.5281/zenodo.7625672.

    Example:
        >>> zuko = import_zuko()
        >>> encoder = Zuko(zuko.flows.MAF(features=2, context=3))
        >>> encoder(torch.zeros(7, 3)).batch_shape, encoder(torch.zeros(7, 3)).event_shape
        (torch.Size([7]), torch.Size([2]))
    """

    def __init__(self, flow: nn.Module, embed: nn.Module | None = None):
        super().__init__()
        if not isinstance(flow, import_zuko().lazy.Flow):
            raise TypeError(
                f"Zuko: expected a zuko flow, got {type(flow).__name__}. "
                "Fix: Zuko(zuko.flows.MAF(features=8)): the module itself, "
                "not the distribution that it returns; other conditionals need no adapter."
            )
        self.flow = flow
        self.embed = embed

    def forward(self, *contexts: Tensor) -> ZukoDistribution:
        if self.embed is not None and contexts:
            contexts = (self.embed(*contexts),)
        if len(contexts) > 1:
            raise ValueError(
                f"Zuko: expected one context, got {len(contexts)}. "
                "Fix: embed=Concat(mlp(...)), which concatenates them."
            )
        with full_precision_networks():
            distribution = self.flow(*[cast(context, self.flow) for context in contexts])
        if isinstance(_univariate(distribution.base), Uniform):
            raise ValueError(
                f"Zuko: expected a base on the whole space, got {distribution.base}, on a box: "
                "the flow does not say where its density ends. "
                "Fix: a flow on a normal base, such as zuko.flows.NSF in place of NCSF."
            )
        return ZukoDistribution(distribution, Weights("Zuko", self.flow))


def _univariate(distribution: Distribution) -> Distribution:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


class _Draw:
    """A value with its log density, its state, and whether gradients were recorded."""

    def __init__(self, value: Tensor, log_p: Tensor):
        self.value = value
        self.log_p = log_p
        self.state = tensor_state(value)
        self.with_grad = torch.is_grad_enabled()

    def fits(self, value: Tensor) -> bool:
        """Whether this is the density of this very tensor, unchanged since."""
        same = value is self.value and tensor_state(value) == self.state
        # A value drawn under no_grad is scored again once gradients are wanted; else they would silently be
        # lost.
        return same and (self.with_grad or not torch.is_grad_enabled())


class ZukoDistribution(dist.TorchDistribution):
    r"""$\log p(x) = \log p_\varepsilon(f(x)) + \log|\det \partial f / \partial x|$: a zuko flow as a Pyro distribution.

    It keeps its last draw with the log density of the same pass, so that scoring its own draw needs no network call.
    Its draws are reparameterized where those of the base are.

    Args:
        flow: a `zuko.distributions.NormalizingFlow`.
        weights: of the modules that it computes with; `None` for none.
        validate_args: whether values are checked; `None` for the default of the process.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(
        self,
        flow: Any,
        weights: Weights | None = None,
        validate_args: bool | None = None,  # noqa: FBT001
    ):
        self.flow = flow
        self.weights = weights
        self.has_rsample = flow.base.has_rsample
        self._last: _Draw | None = None
        super().__init__(flow.batch_shape, flow.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        domain = self.flow.transform.domain
        missing = len(self.event_shape) - domain.event_dim
        return constraints.independent(domain, missing) if missing > 0 else domain

    def expand(self, batch_shape: Any, _instance: Any = None) -> ZukoDistribution:
        return ZukoDistribution(
            self.flow.expand(Size(batch_shape)), self.weights, validate_args=self._validate_args
        )

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        if not self.has_rsample:
            raise NotImplementedError(
                f"{self.flow.base} has no reparameterized draws. Fix: sample()."
            )
        return self._draw(sample_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self._draw(sample_shape)

    def _draw(self, sample_shape: Any) -> Tensor:
        self._require_unchanged()
        with full_precision_networks():
            self._last = _Draw(*self.flow.rsample_and_log_prob(Size(sample_shape)))
        return self._last.value

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        self._require_unchanged()
        if self._last is not None and self._last.fits(value):
            return self._last.log_p
        with full_precision_networks():
            return self.flow.log_prob(value)

    def _require_unchanged(self) -> None:
        if self.weights is not None:
            self.weights.require_unchanged()
