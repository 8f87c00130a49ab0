"""What the ratios of `steps.py` should be, by the names of races and contestants."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from races.racing import Results, ratio

OURS = "ours, compiled"
FIT = "ours, in fit, 1 epoch"
LONG_FIT = "ours, in fit, 10 epochs"
HAND = "by hand, torch.compile, fused Adam"
PYRO = "plain Pyro"
BY_SVI = "our pair, pyro.infer.SVI"
LOOP = "NumPyro, loop"
JITTED = "NumPyro, jitted step"
PYTHAE = "pythae, step"
PYTHAE_EPOCH = "pythae, its trainer's epoch"

MLP_RACE = "VAE 784-400-20, batch 128"
SMALL_RACE = "VAE 784-64-20, batch 64"
CONV_RACE = "VAE of convolutions 1x28x28-32-64-20, batch 64"
FLOWS_RACE = "MAF prior and IAF posterior 784-400-20, batch 128"
SMALL_FLOWS_RACE = "MAF prior and IAF posterior 64-64-8, batch 64"
IWAE_RACE = "IWAE 784-200-20, K = 16, batch 32"
VAMP_RACE = "VampPrior of 500 inputs 784-400-20, batch 128"
IAF_RACE = "IAF posterior without context 784-400-20, batch 128"
DIGITS_RACE = "digits VAE of the README, MAF prior, IAF posterior, batch 100"


@dataclass(frozen=True)
class Bar:
    """What the ratio of two contestants should reach.

    Attributes:
        one: numerator.
        other: denominator.
        most: the ratio is at most this much,
        least: and at least this.
    """

    one: str
    other: str
    most: float = inf
    least: float = 0.0

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.least else f"≤ {self.most:g}"

    def is_met(self, found: float) -> bool:
        return self.least <= found <= self.most


FITS = [Bar(LONG_FIT, OURS, most=1.05), Bar(FIT, OURS, most=1.2)]
BY_TORCH = [Bar(OURS, HAND), Bar(OURS, PYRO)]
WITHOUT_BAR = [Bar(OURS, LOOP), *BY_TORCH, Bar(FIT, OURS, most=1.2)]


def beside_loop(most: float, fit: str = LONG_FIT) -> list[Bar]:
    """A bare step, and what `fit` takes for one, beside NumPyro's loop."""
    return [Bar(OURS, LOOP, most=most), Bar(fit, LOOP, most=most)]


def beside_pythae(least: float) -> list[Bar]:
    return [Bar(PYTHAE, OURS, least=least), Bar(PYTHAE_EPOCH, FIT, least=least)]


BARS = {
    MLP_RACE: [*beside_loop(1.05), *BY_TORCH, *beside_pythae(2), *FITS],
    SMALL_RACE: [
        *beside_loop(1.15),
        Bar(OURS, HAND, most=0.7),
        Bar(OURS, PYRO),
        *beside_pythae(2),
        *FITS,
    ],
    FLOWS_RACE: [*beside_loop(1.1, FIT), *BY_TORCH, Bar(FIT, OURS, most=1.2)],
    SMALL_FLOWS_RACE: [*beside_loop(1.8), *BY_TORCH, *FITS],
    CONV_RACE: [Bar(OURS, JITTED), *BY_TORCH, Bar(FIT, OURS, most=1.2)],
    IWAE_RACE: WITHOUT_BAR,
    VAMP_RACE: [Bar(OURS, HAND), *beside_pythae(5)],
    IAF_RACE: [Bar(OURS, HAND), *beside_pythae(3)],
    DIGITS_RACE: [Bar(OURS, BY_SVI)],
}


NO_BAR = str(Bar(OURS, OURS))


def judged(title: str, results: Results, clock: str) -> dict[str, dict[str, object]]:
    """The ratios of a race that have a bar, or are asked for without one, by name."""
    found = {}
    for bar in BARS.get(title, []):
        if bar.one not in results or bar.other not in results:
            continue
        row: dict[str, object] = dict(ratio(results, bar.one, bar.other, clock))
        if str(bar) != NO_BAR:
            row |= {"bar": str(bar), "met": bar.is_met(row["ratio"])}
        found[f"{bar.one} ÷ {bar.other}"] = row
    return found
