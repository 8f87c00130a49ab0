"""What stands on the page of a notebook beside its cells: how its outputs came about, and the files to take along."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from sphinx.application import Sphinx

NOTE = """```{{note}}
The outputs below are those of `{command}`, run on {date} in {cpu_seconds:,} CPU seconds on one thread
beside other work ({versions}).{smaller}

{{download}}`The notebook <{name}.ipynb>` and {{download}}`the script <../{name}.py>`.
```"""
SMALLER = " That is one seed and a smaller run than those of the tables above, which take longer or need other data."


def note(run: dict, name: str) -> dict:
    """The cell that says how a notebook was run."""
    versions = ", ".join(f"{package} {number}" for package, number in run["versions"].items())
    smaller = SMALLER if run["is_smaller"] else ""
    text = NOTE.format(**{**run, "versions": versions, "name": name, "smaller": smaller})
    return {"cell_type": "markdown", "id": "how-it-was-run", "metadata": {}, "source": text}


def insert_note(app: Sphinx, document: str, source: list[str]) -> None:
    """Put the note after the first section of prose, which has the title."""
    path = PurePosixPath(document)
    if path.parent.name != "notebooks":
        return
    notebook = json.loads(source[0])
    notebook["cells"].insert(1, note(notebook["metadata"]["run"], path.name))
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the note to the source of each notebook as it is read."""
    app.connect("source-read", insert_note)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
