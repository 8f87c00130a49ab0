"""The latent space as points, and the terms of the KL as bars."""

import numpy as np
import pytest
import torch
from reports import pair

import pyro_dgm as dgm


def test_two_dims_are_shown_as_they_are():
    z = torch.randn(30, 2)
    ax = dgm.plots.latent(z)
    assert np.allclose(ax.collections[0].get_offsets(), z.numpy())


def test_more_dims_are_shown_by_their_principal_components():
    z = torch.randn(500, 4) * torch.tensor([0.1, 5.0, 0.1, 2.0])
    points = np.asarray(dgm.plots.latent(z).collections[0].get_offsets())
    assert abs(np.corrcoef(points[:, 0], z[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(points[:, 1], z[:, 3])[0, 1]) > 0.99


def test_every_class_has_a_colour_and_marker_of_its_own():
    labels = torch.arange(20) % 10
    ax = dgm.plots.latent(torch.randn(3, 20, 2), labels)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list("0123456789")
    assert sum(len(found.get_offsets()) for found in ax.collections) == 60
    looks = {
        (str(found.get_facecolor()), len(found.get_paths()[0].vertices)) for found in ax.collections
    }
    assert len(looks) == 10


def test_real_labels_have_a_scale_of_colours_and_one_dim_is_a_histogram():
    ax = dgm.plots.latent(torch.randn(20, 2), torch.randn(20))
    assert len(ax.figure.axes) == 2
    ax = dgm.plots.latent(torch.randn(20, 1), torch.arange(20) % 2)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"expected \(N, D\) or draws.*dgm.encode"):
        dgm.plots.latent(torch.randn(4))
    with pytest.raises(ValueError, match="one for each of the 4 data, got 3"):
        dgm.plots.latent(torch.randn(2, 4, 2), torch.arange(3))


def test_the_bars_are_the_terms_of_the_kl_with_their_errors():
    model, guide = pair()
    result = dgm.surgery(model, guide, model.data(60), num=300)
    ax = dgm.plots.surgery(result)
    terms = [
        result.kl,
        result.mutual_information,
        result.marginal_kl,
        result.total_correlation,
        result.dimension_kl,
    ]
    shown = [term.value for term in terms if term is not None]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(shown)
    assert f"{result.kl.value:.2f} ± {result.kl.stderr:.2f}" in ax.texts[0].get_text()
    assert "nats per datum" in ax.get_xlabel()
