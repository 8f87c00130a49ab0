"""The objective: a module over a pair whose forward is a loss in nats per datum."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..run.structure import Structure, preflight
from ..run.traces import Site
from .schedules import Schedule


class Objective(nn.Module):
    """A loss over a model and a guide; abstract. A subclass gives `terms`, whose entry `loss` is minimized.

    Args:
        model: the model, a module.
        guide: its guide, a module.
        size: number of data in the full set if the programs declare one; losses are then divided by it.

    Raises:
        TypeError: if a program is no module: its parameters would not be trained.
    """

    def __init__(self, model: nn.Module, guide: nn.Module, size: int | None = None):
        super().__init__()
        for role, program in (("model", model), ("guide", guide)):
            if not isinstance(program, nn.Module):
                raise TypeError(
                    f"{type(self).__name__}: expected the {role} as an nn.Module, got {type(program).__name__}, whose "
                    "parameters nobody would train. Fix: subclass Program (or nn.Module), or use pyro.infer.SVI."
                )
        self.model, self.guide, self.size = model, guide, size
        self._depth = 1

    def terms(self, *batch: Any) -> dict[str, Tensor]:
        """Named 0-dim costs in nats per datum, lower is better; `loss` is the one to minimize."""
        raise NotImplementedError(f"{type(self).__name__} has no terms.")

    def forward(self, *batch: Any) -> Tensor:
        """The loss, 0-dim, in nats per datum."""
        return self.terms(*batch)["loss"]

    def advance(self) -> None:
        """Move every schedule of the objective on by one optimization step."""
        for module in self.modules():
            if isinstance(module, Schedule):
                module.advance()

    def preflight(self, *batch: Any) -> Structure:
        """Check the pair against the contract on this batch, see `preflight`, and learn how many plates it has."""
        report = preflight(self.model, self.guide, *batch, size=self.size)
        self._depth = report.depth
        return report

    def _num_data(self, batch: tuple) -> int:
        return self.size or len(next(b for b in batch if isinstance(b, Tensor)))


def check_reparameterized(name: str, site: Site) -> None:
    """Refuse a guide site through whose draws no gradient flows."""
    if not site["fn"].has_rsample:
        raise ValueError(
            f"site '{name}': expected reparameterized draws for the gradient of the bound, got {site['fn']}. "
            "Fix: PyroObjective(model, guide, TraceEnum_ELBO(max_plate_nesting=1)) for a discrete latent, or a family "
            "with rsample."
        )
