"""Silence for decoders that warn about what is decided, or fails, elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_FILTERS = Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings within; one thread at a time, for the filters of `warnings` belong to the process."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
