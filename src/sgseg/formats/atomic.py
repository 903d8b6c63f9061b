"""Files that are there whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A file that takes its place only when it is complete.

        with atomic(path) as temporary:
            image.save(temporary)

    The temporary file lies in the same folder, so that the last step is a rename, and has the same suffixes,
    so that libraries guess the format right. It is made by whoever writes it, so that it gets the usual
    permissions (a file of `tempfile` is readable by its owner only). If anything fails, an older file at
    `path` stays as it was and the temporary file is removed.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    temporary = path.with_name(f".sgseg-{secrets.token_hex(8)}{''.join(path.suffixes)}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
