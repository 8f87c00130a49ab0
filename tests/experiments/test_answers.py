"""Each mistake in flags is answered with its path, what was expected, and the nearest name; nothing is built."""

import numpy as np
import pytest
import torch

from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.experiments.configuration.arguments import read_experiment
from pyro_dgm.experiments.configuration.trust import with_fix

ANSWERS = {
    "--model=VEA": r"model: expected Recipe: .*VAE.*, or file\.py:Name, got 'VEA'\. Fix: did you mean 'VAE'\.",
    "--model=Levls": r"model: expected Recipe: .*, got 'Levls'\. Fix: --model=VAE\.",
    "--modl=VAE": r"modl: expected a part of an experiment: model, .* Fix: did you mean 'model'\.",
    "--model.latnt=3": r"model\.latnt: expected a setting of VAE: latent, .* Fix: did you mean 'latent'\.",
    "--epoch=1": r"epoch: expected a part .*, got 'epoch'\. Fix: did you mean 'epochs'\.",
    "--epochs=many": r"epochs: expected a whole number, got 'many'\. Fix: --epochs=150\.",
    "--epochs": r"epochs: expected --epochs=VALUE, got '--epochs'\. Fix: say the value",
    "--foo": r"foo: expected a part of an experiment: model, .*, got 'foo'\. Fix: pyro-dgm fit --help\.",
    "-e 3": r"-e: expected flags as --NAME=VALUE, .*, got '-e'\. Fix: pyro-dgm fit --help",
    "--model.likelihood=Bernouli": r"model\.likelihood: expected Likelihood: Given, Bernoulli, .*'Bernoulli'\.",
    "--trust=nope": r"trust: expected a module that can be imported, got 'nope'\. Fix: .* of nope\.py",
    "--seeds=[0,a]": r"seeds\[1\]: expected a whole number, got 'a'\. Fix: 10 there\.",
    "--seeds=a": r"seeds: expected a whole number or a list, each a whole number, got 'a'\. Fix: --seeds=1\.",
    "--data=null": r"data: expected Data: .*, or a file or a folder, got 'null'\. Fix: --data=Digits\.",
    "--data=nofile.csv": r"data: .*/nofile\.csv: expected a file or a folder of data, got no such file in /.*\. Fix: ",
    "--data=nowhere/nofile.npz": r"data: /.*/nofile\.npz: .*, got no such file, and no folder /.*/nowhere\. Fix: ",
    "--data=nofile.data": r"data: .*, got 'nofile\.data', and no such file\. Fix: ",
    "--data=File --data.path=x --data.drop=id": r"data\.drop: expected a list, .*Fix: '--data\.drop=\[id\]'\.$",
    "--data.pth=3": r"data\.pth: expected a setting of Digits: num_val, num_test, got 'pth'\. Fix: leave it out",
    "--trainer.lr=fast": r"trainer\.lr: expected a number, got 'fast'\. Fix: --trainer\.lr=0\.001\.",
    "--trainer.optimizer=Adm": r"trainer\.optimizer: expected Optimizer: .*, got 'Adm'\. Fix: did you mean 'Adam'\.",
    "--objective.beta.z=LinearWarmp": r"objective\.beta\.z: expected Schedule: .* Fix: did you mean 'LinearWarmup'\.",
    "--adversarial.game=Hing": r"adversarial\.game: expected Game: .* Fix: did you mean 'Hinge'\.",
    "--model.prior=FlowPriors": r"model\.prior: expected Prior: .* Fix: did you mean 'FlowPrior'\.",
    "--model.prior=FlowPrior --model.prior.layrs=4": r"model\.prior\.layrs: expected a setting .*'layers'\.",
    "--model.prior.layrs 4 --model.prior FlowPrior": r"model\.prior\.layrs: expected a setting .*'layers'\.",
    "--model=pyro_dgm.VAE": r"model: expected Recipe: .*, got 'pyro_dgm\.VAE'\. Fix: did you mean 'VAE'\.",
    "--model=pyro_dgm.nothing": r"model: expected a name in pyro_dgm, got 'nothing'\. Fix: ",
    "--model=os.system": r"model: expected a part of pyro_dgm, .*, got 'os\.system', .*\. Fix: ",
}


@pytest.mark.parametrize("flags", ANSWERS)
def test_a_mistake_is_answered_with_its_path_and_the_nearest_name(flags):
    with pytest.raises(ValueError, match=f"^{ANSWERS[flags]}") as caught:
        _ = read_experiment(None, flags.split()).data
    assert str(caught.value).count("Fix:") == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["tabel.csv", "./tabel.csv", "table.npz", "table"])
def test_a_path_that_is_not_there_is_answered_with_the_nearest_file(tmp_path, monkeypatch, word):
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "results.md").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"Fix: --data(\.path)?=(.*/)?table\.csv\.$"):
        _ = read_experiment(None, [f"--data={word}"]).data


# What a part refuses names the flag that set it, and a value of it that works.
REFUSED = {
    "--model.prior=FlowPrior --model.prior.layers=0": "model.prior.layers=2",
    "--model.latent=0": "model.latent=16",
    "--model.latent=0 --model.likelihood=DiscretizedLogistic --model.likelihood.min_scale=0": (
        "model.latent=16"
    ),
    "--model.likelihood=DiscretizedLogistic --model.likelihood.min_scale=-1": (
        "model.likelihood.min_scale=0.3"
    ),
    "--model.prior=Vamp --model.prior.pseudo_inputs=0": "model.prior.pseudo_inputs=500",
    "--objective=IWELBO --objective.num_particles=0": "objective.num_particles=16",
    "--trainer.lr=0": "trainer.lr=0.001",
    "--trainer.clip=-1": "trainer.clip=null",
    "--data.num_val=0": "data.num_val=150",
    "--adversarial.critic=Dense --adversarial.play=Alternating --adversarial.play.n_critic=0": (
        "adversarial.play.n_critic=1"
    ),
    "--adversarial.critic=Dense --adversarial.play=Alternating --adversarial.play.critic.lr=0": (
        "adversarial.play.critic.lr=0.001"
    ),
}


def build(flags):
    experiment = read_experiment(None, flags)
    experiment.trainer(experiment.programs(), torch.device("cpu"))


@pytest.mark.parametrize("flags", REFUSED)
def test_a_number_that_a_part_refuses_is_answered_with_its_flag_and_the_default_works(flags):
    path = REFUSED[flags].partition("=")[0]
    with pytest.raises(ValueError, match=rf"^{path}: .*expected .* Fix: --") as caught:
        build(flags.split())
    assert str(caught.value).endswith(f" Fix: --{REFUSED[flags]}.")
    assert str(caught.value).count("Fix:") == 1
    build([*flags.split(), f"--{REFUSED[flags]}"])


def test_a_number_that_is_not_to_blame_is_not_named():
    """Of two settings that are not their defaults, the wrong one."""
    flags = ["--model.latent=3", "--model.prior=Mixture", "--model.prior.components=0"]
    with pytest.raises(ValueError, match=r"^model\.prior\.components: .*=10\.$"):
        build(flags)


def test_a_data_set_that_no_default_makes_is_answered_as_it_was():
    with pytest.raises(ValueError, match=r"^data: .*no-such-folder"):
        _ = read_experiment(None, ["--data=Idx", "--data.folder=no-such-folder"]).data


@pytest.mark.parametrize("name", ["Bernoulli", "ContinuousBernoulli"])
def test_a_likelihood_of_other_data_is_answered_with_a_flag_that_works(name):
    with pytest.raises(ValueError, match=rf"^model\.likelihood: .* for {name}, got levels") as said:
        build([f"--model.likelihood={name}"])
    fix = str(said.value).partition("Fix: ")[2].rstrip(".")
    assert fix == "--model.likelihood=DiscretizedLogistic"
    build([f"--model.likelihood={name}", fix])


def test_grey_values_of_a_file_may_be_binarized_for_a_bernoulli(tmp_path):
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).integers(0, 17, (60, 9)))
    flags = [f"--data={tmp_path / 'grey.npy'}", "--model.likelihood=Bernoulli"]
    with pytest.raises(ValueError, match=r"Fix: --model\.likelihood=\w+, or --data\.binarize=dyn"):
        build(flags)
    build([*flags, "--data.binarize=dynamic", "--data.levels=17"])


def test_a_module_that_there_is_may_be_trusted_though_nothing_uses_it(tmp_path, monkeypatch):
    (tmp_path / "unused_module.py").write_text("")
    (tmp_path / "unused_folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert read_experiment(None, ["--trust=unused_module,unused_folder"]).epochs > 0


# In the words of the command line: the verb once, no table, no words of the parser.
SAID = {
    "fit --quite": "fit: quite: expected a flag of pyro-dgm fit, got '--quite'. Fix: did you mean --quiet.",
    "fit --prnt-config": "Fix: did you mean --print_config.",
    "fit --trsut=x": "Fix: did you mean --trust.",
    "sweep --qiet": "Fix: did you mean --quiet.",
    "fit --batch-size=x": "fit: batch_size: expected a whole number, got 'x'. Fix: --batch_size=100.",
    "fit --patience=0": "pyro-dgm fit: expected patience >= 1, got 0. Fix: --patience=20.",
    "fit --epochs=0": "pyro-dgm fit: expected epochs >= 1, got 0. Fix: --epochs=100.",
    "fit --evaluation.num=0": "pyro-dgm fit: evaluation: expected num >= 1, got 0. Fix:",
    "--data.help": "expected a verb first: fit, resume, {}; got '--data.help'. Fix: pyro-dgm fit --data.help.",
    "fti": "Fix: pyro-dgm fit.",
    "fit --loggers=PrintEvery --loggers.epochs=0": "fit: loggers: PrintEvery: expected epochs",
}


@pytest.mark.parametrize("words", SAID)
def test_the_command_line_says_it_once_and_in_its_own_words(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(words.split())
    said = capsys.readouterr().err
    for part in SAID[words].split("{}"):
        assert part in said
    assert said.count("\n") == 1
    assert "Problem with given" not in said
    assert "Trace Shapes" not in said


def test_hyphens_in_the_name_of_a_flag_are_underscores(capsys):
    main(["fit", "--batch-size=7", "--print-config"])
    assert "batch_size: 7" in capsys.readouterr().out


def test_an_error_of_a_program_has_no_table_of_sites_on_the_command_line():
    error = "model: site 'x': expected a. Fix: b.\n\nSites of the model:\nTrace Shapes:\n Param Sites:\n"
    assert with_fix(error) == "model: site 'x': expected a. Fix: b."


def test_a_mapping_is_answered_as_a_file_is():
    source = {
        "model": {
            "class_path": "VAE",
            "init_args": {"prior": {"class_path": "FlowPrior"}},
            "latent": 2,
        }
    }
    with pytest.raises(
        ValueError, match=r"^model\.latent: expected class_path and init_args alone"
    ):
        read_experiment(source)


def test_a_program_of_ones_own_where_a_recipe_stands_is_told_its_place(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "theirs.py").write_text("class Pair:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", "--model=theirs.Pair"])
    said = capsys.readouterr().err
    assert "Fix: --model=Own --model.program=theirs.Pair, for a program of your own" in said


@pytest.mark.parametrize(
    ("place", "parent"),
    [("model.prior", "Prior"), ("model.likelihood", "Likelihood"), ("data", "Data")],
)
def test_a_class_of_ones_own_of_another_kind_is_told_what_to_inherit(
    tmp_path, monkeypatch, place, parent
):
    file = f"wide_{parent.lower()}.py"  # one name for each: a module is imported once
    (tmp_path / file).write_text("class Wide:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"Fix: class Wide\({parent}\), a subclass\.$"):
        read_experiment(None, [f"--{place}={file}:Wide"])
