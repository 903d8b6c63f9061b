"""Reads a picture file as a `ChestXray`, or says in one line why not."""

from __future__ import annotations

import warnings
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sgseg.errors import ImageError
from sgseg.imaging.chestxray import ChestXray

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""The suffixes that a scan of a folder takes, lower case."""

MOST_PIXELS = 100_000_000
"""Larger than any detector; a header that claims more is refused unread."""

_DICOM = "is DICOM, which this version does not read yet; convert it to PNG first"
_WARNINGS = Lock()


def read(path: str | Path) -> ChestXray:
    """Reads a chest X-ray: PNG, JPEG, TIFF, BMP, WebP; 1 to 16 bits or float, grey or colour.

    Raises:
        ImageError: the file is missing, unreadable, damaged, or not a single picture.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            _check_start(path, file)
            array = _decoded(path, file)
    except PermissionError:
        raise ImageError(f"{path} may not be read; change its permissions") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise ImageError(f"{path} cannot be decoded ({error}); it is damaged, export it again") from error
    return ChestXray.from_array(array, path)


def _opened(path: Path) -> BinaryIO:
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give an image file")
    if not path.is_file():
        raise ImageError(f"{path} does not exist; check the path")
    return path.open("rb")


def _check_start(path: Path, file: BinaryIO) -> None:
    """Refuses what the first bytes, or the name, give away."""
    start = file.read(132)
    file.seek(0)
    if not start:
        raise ImageError(f"{path} is empty (0 bytes); copy it again")
    if start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        raise ImageError(f"{path} {_DICOM}")


def _decoded(path: Path, file: BinaryIO) -> NDArray[Any]:
    """The picture upright, (H, W), or (H, W, 4) where parts are transparent."""
    image, frames = _header(path, file)
    with image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ImageError(f"{path} is {width}×{height} pixels, too large for an X-ray; scale it down")
        # MPO is a JPEG from a telephone: its further frames are previews of the first.
        if frames > 1 and image.format != "MPO":
            raise ImageError(f"{path} holds {frames} pictures; save the X-ray as a file of its own")
        image.load()
        return np.asarray(_grey(ImageOps.exif_transpose(image)))


def _header(path: Path, file: BinaryIO) -> tuple[Image.Image, int]:
    """The picture, not decoded yet, and the number of frames.

    Pillow's warnings are left out: about size `MOST_PIXELS` decides, and what is damaged fails later.
    """
    try:
        # The filters of `warnings` belong to the process, hence the lock.
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file)
            return image, getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise ImageError(
            f"{path} claims more than {MOST_PIXELS:,} pixels, too large for an X-ray; scale it down"
        ) from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path} is not an image; give one of {', '.join(SUFFIXES)}") from None


def _grey(image: Image.Image) -> Image.Image:
    """Grey of any depth as it is, transparency as RGBA, other colour as 8-bit grey."""
    if image.mode in ("1", "L", "F", "I") or image.mode.startswith("I;16"):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB").convert("L")
