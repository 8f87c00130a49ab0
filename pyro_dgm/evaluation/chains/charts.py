r"""Charts: free coordinates $\zeta \in R^D$ of one distribution, and the density that they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Transform,
    TransformedDistribution,
    biject_to,
    constraints,
)

from ...inference.sites.supports import innermost


@dataclass(frozen=True)
class Chart:
    r"""$z = T(b(\zeta))$: free coordinates ζ, b onto the support of a base distribution, T the flow (or nothing).

    Where a distribution is the image of one on all reals under bijections, as a flow prior is, ζ lives in the space
    of its base. No inverse is run there, and the density of ζ is that of the base.

    Attributes:
        base: distribution of $b(\zeta)$.
        onto: b.
        transforms: the parts of T.
    """

    base: Distribution
    onto: Transform
    transforms: tuple[Transform, ...]

    @property
    def shape(self) -> Size:
        """Shape of ζ `(*batch, *free event)`."""
        return self.onto.inverse_shape(self.base.batch_shape + self.base.event_shape)

    def at(self, coordinates: Tensor, num_batch: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""$z$, $\log p(\zeta)$ and $\log|\det \partial z / \partial \zeta|$, the last two of shape `(*batch)`.

        Args:
            coordinates: ζ `(*batch, *free event)`.
            num_batch: number of its batch dims.
        """
        z, log_det = self._in_base(coordinates, num_batch)
        log_p = sum_event(self.base.log_prob(z), num_batch) + log_det
        z, log_det = self._through_flow(z, log_det, num_batch)
        return z, log_p, log_det

    def value_at(self, coordinates: Tensor, num_batch: int) -> tuple[Tensor, Tensor]:
        r"""$z$ and $\log|\det \partial z / \partial \zeta|$ `(*batch)`: `at`, without the density."""
        z, log_det = self._in_base(coordinates, num_batch)
        return self._through_flow(z, log_det, num_batch)

    def _in_base(self, coordinates: Tensor, num_batch: int) -> tuple[Tensor, Tensor]:
        z = self.onto(coordinates)
        return z, sum_event(self.onto.log_abs_det_jacobian(coordinates, z), num_batch)

    def _through_flow(self, z: Tensor, log_det: Tensor, num_batch: int) -> tuple[Tensor, Tensor]:
        for transform in self.transforms:
            eps = z
            z = transform(eps)
            log_det = log_det + sum_event(transform.log_abs_det_jacobian(eps, z), num_batch)
        return z, log_det

    def of(self, value: Tensor) -> Tensor:
        r"""$\zeta = b^{-1}(T^{-1}(z))$."""
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return self.onto.inv(value)


def chart_of(name: str, distribution: Distribution, *, whiten: bool) -> Chart:
    """The chart of a site's distribution; through the base space of a flow if `whiten`.

    Raises:
        ValueError: for a discrete distribution, or a support without free coordinates.
    """
    support = distribution.support
    if support is None or support.is_discrete:
        raise ValueError(
            f"site '{name}': expected a continuous latent, got a discrete one, "
            f"{type(innermost(distribution)).__name__}, on which there is no gradient. "
            f"{_fix_of_discrete(distribution)}."
        )
    try:
        onto = bijection_onto(support)
    except NotImplementedError as error:
        raise ValueError(
            f"site '{name}': expected a support that torch.distributions.biject_to knows, got "
            f"{support}. Fix: biject_to.register(…) a bijection from the reals onto it."
        ) from error
    chart = Chart(distribution, onto, ())
    return _whiten(chart) if whiten else chart


def _fix_of_discrete(distribution: Distribution) -> str:
    """What to do with a discrete latent: sum over it, if it has few values."""
    drawn = "nll or evidence, which draw it from the guide"
    if not distribution.has_enumerate_support:
        return f"Fix: {drawn}"
    return (
        "Fix: infer={'enumerate': 'parallel'} at the site in the model, and a guide without it, to sum over its "
        f"values; or {drawn}"
    )


def _whiten(chart: Chart) -> Chart:
    """The chart in the base space of a flow whose base lies on all reals; another chart stays as it is."""
    base, transforms = _unfold(chart.base)
    if not transforms or not _on_reals(base.support):
        return chart
    # RelaxedOneHotCategorical, for one, has more numbers in its base than degrees of freedom.
    num_base = (base.batch_shape + base.event_shape).numel()
    if num_base != chart.shape.numel():
        return chart
    return Chart(base, biject_to(base.support), transforms)


def bijection_onto(support: Any) -> Transform:
    """`biject_to`, also of the support of a mixture, if all its components have the same."""
    try:
        return biject_to(support)
    except NotImplementedError:
        inner = getattr(support, "base_constraint", None)
        if inner is None or _has_tensors(inner):
            raise
        return bijection_onto(inner)


def _has_tensors(support: Any) -> bool:
    return any(isinstance(bound, Tensor) for bound in vars(support).values())


def _unfold(distribution: Distribution) -> tuple[Distribution, tuple[Transform, ...]]:
    """A distribution as the image of its innermost base under bijections."""
    if isinstance(distribution, Independent):
        return _unfold(distribution.base_dist)
    if not isinstance(distribution, TransformedDistribution):
        return distribution, ()
    if not all(transform.bijective for transform in distribution.transforms):
        return distribution, ()
    base, inner = _unfold(distribution.base_dist)
    return base, (*inner, *distribution.transforms)


def _on_reals(support: Any) -> bool:
    inner = getattr(support, "base_constraint", None)
    return support is constraints.real if inner is None else _on_reals(inner)


def sum_event(value: Tensor, num_batch: int) -> Tensor:
    """Sum over what lies beyond the batch dims."""
    if value.dim() <= num_batch:
        return value
    return value.flatten(num_batch).sum(-1)
