"""Experiments in YAML: the catalogue is parsed, built and trained; slots nest by flags and survive a round trip."""

import inspect
import warnings
from argparse import ArgumentError

import pytest
import torch
import yaml
from experiments.recipes.synthetic import parse, parser, places, synthetic

from pyro_dgm import ELBO, VAE, Normal, recipes
from pyro_dgm.datasets import Ring
from pyro_dgm.experiments.catalogue.listing import catalogue
from pyro_dgm.experiments.configuration.kinds import check_kinds
from pyro_dgm.experiments.configuration.trust import only_trusted
from pyro_dgm.experiments.recipes import encoders, layers, likelihoods, priors
from pyro_dgm.experiments.recipes.compositions import levels_vae
from pyro_dgm.experiments.recipes.networks import Convolutional, Dense

NAMES = sorted(catalogue())
KEYS = ("model", "data", "objective", "trainer", "adversarial", "evaluation", "epochs")
KEYS = {*KEYS, "batch_size", "patience", "seeds"}
DATA = {
    "mnist": ("binary", (28, 28)),
    "fashion_mnist": ("bytes", (28, 28)),
    "frey": ("bytes", (28, 20)),
    "binary_table": ("binary", (30,)),
    "counts": ("counts", (30,)),
    "colour_images": ("bytes", (3, 16, 16)),
}


@pytest.fixture(autouse=True)
def quiet_paths():
    """The parser looks each class up under its shortest path."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"dgm\.\w+ has moved")
        yield


def model_of(name):
    """The model and the game of an experiment of the catalogue, after a round trip, as an untrusted file."""
    path, _ = catalogue()[name]
    says = yaml.safe_load(path.read_text())
    assert set(says) <= KEYS
    assert {"model", "data", "evaluation", "epochs", "batch_size", "seeds"} <= set(says)
    assert ("adversarial" in says) != ("objective" in says)
    places = {key: says[key] for key in ("model", "adversarial") if key in says}
    with only_trusted():
        once = parser()
        dumped = once.dump(once.parse_object(places))
        again = parser()
        settings = again.parse_string(dumped)
        assert again.dump(settings) == dumped
        return again.instantiate(settings)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_of_the_catalogue_builds_and_takes_a_step(name):
    built = model_of(name)
    kind, shape = DATA.get(name, ("levels", (8, 8)))
    data = Ring(num_train=24) if name == "ring_gan" else synthetic(kind, shape)
    programs = built.model.build(data)
    if built.adversarial is not None:
        trainer = built.adversarial.build(programs, data)
        history = trainer.fit(built.adversarial.batches(data, 12), epochs=1, progress=False)
        assert len(history) == 1
        return
    objective = ELBO(programs.model, programs.guide)
    objective.preflight(*data.split("train"))
    loss = objective(*data.split("train"))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in programs.parameters())


def test_the_first_line_of_every_experiment_says_what_it_is():
    assert len(NAMES) >= 13
    for path, what in catalogue().values():
        assert path.read_text().startswith("# ")
        assert 20 < len(what) < 130


def test_the_digits_of_the_catalogue_are_the_published_composition():
    data = synthetic("levels", (8, 8))
    data.levels = 17
    torch.manual_seed(0)
    ours = model_of("digits").model.build(data).state_dict()
    torch.manual_seed(0)
    published = levels_vae().state_dict()
    assert list(ours) == list(published)
    assert all(torch.equal(ours[name], published[name]) for name in published)


def test_slots_nest_by_flags():
    built = parse(
        "--model=VAE",
        "--model.latent=3",
        "--model.prior=FlowPrior",
        "--model.prior.layers=4",
        "--model.prior.flow=SplineMAF",
        "--model.prior.base=Mixture",
        "--model.prior.base.components=7",
        "--model.network=Convolutional",
        "--model.network.channels=[4,6]",
        "--model.likelihood=DiscretizedLogistic",
        "--model.likelihood.min_scale=0.1",
        "--model.encoder=FlowPosterior",
        "--model.encoder.flow=Sylvester",
        "--model.encoder.flow.num_units=2",
        "--model.dequantizer=FlowNoise",
    ).model
    assert built.prior == priors.FlowPrior(layers.SplineMAF(), 4, [128], priors.Mixture(7))
    assert built.network == Convolutional([4, 6])
    assert built.likelihood == likelihoods.DiscretizedLogistic(0.1)
    assert built.encoder == encoders.FlowPosterior(layers.Sylvester(2), 2, [128])
    assert built.dequantizer == encoders.FlowNoise(hidden=[128])


def test_a_setting_of_a_default_part_needs_no_name_and_another_part_does_not_inherit_it():
    built = parse("--model=VAE", "--model.network.hidden=[9]", "--model.encoder.floor=0.1").model
    assert built.network == Dense([9])
    assert built.encoder == encoders.Diagonal(0.1)
    other = parse("--model=VAE", "--model.encoder=FullRank").model
    assert other.encoder == encoders.FullRank()


def test_a_part_of_ones_own_modules_is_given():
    built = parse(
        "--model=VAE",
        "--model.latent=2",
        "--model.prior=Given",
        "--model.prior.module=pyro_dgm.MixturePrior",
        "--model.prior.module.dim=2",
        "--model.prior.module.num_components=3",
    ).model
    prior = built.build(synthetic("levels")).generator.prior
    assert prior.loc.shape == (3, 2)


def test_a_composition_is_written_out():
    says = """
    model:
      class_path: Composition
      init_args:
        vae:
          class_path: pyro_dgm.VAE
          init_args:
            prior: {class_path: pyro_dgm.StandardNormal, init_args: {dim: 2}}
            likelihood:
              class_path: pyro_dgm.Normal
              init_args:
                net: {class_path: torch.nn.Linear, init_args: {in_features: 2, out_features: 6}}
            encoder:
              class_path: pyro_dgm.MultivariateNormal
              init_args:
                dim: 2
                net: {class_path: torch.nn.Linear, init_args: {in_features: 6, out_features: 5}}
    """
    first = parser()
    with only_trusted():
        settings = first.parse_string(says)
        vae = first.instantiate(parser().parse_string(first.dump(settings))).model.build(None)
    assert isinstance(vae, VAE)
    assert isinstance(vae.generator.likelihood, Normal)
    assert ELBO(vae.model, vae.guide)(torch.randn(5, 6)).isfinite()


def test_an_own_program_is_named_by_its_path_with_arguments_as_flags():
    built = parse(
        "--model=Own",
        "--model.program=pyro_dgm.experiments.catalogue.programs.PlainVAE",
        "--model.arguments.latent=3",
    ).model
    programs = built.build(synthetic("levels"))
    assert programs.model.networks[0].latent == 3


def test_a_function_is_an_own_program_and_no_prior():
    first = parser()
    says = {"class_path": "Own", "init_args": {"program": "pyro_dgm.mlp"}}
    check_kinds(first.parse_object({"model": says}), places)
    says = {"class_path": "VAE", "init_args": {"prior": "pyro_dgm.mlp"}}
    with pytest.raises((ValueError, ArgumentError), match="prior"):
        check_kinds(first.parse_object({"model": says}), places)


def test_games_nest_by_flags():
    built = parse(
        "--model=Generator",
        "--adversarial=Adversarial",
        "--adversarial.game=Wasserstein",
        "--adversarial.penalties=GradientPenalty",
        "--adversarial.penalties.weight=2.0",
        "--adversarial.play.n_critic=5",
        "--adversarial.play.critic.lr=1e-4",
        "--adversarial.bound=true",
    ).adversarial
    assert repr(built.game) == "Wasserstein()"
    assert built.penalties.weight == 2.0
    assert (built.play.n_critic, built.play.critic.lr) == (5, 1e-4)
    assert built.bound


def test_the_namespace_holds_every_part_once_with_a_docstring_and_each_short_name_is_its_own():
    names = recipes.__all__
    assert sorted(set(names)) == sorted(names)
    assert [name for name in names if not getattr(recipes, name).__doc__] == []
    for slot in (recipes.Recipe, recipes.Prior, recipes.Likelihood, recipes.FlowKind):
        parts = [part for part in all_subclasses(slot) if not inspect.isabstract(part)]
        of_package = [part for part in parts if part.__module__.startswith("pyro_dgm.")]
        assert len(of_package) > 3
        assert {part.__name__ for part in of_package} <= set(names)


def all_subclasses(kind):
    return {below for child in kind.__subclasses__() for below in {child, *all_subclasses(child)}}
