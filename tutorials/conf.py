"""The documentation site: `sphinx-build -b html tutorials build/site`, offline, without running anything."""

import pyro_dgm

project = "pyro_dgm"
author = "the pyro_dgm developers"
version = release = pyro_dgm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks are kept as they were run

html_theme = "furo"
html_title = "pyro_dgm"
