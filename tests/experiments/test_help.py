"""Help on one screen, at every level."""

import contextlib

import pytest

from pyro_dgm.datasets import Digits
from pyro_dgm.experiments.cli.command_line import VERBS, main
from pyro_dgm.experiments.cli.settings import help_of_part

SCREEN = 45  # lines


@pytest.mark.parametrize("verb", [[], *[[name] for name in VERBS if name != "recipes"]])
def test_help_of_a_verb_fits_on_a_screen(verb, capsys):
    with contextlib.suppress(SystemExit):  # argparse ends so
        main([*verb, "--help"])
    assert 5 < len(capsys.readouterr().out.splitlines()) <= SCREEN


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--model.help"],
            ["VAE: A VAE of a prior", "Density: A flow", "Own: A program of your own"],
        ),
        (
            ["--data.help"],
            ["a file or a folder", "File: Data of a file", "Ring: Points of the `ring`"],
        ),
        (["--loggers.help"], ["a list, each Logger", "TensorBoard: Curves for TensorBoard"]),
        (
            ["--trainer.optimizer.help"],
            ["or null", "Adam: Implements Adam algorithm\n", "ClippedAdam\n"],
        ),
        (["--model.help=VAE"], ["--model.latent (default 16)", "FlowPrior", "Convolutional"]),
        (["--model.prior.help=FlowPrior"], ["--model.prior.layers (default 2)", "SplineMAF"]),
        (["--model.prior=FlowPrior", "--model.prior.flow.help"], ["RealNVP"]),
        (["--model=Density", "--model.dequantizer.help=FlowNoise"], ["--model.dequantizer.layers"]),
        (["--data.help=File"], ["--data.path", "--data.missing"]),
        (["--trainer.help=SVITrainer"], ["--trainer.lr", "--trainer.compile"]),
        (["--objective.help=IWELBO"], ["--objective.num_particles"]),
        (["--adversarial.critic.help=Dense"], ["--adversarial.critic.hidden"]),
        (["--evaluation.help"], ["--evaluation.num (default 1000): importance draws"]),
        (["--trainer.help"], ["--trainer.lr (default 0.001): learning rate", "--trainer.clip"]),
        (["--objective.help"], ["IWELBO", "--objective.num_particles (default 1): "]),
        (["--epochs.help"], ["--epochs (default 150): epochs in all", "such as --epochs=150"]),
        (["--model.latent.help"], ["--model.latent (default 16): latent dims."]),
        (["--model.likelihood.help"], ["Bernoulli", "StudentT", "ColourLogisticMixture"]),
    ],
)
def test_help_of_a_part_fits_on_a_screen_and_names_its_settings(flags, words):
    text = help_of_part(flags)
    assert len(text.splitlines()) <= SCREEN
    assert max(map(len, text.splitlines())) <= 100
    for word in words:
        assert word in text


def test_data_sets_that_flags_can_name_are_listed_once_and_no_others(capsys):
    class TheirData(Digits):
        pass

    TheirData.__qualname__, TheirData.__module__ = "TheirData", "theirs"
    text = help_of_part(["--data.help"])
    names = [line.split(":")[0].strip() for line in text.splitlines() if line.startswith("  ")]
    listed = [name for name in names if name.isidentifier()]
    assert listed == ["Digits", "FreyFaces", "File", "Idx", "OpenML", "Ring"]
    assert "TheirData" not in names  # what other modules define, which nobody trusts here
    main(["fit", "--help"])
    assert "a data set by a name that `--data.help` lists" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "fix"),
    [
        (["--model.priro.help"], r"did you mean 'prior'\.$"),
        (["--model.help=VEA"], r"did you mean 'VAE'\.$"),
    ],
)
def test_help_on_what_there_is_not_names_the_nearest(flags, fix):
    with pytest.raises(ValueError, match=f"Fix: {fix}"):
        help_of_part(flags)
