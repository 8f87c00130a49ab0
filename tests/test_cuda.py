"""On a GPU: the same numbers as on the CPU, training whole and resumed, captured graphs, and seeds left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import PAIRS, over
from pyro import poutine

import pyro_dgm as dgm

pytestmark = pytest.mark.cuda
GPU = torch.device("cuda")


def moved(case):
    """A copy of the pair's programs on the GPU."""
    model, guide = copy.deepcopy((case.model, case.guide))
    return model.to(GPU), guide.to(GPU)


def sites_of(case) -> tuple[str, ...]:
    return dgm.preflight(case.model, case.guide, *case.batch(4)).latent


def log_joint(model, values, batch) -> torch.Tensor:
    """log p(x, z) of every datum at the values of a trace, on the CPU."""
    data = {
        name: values.nodes[name]["value"].to(batch[0].device) for name in values.stochastic_nodes
    }
    trace = poutine.trace(poutine.condition(model, data=data)).get_trace(*batch)
    trace.compute_log_prob()
    return sum(
        trace.nodes[n]["log_prob"]
        for n in [*trace.stochastic_nodes, *trace.observation_nodes]
        if n != "data"
    ).cpu()


@pytest.mark.parametrize(**over(PAIRS))
def test_the_likelihood_is_that_of_the_cpu_within_its_error(build):
    case = build()
    batch = case.batch(6)
    here, there = (
        dgm.nll(case.model, case.guide, *batch, num=4000),
        dgm.nll(*moved(case), *batch, num=4000),
    )
    assert there.per_datum.device.type == "cpu"
    error = (here.monte_carlo**2 + there.monte_carlo**2).sqrt().nan_to_num(0.0)
    assert bool(((here.per_datum - there.per_datum).abs() <= 6 * error + 1e-8).all())


@pytest.mark.parametrize(**over(PAIRS))
def test_the_density_of_given_values_is_that_of_the_cpu(build):
    case = build()
    batch = case.batch(6)
    with torch.no_grad():
        values = poutine.trace(case.guide).get_trace(*batch)
        here = log_joint(case.model, values, batch)
        there = log_joint(moved(case)[0], values, [b.to(GPU) for b in batch])
    torch.testing.assert_close(there, here, rtol=1e-9, atol=1e-9)


@pytest.fixture
def exact_convolutions():
    """Gradients of convolutions that add up in one order: the fast ones differ from run to run."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


@pytest.mark.usefixtures("exact_convolutions")
@pytest.mark.parametrize(**over(PAIRS))
def test_a_run_resumed_at_an_epoch_equals_the_whole_one_bit_for_bit(build, tmp_path):
    case = build()
    batch, weights = case.batch(20), []
    for parts in ((3,), (1, 2)):
        objective = dgm.ELBO(
            *moved(case), beta={site: dgm.LinearWarmup(5) for site in sites_of(case)}
        )
        for number, epochs in enumerate(parts):
            trainer = dgm.SVITrainer(objective, lr=1e-3, ema=0.9)
            if number:
                trainer.resume(tmp_path / "checkpoint.pt")
            trainer.fit(
                batch, batch, epochs, 8, checkpoint=tmp_path / "checkpoint.pt", progress=False
            )
        weights.append(objective.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # torch's own, of its warm-up graph
@pytest.mark.parametrize("mode", [True, "reduce-overhead"])
@pytest.mark.parametrize(
    "name", ["vae_normal", "vae_flow", "vae_labels", "density_dequantized", "vae_image_flow"]
)
def test_compiled_training_learns_as_eager_training_does(name, mode):
    case, losses = PAIRS[name](), []
    batch = case.batch(512)
    for compile_ in (False, mode):
        trainer = dgm.SVITrainer(dgm.ELBO(*moved(case)), lr=2e-3, compile=compile_)
        losses.append(
            trainer.fit(batch, epochs=12, batch_size=128, progress=False).column("train_nelbo")
        )
    eager, compiled = (torch.tensor(found) for found in losses)
    assert compiled[-1] < compiled[0]
    torch.testing.assert_close(compiled[-1], eager[-1], rtol=0.05, atol=0.3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
@pytest.mark.parametrize("mode", [True, "reduce-overhead"])
@pytest.mark.parametrize(
    "play", [dgm.gan.Alternating(n_critic=2), dgm.gan.Simultaneous()], ids=["apart", "at once"]
)
def test_a_compiled_game_learns_as_an_eager_one_does(play, mode):
    """Under a penalty, whose gradient is taken twice, and where the outputs of two graphs follow each other."""
    x, rows = 3 + 0.1 * torch.randn(512, 4), []
    for compile_ in (False, mode):
        torch.manual_seed(0)
        generator = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 8, 4)))
        sides = generator.to(GPU), dgm.mlp(4, 16, 1).to(GPU)
        trainer = dgm.GANTrainer(*sides, play=play, ema=0.9, compile=compile_)
        rows.append(trainer.fit(x, epochs=12, batch_size=128, progress=False)[-1])
    for name in ("train_critic", "train_generator", "train_r1"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=0.1, abs=0.1)


def test_estimates_leave_the_generators_of_all_devices_alone():
    case = PAIRS["vae_flow"]()
    model, guide = moved(case)
    batch, many = case.batch(6), case.batch(50)
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    dgm.nll(model, guide, *batch, num=10)
    dgm.surgery(model, guide, *many)
    dgm.generate(model, 3)
    dgm.hmc(model, *batch, num=5, warmup=5)
    dgm.ais(model, *batch, num=2, steps=5)
    dgm.SVITrainer(dgm.ELBO(model, guide)).fit(batch, epochs=1, progress=False)
    for state, now in zip(before, (torch.get_rng_state(), torch.cuda.get_rng_state()), strict=True):
        assert torch.equal(state, now)


def test_chains_on_the_gpu_have_the_moments_of_those_on_the_cpu():
    case = PAIRS["vae_normal"]()
    batch = case.batch(6)
    here, there = (dgm.hmc(m, *batch, num=500, warmup=200) for m in (case.model, moved(case)[0]))
    assert there.worst_rhat < 1.05
    draws = [found.draws["z"].cpu() for found in (here, there)]
    error = sum(z.flatten(0, 1).var(0) / dgm.diagnostics.mean_ess(z) for z in draws).sqrt()
    assert bool(((draws[0] - draws[1]).mean((0, 1)).abs() < 6 * error).all())


def test_annealing_on_the_gpu_is_that_on_the_cpu_within_its_error():
    case = PAIRS["vae_normal"]()
    batch = case.batch(6)
    here, there = (dgm.ais(m, *batch, num=64, steps=200) for m in (case.model, moved(case)[0]))
    error = (here.monte_carlo**2 + there.monte_carlo**2).sqrt()
    assert bool(((here.per_datum - there.per_datum).abs() < 6 * error + 1e-3).all())


def test_khat_is_that_of_the_cpu():
    log_weight = torch.randn(1000, 50) * torch.linspace(0.2, 3, 50)
    torch.testing.assert_close(dgm.khat(log_weight.to(GPU)).cpu(), dgm.khat(log_weight))


def test_the_report_of_arviz_holds_arrays_of_the_host():
    case = PAIRS["vae_flow"]()
    found = dgm.to_arviz(*moved(case), *case.batch(5), num=7)
    assert found["posterior"]["z"].shape[:3] == (1, 7, 5)  # a prime number of draws is one chain
