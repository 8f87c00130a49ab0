"""Each mistake in flags is answered with its path, what was expected, and the nearest name; nothing is built."""

import pytest

from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.experiments.configuration.arguments import read_experiment

ANSWERS = {
    "--model=VEA": r"model: expected Recipe: .*VAE.*, or file\.py:Name, got 'VEA'\. Fix: did you mean 'VAE'\.",
    "--model=Levls": r"model: expected Recipe: .*, got 'Levls'\. Fix: --model=VAE\.",
    "--modl=VAE": r"modl: expected a part of an experiment: model, .* Fix: did you mean 'model'\.",
    "--model.latnt=3": r"model\.latnt: expected a setting of VAE: latent, .* Fix: did you mean 'latent'\.",
    "--epoch=1": r"epoch: expected a part .*, got 'epoch'\. Fix: did you mean 'epochs'\.",
    "--epochs=many": r"epochs: expected a whole number, got 'many'\. Fix: --epochs=150\.",
    "--epochs": r"epochs: expected --epochs=VALUE, got '--epochs'\. Fix: say the value",
    "--seeds=[0,a]": r"seeds\[1\]: expected a whole number, got 'a'\. Fix: 10 there\.",
    "--seeds=a": r"seeds: expected a whole number or a list, each a whole number, got 'a'\. Fix: --seeds=1\.",
    "--data=null": r"data: expected Data: .*, or a file or a folder, got 'null'\. Fix: --data=Digits\.",
    "--data=nofile.csv": r"data: .*/nofile\.csv: expected a file or a folder of data, got no such file in /.*\. Fix: ",
    "--data=nowhere/nofile.npz": r"data: /.*/nofile\.npz: .*, got no such file, and no folder /.*/nowhere\. Fix: ",
    "--data=nofile.data": r"data: .*, got 'nofile\.data', and no such file\. Fix: ",
    "--data=File --data.path=x --data.drop=id": r"data\.drop: expected a list, .*Fix: '--data\.drop=\[id\]'\.$",
    "--data.pth=3": r"data\.pth: expected a setting of Digits: num_val, num_test, got 'pth'\. Fix: leave it out",
    "--trainer.lr=fast": r"trainer\.lr: expected a number, got 'fast'\. Fix: --trainer\.lr=0\.001\.",
    "--trainer.optimizer=Adm": r"trainer\.optimizer: expected Optimizer .*, got 'Adm'\. Fix: did you mean 'Adam'\.",
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
