"""Folders of pictures: PNG and JPEG files, of which folders are classes or splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ....display.listing import first_of
from ....files.errors import FileError
from ...runs.layout import CONFIG
from .content import ALL, SPLIT_NAMES, Asked, BySplit, Content
from .stored import one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
GREY = ("1", "L", "LA")
GREY_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
FEWEST = 6  # pictures without splits: two to train, to validate and to test
MOST_FILES = 6  # names in a line
CLASS = "folder"  # the name that classes by folder have among what stands beside the data


def read_pictures(path: Path, asked: Asked, unread: Sequence[Path] = ()) -> Content:
    """Pictures as bytes `(N, height, width)`, or `(N, 3, height, width)` if one has colours.

    Folders called train, val and test are splits; other folders are classes, in whatever split they are.

    Args:
        path: the folder.
        asked: `size`, to which pictures are scaled and cropped at the centre.
        unread: files of data beside them, which are not read.

    Raises:
        FileError: for pictures of several sizes, too few, that can't be read, or beside folders of classes.
    """
    files = {}
    for split, folder in _split_folders(path).items():
        files[split] = _files_of(folder)
    everything = [file for some in files.values() for file, _ in some]
    if ALL in files and len(everything) < FEWEST:
        _refuse_few(path, everything, unread)
    is_colour, size = _look_at(everything, asked.size)
    x: BySplit = {}
    classes: BySplit = {}
    for split, some in files.items():
        x[split] = _read_all([file for file, _ in some], size, colour=is_colour)
        classes[split] = np.array([name for _, name in some], dtype=np.str_)
    has_classes = len({name for some in files.values() for _, name in some}) > 1
    said = []
    if unread:
        said.append(f"data: the pictures of the folder; not read: {names_of(unread)} (--data.path)")
    if asked.size is not None:
        text = f"{size[0]}×{size[1]}"
        said.append(f"data: pictures scaled to {text} and cropped at the centre (--data.size)")
    beside = {CLASS: classes} if has_classes else {}
    labels = CLASS if has_classes else None
    return Content(path, x, beside, labels=labels, said=said, options=("size",))


def _refuse_few(path: Path, files: Sequence[Path], unread: Sequence[Path]) -> NoReturn:
    """Say which pictures a folder has where they are too few for three splits."""
    what = f"{FEWEST} pictures or more, since a folder is read as a folder of pictures"
    got = f"{len(files)}: {', '.join(str(file.relative_to(path)) for file in files)}"
    fix = "more pictures"
    if unread:
        got = f"{got}, beside {names_of(unread)}"
        fix = f"a file, --data.path={unread[0]}"
    raise FileError(path, what, got, fix)


def names_of(files: Sequence[Path]) -> str:
    """The first names of files."""
    return first_of([file.name for file in files], MOST_FILES)


def has_pictures(path: Path) -> bool:
    """Whether a folder holds a picture, in itself, its folders, or theirs; deeper ones are not looked into.

    Pictures of runs, in folders with a `config.yaml`, are none.
    """
    for pattern in ("*", "*/*", "*/*/*"):
        for file in path.glob(pattern):
            is_hidden = any(part[0] == "." for part in file.relative_to(path).parts)
            if not is_hidden and _is_picture(file) and not _is_of_run(file, path):
                return True
    return False


def _split_folders(path: Path) -> dict[str, Path]:
    """The folders of the splits, or the whole as one."""
    folders = [folder for folder in sorted(path.iterdir()) if _is_open_folder(folder)]
    found = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or split in found:
            return {ALL: path}
        found[split] = folder
    return found or {ALL: path}


def _files_of(folder: Path) -> list[tuple[Path, str]]:
    """The pictures of a folder, each with its class, in the order of their names."""
    direct = [(file, "") for file in sorted(folder.iterdir()) if _is_picture(file)]
    of_classes = []
    for below in sorted(folder.iterdir()):
        if _is_open_folder(below):
            for file in sorted(below.rglob("*")):
                if _is_picture(file) and not _is_of_run(file, folder):
                    of_classes.append((file, below.name))
    if direct and of_classes:
        got = f"{len(direct)} pictures beside them, such as {direct[0][0].name}"
        fix = "move them into a folder, or the folders elsewhere"
        raise FileError(folder, "folders of classes alone, or pictures alone", got, fix)
    found = direct or of_classes
    if not found:
        raise FileError(folder, f"pictures ({', '.join(SUFFIXES)})", "none", "--data.path=FOLDER")
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()


def _is_of_run(file: Path, top: Path) -> bool:
    """Whether a picture lies in the folder of a run, below another one."""
    below = file.relative_to(top).parents
    return any((top / folder / CONFIG).is_file() for folder in below if folder.parts)


def _is_open_folder(path: Path) -> bool:
    return path.is_dir() and path.name[0] not in "._"


def _look_at(files: Sequence[Path], size: tuple[int, int] | None) -> tuple[bool, tuple[int, int]]:
    """Whether one has colours, and the size of all; by their headers.

    Raises:
        FileError: if sizes differ and none is asked for.
    """
    is_colour = False
    first: tuple[int, int] | None = None
    for file in files:
        with _opened(file) as picture:
            own = (picture.height, picture.width)
            is_colour = is_colour or picture.mode not in (*GREY, *GREY_OF_16_BITS)
        first = first or own
        if size is None and own != first:
            expected = f"{first[0]}×{first[1]} as {files[0].name} and those before it"
            got = f"{own[0]}×{own[1]} (height × width)"
            raise FileError(file, expected, got, f"--data.size={min(*first, *own)}")
    if first is None:
        raise RuntimeError("expected a picture at least")
    return is_colour, size or first


def _read_all(files: Sequence[Path], size: tuple[int, int], *, colour: bool) -> np.ndarray:
    """The pictures as bytes; grey ones of 16 bits as numbers of 16 bits where all have them."""
    pictures = [_read(file, size, colour=colour) for file in files]
    if len({picture.dtype for picture in pictures}) > 1:
        odd = next(f for f, p in zip(files, pictures, strict=True) if p.dtype != pictures[0].dtype)
        fix = "convert them to one depth"
        raise FileError(odd, f"{pictures[0].dtype} as {files[0].name}", "another depth", fix)
    return np.stack(pictures)


def _read(file: Path, size: tuple[int, int], *, colour: bool) -> np.ndarray:
    from PIL import ImageOps

    with _opened(file) as picture:
        try:
            is_deep = picture.mode in GREY_OF_16_BITS and not colour
            if not is_deep:
                picture = picture.convert("RGB" if colour else "L")
            if (picture.height, picture.width) != size:
                picture = ImageOps.fit(picture, size[::-1])
            array = np.asarray(picture)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise _unreadable(file, error) from error
    if colour:
        return np.moveaxis(array, 2, 0)
    return array.astype(np.uint16) if is_deep else array


def _opened(file: Path) -> Any:
    from PIL import Image

    try:
        return Image.open(file)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> FileError:
    got = f"one that can't be read: {one_line(error).replace(str(file), file.name)}"
    if file.stat().st_size == 0:
        got = "an empty file"
    return FileError(file, "a picture that is whole", got, f"copy {file.name} again, or remove it")
