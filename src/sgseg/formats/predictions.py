"""Documents as JSON files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sgseg.formats.atomic import atomic

DECIMALS = 4


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Writes a document as JSON in UTF-8, whole or not at all.

    Keys keep the document's order, which is the order for reading. Floats are rounded to 4 decimals (those
    under 0.1 to 4 significant digits, so that a learning rate survives), NumPy's scalars and arrays become
    numbers and lists.

    Args:
        path: of the file.
        document: of mappings with text keys, lists, tuples, arrays, text, numbers, booleans and None.

    Raises:
        ValueError: a number is infinite or not a number; the message says where.
        TypeError: something else is in the document.
    """
    text = json.dumps(as_written(document, path.name), ensure_ascii=False, allow_nan=False, indent=2)
    with atomic(path) as temporary:
        # A file name that is not UTF-8 holds lone surrogates; escaped with a backslash they are valid JSON.
        temporary.write_bytes(f"{text}\n".encode("utf-8", "backslashreplace"))


def as_written(value: object, where: str = "the document") -> Any:
    """What one reads back after `write_json`: JSON's own types, floats rounded.

    Args:
        value: a document, or a part of one.
        where: leads to it, for messages.

    Raises:
        ValueError, TypeError: as from `write_json`.
    """
    if isinstance(value, Mapping):
        return {str(key): as_written(item, f"{where}: {key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_written(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, np.ndarray | np.generic):
        return as_written(value.tolist(), where)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which JSON cannot hold")
        rounded = round(value, DECIMALS) if abs(value) >= 0.1 else float(f"{value:.{DECIMALS}g}")
        return rounded + 0.0  # the sum makes -0.0 a plain 0.0
    if isinstance(value, str | int) or value is None:
        return value
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold")
