"""Which files are meant by what was typed, and what their results are called."""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sgseg.errors import ImageError
from sgseg.imaging import DICOMDIR, SUFFIXES, holds_dicom, listed_files

_SUFFIXES = (*SUFFIXES, ".dcm")
_LONGEST = 150  # file systems take 255 bytes


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
    return path.suffix.lower() in _SUFFIXES or (path.is_file() and holds_dicom(path))


def result_names(paths: Sequence[Path], taken: Mapping[str, str] | None = None) -> list[str]:
    """A name for each file's results: its stem, or as much more of its path as tells it from the others.

    Args:
        paths: of the files, each once.
        taken: names that stand already, and the path of the file each belongs to.

    Returns:
        Names that differ, and not in the case of letters alone.
    """
    owners = {name.casefold(): path for name, path in (taken or {}).items()}
    names = [_stem(path) for path in paths]
    for longer in (lambda p: p.name.replace(".", "_"), _whole_path, _digest):
        seen = Counter(name.casefold() for name in names)
        names = [
            longer(p) if seen[name.casefold()] > 1 or owners.get(name.casefold(), str(p)) != str(p) else name
            for p, name in zip(paths, names, strict=True)
        ]
    return names


def _stem(path: Path) -> str:
    """The name without what says the kind of file; the last part of a DICOM file's UID does not."""
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def _whole_path(path: Path) -> str:
    return "_".join(path.absolute().parts[1:]).replace(".", "_")[-_LONGEST:]


def _digest(path: Path) -> str:
    """Tells even paths apart that differ in nothing but what the others leave out."""
    return f"{_stem(path)[-_LONGEST:]}_{hashlib.sha256(bytes(path.absolute())).hexdigest()[:12]}"
