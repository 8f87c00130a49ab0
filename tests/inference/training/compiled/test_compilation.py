import copy

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor.config as inductor_config
from cases import PAIRS, over
from pyro import poutine
from torch import nn
from toys import BatchNorm, Written, captured, loss_and_grad, stepped, toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.training.compiled import graphs
from pyro_dgm.inference.training.compiled.compilation import Compiled, Eager


@pytest.fixture
def eager_backend(monkeypatch):
    """Graphs without kernels: what is captured and how graphs are chosen, in milliseconds. Counts the graphs."""
    return without_kernels(monkeypatch)


@pytest.fixture
def same_noise():
    """Let compiled kernels draw from the streams of eager torch."""
    torch._dynamo.reset()
    with inductor_config.patch(fallback_random=True):
        yield
    torch._dynamo.reset()


def backward(road, *batch, seed=0):
    """Terms and gradients of one step under a seed, from empty gradients."""
    road.costs.zero_grad(set_to_none=True)
    with fork_rng(seed=seed), pyro.validation_enabled(False):
        terms = road.backward(*batch)
    return terms, {
        n: p.grad.clone() for n, p in road.costs.named_parameters() if p.grad is not None
    }


# Compiled equals eager -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize(**over(PAIRS))
def test_the_captured_graph_equals_the_program_in_value_and_gradient(build, num):
    case = build()
    batch, others = case.batch(4), case.batch(4)
    objective = dgm.ELBO(case.model, case.guide, num_particles=num)
    graph, trained, fixed = captured(objective, *batch)
    for x in (batch, others):
        with fork_rng(seed=5):
            terms, gradients = graph(trained, fixed, x)
        loss, expected = loss_and_grad(objective, *x, seed=5)
        torch.testing.assert_close(terms["loss"], loss)
        torch.testing.assert_close(
            {n.removeprefix("costs."): g for n, g in gradients.items()}, expected
        )


@pytest.mark.parametrize(**over(PAIRS))
def test_the_captured_graph_follows_the_weights(build):
    case = build()
    batch = case.batch(4)
    objective = dgm.ELBO(case.model, case.guide)
    graph, trained, fixed = captured(objective, *batch)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    with fork_rng(seed=5):
        terms, _ = graph(trained, fixed, batch)
    torch.testing.assert_close(terms["loss"], loss_and_grad(objective, *batch, seed=5)[0])


@pytest.mark.slow
@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_compiled_equals_eager_in_value_and_gradient_under_fixed_noise(pair, same_noise):
    case = PAIRS[pair]()
    batch = case.batch(6)
    objective = dgm.ELBO(
        case.model, case.guide, num_particles=2, beta={"x": dgm.LinearWarmup(4, start=0.5)}
    )
    eager, compiled = Eager(objective), Compiled(objective)
    backward(compiled, *batch)
    for seed in (1, 2):
        torch.testing.assert_close(
            backward(compiled, *batch, seed=seed), backward(eager, *batch, seed=seed)
        )
        objective.advance()


@pytest.mark.slow
def test_compiled_noise_has_the_law_of_eager_noise():
    """Without shared streams both losses are draws of one law; their means differ by 5 standard errors at most."""
    vae, x = toy_vae(), torch.randn(8, 3)
    objective = dgm.ELBO(vae.model, vae.guide)
    losses = [
        torch.stack([road.backward(x)["loss"] for _ in range(500)]) for road in map_roads(objective)
    ]
    standard_error = sum(loss.var() / 500 for loss in losses) ** 0.5
    assert (losses[0].mean() - losses[1].mean()).abs() < 5 * standard_error
    assert losses[1].unique().numel() == 500


def map_roads(objective):
    return Eager(objective), Compiled(objective)


# What a graph notices ------------------------------------------------------------------------------------------------


def test_convolutions_are_trained_by_a_graph_as_by_the_program(eager_backend):
    """Their gradients come with channels last, which fused Adam reads in the order of the weights."""
    x, context, losses = torch.randn(8, 1, 4, 4), torch.randn(8, 2, 4, 4), []
    for compile_ in (False, True):
        torch.manual_seed(0)
        density = dgm.Conditional(dist.Normal, dgm.nn.GatedConvNet(2, 2, 4, 1), event_dim=3)
        trainer = dgm.SVITrainer(
            dgm.ELBO(dgm.DensityModel(density), dgm.EmptyGuide()), lr=1e-2, compile=compile_
        )
        losses.append([float(trainer.step(x, context)["loss"]) for _ in range(3)])
        gradients = [(p.grad.stride(), p.stride()) for p in density.parameters()]
        assert all(a == b for a, b in gradients)
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    assert len(eager_backend) == 1


def test_one_graph_serves_every_batch_of_one_signature(eager_backend):
    vae = toy_vae()
    road = Compiled(dgm.ELBO(vae.model, vae.guide))
    for _ in range(3):
        road.backward(torch.randn(4, 3))
    assert len(eager_backend) == 1
    road.backward(torch.randn(5, 3))
    road.backward(torch.randn(4, 3, dtype=torch.float16))
    assert len(eager_backend) == 3
    road.backward(torch.randn(5, 3))
    assert len(eager_backend) == 3


def test_a_schedule_changes_the_compiled_loss(eager_backend):
    vae, x = toy_vae(), torch.randn(4, 3)
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": dgm.LinearWarmup(2)})
    road, losses = Compiled(objective), []
    for _ in range(3):
        terms, _ = backward(road, x)
        losses.append((terms["loss"] - terms["rec[x]"]) / terms["kl[z]"])
        objective.advance()
    torch.testing.assert_close(torch.stack(losses), torch.tensor([0.0, 0.5, 1.0]))
    assert len(eager_backend) == 1


def test_gradients_replace_those_of_the_last_step(eager_backend):
    vae, x = toy_vae(), torch.randn(4, 3)
    road = Compiled(dgm.ELBO(vae.model, vae.guide))
    _, once = backward(road, x)
    with fork_rng(seed=0):
        road.backward(x)
    torch.testing.assert_close({n: p.grad for n, p in road.costs.named_parameters()}, once)


def test_a_frozen_parameter_is_noticed(eager_backend):
    vae, x = toy_vae(), torch.randn(4, 3)
    road = Compiled(dgm.ELBO(vae.model, vae.guide))
    backward(road, x)
    vae.guide.requires_grad_(False)
    terms, gradients = backward(road, x)
    torch.testing.assert_close((terms, gradients), backward(Eager(road.costs), x))
    assert all(name.startswith("model.") for name in gradients)
    assert all(p.grad is None for p in vae.guide.parameters())


def test_a_replaced_parameter_is_noticed(eager_backend):
    vae, x = toy_vae(), torch.randn(4, 3)
    road = Compiled(dgm.ELBO(vae.model, vae.guide))
    backward(road, x)
    vae.model.likelihood.net[0].weight = nn.Parameter(torch.randn(6, 2))
    torch.testing.assert_close(backward(road, x), backward(Eager(road.costs), x))


@pytest.mark.slow
def test_replaced_submodules_are_noticed_though_memory_is_used_again(eager_backend):
    """CPython gives a new module the id of a dead one: an id alone is no signature."""
    vae, x = toy_vae(), torch.randn(4, 3)
    road = Compiled(dgm.ELBO(vae.model, vae.guide))
    for activation in (
        nn.Tanh,
        nn.ReLU,
        nn.Sigmoid,
        nn.Softplus,
        nn.ELU,
        nn.Tanh,
        nn.SiLU,
        nn.ReLU,
    ):
        vae.model.likelihood.net[1] = activation()
        torch.testing.assert_close(backward(road, x), backward(Eager(road.costs), x))


class Normalized(dgm.Program):
    """A model with batch normalization and dropout, which have a mode and buffers."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), BatchNorm(4), nn.Dropout(0.3), nn.Linear(4, 3))

    def forward(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(self.net[0].weight.new_zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


def test_train_and_eval_are_noticed_and_buffers_move_as_in_eager(eager_backend):
    x, vae = torch.randn(6, 3), toy_vae()
    objective = dgm.ELBO(Normalized(), vae.guide)
    start, roads = {n: t.clone() for n, t in objective.state_dict().items()}, map_roads(objective)
    for mode in (True, False, True):
        found = []
        for road in roads:
            objective.load_state_dict(start)
            objective.train(mode)
            found.append((*backward(road, x), {n: b.clone() for n, b in objective.named_buffers()}))
        torch.testing.assert_close(found[1], found[0])
        assert (
            torch.equal(found[1][2]["model.net.1.running_mean"], start["model.net.1.running_mean"])
            is not mode
        )
    assert len(eager_backend) == 2


@pytest.mark.slow
def test_buffers_move_in_compiled_kernels_as_in_eager(same_noise):
    x, vae = torch.randn(6, 3), toy_vae()
    objective = dgm.ELBO(Normalized(), vae.guide)
    start = {n: t.clone() for n, t in objective.state_dict().items()}
    eager, compiled = map_roads(objective)
    backward(compiled, x)
    found = []
    for road in (eager, compiled):
        objective.load_state_dict(start)
        found.append((*backward(road, x), {n: b.clone() for n, b in objective.named_buffers()}))
    torch.testing.assert_close(found[1], found[0])


def test_capture_and_proof_take_no_random_numbers_and_move_no_buffer(eager_backend):
    """Else a run that is resumed, and so captured again, goes on with other noise."""
    x, vae = torch.randn(6, 3), toy_vae()
    objective = dgm.ELBO(Normalized(), vae.guide)
    start = {n: t.clone() for n, t in objective.state_dict().items()}
    road = Compiled(objective)
    first = backward(road, x)
    objective.load_state_dict(start)
    torch.testing.assert_close(backward(road, x), first, rtol=0, atol=0)


class Counting(nn.Module):
    """A layer with a buffer that each run moves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("num", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.num += 1
        return x


def test_a_script_is_made_without_random_numbers_and_moves_no_buffer(monkeypatch):
    monkeypatch.setattr(graphs, "LONG", 1)
    monkeypatch.setattr(graphs, "MANY", 1)
    x, vae, counting = torch.randn(6, 3), toy_vae(), Counting()
    vae.guide.encoder.net.insert(0, counting)
    road = Compiled(dgm.ELBO(vae.model, vae.guide))
    state = torch.get_rng_state()
    graph = road.bind((x,)).graph
    assert type(graph.function).__name__ == "_Script"
    assert torch.equal(torch.get_rng_state(), state)
    assert counting.num.tolist() == [0, 0, 0]
    road.backward(x)
    assert counting.num.tolist() == [1, 1, 1]


def test_two_sites_of_tied_weights_train_as_in_eager(eager_backend):
    vae, x = toy_vae(), torch.randn(4, 3)
    vae.guide.encoder.net[2].weight = vae.model.likelihood.net[0].weight = nn.Parameter(
        torch.randn(4, 6)
    )
    vae.model.likelihood.net[0] = nn.Linear(2, 6)
    vae.model.likelihood.net[2].bias = vae.guide.extra = nn.Parameter(torch.randn(3))
    objective = dgm.ELBO(vae.model, vae.guide)
    torch.testing.assert_close(backward(Compiled(objective), x), backward(Eager(objective), x))


# What it refuses -----------------------------------------------------------------------------------------------------


def guide(program, x):
    with dgm.data_plate(x):
        pyro.sample("z", dist.Normal(program.weight, torch.ones(())))


def model_that_branches(program, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        if z.sum() > 0:
            z = -z
        return pyro.sample("x", dist.Normal(z * program.weight, 1.0), obs=x)


def model_that_reads(program, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        return pyro.sample("x", dist.Normal(z * program.weight.item(), 1.0), obs=x)


def model_with_foreign_noise(program, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        return pyro.sample(
            "x",
            dist.Normal(z * program.weight + float(np.random.randn()), 1.0),  # noqa: NPY002
            obs=x,
        )


@pytest.mark.parametrize("run", [model_that_branches, model_that_reads])
def test_a_program_that_reads_values_raises_with_the_site_the_line_and_the_fix(run, eager_backend):
    road = Compiled(dgm.ELBO(Written(run), Written(guide)))
    with pytest.raises(
        ValueError, match=r"(?s)stops after site 'z', at .*test_compilation.py:\d+ .*compile=False"
    ):
        road.backward(torch.randn(4))
    assert not eager_backend


def test_such_a_program_trains_eagerly():
    objective = dgm.ELBO(Written(model_that_branches), Written(guide))
    assert len(dgm.SVITrainer(objective).fit(torch.randn(8), epochs=2, progress=False)) == 2


def test_noise_from_outside_torch_is_refused(eager_backend):
    road = Compiled(dgm.ELBO(Written(model_with_foreign_noise), Written(guide)))
    with pytest.raises(
        ValueError, match=r"repeat the program under one seed, but '.*numpy.*burnt.*compile=False"
    ):
        road.backward(torch.randn(4))
    assert not eager_backend


# In the trainer ------------------------------------------------------------------------------------------------------


def test_the_ragged_last_batch_runs_eager(eager_backend):
    vae = toy_vae()
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), compile=True)
    trainer.fit(torch.randn(10, 3), epochs=3, batch_size=4, progress=False)
    trainer.fit(torch.randn(10, 3), epochs=1, batch_size=4, progress=False)
    assert len(eager_backend) == 1


@pytest.mark.parametrize(**over(PAIRS))
def test_training_by_graphs_equals_training_eagerly(build, eager_backend):
    """Also where model and guide share modules, which must keep their parameters."""
    case, weights = build(), []
    batch, sites = case.batch(10), dgm.preflight(case.model, case.guide, *case.batch(4)).latent
    for compile_ in (False, True):
        model, guide = copy.deepcopy((case.model, case.guide))
        parameters = [*model.parameters(), *guide.parameters()]
        objective = dgm.ELBO(model, guide, beta={site: dgm.LinearWarmup(5) for site in sites})
        dgm.SVITrainer(objective, compile=compile_, clip=1.0).fit(
            batch, epochs=3, batch_size=4, progress=False
        )
        assert all(
            a is b
            for a, b in zip([*model.parameters(), *guide.parameters()], parameters, strict=True)
        )
        weights.append(objective.state_dict())
    torch.testing.assert_close(*weights)


class TwoBiases(nn.Module):
    """A location that is a sum: both of its terms have the same gradient."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))

    def forward(self, x):
        with dgm.data_plate(x):
            pyro.sample("x", dist.Normal(self.a + self.b, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_gradient_that_two_parameters_share_is_scaled_once(kernels, request):
    if not kernels:
        request.getfixturevalue("eager_backend")
    x, found = 10 + torch.randn(64, 3), []
    for compile_ in (False, True):
        model = TwoBiases()
        trainer = dgm.SVITrainer(
            dgm.ELBO(model, dgm.EmptyGuide()),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
            clip=1.0,
            compile=compile_,
        )
        trainer.fit(x, epochs=2, batch_size=64, progress=False)
        assert model.a.grad.data_ptr() != model.b.grad.data_ptr()
        found.append(model.state_dict())
    torch.testing.assert_close(*found)


def test_the_name_of_a_mode_reaches_the_compiler_as_its_options(monkeypatch):
    found = []
    monkeypatch.setattr(
        torch._inductor, "compile", lambda graph, _, options: found.append(options) or graph
    )
    vae = toy_vae()
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), compile="reduce-overhead")
    trainer.fit(torch.randn(4, 3), progress=False)
    assert found == [torch._inductor.list_mode_options("reduce-overhead")]
    assert found[0]["triton.cudagraphs"] is True


def test_compilation_leaves_the_validation_setting_alone(monkeypatch):
    """Torch's compiler may switch the validation of distributions off for good."""

    def compiled(graph, *_, **__):
        torch.distributions.Distribution.set_default_validate_args(False)
        return graph

    monkeypatch.setattr(torch._inductor, "compile", compiled)
    vae = toy_vae()
    Compiled(dgm.ELBO(vae.model, vae.guide)).backward(torch.randn(4, 3))
    assert torch.distributions.Distribution._validate_args


def test_value_and_grad_leaves_the_weights_without_gradients():
    vae, x = toy_vae(), torch.randn(4, 3)
    objective = dgm.ELBO(vae.model, vae.guide)
    trained = {f"costs.{n}": p for n, p in objective.named_parameters()}
    fixed = {f"costs.{n}": b for n, b in objective.named_buffers()}
    terms, gradients = stepped(objective)(trained, fixed, (x,))
    assert set(gradients) == set(trained)
    assert not terms["loss"].requires_grad
    assert all(p.grad is None for p in objective.parameters())


@pytest.mark.parametrize("num", [1, 3])
def test_factors_scales_and_deterministic_values_are_compiled(num, eager_backend):
    def model(program, x):
        with dgm.data_plate(x), poutine.scale(scale=0.5):
            z = pyro.sample("z", dist.Normal(program.weight, 1.0).expand([2]).to_event(1))
            pyro.deterministic("twice", 2.0 * z, event_dim=1)
            pyro.factor("prior", -program.weight * z.square().sum(-1))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(program.weight * x, 1.0).to_event(1))
            pyro.factor("direct", program.weight * z.sum(-1), has_rsample=True)
            pyro.factor("score", program.weight * x.sum(-1), has_rsample=False)

    objective, x = dgm.ELBO(Written(model), Written(guide), num), torch.randn(4, 2)
    objective.preflight(x)
    (terms, found), (expected_terms, expected) = (
        backward(road(objective), x, seed=3) for road in (Compiled, Eager)
    )
    torch.testing.assert_close(terms, expected_terms)
    torch.testing.assert_close(found, expected)
