"""The package as a whole: its imports form floors without a cycle, and importing it changes nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pyro_dgm

ROOT = Path(pyro_dgm.__file__).parent
DECLARATION = ("programs",)
INFERENCE = ("inference", "evaluation", "adversarial", "arviz_export")
BOTH = ("experiments", "refitting")  # the only floors that see both wings
NAMESPACES = ("flows", "distributions", "nn", "gan", "results", "diagnostics", "training")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(name: str) -> set[str]:
    """The modules of the package that a module imports anywhere in its text, except for type checking alone."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {
                nearest(alias.name)
                for alias in node.names
                if alias.name.split(".")[0] == "pyro_dgm"
            }
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *filter(None, [node.module])])
            if target.split(".")[0] == "pyro_dgm":
                found |= {nearest(f"{target}.{alias.name}") for alias in node.names}
    return found - {name}


def runtime_nodes(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from runtime_nodes(node)


def nearest(dotted: str) -> str:
    """The module that holds a dotted name."""
    while dotted not in MODULES:
        dotted = dotted.rpartition(".")[0]
    return dotted


def floor(name: str) -> str:
    return (name.split(".") + [""])[1]


GRAPH = {name: imports_of(name) for name in MODULES}


def test_the_imports_are_read_from_the_text():
    assert "pyro_dgm.contract" in GRAPH["pyro_dgm.programs.program"]
    assert "pyro_dgm.programs.flows.bijector" in GRAPH["pyro_dgm.programs.flows.couplings"]
    assert "pyro_dgm.programs.networks.dense" in GRAPH["pyro_dgm.programs.flows.couplings"]


def test_no_import_cycle():
    try:
        cycle = []
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        cycle = error.args[1]
    assert not cycle


@pytest.mark.parametrize(
    ("here", "there"), [(DECLARATION, INFERENCE), (INFERENCE, DECLARATION)], ids=["down", "up"]
)
def test_the_wings_do_not_import_each_other(here, there):
    crossings = [
        (a, b)
        for a, targets in GRAPH.items()
        for b in targets
        if floor(a) in here and floor(b) in there
    ]
    assert not crossings


def test_only_experiments_and_the_front_door_see_both_wings():
    for name, targets in GRAPH.items():
        floors = {floor(t) for t in targets}
        if floors & set(DECLARATION) and floors & set(INFERENCE):
            allowed = name == "pyro_dgm" or floor(name) in (*BOTH, *NAMESPACES)
            assert allowed, f"{name} imports {sorted(targets)}"


def test_no_wing_imports_experiments_or_the_front_door():
    for name, targets in GRAPH.items():
        if floor(name) in (*DECLARATION, *INFERENCE, "contract", "ascent", "representation"):
            assert not [t for t in targets if t == "pyro_dgm" or floor(t) in BOTH], name


def test_training_does_not_import_evaluation():
    assert not [
        (a, b)
        for a, ts in GRAPH.items()
        for b in ts
        if floor(a) == "inference" and floor(b) == "evaluation"
    ]


def test_pyro_sample_appears_in_programs_alone():
    """Conditionals are pure: the words `pyro.sample(` stand in the modules of programs and nowhere else."""
    rooms = ("models", "guides", "dequantization.quantization", "dequantization.noise")
    allowed = {f"pyro_dgm.programs.{name}" for name in rooms}
    calls = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pyro.sample"
    }
    assert calls <= allowed


def test_every_public_name_exists_once():
    assert len(set(pyro_dgm.__all__)) == len(pyro_dgm.__all__)
    assert not [name for name in pyro_dgm.__all__ if not hasattr(pyro_dgm, name)]


def test_every_public_name_has_a_docstring_of_its_own():
    silent = [n for n in pyro_dgm.__all__ if not (getattr(pyro_dgm, n).__doc__ or "").strip()]
    assert not silent


FRESH = """
import json, random, sys, time, warnings
import numpy, torch, pyro
from torch.distributions import Distribution

def globals_():
    random_state = numpy.random.get_state()
    return [
        str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.get_num_threads(),
        pyro.poutine.util.is_validation_enabled(), Distribution._validate_args,
        torch.get_rng_state().tolist(), repr(random.getstate()), random_state[1].tolist(), random_state[2:],
        sorted(pyro.get_param_store().keys()), len(pyro.poutine.runtime._PYRO_STACK),
        [str(f) for f in warnings.filters], torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision(),
    ]

before, start = globals_(), time.process_time()
import pyro_dgm
seconds = time.process_time() - start
print(json.dumps({
    "changed": [i for i, (a, b) in enumerate(zip(before, globals_())) if a != b],
    "seconds": seconds,
    "imported": sorted({"arviz", "matplotlib", "sklearn", "xarray", "h5netcdf", "pandas", "zuko"} & set(sys.modules)),
}))
"""


@pytest.fixture(scope="module")
def fresh() -> dict:
    """What a new process says about `import pyro_dgm` after `import pyro`; the faster of two."""
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", FRESH], check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(2)
    ]
    return min(runs, key=lambda run: run["seconds"])


def test_importing_the_package_changes_no_global(fresh):
    assert fresh["changed"] == []


def test_importing_the_package_imports_no_slow_dependency(fresh):
    assert fresh["imported"] == []


def test_importing_the_package_takes_less_than_a_third_of_a_second_beyond_pyro(fresh):
    assert fresh["seconds"] < 0.3


def test_a_warning_while_importing_is_an_error():
    code = "import warnings; import pyro; warnings.simplefilter('error'); import pyro_dgm"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
