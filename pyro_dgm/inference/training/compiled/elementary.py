r"""Sigmoids and their logarithms for kernels on a CPU: one exponential for both, and a short polynomial.

With $t = e^{-|x|} \in [0, 1]$ they are $\sigma(x) = 1 / (1 + t)$ for x ≥ 0 and $t / (1 + t)$ below, and
$\log \sigma(x) = \min(x, 0) - \log(1 + t)$. A cross entropy needs the second, and its gradient the first, at the same
x. The vectorized log1p of torch is right for all floats, and takes three times as long as the exponential; on [0, 1]
alone a polynomial does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

# q in log(1 + t) = t + t² q(t) on [0, 1], lowest power first: the largest relative error of the sum is least, 3.3e-8.
# Found by weighted least squares on 4001 Chebyshev points in float64, all weights multiplied by the errors until these
# level out (Lawson 1961).
Q = (
    -0.49999648,
    0.333213226,
    -0.248571638,
    0.191536554,
    -0.137538034,
    0.0792045484,
    -0.0300658002,
    0.00536482631,
)


def share_exponentials(graph: fx.GraphModule) -> None:
    """Write the log-sigmoids of a graph, and the sigmoids at the same numbers, by one exponential.

    To rounding (4 units in the last place) these are the results of the operations, at infinities and NaN, too. Only
    float32 is rewritten, and only by the equations here: no weights, no reduction, a softplus with β = 1.

    Args:
        graph: as it was captured, on a CPU.
    """
    logs = [node for node in graph.graph.nodes if _is_among(LOGARITHMS, node)]
    arguments = {_argument(node) for node in logs}
    sigmoids = [node for node in graph.graph.nodes if _is_among(SIGMOIDS, node)]
    for node in logs:
        _replace(node, LOGARITHMS[node.target])
    for node in sigmoids:
        if _argument(node) in arguments:
            _replace(node, SIGMOIDS[node.target])
    graph.recompile()


def log1p_of_fraction(t: Any) -> Any:
    """log(1 + t) of float32 numbers between 0 and 1, to 3 units in the last place."""
    q = Q[-1] * t + Q[-2]
    for coefficient in reversed(Q[:-2]):
        q = q * t + coefficient
    return t + t * t * q


def _exponential(x: Any) -> Any:
    return (-x.abs()).exp()


def _sigmoid(x: Any) -> Any:
    t = _exponential(x)
    return torch.where(x >= 0, 1.0, t) / (1 + t)


def _softplus(x: Any) -> Any:
    return x.clamp(min=0) + log1p_of_fraction(_exponential(x))


def _softplus_backward(gradient: Any, x: Any) -> Any:
    return gradient * _sigmoid(x)


def _cross_entropy(x: Any, y: Any) -> Any:
    log_sigmoid = x.clamp(max=0) - log1p_of_fraction(_exponential(x))
    return (1 - y) * x - log_sigmoid


Rules = dict[Any, Callable[..., Any]]

LOGARITHMS: Rules = {
    aten.binary_cross_entropy_with_logits.default: _cross_entropy,
    aten.softplus.default: _softplus,
}
SIGMOIDS: Rules = {
    aten.sigmoid.default: _sigmoid,
    aten.softplus_backward.default: _softplus_backward,
}
# No weights and no reduction of a cross entropy; β = 1 in a softplus, which by both definitions is x from 20 on
OPTIONS: dict[Any, list[list[Any]]] = {
    aten.binary_cross_entropy_with_logits.default: [[None, None, 0]],
    aten.softplus.default: [[], [1], [1, 20]],
    aten.sigmoid.default: [[]],
    aten.softplus_backward.default: [[1, 20]],
}


def _is_among(rules: Rules, node: fx.Node) -> bool:
    """Whether there is an equation for an operation with its options."""
    value = node.meta.get("val")
    if node.target not in rules or not isinstance(value, torch.Tensor):
        return False
    options = [option for option in node.args if not isinstance(option, fx.Node)]
    return value.dtype == torch.float32 and not node.kwargs and options in OPTIONS[node.target]


def _argument(node: fx.Node) -> Any:
    """The x of an operation."""
    return node.args[1 if node.target is aten.softplus_backward.default else 0]


def _replace(node: fx.Node, rule: Callable[..., Any]) -> None:
    """Put an equation in the place of an operation."""
    tensors = [fx.Proxy(value) for value in node.args if isinstance(value, fx.Node)]
    with node.graph.inserting_before(node):
        node.replace_all_uses_with(rule(*tensors).node)
    node.graph.erase_node(node)
