"""Data of files go through training and estimates, and every option can be said on the command line."""

import numpy as np
import pyro.distributions as dist
import pytest
from jsonargparse import ArgumentParser

import pyro_dgm as dgm
from pyro_dgm.datasets import Data, File
from pyro_dgm.distributions import Observed


def test_a_table_with_missing_values_is_trained_on_and_scored_by_what_is_there(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    x[rng.random(x.shape) < 0.3] = np.nan
    np.savez(tmp_path / "t.npz", x=x, batch=np.arange(60) % 2)
    data = File(str(tmp_path / "t.npz"), missing="mask")
    net = dgm.Concat(dgm.mlp(2 + 2, 8, 3))
    encoder = dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(3 + 2 + 3, 8, 4)))
    vae = dgm.VAE(dgm.StandardNormal(2), Observed(dgm.Normal(net)), encoder)
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=0.01)
    history = trainer.fit(data.batches(16), data.split("val"), epochs=2)
    assert len(history) == 2
    score = dgm.nll(vae.model, vae.guide, *data.split("test"), num=50)
    assert "mask" in score.measure
    assert np.isfinite(score.mean)


@pytest.mark.parametrize(
    ("flags", "check"),
    [
        ([], lambda d: d.levels == 256),
        (["--data.binarize=dynamic"], lambda d: d.dynamic),
        (["--data.binarize=0.5"], lambda d: d.levels == 2 and not d.dynamic),
        (["--data.size=[3,4]"], lambda d: d.event_shape == (3, 4)),
        (["--data.size=3"], lambda d: d.event_shape == (3, 3)),
        (["--data.kind=counts"], lambda d: d.levels is None),
        (["--data.val=0.2", "--data.test=4"], lambda d: (len(d.val), len(d.test)) == (4, 4)),
        (["--data.context=[folder]"], lambda d: d.num_context == 2),
        (["--data.context+=folder"], lambda d: d.num_context == 2),
    ],
)
def test_options_are_flags(tmp_path, flags, check):
    from written import write_pictures

    write_pictures(tmp_path / "a", 10)
    write_pictures(tmp_path / "b", 10, seed=1)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Data, "data")
    given = ["--data=pyro_dgm.datasets.File", f"--data.path={tmp_path}", *flags]
    built = parser.instantiate(parser.parse_args(given))
    assert check(built.data)
