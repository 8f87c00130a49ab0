"""Formulas and docstrings on their way to a page."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("sphinx", reason="needs pip install -e '.[docs]'")

SITE = Path(__file__).parents[2] / "tutorials" / "_site"


@pytest.fixture(scope="module")
def mathml():
    return load("mathml")


@pytest.fixture(scope="module")
def docstrings():
    return load("docstrings")


def load(name: str):
    sys.path.insert(0, str(SITE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SITE))


def set_as_text(mathml, formula: str) -> str:
    """What a reader sees in one line: thin spaces as `_`, scripts in braces."""
    from docutils import nodes

    text = mathml.mathml(nodes.math(formula, formula), as_block=False)
    root = ElementTree.fromstring(text.replace("&ApplyFunction;", ""))
    return "".join("_" if e.tag.endswith("mspace") else (e.text or "").strip() for e in root.iter())


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (r"\log p(x)", "log_p(x)"),
        (r"\log(x)", "log(x)"),
        (r"a \log b", "a_log_b"),
        (r"\log_2 x", "log2_x"),
        (r"x + ½", "x+12"),
        (r"\frac12", "12"),
        (r"1, …, n", "1,…,n"),
        (r"f\big(x\Big)", "f(x)"),
    ],
)
def test_a_formula_has_the_spaces_of_latex_around_functions(mathml, formula, expected):
    assert set_as_text(mathml, formula) == expected


def test_the_label_of_a_brace_stands_below_it(mathml):
    from docutils import nodes

    formula = r"\underbrace{a + b}_{\text{sum}} = \log c_i"
    text = mathml.mathml(nodes.math(formula, formula), as_block=True)
    assert re.search(r"</munder>\s*<mtext>sum</mtext>\s*</munder>", text)
    assert "<msub>" in text  # of c
    assert "/>" not in text  # in HTML such an element would stay open


def test_a_formula_that_cannot_be_read_is_a_warning(mathml, monkeypatch):
    from docutils import nodes

    said = []
    monkeypatch.setattr(mathml.logger, "warning", lambda *given, **where: said.append(given))
    assert mathml.mathml(nodes.math(r"\unknown x", r"\unknown x"), as_block=False) == ""
    assert said[0][1] == r"\unknown x"


def test_docstrings_become_the_text_that_sphinx_reads(docstrings):
    lines = [
        r"$\log p(x \mid",
        "z)$ of `x`, by `fit(x)` or :class:`Other` or ``code``.",
        "",
        "    >>> '$5$ and `6`'",
        "    '$5$ and `6`'",
    ]
    docstrings.convert(None, "class", "name", None, None, lines)
    first = r"\ :math:`\log p(x \mid z)`\  of \ :py:obj:`x`\ , by \ ``fit(x)``\  or "
    assert lines[0] == first + ":class:`Other` or ``code``."
    assert lines[2:4] == ["    >>> '$5$ and `6`'", "    '$5$ and `6`'"]


def test_each_line_of_a_section_of_shapes_is_one(docstrings):
    lines = [
        "Shape:",
        "    c: `(*batch, C)`  ->  batch_shape",
        "        `(*batch)`.",
        "    More.",
        "",
        "Args:",
    ]
    docstrings.convert(None, "class", "name", None, None, lines)
    assert lines[1].startswith("    | c: ")
    assert "→  batch_shape" in lines[1]
    assert lines[2].startswith("      ")
    assert lines[3:6] == ["    | More.", "", "Args:"]


def test_what_stands_before_a_colon_of_a_property_is_no_type(docstrings):
    lines = ["The program that data are scored by: the generator."]
    docstrings.convert(None, "property", "name", None, None, lines)
    assert lines[:2] == ["\\ ", "The program that data are scored by: the generator."]
