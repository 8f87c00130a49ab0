"""Running means: one weight per datum, one host read, and the site that failed first."""

import math

import pytest
import torch

from pyro_dgm.inference.training.running import RunningMeans


def terms(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


def test_each_datum_counts_once_whatever_its_batch():
    running = RunningMeans()
    running.add(terms(loss=1.0), 3)
    running.add(terms(loss=5.0), 1)
    assert running.means() == {"loss": 2.0}


def test_a_skipped_step_counts_as_a_step_and_not_as_data():
    running = RunningMeans()
    running.add(terms(loss=1.0), 2)
    running.add({}, 2)
    assert (running.num_added, running.num_data) == (2, 2)


def test_means_are_accumulated_in_double_precision():
    running = RunningMeans()
    for _ in range(10_000):
        running.add({"loss": torch.tensor(0.1, dtype=torch.float32)}, 100)
    assert running.means()["loss"] == pytest.approx(
        torch.tensor(0.1, dtype=torch.float32).item(), rel=1e-12
    )


def test_nothing_added_raises():
    with pytest.raises(ValueError, match="expected at least one batch, got none"):
        RunningMeans().means()


def test_only_the_site_that_failed_first_is_named_though_all_are_poisoned_since():
    running = RunningMeans()
    running.add(
        {"loss": torch.tensor(1.0), "rec[x]": torch.tensor(0.5), "kl[z]": torch.tensor(0.5)}, 4
    )
    running.add(
        {
            "loss": torch.tensor(math.nan),
            "rec[x]": torch.tensor(math.inf),
            "kl[z]": torch.tensor(0.5),
        },
        4,
    )
    running.add(
        {
            "loss": torch.tensor(math.nan),
            "rec[x]": torch.tensor(math.nan),
            "kl[z]": torch.tensor(math.nan),
        },
        4,
    )
    with pytest.raises(
        ValueError, match=r"got non-finite rec\[x\] at or shortly before step 3\. Fix: a lower lr"
    ):
        running.refuse_non_finite(3)


def test_finite_terms_pass():
    running = RunningMeans()
    running.refuse_non_finite(0)
    running.add(terms(loss=1.0), 1)
    running.refuse_non_finite(1)
    assert running.finite.all()


def test_a_term_that_a_batch_lacks_is_zero_there():
    means = RunningMeans()
    means.add({"loss": torch.tensor(2.0), "x_0": torch.tensor(2.0)}, 2)
    later = {"loss": torch.tensor(4.0), "x_1": torch.tensor(1.0), "x_0": torch.tensor(3.0)}
    means.add(later, 2)
    found = means.means()
    assert found == {"loss": 3.0, "x_0": 2.5, "x_1": 0.5}
    assert found["loss"] == found["x_0"] + found["x_1"]


def test_a_late_term_that_is_not_finite_is_named():
    means = RunningMeans()
    means.add({"loss": torch.tensor(2.0)}, 2)
    means.add({"loss": torch.tensor(2.0), "x_1": torch.tensor(torch.nan)}, 2)
    with pytest.raises(ValueError, match=r"x_1"):
        means.refuse_non_finite(step=2)
