"""The elementwise affine map that coupling and autoregressive layers share."""

from __future__ import annotations

from torch import Tensor

from .bijector import ValueAndLogDet

MAX_LOG_SCALE = 3.0


def bounded(raw: Tensor) -> Tensor:
    r"""$s = s_{\max} \tanh(r / s_{\max})$: log-scales stay within ±3, so that no layer overflows."""
    return MAX_LOG_SCALE * (raw / MAX_LOG_SCALE).tanh()


def affine(x: Tensor, shift: Tensor, log_scale: Tensor) -> ValueAndLogDet:
    r"""$y = x e^{s} + t$ with $\log|\det| = \sum_d s_d$."""
    return x * log_scale.exp() + shift, log_scale.sum(-1)


def inverse_affine(y: Tensor, shift: Tensor, log_scale: Tensor) -> ValueAndLogDet:
    r"""$x = (y - t) e^{-s}$ with $\log|\det| = -\sum_d s_d$."""
    return (y - shift) * (-log_scale).exp(), -log_scale.sum(-1)
