"""How data sets lie on disk, and the one reader for all of them.

    authors'  prompts/annotation.json, images/<split>/images, images/<split>/masks
    Kaggle's  Train Set/Images, Train Set/Ground-truths, Test Set/… and LViT's spreadsheets, if any
    healthy   split.json, images: X-rays without a finding
    own       cases.csv, or a table for each split such as train.csv (.json and .xlsx too)
    folders   <split>/images, <split>/masks, without any report

A table of one's own has a row for each case and these columns:

    image       path, relative to the table
    mask        path, relative to the table; "none" where there is no lesion. May be empty only where the
                report says so ("no infection."): a forgotten mask must not pass for a healthy lung.
    report      one sentence; empty where there is none
    laterality  whose left the report means, "patient" or "image". Empty means "patient", because people
                write reports that way; QaTa-COV19's captions are "image".
    zones       instead of a report, or to check it: six 0/1, upper, middle, lower of the lung at the
                image's left, then of the one at the image's right
    patient     keeps one patient's images in one split; empty means that each image is its own patient,
                unless its name begins with a subject, "sub-…_", as QaTa-COV19's do
    split       needed unless the table is named after its split

File names are matched whatever their case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sgseg.anatomy import ZONES, Laterality, ZoneSet
from sgseg.data.cases import Case
from sgseg.data.tables import TABLE_SUFFIXES, Row, read_json, read_table, text_rows
from sgseg.errors import DataError, ReportError
from sgseg.reports import parse

Splits = dict[str, Callable[[], list[Case]]]
"""The splits of a data set, each read when called; its cases' paths are as listed, not yet looked for."""

ReadReport = Callable[[str, Laterality], ZoneSet | None]
"""The zones that a report names; None where it is not understood and need not be."""

_IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm"))
_SUBJECT = re.compile(r"(sub-[^_]+)_", re.IGNORECASE)
_SHOWN = 10


def read_cases(root: Path, split: str, any_wording: bool = False) -> list[Case]:
    """The cases of one split, in the order of their table, or by name where there is no table.

    Args:
        root: the data set's folder, in any layout that this module knows.
        split: for example "train"; see `split_names`.
        any_wording: takes reports that the grammar does not understand; such a case has the zones that the
            table gives beside the report, or None.

    Raises:
        DataError: the layout or the split is unknown, files are missing, or rows contradict themselves; the
            message counts them and names the first ten.
        MissingExtraError: there is a table in .xlsx and openpyxl is not installed.
    """
    splits = _splits(root, _if_understood if any_wording else parse)
    if split not in splits:
        raise DataError(f"{root} has no split {split!r}; it has {', '.join(splits)}")
    cases = _on_disk(splits[split]())
    if not cases:
        raise DataError(f"the split {split!r} of {root} is empty")
    counts = Counter(case.name.casefold() for case in cases)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated):,} names occur more than once in {split!r} of {root}: {_some(repeated)}"
        )
    return cases


def split_names(root: Path) -> list[str]:
    """The splits that a data set has.

    Raises:
        DataError: the layout is unknown.
        MissingExtraError: there is a table in .xlsx and openpyxl is not installed.
    """
    return list(_splits(root))


def _splits(root: Path, read: ReadReport = parse) -> Splits:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder of a data set")
    for layout in (partial(_authors, read), _kaggle, _healthy, partial(_own, read), _folders):
        if splits := layout(root):
            return splits
    raise DataError(
        f"{root} is no data set that SGSeg knows; looked for prompts/annotation.json, 'Train Set/Images', "
        "split.json with images/, a table with a column 'image' (cases.csv, train.csv, …; .json or .xlsx), "
        "and <split>/images with <split>/masks"
    )


def _if_understood(report: str, laterality: Laterality) -> ZoneSet | None:
    try:
        return parse(report, laterality)
    except ReportError:
        return None


# --- the authors' layout


def _authors(read: ReadReport, root: Path) -> Splits:
    path = root / "prompts" / "annotation.json"
    if not path.is_file():
        return {}
    return {
        split: partial(_each, partial(_authors_case, read, root / "images" / split), text_rows(rows), path)
        for split, rows in _lists(path, of=dict).items()
    }


def _authors_case(read: ReadReport, folder: Path, row: Row) -> Case:
    mask, caption, flags = row["image_path"], row["caption"], row["pseudo_label"]
    zones = _flagged(flags)
    if read(caption, Laterality.IMAGE) not in (zones, None):
        raise DataError(f"the caption {caption!r} contradicts the pseudo_label {flags}")
    case = _case(folder / "images" / _image_name(mask), folder / "masks" / mask, zones)
    return replace(case, report=caption, laterality=Laterality.IMAGE)


# --- Kaggle's layout


def _kaggle(root: Path) -> Splits:
    find = _Finder()
    for base in (root, *_subfolders(root)):
        train, test = find(base / "Train Set" / "Images"), find(base / "Test Set" / "Images")
        if train or test:
            return _kaggle_splits(_spreadsheets(root), train, test)
    return {}


def _kaggle_splits(sheets: dict[str, list[Row]], train: Path | None, test: Path | None) -> Splits:
    """A split for each spreadsheet, and one without reports for each folder that no spreadsheet describes."""
    combined = sheets.pop("train+valid", [])
    listed = {_image_name(row["image"]).casefold() for rows in sheets.values() for row in rows}
    rest = [row for row in combined if _image_name(row["image"]).casefold() not in listed]
    if rest:
        sheets.setdefault("valid" if "train" in sheets else "train", rest)
    folders = {"train": train, "valid": train, "test": test}
    for split in ("train", "test"):
        names = [path.name for path in _images(folders[split])]
        sheets.setdefault(split, [{"image": name} for name in names if name.casefold() not in listed])
    return {
        split: partial(_each, partial(_kaggle_case, folder.parent), sheets[split], folder.parent)
        for split, folder in folders.items()
        if folder and sheets.get(split)
    }


def _kaggle_case(folder: Path, row: Row) -> Case:
    name, caption = _image_name(row["image"]), row.get("description")
    case = _case(folder / "Images" / name, folder / "Ground-truths" / f"mask_{name}", None)
    if not caption:
        return case
    case = replace(case, report=caption, laterality=Laterality.IMAGE)
    try:
        return replace(case, zones=parse(caption, Laterality.IMAGE))
    except ReportError as error:
        # LViT's captions have typing errors; the mask is good all the same.
        return replace(case, note=str(error))


def _spreadsheets(root: Path) -> dict[str, list[Row]]:
    """LViT's spreadsheets by the split that their file names tell, at most two folders below the root."""
    paths: dict[str, Path] = {}
    sheets: dict[str, list[Row]] = {}
    for path in _tables(root, (".csv", ".xlsx"), depth=2):
        split = _split_told_by(path.stem.casefold())
        rows = [row for row in read_table(path) if row.get("image")] if split else []
        if not split or not rows:
            continue
        if split in paths:
            raise DataError(f"{paths[split]} and {path} both list the split {split!r}; keep one of them")
        paths[split], sheets[split] = path, rows
    return sheets


def _split_told_by(stem: str) -> str | None:
    if "train" in stem:
        return "train+valid" if "val" in stem else "train"
    if "test" in stem:
        return "test"
    return "valid" if "val" in stem else None


# --- the folder of healthy X-rays


def _healthy(root: Path) -> Splits:
    path, images = root / "split.json", root / "images"
    if not path.is_file() or not images.is_dir():
        return {}
    return {
        split: partial(_each, partial(_healthy_case, images), names, path)
        for split, names in _lists(path, of=str).items()
    }


def _healthy_case(images: Path, name: str) -> Case:
    return replace(_case(images / name, None, ZoneSet()), patient=name.split("_")[0])


# --- the user's own tables


def _own(read: ReadReport, root: Path) -> Splits:
    splits: dict[str, list[Row]] = {}
    for path in _tables(root, TABLE_SUFFIXES, depth=0):
        rows = read_table(path)
        if any("image" in row for row in rows):
            for number, row in enumerate(rows, 1):
                splits.setdefault(_split_of(row, number, path), []).append(row)
    return {
        split: partial(_each, partial(_own_case, read, root), rows, root) for split, rows in splits.items()
    }


def _split_of(row: Row, number: int, path: Path) -> str:
    stem = path.stem
    named_after_split = "split" not in row and stem != "cases" and not stem.startswith("annotation")
    split = stem if named_after_split else row.get("split")
    if not split:
        raise DataError(f"row {number} of {path} is in no split; fill in its column 'split'")
    return split


def _own_case(read: ReadReport, root: Path, row: Row) -> Case:
    image, mask, laterality = row.get("image", ""), row.get("mask", ""), _laterality(row)
    zones = _own_zones(read, row, laterality)
    if not image:
        raise DataError("there is no image")
    if mask.casefold() == "none":
        mask, zones = "", zones or ZoneSet()
    if not mask and zones is None:
        raise DataError("there is no mask; if there is no lesion either, write 'none'")
    if not mask and zones:
        raise DataError("there is no mask, but the report names infected zones")
    case = _case(root / _posix(image), root / _posix(mask) if mask else None, zones)
    patient = row.get("patient") or case.patient
    return replace(case, patient=patient, report=row.get("report", ""), laterality=laterality)


def _laterality(row: Row) -> Laterality:
    laterality = row.get("laterality", "").lower() or Laterality.PATIENT.value
    if laterality not in [convention.value for convention in Laterality]:
        raise DataError(f"the laterality is {laterality!r}; write 'patient' or 'image'")
    return Laterality(laterality)


def _own_zones(read: ReadReport, row: Row, laterality: Laterality) -> ZoneSet | None:
    """What a row's report and flags agree on; None where neither tells."""
    report, flags = row.get("report"), row.get("zones")
    told = read(report, laterality) if report else None
    flagged = _flagged(flags) if flags else None
    if told is not None and flagged is not None and told != flagged:
        raise DataError(
            f"the report {report!r}, in {laterality.value} laterality, contradicts the zones {flags}"
        )
    return flagged if told is None else told


def _posix(path: str) -> str:
    """Tables written on Windows have backslashes."""
    return path.replace("\\", "/")


# --- folders without a table


def _folders(root: Path) -> Splits:
    find = _Finder()
    pairs = {folder.name: (find(folder / "images"), find(folder / "masks")) for folder in _subfolders(root)}
    return {
        split: partial(_folder_cases, images, masks)
        for split, (images, masks) in pairs.items()
        if images and masks
    }


def _folder_cases(images: Path, masks: Path) -> list[Case]:
    by_stem = {path.stem.casefold(): path for path in _images(masks)}

    def mask(image: Path) -> Path:
        stem = image.stem.casefold()
        return by_stem.get(stem) or by_stem.get(f"mask_{stem}") or masks / image.name

    return [_case(image, mask(image), None) for image in _images(images)]


# --- what the layouts share


def _case(image: Path, mask: Path | None, zones: ZoneSet | None) -> Case:
    subject = _SUBJECT.match(image.stem)
    return Case(image.stem, image, mask, zones, patient=subject[1].lower() if subject else image.stem)


def _image_name(mask: str) -> str:
    """The name of the image that a mask belongs to."""
    return mask[5:] if mask.lower().startswith("mask_") else mask


def _flagged(flags: str) -> ZoneSet:
    """The zones of six 0/1 in the canonical order."""
    if not re.fullmatch(f"[01]{{{len(ZONES)}}}", flags):
        raise DataError(f"the zones are {flags!r}, not six 0/1 (spreadsheets drop zeros: make them text)")
    return ZoneSet.from_vector([int(flag) for flag in flags])


def _lists(path: Path, of: type) -> dict[str, list[Any]]:
    """A JSON file that has a list for each split."""
    content = read_json(path)
    lists = list(content.values()) if isinstance(content, dict) else [None]
    if not all(isinstance(items, list) and all(isinstance(item, of) for item in items) for items in lists):
        raise DataError(f"{path} is not an object with a list of {of.__name__} for each split")
    return dict(content)


def _each(case: Callable[[Any], Case], rows: list[Any], source: Path) -> list[Case]:
    """Makes a case of every row, and names all the rows that make none in one error."""
    cases, problems = [], []
    for number, row in enumerate(rows, 1):
        try:
            cases.append(case(row))
        except KeyError as error:
            problems.append(f"row {number}: there is no {error}")
        except (DataError, ReportError) as error:
            problems.append(f"{row.get('image') or row.get('image_path') or f'row {number}'}: {error}")
    if problems:
        raise DataError(
            f"{len(problems):,} of {len(rows):,} cases of {source} cannot be used: {_some(problems, '; ')}"
        )
    return cases


def _on_disk(cases: list[Case]) -> list[Case]:
    """The cases with their files as these are named on disk."""
    find = _Finder()
    images = _existing([case.image for case in cases], "images", find)
    masks = _existing([case.mask for case in cases if case.mask], "masks", find)
    real = []
    for case in cases:
        image, mask = images[case.image], case.mask and masks[case.mask]
        patient = image.stem if case.patient == case.name else case.patient
        real.append(replace(case, name=image.stem, image=image, mask=mask, patient=patient))
    return real


def _existing(paths: list[Path], what: str, find: _Finder) -> dict[Path, Path]:
    found = {path: real for path in paths if (real := find(path)) is not None}
    missing = [path for path in paths if path not in found]
    if missing:
        folders = {path.parent for path in missing}
        where = f" under {missing[0].parent}" if len(folders) == 1 else ""
        names = [path.name if where else str(path) for path in missing]
        raise DataError(f"{len(missing):,} of {len(paths):,} {what} are missing{where}: {_some(names)}")
    return found


def _some(texts: list[str], separator: str = ", ") -> str:
    """The first ten, and how many more there are."""
    more = [f"and {len(texts) - _SHOWN:,} more"] if len(texts) > _SHOWN else []
    return separator.join([*texts[:_SHOWN], *more])


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _images(folder: Path | None) -> list[Path]:
    paths = folder.iterdir() if folder else ()
    return sorted(path for path in paths if path.suffix.lower() in _IMAGE_SUFFIXES)


def _tables(folder: Path, suffixes: Iterable[str], depth: int) -> Iterator[Path]:
    """Tables in a folder and so many folders below it, but not the lock and hidden files beside them."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith(("~$", ".")):
            yield path
        elif depth and path.suffix.lower() not in _IMAGE_SUFFIXES and path.is_dir():
            yield from _tables(path, suffixes, depth - 1)


class _Finder:
    """Finds files and folders whatever the case of their names, and lists each folder only once."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, Path]] = {}

    def __call__(self, path: Path) -> Path | None:
        listing = self._listing(path.parent)
        return listing.get(path.name) or listing.get(path.name.casefold())

    def _listing(self, folder: Path) -> dict[str, Path]:
        if folder not in self._listings:
            real = folder if folder.is_dir() or folder == folder.parent else self(folder)
            paths = list(real.iterdir()) if real and real.is_dir() else []
            by_name = {path.name: path for path in paths}
            self._listings[folder] = {name.casefold(): path for name, path in by_name.items()} | by_name
        return self._listings[folder]
