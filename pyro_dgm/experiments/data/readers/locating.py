"""Which reader reads a path: by the suffix of a file, or by what lies in a folder or beside a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ....files.errors import FileError
from ....files.reading import describe
from ...spelling import nearest
from ..idx import read_idx
from .annotated import read_h5ad
from .content import SPLIT_NAMES, Asked, BySplit, Content, joined
from .pictures import SUFFIXES, has_pictures, names_of, read_pictures
from .stored import first_bytes, read_idx_file, read_npy, read_npz, read_pt, read_safetensors
from .tables import read_csv, read_parquet

Reader = Callable[[Path, Asked], Content]

READERS: dict[str, Reader] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".data": read_csv,
    ".parquet": read_parquet,
    ".pt": read_pt,
    ".pth": read_pt,
    ".safetensors": read_safetensors,
    ".h5ad": read_h5ad,
    ".idx": read_idx_file,
}
IDX = re.compile(r"(?:(.+)-)?(train|t10k|test)-(images|labels)[-.]idx\d-ubyte(?:\.gz)?")
IDX_FILE = re.compile(r".*(?:idx\d-ubyte|\.idx\d?)(?:\.gz)?")
# In the names of the DEBD tables the data to train on are called "ts" or "train", and the others "valid" and "test".
SPLITS_OF_FILES = {**SPLIT_NAMES, "ts": "train"}
FORMATS = (
    "npy, npz, csv, tsv, parquet, pt, safetensors, h5ad, IDX, a folder of IDX files or pictures"
)


def read_content(path: Path, asked: Asked) -> Content:
    """What a file, a folder, or the files `NAME.train.csv`, `NAME.valid.csv`, `NAME.test.csv` of a NAME hold.

    Raises:
        FileError: for what is missing, damaged, empty, or of another kind.
        ValueError: for a name that is not in the file.
    """
    if path.is_dir():
        return _read_folder(path, asked)
    if path.exists():
        return _reader_of(path)(path, asked)
    return _read_name(path, asked)


def _reader_of(path: Path) -> Reader:
    """The reader of a file.

    Raises:
        FileError: for a suffix that no reader has.
    """
    if IDX_FILE.fullmatch(path.name):
        return read_idx_file
    reader = READERS.get(path.suffix.lower())
    if reader is not None:
        return reader
    got = f"the suffix '{path.suffix}', {describe(first_bytes(path, 'data'))}"
    close = nearest(path.suffix, READERS, cutoff=0.7)
    fix = f"rename it: {path.with_suffix(close).name}" if close else "np.savez(path, x=x)"
    if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
        fix = f"the folder that it lies in, --data.path={path.parent}"
    raise FileError(path, f"a file of data ({FORMATS})", got, fix)


def _read_folder(path: Path, asked: Asked) -> Content:
    """A folder of IDX files, of files that are splits, of pictures, or of one file."""
    files = [file for file in sorted(path.iterdir()) if file.is_file() and file.name[0] != "."]
    if any(IDX.fullmatch(file.name) for file in files):
        return _read_idx_folder(path, files)
    splits = _split_files(files, prefix="") or _split_files(files, prefix=path.name)
    if splits:
        return _read_splits(path, splits, asked)
    if has_pictures(path):
        known = [file for file in files if file.suffix.lower() in READERS]
        if len(known) == 1 and not any(folder.is_dir() for folder in path.iterdir()):
            return _reader_of(known[0])(known[0], asked)
        return read_pictures(path, asked, known)
    known = [file for file in files if file.suffix.lower() in READERS]
    if len(known) == 1:
        return _reader_of(known[0])(known[0], asked)
    what = "a folder of pictures, of IDX files, of train/val/test files, or of one file of data"
    got = f"{len(known)} files of data: {names_of(known)}" if known else "none of them"
    fix = f"--data.path={known[0]}" if known else "the path of a file, or of another folder"
    raise FileError(path, what, got, fix)


def _read_name(path: Path, asked: Asked) -> Content:
    """Files that a path is the beginning of: its splits, or it with a suffix.

    Raises:
        FileError: where there are none, with the nearest name.
    """
    try:
        files = [file for file in sorted(path.parent.iterdir()) if file.is_file()]
    except OSError:
        files = []
    splits = _split_files(files, prefix=path.name)
    if splits:
        return _read_splits(path, splits, asked)
    found = [file for file in files if file.stem == path.name and file.suffix.lower() in READERS]
    if len(found) == 1:
        return _reader_of(found[0])(found[0], asked)
    raise _missing(path)


def _missing(path: Path) -> FileError:
    """The error of a path that leads nowhere, with the nearest name beside it."""
    whole = path.absolute()
    close = nearest_file(whole)
    meant = f", did you mean '{close}'" if close else ""
    fix = f"--data.path={path.with_name(close)}" if close else "the path of a file or a folder"
    got = f"no such file in {whole.parent}{meant}"
    if not whole.parent.is_dir():
        got = f"no such file, and no folder {whole.parent}"
    return FileError(whole, "a file or a folder of data", got, fix)


def nearest_file(path: Path) -> str | None:
    """The name in the folder of a path that is nearest to its own, or that has another suffix alone."""
    try:
        names = sorted(file.name for file in path.parent.iterdir())
    except OSError:
        return None
    same = [name for name in names if Path(name).stem.lower() == path.stem.lower()]
    return nearest(path.name, names, cutoff=0.7) or next(iter(same), None)


def has_known_suffix(name: str) -> bool:
    """Whether a name ends as files of data do, so that it is no import path; `.data` alone may be a function's."""
    suffix = Path(name).suffix.lower()
    return suffix != ".data" and suffix in (*READERS, *SUFFIXES, ".gz")


def _split_files(files: list[Path], prefix: str) -> dict[str, Path]:
    """Files that are splits of one set, `PREFIX.train.csv` or `train.csv`; none without one to train on."""
    found: dict[str, Path] = {}
    for file in files:
        stem = file.name.removesuffix(file.suffix)
        if file.suffix.lower() not in READERS or not stem.startswith(prefix):
            continue
        word = stem[len(prefix) :].strip("._-").lower()
        split = SPLITS_OF_FILES.get(word)
        if split is not None:
            found.setdefault(split, file)
    return found if "train" in found else {}


def _read_splits(path: Path, files: dict[str, Path], asked: Asked) -> Content:
    parts = {split: _reader_of(file)(file, asked) for split, file in files.items()}
    content = joined(path, parts)
    names = ", ".join(file.name for file in files.values())
    content.said.append(f"data: splits by file: {names}")
    return content


def _read_idx_folder(path: Path, files: list[Path]) -> Content:
    """Images and labels of the names that MNIST and its relatives have."""
    found: dict[str, BySplit] = {"images": {}, "labels": {}}
    prefixes = set()
    for file in files:
        match = IDX.fullmatch(file.name)
        if match is None:
            continue
        prefixes.add(match[1] or "")
        split = "train" if match[2] == "train" else "test"
        array = read_idx(file)
        # EMNIST and others keep labels as a column
        found[match[3]][split] = array.reshape(-1) if match[3] == "labels" else array
    if len(prefixes) > 1:
        got = f"{len(prefixes)}: {', '.join(sorted(prefixes))}"
        raise FileError(path, "one data set in a folder", got, "a folder for each")
    images, labels = found["images"], found["labels"]
    if "train" not in images:
        raise FileError(
            path, "train-images-idx3-ubyte(.gz)", "none", f"the file itself, --data.path={files[0]}"
        )
    _require_as_many(path, images, labels)
    return Content(
        path,
        images,
        {"labels": labels} if labels else {},
        labels="labels" if labels else None,
        in_order=True,
    )


def _require_as_many(path: Path, images: BySplit, labels: BySplit) -> None:
    for split in labels or {}:
        num: int | str = len(images[split]) if split in images else "no"
        if num != len(labels[split]):
            got = f"{num} images and {len(labels[split])} labels"
            fix = "copy the files again, or take those of labels away"
            raise FileError(path, f"a label for each image of {split}", got, fix)
    if labels and set(labels) != set(images):
        got = f"labels of {', '.join(sorted(labels))} alone"
        raise FileError(path, "labels of every split", got, "copy the others too")
