"""Programs, models, guides: ordinary Pyro programs for every tool of Pyro, and no trace in its global store."""

from __future__ import annotations

import importlib.util

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.inspect import get_dependencies, get_model_relations
from torch import Tensor, nn

import pyro_dgm as dgm

PROGRAMS = {n: b for n, b in PAIRS.items() if isinstance(b().model, dgm.Program)}
LATENT = {n: b for n, b in PROGRAMS.items() if not isinstance(b().guide, dgm.EmptyGuide)}


def sites(program, *batch) -> dict:
    trace = poutine.trace(program).get_trace(*batch)
    trace.compute_log_prob()
    return {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"}


# pyro.infer.SVI ------------------------------------------------------------------------------------------------------


# A guide draws the noise before z, a model after it; neither depends on the other there, so that closed forms hold.
@pytest.mark.filterwarnings("ignore:Failed to verify mean field restriction")
@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize(**over(PROGRAMS))
def test_svi_moves_every_tensor_of_the_first_and_the_second_instance_and_leaves_the_store_empty(
    build, loss
):
    for instance in ("first", "second"):
        case = build()
        pair = nn.ModuleDict({"model": case.model, "guide": case.guide})
        start = {n: p.detach().clone() for n, p in pair.named_parameters()}
        svi = SVI(case.model, case.guide, pyro.optim.Adam({"lr": 1e-2}), loss())
        batch = case.batch(16)
        for _ in range(4):
            assert torch.isfinite(torch.tensor(svi.step(*batch)))
        stuck = [n for n, p in pair.named_parameters() if torch.equal(p, start[n])]
        assert not stuck, f"SVI does not train {stuck} of the {instance} instance"
        assert not list(pyro.get_param_store().keys())


def test_svi_moves_a_pair_with_several_vectorized_particles():
    case = PAIRS["vae_flow"]()
    start = [p.detach().clone() for p in case.model.parameters()]
    loss = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(case.model, case.guide, pyro.optim.ClippedAdam({"lr": 1e-2}), loss)
    for _ in range(3):
        svi.step(*case.batch(8))
    assert not any(torch.equal(p, s) for p, s in zip(case.model.parameters(), start, strict=True))


def test_svi_trains_a_module_that_model_and_guide_share_and_a_program_inside_a_program():
    shared = nn.Linear(2, 2)

    class Inner(dgm.Program):
        def __init__(self):
            super().__init__()
            self.net = shared

        def forward(self, z: Tensor) -> Tensor:
            return self.net(z)

    class Model(dgm.Program):
        def __init__(self):
            super().__init__()
            self.inner, self.log_scale = Inner(), nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor | None = None) -> Tensor:
            with dgm.data_plate(x):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                return pyro.sample(
                    "x", dist.Normal(self.inner(z), self.log_scale.exp()).to_event(1), obs=x
                )

    model, guide = (
        Model(),
        dgm.AmortizedGuide(dgm.Conditional(dist.Normal, nn.Sequential(shared, nn.Linear(2, 4)))),
    )
    start = {
        n: p.detach().clone() for n, p in (*model.named_parameters(), *guide.named_parameters())
    }
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step(torch.randn(8, 2))
    moved = dict([*model.named_parameters(), *guide.named_parameters()])
    assert not [n for n in start if torch.equal(moved[n], start[n])]
    first_step = (moved["inner.net.weight"] - start["inner.net.weight"]).abs().max()
    assert float(first_step.detach()) < 1.001e-2, "Adam moved the shared tensor twice in one step"


def test_svi_trains_equally_named_tensors_of_model_and_guide():
    class Both(dgm.Program):
        def __init__(self, num_in: int, num_out: int):
            super().__init__()
            self.net = nn.Linear(num_in, num_out)

    class Model(Both):
        def forward(self, x: Tensor | None = None) -> Tensor:
            with dgm.data_plate(x):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)

    class Guide(Both):
        def forward(self, x: Tensor) -> Tensor:
            with dgm.data_plate(x):
                return pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))

    model, guide = Model(2, 3), Guide(3, 2)
    start = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(torch.randn(8, 3))
    assert not any(
        torch.equal(p, s)
        for p, s in zip((*model.parameters(), *guide.parameters()), start, strict=True)
    )


def test_svi_leaves_a_frozen_parameter_alone():
    case = PAIRS["vae_normal"]()
    case.model.likelihood.requires_grad_(False)
    frozen = [p.clone() for p in case.model.likelihood.parameters()]
    svi = SVI(case.model, case.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step(*case.batch(8))
    assert all(
        torch.equal(p, f) for p, f in zip(case.model.likelihood.parameters(), frozen, strict=True)
    )


def test_an_autoguide_of_pyro_trains_a_declared_model():
    case, (x,) = PAIRS["vae_normal"](), torch.randn(5, 4)[None]
    start = [p.detach().clone() for p in case.model.parameters()]
    guide = pyro.infer.autoguide.AutoNormal(case.model)
    svi = SVI(case.model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(2):
        svi.step(x)
    assert not any(torch.equal(p, s) for p, s in zip(case.model.parameters(), start, strict=True))
    assert not [n for n in pyro.get_param_store().keys() if "AutoNormal" not in n]  # noqa: SIM118
    pyro.clear_param_store()


@pytest.mark.parametrize(**over(PROGRAMS))
def test_an_ordinary_trace_holds_no_param_sites(build):
    case = build()
    for program in (case.model, case.guide):
        trace = poutine.trace(program).get_trace(*case.batch(3))
        assert not [n for n, s in trace.nodes.items() if s["type"] == "param"]


@pytest.mark.parametrize(**over(PROGRAMS))
def test_an_elbo_module_sees_every_parameter_of_model_and_guide(build):
    """`Trace_ELBO()` over bound methods has none."""
    case = build()
    loss = Trace_ELBO()(case.model, case.guide)
    expected = {*case.model.parameters(), *case.guide.parameters()}  # some are shared
    assert set(loss.parameters()) == expected
    loss(*case.batch(4)).backward()
    assert all(p.grad is not None for p in case.model.parameters())


# Other tools of Pyro -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(**over(LATENT))
def test_predictive_draws_latents_from_the_guide_and_data_from_the_model(build, parallel):
    case = build()
    batch = case.batch(4)
    drawn = Predictive(case.model, guide=case.guide, num_samples=6, parallel=parallel)(*batch)
    for site in sites(case.guide, *batch):
        assert drawn[site].shape[0] == 6
        assert drawn[site].shape[-2] == 4
    prior = Predictive(case.model, num_samples=6, parallel=parallel, return_sites=("x",))(
        None, *batch[1:]
    )
    num = 4 if len(batch) > 1 else 1
    assert prior["x"].shape == (6, num, *batch[0].shape[1:])


def test_predictive_with_a_program_and_parallel_draws_agrees_with_serial_draws():
    """Means of 2,000 draws: standard error s / sqrt(n) each, 5 allowed."""
    case = PAIRS["vae_normal"]()
    (x,), num = case.batch(3), 2000
    draws = [
        Predictive(case.model, guide=case.guide, num_samples=num, parallel=p)(x)["z"].reshape(
            num, 3, 2
        )
        for p in (False, True)
    ]
    standard_error = (sum(d.var(0) for d in draws) / num).sqrt()
    assert bool(((draws[0].mean(0) - draws[1].mean(0)).abs() <= 5 * standard_error).all())


@pytest.mark.parametrize("name", ["vae_normal", "vae_realnvp", "vae_labels"])
def test_nuts_runs_on_the_model_itself(name):
    case = PAIRS[name]()
    mcmc = MCMC(NUTS(case.model), num_samples=8, warmup_steps=8, disable_progbar=True)
    mcmc.run(*case.batch(2))
    draws = mcmc.get_samples()["z"]
    assert draws.shape[:2] == (8, 2)
    assert bool(draws.isfinite().all())
    assert len(draws[:, 0, 0].unique()) > 1


@pytest.mark.parametrize(
    **over(
        {
            n: b
            for n, b in LATENT.items()
            if not isinstance(b().model, dgm.distributions.Dequantized)
        }
    )
)
def test_a_conditioned_program_scores_the_given_latent(build):
    case = build()
    batch = case.batch(4)
    z = sites(case.guide, *batch)["z"]["value"].detach()
    given = sites(poutine.condition(case.model, data={"z": z}), *batch)
    assert given["z"]["is_observed"]
    torch.testing.assert_close(given["z"]["log_prob"], case.model.prior(*batch[1:]).log_prob(z))
    expected = case.model.likelihood(z, *batch[1:]).log_prob(batch[0])
    torch.testing.assert_close(given["x"]["log_prob"], expected)


def test_an_intervention_on_the_latent_moves_the_data_alone():
    case = PAIRS["vae_normal"]()
    z = torch.full((4, 2), 3.0)
    trace = poutine.trace(poutine.do(case.model, data={"z": z})).get_trace(*case.batch(4))
    torch.testing.assert_close(trace.nodes["x"]["fn"].mean, case.model.likelihood(z).mean)


def test_pyro_reads_the_structure_of_a_declared_model():
    case = PAIRS["vae_flow"]()
    batch = case.batch(3)
    relations = get_model_relations(case.model, batch)
    assert relations["sample_sample"] == {"z": [], "x": ["z"]}
    assert relations["plate_sample"] == {"data": ["z", "x"]}
    assert relations["observed"] == ["x"]
    assert get_dependencies(case.model, batch)["posterior_dependencies"]["z"].keys() == {"z", "x"}


@pytest.mark.skipif(
    importlib.util.find_spec("graphviz") is None, reason="pyro.render_model needs graphviz"
)
def test_pyro_renders_a_declared_model():
    case = PAIRS["vae_normal"]()
    assert "data" in pyro.render_model(case.model, case.batch(3)).source


# The declared sites --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(**over(PROGRAMS))
def test_generation_follows_the_declared_program(build):
    """z ~ p(z), then x ~ p(x | z), or levels with their noise; nothing is observed."""
    case = build()
    context = case.batch(5)[1:]
    trace = poutine.trace(case.model).get_trace(None, *context)
    drawn = [n for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"]
    assert drawn == [n for n in ("z", "x_noise", "x") if n in drawn]
    assert drawn[-1] == "x"
    assert not trace.nodes["x"]["is_observed"]
    assert len(trace.nodes["x"]["value"]) == (5 if context else 1)
    assert trace.nodes["_RETURN"]["value"] is trace.nodes["x"]["value"]


@pytest.mark.parametrize(**over(PROGRAMS))
def test_every_site_lies_in_the_data_plate_and_has_one_log_density_per_datum(build):
    case = build()
    batch = case.batch(5)
    for program in (case.model, case.guide):
        for name, site in sites(program, *batch).items():
            assert [(f.name, f.dim, f.size) for f in site["cond_indep_stack"]] == [
                ("data", -1, 5)
            ], name
            assert site["log_prob"].shape == (5,), name


def test_the_names_of_the_sites_are_the_users():
    model = dgm.LatentVariableModel(
        dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 3)), latent="code", observed="pixels"
    )
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(3, 4)), latent="code")
    density = dgm.DensityModel(dgm.StandardNormal(3), observed="y")
    x = torch.randn(4, 3)
    assert list(sites(model, x)) == ["code", "pixels"]
    assert list(sites(guide, x)) == ["code"]
    assert list(sites(density, x)) == ["y"]


def test_a_vae_is_its_model_and_its_guide():
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.mlp(2, 3)),
        dgm.Conditional(dist.Normal, dgm.mlp(3, 4)),
        size=9,
    )
    assert vae.generator is vae.model
    assert vae.model.size == vae.guide.size == 9
    assert {n.split(".")[0] for n, _ in vae.named_parameters()} == {"generator", "guide"}
    assert len(list(vae.parameters())) == len([*vae.model.parameters(), *vae.guide.parameters()])


def test_the_empty_guide_samples_nothing():
    trace = poutine.trace(dgm.EmptyGuide()).get_trace(torch.zeros(3, 2))
    assert set(trace.nodes) == {"_INPUT", "_RETURN"}
    assert not list(dgm.EmptyGuide().parameters())


def test_a_guide_without_data_is_refused_with_the_fix():
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(3, 4)))
    with pytest.raises(
        ValueError, match=r"AmortizedGuide: expected data x, got None\. Fix: guide\(x\)"
    ):
        guide(None)


# The data plate ------------------------------------------------------------------------------------------------------


class Regression(dgm.Program):
    r"""$w \sim N(0, 1)$ for all data, $x_i \mid w \sim N(w, 1)$."""

    def __init__(self, size: int | None):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor | None = None) -> Tensor:
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with dgm.data_plate(x, size=self.size):
            return pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def test_with_the_size_of_the_data_the_mean_over_minibatches_is_the_full_batch():
    x, w = torch.randn(12), torch.tensor(0.7)

    def score(x, size):
        program = poutine.condition(Regression(size), data={"w": w})
        return poutine.trace(program).get_trace(x).log_prob_sum()

    full = score(x, 12)
    minibatches = torch.stack([score(part, 12) for part in x.split(3)])
    torch.testing.assert_close(minibatches.mean(), full)
    torch.testing.assert_close(
        full, dist.Normal(0.0, 1.0).log_prob(w) + dist.Normal(w, 1.0).log_prob(x).sum()
    )
    unscaled = torch.stack([score(part, None) for part in x.split(3)])
    assert not torch.allclose(unscaled.mean(), full)


@pytest.mark.parametrize("num", [1, 3, 12])
def test_the_data_plate_scales_by_the_number_of_data_and_keeps_its_order(num):
    with poutine.trace() as tracer, dgm.data_plate(x := torch.randn(num, 2), size=12) as index:
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1), obs=x)
    assert index.tolist() == list(range(num))
    assert tracer.trace.nodes["x"]["scale"] == 12 / num


def test_the_data_plate_draws_no_random_number():
    state = torch.get_rng_state()
    for size in (None, 50):
        with dgm.data_plate(torch.zeros(5, 2), size=size):
            pass
    assert torch.equal(torch.get_rng_state(), state)


def test_the_data_plate_counts_the_first_tensor_and_passes_over_none():
    for batch, expected in (
        ((), 1),
        ((None,), 1),
        ((None, torch.zeros(4, 2)), 4),
        ((torch.zeros(3), None), 3),
    ):
        with dgm.data_plate(*batch) as index:
            assert len(index) == expected


def test_a_scalar_observation_is_refused_with_the_fix():
    with pytest.raises(
        ValueError,
        match=r"data_plate: expected a tensor \(B, \*event\), got a 0-dim .*Fix: x\[None\]",
    ):
        dgm.data_plate(torch.tensor(1.0))


def test_a_batch_larger_than_the_data_is_refused_with_the_fix():
    with pytest.raises(
        ValueError, match=r"expected a batch of at most size=4 data, got 5\. Fix: size=len\(data\)"
    ):
        dgm.data_plate(torch.zeros(5, 2), size=4)
