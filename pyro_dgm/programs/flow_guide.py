"""A flow over all continuous latents of a model, globals included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoContinuous, init_to_median
from pyro.infer.autoguide.guides import prototype_hide_fn
from torch import Tensor, nn
from torch.distributions import biject_to

from ..contract import DATA
from .conditionals.conditional import StandardNormal
from .flows.bijector import Bijector
from .flows.couplings import realnvp
from .flows.flow import Flow
from .flows.linear import LULinear
from .flows.shapes import Permutation
from .flows.whitening import FixedAffine
from .program import Program

INITIAL_SCALE = 0.1
DRAWN = "_drawn"


def init_to_median_or_origin(site: Any = None) -> Any:
    """The prior's median; where the prior can't be drawn from, as a flat one, the origin of its coordinates."""
    if site is None:
        return init_to_median_or_origin
    try:
        return init_to_median(site)
    except NotImplementedError:
        transform = biject_to(site["fn"].support)
        return transform(torch.zeros(transform.inverse_shape(site["fn"].shape())))


def posterior_flow(dim: int, layers: int = 8, hidden: int = 64) -> Flow:
    r"""$u = L U\, f(\varepsilon) + b$ with couplings f between permutations; the standard normal at the start.

    Args:
        dim: size D; in one dimension there is no coupling, and the flow is a normal.
        layers: number of affine couplings, in pairs.
        hidden: width of the two hidden layers of each network.

    References:
        Agrawal, Domke 2024, *Disentangling impact of capacity, objective, batchsize, estimators, and step-size
        on flow VI*, arXiv:2412.08824.
    """
    bijectors: list[Bijector] = []
    if dim > 1:
        for _ in range(layers // 2):
            bijectors += [*realnvp(dim, layers=2, hidden=(hidden, hidden)), Permutation(dim)]
        bijectors.pop()
    return Flow(StandardNormal(dim), [*bijectors, LULinear(dim)])


def _set_scale(layer: Bijector, scale: float) -> None:
    """Set the diagonal of the linear layer at the end of a `posterior_flow`."""
    with torch.no_grad():
        cast(LULinear, layer).params.starts["log_diagonal"].fill_(log(scale))


class FlowGuide(Program, AutoContinuous):
    r"""$q(u) = $ a flow over all continuous latents, unconstrained and concatenated: $z = T(u)$.

    The posterior of any model, its global sites included, with every dependence between them. With a `local`
    guide it draws the global sites alone, and $q(z_i \mid x_i, u)$ is amortized: one guide for both.

    The flow is $u = m + L f(\varepsilon)$; m and L are fixed numbers in `affine`, at first the initial location
    and the identity; `place` sets them, as `fit_posterior` does. The default f begins as a tenth of its noise.
    The flow is made in the first call, which runs the model once; only then has the guide parameters. Pyro's
    global parameter store is not touched.

    Args:
        model: any Pyro program whose latents are continuous.
        flow: over D numbers, without a context; default `posterior_flow(D)`. D is `guide.latent_dim` after
            the first call.
        local: guide of the local sites, called `local(*batch, u)`: an `AmortizedGuide` takes u as its context,
            `(…, D)`, or `(…, 1, D)` in a plate of particles.
        init_loc_fn: initial value of every site, as in Pyro's autoguides.

    Raises:
        ValueError: in the first call, for a flow of another size.

    Example:
        >>> import pyro
        >>> def model():
        ...     scale = pyro.sample("scale", dist.HalfCauchy(torch.tensor(5.0)))
        ...     pyro.sample("mean", dist.Normal(0.0, scale))
        >>> guide = FlowGuide(model)
        >>> sorted(guide()), guide.latent_dim
        (['mean', 'scale'], 2)
    """

    prototype_trace: Any
    latent_dim: int

    def __init__(
        self,
        model: Callable[..., Any],
        flow: Flow | None = None,
        local: nn.Module | None = None,
        init_loc_fn: Callable[..., Any] = init_to_median_or_origin,
    ):
        if flow is not None and not isinstance(flow, Flow):
            raise TypeError(
                f"FlowGuide: expected a Flow, got a {type(flow).__name__}. "
                "Fix: FlowGuide(model, Flow(StandardNormal(D), iaf(D, layers=2)))."
            )
        super().__init__(model, init_loc_fn=init_loc_fn)
        self.init_loc_fn = init_loc_fn
        self.has_default_flow = flow is None
        self._data_plate: str | None = None
        self.add_module("flow", flow)
        self.add_module("local", local)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.prototype_trace is None:  # before SVI asks for parameters
            self._setup_prototype(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # Pyro's own forgets the model of the original as well.
        return {**self.__dict__, "master": None}

    @property
    def affine(self) -> FixedAffine:
        """The last layer of the flow, which places it; from the first call on."""
        return self.posterior_flow().bijector[-1]  # type: ignore[return-value]

    def place(self, loc: Tensor, scale_tril: Tensor) -> None:
        r"""Put the flow at $m = $ loc `(D,)` and L `(D, D)`; a default flow that is not trained is then $N(m, L L^T)$.

        Raises:
            ValueError: for what is no place, see `flows.FixedAffine`; before the first call.
        """
        layers = self.posterior_flow().bijector
        self.affine.place(loc, scale_tril)
        if self.has_default_flow:
            _set_scale(layers[-2], 1.0)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw every latent site that the flow covers, then those of the local guide; site → value."""
        values = super().forward(*args, **kwargs)
        u = self.__dict__.pop(DRAWN)
        if self.local_guide is not None:
            self.local_guide(*args, u, **kwargs)
        return values

    def sample_latent(self, *args: Any, **kwargs: Any) -> Tensor:
        """Draw u, the auxiliary site of which all others are functions."""
        u = super().sample_latent(*args, **kwargs)
        self.__dict__[DRAWN] = u  # for the local guide, which Pyro's forward does not call
        return u

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.TransformedDistribution:
        r"""$q(u)$ over `(D,)`."""
        return self.posterior_flow()()

    @property
    def local_guide(self) -> nn.Module | None:
        """The guide of the local sites, where there is one."""
        return self._modules["local"]

    def posterior_flow(self) -> Flow:
        """The flow with its `affine`, a conditional without a context; from the first call on.

        Raises:
            ValueError: before the first call.
        """
        if self.prototype_trace is None:
            raise ValueError(
                "FlowGuide: expected a guide that has run its model once, got one that does not know its "
                "latents yet. Fix: guide(*batch) first."
            )
        # Not by `self.flow`, which Pyro answers with a statement of all its parameters to the global store.
        return self._modules["flow"]  # type: ignore[return-value]

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float], *args: Any, num: int = 10_000
    ) -> dict[str, Tensor]:
        """Site → quantiles `(Q, *shape)` of its numbers, from draws."""
        values = self.unpack(self.posterior_flow()().sample((num,)))
        return {name: _quantiles(value, quantiles) for name, value in values.items()}

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Site → the median of each of its numbers, from draws."""
        return {name: value[0] for name, value in self.quantiles([0.5], *args).items()}

    def unpack(self, u: Tensor) -> dict[str, Tensor]:
        """Site → values `(K, *shape)` at latents u `(K, D)`."""
        return torch.vmap(self._values)(u)

    def _values(self, u: Tensor) -> dict[str, Tensor]:
        values = {}
        for site, unconstrained in self._unpack_latent(u):
            values[site["name"]] = biject_to(site["fn"].support)(unconstrained)
        return values

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        """Run the model, which says what there is to guide, and make the flow."""
        with torch.no_grad():
            self._data_plate = self._find_data_plate(*args, **kwargs)
            super()._setup_prototype(*args, **kwargs)
            loc = self._init_loc()
            self.add_module("flow", self._placed_flow(loc))

    def _placed_flow(self, loc: Tensor) -> Flow:
        """The flow that was given, or the default one, with an affine layer at the initial location."""
        given = self._modules["flow"]
        dim = self.latent_dim
        flow = posterior_flow(dim) if given is None else cast(Flow, given)
        if given is None:
            _set_scale(flow.bijector[-1], INITIAL_SCALE)
        size = flow().event_shape
        if size != (dim,):
            raise ValueError(
                f"FlowGuide: expected a flow over the {dim} numbers of the latents, got one over "
                f"{tuple(size)}. Fix: FlowGuide(model, Flow(StandardNormal({dim}), …))."
            )
        affine = FixedAffine(dim)
        affine.loc.copy_(loc)
        return Flow(flow.base, [*flow.bijector, affine]).to(loc)

    def _prototype_hide_fn(self, msg: Any) -> bool:
        """What is left to others: all that is not drawn or is summed over, with a local guide each datum's draws."""
        for frame in msg["cond_indep_stack"]:
            if frame.name == self._data_plate:
                return True
        if prototype_hide_fn(msg):
            return True
        if getattr(msg["fn"], "has_enumerate_support", False):
            if msg["infer"].get("enumerate") == "parallel":
                return True
            raise ValueError(
                f"FlowGuide: expected continuous latents, got the discrete '{msg['name']}'. Fix: "
                "infer={'enumerate': 'parallel'} at the site and ELBO(model, guide), which sums over it; or log_prob "
                "of a mixture, as dist.MixtureSameFamily."
            )
        return False

    def _find_data_plate(self, *args: Any, **kwargs: Any) -> str | None:
        """With a local guide, the plate `"data"`; without one of this name, that at dim −1 over as many as the data."""
        if self.local_guide is None:
            return None
        num = next((len(a) for a in args if isinstance(a, Tensor) and a.dim() > 0), None)
        with poutine.block():
            trace = poutine.trace(self.model).get_trace(*args, **kwargs)
        names, as_many = [], []
        for site in trace.nodes.values():
            for frame in site.get("cond_indep_stack", ()):
                names.append(frame.name)
                if frame.dim == -1 and num in (frame.size, frame.full_size):
                    as_many.append(frame.name)
        return DATA if DATA in names or not as_many else as_many[0]


def _quantiles(value: Tensor, quantiles: Sequence[float]) -> Tensor:
    wanted = torch.as_tensor(quantiles, dtype=value.dtype, device=value.device)
    return value.quantile(wanted, dim=0)
