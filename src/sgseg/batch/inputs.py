"""Which files are meant by what was typed, and what their results are called."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sgseg.errors import ImageError
from sgseg.imaging import DICOMDIR, SUFFIXES, holds_dicom, listed_files


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Files as they are, folders with all the images below them, what a DICOMDIR lists, patterns expanded.

    In a folder images are told by their suffix, DICOM files by their content. A path that does not exist
    is returned as well: the one who reads it reports it by name, and the others still finish.

    Raises:
        ImageError: a folder holds no image, a DICOMDIR cannot be read, or a pattern matches nothing.
        MissingExtraError: there is a DICOMDIR, and the extra `dicom` is not installed.
    """
    paths = [path for text in inputs for path in _expand(text)]
    return list(dict.fromkeys(paths))


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if _is_image(p))
        if not found:
            raise ImageError(f"{path} holds no image (DICOM, {', '.join(SUFFIXES)})")
        return found
    if path.name.upper() == DICOMDIR and path.is_file():
        return listed_files(path)
    if path.exists() or not glob.has_magic(text):
        return [path]
    matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 (may be absolute)
    if not matches:
        raise ImageError(f"no file matches {text}")
    return matches


def _is_image(path: Path) -> bool:
    """Whether a scan takes it; a DICOMDIR is left aside, for what it lists lies beside it."""
    name = path.name
    if name.startswith(".") or name.upper() == DICOMDIR:
        return False
    return path.suffix.lower() in (*SUFFIXES, ".dcm") or (path.is_file() and holds_dicom(path))


def result_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file's results: its stem, or as much more of its path as tells it from the others."""
    names = [path.stem for path in paths]
    for longer in (
        lambda p: p.name.replace(".", "_"),
        lambda p: "_".join(p.absolute().parts[1:]).replace(".", "_"),
    ):
        seen = Counter(name.casefold() for name in names)
        names = [
            longer(p) if seen[name.casefold()] > 1 else name for p, name in zip(paths, names, strict=True)
        ]
    return names
