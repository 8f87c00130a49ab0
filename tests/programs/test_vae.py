"""The VAE as the holder of two programs, which are built once."""

from __future__ import annotations

import copy
import pickle

import pyro.distributions as dist
import pytest
import torch

import pyro_dgm as dgm


def plain(**options):
    return dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.mlp(2, 8, 3)),
        dgm.Conditional(dist.Normal, dgm.mlp(3, 8, 4)),
        **options,
    )


def of_levels(**options):
    return plain(dequantizer=dgm.UnitUniform(), levels=4, **options)


def levels(num=5):
    return torch.randint(0, 4, (num, 3))


PARTS = {
    "prior": lambda: dgm.MixturePrior(2, 3),
    "likelihood": lambda: dgm.Normal(dgm.mlp(2, 4, 3)),
    "encoder": lambda: dgm.MultivariateNormal(dgm.mlp(3, 8, 5), 2),
    "dequantizer": lambda: dgm.UnitUniform(3),
}


def parts_of(vae):
    generator, guide = vae.generator, vae.guide
    values = (generator.prior, generator.likelihood, guide.encoder, guide.dequantizer)
    return dict(zip(PARTS, values, strict=True))


@pytest.mark.parametrize("name", PARTS)
def test_to_replace_one_part_leaves_the_others_as_they_are(name):
    """The other parts are the same objects, and so are levels and size; the first VAE keeps its own part."""
    vae, part = of_levels(size=7), PARTS[name]()
    before = parts_of(vae)
    made = vae.replace(**{name: part})
    for of, found in parts_of(made).items():
        assert found is (part if of == name else before[of])
    assert (made.levels, made.generator.size, made.guide.size) == (4, 7, 7)
    assert all(found is before[of] for of, found in parts_of(vae).items())


@pytest.mark.parametrize("build", [plain, of_levels])
def test_the_model_is_the_same_program_at_every_access(build):
    vae = build()
    assert vae.model is vae.model
    again = copy.deepcopy(vae)
    assert again.model is again.model
    assert again.model is not vae.model


def test_a_hook_on_the_model_of_levels_is_called_in_training_and_in_estimates():
    vae, calls = of_levels(), []
    vae.model.register_forward_hook(lambda *_: calls.append(1))
    objective = dgm.ELBO(vae.model, vae.guide)
    objective.preflight(levels())
    calls.clear()
    objective(levels())
    assert len(calls) == 1
    dgm.nll(vae.model, vae.guide, levels(), num=3)
    assert len(calls) > 1


def test_the_state_dict_names_every_tensor_once_and_fits_with_and_without_a_dequantizer():
    with_noise, without = of_levels(), plain()
    assert list(with_noise.state_dict()) == list(without.state_dict())
    assert {name.split(".")[0] for name in with_noise.state_dict()} == {"generator", "guide"}
    assert len(list(with_noise.modules())) == len(set(with_noise.modules()))
    without.load_state_dict(with_noise.state_dict())
    for one, other in zip(without.parameters(), with_noise.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda vae: pickle.loads(pickle.dumps(vae))], ids=["deep", "pickle"]
)
def test_a_copy_scores_alike_and_its_model_is_that_of_its_own_generator(copied):
    vae, x = of_levels(), levels()
    again = copied(vae)
    assert again.model.model is again.generator
    first, second = (dgm.nll(v.model, v.guide, x, num=3).nelbo for v in (vae, again))
    assert torch.equal(first, second)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(1.0)
    assert not torch.equal(dgm.nll(again.model, again.guide, x, num=3).nelbo, first)
    assert torch.equal(dgm.nll(vae.model, vae.guide, x, num=3).nelbo, first)


def test_the_model_follows_the_mode_the_dtype_and_new_weights():
    vae, x = of_levels(), levels()
    assert not vae.eval().model.training
    assert vae.train().model.training
    vae.double()
    assert vae.model(None).dtype == torch.float64
    before = dgm.nll(vae.model, vae.guide, x, num=3).nelbo
    vae.load_state_dict(of_levels().state_dict())
    assert not torch.equal(dgm.nll(vae.model, vae.guide, x, num=3).nelbo, before)


def test_training_the_model_of_levels_trains_the_generator():
    vae = of_levels()
    start = [p.detach().clone() for p in vae.parameters()]
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=1e-2)
    trainer.fit(levels(20), epochs=2, batch_size=10, progress=False)
    assert not any(torch.equal(p, s) for p, s in zip(vae.parameters(), start, strict=True))


def test_a_flow_prior_of_levels_is_absorbed_exposed_and_refitted():
    x = levels(20)
    vae = of_levels().replace(prior=dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2, hidden=(8,))))
    absorbed = dgm.absorb_prior(vae)
    exposed = dgm.expose_prior(absorbed)
    for other in (absorbed, exposed):
        assert other.model is other.model
        assert other.model.levels == 4
    before, after = (dgm.nll(v.model, v.guide, x, num=3).nelbo for v in (vae, exposed))
    assert torch.equal(before, after)
    refitted = dgm.refit_prior(vae, x, dgm.MixturePrior(2, 3), epochs=1, batch_size=10)
    assert refitted.model.model is refitted.generator
    assert bool(dgm.nll(refitted.model, refitted.guide, x, num=3).nelbo.isfinite().all())


def test_levels_without_a_dequantizer_are_refused():
    with pytest.raises(ValueError, match=r"VAE: expected a dequantizer with levels=4.*Fix: dequan"):
        plain(levels=4)


def test_the_representation_shows_the_settings_of_all_programs():
    text = repr(of_levels(size=50))
    assert text.splitlines()[1].strip() == "levels=4"
    assert "size=50, latent='z', observed='x'" in text
    assert "StandardNormal(2)" in text
    assert "UnitUniform()" in text
    assert "sites=('x',), levels=4" in repr(of_levels().model)
