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
    # The time counts here, not the size; and with runs alone grain packs faster and better.
    Image.fromarray(greys).save(file, format="PNG", compress_level=1, compress_type=Image.RLE)
    return file.getvalue()


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """A mask, (H, W) bool, as COCO's uncompressed RLE: down the columns, background first."""
    height, width = mask.shape
    # Looked for along the rows, as they lie in memory: many times faster in a film of several megapixels.
    above, column = np.divmod(np.flatnonzero(mask[1:] != mask[:-1]), width)
    next_column = np.flatnonzero(mask[-1, :-1] != mask[0, 1:]) + 1
    changes = np.sort(np.concatenate((column * height + above + 1, next_column * height)))
    lengths: list[int] = np.diff(changes, prepend=0, append=mask.size).tolist()
    return [0, *lengths] if mask[0, 0] else lengths


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
