"""A program in the user's own file: named on the command line, loaded and evaluated from another process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pyro_dgm
from pyro_dgm.experiments.cli.command_line import main

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)

PROGRAMS = """
import pyro
from torch import nn

import pyro_dgm as dgm


class MyVAE(nn.Module):
    def __init__(self, dim, levels, latent=2):
        super().__init__()
        self.vae = dgm.VAE(
            dgm.StandardNormal(latent),
            dgm.DiscretizedLogistic(dgm.mlp(latent, 8, 2 * dim), levels=levels),
            dgm.Conditional(pyro.distributions.Normal, dgm.mlp(dim, 8, 2 * latent)),
        )
        self.model, self.guide = self.vae.model, self.vae.guide


def my_pair(dim, levels):
    made = MyVAE(dim, levels)
    return made.model, made.guide
"""
DATA = """
import torch

from pyro_dgm.datasets import Data


class MyData(Data):
    def __init__(self, num: int = 60):
        rows = torch.arange(float(2 * num)).remainder(3).reshape(num, 2)
        super().__init__(*rows.split([num - 20, 10, 10]), event_shape=(2,), levels=3)
"""
SHORT = ["--epochs=1", "--evaluation.num=5", "--evaluation.limit=5", "--device=cpu", "--quiet"]
LOAD = """
import sys
import pyro_dgm as dgm
from pyro_dgm.experiments.runs.run import load_run
run = load_run(sys.argv[1], trust=["own_vae"])
print(type(run.programs[0]).__name__, len(run.results))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module in it, and one in a folder below."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "below").mkdir()
    for path in (tmp_path / "own_vae.py", tmp_path / "below" / "other_vae.py"):
        path.write_text(PROGRAMS)
    yield tmp_path
    for name in ("own_vae", "own_data", "other_vae", "broken_vae"):
        sys.modules.pop(name, None)


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("Fix:") == 1
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    "program", ["own_vae.py:MyVAE", "below/other_vae.py:my_pair", "own_vae.MyVAE"]
)
def test_a_class_or_a_function_of_a_file_is_fitted(program, folder):
    shorter = "own_vae.MyVAE" if program == "own_vae.MyVAE" else ""
    flags = ["--model=Own", f"--model.program={shorter}"] if shorter else [f"--model={program}"]
    main(["fit", *flags, *SHORT, "--out=run"])
    assert (folder / "run" / "results.jsonl").exists()


@pytest.mark.parametrize("data", ["own_data.py:MyData", "own_data.MyData"])
def test_a_data_set_of_a_file_is_read_with_its_settings(data, folder):
    (folder / "own_data.py").write_text(DATA)
    main(["fit", f"--data={data}", "--data.num=50", *SHORT, "--out=run"])
    run = pyro_dgm.load_run("run", trust=["own_data"])
    assert type(run.data).__name__ == "MyData"
    assert len(run.data.train) == 30


@pytest.mark.parametrize("data", ["own_data.py:MyData", "own_data.MyData"])
def test_help_on_a_class_of_a_file_tells_its_settings(data, folder, capsys):
    (folder / "own_data.py").write_text(DATA)
    main(["fit", f"--data.help={data}"])
    assert "--data.num (default 60)" in capsys.readouterr().out


def test_help_imports_a_module_of_another_flag_with_trust_alone(folder, capsys):
    (folder / "own_data.py").write_text(DATA)
    said = refused(["fit", "--data=own_data.MyData", "--data.num.help"], capsys)
    assert "Fix: --trust=own_data, if it is yours." in said
    assert "own_data" not in sys.modules


def test_an_experiment_names_a_data_set_of_a_file_with_trust(folder):
    (folder / "own_data.py").write_text(DATA)
    (folder / "plan.yaml").write_text("data: own_data.py:MyData\n")
    main(["fit", "plan.yaml", *SHORT, "--out=run", "--trust=own_data"])
    assert (folder / "run" / "results.jsonl").exists()


def python(*arguments, folder):
    package = str(Path(pyro_dgm.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_its_run_is_loaded_evaluated_and_resumed_in_other_processes_elsewhere(
    folder, tmp_path_factory
):
    """Its folder is found again by `environment.json`, once the module is trusted."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run = str(folder / "run")
    main(["fit", "--model=own_vae.py:MyVAE", *SHORT, "--out=run"])
    environment = json.loads((folder / "run" / "environment.json").read_text())
    assert environment["modules"] == {"own_vae": str(folder)}
    loaded = python("-c", LOAD, run, folder=elsewhere)
    assert loaded.stdout == "MyVAE 1\n", loaded.stderr
    evaluate = ["-m", "pyro_dgm", "evaluate", run, "--num=6", "--limit=5", "--device=cpu"]
    refusal = python(*evaluate, folder=elsewhere)
    assert refusal.returncode == 2
    assert "which was not imported. Fix: --trust=own_vae, if it is yours." in refusal.stderr
    evaluated = python(*evaluate, "--trust=own_vae", folder=elsewhere)
    assert evaluated.returncode == 0, evaluated.stderr
    resume = ["-m", "pyro_dgm", "resume", run, "--epochs=2", "--trust=own_vae"]
    resumed = python(*resume, folder=elsewhere)
    assert resumed.returncode == 0, resumed.stderr
    assert len((folder / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_file_of_an_experiment_names_a_program_with_trust_alone(folder, capsys):
    (folder / "plan.yaml").write_text("model: below/other_vae.py:MyVAE\ndata: Digits\n")
    before = list(sys.path)
    said = refused(["fit", "plan.yaml", *SHORT, "--out=run"], capsys)
    assert "model.program: expected a part of" in said
    assert "Fix: --trust=other_vae, if it is yours." in said
    assert sys.path == before
    assert "other_vae" not in sys.modules
    main(["fit", "plan.yaml", *SHORT, "--out=run", "--trust=other_vae"])
    assert (folder / "run" / "results.jsonl").exists()


WRONG = {
    "own_vae.py:MyVEA": "model.program: expected a name in own_vae.py: MyVAE, my_pair, got 'MyVEA'. "
    "Fix: did you mean 'MyVAE'.",
    "own_vea.py:MyVAE": "model: expected a Python file, got 'own_vea.py', which does not exist. "
    "Fix: did you mean 'own_vae.py:MyVAE'.",
    "random.py:MyVAE": "model: expected a file with the name of a module of your own, got 'random.py'. Fix: ",
    "nowhere.MyVAE": "model: expected Recipe",
}


@pytest.mark.parametrize("program", WRONG)
def test_a_wrong_name_is_answered_with_the_nearest(program, folder, capsys):
    (folder / "random.py").write_text(PROGRAMS)
    assert WRONG[program] in refused(["fit", f"--model={program}", *SHORT], capsys)


BROKEN = {
    "import torch\nx = torch.nothing\n": "module 'torch' has no attribute 'nothing' ({}, line 2)",
    "import nowhere_at_all\n": "ModuleNotFoundError: No module named 'nowhere_at_all' ({}, line 1)",
    "1 / 0\n": "ZeroDivisionError: division by zero ({}, line 1)",
    "def f(:\n": "SyntaxError: invalid syntax (broken_vae.py, line 1)",
}


@pytest.mark.parametrize("text", BROKEN)
def test_an_error_inside_the_file_is_told_with_its_line(text, folder, capsys):
    file = folder / "broken_vae.py"
    file.write_text(text)
    said = refused(["fit", "--model=broken_vae.py:MyVAE", *SHORT], capsys)
    assert "model.program: expected broken_vae to be imported without an error, got " in said
    assert BROKEN[text].format(file) in said
    assert "Fix: mend that line." in said


def test_a_file_whose_name_another_module_has_is_refused(folder, capsys):
    (folder / "yaml.py").write_text(PROGRAMS)
    said = refused(["fit", "--model=yaml.py:MyVAE", *SHORT], capsys)
    assert "which has the same name and is imported first. Fix: rename yaml.py." in said


PARTS = """
from dataclasses import dataclass
import pyro_dgm as dgm
from pyro_dgm.recipes import Prior

@dataclass(frozen=True)
class Wide(Prior):
    scale: float = 2.0

    def build(self, dim, data, encoder=None):
        return dgm.StandardNormal(dim)
"""


@pytest.mark.parametrize(
    "source", [[], ["digits"], ["mine.yaml"]], ids=["nothing", "a name", "a file"]
)
def test_a_part_of_ones_own_is_named_by_a_flag_where_the_experiment_names_the_model(
    source, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = f"parts_of_{len(source)}_{''.join(source).replace('.', '_')}"
    Path(f"{module}.py").write_text(PARTS)
    Path("mine.yaml").write_text("model: {class_path: VAE, init_args: {latent: 2}}\n")
    flags = [f"--model.prior={module}.py:Wide", "--model.prior.scale=3", "--print_config"]
    main(["fit", *source, *flags])
    printed = yaml.safe_load(capsys.readouterr().out)
    prior = printed["model"]["init_args"]["prior"]
    assert prior == {"class_path": f"{module}.Wide", "init_args": {"scale": 3.0}}
