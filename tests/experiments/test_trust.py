"""A run directory executes nothing: slots take their kind alone, and modules need the caller's word."""

import sys

import pytest
import yaml
from jsonargparse import ArgumentParser
from jsonargparse._common import parsing_settings

from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.experiments.configuration.trust import modules_in, only_trusted, take_trust
from pyro_dgm.experiments.runs.layout import CONFIG, weights_of
from pyro_dgm.files.manifest import Manifest

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)

CANARY = """
from pathlib import Path
import pyro_dgm as dgm
from pyro_dgm import recipes
from pyro_dgm.recipes import Recipe
HERE = Path(__file__).parent
(HERE / "imported").touch()

def sing_a_vae(*_, **__) -> dgm.VAE:
    (HERE / "sang").touch()

def sing(*_, **__):
    (HERE / "sang").touch()

def sing_a_number(*_, **__) -> int:
    (HERE / "sang").touch()

class Bird:
    def __init__(self, *_, **__):
        (HERE / "sang").touch()
    __call__ = sing

def sing_a_recipe(*_, **__) -> Recipe:
    (HERE / "sang").touch()

def small_vae(hidden: int = 8) -> Recipe:
    return recipes.VAE(latent=2, network=recipes.Dense([hidden]))
"""
SLOTS = (
    ("model",),
    ("data",),
    ("objective",),
    ("objective", "init_args", "beta"),
    ("trainer",),
    ("trainer", "init_args", "optimizer"),
    ("trainer", "init_args", "schedule"),
    ("model", "init_args", "vae", "init_args", "prior"),
    ("model", "init_args", "vae", "init_args", "encoder", "init_args", "family"),
    ("model", "init_args", "vae", "init_args", "encoder", "init_args", "net"),
)
VAE = {
    "class_path": "pyro_dgm.VAE",
    "init_args": {
        "prior": {"class_path": "pyro_dgm.StandardNormal", "init_args": {"dim": 2}},
        "likelihood": {
            "class_path": "pyro_dgm.DiscretizedLogistic",
            "init_args": {
                "net": {"class_path": "pyro_dgm.nn.MLP", "init_args": {"sizes": [2, 8, 128]}},
                "levels": 17,
            },
        },
        "encoder": {
            "class_path": "pyro_dgm.Conditional",
            "init_args": {
                "family": "pyro.distributions.Normal",
                "net": {"class_path": "pyro_dgm.nn.MLP", "init_args": {"sizes": [64, 8, 4]}},
            },
        },
    },
}
PLAN = {
    "model": {"class_path": "Composition", "init_args": {"vae": VAE}},
    "data": {"class_path": "pyro_dgm.datasets.Digits"},
    "objective": {"class_path": "pyro_dgm.ELBO", "init_args": {}},
    "trainer": {"class_path": "pyro_dgm.SVITrainer", "init_args": {"lr": 0.001}},
    "epochs": 1,
    "evaluation": {"num": 5, "limit": 5},
}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module of the caller whose functions leave a file behind when they are called."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "canary.py").write_text(CANARY)
    yield tmp_path
    sys.modules.pop("canary", None)


def put(plan, slot, value):
    *outer, last = slot
    for name in outer:
        plan = plan[name]
    plan[last] = value


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    return printed


SONGS = ("sing", "sing_a_number", "sing_a_vae", "sing_a_recipe", "Bird")


def songs_of_another_kind(slot):
    """A VAE is a module, which is what a prior and a network are."""
    own = {("model",): "sing_a_recipe"}.get(
        slot, "sing_a_vae" if slot[-1] in ("prior", "net") else ""
    )
    return [song for song in SONGS if song != own]


@pytest.mark.parametrize("slot", SLOTS, ids=".".join)
def test_a_callable_of_another_kind_is_refused_with_its_key_and_not_called(slot, canary, capsys):
    for song in songs_of_another_kind(slot):
        for value in (f"canary.{song}", {"class_path": f"canary.{song}"}):
            plan = yaml.safe_load(yaml.safe_dump(PLAN))
            put(plan, slot, value)
            (canary / "plan.yaml").write_text(yaml.safe_dump(plan))
            flags = [f"--config={canary / 'plan.yaml'}", f"--out={canary / 'run'}"]
            printed = refused(["fit", *flags, "--trust=canary"], capsys)
            assert slot[0] in printed
            assert f"canary.{song}" in printed
    assert not (canary / "sang").exists()


@pytest.mark.parametrize(
    "path",
    ["os.system", "torch.os.system", "pyro_dgm.files.writing.os.system", "torch.load", "torch.hub.load",
     "torch.utils.cpp_extension.load", "subprocess.Popen", "builtins.eval", "pyro_dgm.save_weights"],
)  # fmt: skip
def test_a_function_that_runs_commands_is_refused_in_every_slot(path, canary, capsys):
    for slot in (SLOTS[2], SLOTS[5]):
        plan = yaml.safe_load(yaml.safe_dump(PLAN))
        put(plan, slot, {"class_path": path, "init_args": {"args": f"touch {canary / 'sang'}"}})
        (canary / "plan.yaml").write_text(yaml.safe_dump(plan))
        printed = refused(
            ["fit", f"--config={canary / 'plan.yaml'}", f"--out={canary / 'run'}"], capsys
        )
        assert slot[-1] in printed
    assert not (canary / "sang").exists()


def test_a_module_without_the_callers_word_is_refused_before_it_is_imported(canary, capsys):
    plan = {**PLAN, "model": "canary.small_vae"}
    (canary / "plan.yaml").write_text(yaml.safe_dump(plan))
    flags = ["fit", f"--config={canary / 'plan.yaml'}", f"--out={canary / 'run'}"]
    printed = refused(flags, capsys)
    assert "got 'canary.small_vae', which was not imported. Fix: --trust=canary" in printed
    assert not (canary / "imported").exists()


def test_a_configuration_can_not_trust_for_the_caller(canary, capsys):
    plan = {**PLAN, "model": "canary.small_vae", "trust": "canary"}
    (canary / "plan.yaml").write_text(yaml.safe_dump(plan))
    refused(["fit", f"--config={canary / 'plan.yaml'}", f"--out={canary / 'run'}"], capsys)
    assert not (canary / "imported").exists()


def test_a_run_of_a_module_that_is_trusted_is_fitted_and_evaluated_and_sampled(canary, capsys):
    out = canary / "run"
    flags = ["--epochs=1", "--evaluation.num=5", "--evaluation.limit=5"]
    main(["fit", "--model=canary.small_vae", *flags, f"--out={out}"])  # a flag is the caller's word
    assert "trust" not in yaml.safe_load((out / CONFIG).read_text())
    printed = refused(["evaluate", str(out), "--num=5"], capsys)
    assert "Fix: --trust=canary" in printed
    main(["evaluate", str(out), "--num=5", "--limit=5", "--trust", "canary"])
    main(["sample", str(out), "--num=5", "--trust=canary"])
    assert "5 samples" in capsys.readouterr().out


def test_evaluate_and_sample_look_at_model_and_data_alone(canary, capsys):
    """Whatever else a configuration names is not imported, even where its digest is right."""
    out = canary / "run"
    (canary / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    main(["fit", f"--config={canary / 'plan.yaml'}", f"--out={out}"])
    plan = yaml.safe_load((out / CONFIG).read_text())
    for slot in (("objective",), ("trainer",)):
        plan[slot[0]] = {"class_path": "canary.sing"}
    Manifest(out).write(CONFIG, yaml.safe_dump(plan).encode())
    main(["evaluate", str(out), "--num=5", "--limit=5", "--trust=canary"])
    main(["sample", str(out), "--num=5", "--trust=canary"])
    assert not (canary / "imported").exists()


@pytest.mark.parametrize("slot", [SLOTS[0], SLOTS[1], *SLOTS[7:]], ids=".".join)
def test_evaluate_refuses_a_callable_of_another_kind_and_does_not_call_it(slot, canary, capsys):
    out = canary / "run"
    out.mkdir()
    (out / weights_of(0)).parent.mkdir()
    (out / weights_of(0)).touch()
    for song in songs_of_another_kind(slot):
        plan = yaml.safe_load(yaml.safe_dump(PLAN))
        put(plan, slot, {"class_path": f"canary.{song}"})
        Manifest(out).write(CONFIG, yaml.safe_dump(plan).encode())
        printed = refused(["evaluate", str(out), "--trust=canary"], capsys)
        assert slot[0] in printed
        assert CONFIG in printed
    assert not (canary / "sang").exists()


def test_tags_of_yaml_run_nothing(canary, capsys):
    text = "model: !!python/object/apply:os.system ['touch sang']\n"
    (canary / "plan.yaml").write_text(text)
    printed = refused(["fit", f"--config={canary / 'plan.yaml'}"], capsys)
    assert (
        "plan.yaml: expected a configuration in YAML, got could not determine a constr" in printed
    )


def test_a_class_in_a_place_of_any_type_is_not_built(canary, capsys):
    """`device` of a torch layer has no type: jsonargparse would build any class there."""
    plan = yaml.safe_load(yaml.safe_dump(PLAN))
    layer = {"in_features": 64, "out_features": 4, "device": {"class_path": "canary.Bird"}}
    put(plan, SLOTS[-1], {"class_path": "torch.nn.Linear", "init_args": layer})
    (canary / "plan.yaml").write_text(yaml.safe_dump(plan))
    flags = [f"--config={canary / 'plan.yaml'}", f"--out={canary / 'run'}", "--trust=canary"]
    printed = refused(["fit", *flags], capsys)
    assert "model" in printed
    assert not (canary / "sang").exists()


def test_the_settings_of_other_parsers_are_left_alone():
    before = dict(parsing_settings)
    with only_trusted(["json"]):
        assert parsing_settings != before
    assert parsing_settings == before
    assert ArgumentParser().parse_args([]) is not None


@pytest.mark.parametrize("value", ["./canary.v1", "canary.small_vae"])
def test_a_value_that_looks_like_an_import_path_is_no_word_of_trust(value, canary, capsys):
    (canary / "plan.yaml").write_text(yaml.safe_dump({"model": "canary.small_vae"}))
    config = f"--config={canary / 'plan.yaml'}"
    printed = refused(["fit", config, "--data=Idx", f"--data.folder={value}"], capsys)
    assert "model: expected a part of pyro_dgm" in printed
    assert "got 'canary.small_vae', which was not imported. Fix: --trust=canary" in printed
    assert not (canary / "imported").exists()


WRONG = {
    "a command": ["--model=os.system"],
    "a command where several types fit": ["--trainer.optimizer=os.system"],
    "a command inside of another part": ["--model=pyro_dgm.VAE", "--vae.prior=subprocess.Popen"],
    "a module that is not there": ["--model=nowhere.vae"],
    "a name that is not there": ["--model=pyro_dgm.nothing"],
    "a word": ["--model=Nothing"],
    "a function of another kind": ["--objective=pyro_dgm.nll"],
    "a number for a mapping": ["--objective.beta=4"],
    "a text for a number": ["--epochs=many"],
    "a flag that is not there": ["--epoch=1"],
}


@pytest.mark.parametrize("flags", WRONG.values(), ids=WRONG)
def test_a_wrong_flag_is_answered_with_one_fix(flags, canary, capsys):
    printed = refused(["fit", *flags, f"--out={canary / 'run'}"], capsys)
    assert printed.count("Fix:") == 1
    name, _, value = flags[-1].removeprefix("--").partition("=")
    assert value.split(".")[-1] in printed or f"got '{name.split('.')[0]}'" in printed


def test_evaluate_answers_a_denied_path_with_one_fix(canary, capsys):
    out = canary / "run"
    out.mkdir()
    (out / weights_of(0)).parent.mkdir()
    (out / weights_of(0)).touch()
    Manifest(out).write(CONFIG, yaml.safe_dump({**PLAN, "model": "canary.small_vae"}).encode())
    printed = refused(["evaluate", str(out)], capsys)
    assert printed.count("Fix:") == 1
    assert "Fix: --trust=canary, if it is yours." in printed


def test_a_name_that_is_no_module_is_refused():
    with pytest.raises(ValueError, match="trust: expected names of modules, got 'a b'. Fix"):
        only_trusted(["a b"]).__enter__()


def test_trust_is_taken_from_flags():
    rest, trusted = take_trust(["fit", "--trust=a,b", "--epochs=1", "--trust", "c"])
    assert (rest, trusted) == (["fit", "--epochs=1"], ["a", "b", "c"])
    flags = ["--model=mine.vae", "--data", "yours.Data", "--out=not.this", "--objective=os.system"]
    assert modules_in(flags) == ["mine", "yours"]
