"""What `fit` and `evaluate` check anew each time: nothing that was found before hides a later mistake."""

from collections import Counter

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.vectorization.modes import ParticleMode


class Gate(nn.Module):
    """h + g · mean(h) over the batch: it mixes the data once its gate has left 0."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, h):
        return h + self.gate * h.mean(0, keepdim=True)


def build(gate=None):
    with fork_rng(seed=1):
        decoder = nn.Sequential(dgm.mlp(2, 6, 4), *([] if gate is None else [gate]))
        encoder = dgm.Conditional(dist.Normal, dgm.mlp(4, 6, 4))
        vae = dgm.VAE(dgm.StandardNormal(2), dgm.Bernoulli(decoder), encoder)
    return vae, dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=1e-3)


def data(num=12):
    with fork_rng(seed=2):
        return torch.randint(2, (num, 4)).to(torch.get_default_dtype())


def fit(trainer, x, **options):
    return trainer.fit(x, epochs=1, batch_size=6, progress=False, **options)


def fitted(**options):
    vae, trainer = build(**options)
    fit(trainer, data())
    trainer.evaluate(data())
    return vae, trainer


ROADS = {"fit": fit, "evaluate": lambda trainer, x: trainer.evaluate(x)}
each_road = pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)


@each_road
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.0, 1.0, 2.0, 1.0], r"site 'x': expected"),
        ([0.0, 1.0, float("nan"), 1.0], "NaN"),
        ([0.0, 1.0, 1.0], r"shape"),
    ],
)
def test_other_data_of_a_fitted_trainer_are_checked_as_the_first_were(road, row, message):
    found = []
    for trainer in (fitted()[1], build()[1]):
        x = torch.tensor([row]).expand(12, -1).clone()
        with pytest.raises(ValueError, match=message) as caught:
            road(trainer, x)
        found.append(str(caught.value))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("road", "message"),
    [("fit", "SVITrainer: expected .*optimizer"), ("evaluate", "the programs fail on a batch")],
)
def test_a_replaced_network_is_checked(road, message):
    vae, trainer = fitted()
    vae.guide.encoder.net = dgm.mlp(5, 6, 4)
    with pytest.raises(ValueError, match=message):
        ROADS[road](trainer, data())


def test_an_activation_that_is_replaced_is_checked():
    """No parameter changes, and so nothing that an optimizer could notice."""

    class Wide(nn.Module):
        """Twice as many numbers as come in."""

        def forward(self, x):
            return torch.cat([x, x], -1)

    for road in ROADS.values():
        vae, trainer = fitted()
        vae.guide.encoder.net[1] = Wide()
        with pytest.raises(ValueError, match="the programs fail on a batch"):
            road(trainer, data())


@each_road
def test_a_replaced_guide_is_checked(road):
    _, trainer = fitted()
    trainer.objective.guide = dgm.EmptyGuide()
    with pytest.raises(ValueError, match=r"expected (the same latent sites|.*optimizer)"):
        road(trainer, data())


def test_what_the_networks_mean_is_found_anew_for_other_weights():
    """A gate at 0 mixes no data; nothing of the signature changes when it opens."""
    gate = Gate()
    _, trainer = build(gate=gate)
    trainer.preflight(data())
    assert (trainer.structure.mixes_data, trainer.structure.particles) == (
        False,
        ParticleMode.PLATE,
    )
    with torch.no_grad():
        gate.gate.fill_(1.0)
    trainer.preflight(data())
    assert trainer.structure.mixes_data
    assert trainer.structure.particles is not ParticleMode.PLATE


def test_a_preflight_runs_the_programs_twenty_six_times():
    """Runs are what it costs: half a millisecond each for a small VAE."""
    vae, trainer = build()
    runs = Counter()
    for name, program in (("model", vae.model), ("guide", vae.guide)):
        program.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
    trainer.preflight(data())
    assert runs == {"guide": 14, "model": 12}
