r"""Charts: free coordinates $\zeta$ of one distribution, with the density that they have."""

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


@dataclass(frozen=True)
class Chart:
    r"""$z = T(b(\zeta))$: free coordinates of a law, b onto the support of its base, T the flow (or nothing).

    Where a law is the image of one on all reals under bijections, as a flow prior is, ζ lives in the space of its base.
    No inverse is run there, and the density of ζ is that of the base.

    Attributes:
        base: law of $b(\zeta)$.
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
        r"""$z$, $\log p(\zeta)$ and $\log|\det \partial z / \partial \zeta|$, the last two of shape `(*batch)`."""
        z = self.onto(coordinates)
        log_det = _beyond(self.onto.log_abs_det_jacobian(coordinates, z), num_batch)
        log_p = _beyond(self.base.log_prob(z), num_batch) + log_det
        for transform in self.transforms:
            eps, z = z, transform(z)
            log_det = log_det + _beyond(transform.log_abs_det_jacobian(eps, z), num_batch)
        return z, log_p, log_det

    def of(self, value: Tensor) -> Tensor:
        r"""$\zeta = b^{-1}(T^{-1}(z))$."""
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return self.onto.inv(value)


def chart_of(name: str, distribution: Distribution, *, whiten: bool) -> Chart:
    """The chart of a site's law; through the base space of a flow if `whiten`.

    Raises:
        ValueError: for a discrete law, or a support without free coordinates.
    """
    support = distribution.support
    if support is None or support.is_discrete:
        raise ValueError(
            f"site '{name}': expected a continuous latent, got a discrete one, {type(distribution).__name__}, on which there is "
            "no gradient. Fix: sum it out, pyro.infer.TraceEnum_ELBO, or dgm.nll, which draws it from the guide."
        )
    try:
        onto = bijection_onto(support)
    except NotImplementedError as error:
        raise ValueError(
            f"site '{name}': expected a support that torch.distributions.biject_to knows, got {support}. "
            "Fix: biject_to.register(…) a bijection from the reals onto it."
        ) from error
    base, transforms = _unfolded(distribution) if whiten else (distribution, ())
    free = onto.inverse_shape(distribution.batch_shape + distribution.event_shape).numel()
    # A law such as RelaxedOneHotCategorical has more numbers in its base than degrees of freedom.
    if (
        transforms
        and _on_reals(base.support)
        and (base.batch_shape + base.event_shape).numel() == free
    ):
        return Chart(base, biject_to(base.support), transforms)
    return Chart(distribution, onto, ())


def bijection_onto(support: Any) -> Transform:
    """`biject_to`, also of the support of a mixture, if all its components have the same."""
    try:
        return biject_to(support)
    except NotImplementedError:
        inner = getattr(support, "base_constraint", None)
        if inner is None or any(isinstance(bound, Tensor) for bound in vars(inner).values()):
            raise
        return bijection_onto(inner)


def _unfolded(distribution: Distribution) -> tuple[Distribution, tuple[Transform, ...]]:
    """A law as the image of its innermost base under bijections."""
    if isinstance(distribution, Independent):
        return _unfolded(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution) and all(
        t.bijective for t in distribution.transforms
    ):
        base, transforms = _unfolded(distribution.base_dist)
        return base, (*transforms, *distribution.transforms)
    return distribution, ()


def _on_reals(support: Any) -> bool:
    inner = getattr(support, "base_constraint", support)
    return inner is constraints.real if inner is support else _on_reals(inner)


def _beyond(value: Tensor, num_batch: int) -> Tensor:
    """Sum over what lies beyond the batch dims."""
    return value.flatten(num_batch).sum(-1) if value.dim() > num_batch else value
