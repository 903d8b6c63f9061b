"""The captions of a table, mended: the same table with what could be mended, and a list of every change."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

from sgseg.anatomy import Laterality
from sgseg.data.tables import TABLE_SUFFIXES, read_json, read_table
from sgseg.errors import DataError
from sgseg.formats import atomic
from sgseg.reports import Refinement, refine

CHANGES = "refinement.csv"

_COLUMNS = {"report": Laterality.PATIENT, "description": Laterality.IMAGE, "caption": Laterality.IMAGE}
"""The columns that hold captions, and whose left each means (`sgseg.data.layouts`)."""
_HEADER = ("row", "image", "original", "refined", "zones", "reasons", "status")

Mend = Callable[[Mapping[str, Any]], str | None]
"""Takes a row by column name, lower case, and gives its new caption; None where it has none."""


@dataclass(frozen=True)
class Refined:
    """A table whose captions were refined.

    Attributes:
        table: the refined table.
        changes: the list of what was mended and what could not be.
        captions: what became of each, in the order of the table.
    """

    table: Path
    changes: Path
    captions: list[Refinement]

    @property
    def counts(self) -> dict[str, int]:
        """How many captions are unchanged, mended and unresolved."""
        mended = sum(caption.mended for caption in self.captions)
        unresolved = sum(not caption.resolved for caption in self.captions)
        unchanged = len(self.captions) - mended - unresolved
        return {"unchanged": unchanged, "mended": mended, "unresolved": unresolved}


def refine_table(source: Path, out: Path, laterality: Laterality | None = None) -> Refined:
    """Writes a table again with its captions mended, and the list of changes beside it.

    Cells other than captions stay as they are, and so do captions that cannot be mended.

    Args:
        source: a table with a column `report`, `description` or `caption` (.csv, .json, .xlsx; JSON also with
            a list for each split), or a data set in the authors' layout.
        out: folder for the table, under its own name, and for `CHANGES`; made if it is not there.
        laterality: whose left the captions mean, where no column `laterality` says so; by default the
            patient's for `report`, the image's for `description` and `caption`.

    Raises:
        DataError: there is no such table, it is damaged or has no captions, or it would be overwritten.
        MissingExtraError: the table is .xlsx and openpyxl is not installed.
    """
    path = _table(source)
    if path.name == CHANGES or (out / path.name).resolve() == path.resolve():
        raise DataError(f"{out / path.name} would be overwritten; give another folder, or rename the table")
    column = _caption_column(path)
    refine_once = cache(refine)
    rows: list[tuple[object, Refinement | None]] = []

    def mend(row: Mapping[str, Any]) -> str | None:
        caption, result = row.get(column), None
        if isinstance(caption, str) and caption.strip():
            result = refine_once(caption, _convention(row, laterality or _COLUMNS[column], path))
        rows.append((row.get("image") or row.get("image_path") or "", result))
        return None if result is None else result.text

    table = _EDITORS[path.suffix.lower()](path, column, mend)
    changes = [
        _HEADER,
        *(_change(i, name, result) for i, (name, result) in enumerate(rows, 1) if _told(result)),
    ]
    _write(out, {path.name: table, CHANGES: _csv(changes)})
    return Refined(out / path.name, out / CHANGES, [result for _, result in rows if result is not None])


def _table(source: Path) -> Path:
    path = source / "prompts" / "annotation.json" if source.is_dir() else source
    if not path.is_file():
        raise DataError(f"there is no {path}; give a table, or a data set with prompts/annotation.json")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{path} is no table; give one in {', '.join(TABLE_SUFFIXES)}")
    return path


def _caption_column(path: Path) -> str:
    rows = _json_rows(read_json(path)) if path.suffix.lower() == ".json" else read_table(path)
    columns = {name for row in rows for name in _names(row)}
    for column in _COLUMNS:
        if column in columns:
            return column
    raise DataError(f"{path} has no column of captions; name it {', '.join(_COLUMNS)}")


def _convention(row: Mapping[str, Any], default: Laterality, path: Path) -> Laterality:
    told = str(row.get("laterality") or default.value).strip().lower()
    try:
        return Laterality(told)
    except ValueError as error:
        raise DataError(f"{path} has the laterality {told!r}; write 'patient' or 'image'") from error


def _told(result: Refinement | None) -> TypeGuard[Refinement]:
    return result is not None and (result.mended or not result.resolved)


def _change(row: int, image: object, result: Refinement) -> tuple[object, ...]:
    zones = "" if result.zones is None else "".join(map(str, result.zones.vector))
    status = "changed" if result.mended else "unresolved"
    return row, image, result.original, result.refined or "", zones, "; ".join(result.reasons), status


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with atomic(out / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"cannot write to {out} ({error.strerror}); give another folder") from error


# --- the formats: each gives the file again, with other captions and all else as it was


def _edit_csv(path: Path, column: str, mend: Mend) -> bytes:
    raw = path.read_bytes()
    text = raw.decode("utf-8-sig")
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    header, *lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = _names(header)
    for line in filter(None, lines):
        caption = mend(_row(names, line))
        if caption is not None:
            line[names.index(column)] = caption
    content = _csv([header, *lines], delimiter, "\r\n" if "\r\n" in text else "\n")
    return codecs.BOM_UTF8 + content if raw.startswith(codecs.BOM_UTF8) else content


def _edit_json(path: Path, column: str, mend: Mend) -> bytes:
    content = read_json(path)
    for row in _json_rows(content):
        caption = mend(_row(_names(row), row.values()))
        if caption is not None:
            row[list(row)[_names(row).index(column)]] = caption
    return f"{json.dumps(content, ensure_ascii=False, indent=2)}\n".encode()


def _edit_xlsx(path: Path, column: str, mend: Mend) -> bytes:
    from openpyxl import load_workbook

    book = load_workbook(path)
    header, *lines = book.worksheets[0].iter_rows()
    names = _names(cell.value for cell in header)
    for line in lines:
        caption = mend(_row(names, (cell.value for cell in line)))
        if caption is not None:
            line[names.index(column)].value = caption
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


_EDITORS = {".csv": _edit_csv, ".json": _edit_json, ".xlsx": _edit_xlsx}


def _csv(lines: Iterable[Iterable[object]], delimiter: str = ",", ending: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=ending).writerows(lines)
    return text.getvalue().encode()


def _json_rows(content: Any) -> list[dict[str, Any]]:
    """The objects of a list, or of an object with a list for each split."""
    lists = content.values() if isinstance(content, dict) else [content]
    return [row for rows in lists if isinstance(rows, list) for row in rows if isinstance(row, dict)]


def _names(columns: Iterable[object]) -> list[str]:
    return [str(column).strip().casefold() for column in columns]


def _row(names: Iterable[str], cells: Iterable[Any]) -> dict[str, Any]:
    """Cells by column; of columns with the same name the first counts, as in `names.index`."""
    row: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=False):
        row.setdefault(name, cell)
    return row
