r"""Docstrings as they are written, `$\log p$`, `x` and `NLL`, in the text that Sphinx reads.

A formula `$…$` becomes the role `math`; a single name in backticks is a reference if the site has it, and code if not;
any other code in backticks is code. What stands in a doctest is left as it is.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

MARKED = re.compile(r"``.+?``|:\w+:`[^`]+`|`(?P<code>[^`]+)`|\$(?P<formula>[^$]+)\$", re.DOTALL)
SHAPES = re.compile(r"^( *)Shape:\n((?:\1 {4}.*\n)+)", re.MULTILINE)
A_NAME = re.compile(r"[\w.]+")


def written_for_sphinx(found: re.Match) -> str:
    """One piece of code or one formula."""
    if found["formula"]:
        formula = re.sub(r"\s+", " ", found["formula"].strip())
        return rf"\ :math:`{formula}`\ "
    if found["code"]:
        code = re.sub(r"\s+", " ", found["code"])
        if A_NAME.fullmatch(code):
            return rf"\ :py:obj:`{code}`\ "
        return rf"\ ``{code}``\ "
    return found[0]


def lines_of_shapes(found: re.Match) -> str:
    """A section of shapes, each of its lines on a line of its own."""
    written = [f"{found[1]}Shape:"]
    for line in found[2].splitlines():
        entry = line.removeprefix(f"{found[1]}    ")
        begins = "| " if entry[0] != " " else "  "  # of a line, or of what goes on
        written.append(f"{found[1]}    {begins}{entry.strip().replace('->', '→')}")
    return "\n".join(written) + "\n"


def convert(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Rewrite the lines of a docstring in place."""
    text = SHAPES.sub(lines_of_shapes, "\n".join(lines) + "\n")
    parts = re.split(r"(^ *>>>(?:.*\n)+?(?= *\n|\Z))", text, flags=re.MULTILINE)
    for index in range(0, len(parts), 2):
        parts[index] = MARKED.sub(written_for_sphinx, parts[index])
    lines[:] = "".join(parts).split("\n")
    if what in ("property", "attribute", "data"):
        lines.insert(
            0, "\\ "
        )  # or napoleon takes what stands before a colon of the first line for a type


def public_name(environment: BuildEnvironment, target: str) -> str | None:
    """The documented name of an object: by the name that code calls it, or by the file that it is written in."""
    objects = environment.get_domain("py").objects
    short = target.split(".")[-1]
    if target.startswith("dgm."):
        candidates = [f"pyro_dgm.{target.removeprefix('dgm.')}"]
    elif target.startswith("pyro_dgm."):
        candidates = [name for name in objects if name.split(".")[-1] == short]
    else:
        candidates = [f"pyro_dgm.{target}"]
    found = [name for name in candidates if name in objects and name.count(".") <= 2]
    return found[0] if found else None


def resolve(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: nodes.Node
) -> nodes.Node | None:
    """A reference to a public object that is documented under another name."""
    if node.get("refdomain") != "py":
        return None
    name = public_name(environment, node["reftarget"])
    if name is None:
        return None
    domain = environment.get_domain("py")
    return domain.resolve_xref(environment, node["refdoc"], app.builder, "obj", name, node, content)


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrite docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", convert, priority=100)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
