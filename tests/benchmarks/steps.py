"""Time of one training step of seven models, beside torch by hand, Pyro, NumPyro and pythae, in interleaved runs.

    pip install -e '.[benchmarks]'
    python tests/benchmarks/steps.py --rounds 15 --out steps.json
    python tests/benchmarks/steps.py --only 784-64-20 --clock cpu
    python tests/benchmarks/steps.py --device cuda

How they take turns is told in `races/racing.py`. Everyone has the same networks, batch and Adam: the table shows how
many numbers each trains, and its loss with its first weights. "In fit" is a call of `fit` of one or ten epochs of 200
steps, with all that it checks and keeps, over its steps; the graph is there from a fit before. The wall clock is right
on a machine without others; where there are others, take CPU time. What differs from equal networks: the VAMP of pythae
has 784 biases more, see `contestants/pythae_vae.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from contestants import by_hand, ours, plain_pyro
from contestants.sizes import CONV, DIGITS, FLOWS, IWAE, MLP, SMALL, SMALL_FLOWS, VAMP, Size
from races.bars import (
    BY_SVI,
    CONV_RACE,
    DIGITS_RACE,
    FIT,
    FLOWS_RACE,
    HAND,
    IAF_RACE,
    IWAE_RACE,
    JITTED,
    LONG_FIT,
    LOOP,
    MLP_RACE,
    OURS,
    PYRO,
    PYTHAE,
    PYTHAE_EPOCH,
    SMALL_FLOWS_RACE,
    SMALL_RACE,
    VAMP_RACE,
    judged,
)
from races.racing import Build, is_chosen, is_there, parser, race, rules_of, summary

Builds = dict[str, Build]
Choose = Callable[[Any], Any]  # a library's declaration of a model, from its file


def of_ours(choose: Choose, size: Size) -> Builds:
    model = choose(ours)
    return {
        OURS: partial(ours.stepping, model, size, compiled=True),
        FIT: partial(ours.fitting, model, size, epochs=1),
        "ours, eager": partial(ours.stepping, model, size, compiled=False),
        BY_SVI: partial(ours.by_svi, model, size),
    }


def of_long_fit(choose: Choose, size: Size) -> Builds:
    return {LONG_FIT: partial(ours.fitting, choose(ours), size, epochs=10)}


def of_cuda_graphs(choose: Choose, size: Size) -> Builds:
    build = partial(ours.stepping, choose(ours), size, compiled="reduce-overhead")
    return {"ours, compiled, CUDA graphs": build}


def by_hands(choose: Choose, size: Size) -> Builds:
    return {
        "by hand, eager": partial(by_hand.stepping, choose(by_hand), size, compiled=False),
        HAND: partial(by_hand.stepping, choose(by_hand), size, compiled=True),
    }


def of_pyro(choose: Choose, size: Size) -> Builds:
    return {PYRO: partial(plain_pyro.stepping, choose(plain_pyro), size)}


def of_numpyro(choose: Choose, size: Size) -> Builds:
    if not is_there("numpyro"):
        return {}
    from contestants import numpyro_vae

    build = partial(numpyro_vae.stepping, choose(numpyro_vae), size, loop=True)
    return {LOOP: build, **of_numpyro_steps(choose, size)}


def of_numpyro_steps(choose: Choose, size: Size) -> Builds:
    """One step a call: XLA's convolutions take four times as long on a CPU inside of a loop."""
    if not is_there("numpyro"):
        return {}
    from contestants import numpyro_vae

    return {JITTED: partial(numpyro_vae.stepping, choose(numpyro_vae), size, loop=False)}


def of_pythae(choose: Choose, size: Size) -> Builds:
    if not is_there("pythae"):
        return {}
    from contestants import pythae_vae

    model = choose(pythae_vae)
    return {
        PYTHAE: partial(pythae_vae.stepping, model, size),
        PYTHAE_EPOCH: partial(pythae_vae.training, model, size),
    }


Peers = tuple[Callable[[Choose, Size], Builds], ...]

USUAL: Peers = (of_ours, by_hands, of_pyro, of_numpyro)
BESIDE_PYTHAE: Peers = (of_ours, by_hands, of_pythae)
RACES: dict[str, tuple[Choose, Size, Peers]] = {
    MLP_RACE: (lambda library: library.mlp, MLP, (*USUAL, of_long_fit, of_pythae)),
    SMALL_RACE: (lambda library: library.mlp, SMALL, (*USUAL, of_long_fit, of_pythae)),
    CONV_RACE: (
        lambda library: library.conv,
        CONV,
        (of_ours, by_hands, of_pyro, of_numpyro_steps),
    ),
    FLOWS_RACE: (lambda library: library.flows, FLOWS, USUAL),
    SMALL_FLOWS_RACE: (lambda library: library.flows, SMALL_FLOWS, (*USUAL, of_long_fit)),
    IWAE_RACE: (lambda library: library.iwae, IWAE, USUAL),
    VAMP_RACE: (lambda library: library.vamp, VAMP, BESIDE_PYTHAE),
    IAF_RACE: (lambda library: library.iaf, MLP, BESIDE_PYTHAE),
    DIGITS_RACE: (lambda library: library.digits, DIGITS, (of_ours,)),
}


def builds(title: str, device: str = "cpu") -> Builds:
    """The contestants of a race; on a GPU without NumPyro, and with CUDA graphs of ours."""
    choose, size, peers = RACES[title]
    if device != "cpu":
        without = of_numpyro, of_numpyro_steps
        peers = (*(peer for peer in peers if peer not in without), of_cuda_graphs)
    found: Builds = {}
    for peer in peers:
        found |= peer(choose, size)
    return found


def show(title: str, report: dict[str, dict[str, Any]]) -> None:
    """Three tables: times beside ours, networks, ratios beside their bars."""
    print(f"\n{title}")
    header = ("wall ms", "CPU ms", "÷ ours", "quartiles", "parameters", "first loss")
    print(f"{'':<36}{header[0]:>9}{header[1]:>9}{header[2]:>8}  {header[3]:<14}", end="")
    print(f"{header[4]:>11}{header[5]:>12}")
    for name, row in report["contestants"].items():
        quartiles = f"{row['low']:.2f} … {row['high']:.2f}"
        times = f"{row['wall_ms']:>9.3f}{row['cpu_ms']:>9.3f}{row['ratio']:>8.2f}"
        print(f"{name:<36}{times}  {quartiles:<14}{row['parameters']:>11,}{row['loss']:>12.2f}")
    for name, row in report["ratios"].items():
        verdict = f"bar {row['bar']}: {'met' if row['met'] else 'MISSED'}" if "bar" in row else ""
        quartiles = f"[{row['low']:.3f}, {row['high']:.3f}], {row['rounds']} rounds"
        print(f"  {name:<72}{row['ratio']:>7.3f} {quartiles} {verdict}")
    sys.stdout.flush()


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--device", default="cpu")
    options = options.parse_args()
    rules = rules_of(options)
    report: dict[str, Any] = {"rules": vars(rules)}
    for title in RACES:
        if not is_chosen(title, options):
            continue
        results = race(builds(title, rules.device), rules)
        report[title] = {
            "contestants": summary(results, OURS, rules.clock),
            "ratios": judged(title, results, rules.clock),
            "by the other clock": judged(title, results, rules.other_clock),
        }
        show(title, report[title])
        if options.out:
            options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
