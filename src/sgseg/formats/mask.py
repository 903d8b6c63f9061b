"""Pictures and masks as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.formats.atomic import atomic


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture as PNG, whole or not at all."""
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=4)  # the best level takes longer than the model


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
