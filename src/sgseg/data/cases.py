"""One case of a data set: an X-ray, its mask and the zones its report names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.anatomy import Laterality, ZoneSet
from sgseg.errors import DataError

_VIEW = re.compile(
    r"(?:^|[_-])vp-([a-z]+)|(?:^|[_-])(lateral|lat|ll|frontal|pa|ap)(?=[_.-]|$)", re.IGNORECASE
)
_MASK_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA"))


@dataclass(frozen=True)
class Case:
    """Where one case lies, and what is known about it; no pixel is read yet.

    Attributes:
        name: the image's file name without its ending; unique in its split.
        image: the X-ray.
        mask: the lesion mask; None where there is no lesion anywhere.
        zones: the infected zones; None where there is no report, or none that was understood.
        patient: whom to keep in one split; the case's own name where the patient is not known.
        note: what was left out while reading, such as a caption that was not understood; mostly empty.
        report: as it was written; empty where there is none.
        laterality: whose left the report means.
    """

    name: str
    image: Path
    mask: Path | None
    zones: ZoneSet | None
    patient: str
    note: str = ""
    report: str = ""
    laterality: Laterality = Laterality.PATIENT

    @property
    def view(self) -> str:
        """The view that a name such as "sub-s1_run-1_vp-ap_cr" tells, lower case; empty if it does not."""
        view = _VIEW.search(self.name)
        return (view[1] or view[2]).lower() if view else ""

    @property
    def source(self) -> str:
        """The letters that the name begins with: in collections, the data set that the image comes from."""
        return re.split(r"[^a-z]", self.name.lower(), maxsplit=1)[0]


def load_mask(case: Case, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The lesion mask of a case.

    Args:
        case: the case; without a mask file its mask is empty.
        shape: height and width of the case's image.

    Returns:
        (H, W) bool, True in the lesion: values above 127, or 1 in a mask of 0 and 1.

    Raises:
        DataError: the file is unreadable, of another size than the image, or neither 0/255 nor 0/1.
    """
    if case.mask is None:
        return np.zeros(shape, dtype=np.bool_)
    values = _grey(case.mask)
    if values.shape != shape:
        raise DataError(
            f"the mask {case.mask} is {_size(values.shape)}, its image {_size(shape)}; export them alike"
        )
    top = int(values.max())
    if 1 < top <= 127:
        raise DataError(f"the mask {case.mask} has values up to {top}; save it as 0 and 255, or as 0 and 1")
    return values > (127 if top > 1 else 0)


def _grey(path: Path) -> NDArray[np.uint8]:
    """The file's pixels, (H, W) uint8."""
    try:
        with Image.open(path) as image:
            if image.mode in _MASK_MODES:
                return np.asarray(image.convert("L"))
            mode = image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the mask {path} cannot be read ({error}); export it again as PNG") from error
    raise DataError(f"the mask {path} is not 8-bit (Pillow's mode {mode}); save it as 8-bit grey")


def _size(shape: tuple[int, ...]) -> str:
    height, width = shape
    return f"{width}×{height}"
