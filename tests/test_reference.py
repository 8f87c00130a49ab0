"""Every public name stands on one page of the reference, under its shortest name, and every name there exists."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import pyro_dgm

REFERENCE = Path(__file__).parents[1] / "tutorials/reference"
PAGES = sorted(set(REFERENCE.glob("*.md")) - {REFERENCE / "index.md"})
NAMESPACES = [name for name in pyro_dgm.__all__ if hasattr(getattr(pyro_dgm, name), "__all__")]
ENTRY = re.compile(r"^\.\. (?:auto\w+|py:data):: pyro_dgm\.(\S+)\n((?:   .*\n)*)", re.MULTILINE)
TABLE = re.compile(r"^\.\. autosummary::\n   :nosignatures:\n\n((?:   \S+\n)+)", re.MULTILINE)
BLOCK = re.compile(r"^```\{eval-rst\}\n(.*?)^```", re.DOTALL | re.MULTILINE)


def resolve(dotted: str) -> Any:
    """What a name stands for at the top of the package, or in its namespace; one that has moved would warn."""
    found = pyro_dgm
    for part in dotted.split("."):
        found = getattr(found, part)
    return found


def public_names() -> list[str]:
    """Those at the top first, so that the first name of an object is its shortest."""
    top = [name for name in pyro_dgm.__all__ if name not in NAMESPACES]
    return top + [f"{space}.{name}" for space in NAMESPACES for name in resolve(space).__all__]


def entries(text: str) -> list[str]:
    return [found[1] for found in ENTRY.finditer(text)]


NAMES: dict[int, list[str]] = {}
for public in public_names():
    NAMES.setdefault(id(resolve(public)), []).append(public)
SHORTEST = [names[0] for names in NAMES.values()]


def test_the_namespaces_are_those_of_the_package():
    assert {"flows", "results", "runs", "recipes", "plots", "training"} <= set(NAMESPACES)
    assert len(SHORTEST) > 350


def test_every_public_name_stands_on_exactly_one_page_and_every_name_there_is_public():
    found = [name for page in PAGES for name in entries(page.read_text())]
    assert set(found) - set(public_names()) == set()
    times = Counter(id(resolve(name)) for name in found)
    assert [names for key, names in NAMES.items() if times[key] != 1] == []


def test_what_stands_at_the_top_of_the_package_is_called_so():
    found = {name for page in PAGES for name in entries(page.read_text())}
    assert {name for name in pyro_dgm.__all__ if name not in NAMESPACES} - found == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_table_at_the_top_of_a_section_names_its_entries(page):
    blocks = BLOCK.findall(page.read_text())
    assert blocks
    for block in blocks:
        (table,) = TABLE.findall(block)
        assert table.split() == entries(block)


def test_members_that_are_shown_exist():
    missing = []
    for page in PAGES:
        for name, options in ENTRY.findall(page.read_text()):
            shown = re.search(r":members: (.+)", options)
            for member in shown[1].split(", ") if shown else []:
                if not hasattr(resolve(name), member) and not is_attribute(resolve(name), member):
                    missing.append(f"{name}.{member}")
    assert missing == []


def is_attribute(owner: type, name: str) -> bool:
    """Whether a class documents a name that its instances alone have."""
    return f"{name}:" in (owner.__doc__ or "")


def test_the_index_leads_to_every_page():
    index = (REFERENCE / "index.md").read_text()
    linked = re.findall(r"\]\((\w+)\.md\)", index)
    listed = re.search(r"```\{toctree\}\n:hidden:\n\n(.*?)```", index, flags=re.DOTALL)[1].split()
    assert sorted(linked) == sorted(listed) == [page.stem for page in PAGES]


def test_the_first_line_of_a_public_docstring_is_short_and_ends_as_a_sentence_or_goes_on():
    wordy = []
    for name in SHORTEST:
        documented = resolve(name)
        if isinstance(documented, tuple):
            continue  # whose docstring is that of tuples
        first = (documented.__doc__ or "").strip().splitlines()[0]
        if len(first) > 120 or not first.rstrip('"').endswith((".", ":", ";", ",", "?")):
            wordy.append(f"{name}: {first}")
    assert wordy == []
