"""`ChestXray`: one chest X-ray, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgseg.errors import ImageError
from sgseg.imaging.geometry import UNIFORM, Box, content_box
from sgseg.imaging.hanging import STANDARD, Hanging
from sgseg.imaging.polarity import is_inverted

SMALLEST = 32
"""Pixels a side below which a picture shows no lung zones."""

MOST_PIXELS = 100_000_000
"""Larger than any detector; a header that claims more is refused unread."""

LateralitySource = Literal["assumed", "tagged", "none"]
"""How it is known which side is which: as most hang; by the file's tags; a lateral view has no sides."""

_HUGE = 1e30  # differences still fit float32

_MOSTLY = 0.5  # of the span: one of eight bits unused

_LUMINANCE = np.array((299, 587, 114))  # thousandths, so that grey in three channels stays exactly that grey


@dataclass(frozen=True, eq=False)
class ChestXray:
    """A chest X-ray, bones bright.

    Attributes:
        pixels: (H, W) float32 in [0, 1] in the file's own rows and columns, read-only.
        content: the area left after uniform borders are taken off.
        inverted: the file's greys were turned round: a negative, or DICOM's MONOCHROME1.
        path: the file, if there was one.
        pixel_spacing: millimetres per pixel, (row, column), if known.
        spacing_source: the DICOM attribute it is from; "ImagerPixelSpacing" is that of the detector's plane.
        view: for example "PA", if known.
        hanging: how it is turned to hang the standard way, which is how networks and people see it.
        laterality: how it is known which side is which.
        against: why it is not a frontal chest X-ray, if it was read by force.
    """

    pixels: NDArray[np.float32]
    content: Box
    inverted: bool = False
    path: Path | None = None
    pixel_spacing: tuple[float, float] | None = None
    spacing_source: str | None = None
    view: str | None = None
    hanging: Hanging = STANDARD
    laterality: LateralitySource = "assumed"
    against: str | None = None

    @property
    def has_sides(self) -> bool:
        """Whether there is a left and a right: not on a lateral view."""
        return self.laterality != "none"

    @classmethod
    def from_array(
        cls,
        array: NDArray[Any],
        path: Path | None = None,
        negative: bool | None = None,
        span: tuple[float, float] | None = None,
    ) -> ChestXray:
        """From plain pixels: greys are scaled, borders found, a negative turned round.

        Args:
            array: (H, W), or (H, W, 3) or (H, W, 4) in colour; uint8, another integer type, bool or float.
            path: the file it came from, for error messages.
            negative: whether the bones are dark; None judges by the picture.
            span: the lowest and the highest grey there can be, if known.

        Raises:
            ImageError: the array cannot be a chest X-ray.
        """
        name = "the array" if path is None else str(path)
        array = np.asarray(array)
        _check(array, name)
        greys = array if array.ndim == 2 else _luminance(array)
        pixels, content = _scaled(greys, array.dtype == np.uint8, span)
        inside = pixels[content.slices]
        if np.ptp(inside) <= UNIFORM:
            raise ImageError(f"{name} is one uniform grey; check how it was exported")
        inverted = is_inverted(inside) if negative is None else negative
        if inverted:
            pixels = 1 - pixels
        pixels.flags.writeable = False
        return cls(pixels, content, inverted, path)


def _check(array: NDArray[Any], name: str) -> None:
    """Raises ImageError unless this can be a picture."""
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name} has pixels of type {array.dtype}; give integers or floats")
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(
            f"{name} has the shape {array.shape}; give (height, width) or, in colour, (height, width, 3)"
        )
    height, width = array.shape[:2]
    if min(height, width) < SMALLEST:
        raise ImageError(f"{name} is only {width}×{height} pixels; give at least {SMALLEST}×{SMALLEST}")
    if array.dtype.kind == "f" and not (np.abs(array) < _HUGE).all():
        raise ImageError(f"{name} has pixels that are NaN, infinite or absurdly large; replace them")


def _luminance(array: NDArray[Any]) -> NDArray[np.float32]:
    """Colour (H, W, 3 or 4) to grey (H, W) float32; what is transparent turns black."""
    greys: NDArray[np.float64] = array[..., :3].astype(np.float64) @ _LUMINANCE / 1000
    if array.shape[2] == 4:
        opaque = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
        greys *= array[..., 3] / opaque
    return greys.astype(np.float32)


def _scaled(
    greys: NDArray[Any], is_8bit: bool, span: tuple[float, float] | None
) -> tuple[NDArray[np.float32], Box]:
    """Greys to float32 in [0, 1], and the content.

    Networks standardise each image, so a linear scale changes nothing; only clipping does. 8-bit
    greys are kept as they are. Others (12 bits in 16, floats) are stretched over the range of the
    content, so that neither an unused range nor a border of an extreme value eats the contrast; unless they
    fill most of a known span: scaled by that, a file of 12 bits comes out as its 8-bit twin does.
    """
    values = greys.astype(np.float32)
    if is_8bit:
        values /= 255
        return values, content_box(values)
    # The range needs the content and the content the range; but a border of deep greys is exactly uniform.
    likely = content_box(values, tolerance=0)
    lowest, highest = _range(values[likely.slices])
    if span is not None and highest - lowest >= _MOSTLY * (span[1] - span[0]):
        lowest, highest = span
    values = _stretched(values, lowest, highest)
    return values, content_box(values)


def _range(values: NDArray[np.float32]) -> tuple[float, float]:
    """Lowest and highest grey, dead and hot pixels aside.

    Cutting at percentiles would clip markers and dense bone, which the 8-bit twin of a file still
    has. So an extreme is cut only where it lies further from the bulk of the greys than the bulk is wide.
    """
    lowest, highest = float(values.min()), float(values.max())
    step = max(1, min(values.shape) // 256)
    low, high = (float(x) for x in np.percentile(values[::step, ::step], (0.1, 99.9)))
    bulk = high - low
    if bulk == 0:
        return lowest, highest
    return max(lowest, low - bulk), min(highest, high + bulk)


def _stretched(values: NDArray[np.float32], lowest: float, highest: float) -> NDArray[np.float32]:
    """Linear, `lowest` to 0 and `highest` to 1, clipped; a uniform picture to 0."""
    stretched: NDArray[np.float32] = np.clip((values - lowest) / max(highest - lowest, 1e-30), 0, 1)
    return stretched
