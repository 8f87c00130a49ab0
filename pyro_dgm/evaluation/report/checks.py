"""The checks of a report, in its order. A check of your own is one more `Check`: findings in, an item out."""

from __future__ import annotations

from .checking import Check
from .data_items import finiteness_item, normalization_item, support_item
from .joint_items import (
    joint_ess_item,
    joint_finiteness_item,
    joint_gap_item,
    joint_khat_item,
    means_item,
    spreads_item,
)
from .latent_items import (
    calibration_item,
    information_item,
    prior_gap_item,
    prior_test_item,
    unit_item,
)
from .weight_items import ess_item, gap_item, khat_item

WEIGHTS_PRESUPPOSE = ("SBC", "aggregate-prior test")  # weights see only where the guide draws
GAP_PRESUPPOSES = ("normalization", "k-hat", *WEIGHTS_PRESUPPOSE)

CHECKS = (
    Check("data and sites", support_item),
    Check("finite numbers", finiteness_item),
    Check("normalization", normalization_item),
    Check("active units", unit_item),
    Check("mutual information", information_item),
    Check("NLL-ELBO gap", gap_item, GAP_PRESUPPOSES),
    Check("k-hat", khat_item, WEIGHTS_PRESUPPOSE),
    Check("importance ESS", ess_item, WEIGHTS_PRESUPPOSE),
    Check("SBC", calibration_item),
    Check("aggregate-prior gap", prior_gap_item),
    Check("aggregate-prior test", prior_test_item),
)

# Where all data share a draw, weights are those of joint draws
JOINT_CHECKS = (
    Check("data and sites", support_item),
    Check("finite numbers", joint_finiteness_item),
    Check("evidence-ELBO gap", joint_gap_item, ("k-hat",)),
    Check("k-hat", joint_khat_item),
    Check("importance ESS", joint_ess_item),
    Check("guide means", means_item, ("k-hat",)),
    Check("guide spreads", spreads_item, ("k-hat",)),
)
