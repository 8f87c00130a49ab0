"""The documentation site, built offline and without running anything.

sphinx-build -W --keep-going -b html tutorials build/site
"""

import sys
from pathlib import Path

import pyro_dgm

sys.path.insert(0, str(Path(__file__).parent / "_site"))  # docstrings, mathml, notes

project = "pyro_dgm"
author = "the pyro_dgm developers"
version = release = pyro_dgm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "mathml",
    "notes",
]
exclude_patterns = ["_site"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebooks are kept as they were run
nb_merge_streams = True

default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autosummary_generate = False
python_maximum_signature_line_length = 72
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Shape", "Terms"]

html_theme = "furo"
html_title = "pyro_dgm"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_math_renderer = "mathml"
copybutton_exclude = ".linenos, .gp, .go"
