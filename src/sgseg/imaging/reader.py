"""Reads a picture file as a `ChestXray`, or says in one line why not."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sgseg.errors import FormatError, ImageError, NotApplicableError, SGSegError, TooLargeError
from sgseg.imaging.applicability import colours_against
from sgseg.imaging.chestxray import MOST_PIXELS, ChestXray
from sgseg.imaging.dicom import START, is_dicom, one_line, read_dicom
from sgseg.imaging.quiet import quiet

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""The suffixes that a scan of a folder takes, lower case; DICOM is told by its content."""

_FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP", "WEBP", "GIF", "PPM")
"""Pillow's decoders that may run; others hand files to programs outside, as EPS does to Ghostscript."""


def read(path: str | Path, force: bool = False) -> ChestXray:
    """Reads a chest X-ray: DICOM, PNG, JPEG, TIFF, BMP, WebP; 1 to 16 bits or float, grey or colour.

    The content decides, not the name. Colour is for pictures whose content is grey.

    Args:
        path: of the file.
        force: read it even if tags or colours speak against a frontal chest X-ray; `ChestXray.against`
            then says what.

    Raises:
        NotApplicableError: it is not a frontal chest X-ray.
        ImageError: the file is missing, unreadable, damaged, or not a single picture.
        MissingExtraError: it is DICOM, and the extra `dicom` is not installed.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            return _read(path, file, force, MOST_PIXELS)
    except PermissionError:
        raise ImageError(f"{path} may not be read; change its permissions") from None


def read_bytes(content: bytes, name: str, force: bool = False, most_pixels: int = MOST_PIXELS) -> ChestXray:
    """Reads a chest X-ray that is in memory; nothing touches the disk.

    Args:
        content: of a file, as `read` takes it.
        name: what messages call it.
        force: as for `read`.
        most_pixels: a picture that claims more is refused before it is decoded.

    Raises:
        TooLargeError: it is larger.
        SGSegError: as from `read`.
    """
    return replace(_read(Path(name), BytesIO(content), force, most_pixels), path=None)


def _read(path: Path, file: BinaryIO, force: bool, most_pixels: int) -> ChestXray:
    try:
        if _is_dicom(path, file):
            return read_dicom(path, file, force, most_pixels)
        return _read_picture(path, file, force, most_pixels)
    except SGSegError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ImageError(
            f"{path} cannot be decoded ({one_line(error)}); it is damaged, export it again"
        ) from error


def _opened(path: Path) -> BinaryIO:
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give an image file")
    if not path.is_file():
        raise ImageError(f"{path} does not exist; check the path")
    return path.open("rb")


def _is_dicom(path: Path, file: BinaryIO) -> bool:
    start = file.read(START)
    file.seek(0)
    if not start:
        raise ImageError(f"{path} is empty (0 bytes); copy it again")
    return is_dicom(start)


def _read_picture(path: Path, file: BinaryIO, force: bool, most_pixels: int) -> ChestXray:
    image = _decoded(path, file, most_pixels)
    array: NDArray[Any] = np.asarray(image)
    against = colours_against(array) if array.ndim == 3 else None
    if against and not force:
        raise NotApplicableError(str(path), against)
    greys = np.asarray(image.convert("L")) if image.mode == "RGB" else array
    return replace(ChestXray.from_array(greys, path), against=against)


def _decoded(path: Path, file: BinaryIO, most_pixels: int) -> Image.Image:
    """The picture upright: grey of any depth, RGBA where parts are transparent, or RGB."""
    image, frames = _header(path, file)
    with image:
        width, height = image.size
        if width * height > most_pixels:
            raise TooLargeError(f"{path} is {width}×{height} pixels, too large for an X-ray; scale it down")
        # MPO is a JPEG from a telephone: its further frames are previews of the first.
        if frames > 1 and image.format != "MPO":
            raise ImageError(f"{path} holds {frames} pictures; save the X-ray as a file of its own")
        image.load()
        return _plain(ImageOps.exif_transpose(image))


def _header(path: Path, file: BinaryIO) -> tuple[Image.Image, int]:
    """The picture, not decoded yet, and the number of frames.

    Pillow's warnings are left out: about size `MOST_PIXELS` decides, and what is damaged fails later.
    """
    try:
        with quiet():
            image = Image.open(file, formats=_FORMATS)
            return image, getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise TooLargeError(
            f"{path} claims more than {MOST_PIXELS:,} pixels, too large for an X-ray; scale it down"
        ) from None
    except Image.UnidentifiedImageError:
        raise FormatError(f"{path} is not an image; give DICOM or one of {', '.join(SUFFIXES)}") from None


def _plain(image: Image.Image) -> Image.Image:
    """Grey of any depth as it is, transparency as RGBA, other colour as RGB."""
    if image.mode in ("1", "L", "F", "I") or image.mode.startswith("I;16"):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB")
