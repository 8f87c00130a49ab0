"""All metrics of one sample, as the entries of one row of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..estimate import Estimate, estimate_columns
from .classifier import c2st
from .moments import frechet
from .neighbours import nearest_neighbour, prdc
from .twosample import mmd


@dataclass(frozen=True)
class SampleMetrics:
    """All metrics of one sample of fakes, against real data that are the same for every model.

    Attributes:
        train: training data `(N, D)`.
        real: held-out data `(n, D)`.
        bandwidth: of the kernel of `mmd`.
        classifier: of `c2st`.
        k: of `prdc`.
        num_permutations: number of relabellings of each test.
        seed: of the tests.
    """

    train: Tensor
    real: Tensor
    bandwidth: float
    classifier: Any
    k: int
    num_permutations: int
    seed: int

    def entries(self, fake: Tensor, every_fake: Tensor) -> dict[str, Any]:
        """The numbers of one row, with their standard errors and p-values.

        Args:
            fake: as many fakes as there are real data; compared with these.
            every_fake: all fakes of the model; compared with the training data.
        """
        entries = self._tests(fake)
        entries |= self._coverage(fake)
        entries |= self._neighbours(fake, every_fake)
        return entries

    def _tests(self, fake: Tensor) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "real": self.real,
            "fake": fake,
            "num_permutations": self.num_permutations,
            "seed": self.seed,
        }
        by_classifier = c2st(**arguments, classifier=self.classifier)
        by_kernel = mmd(**arguments, bandwidth=self.bandwidth)
        return estimate_columns(
            {
                "c2st": by_classifier.accuracy,
                "auc": by_classifier.auc,
                "c2st_p": by_classifier.p_value,
                "mmd": Estimate(by_kernel.value, by_kernel.stderr),
                "mmd_p": by_kernel.p_value,
            }
        )

    def _coverage(self, fake: Tensor) -> dict[str, Any]:
        balls = prdc(real=self.real, fake=fake, k=self.k, seed=self.seed)
        moments = frechet(real=self.real, fake=fake, seed=self.seed)
        return estimate_columns(
            {
                "precision": balls.precision,
                "recall": balls.recall,
                "density": balls.density,
                "coverage": balls.coverage,
                "frechet": Estimate(moments.value, moments.stderr),
            }
        )

    def _neighbours(self, fake: Tensor, every_fake: Tensor) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "num_permutations": self.num_permutations,
            "seed": self.seed,
        }
        near_test = nearest_neighbour(real=self.real, fake=fake, **settings)
        near_train = nearest_neighbour(real=self.train, fake=every_fake, **settings)
        return estimate_columns(
            {
                "nn_test": near_test.accuracy,
                "nn_test_p": near_test.p_value,
                "nn_train": near_train.accuracy,
                "nn_train_p": near_train.p_copied,
            }
        )
