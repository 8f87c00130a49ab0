"""What a user hands over by mistake is refused where it is handed over, with the fix; and what a flow prints."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import SigmoidTransform

import pyro_dgm as dgm
from pyro_dgm import flows

MASK = flows.checkerboard_mask((1, 4, 4))
NORMAL = dist.Normal(torch.zeros(2), 1.0).to_event(1)
BASE = dgm.StandardNormal(2)

# Transformers, bijectors and bases -----------------------------------------------------------------------------------

TRANSFORMED = {
    "Coupling": lambda transformer: flows.Coupling(4, transformer=transformer),
    "Autoregressive": lambda transformer: flows.Autoregressive(4, transformer=transformer),
    "ImageCoupling": lambda transformer: flows.ImageCoupling(MASK, transformer=transformer),
}


@pytest.mark.parametrize("name", list(TRANSFORMED))
def test_a_class_in_place_of_a_transformer_is_refused(name):
    with pytest.raises(
        TypeError,
        match=rf"{name} \(transformer\): .*got the class Affine\. Fix: transformer=Affine\(\)",
    ):
        TRANSFORMED[name](flows.Affine)


@pytest.mark.parametrize("name", list(TRANSFORMED))
@pytest.mark.parametrize("other", [nn.Linear(2, 2), flows.Permutation(2), "affine"], ids=repr)
def test_anything_but_a_transformer_is_refused(name, other):
    with pytest.raises(
        TypeError,
        match=rf"expected an elementwise transformer, got a {type(other).__name__}\. Fix: tran",
    ):
        TRANSFORMED[name](other)


BASES = {
    "distribution": (
        NORMAL,
        r"the distribution Independent itself\. Fix: Flow\(StandardNormal\(2\)",
    ),
    "batch of numbers": (
        dist.Normal(torch.zeros(3), 1.0),
        r"the distribution Normal itself\. Fix: Flow\(StandardNormal\(3\)",
    ),
    "class": (dgm.StandardNormal, r"the class StandardNormal\. Fix: an instance, Flow\(Standard"),
    "class of distributions": (dist.Normal, r"the class Normal\. Fix: Flow\(StandardNormal\(8\)"),
    "bijector": (flows.Permutation(2), r"the bijector Permutation\. Fix: Flow\(base, bijectors\)"),
    "nothing": (None, r"a NoneType\. Fix: Flow\(StandardNormal\(8\), …\)"),
}


@pytest.mark.parametrize(("base", "match"), BASES.values(), ids=list(BASES))
def test_a_flow_refuses_what_is_no_conditional(base, match):
    with pytest.raises(TypeError, match=r"Flow \(base\): expected a conditional .*got " + match):
        dgm.Flow(base, dgm.maf(2, 1))


BIJECTORS = {
    "transformer": (flows.Affine(), r"transformer Affine\. Fix: Coupling\(dim, transformer=Aff"),
    "list of one": ([flows.Spline()], r"transformer Spline\. Fix: Coupling\(dim, transformer=Spl"),
    "class": (flows.Permutation, r"the class Permutation\. Fix: an instance, Permutation\(…\)"),
    "class of transformers": ([flows.Affine], r"the class Affine\. Fix: Coupling\(dim, transfor"),
    "transform of torch": ([SigmoidTransform()], r"of torch\. Fix: Pointwise\(SigmoidTransform"),
    "module": (nn.Linear(2, 2), r"a Linear\. Fix: maf\(8, layers=2\), or a subclass of Bijector"),
    "nothing": (None, r"a NoneType\. Fix: maf"),
}


@pytest.mark.parametrize(("bijectors", "match"), BIJECTORS.values(), ids=list(BIJECTORS))
def test_a_flow_and_a_stack_refuse_what_is_no_bijector(bijectors, match):
    with pytest.raises(TypeError, match=r"Flow: expected bijectors, got .*" + match):
        dgm.Flow(BASE, bijectors)
    with pytest.raises(TypeError, match=r"Stack: expected bijectors, got .*" + match):
        flows.Stack(bijectors)


def test_a_flow_of_no_bijector_is_refused():
    with pytest.raises(ValueError, match="Flow: expected at least one bijector, got none. Fix: us"):
        dgm.Flow(BASE, [])


WRAPPERS = {
    "Inverse": lambda part: dgm.Inverse(part),
    "PerPixel": lambda part: flows.PerPixel(part),
    "FactorOut": lambda part: flows.FactorOut((2, 4, 4), part),
}


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_a_wrapper_refuses_what_is_no_bijector(name):
    with pytest.raises(TypeError, match=rf"{name}: expected bijectors, got the elem.* Fix: Coup"):
        WRAPPERS[name](flows.Spline())


@pytest.mark.parametrize("other", [SigmoidTransform, nn.Linear(2, 2)], ids=["class", "module"])
def test_pointwise_refuses_what_is_no_transform(other):
    with pytest.raises(
        TypeError, match=r"Pointwise: expected a Transform .*Fix: Pointwise\(torch\.distributions"
    ):
        dgm.Pointwise(other)


# Sizes ---------------------------------------------------------------------------------------------------------------

VECTOR_STACKS = {
    "coupling": flows.coupling,
    "realnvp": dgm.realnvp,
    "spline_coupling": dgm.spline_coupling,
    "iaf": dgm.iaf,
    "maf": dgm.maf,
    "planar": flows.planar,
    "sylvester": flows.sylvester,
}


@pytest.mark.parametrize("name", list(VECTOR_STACKS))
@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_stack_of_no_coordinates_or_no_layers_is_refused(name, size):
    for argument, sizes in (("dim", (size, 1)), ("layers", (4, size))):
        with pytest.raises(
            ValueError,
            match=rf"{name} \({argument}\): expected an integer >= 1, got {size}\. Fix: {name}\(",
        ):
            VECTOR_STACKS[name](*sizes)


@pytest.mark.parametrize("layers", [0, -2])
def test_an_image_stack_of_no_layers_is_refused(layers):
    for make in (dgm.image_realnvp, dgm.multiscale_realnvp):
        with pytest.raises(ValueError, match=rf"{make.__name__} \(layers\): .*got {layers}\. Fix"):
            make((1, 4, 4), layers=layers)


def test_an_image_stack_of_anything_but_an_image_is_refused():
    for make in (dgm.image_realnvp, dgm.multiscale_realnvp):
        for shape in ((4, 4), 16, (1, 0, 4)):
            with pytest.raises(
                ValueError, match=rf"{make.__name__} \(shape\): expected the shape \(C, H, W\).*Fix"
            ):
                make(shape)


SIZED_LAYERS = {
    "Coupling": flows.Coupling,
    "Autoregressive": flows.Autoregressive,
    "MADE": flows.MADE,
    "LULinear": flows.LULinear,
    "ActNorm": flows.ActNorm,
    "Planar": flows.Planar,
    "Orthogonal": flows.Orthogonal,
    "Sylvester": flows.Sylvester,
}


@pytest.mark.parametrize("name", list(SIZED_LAYERS))
def test_a_layer_of_no_coordinates_or_a_negative_context_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} \(dim\): .*>= 1, got 0\. Fix: {name}\(…, dim=2"):
        SIZED_LAYERS[name](0)
    with pytest.raises(ValueError, match=rf"{name} \(context\): .*>= 0, got -1\. Fix: {name}\("):
        SIZED_LAYERS[name](4, context=-1)


@pytest.mark.parametrize("name", list(SIZED_LAYERS))
def test_one_hidden_size_that_is_no_sequence_is_refused(name):
    with pytest.raises(
        TypeError, match=rf"{name} \(hidden\): .*got the number 64\. Fix: hidden=\("
    ):
        SIZED_LAYERS[name](4, context=2, hidden=64)


def test_a_permutation_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"Permutation \(dim\): expected an integer >= 1, got 0"):
        flows.Permutation(0)


@pytest.mark.parametrize("name", ["LULinear", "ActNorm", "Planar", "Orthogonal", "Sylvester"])
def test_a_context_of_another_size_is_refused_by_the_name_of_the_layer(name):
    layer = SIZED_LAYERS[name](4, context=3)
    with pytest.raises(ValueError, match=rf"{name}: expected a context of size 3, got 2\. Fix: Fl"):
        layer(torch.zeros(5, 4), torch.zeros(5, 2))


# Data for ActNorm ----------------------------------------------------------------------------------------------------

BAD_DATA = {
    "one datum": (torch.ones(1, 2), r"expected at least 2 data .*got 1\. Fix: layer\.initialize"),
    "no batch": (torch.ones(2), r"expected data of shape \(N, 2\), got \(2,\)\. Fix: layer"),
    "another size": (torch.ones(9, 1), r"expected data of shape \(N, 2\), got \(9, 1\)\. Fix"),
    "not a number": (
        torch.tensor([[0.0, 1.0], [1.0, torch.nan]]),
        r"expected finite data, got NaN or inf in 1 of 2\. Fix",
    ),
}


@pytest.mark.parametrize(("data", "match"), BAD_DATA.values(), ids=list(BAD_DATA))
def test_act_norm_refuses_data_without_a_spread_and_stays_as_it_was(data, match):
    layer = flows.ActNorm(2)
    with pytest.raises(ValueError, match="ActNorm: " + match):
        layer.initialize(data)
    x = torch.randn(3, 2)
    assert torch.equal(layer(x)[0], x)


def test_act_norm_measures_integer_levels():
    layer = flows.ActNorm(1)
    layer.initialize(torch.tensor([[0], [2], [4]]))
    assert layer(torch.tensor([2.0]))[0].tolist() == [0.0]


# What is printed -----------------------------------------------------------------------------------------------------

SETTINGS = {
    "permutation": (lambda: flows.Permutation(3), "Permutation(3)"),
    "ordered": (lambda: flows.Permutation(3, (1, 2, 0)), "Permutation(3, order=[1, 2, 0])"),
    "levels": (lambda: dgm.Levels(17), "Levels(17)"),
    "unit": (lambda: dgm.Levels(1, event_dim=3), "Levels(1, event_dim=3)"),
    "alpha": (lambda: dgm.Levels(256, alpha=0.01), "Levels(256, alpha=0.01)"),
    "squeeze": (lambda: flows.Squeeze((1, 2, 2)), "Squeeze((1, 2, 2))"),
    "unflatten": (lambda: flows.Unflatten((1, 2, 2)), "Unflatten((1, 2, 2))"),
    "pointwise": (lambda: dgm.Pointwise(SigmoidTransform()), "Pointwise(SigmoidTransform())"),
    "affine": (lambda: flows.Affine(), "Affine()"),
    "spline": (lambda: flows.Spline(4, 2.0), "Spline(4, bound=2.0)"),
    "mixture": (lambda: flows.LogisticMixture(5), "LogisticMixture(5)"),
}


@pytest.mark.parametrize(("build", "expected"), SETTINGS.values(), ids=list(SETTINGS))
def test_a_layer_prints_the_settings_that_it_was_made_with(build, expected):
    assert repr(build()) == expected


FIRST_LINES = {
    "coupling": (
        lambda: flows.Coupling(4, 2, transformer=flows.Spline(), flip=True),
        "4, context=2, transformer=Spline(8, bound=4.0), flip=True",
    ),
    "autoregressive": (
        lambda: flows.Autoregressive(4, reverse=True),
        "4, context=0, transformer=Affine(), reverse=True",
    ),
    "made": (lambda: flows.MADE(4), "4, context=0, num_params=2, reverse=False"),
    "image_coupling": (
        lambda: flows.ImageCoupling(MASK, hidden=4, blocks=1),
        "(1, 4, 4), context=0, transformer=Affine()",
    ),
    "act_norm": (lambda: flows.ActNorm(3), "3"),
    "act_norm_of_context": (lambda: flows.ActNorm(3, context=2), "3, context=2"),
    "lu_linear": (lambda: flows.LULinear(3), "3"),
    "orthogonal": (lambda: flows.Orthogonal(3), "3, num_pairs=2"),
    "planar": (lambda: flows.Planar(3, context=1), "3, context=1"),
    "sylvester": (lambda: flows.Sylvester(3, num_units=2), "3, num_units=2"),
    "factor_out": (
        lambda: flows.FactorOut((2, 4, 4), flows.Unflatten((1, 4, 4))),
        "(2, 4, 4)",
    ),
}


@pytest.mark.parametrize(("build", "expected"), FIRST_LINES.values(), ids=list(FIRST_LINES))
def test_a_layer_with_parts_prints_its_settings_first(build, expected):
    layer = build()
    lines = repr(layer).splitlines()
    assert lines[0] == f"{type(layer).__name__}({expected},"
