"""The page of equations: every quoted line stands in the named function, and every named test exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "tutorials" / "equations.md"
STATEMENTS = [f"S{number}" for number in range(1, 21)]
NODES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

ENTRY = re.compile(r"^### (S\d+)\. .*?(?=^##|\Z)", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```\{code-block\} py\n(.*?)^```$", re.DOTALL | re.MULTILINE)
QUOTE = re.compile(  # `file`, `function`, a few words: and the block
    r"^`(?P<file>[\w/]+\.py)`(?:, `(?P<name>[\w.]+)`)?(?:.|\n(?!\n))*?:\n\n"
    r"^```\{code-block\} py\n(?P<code>(?:.*\n)*?)^```$",
    re.MULTILINE,
)
GAP = "# …"  # lines that are left out
TEST = re.compile(r"^- `(\S+?)`$", re.MULTILINE)


@dataclass(frozen=True)
class Quote:
    """Lines of a function, or of a file as a whole."""

    statement: str
    file: str
    name: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.statement}-{Path(self.file).stem}-{self.name}"


def entries_of(page: str) -> list[tuple[str, str]]:
    """Statement and text of every entry."""
    return [(match[1], match[0]) for match in ENTRY.finditer(page)]


def quotes_of(page: str) -> Iterator[Quote]:
    """What the page quotes, and whence."""
    for statement, text in entries_of(page):
        for match in QUOTE.finditer(text):
            lines = tuple(line.strip() for line in match["code"].splitlines())
            yield Quote(statement, match["file"], match["name"] or "", lines)


def named_tests(page: str) -> Iterator[tuple[str, str]]:
    """Statement and test, as `path::name`."""
    for statement, text in entries_of(page):
        for test in TEST.findall(text):
            yield statement, test


@cache
def text_of(path: Path) -> str:
    return path.read_text()


def find(source: str, names: list[str]) -> ast.AST | None:
    """The function or class of a dotted name."""
    node: ast.AST | None = ast.parse(source)
    for name in names:
        inside = [n for n in getattr(node, "body", ()) if isinstance(n, NODES) and n.name == name]
        node = inside[-1] if inside else None
    return node


def code_of(source: str, name: str) -> list[str] | None:
    """The lines of a function, class or file, without indentation and docstring; `None` where it is not."""
    node = find(source, name.split(".") if name else [])
    if node is None:
        return None
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body:
        return []
    first, last = body[0].lineno, body[-1].end_lineno
    return [line.strip() for line in source.splitlines()[first - 1 : last]]


def missing_line(lines: tuple[str, ...], code: list[str]) -> str | None:
    """The first of the lines that does not follow the one before it in the code, where `# …` is any lines."""
    place, has_gap = 0, True
    for line in lines:
        if line == GAP:
            has_gap = True
            continue
        candidates = code[place:] if has_gap else code[place : place + 1]
        if line not in candidates:
            return line
        place += candidates.index(line) + 1
        has_gap = False
    return None


def check_quote(quote: Quote, source: str) -> None:
    """Fail, with what to do, unless every quoted line stands where the page says."""
    where = f"{quote.file}, {quote.name or 'the file'}"
    code = code_of(source, quote.name)
    assert code is not None, (
        f"{PAGE.name}, {quote.statement}: expected {where}, got a file without it. "
        "Fix: name the function or method that computes the equation now."
    )
    line = missing_line(quote.lines, code)
    assert line is None, (
        f"{PAGE.name}, {quote.statement}: expected the line\n    {line}\nin {where}, got code "
        "where it does not follow. Fix: quote the line that computes the equation now, or name the "
        "function that it moved to."
    )


def check_test(statement: str, test: str, source: str) -> None:
    """Fail, with what to do, unless a module has the test."""
    names = test.split("::")[1:]
    is_test = bool(names) and names[-1].startswith("test_") and bool(find(source, names))
    assert is_test, (
        f"{PAGE.name}, {statement}: expected the test {test}, got a file without it. "
        "Fix: name the test that holds the equation now; if there is none, write it."
    )


QUOTES = list(quotes_of(text_of(PAGE)))
TESTS = list(named_tests(text_of(PAGE)))


def test_every_statement_has_one_entry_with_code_a_test_and_an_equation():
    entries = entries_of(text_of(PAGE))
    assert sorted((name for name, _ in entries), key=lambda name: int(name[1:])) == STATEMENTS
    assert {quote.statement for quote in QUOTES} == set(STATEMENTS)
    assert {statement for statement, _ in TESTS} == set(STATEMENTS)
    without = [name for name, text in entries if "$$" not in text]
    assert not without


def test_every_block_of_code_says_where_it_stands():
    assert len(QUOTES) == len(CODE.findall(text_of(PAGE)))
    assert all(line for quote in QUOTES for line in quote.lines)


@pytest.mark.parametrize("quote", QUOTES, ids=str)
def test_a_quoted_line_stands_in_the_function_that_is_named(quote):
    path = ROOT / quote.file
    assert path.is_file(), f"{PAGE.name}, {quote.statement}: expected {quote.file}, got no file"
    check_quote(quote, text_of(path))


@pytest.mark.parametrize(("statement", "test"), TESTS)
def test_a_named_test_exists(statement, test):
    path = ROOT / test.split("::")[0]
    assert path.is_file(), f"{PAGE.name}, {statement}: expected {test}, got no such file"
    check_test(statement, test, text_of(path))


# That it can fail ----------------------------------------------------------------------------------

EXAMPLE = '''\
def other():
    return log_q - log_p


class Bound:
    def terms(self):
        """x = log_q - log_r"""
        x = log_p - log_q
        y = x.mean()
        return y

    class TestInside:
        def test_one(self): ...
'''
ON_A_PAGE = """\
## Theme

### S5. A statement

$$x$$

`package/file.py`, `Bound.terms`, by `means` of draws:

```{code-block} py
x = log_p - log_q
# …
return y
```

- `tests/test_file.py::test_one`

### S6. Another

- `tests/test_file.py::TestInside::test_two`
"""


def test_the_parts_of_a_page_are_read():
    assert [name for name, _ in entries_of(ON_A_PAGE)] == ["S5", "S6"]
    (quote,) = quotes_of(ON_A_PAGE)
    assert quote == Quote(
        "S5", "package/file.py", "Bound.terms", ("x = log_p - log_q", GAP, "return y")
    )
    check_quote(quote, EXAMPLE)
    expected = [("S5", "test_one"), ("S6", "TestInside::test_two")]
    assert list(named_tests(ON_A_PAGE)) == [
        (s, f"tests/test_file.py::{name}") for s, name in expected
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ("x = log_q - log_p",),  # the sign is another
        ("return log_q - log_p",),  # of another function
        ("x = log_q - log_r",),  # of the docstring
        ("return y", GAP, "x = log_p - log_q"),  # in another order
        ("x = log_p - log_q", "return y"),  # with a line between them
        ("x = log_p",),  # the beginning of a line
    ],
)
def test_a_line_that_does_not_stand_there_is_told_with_its_entry(lines):
    with pytest.raises(AssertionError, match=r"S5: expected the line\n    .*\n.*Fix: quote"):
        check_quote(Quote("S5", "package/file.py", "Bound.terms", lines), EXAMPLE)


@pytest.mark.parametrize("name", ["Bound.term", "terms", "Bound.terms.inner"])
def test_a_function_that_is_gone_is_told_with_its_entry(name):
    with pytest.raises(
        AssertionError, match=rf"S5: expected .*{name}, got a file without it\. Fix"
    ):
        check_quote(Quote("S5", "package/file.py", name, ("return y",)), EXAMPLE)


def test_a_test_that_is_gone_is_told_with_its_entry():
    check_test("S6", "tests/test_file.py::Bound::TestInside::test_one", EXAMPLE)
    for name in ("test_one", "Bound::TestInside::test_two", "other"):
        with pytest.raises(AssertionError, match="S6: expected the test .*Fix: name the test"):
            check_test("S6", f"tests/test_file.py::{name}", EXAMPLE)
