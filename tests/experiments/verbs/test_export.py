"""The posterior of a run as a file for ArviZ: netCDF or zarr, whole or not at all."""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pytest
from tiny_experiment import EXPERIMENT, TRUST

import pyro_dgm as dgm
from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.files import writing
from pyro_dgm.files.errors import FileError

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "run"
    options = {"progress": False, "device": "cpu", "trust": TRUST}
    return dgm.runs.fit(EXPERIMENT, out=out, epochs=1, seeds=[3, 5], **options)


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
        import xarray

        if path.suffix == ".nc":
            return arviz.from_netcdf(path).posterior.load()
        tree = xarray.open_datatree(path, engine="zarr")
        return arviz.InferenceData.from_datatree(tree).posterior.load()


@pytest.mark.parametrize("name", ["posterior.nc", "posterior.zarr"])
def test_an_export_has_the_draws_of_to_arviz_with_a_chain_for_each_seed(run, tmp_path, name):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    path = dgm.runs.export(run, to=tmp_path / "new" / name, num=7, limit=4, progress=False)
    found = read(path)
    assert dict(found["z"].sizes) == {"chain": 2, "draw": 7, "datum": 4, "latent": 1}
    assert found["seed"].values.tolist() == [3, 5]
    np.testing.assert_array_equal(found["z"], run.to_arviz(7, 4).posterior["z"])


def test_another_suffix_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"expected a name that ends in \.nc or \.zarr"):
        dgm.runs.export(run, to=tmp_path / "posterior.csv")


def test_a_zarr_folder_that_is_there_stays_as_it_is(run, tmp_path):
    pytest.importorskip("zarr")
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(FileError, match="expected a name that is free"):
        dgm.runs.export(run, to=tmp_path / "a.zarr", num=2, limit=2)
    assert list((tmp_path / "a.zarr").iterdir()) == []


def test_without_zarr_the_error_says_how_to_install_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install zarr\b"):
        dgm.runs.export(run, to=tmp_path / "a.zarr", num=2, limit=2)


def test_a_folder_that_can_not_be_written_to_its_end_leaves_nothing(tmp_path):
    def write(folder):
        folder.mkdir()
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(FileError, match="room on the disk"):
        writing.write_folder(tmp_path / "a.zarr", write)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_of_a_folder_is_removed(tmp_path, monkeypatch):
    def write(folder):
        folder.mkdir()
        (folder / "all").write_text("all")

    monkeypatch.setattr(writing, "is_alive", lambda pid: False)
    left = tmp_path / f".a.zarr.{writing._host()}.1.00000000.tmp"
    left.mkdir()
    (left / "half").write_text("half")
    writing.write_folder(tmp_path / "a.zarr", write)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_the_command_says_where_it_was_written(run, tmp_path, capsys):
    command = ["export", str(run.folder), f"--to={tmp_path / 'a.nc'}", "--num=2", "--limit=2"]
    main([*command, "--trust=tiny_experiment", "--device=cpu", "--json"])
    assert json.loads(capsys.readouterr().out) == {"written": str(tmp_path / "a.nc")}
