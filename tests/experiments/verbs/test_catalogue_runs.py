"""Every ready experiment runs at smoke size: on its own data where it has them, else on a few rows like them."""

import numpy as np
import pytest

from pyro_dgm.experiments.catalogue.listing import catalogue
from pyro_dgm.experiments.verbs.fitting import fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("dtype", ["float32"], indirect=True),
]

NUM = 80


def file_of(path, **options):
    return {"class_path": "File", "init_args": {"path": str(path), **options}}


def binary_images(folder, dice):
    np.save(folder / "x.npy", dice.integers(0, 256, (NUM, 28, 28), dtype=np.uint8))
    return file_of(folder / "x.npy", binarize="dynamic")


def grey_images(folder, dice, shape=(28, 28)):
    np.save(folder / "x.npy", dice.integers(0, 256, (NUM, *shape), dtype=np.uint8))
    return file_of(folder / "x.npy")


def faces(folder, dice):
    return grey_images(folder, dice, (28, 20))


def table(folder, dice):
    np.savetxt(folder / "x.csv", dice.integers(0, 2, (NUM, 6)), "%d", ",")
    return file_of(folder / "x.csv")


def counts(folder, dice):
    np.savez(folder / "x.npz", x=dice.poisson(3, (NUM, 6)), batch=dice.integers(0, 3, NUM))
    return file_of(folder / "x.npz", context=["batch"])


def pictures(folder, dice):
    from PIL import Image

    for number in range(NUM):
        pixels = dice.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return file_of(folder)


DATA = {
    "mnist": binary_images,
    "fashion_mnist": grey_images,
    "frey": faces,
    "binary_table": table,
    "counts": counts,
    "colour_images": pictures,
}


def test_data_are_made_for_experiments_that_there_are():
    assert set(DATA) < set(catalogue())


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_an_experiment_of_the_catalogue_runs(name, tmp_path):
    changes = {}
    if name in DATA:
        (tmp_path / "data").mkdir()
        changes["data"] = DATA[name](tmp_path / "data", np.random.default_rng(0))
    if name == "mnist":
        changes["trainer"] = {"compile": False}
    run = fit(
        name,
        epochs=1,
        seeds=1,
        evaluation={"num": 5, "limit": 30 if name == "ring_gan" else 5},
        out=tmp_path / "run",
        device="cpu",
        progress=False,
        **changes,
    )
    (row,) = run.own_results
    figure = row["c2st"] if name == "ring_gan" else row["nll"]
    assert np.isfinite(figure)
    assert (run.folder / "samples.png").exists()
