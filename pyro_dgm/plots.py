"""Pictures of what the library returns: each function takes a result and returns a matplotlib axis.

Pyplot is never imported, and no display needed: `ax.figure` shows in a notebook, and
`ax.figure.savefig("curve.png")` writes a file.
"""

from .experiments.plots.comparisons import paired, spread
from .experiments.plots.curves import critic, learning_curve
from .experiments.plots.fidelity import calibration, khat
from .experiments.plots.images import reconstructions, samples, traversal, worst
from .experiments.plots.latents import latent, surgery

__all__ = [
    "calibration",
    "critic",
    "khat",
    "latent",
    "learning_curve",
    "paired",
    "reconstructions",
    "samples",
    "spread",
    "surgery",
    "traversal",
    "worst",
]
