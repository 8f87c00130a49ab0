"""The package as a whole: its rooms, imports without a cycle, its front door, and that importing changes nothing."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import pyro_dgm

ROOT = Path(pyro_dgm.__file__).parent
DECLARATION = ("programs",)
INFERENCE = ("inference", "evaluation", "adversarial", "arviz_export")
SHARED = (
    "files",
    "contract",
    "densities",
    "display",
    "deprecation",
)
BOTH = ("experiments", "refitting", "compression")  # the only rooms that see both wings
# The rooms of evaluation/, lowest first: each imports from those above it in this table, never from beside or below.
EVALUATION = (
    ("estimate",),
    ("chains", "samples"),
    ("likelihood", "latents"),
    ("posterior", "conditioning"),
    ("report",),
)
NAMESPACES = (
    "datasets",
    "recipes",
    "plots",
    "flows",
    "distributions",
    "nn",
    "gan",
    "results",
    "diagnostics",
    "training",
    "runs",
)


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
        if floor(name) in (*DECLARATION, *INFERENCE, *SHARED):
            assert not [t for t in targets if t == "pyro_dgm" or floor(t) in BOTH], name


def test_training_does_not_import_evaluation():
    assert not [
        (a, b)
        for a, ts in GRAPH.items()
        for b in ts
        if floor(a) == "inference" and floor(b) == "evaluation"
    ]


def test_rooms_of_evaluation_import_only_from_lower_ones():
    height = {room: level for level, rooms in enumerate(EVALUATION) for room in rooms}
    upward = set()
    for name, targets in GRAPH.items():
        for target in targets:
            if floor(name) != "evaluation" or floor(target) != "evaluation":
                continue
            here, there = room_of_evaluation(name), room_of_evaluation(target)
            if here != there and height[there] >= height[here]:
                upward.add((name, target))
    assert upward == set()


def room_of_evaluation(name: str) -> str:
    return name.split(".")[2]


def test_no_room_holds_more_than_fifteen_modules():
    modules = [path.parent for path in MODULES.values() if path.name != "__init__.py"]
    crowded = {str(room): number for room, number in Counter(modules).items() if number > 15}
    assert crowded == {}


def test_the_map_of_the_house_in_contributing_names_every_room():
    """Two levels of folders, and the modules at the top; a room is indented below its wing."""
    text = (Path(__file__).parent.parent / ".github" / "CONTRIBUTING.md").read_text()
    wing, named = "", set()
    for line in text.split("## The house")[1].split("```")[1].strip().splitlines():
        names = re.match(r"( *)((?:\w+(?:/|\.py) *)+)", line)
        for name in names[2].split():
            named.add(name if not names[1] else f"{wing}{name}")
        wing = wing if names[1] else names[2].split()[0]
    rooms = [*ROOT.glob("*/__init__.py"), *ROOT.glob("*/*/__init__.py")]
    modules = [path for path in ROOT.glob("*.py") if not path.stem.startswith("__")]
    there = {f"{path.parent.relative_to(ROOT)}/" for path in rooms} | {p.name for p in modules}
    assert named - {"evaluation/estimate.py"} == there


def test_no_module_is_longer_than_three_hundred_lines():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    long = {name for name, number in lines.items() if number > 300}
    assert long == set()


def test_no_two_files_of_tests_have_one_name():
    """Without packages of their own, pytest imports each by its name alone."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, num in names.items() if num > 1] == []


def test_the_init_of_a_room_holds_a_docstring_alone():
    wordy = []
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name != "pyro_dgm":
            docstring, *rest = ast.parse(path.read_text()).body
            if rest or not isinstance(docstring, ast.Expr):
                wordy.append(name)
    assert wordy == []


def test_no_module_imports_a_star():
    stars = [
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]
    assert stars == []


def definitions(path: Path) -> set[str]:
    """Names of the public functions and classes that a module defines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    body = ast.parse(path.read_text()).body
    return {node.name for node in body if isinstance(node, kinds) and node.name[0] != "_"}


def test_no_module_has_the_name_of_a_function_or_class_of_its_folder():
    """Such as `surgery.surgery`: one import of the function would hide the module."""
    named_alike = []
    for name, path in MODULES.items():
        if name == "pyro_dgm":
            continue
        is_room = path.name == "__init__.py"
        leaf, folder = name.rpartition(".")[2], path.parent.parent if is_room else path.parent
        for neighbour in folder.glob("*.py"):
            if leaf in definitions(neighbour):
                named_alike.append((name, neighbour.name))
    assert named_alike == []


def test_every_module_can_be_imported_by_its_dotted_name_and_is_found_there():
    hidden = []
    for name in MODULES:
        if name == "pyro_dgm" or name.endswith("__main__"):
            continue
        module = importlib.import_module(name)
        parent, _, leaf = name.rpartition(".")
        found = getattr(importlib.import_module(parent), leaf)
        if not isinstance(found, ModuleType) or found is not module:
            hidden.append((name, type(found).__name__))
    assert hidden == []


def test_pyro_sample_appears_in_programs_alone():
    """Conditionals are pure: the words `pyro.sample(` stand in the modules of programs and nowhere else."""
    rooms = ("models", "guides", "dequantization.quantization", "dequantization.noise")
    allowed = {f"pyro_dgm.programs.{name}" for name in rooms}
    allowed.add("pyro_dgm.experiments.catalogue.programs")  # as a user would write them
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


def test_the_front_door_holds_at_most_130_names():
    assert len(pyro_dgm.__all__) <= 130


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_name_of_a_namespace_exists_once_and_is_documented(namespace):
    module = getattr(pyro_dgm, namespace)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    silent = [n for n in module.__all__ if not (getattr(module, n).__doc__ or "").strip()]
    assert silent == []


def test_a_moved_name_warns_with_its_new_home_and_is_the_same_object():
    with pytest.warns(
        DeprecationWarning, match=r"dgm\.Coupling has moved. Fix: dgm\.flows\.Coupling"
    ):
        found = pyro_dgm.Coupling
    assert found is pyro_dgm.flows.Coupling


def test_a_moved_name_warns_where_it_is_used():
    with pytest.warns(DeprecationWarning, match=r"Fix: dgm\.Concat") as caught:
        pyro_dgm.Joined  # noqa: B018
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", sorted(pyro_dgm.deprecation.MOVED))
def test_every_moved_name_resolves_to_what_it_says(name):
    found = pyro_dgm
    for part in pyro_dgm.deprecation.MOVED[name].split("."):
        found = getattr(found, part)  # a home that has moved itself would warn, which is an error
    with pytest.warns(DeprecationWarning, match=f"dgm.{pyro_dgm.deprecation.MOVED[name]}"):
        assert getattr(pyro_dgm, name) is found
    assert name not in pyro_dgm.__all__


def test_the_home_of_a_moved_name_is_public():
    homes = {name: home.rpartition(".") for name, home in pyro_dgm.deprecation.MOVED.items()}
    private = []
    for name, (namespace, _, leaf) in homes.items():
        module = getattr(pyro_dgm, namespace) if namespace else pyro_dgm
        if leaf not in module.__all__:
            private.append(name)
    assert private == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pyro_dgm' has no attribute 'Couplings'"):
        pyro_dgm.Couplings  # noqa: B018


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("SVItrainer", r"did you mean dgm\.SVITrainer\."),
        ("ELB0", r"did you mean dgm\.ELBO\."),
        ("Permutatoin", r"did you mean dgm\.flows\.Permutation\."),
        ("qqqqqq", r"one of pyro_dgm\.__all__"),
        ("__qqqqqq__", r"one of pyro_dgm\.__all__"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_one(name, fix):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'\\. Fix: {fix}"):
        getattr(pyro_dgm, name)


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
def fresh(tmp_path_factory) -> dict:
    """What a new process says about `import pyro_dgm` after `import pyro`; the fastest of five runs, compiled once."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what an import costs after the first
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", FRESH],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            ).stdout
        )
        for _ in range(5)
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
