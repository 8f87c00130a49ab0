"""A wrong part is refused where it is handed over: what was expected, what was got, and the fix as code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import CONDITIONALS, PAIRS, over
from pyro import poutine
from torch import Tensor, nn

import pyro_dgm as dgm
from pyro_dgm.inference.run.traces import sites_of
from pyro_dgm.programs.requirements import (
    require_conditional,
    require_network,
    require_program,
    require_sizes,
)


def trace_of(program, batch):
    return poutine.trace(program).get_trace(*batch)


def prior():
    return dgm.StandardNormal(2)


def likelihood():
    return dgm.Normal(dgm.mlp(2, 9))


def encoder():
    return dgm.Conditional(dist.Normal, dgm.mlp(9, 4))


def vae(**options):
    return dgm.VAE(prior(), likelihood(), encoder(), **options)


class Says(nn.Module):
    """A conditional of a user's own, which says what it returns."""

    def forward(self, *context: Tensor) -> dist.Independent:
        return dist.Normal(torch.zeros(2), 1.0).to_event(1)


class SaysNothing(nn.Module):
    def forward(self, *context):
        return Says()(*context)


class SaysOneOfTwo(nn.Module):
    def forward(self, *context: Tensor) -> dist.Normal | dist.Independent:
        return Says()(*context)


class SaysAnything(nn.Module):
    def forward(self, *context: Tensor) -> Any:
        return Says()(*context)


class Called(nn.Module):
    """A function as a module, with the first four numbers that it returns."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)[..., :4]


class Net(nn.Module):
    """A network of a user's own, which does not say what it returns."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(9, 4)

    def forward(self, x):
        return self.linear(x)


# Conditionals --------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "distribution": (
        lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1),
        r"the distribution Independent\(",
    ),
    "distribution_of_torch": (
        lambda: torch.distributions.Normal(0.0, 1.0),
        r"the distribution Normal\(",
    ),
    "class": (lambda: dgm.StandardNormal, "the class StandardNormal"),
    "family": (lambda: dist.Normal, "the class Normal"),
    "network": (lambda: nn.Linear(2, 9), "Linear, whose forward returns a Tensor"),
    "mlp": (lambda: dgm.mlp(2, 9), "MLP, whose forward returns a Tensor"),
    "sequential": (lambda: nn.Sequential(nn.Linear(2, 9)), "Sequential, whose forward returns a T"),
    "bijector": (lambda: dgm.maf(2, 1), "Stack, whose forward returns a tuple"),
    "program": (lambda: vae().model, "the program LatentVariableModel"),
    "vae": (vae, "VAE, which has no forward"),
    "function": (lambda: lambda *c: Says()(*c), "function"),
    "number": (lambda: 8, "int"),
    "none": (lambda: None, "NoneType"),
}
PLACES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "vae_prior": (
        lambda part: dgm.VAE(part, likelihood(), encoder()),
        r"prior: .*Fix: prior=StandardNormal\(8\)",
    ),
    "vae_likelihood": (
        lambda part: dgm.VAE(prior(), part, encoder()),
        r"likelihood: .*Fix: likelihood=Bernoulli\(net\)",
    ),
    "vae_encoder": (
        lambda part: dgm.VAE(prior(), likelihood(), part),
        r"encoder: .*Fix: encoder=Conditional\(dist\.Normal, net\)",
    ),
    "density_model": (dgm.DensityModel, r"density: .*Fix: density=Flow\(StandardNormal\(8\), maf"),
    "noise_guide": (dgm.NoiseGuide, r"dequantizer: .*Fix: dequantizer=UnitUniform\(\)"),
    "semi_amortized_guide": (
        lambda part: dgm.SemiAmortizedGuide(part, vae().model),
        r"encoder: .*Fix: encoder=Conditional",
    ),
    "pushforward": (
        lambda part: dgm.distributions.Pushforward(part, dgm.realnvp(2, 1)),
        r"conditional: .*Fix: conditional=Conditional",
    ),
    "pullback": (
        lambda part: dgm.distributions.Pullback(part, dgm.realnvp(2, 1)),
        r"conditional: .*Fix: conditional=Normal\(net\)",
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mistake", WRONG)
def test_what_is_no_conditional_is_refused_by_every_place_with_its_own_fix(mistake, place):
    (build, got), (hand_over, message) = WRONG[mistake], PLACES[place]
    with pytest.raises(TypeError, match=message) as error:
        hand_over(build())
    assert error.match(rf"expected a conditional, a module whose forward returns.*; got (a )?{got}")


def test_a_dequantizer_is_checked_where_there_is_one():
    with pytest.raises(
        TypeError, match=r"dequantizer: .*got the distribution.*Fix: dequantizer=Unit"
    ):
        vae(dequantizer=dist.Uniform(0.0, 1.0))
    vae(dequantizer=None)


@pytest.mark.parametrize(**over(CONDITIONALS))
def test_every_conditional_of_the_package_is_one_and_no_program(build):
    conditional = build().module
    require_conditional("prior", conditional, "…")
    with pytest.raises(TypeError, match=r"got the conditional \w+\. Fix: right\."):
        require_program("owner", conditional, "wrong", "right")


@pytest.mark.parametrize("kind", [Says, SaysNothing, SaysOneOfTwo, SaysAnything])
def test_a_conditional_of_the_users_own_is_taken_whatever_it_says(kind):
    require_conditional("prior", kind(), "…")
    assert dgm.LatentVariableModel(kind(), likelihood())(None).shape == (1, 9)


def test_a_sequence_that_ends_in_a_conditional_is_one():
    composed = nn.Sequential(nn.Linear(3, 9), encoder())
    require_conditional("encoder", composed, "…")
    assert dgm.AmortizedGuide(composed)(torch.zeros(5, 3)).shape == (5, 2)


@pytest.mark.parametrize(
    ("run", "argument"),
    [
        (lambda: dgm.AmortizedGuide(Net())(torch.zeros(3, 9)), "encoder"),
        (lambda: dgm.SemiAmortizedGuide(Net(), vae().model)(torch.zeros(3, 9)), "encoder"),
        (lambda: dgm.NoiseGuide(Net())(torch.zeros(3, 9)), "dequantizer"),
        (lambda: dgm.LatentVariableModel(dgm.StandardNormal(9), Net())(None), "likelihood"),
        (lambda: dgm.LatentVariableModel(Net(), likelihood())(None, torch.zeros(3, 9)), "prior"),
        (lambda: dgm.DensityModel(Net())(None, torch.zeros(3, 9)), "density"),
    ],
)
def test_a_network_that_says_nothing_is_found_when_it_runs(run, argument):
    message = (
        rf"{argument}: expected a conditional.*got Net, which returned Tensor\. Fix: {argument}="
    )
    with pytest.raises(TypeError, match=message):
        run()


# Networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (dist.Normal(0.0, 1.0), r"the distribution Normal"),
        (nn.Linear, "the class Linear"),
        (Says(), "the conditional Says"),
        (dgm.EmptyGuide(), "the program EmptyGuide"),
        (7, "int"),
    ],
    ids=["distribution", "class", "conditional", "program", "number"],
)
@pytest.mark.parametrize(
    "build",
    [
        lambda net: dgm.Conditional(dist.Normal, net),
        dgm.Deterministic,
        lambda net: dgm.MultivariateNormal(net, 2),
        lambda net: dgm.LowRankMultivariateNormal(net, 2, 1),
    ],
    ids=["conditional", "deterministic", "full", "low_rank"],
)
def test_what_is_no_network_is_refused(build, value, got):
    with pytest.raises(TypeError, match=rf": expected a network.*got {got}.*Fix: net=mlp\("):
        build(value)


@pytest.mark.parametrize("net", [Net(), nn.Linear(9, 4), dgm.mlp(9, 4), lambda x: x])
def test_modules_and_functions_are_networks(net):
    require_network("Conditional", net)
    whole = nn.Sequential(nn.Linear(5, 9), Called(net)).to(torch.get_default_dtype())
    law = dgm.Conditional(dist.Normal, whole)(torch.randn(3, 5))
    assert law.batch_shape == (3,)
    assert bool(law.log_prob(law.sample()).isfinite().all())


# Programs ------------------------------------------------------------------------------------------------------------

TAKERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "dequantized": (dgm.dequantized, r"dequantized\(vae\.generator\)"),
    "refined": (
        lambda program: dgm.distributions.Refined(program, nn.Linear(9, 1)),
        r"Refined\(vae\.generator, trainer\.log_ratio\)",
    ),
    "semi_amortized_guide": (
        lambda program: dgm.SemiAmortizedGuide(encoder(), program),
        r"SemiAmortizedGuide\(encoder, vae\.model\)",
    ),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("build", "got"),
    [
        (vae, "VAE, which has no forward"),
        (lambda: 17, "int"),
        (lambda: dgm.LatentVariableModel, "the class LatentVariableModel"),
    ],
    ids=["vae", "number", "class"],
)
def test_what_is_no_program_is_refused_with_the_fix(build, got, taker):
    hand_over, fix = TAKERS[taker]
    with pytest.raises(TypeError, match=rf": expected a program.*got {got}\. Fix: {fix}"):
        hand_over(build())


@pytest.mark.parametrize("taker", TAKERS)
def test_a_distribution_or_a_conditional_in_place_of_a_program_gets_another_fix(taker):
    hand_over, _ = TAKERS[taker]
    for wrong in (dist.Normal(0.0, 1.0), dgm.Flow(prior(), dgm.maf(2, 1))):
        with pytest.raises(TypeError, match=r"got the (distribution|conditional) .*Model\("):
            hand_over(wrong)


@pytest.mark.parametrize(**over(PAIRS))
def test_every_program_of_the_cases_is_one_and_no_conditional(build):
    case = build()
    for program in (case.model, case.guide):
        require_program("owner", program, "…", "…")
        drawn = [site["value"] for site in sites_of(trace_of(program, case.batch(3))).values()]
        assert drawn or program is case.guide
        assert all(bool(value.isfinite().all()) for value in drawn)


def test_functions_bound_methods_and_plain_modules_are_programs():
    class Plain(nn.Module):
        def forward(self, x: Tensor | None = None) -> Tensor:
            with dgm.data_plate(x):
                return pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    x = torch.tensor([-1.0, 0.0, 2.0])
    right = -dist.Normal(0.0, 1.0).log_prob(x)
    for program in (Plain(), Plain().forward, lambda x=None: Plain()(x)):
        require_program("owner", program, "…", "…")
        torch.testing.assert_close(
            dgm.nll(program, dgm.EmptyGuide(), x).per_datum, right.double(), rtol=1e-6, atol=0
        )


def test_a_vae_that_is_called_says_which_of_its_programs_to_call():
    with pytest.raises(
        TypeError, match=r"VAE: expected one of .*Fix: vae\.model\(x\), vae\.guide\(x\)"
    ):
        vae()(torch.zeros(3, 9))


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dim": 0}, r"Owner: expected dim >= 1, got 0\. Fix: dim=8"),
        ({"dim": 3, "num": -1}, r"Owner: expected num >= 1, got -1\."),
        ({"shape": (3, 0)}, r"Owner: expected shape >= 1, got \(3, 0\)\."),
    ],
)
def test_a_size_below_one_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        require_sizes("Owner", **sizes)


def test_sizes_and_shapes_from_one_up_are_taken():
    require_sizes("Owner", dim=1, shape=(1, 28, 28))
    require_sizes("UnitUniform", shape=(1,))
    assert dgm.UnitUniform((1, 28, 28))(torch.zeros(2, 1, 28, 28)).event_shape == (1, 28, 28)
    assert dgm.StandardNormal(1)().event_shape == (1,)
