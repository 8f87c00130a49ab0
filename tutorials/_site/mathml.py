"""Formulas as MathML at build time: a page needs no script, and one font that lies beside it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# Unicode that docutils' reader of LaTeX refuses.
UNREAD = {"½": r"\tfrac{1}{2}", "…": r"\ldots", "−": "-"}

THIN = '<mspace width="0.1667em"></mspace>'
APPLY = "<mo>&ApplyFunction;</mo>"
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
LONG = 40  # characters of LaTeX
OPENS = r"\s*<mo[^>]*>[(\[{]"
FUNCTION = rf"\s*(?:<m(?:sub|sup|subsup)>\s*)?<mi[^>]*>[a-z]{{2,}}</mi>\s*(?:<mn>\d+</mn>\s*</msub>|{APPLY})"
SPACES = {  # what docutils writes, and with which spaces
    r"<mo>(?=[‖∣]<)": r'<mo stretchy="false">',  # as high as a letter, whatever stands beside it
    rf"{APPLY}(?!{OPENS})": rf"{APPLY}{THIN}",  # log x
    rf"(</m[in]>|[)\]]</mo>|</msu\w+>)(?={FUNCTION})": rf"\1{THIN}",  # a log x
    r"(<msub>\s*<mi>[a-z]{2,}</mi>\s*<mn>\d+</mn>\s*</msub>)(?=\s*<m[in])": rf"\1{THIN}",  # log₂ x
    rf"<mo([^>]*)>([a-z]{{2,}}</mo>)(?={OPENS})": r'<mo lspace="0.1667em" rspace="0"\1>\2',  # min(…)
    r"<mo( movablelimits[^>]*)>(?=[a-z]{2,}<)": r'<mo lspace="0.1667em" rspace="0.1667em"\1>',
}


def readable(formula: str) -> str:
    r"""The formula in the LaTeX that docutils reads: `\frac12`, `\dots` and `\big(` in full, no Unicode of `UNREAD`."""
    for character, command in UNREAD.items():
        formula = formula.replace(character, f"{command} " if command[0] == "\\" else command)
    formula = re.sub(r"\\dots(?![a-z])", r"\\ldots", formula)
    formula = re.sub(r"\\([bB]igg?)(?=\s*\\?[(\[{|])", r"\\\1l", formula)
    formula = re.sub(r"\\([bB]igg?)(?=\s*\\?[)\]}])", r"\\\1r", formula)
    return re.sub(r"(\\[dt]?frac)\s*(\d)\s*(\d)", r"\1{\2}{\3}", formula)


def spaced(text: str) -> str:
    """With the spaces of LaTeX around the names of functions: browsers write `log x` as `logx`."""
    for written, meant in SPACES.items():
        text = re.sub(written, meant, text)
    return text


def labelled(text: str) -> str:
    r"""With the label of an `\underbrace` below its brace: docutils sets it as a subscript."""
    if "⏟" not in text:
        return text
    root = ElementTree.fromstring(text.replace(f' xmlns="{NAMESPACE}"', "").replace(APPLY, ""))
    for element in root.iter("msub"):
        if element[0].tag == "munder" and element[0][1].text == "⏟":
            element.tag = "munder"
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def mathml(node: nodes.Node, *, as_block: bool) -> str:
    """A formula as a `<math>` element; one that can't be read is a warning, and so an error of the build."""
    try:
        return labelled(spaced(tex2mathml(readable(node.astext()), as_block=as_block)))
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return ""


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    """`$…$`; a long one scrolls by itself where the screen is narrow."""
    formula = mathml(node, as_block=False)
    is_long = len(node.astext()) > LONG
    translator.body.append(f'<span class="long">{formula}</span>' if is_long else formula)
    raise nodes.SkipNode


def visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """`$$…$$`, in a box that scrolls by itself where the screen is narrow; with its number, if it has one."""
    translator.body.append(translator.starttag(node, "div", CLASS="math", tabindex="0"))
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(mathml(node, as_block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
