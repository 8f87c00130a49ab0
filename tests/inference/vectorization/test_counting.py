"""As many data out as in: plates of three kinds, and data that are columns."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_dgm as dgm

NUM = 24


def pair(plate):
    """z ~ N(0, 1), x | z ~ N(z, 0.5²) and a guide of half the data, in a plate."""

    def model(x=None):
        with plate(x) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            obs = x if x is None or len(index) == len(x) else x[index]
            return pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=obs)

    def guide(x):
        with plate(x) as index:
            loc = 0.5 * (x if len(index) == len(x) else x[index])
            return pyro.sample("z", dist.Normal(loc, 0.6).to_event(1))

    return model, guide


class Learned(dgm.Program):
    """A program as a module with a parameter, which does not count."""

    def __init__(self, program):
        super().__init__()
        self.program = program
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x=None):
        with pyro.poutine.scale(scale=1.0 + 0 * self.shift):
            return self.program(x)


def fixed(x):
    return pyro.plate("data", NUM, dim=-1)


def subsampling(x):
    return pyro.plate("data", len(x), subsample_size=min(8, len(x)), dim=-1)


def columns(x):
    return pyro.plate("data", x.shape[1], dim=-1)


ESTIMATES = {
    "nll": lambda model, guide, x: dgm.nll(model, guide, x, num=30).per_datum,
    "nll in blocks": lambda model, guide, x: dgm.nll(model, guide, x, num=300).per_datum,
    "encode": lambda model, guide, x: dgm.encode(guide, x)["z"][0, :, 0],
    "reconstruct": lambda model, guide, x: dgm.reconstruct(model, guide, x)["x"][:, 0],
    "draw": lambda model, guide, x: dgm.draw(model, guide, x, num=2).log_weight[0],
    "ais": lambda model, guide, x: dgm.ais(model, x, num=2, steps=3).per_datum,
    "hmc": lambda model, guide, x: dgm.hmc(model, x, num=4, warmup=2, chains=2).acceptance,
    "preflight": lambda model, guide, x: torch.empty(
        dgm.preflight(model, guide, x).depth * len(x)  # it has no number of a datum
    ),
    "to_arviz": lambda model, guide, x: torch.as_tensor(
        dgm.to_arviz(model, guide, x, num=2)["conditional_log_likelihood"]["x"].values[0, 0]
    ),
}
over_estimates = pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=list(ESTIMATES))


@over_estimates
def test_a_plate_of_fixed_size_takes_all_data_at_once(estimate):
    x = torch.randn(NUM, 1)
    assert estimate(*pair(fixed), x).shape == (NUM,)


def test_a_plate_of_fixed_size_has_the_numbers_of_one_that_follows_the_data():
    x = torch.randn(NUM, 1)
    found = dgm.nll(*pair(fixed), x, num=30).per_datum
    assert torch.equal(found, dgm.nll(*pair(dgm.data_plate), x, num=30).per_datum)


@over_estimates
def test_a_plate_of_fixed_size_refuses_other_data(estimate):
    with pytest.raises(
        ValueError,
        match=rf"plate 'data': expected a datum for each of the {NUM + 6} rows.*, got a plate of "
        rf"size {NUM} whatever the number of rows\. Fix: `with data_plate\(x\):`",
    ):
        estimate(*pair(fixed), torch.randn(NUM + 6, 1))


def test_a_last_batch_that_a_plate_of_fixed_size_does_not_take_is_named():
    model, guide = pair(fixed)
    trainer = dgm.SVITrainer(dgm.ELBO(Learned(model), Learned(guide)))
    with pytest.raises(
        ValueError, match=rf"each of the 6 rows .*, got a plate of size {NUM} whatever"
    ):
        trainer.fit(torch.randn(NUM + 6, 1), batch_size=NUM, progress=False)


def test_imputation_refuses_a_plate_of_fixed_size():
    x, observed = torch.randn(NUM, 1), torch.zeros(1, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=r"plate 'data' whose size is that of the data.*Fix: `with"
    ):
        dgm.impute(*pair(fixed), x, observed=observed, num=2, num_weights=10)


def test_a_plate_that_subsamples_sees_all_of_small_blocks():
    estimate = ESTIMATES["nll in blocks"]
    assert estimate(*pair(subsampling), torch.randn(NUM, 1)).shape == (NUM,)


@pytest.mark.parametrize("name", sorted(set(ESTIMATES) - {"nll in blocks", "preflight"}))
def test_a_plate_that_subsamples_is_refused(name):
    estimate = ESTIMATES[name]
    with pytest.raises(
        ValueError, match=rf"the {NUM} rows.*a plate that takes 8 of {NUM}\..*Fix: .*x\[index\]"
    ):
        estimate(*pair(subsampling), torch.randn(NUM, 1))


@pytest.mark.parametrize("shape", [(5, 7), (6, 6)])
def test_data_that_are_columns_are_refused(shape):
    def model(x=None):
        with columns(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            law = dist.Normal(z[..., None].expand(*z.shape, len(x)), 0.5).to_event(1)
            return pyro.sample("x", law, obs=x.T)

    def guide(x):
        with columns(x):
            pyro.sample("z", dist.Normal(x.mean(0), 1.0))

    x = torch.randn(shape)
    for estimate in (ESTIMATES["nll"], ESTIMATES["encode"]):
        with pytest.raises(ValueError, match=r"plate 'data': .*Fix: .*x\.T"):
            estimate(model, guide, x)
