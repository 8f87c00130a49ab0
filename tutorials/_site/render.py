"""Execute tutorials and keep them as notebooks: `python tutorials/_site/render.py 01_vae`; without a name, stale ones.

A script runs in a fresh folder with the options of `OPTIONS`, on one thread. The pictures that a cell has written into
the script's folder `FIGURES` become its outputs. What was printed to stderr, such as bars and warnings, is left out.
"""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import re
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

import nbformat
from cells import cells_of, notebook_of, scripts
from nbclient import NotebookClient
from PIL import Image

EAGER = "--compile=false"  # few steps: a compilation would take longer than they do
OPTIONS = {  # of runs that are smaller than those whose tables the script reports: minutes, not an hour
    "02_prior_or_posterior": [
        "--data=Digits",
        "--rows=[standard,vamp,coupling_prior,full_covariance,iaf_posterior]",
        "--latent=16",
        "--hidden=256",
        "--epochs=40",
        EAGER,
    ],
    "03_five_routes": ["--epochs=40", EAGER],
    "03_gap_of_the_bound": ["--steps=1500", EAGER],
    "03_mnist_flow": [
        "--data=Digits",
        "--layers=4",
        "--hidden=16",
        "--blocks=1",
        "--epochs=20",
        EAGER,
    ],
    "07_games_on_the_ring": ["--games=[non-saturating,wasserstein,relativistic]"],
}
WIDEST = 1200  # pixels of a picture

BEFORE = """
import sys
from pathlib import Path
from IPython.display import Image, display

sys.argv = {argv}
get_ipython().ast_node_interactivity = "none"

def show_new_figures(result, shown={{}}):
    folder = get_ipython().user_ns.get("FIGURES", Path("figures"))
    for path in sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime_ns):
        if shown.get(path) != path.stat().st_mtime_ns:
            shown[path] = path.stat().st_mtime_ns
            display(Image(filename=path), metadata={{"name": path.stem}})

get_ipython().events.register("post_run_cell", show_new_figures)
"""
AFTER = """
import resource
print(sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def execute(script: Path, folder: str) -> nbformat.NotebookNode:
    """The notebook of a script with its outputs, and `metadata.run`, which says how they came about."""
    options = OPTIONS.get(script.stem, [])
    cells = []
    for cell in cells_of(script.read_text()):
        if cell.cell_type == "code":
            cells.append(nbformat.v4.new_code_cell(cell.source))
        else:
            cells.append(nbformat.v4.new_markdown_cell(cell.source))
    before = nbformat.v4.new_code_cell(BEFORE.format(argv=[script.name, *options]))
    notebook = nbformat.v4.new_notebook(cells=[before, *cells, nbformat.v4.new_code_cell(AFTER)])
    where = {"metadata": {"path": folder}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where).execute()
    seconds = float(notebook.cells[-1].outputs[0].text)
    notebook.cells = cells
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "run": {
            "command": " ".join(["python", f"tutorials/{script.name}", *options]),
            "is_smaller": bool(options),
            "date": date.today().isoformat(),
            "cpu_seconds": round(seconds),
            "versions": {
                "Python": platform.python_version(),
                **{name: version(name).split("+")[0] for name in ("torch", "pyro-ppl", "arviz")},
            },
        },
    }
    return notebook


def tidy(notebook: nbformat.NotebookNode, folder: str) -> None:
    """Leave out what differs between machines and what nobody reads; make the pictures small."""
    count = 0
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02}"
        if cell.cell_type == "markdown":
            continue
        count += 1
        cell.execution_count = count
        cell.metadata.clear()
        kept = [output for output in cell.outputs if output.get("name") != "stderr"]
        names = [tidy_output(output, folder) for output in kept]
        cell.outputs = kept
        if any(names):
            alt = ", ".join(re.sub(r"[\W_\d]+", " ", name).strip() for name in names if name)
            cell.metadata["mystnb"] = {"image": {"alt": alt}}


def tidy_output(output: nbformat.NotebookNode, folder: str) -> str:
    """Mend one output in place; the name of its picture, if it is one."""
    if output.output_type == "stream":
        text = re.sub(r"\x1b\[[0-9;]*m", "", output.text)
        text = text.replace(f"{Path(folder).resolve()}/", "").replace(f"{folder}/", "")
        output.text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
        return ""
    if output.output_type != "display_data":
        raise ValueError(f"output of a cell: expected text or a picture, got {output.output_type}.")
    name = output.metadata.pop("name")
    output.metadata = {}
    output.data = {"image/png": smaller(output.data["image/png"])}
    return name


def smaller(png: str) -> str:
    """The picture in at most 256 colours and `WIDEST` pixels."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    if picture.width > WIDEST:
        height = round(picture.height * WIDEST / picture.width)
        picture = picture.resize((WIDEST, height), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def is_stale(script: Path) -> bool:
    """Whether the kept notebook has other cells than the script."""
    if not notebook_of(script).exists():
        return True
    kept = json.loads(notebook_of(script).read_text())["cells"]
    return [(c["cell_type"], "".join(c["source"])) for c in kept] != cells_of(script.read_text())


def render(script: Path) -> None:
    """Execute a script and write its notebook."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(script, folder)
        tidy(notebook, folder)
    nbformat.validate(notebook)
    notebook_of(script).parent.mkdir(exist_ok=True)
    nbformat.write(notebook, notebook_of(script))
    size = notebook_of(script).stat().st_size / 1e3
    print(f"{script.stem}: {notebook.metadata['run']['cpu_seconds']} s, {size:.0f} kB", flush=True)


def main() -> None:
    """Render the tutorials that are named, or all that are stale."""
    os.environ.pop("PYRO_DGM_SMOKE", None)
    os.environ.pop("PYRO_DGM_FIGURES", None)  # a script's own default, in the fresh folder
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="agg", COLUMNS="100")
    known = {script.stem: script for script in scripts()}
    names = sys.argv[1:] or [name for name, script in known.items() if is_stale(script)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"tutorial: expected one of {', '.join(known)}, got {', '.join(unknown)}.")
    for name in names:
        render(known[name])


if __name__ == "__main__":
    main()
