"""Old names that are still answered: a keyword that was renamed warns and names the new one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_argument(**renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Accept old keywords under a `DeprecationWarning`; the signature that help and editors show is the new one.

    Args:
        renamed: new keywords by old ones.

    Raises:
        TypeError: in the call, if it has both the old and the new keyword.

    Example:
        >>> @renamed_argument(law="transformer")
        ... def layer(transformer):
        ...     return transformer
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     layer(law="affine"), str(caught[0].message)
        ('affine', 'layer: law= is now transformer=. Fix: layer(…, transformer=…).')
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def with_old_keywords(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in renamed.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise TypeError(
                        f"{name}: expected {new}= alone, got {old}= as well. "
                        f"Fix: {name}(…, {new}=…)."
                    )
                message = f"{name}: {old}= is now {new}=. Fix: {name}(…, {new}=…)."
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return with_old_keywords

    return decorate


# Names of the first edition, and where they are now.
MOVED = {
    "AIS": "results.AIS",
    "ActNorm": "flows.ActNorm",
    "AdamFit": "gan.AdamFit",
    "Additive": "flows.Additive",
    "Affine": "flows.Affine",
    "Alternating": "gan.Alternating",
    "Autoregressive": "flows.Autoregressive",
    "AutoregressivePixels": "distributions.AutoregressivePixels",
    "BDMC": "results.BDMC",
    "Bijector": "flows.Bijector",
    "BitsPerDim": "results.BitsPerDim",
    "C2ST": "results.C2ST",
    "CHECKS": "diagnostics.CHECKS",
    "Check": "diagnostics.Check",
    "Collapse": "results.Collapse",
    "ColourLevels": "distributions.ColourLevels",
    "Comparison": "results.Comparison",
    "Compiled": "training.Compiled",
    "ConditionalNLL": "results.ConditionalNLL",
    "Constant": "training.Constant",
    "ContinuousBernoulliLogits": "distributions.ContinuousBernoulliLogits",
    "Coupling": "flows.Coupling",
    "CriticFit": "gan.CriticFit",
    "Cyclical": "training.Cyclical",
    "Dequantize": "distributions.Dequantize",
    "Dequantized": "distributions.Dequantized",
    "DirectionWarning": "flows.DirectionWarning",
    "Directions": "flows.Directions",
    "Discretized": "distributions.Discretized",
    "Divergence": "gan.Divergence",
    "Elementwise": "flows.Elementwise",
    "Estimate": "results.Estimate",
    "Estimator": "training.Estimator",
    "FDivergence": "gan.FDivergence",
    "FactorOut": "flows.FactorOut",
    "Findings": "diagnostics.Findings",
    "Fit": "gan.CriticFit",
    "FlowTransform": "flows.FlowTransform",
    "Frechet": "results.Frechet",
    "FreeBits": "training.FreeBits",
    "GAN": "gan.GANDivergence",
    "GANDivergence": "gan.GANDivergence",
    "Game": "gan.Game",
    "Gaps": "results.Gaps",
    "GatedConvNet": "nn.GatedConvNet",
    "GatedMLP": "nn.GatedMLP",
    "GatedPixelCNN": "nn.GatedPixelCNN",
    "GivenNLL": "results.GivenNLL",
    "GradientPenalty": "gan.GradientPenalty",
    "GuideError": "results.GuideError",
    "HMC": "results.HMC",
    "Hinge": "gan.Hinge",
    "History": "results.History",
    "ImageCoupling": "flows.ImageCoupling",
    "Imputation": "results.Imputation",
    "IntegerWarning": "diagnostics.IntegerWarning",
    "Item": "diagnostics.Item",
    "JensenShannon": "gan.JensenShannon",
    "Joined": "Concat",
    "KL": "gan.KL",
    "LBFGSFit": "gan.LBFGSFit",
    "LULinear": "flows.LULinear",
    "LeastSquares": "gan.LeastSquares",
    "LevelUnits": "nn.LevelUnits",
    "Limits": "gan.Limits",
    "LogisticMixture": "flows.LogisticMixture",
    "MADE": "flows.MADE",
    "MLP": "nn.MLP",
    "Marginal": "diagnostics.Marginal",
    "MeanOf": "distributions.MeanOf",
    "Minimax": "gan.Minimax",
    "Mixture": "distributions.Mixture",
    "ModeCoverage": "results.ModeCoverage",
    "MonitorWarning": "gan.MonitorWarning",
    "Monitors": "gan.Monitors",
    "NLL": "results.NLL",
    "NearestNeighbour": "results.NearestNeighbour",
    "Normalization": "results.Normalization",
    "Objective": "training.Objective",
    "Optimality": "gan.Optimality",
    "Orthogonal": "flows.Orthogonal",
    "PRDC": "results.PRDC",
    "Particles": "results.Particles",
    "Pearson": "gan.Pearson",
    "Penalty": "gan.Penalty",
    "PerPixel": "flows.PerPixel",
    "Permutation": "flows.Permutation",
    "Picture": "diagnostics.Picture",
    "Planar": "flows.Planar",
    "Play": "gan.Play",
    "Player": "gan.Player",
    "Preflight": "results.Structure",
    "Pullback": "distributions.Pullback",
    "Pushforward": "distributions.Pushforward",
    "Quantized": "distributions.Quantized",
    "Refined": "distributions.Refined",
    "Reparameterized": "training.Reparameterized",
    "Report": "results.Report",
    "Rescale": "nn.Rescale",
    "ReverseKL": "gan.ReverseKL",
    "SBC": "results.SBC",
    "ScaleCurve": "results.ScaleCurve",
    "Schedule": "training.Schedule",
    "Simultaneous": "gan.Simultaneous",
    "Skipped": "diagnostics.Skipped",
    "Spline": "flows.Spline",
    "SquaredHellinger": "gan.SquaredHellinger",
    "Squeeze": "flows.Squeeze",
    "Stack": "flows.Stack",
    "Status": "diagnostics.Status",
    "Structure": "results.Structure",
    "Surgery": "results.Surgery",
    "Sylvester": "flows.Sylvester",
    "Threshold": "diagnostics.Threshold",
    "Trainer": "training.Trainer",
    "TwoSample": "results.TwoSample",
    "Unflatten": "flows.Unflatten",
    "Unmasked": "diagnostics.Unmasked",
    "Wasserstein": "gan.Wasserstein",
    "Zuko": "flows.Zuko",
    "assert_bijector": "flows.assert_bijector",
    "channel_mask": "flows.channel_mask",
    "checkerboard_mask": "flows.checkerboard_mask",
    "compare": "compare_elpd",
    "compare_models": "compare_samples",
    "coupling": "flows.coupling",
    "elpd_data": "diagnostics.elpd_data",
    "ess": "diagnostics.ess",
    "import_zuko": "flows.import_zuko",
    "khat_threshold": "diagnostics.khat_threshold",
    "label_coverage": "diagnostics.label_coverage",
    "lerp": "diagnostics.lerp",
    "linear": "diagnostics.lerp",
    "log_cdf": "distributions.log_cdf",
    "log_interval": "distributions.log_interval",
    "log_sf": "distributions.log_sf",
    "mean_ess": "diagnostics.mean_ess",
    "nll_over_scale": "diagnostics.nll_over_scale",
    "normalization": "diagnostics.normalization",
    "optimality_report": "gan.optimality_report",
    "oscillation": "gan.oscillation",
    "parzen": "diagnostics.parzen",
    "parzen_bandwidth": "diagnostics.parzen_bandwidth",
    "per_datum_dataset": "diagnostics.per_datum_dataset",
    "planar": "flows.planar",
    "rhat": "diagnostics.rhat",
    "sbc_dataset": "diagnostics.sbc_dataset",
    "sigmoid_schedule": "diagnostics.sigmoid_schedule",
    "slerp": "diagnostics.slerp",
    "smooth_weights": "diagnostics.smooth_weights",
    "smoothed": "diagnostics.smooth_weights",
    "spectral_norm": "nn.spectral_norm",
    "spherical": "diagnostics.slerp",
    "sylvester": "flows.sylvester",
    "training_dataset": "training.training_dataset",
    "within_cell": "distributions.within_cell",
}


def home_of(name: str) -> str:
    """Where a name of the first edition is now, under a warning that says so.

    Raises:
        KeyError: for a name that there never was.

    Example:
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     print(home_of("Joined"))
        Concat
    """
    home = MOVED[name]
    warnings.warn(f"dgm.{name} has moved. Fix: dgm.{home}.", DeprecationWarning, stacklevel=3)
    return home
