r"""Every number that is drawn, by the weights of joint draws: its moments, its own k-hat, how far the guide is off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from ...contract import Site
from .psis import khat
from .smoothing import smooth_weights


@dataclass(frozen=True)
class Quantities:
    r"""What the weights of K joint draws say of every number that is drawn, S in all.

    The posterior's moments are those of the draws under their Pareto-smoothed weights, as far as `khat` allows.

    Attributes:
        names: site and index, `tau` or `w[0, 2]`; the datum is the index of its plate. A site of bounded support has
            its free coordinates as well, `tau_unconstrained` = log τ: there a guide that is off at the bound shows.
        khat: Pareto k̂ of $|h|\, w$ `(S,)`: whether the weights carry a mean of this h. That of the joint weights says
            nothing of h.
        mean: of the posterior, in the site's own unit `(S,)`.
        std: of the posterior, likewise.
        shift: $(E_q[h] - E_p[h]) / \mathrm{sd}_p(h)$ `(S,)`: how far off the guide is, 0 for an exact one.
        stderr: standard error of `shift` `(S,)`.
        ratio: $\mathrm{sd}_q(h) / \mathrm{sd}_p(h)$ `(S,)`.
        ratio_stderr: standard error of the logarithm of `ratio` `(S,)`.
    """

    names: tuple[str, ...]
    khat: Tensor
    mean: Tensor
    std: Tensor
    shift: Tensor
    stderr: Tensor
    ratio: Tensor
    ratio_stderr: Tensor

    @classmethod
    def of(cls, names: tuple[str, ...], draws: Tensor, log_w: Tensor) -> Quantities:
        r"""The statistics of draws `(K, S)` with log weights `(K,)`, all in float64."""
        weight = smooth_weights(log_w[:, None]).exp()
        mean_q, mean = draws.mean(0), (weight * draws).sum(0)
        from_q, from_p = draws - mean_q, draws - mean
        std_q, std = from_q.square().mean(0).sqrt(), (weight * from_p.square()).sum(0).sqrt()
        # What each draw adds to the differences: delta method
        of_shift = (from_q / len(draws) - weight * from_p) / std
        of_variance = ((from_q / std_q).square() - 1) / len(draws)
        of_ratio = (of_variance - weight * ((from_p / std).square() - 1)) / 2
        log_size = draws.abs().clamp(min=torch.finfo(draws.dtype).tiny).log()
        return cls(
            names,
            khat=khat(log_size + log_w[:, None]),
            mean=mean,
            std=std,
            shift=(mean_q - mean) / std,
            stderr=of_shift.square().sum(0).sqrt(),
            ratio=std_q / std,
            ratio_stderr=of_ratio.square().sum(0).sqrt(),
        )

    @classmethod
    def none(cls) -> Quantities:
        """Of no quantity."""
        return cls((), *[torch.zeros(0, dtype=torch.float64, device="cpu") for _ in range(7)])


def free_coordinates(site: Site, value: Tensor) -> Tensor | None:
    """Values of a bounded site on the reals, by `biject_to`; `None` where they are reals, discrete, or not known."""
    support = getattr(site["fn"], "support", None)
    inner = getattr(support, "base_constraint", support)
    if support is None or support.is_discrete or inner is constraints.real:
        return None
    if any(isinstance(bound, Tensor) and bound.dim() > 0 for bound in vars(inner).values()):
        return None
    try:
        return biject_to(support).inv(value)
    except NotImplementedError:
        return None
