"""Tables that list cases: CSV, JSON and Excel, read into rows of text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sgseg.errors import DataError, MissingExtraError

TABLE_SUFFIXES = (".csv", ".json", ".xlsx")

Row = dict[str, str]
"""Column name, lower case -> cell, without surrounding blanks; an empty cell is ""."""


def read_table(path: Path) -> list[Row]:
    """The rows of a table, blank ones left out.

    CSV is UTF-8, with or without a byte-order mark, its cells divided by comma, semicolon or tab. JSON is
    a list of objects; any other JSON is no table and has no rows. Of an Excel file the first sheet counts.

    Raises:
        DataError: the file is damaged, or a line does not fit its header.
        MissingExtraError: openpyxl, which reads .xlsx, is not installed.
    """
    readers = {".csv": _read_csv, ".json": _read_json, ".xlsx": _read_xlsx}
    return text_rows(readers[path.suffix.lower()](path))


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is not JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def text_rows(rows: Iterable[Mapping[Any, Any]]) -> list[Row]:
    """Rows of any values as rows of text, blank ones left out; a list such as [0, 0, 1] becomes "001"."""
    texts = (
        {str(column).strip().casefold(): _text(value) for column, value in row.items() if column is not None}
        for row in rows
    )
    return [row for row in texts if any(row.values())]


def _read_csv(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is not UTF-8; save it as "CSV UTF-8"') from error
    header = text.partition("\n")[0]
    # Reports have commas in them, a header has none but those that divide it.
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = []
    for row in reader:
        if any(row.get(None, [])):
            raise DataError(
                f"{path}, line {reader.line_num}, has more cells than the header; quote reports with commas"
            )
        rows.append(row)
    return rows


def _read_json(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    is_table = isinstance(content, list) and all(isinstance(row, dict) for row in content)
    return content if is_table else []


def _read_xlsx(path: Path) -> list[dict[Any, Any]]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingExtraError("reading .xlsx", "tables") from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        header, *lines = book.worksheets[0].iter_rows(values_only=True)
        book.close()
    except Exception as error:  # openpyxl passes on whatever zipfile and the XML parser raise
        raise DataError(f"{path} cannot be read ({error}); save it again as .xlsx or .csv") from error
    return [dict(zip(header, line, strict=False)) for line in lines]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "".join(str(item) for item in value)
    return str(value).strip()
