"""Pictures and masks as PNG, in files or in memory, and masks as run lengths."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.formats.atomic import atomic


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture as PNG, whole or not at all."""
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=4)  # the best level takes longer than the model


def png_bytes(greys: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey PNG of (H, W) uint8."""
    file = BytesIO()
    Image.fromarray(greys).save(file, format="PNG", compress_level=1)  # the time counts here, not the size
    return file.getvalue()


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """A mask, (H, W) bool, as COCO's uncompressed RLE: down the columns, background first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(changes, prepend=0, append=flat.size).tolist()
    return [0, *lengths] if flat[0] else lengths


def save_mask(mask: NDArray[np.bool_], path: Path) -> None:
    """Writes a mask as an 8-bit grey PNG of 0 and 255, rows and columns as in the array, whole or not at all.

    Args:
        mask: (H, W) bool.
        path: of the file.

    Raises:
        ValueError: the mask is not (H, W) bool.
    """
    if mask.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"a mask is (H, W) bool, not {mask.shape} {mask.dtype}")
    save_picture(Image.fromarray(mask.astype(np.uint8) * 255), path)
