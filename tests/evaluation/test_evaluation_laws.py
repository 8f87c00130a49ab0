"""What every estimate keeps to: it sees no size, no β and no mask of ones, and leaves no trace outside itself."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from toys import toy_vae

import pyro_dgm as dgm

OBSERVED = torch.tensor([True, False, True])
FEW = {"fills": 2, "sweeps": 2}

# Estimates of a VAE: each takes its two programs, or the VAE, and data.
OF_PAIRS: dict[str, Callable[..., Any]] = {
    "nll": lambda m, g, x: dgm.nll(m, g, x, num=30, chunk=50),
    "surgery": lambda m, g, x: dgm.surgery(m, g, x),
    "unit_kl": lambda m, g, x: dgm.unit_kl(m, g, x, num=4),
    "collapse": lambda m, g, x: dgm.collapse(m, g, x, num=4),
    "active_units": lambda m, g, x: dgm.active_units(g, x, num=4),
    "aggregate_test": lambda m, g, x: dgm.aggregate_test(m, g, x, num_permutations=19),
    "sbc": lambda m, g, x: dgm.sbc(m, g, num_data=30, num_draws=9, chunk=100),
    "tarp": lambda m, g, x: dgm.tarp(m, g, num_data=30, num_draws=9, chunk=100),
    "hmc_from_the_guide": lambda m, g, x: dgm.hmc(
        m, x, num=5, warmup=10, chains=2, leapfrog=2, start=g
    ),
    "hmc_from_the_prior": lambda m, g, x: dgm.hmc(m, x, num=5, warmup=10, chains=2, leapfrog=2),
    "ais": lambda m, g, x: dgm.ais(m, x, num=4, steps=5, leapfrog=2),
    "ais_from_the_guide": lambda m, g, x: dgm.ais(m, x, num=4, steps=5, leapfrog=2, start=g),
    "bdmc": lambda m, g, x: dgm.bdmc(m, num_data=4, num=4, steps=5, leapfrog=2),
    "bdmc_from_the_guide": lambda m, g, x: dgm.bdmc(
        m, num_data=4, num=4, steps=5, leapfrog=2, start=g
    ),
    "generate": lambda m, g, x: dgm.generate(m, 7),
    "encode": lambda m, g, x: dgm.encode(g, x, num=3),
    "reconstruct": lambda m, g, x: dgm.reconstruct(m, g, x, num=3),
    "marginal_nll": lambda m, g, x: dgm.marginal_nll(m, g, x, observed=OBSERVED, num=30, **FEW),
    "conditional_nll": lambda m, g, x: dgm.conditional_nll(
        m, g, x, of=~OBSERVED, given=OBSERVED, num=30, **FEW
    ),
    "impute": lambda m, g, x: dgm.impute(m, g, x, observed=OBSERVED, num=3, num_weights=30, **FEW),
    "decode": lambda m, g, x: dgm.decode(m, x[:, :2]),
    "traverse": lambda m, g, x: dgm.traverse(m, x[:, :2], steps=3),
    "interpolate": lambda m, g, x: dgm.interpolate(
        m, x[:, :2], x[:, 1:], steps=3, path=dgm.diagnostics.slerp
    ),
    "preflight": lambda m, g, x: str(dgm.preflight(m, g, x)),
    "to_arviz": lambda m, g, x: dgm.to_arviz(m, g, x, num=5),
    "gaps": lambda m, g, x: dgm.gaps(m, g, x, num=20, num_steps=3),
    "guide_error": lambda m, g, x: dgm.guide_error(
        g, dgm.hmc(m, x, num=5, warmup=10, chains=2, leapfrog=2), x
    ),
}
OF_VAES: dict[str, Callable[..., Any]] = {
    name: lambda vae, x, run=run: run(vae.model, vae.guide, x) for name, run in OF_PAIRS.items()
}


def numbers(result: Any) -> dict[str, Any]:
    """Every number of a result by its path, as arrays."""
    if dataclasses.is_dataclass(result):
        result = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if hasattr(result, "groups"):  # of ArviZ
        groups = [
            str(group).strip("/")
            for group in (result.groups() if callable(result.groups) else result.groups)
        ]
        result = {f"{g}.{n}": result[g][n].values for g in groups if g for n in result[g].data_vars}
    if isinstance(result, (Mapping, tuple, list)):
        items = result.items() if isinstance(result, Mapping) else enumerate(result)
        return {
            f"{key}.{path}": value for key, part in items for path, value in numbers(part).items()
        }
    return {"": result.detach().numpy() if isinstance(result, Tensor) else np.asarray(result)}


def differing(found: Any, expected: Any) -> list[str]:
    """The paths at which two results are not equal to the bit; NaN equals NaN."""
    found, expected = numbers(found), numbers(expected)
    missing = [*found.keys() ^ expected.keys()]
    return missing + [
        p for p in found.keys() & expected.keys() if not _same_bits(found[p], expected[p])
    ]


def _same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    return (
        bool(np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f"))
        and expected.dtype == found.dtype
    )


class MaskedByOnes(nn.Module):
    """A likelihood whose distribution is masked, by ones."""

    def __init__(self, likelihood: nn.Module):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, z: Tensor) -> Any:
        distribution = self.likelihood(z)
        return distribution.mask(torch.ones(distribution.batch_shape, dtype=torch.bool))


def evaluated_beside_an_objective(vae: dgm.VAE) -> dgm.VAE:
    """After steps of an objective with β, taken back, on the very modules that it holds."""
    before = copy.deepcopy(vae.state_dict())
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": dgm.LinearWarmup(10)})
    trainer = dgm.SVITrainer(objective, lr=0.1)
    trainer.fit(torch.randn(8, 3), epochs=1)
    vae.load_state_dict(before)
    assert objective.model is vae.model
    return vae


VARIANTS: dict[str, Callable[[dgm.VAE], dgm.VAE]] = {
    "size": lambda vae: vae.replace(size=1000),
    "mask_of_the_distribution": lambda vae: vae.replace(
        likelihood=MaskedByOnes(vae.generator.likelihood)
    ),
    "beta": evaluated_beside_an_objective,
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [n for n in OF_VAES if n != "preflight"])
def test_no_estimate_sees_the_size_a_mask_of_ones_or_the_beta_of_an_objective(name, variant):
    vae, x = toy_vae(), torch.randn(6, 3)
    expected = OF_VAES[name](vae, x)
    assert differing(OF_VAES[name](VARIANTS[variant](vae), x), expected) == []


HANDLERS: dict[str, Callable[[Any], Any]] = {
    "scale": lambda program: poutine.scale(program, scale=0.1),
    "mask": lambda program: poutine.mask(program, mask=torch.ones(1, dtype=torch.bool)),
}


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("name", [n for n in OF_PAIRS if n != "preflight"])
def test_no_estimate_sees_a_handler_that_scales_or_masks_by_ones(name, handler):
    vae, x = toy_vae(), torch.randn(6, 3)
    expected = OF_PAIRS[name](vae.model, vae.guide, x)
    assert (
        differing(
            OF_PAIRS[name](HANDLERS[handler](vae.model), HANDLERS[handler](vae.guide), x), expected
        )
        == []
    )


OF_THE_LATENTS = {"unit_kl", "collapse", "active_units", "aggregate_test", "encode"}


@pytest.mark.parametrize("name", [n for n in OF_VAES if n not in OF_THE_LATENTS | {"preflight"}])
def test_another_likelihood_gives_other_numbers(name):
    """The comparison of bits can fail."""
    vae, x = toy_vae(), torch.randn(6, 3)
    expected = OF_VAES[name](vae, x)
    assert differing(
        OF_VAES[name](vae.replace(likelihood=dgm.Normal(dgm.mlp(2, 6, 3))), x), expected
    )


@pytest.mark.parametrize("name", sorted(OF_THE_LATENTS))
def test_another_guide_gives_other_numbers(name):
    vae, other, x = toy_vae(), toy_vae(), torch.randn(6, 3)
    expected = OF_VAES[name](vae, x)
    assert differing(OF_VAES[name](vae.replace(encoder=other.guide.encoder), x), expected)


def outside(vae: dgm.VAE) -> dict[str, Any]:
    """Whatever an estimate might move."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": [
            part.tolist() if isinstance(part, np.ndarray) else part
            for part in np.random.get_state()  # noqa: NPY002
        ],
        "random": random.getstate(),
        "store": dict(pyro.get_param_store().items()),
        "weights": copy.deepcopy(vae.state_dict()),
        "gradients": {
            n: None if p.grad is None else p.grad.clone() for n, p in vae.named_parameters()
        },
        "trained": {n: p.requires_grad for n, p in vae.named_parameters()},
        "modes": {n: m.training for n, m in vae.named_modules()},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vae.modules()],
        "handlers": list(pyro.poutine.runtime._PYRO_STACK),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
    }


def unequal(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    def same(a: Any, b: Any) -> bool:
        if isinstance(b, Mapping):
            return a.keys() == b.keys() and all(same(a[k], b[k]) for k in b)
        return torch.equal(a, b) if isinstance(b, Tensor) else a == b

    return [name for name in expected if not same(found[name], expected[name])]


@pytest.mark.parametrize("name", OF_VAES)
def test_no_estimate_leaves_a_trace(name):
    """Neither in a seed, a weight, a gradient, a mode, the store nor a handler; and it repeats to the bit."""
    vae, x = toy_vae(), torch.randn(6, 3)
    vae.guide.eval()
    vae.generator.likelihood.train()
    next(vae.parameters()).requires_grad_(False)
    list(vae.parameters())[-1].grad = torch.ones_like(list(vae.parameters())[-1])
    before, data = outside(vae), x.clone()
    first = OF_VAES[name](vae, x)
    assert unequal(outside(vae), before) == []
    assert torch.equal(x, data)
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    random.random()
    assert differing(OF_VAES[name](vae, x), first) == []


@pytest.mark.parametrize("name", OF_VAES)
def test_no_result_holds_a_graph(name):
    vae, x = toy_vae(), torch.randn(6, 3)

    def tensors(result: Any) -> list[Tensor]:
        if dataclasses.is_dataclass(result):
            result = list(vars(result).values())
        parts = (
            result.values()
            if isinstance(result, dict)
            else result
            if isinstance(result, (tuple, list))
            else []
        )
        return (
            [result] if isinstance(result, Tensor) else [t for part in parts for t in tensors(part)]
        )

    assert not any(t.requires_grad for t in tensors(OF_VAES[name](vae, x)))


def test_the_witness_sees_each_kind_of_trace():
    vae = toy_vae()
    before = outside(vae)
    torch.rand(1)
    np.random.rand()  # noqa: NPY002
    random.random()
    vae.eval()
    with torch.no_grad():
        next(vae.parameters()).add_(1)
    list(vae.parameters())[0].grad = torch.ones_like(list(vae.parameters())[0])
    list(vae.parameters())[1].requires_grad_(False)
    vae.register_forward_hook(lambda *_: None)
    moved = ["torch", "numpy", "random", "weights", "gradients", "trained", "modes", "hooks"]
    assert unequal(outside(vae), before) == moved
