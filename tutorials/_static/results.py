"""Draw `results.png`, the picture of the README, from the run directory of `pyro-dgm fit`.

pyro-dgm fit --out=runs/digits
python tutorials/_static/results.py runs/digits
"""

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pyro_dgm as dgm

run = dgm.load_run(sys.argv[1])
(test,) = run.data.split("test")
levels = run.data.levels

figure = Figure(figsize=(10, 3), layout="constrained")
FigureCanvasAgg(figure)
left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1.2, 1.4])
shape = run.data.event_shape
dgm.plots.samples(dgm.generate(run.model, 64, seed=0, mean=True), shape, levels, ax=left)
means = dgm.reconstruct(run.model, run.guide, test[:40], seed=0)["x"]
dgm.plots.reconstructions(test[:40], means, shape, levels, ax=middle)
dgm.plots.surgery(dgm.surgery(run.model, run.guide, test), ax=right)
for image in (left, middle):
    image.set_anchor("N")  # titles on one line
figure.savefig(Path(__file__).with_name("results.png"), dpi=96)
