"""What several test files do: run the command line or the service, make or read a format by hand."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

COMMAND = [sys.executable, "-c", "from sgseg.cli import main; main()"]
"""`sgseg`, of the package that is tested."""


def sgseg_command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd)


@contextmanager
def listening(application: Any) -> Iterator[str]:
    """A real server on a free port, in a thread; its address, without a slash at the end."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(application, port=0, ws="none", log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def from_run_lengths(mask: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """A mask, (H, W) bool, from COCO's uncompressed run lengths."""
    height, width = mask["size"]
    return np.repeat(np.arange(len(mask["counts"])) % 2 == 1, mask["counts"]).reshape(width, height).T


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds nothing."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 0, 0, 0, 0))
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + bytes(4) + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
