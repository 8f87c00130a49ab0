"""Float64 by default, one seed per test, and a check that no test leaves a trace in a global."""

from __future__ import annotations

import zlib
from pathlib import Path

import pyro
import pytest
import torch
from built_site import built  # noqa: F401, a fixture
from torch.distributions import Distribution

DTYPES = {"float64": torch.float64, "float32": torch.float32}

torch.set_num_threads(1)  # the tensors of the tests are small, and the cores are shared


def pytest_addoption(parser):
    parser.addoption(
        "--dtype", choices=sorted(DTYPES), default="float64", help="default dtype of the tests"
    )
    parser.addoption("--device", default="cpu", help="device of the laws in test_laws.py")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture
def device(request) -> torch.device:
    """The device of `--device`."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def dtype(request) -> torch.dtype:
    """The dtype of `--dtype`; `@pytest.mark.parametrize("dtype", [...], indirect=True)` asks for others by name."""
    return DTYPES[getattr(request, "param", request.config.getoption("--dtype"))]


both_dtypes = pytest.mark.parametrize("dtype", sorted(DTYPES), indirect=True)
in_float64 = pytest.mark.parametrize(
    "dtype", ["float64"], indirect=True
)  # compares with something exact


def seed_of(nodeid: str) -> int:
    """One seed per test, by the name of its file: a file that moves to another folder keeps the seeds of its tests."""
    path, _, test = nodeid.partition("::")
    return zlib.crc32(f"tests/{Path(path).name}::{test}".encode())


@pytest.fixture(autouse=True)
def clean_globals(request, dtype):
    """Set dtype and seed for one test; afterwards the param store is empty and the validation setting is unchanged."""
    before = torch.get_default_dtype()
    validation = _validation()
    pyro.clear_param_store()
    pyro.set_rng_seed(seed_of(request.node.nodeid))
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype, "the test changed the default dtype"
        assert not list(pyro.get_param_store().keys()), (
            "the test left parameters in Pyro's global store"
        )
        assert _validation() == validation, "the test changed the global validation setting"
        assert torch.is_grad_enabled(), "the test switched gradients off"
    finally:
        torch.set_default_dtype(before)
        pyro.clear_param_store()
        pyro.enable_validation(validation[0])


def _validation() -> tuple[bool, bool]:
    return pyro.poutine.util.is_validation_enabled(), Distribution._validate_args
