"""What may be asked of a run besides its likelihood: annealed importance sampling, surgery, all checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ...evaluation.estimate import Estimate
from ...evaluation.latents.elbo_surgery import surgery
from ...evaluation.likelihood.annealing import ais
from ...evaluation.report.report import check
from ...files.writing import write_text
from .results import Results
from .run import Run


@dataclass(frozen=True)
class Examination:
    """What is asked for.

    Args:
        ais: temperatures of an annealed importance sampling from the guide; `None` for none.
        surgery: whether the KL is taken apart.
        check: whether every check of `dgm.check` is run.
    """

    ais: int | None = None
    surgery: bool = False
    check: bool = False

    def asked(self) -> dict[str, Any]:
        """What is asked for, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value}

    def of(self, run: Run, seed: int, limit: int | None, noise: int) -> Results:
        """The figures of one seed of a run, in nats per datum.

        Args:
            run: the run.
            seed: which of its seeds.
            limit: how many of the test data.
            noise: seed of all draws.
        """
        model, guide = run.pairs[run.seeds.index(seed)]
        test = run.test(limit)
        found: Results = {}
        if self.ais is not None:
            score = ais(model, *test, steps=self.ais, start=guide, seed=noise)
            found |= {"ais_nll": score.mean, "ais_nll_stderr": score.stderr}
        if self.surgery:
            parts = surgery(model, guide, *test, seed=noise)
            for field in fields(parts):
                value = getattr(parts, field.name)
                if isinstance(value, Estimate):
                    name = f"surgery_{field.name}"
                    found |= {name: value.value, f"{name}_stderr": value.stderr}
        if self.check:
            report = check(model, guide, *test, seed=noise)
            write_text(run.folder / f"check-seed-{seed}.txt", f"{report}\n")
            found["check"] = report.verdict.value
        return found
