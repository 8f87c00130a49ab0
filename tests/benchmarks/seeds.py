"""Time of one step of one seed: of several seeds at once, beside one after the other, and beside NumPyro's `vmap`.

    python tests/benchmarks/seeds.py --rounds 11 --out seeds.json
    python tests/benchmarks/seeds.py --only digits --threads 2
    python tests/benchmarks/seeds.py --device cuda

Four epochs of 200 steps, with all that `fit` checks and keeps; every run is compiled. How many seeds one graph takes on
a CPU is a matter of its cache: "all at once" shows what it costs to take all of them. On a GPU they are all taken.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from contestants import ours
from contestants.sizes import DIGITS, SMALL, SMALL_FLOWS, Size
from races.bars import DIGITS_RACE, SMALL_FLOWS_RACE, SMALL_RACE
from races.racing import Build, Rules, is_chosen, is_there, parser, race, ratio, rules_of, summary

SEEDS = 16
EPOCHS = 4
BAR = "bar ≥ 1.25 on a CPU, ≥ 8 on a GPU"
ALONE = "one after the other"
TOGETHER = f"{SEEDS} seeds, Replicates"


def contestants(model: ours.Model, size: Size, name: str, device: str) -> dict[str, Build]:
    found: dict[str, Build] = {
        ALONE: partial(ours.fitting, model, size, epochs=EPOCHS),
        TOGETHER: partial(ours.replicated, model, size, seeds=SEEDS, epochs=EPOCHS),
        f"{SEEDS} seeds, all at once": partial(
            ours.replicated, model, size, seeds=SEEDS, epochs=EPOCHS, at_once=SEEDS
        ),
    }
    if device == "cpu" and name and is_there("numpyro"):
        from contestants import numpyro_vae

        pair = getattr(numpyro_vae, name)
        found["NumPyro, loop"] = partial(numpyro_vae.stepping, pair, size, loop=True)
        found[f"{SEEDS} seeds, NumPyro, vmap of the loop"] = partial(
            numpyro_vae.stepping, pair, size, loop=True, seeds=SEEDS
        )
    return found


RACES = {
    DIGITS_RACE: (ours.digits, DIGITS, ""),
    SMALL_FLOWS_RACE: (ours.flows, SMALL_FLOWS, "flows"),
    SMALL_RACE: (ours.mlp, SMALL, "mlp"),
}


def growth(rules: Rules) -> dict[int, float]:
    """Milliseconds of one step of all seeds, by their number."""
    builds: dict[str, Build] = {}
    for num in (2, 4, 8, 16):
        builds[str(num)] = partial(
            ours.replicated, ours.flows, SMALL_FLOWS, seeds=num, epochs=EPOCHS
        )
    table = summary(race(builds, rules), "2", rules.clock)
    return {int(name): int(name) * row[f"{rules.clock}_ms"] for name, row in table.items()}


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--device", default="cpu")
    chosen = options.parse_args()
    rules = rules_of(chosen)
    report: dict[str, Any] = {"threads": rules.threads, "clock": rules.clock, "races": {}}
    for title, (model, size, name) in RACES.items():
        if not is_chosen(title, chosen):
            continue
        results = race(contestants(model, size, name, rules.device), rules)
        table = summary(results, ALONE, rules.clock)
        report["races"][title] = table
        print(f"\n{title}: ms a step and seed ({rules.clock}), beside one after the other")
        for contestant, row in table.items():
            print(f"  {contestant:45s} {row[f'{rules.clock}_ms']:8.3f}  {row['ratio']:.2f}")
        gain = ratio(results, ALONE, TOGETHER, rules.clock)
        report["races"][title]["throughput"] = gain
        quartiles = f"[{gain['low']:.2f}, {gain['high']:.2f}], {gain['rounds']} rounds"
        print(f"  throughput {gain['ratio']:.2f} {quartiles}, {BAR}")
    if is_chosen("growth", chosen):
        report["growth"] = growth(rules)
        print("\nms of a step of all seeds, by their number:", report["growth"])
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
