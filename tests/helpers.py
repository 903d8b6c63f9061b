"""What several test files do: run the command line, and make or read a format by hand."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

COMMAND = [sys.executable, "-c", "from sgseg.cli import main; main()"]
"""`sgseg`, of the package that is tested."""


def sgseg_command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd)


def from_run_lengths(mask: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """A mask, (H, W) bool, from COCO's uncompressed run lengths."""
    height, width = mask["size"]
    return np.repeat(np.arange(len(mask["counts"])) % 2 == 1, mask["counts"]).reshape(width, height).T


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds nothing."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 0, 0, 0, 0))
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + bytes(4) + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
