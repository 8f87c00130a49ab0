"""The adapter for zuko: the flags of the process, the cost of a draw, and a zuko flow as prior, encoder and density."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import plane, randomize
from conftest import both_dtypes, in_float64
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from torch import nn
from torch.distributions import AffineTransform, Distribution
from torch.distributions.transforms import _InverseTransform
from toys import captured, loss_and_grad

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.programs.flows.zuko import OVERWRITTEN, Zuko, ZukoDistribution, import_zuko

try:
    zuko = import_zuko()
except ImportError:
    zuko = None
needs_zuko = pytest.mark.skipif(zuko is None, reason="needs zuko: pip install zuko")

SMALL = {"transforms": 2, "hidden_features": (8,)}
FLOWS = {
    "maf": lambda *sizes: zuko.flows.MAF(*sizes, **SMALL),
    "nsf": lambda *sizes: zuko.flows.NSF(*sizes, **SMALL),
    "nice": lambda *sizes: zuko.flows.NICE(*sizes, **SMALL),
    "coupling_by_passes": lambda *sizes: zuko.flows.NSF(*sizes, passes=2, **SMALL),
    "maf_reversed": lambda *sizes: backwards(zuko.flows.MAF(*sizes, **SMALL)),
}
flows = pytest.mark.parametrize("build", list(FLOWS.values()), ids=list(FLOWS))


def backwards(flow):
    """The same flow the other way round, which draws in one call per layer."""
    return zuko.lazy.Flow(flow.transform.inv, flow.base)


def calls_of(module: nn.Module) -> list[nn.Module]:
    """A list that grows by one with every network call of a zuko flow."""
    calls: list[nn.Module] = []
    for part in module.modules():
        if isinstance(part, zuko.nn.MLP | zuko.nn.MaskedMLP):
            part.register_forward_hook(lambda part, *_: calls.append(part))
    return calls


def gaussian(mean: torch.Tensor, scale: torch.Tensor) -> Zuko:
    r"""A zuko flow that is $N(m, s^2)$ exactly."""
    affine = zuko.lazy.UnconditionalTransform(AffineTransform, mean, scale)
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros_like(mean), torch.ones_like(mean), buffer=True
    )
    return Zuko(zuko.lazy.Flow(affine.inv, base))


class Shift(zuko.lazy.LazyTransform if zuko else nn.Module):
    r"""$x \mapsto x - k c$."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, c=None):
        return zuko.transforms.DependentTransform(
            zuko.transforms.AdditiveTransform(-self.slope * c), 1
        )


# Flags of the process ------------------------------------------------------------------------------------------------


@pytest.fixture
def unimported(monkeypatch):
    """A process that has not imported zuko yet; whatever an import overwrites is mended after the test."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    before = [getattr(owner, name) for owner, name in OVERWRITTEN]
    yield
    for (owner, name), value in zip(OVERWRITTEN, before, strict=True):
        setattr(owner, name, value)
    for name in [n for n in sys.modules if n.partition(".")[0] == "zuko"]:
        del sys.modules[name]


def flags():
    return Distribution._validate_args, Distribution.arg_constraints, _InverseTransform.__name__


@needs_zuko
@pytest.mark.parametrize("validate", [True, False])
def test_the_import_leaves_the_flags_of_the_process_as_they_are(unimported, validate):
    with pyro.validation_enabled(validate):
        before = flags()
        module = import_zuko()
        assert flags() == before
        assert before[0] is validate
        assert isinstance(before[1], property)
        assert before[2] == "_InverseTransform"
        assert (
            module.flows.MAF(2)().log_prob(torch.zeros(2)).shape == ()
        )  # and zuko's laws warn of nothing


@needs_zuko
def test_a_plain_import_is_reported_with_its_fix_and_nothing_is_changed_behind_the_user(unimported):
    importlib.import_module("zuko")
    left = flags()
    assert left[0] is False
    with pytest.warns(
        UserWarning, match=r"Fix: zuko = pyro_dgm.import_zuko\(\) in its place, or pyro.enable_vali"
    ):
        module = import_zuko()
    assert flags() == left
    pyro.enable_validation(True)
    assert import_zuko() is module  # both of the user's fixes end the warning
    with pyro.validation_enabled(False):
        assert import_zuko() is module


def test_a_missing_zuko_is_reported_with_its_fix(unimported, monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    before = flags()
    for call in (import_zuko, lambda: Zuko(nn.Identity())):
        with pytest.raises(
            ImportError,
            match=r"expected the package zuko, got none. Fix: pip install zuko\.",
        ):
            call()
    assert flags() == before


def test_a_package_that_zuko_misses_is_not_taken_for_zuko(unimported, monkeypatch, tmp_path):
    (tmp_path / "zuko.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        import_zuko()


def test_importing_the_package_does_not_import_zuko():
    code = "import sys, pyro_dgm; sys.exit('zuko' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The law -------------------------------------------------------------------------------------------------------------


@both_dtypes
@needs_zuko
@flows
@pytest.mark.parametrize("batch", [(), (4,), (3, 4)], ids=str)
def test_batch_shape_is_that_of_the_context_and_values_have_leading_dims(build, batch, dtype):
    law = randomize(Zuko(build(2, 3)))(torch.randn(*batch, 3))
    value = law.sample((5,))
    assert (law.batch_shape, law.event_shape, value.shape) == (batch, (2,), (5, *batch, 2))
    assert law.support.event_dim == 1
    assert bool(law.support.check(value).all())
    assert law.log_prob(value.clone()).shape == (5, *batch)
    assert value.dtype == law.log_prob(value).dtype == dtype


@in_float64
@needs_zuko
@flows
def test_foreign_points_have_the_density_that_zuko_gives_them_and_it_integrates_to_one(build):
    module = randomize(Zuko(build(2)), scale=0.1)
    grid, weights = plane(module(), num=281)
    with torch.no_grad():
        log_p = module().log_prob(grid)
        assert torch.equal(log_p, module.flow().log_prob(grid))
    torch.testing.assert_close(log_p.exp() @ weights, torch.tensor(1.0), rtol=2e-3, atol=0)


@in_float64
@needs_zuko
@flows
@pytest.mark.parametrize("batch", [(4,), (5, 4)], ids=str)
def test_an_own_draw_has_the_density_of_a_foreign_point_in_value_and_gradient(build, batch):
    module, context = randomize(Zuko(build(3, 2))), torch.randn(4, 2)
    law = module(context).expand(batch)
    value = law.rsample()
    own, fresh = law.log_prob(value), module(context).log_prob(value.clone())
    torch.testing.assert_close(own, fresh, rtol=1e-7, atol=1e-7)
    parameters = list(module.parameters())
    gradients = (
        torch.autograd.grad(log_p.sum(), parameters, retain_graph=True) for log_p in (own, fresh)
    )
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@needs_zuko
@pytest.mark.parametrize(
    ("build", "num"),
    [("maf", 2 * (5 + 1)), ("maf_reversed", 2), ("coupling_by_passes", 2 * 3)],
    ids=str,
)
def test_a_draw_costs_its_calls_and_scoring_it_costs_none(build, num):
    module = Zuko(FLOWS[build](5, 2))
    calls, law = calls_of(module), module(torch.randn(4, 2))
    value = law.rsample()
    assert len(calls) == num
    law.log_prob(value)
    assert len(calls) == num
    law.log_prob(value.clone())
    assert len(calls) > num


@needs_zuko
def test_an_elbo_step_calls_each_network_once():
    """A MAF prior scores and a reversed MAF samples: one call per layer, whatever the number of particles."""
    prior, encoder = Zuko(FLOWS["maf"](3)), Zuko(FLOWS["maf_reversed"](3, 4))
    vae = dgm.VAE(prior, dgm.Normal(dgm.mlp(3, 4)), encoder)
    objective, x = dgm.ELBO(vae.model, vae.guide, num_particles=3), torch.randn(6, 4)
    objective(x)  # the first call also runs the preflight
    of_prior, of_encoder = calls_of(prior), calls_of(encoder)
    objective(x).backward()
    assert (len(of_prior), len(of_encoder)) == (2, 2)


@needs_zuko
def test_a_draw_without_gradients_is_scored_with_them_and_a_changed_draw_is_scored_again():
    module = randomize(Zuko(FLOWS["maf"](2)))
    law, parameters = module(), list(module.parameters())
    value = law.sample((3,))
    gradients = (
        torch.autograd.grad(m.log_prob(v).sum(), parameters)
        for m, v in ((law, value), (module(), value + 0))
    )
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        value = law.sample((3,))
        value += 1
        assert torch.equal(law.log_prob(value), module().log_prob(value))
    leaf = law.sample((3,)).requires_grad_()
    assert torch.autograd.grad(law.log_prob(leaf).sum(), leaf)[0].abs().min() > 0


@needs_zuko
def test_draws_are_reparameterized_only_where_those_of_the_base_are():
    flow = FLOWS["maf"](2)
    mixture = Zuko(zuko.lazy.Flow(flow.transform, zuko.mixtures.GMM(2)))
    law = mixture()
    assert (Zuko(flow)().has_rsample, law.has_rsample) == (True, False)
    assert not law(torch.Size((3,))).requires_grad
    with pytest.raises(NotImplementedError, match=r"no reparameterized draws. Fix: sample\(\)"):
        law.rsample()


@needs_zuko
def test_validation_refuses_values_outside_the_support_and_of_another_shape():
    law = Zuko(FLOWS["maf"](2))()
    with pytest.raises(ValueError, match="within the support"):
        law.log_prob(torch.tensor([0.0, torch.nan]))
    with pytest.raises(ValueError, match="must match event_shape"):
        law.log_prob(torch.zeros(3))
    assert ZukoDistribution(law.flow, validate_args=False).expand((3,))._validate_args is False


@needs_zuko
def test_the_support_has_the_event_dims_of_the_law_even_if_zuko_transforms_single_numbers():
    law = gaussian(torch.zeros(2), torch.ones(2))()
    assert law.flow.transform.domain.event_dim == 0
    assert (law.event_dim, law.support.event_dim) == (1, 1)


# The module ----------------------------------------------------------------------------------------------------------


@needs_zuko
def test_several_contexts_need_an_embedding_that_joins_them():
    x, y = torch.randn(7, 3), torch.randn(7, 2)
    with pytest.raises(ValueError, match=r"expected one context, got 2. Fix: embed=Concat\(mlp"):
        Zuko(FLOWS["maf"](2, 5))(x, y)
    embed = dgm.Concat(dgm.mlp(5, 4))
    module = Zuko(flow := FLOWS["maf"](2, 4), embed=embed)
    z = torch.randn(7, 2)
    assert torch.equal(module(x, y).log_prob(z), flow(embed(x, y)).log_prob(z))
    assert len(list(module.parameters())) == len([*flow.parameters(), *embed.parameters()])


@needs_zuko
@pytest.mark.parametrize("dtype_of_context", [torch.int64, torch.float32, torch.float64], ids=str)
def test_a_context_takes_the_dtype_of_the_flow(dtype_of_context):
    for module in (Zuko(FLOWS["maf"](2, 3)).float(), Zuko(FLOWS["maf"](2, 3)).double()):
        z = torch.zeros(4, 2).to(next(module.parameters()))
        levels = torch.randint(5, (4, 3), dtype=dtype_of_context)
        assert torch.equal(module(levels).log_prob(z), module(levels.to(z)).log_prob(z))


@needs_zuko
def test_what_is_no_zuko_flow_is_refused():
    flow = FLOWS["maf"](2)
    for other in (flow(), zuko.mixtures.GMM(2), dgm.StandardNormal(2)):
        with pytest.raises(
            TypeError,
            match=rf"expected a zuko flow, got {type(other).__name__}. Fix: Zuko\(zuko.flo",
        ):
            Zuko(other)


@needs_zuko
def test_a_flow_with_a_base_on_a_box_is_refused():
    with pytest.raises(
        ValueError,
        match=r"expected a base on the whole space, got BoxUniform.*Fix: .*NSF in place of",
    ):
        Zuko(zuko.flows.NCSF(2))()


@needs_zuko
@flows
def test_copies_and_saved_weights_after_use_score_alike(build):
    module, context, x = randomize(Zuko(build(2, 3))), torch.randn(4, 3), torch.randn(4, 2)
    law = module(context)
    law.log_prob(law.rsample()).sum().backward()
    twin, other = copy.deepcopy(module), randomize(Zuko(build(2, 3)))
    other.load_state_dict(module.state_dict())
    for same in (twin, other):
        assert torch.equal(same(context).log_prob(x), module(context).log_prob(x))
    randomize(twin)
    assert not torch.equal(twin(context).log_prob(x), module(context).log_prob(x))


# In programs ---------------------------------------------------------------------------------------------------------


def pair() -> dgm.VAE:
    prior, encoder = Zuko(FLOWS["nsf"](2)), Zuko(FLOWS["maf_reversed"](2, 4))
    return dgm.VAE(prior, dgm.Normal(dgm.mlp(2, 8, 4)), encoder)


@in_float64
@needs_zuko
def test_the_exact_posterior_as_a_zuko_flow_has_the_evidence_as_its_constant_weight():
    r"""$z \sim N(0, 4)$, $x \mid z \sim N(z, 1)$, so $z \mid x \sim N(0.8 x, 0.8)$ and $x \sim N(0, 5)$."""
    likelihood = dgm.Conditional(dist.Normal, Unit())
    centred = gaussian(torch.zeros(1), torch.full((1,), 0.8**0.5)).flow
    posterior = zuko.lazy.Flow([Shift(0.8), centred.transform], centred.base)
    vae = dgm.VAE(gaussian(torch.zeros(1), torch.full((1,), 2.0)), likelihood, Zuko(posterior))
    x = torch.randn(6, 1)
    log_weight = dgm.draw(vae.model, vae.guide, x, num=5).log_weight
    evidence = dist.Normal(0.0, 5**0.5).log_prob(x[:, 0])
    torch.testing.assert_close(log_weight.double(), evidence.expand(5, 6).double())


class Unit(nn.Module):
    r"""Raw parameters of $N(z, 1)$."""

    def forward(self, z):
        return torch.cat([z, torch.full_like(z, 1 - 1e-6).expm1().log()], dim=-1)


@needs_zuko
def test_the_elbo_equals_that_of_pyro_under_one_seed_in_value_and_gradient():
    vae, x = pair(), torch.randn(5, 4)
    randomize(vae)
    objective = dgm.ELBO(vae.model, vae.guide)
    loss, gradients = loss_and_grad(objective, x, seed=3)
    with fork_rng(seed=3):
        theirs = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x) / 5
    torch.testing.assert_close(loss, theirs.detach())
    expected = torch.autograd.grad(
        theirs, [dict(objective.named_parameters())[n] for n in gradients]
    )
    torch.testing.assert_close(list(gradients.values()), list(expected))


@needs_zuko
@pytest.mark.parametrize("build", ["maf", "nsf"])
def test_a_pair_is_captured_as_one_graph_that_equals_the_program(build):
    prior, encoder = Zuko(FLOWS[build](2)), Zuko(backwards(FLOWS[build](2, 4)))
    vae = dgm.VAE(prior, dgm.Normal(dgm.mlp(2, 8, 4)), encoder)
    objective, x, other = (
        dgm.ELBO(vae.model, vae.guide, num_particles=2),
        torch.randn(5, 4),
        torch.randn(5, 4),
    )
    graph, trained, fixed = captured(objective, x)
    with fork_rng(seed=5):
        terms, gradients = graph(trained, fixed, (other,))
    loss, expected = loss_and_grad(objective, other, seed=5)
    torch.testing.assert_close(terms["loss"], loss)
    torch.testing.assert_close(
        {n.removeprefix("costs."): g for n, g in gradients.items()}, expected
    )


@needs_zuko
def test_svi_moves_every_tensor_of_the_first_and_second_instance_and_leaves_the_store_empty():
    for _ in range(2):
        vae, x = pair(), torch.randn(16, 4)
        before = [p.detach().clone() for p in vae.parameters()]
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(2):
            svi.step(x)
        assert not [
            n for (n, p), b in zip(vae.named_parameters(), before, strict=True) if torch.equal(p, b)
        ]
        assert not list(pyro.get_param_store().keys())


@needs_zuko
def test_the_trainer_fits_a_density_to_its_entropy():
    r"""$x \sim N(1, 0.5^2)$: the loss ends at the entropy, $\frac12 \log(2 \pi e\, 0.25)$ nats, of the sample."""
    x = 1 + 0.5 * torch.randn(500, 1)
    model = dgm.DensityModel(gaussian(torch.zeros(1), torch.ones(1)))
    trainer = dgm.SVITrainer(dgm.ELBO(model, dgm.EmptyGuide()), lr=0.03)
    for _ in range(300):
        loss = trainer.step(x)["loss"]
    entropy = dist.Normal(0.0, x.std(correction=0)).entropy()
    torch.testing.assert_close(loss, entropy, rtol=0, atol=1e-4)
    nll = dgm.nll(model, dgm.EmptyGuide(), x[:7], num=2).per_datum
    torch.testing.assert_close(nll.to(x), -model.density().log_prob(x[:7]).detach())


@needs_zuko
def test_predictive_draws_through_plates_and_from_a_guide():
    vae, x = pair(), torch.randn(6, 4)
    drawn = Predictive(vae.model, guide=vae.guide, num_samples=5, parallel=True)(x)
    assert drawn["z"].shape[-2:] == (6, 2)
    prior = Zuko(FLOWS["nsf"](2))

    def program():
        with pyro.plate("rows", 3, dim=-2), pyro.plate("data", 4, dim=-1):
            return pyro.sample("z", prior())

    for parallel in (True, False):
        assert Predictive(program, num_samples=5, parallel=parallel)()["z"].shape == (5, 3, 4, 2)


@needs_zuko
def test_nuts_finds_the_posterior_of_a_zuko_prior():
    r"""$z \sim N(1, 2^2)$, $x \mid z \sim N(z, 1)$: $z \mid x \sim N((1 + 4 x) / 5, 4 / 5)$, here at x = 3."""
    prior, x = (
        gaussian(torch.ones(1), torch.full((1,), 2.0)).requires_grad_(False),
        torch.tensor([3.0]),
    )

    def model():
        z = pyro.sample("z", prior())
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    mcmc = MCMC(NUTS(model), num_samples=200, warmup_steps=50, disable_progbar=True)
    mcmc.run()
    z, num = mcmc.get_samples()["z"], mcmc.diagnostics()["z"]["n_eff"]
    standard_error = (0.8 / num).sqrt()
    assert ((z.mean(0) - 2.6).abs() < 5 * standard_error).all()
