"""Training with networks in bfloat16: every density in float32, eager and compiled, alone and resumed."""

from __future__ import annotations

from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor.config as inductor_config
from cases import PAIRS, plane
from half import HalfProducts
from pyro.nn import PyroModule
from torch import nn
from toys import STILL, ExactGuide, LinearGaussian, assert_equal, everything, same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.datasets import Digits
from pyro_dgm.densities.precision import floating_tensors
from pyro_dgm.inference.process.autocast import autocast_networks
from pyro_dgm.inference.process.states import fork_rng, named_tensors
from pyro_dgm.inference.training.compiled.compilation import Eager
from pyro_dgm.inference.training.compiled.graphs import TermsOf, capture, copy_tensors

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True, ids=["float32"])
BF16 = torch.bfloat16


def data(num=12):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


def trainer_of(vae, **options):
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), **{"lr": 1e-2, **options})


def fit(trainer, *sets, epochs=2, **options):
    sets = sets or (data(),)
    trainer.fit(*sets, epochs=epochs, batch_size=4, progress=False, **options)
    return trainer


# Programs ------------------------------------------------------------------------------------------------------------


def function():
    """A plain function that holds its networks."""
    decoder, encoder = nn.Linear(2, 3), nn.Linear(3, 4)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


def announced():
    """Networks that `pyro.module` statements announce."""
    model, guide = function()
    networks = [cell.cell_contents for cell in (model.__closure__[0], guide.__closure__[0])]

    def with_statement(program, name, network):
        def announcing(x):
            pyro.module(name, network)
            return program(x)

        return announcing

    return (
        with_statement(model, "decoder", networks[0]),
        with_statement(guide, "encoder", networks[1]),
    )


class Decoding(PyroModule):
    def __init__(self):
        super().__init__()
        self.decoder = PyroModule[nn.Linear](2, 3)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(self.decoder(z).sigmoid()).to_event(1), obs=x)


def pyro_module():
    return Decoding(), function()[1]


OWN = {"function": function, "announced": announced, "PyroModule": pyro_module}


def pair_of(name):
    """A pair, and a batch of it."""
    if name in OWN:
        rows = data(4)
        return *OWN[name](), (rows.gt(0).float() if name == "PyroModule" else rows,)
    case = PAIRS[name]()
    return case.model, case.guide, case.batch(4)


@pytest.fixture(autouse=True)
def clean_store():
    """Programs of Pyro keep their parameters in its store."""
    yield
    pyro.clear_param_store()


every_pair = pytest.mark.parametrize("name", [*OWN, *PAIRS])


@every_pair
def test_every_density_is_computed_from_float32_to_float32(name):
    model, guide, batch = pair_of(name)
    objective = dgm.ELBO(model, guide)
    sites = []

    class See(pyro.poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg):
            sites.append(msg)

    objective.preflight(*batch)
    with autocast_networks(objective, BF16), See(), HalfProducts() as seen:
        terms = objective.terms(*batch)
    assert BF16 in seen.dtypes
    assert not seen.others & {"exp", "log", "log1p", "softplus", "sum", "add", "mul", "logsumexp"}
    found = {t.dtype for site in sites for t in floating_tensors(site["fn"])}
    found |= {site["value"].dtype for site in sites if site["value"].is_floating_point()}
    found |= {term.dtype for term in terms.values()}
    assert found <= {torch.float32, torch.float64}


@every_pair
def test_products_run_in_bfloat16_and_loss_and_gradients_are_near_those_of_float32(name):
    """Unit roundoff u = 2^-8: three roundings of a layer, some four layers, forward and back: 24 u = 0.1 of a gradient.

    That is the bound for roundings of one sign; they have both, and those of a sum average out.
    """
    model, guide, batch = pair_of(name)
    objective = dgm.ELBO(model, guide)
    found = []
    for autocast in (None, BF16):
        road = Eager(objective, autocast)
        with fork_rng(seed=3), HalfProducts() as seen:
            terms = road.backward(*batch)
        gradient = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
        assert {g.dtype for g in gradient} == {torch.float32}
        assert (BF16 in seen.dtypes) == (autocast is not None)
        found.append((terms["loss"], torch.cat([g.flatten() for g in gradient])))
    (loss, gradient), (rounded_loss, rounded) = found
    assert abs(rounded_loss - loss) < 0.02 * abs(loss)
    assert (rounded - gradient).norm() < 0.1 * gradient.norm()
    assert not torch.equal(rounded, gradient)


@every_pair
def test_the_graph_of_a_step_repeats_the_step(name):
    model, guide, batch = pair_of(name)
    objective = dgm.ELBO(model, guide)
    objective.preflight(*batch)
    module = TermsOf(objective, BF16)
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    fixed = dict(named_tensors(module))
    fixed = {n: t for n, t in fixed.items() if n not in trained}
    graph = capture(module, trained, fixed, batch)
    with fork_rng(seed=3):
        found = graph(trained, copy_tensors(fixed), batch)[0]
    road = Eager(objective, BF16)
    with fork_rng(seed=3), pyro.validation_enabled(False):
        expected = road.backward(*batch)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    casts = [n for n in graph.function.graph.nodes if n.kwargs.get("dtype") is BF16]
    assert casts


@pytest.mark.slow
def test_compiled_kernels_take_the_steps_of_eager_ones():
    """Kernels may keep what eager torch rounds: they differ by roundings of 2^-8, in one step of SGD."""
    vae = same_toy_vae()
    found = []
    with inductor_config.patch(fallback_random=True):
        for compile in (False, True):
            own = deepcopy(vae)
            objective = dgm.ELBO(own.model, own.guide)
            optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
            trainer = dgm.SVITrainer(objective, optimizer, compile=compile, autocast=BF16)
            before = [p.detach().clone() for p in trainer.parameters]
            with fork_rng(seed=3), trainer.steps() as step:
                terms = step((data(),))
            values = terms["loss"] if not compile else terms.values[terms.names.index("loss")]
            after = torch.cat(
                [(p - b).flatten() for p, b in zip(trainer.parameters, before, strict=True)]
            )
            found.append((values.detach(), after.detach()))
    (loss, moved), (compiled_loss, compiled_moved) = found
    assert abs(compiled_loss - loss) < 2**-8 * abs(loss)
    assert (compiled_moved - moved).norm() < 6 * 2**-8 * moved.norm()


# Flows ---------------------------------------------------------------------------------------------------------------

FLOWS = {
    "realnvp": lambda dim, layers: dgm.realnvp(dim, layers),
    "spline": lambda dim, layers: dgm.flows.spline_coupling(dim, layers),
    "maf": lambda dim, layers: dgm.maf(dim, layers=layers),
}
every_flow = pytest.mark.parametrize("name", FLOWS)


def flow_of(name, dim, layers, std=0.3):
    flow = dgm.Flow(dgm.StandardNormal(dim), FLOWS[name](dim, layers))
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=std)
    return flow


@every_flow
def test_a_layer_with_a_conditioner_in_bfloat16_is_a_bijection_with_its_own_log_determinant(name):
    r"""$y_i = s(r_i) x_i + t(r_i)$, $r_i = \mathrm{net}(x_{<i})$: rounding the net changes r, and no bijection.

    What lies below the diagonal of the Jacobian, the slope of the rounded net, is not in its determinant.
    """
    flow = flow_of(name, 4, 1)
    y = torch.randn(6, 4)
    with autocast_networks(flow, BF16), HalfProducts() as seen:
        transform = flow().transforms[0].inv
        x = transform(y)
        log_det = transform.log_abs_det_jacobian(y, x)
        jacobian = torch.autograd.functional.jacobian(
            lambda y: flow().transforms[0].inv(y).sum(0), y
        ).movedim(1, 0)
        with torch.no_grad():
            back = flow().transforms[0](x)
    assert BF16 in seen.dtypes
    assert x.dtype == log_det.dtype == torch.float32
    expected = torch.linalg.slogdet(jacobian.double())[1]
    torch.testing.assert_close(log_det.double(), expected, rtol=1e-4, atol=1e-4)
    # A coordinate that comes back with another last digit may round the net's next input the other way
    assert (back - y).abs().max() < 20 * 2**-8


@every_flow
def test_the_density_of_a_flow_with_conditioners_in_bfloat16_integrates_to_one(name):
    flow = flow_of(name, 2, 2, std=0.1)  # smooth enough for the grid
    with torch.no_grad():
        grid, weights = plane(flow())
        with autocast_networks(flow, BF16), HalfProducts() as seen:
            log_p = flow().log_prob(grid)
        exact = flow().log_prob(grid)
    assert BF16 in seen.dtypes
    assert (log_p - exact)[exact > -10].abs().max() > 1e-3
    assert abs((log_p.double().exp() * weights.double()).sum().item() - 1) < 2e-3


def test_flows_of_zuko_compute_in_float32(dtype):
    zuko = dgm.flows.import_zuko()
    flow = dgm.flows.Zuko(zuko.flows.MAF(3))
    x = torch.randn(5, 3)
    expected = flow().log_prob(x)
    with autocast_networks(flow, BF16):
        assert torch.equal(flow().log_prob(x), expected)


# Trainers ------------------------------------------------------------------------------------------------------------


def test_validation_and_estimates_run_in_float32():
    trainer = fit(trainer_of(same_toy_vae(), autocast=BF16), data(), data(8))
    with HalfProducts() as seen:
        row = trainer.evaluate(data(8))
        dgm.nll(trainer.objective.model, trainer.objective.guide, data(4), num=3)
    assert seen.dtypes == {torch.float32}
    twin = trainer_of(same_toy_vae())
    twin.module.load_state_dict(trainer.module.state_dict())
    assert twin.evaluate(data(8)) == row
    assert {p.dtype for p in trainer.module.parameters()} == {torch.float32}
    states = trainer.optimizer.state.values()
    assert {state["exp_avg"].dtype for state in states} == {torch.float32}


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    whole = fit(trainer_of(same_toy_vae(), autocast=BF16), epochs=4)
    first = fit(trainer_of(same_toy_vae(), autocast=BF16), epochs=2)
    first.save(tmp_path / "run")
    second = trainer_of(same_toy_vae(2), autocast=BF16)
    second.resume(tmp_path / "run")
    fit(second, epochs=2)
    assert_equal(everything(second), everything(whole))
    exact = fit(trainer_of(same_toy_vae()), epochs=4)
    assert exact.history.rows[-1]["train_nelbo"] != whole.history.rows[-1]["train_nelbo"]


def test_an_autocast_of_the_caller_s_sees_the_weights_that_the_optimizer_has_moved():
    """torch keeps casts of weights until the outermost region is left: all steps would see the first weights."""
    own = fit(trainer_of(same_toy_vae(), autocast=BF16), epochs=5)
    around = trainer_of(same_toy_vae())
    with torch.autocast("cpu", BF16):
        fit(around, epochs=5)
    found = [trainer.history.rows[-1]["train_nelbo"] for trainer in (own, around)]
    assert found[0] == pytest.approx(found[1], rel=2**-8)
    still = fit(trainer_of(same_toy_vae(), optimizer=STILL), epochs=5)
    assert still.history.rows[-1]["train_nelbo"] - found[1] > 0.1


def test_runs_of_several_seeds_take_their_own_steps():
    def build():
        vae = dgm.VAE(
            dgm.StandardNormal(2),
            dgm.Normal(dgm.mlp(2, 6, 3)),
            dgm.Conditional(dist.Normal, dgm.mlp(3, 6, 4)),
        )
        return trainer_of(vae, autocast=BF16)

    runs = dgm.training.Replicates(build, seeds=range(2))
    history = runs.fit(data(), epochs=2, batch_size=4, progress=False)
    assert runs.at_once == 1
    for row, seed in enumerate(runs.seeds):
        with fork_rng(seed=seed):
            alone = build()
        fit(alone, epochs=2, seed=seed)
        expected = [r["train_nelbo"] for r in alone.history.rows]
        assert history["train_nelbo"][row].tolist() == expected


def test_what_it_can_t_do_is_said_when_a_trainer_is_made_or_fits():
    vae = same_toy_vae()
    with pytest.raises(ValueError, match=r"SVITrainer: expected parameters in float32.*Fix: "):
        trainer_of(deepcopy(vae).double(), autocast=BF16)
    model = LinearGaussian()
    trainer = dgm.SVITrainer(dgm.ELBO(model, ExactGuide(model)), autocast=BF16)
    with pytest.raises(ValueError, match=r"SVITrainer: expected networks of nn.Linear.*Fix: "):
        trainer.fit(torch.randn(5, 4), progress=False)
    assert repr(trainer_of(vae, autocast=BF16)).endswith("autocast=torch.bfloat16)")


@pytest.mark.slow
def test_a_vae_of_the_digits_reaches_the_bound_that_it_reaches_in_float32():
    """Mean difference of paired test data within five of its standard errors.

    Two runs of one seed part after some steps, as two seeds do; seeds of this VAE differ by more than that.
    """
    digits = Digits()
    train, test = (digits.train > 7).float(), (digits.test > 7).float()
    found = []
    for autocast in (None, BF16):
        with fork_rng(seed=1):
            vae = dgm.VAE(
                dgm.StandardNormal(8),
                dgm.Bernoulli(dgm.mlp(8, 64, 64)),
                dgm.Conditional(dist.Normal, dgm.mlp(64, 64, 16)),
            )
        trainer = trainer_of(vae, lr=3e-3, autocast=autocast)
        trainer.fit(train, epochs=30, batch_size=64, progress=False)
        found.append(dgm.nll(vae.model, vae.guide, test, num=100).per_datum)
    difference = found[1] - found[0]
    stderr = difference.std() / len(difference) ** 0.5
    assert found[0].mean() < 25  # of 64 ln 2 = 44 nats
    assert abs(difference.mean()) < 5 * stderr
