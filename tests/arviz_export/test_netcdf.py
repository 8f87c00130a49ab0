"""A netCDF file of an export is whole or not at all, and a disk without room for it is named before."""

from __future__ import annotations

import arviz
import pyro.distributions as dist
import pytest
import torch
import xarray
from toys import linear_gaussian

import pyro_dgm as dgm
from pyro_dgm.arviz_export import netcdf
from pyro_dgm.arviz_export.netcdf import netcdf_content, num_bytes_of_draws, save_netcdf
from pyro_dgm.files.errors import FileError


def exported(seed=0):
    model, guide, x = linear_gaussian()
    return dgm.to_arviz(model, guide, x, num=5, seed=seed)


def as_tree(found):
    return found if isinstance(found, xarray.DataTree) else found.to_datatree()


def test_a_saved_file_holds_what_was_exported(tmp_path):
    found = exported()
    save_netcdf(found, tmp_path / "folder" / "posterior.nc")
    again = arviz.from_netcdf(str(tmp_path / "folder" / "posterior.nc"), engine="h5netcdf")
    mine, others = as_tree(found), as_tree(again)
    assert set(mine.children) == set(others.children)
    for name, group in mine.children.items():
        xarray.testing.assert_equal(group.to_dataset(), others[name].to_dataset())
        assert group.attrs.keys() == others[name].attrs.keys()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["posterior.nc"]


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path, monkeypatch):
    save_netcdf(exported(), tmp_path / "posterior.nc")
    before = (tmp_path / "posterior.nc").read_bytes()
    written = []
    monkeypatch.setattr(netcdf, "write_file", lambda *args: written.append(args))
    monkeypatch.setattr(netcdf, "netcdf_content", lambda _: Huge())
    with pytest.raises(FileError, match="expected room on the disk to write .* MiB to it, got "):
        save_netcdf(exported(seed=1), tmp_path / "posterior.nc")
    assert written == []
    assert (tmp_path / "posterior.nc").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["posterior.nc"]


class Huge:
    """Bytes of which no disk holds as many."""

    def __len__(self):
        return 2**60


def test_a_write_that_fails_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "posterior.nc"
    save_netcdf(exported(), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pyro_dgm.files.writing.os.replace", fail)
    with pytest.raises(FileError, match="posterior.nc: expected to write it, got input/output err"):
        save_netcdf(exported(seed=1), path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["posterior.nc"]


@pytest.mark.parametrize(("num_data", "num", "pixels"), [(100, 200, 64), (20, 50, 9)])
def test_as_much_room_is_asked_for_as_a_file_takes(num_data, num, pixels):
    """It was 4 MiB for a file of 13 MB; the arrays are all but some 50 kB of headers."""
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.DiscretizedLogistic(dgm.mlp(2, 2 * pixels), levels=17),
        dgm.Conditional(dist.Normal, dgm.mlp(pixels, 4)),
    )
    x = torch.randint(0, 17, (num_data, pixels)).to(torch.get_default_dtype())
    size = len(netcdf_content(dgm.to_arviz(vae.model, vae.guide, x, num=num)))
    asked = num_bytes_of_draws(dgm.preflight(vae.model, vae.guide, x), num_data, num)
    assert size - 300_000 < asked < 1.3 * size
