"""Which part of a picture is X-ray, and the way from there to the network's square and back.

QaTa-COV19's images were squashed to a square without regard to their aspect ratio, so `fit` does the
same: it crops to the content, hangs it the standard way and resizes both sides to `size`. `restore` is the
way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.imaging.hanging import STANDARD, Hanging

if TYPE_CHECKING:
    from sgseg.imaging.chestxray import ChestXray

UNIFORM = 3.25 / 255
"""Greys no further apart count as the same: three 8-bit steps, the noise that JPEG leaves in a bar.

Not on a multiple of half a step, so that rounding does not decide and a negative has the same borders.
"""

_SHARE = 0.98  # of a bar's line; the rest may be a frame's thin line or the edge of a marker
_MOST = 0.4
_BAND = 256  # rows resized at once: of nine megapixels in one go, the memory takes longer than the arithmetic


class Box(NamedTuple):
    """A rectangle of pixels, half-open: rows `top`…`bottom - 1`, columns `left`…`right - 1`."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """For indexing: `pixels[box.slices]`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def content_box(pixels: NDArray[np.float32], tolerance: float = UNIFORM) -> Box:
    """The area left after uniform bars of any grey are taken off the edges.

    A line belongs to a bar if 98 % of it has the grey of the bar's outermost line; no edge
    gives up more than 40 % of its side. What is not certainly a bar stays.

    Args:
        pixels: (H, W) float32.
        tolerance: how far from it still counts as the same grey; by default for pixels in [0, 1].
    """
    height, width = pixels.shape
    rows, columns = int(height * _MOST), int(width * _MOST)
    box = Box(0, 0, height, width)
    # Bars of different greys meet in the corners, and a frame may surround them: some are seen whole
    # only after others are gone.
    for _ in range(3):
        down, across = box.slices
        smaller = Box(
            top=_bar(pixels[:rows, across], box.top, tolerance),
            left=_bar(pixels[down, :columns].T, box.left, tolerance),
            bottom=height - _bar(pixels[::-1, across][:rows], height - box.bottom, tolerance),
            right=width - _bar(pixels[down, ::-1][:, :columns].T, width - box.right, tolerance),
        )
        if smaller == box:
            break
        box = smaller
    return box


def _bar(lines: NDArray[np.float32], start: int, tolerance: float) -> int:
    """Where the uniform bar that begins at line `start` ends; `start` if there is none."""
    if start >= len(lines):
        return start
    grey = np.median(lines[start])
    for end in range(start, len(lines)):
        if np.mean(np.abs(lines[end] - grey) <= tolerance) < _SHARE:
            return end
    return len(lines)


def fit(xray: ChestXray, size: int) -> NDArray[np.uint8]:
    """The X-ray as the network takes it: its content, hung the standard way and squashed to a square.

    It is rounded to 8 bits before it is resized, as after it, so that one picture stored in 8, 12 or 16 bits
    gives one square: what lies between the greys would tip the rounding of a pixel here and there.

    Args:
        xray: any size and shape.
        size: side of the square in pixels.

    Returns:
        (size, size) uint8. An 8-bit picture of this size without borders comes out bit for bit.
    """
    greys = np.rint(xray.pixels[xray.content.slices] * 255).astype(np.float32, copy=False) / np.float32(255)
    square = _resize(xray.hanging.hung(greys), size, size)
    return np.rint(square * 255).astype(np.uint8)


def fit_mask(
    mask: NDArray[np.bool_], content: Box, size: int, hanging: Hanging = STANDARD
) -> NDArray[np.bool_]:
    """A mask drawn on the X-ray, through the same geometry as `fit`.

    Args:
        mask: (H, W) bool at the X-ray's own size.
        content: the X-ray's `content`.
        size: side of the square in pixels.
        hanging: the X-ray's `hanging`.

    Returns:
        (size, size) bool: pixels that the mask covers by half or more.
    """
    return _resize(hanging.hung(mask[content.slices]).astype(np.float32), size, size) >= 0.5


def restore(probability: NDArray[np.float32], xray: ChestXray) -> NDArray[np.float32]:
    """The network's square back on the X-ray; the inverse of `fit`.

    Args:
        probability: (size, size) float32.
        xray: the X-ray that was fitted.

    Returns:
        (H, W) float32 in the X-ray's own rows and columns; zero outside its content.
    """
    whole = np.zeros(xray.pixels.shape, dtype=np.float32)
    _resize_onto(xray.hanging.hung(whole[xray.content.slices]), probability)  # a view: it lands in `whole`
    return whole


def _resize(pixels: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear, antialiased where it shrinks; the same pixels where the size stays."""
    if pixels.shape == (height, width):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _resize_onto(target: NDArray[np.float32], pixels: NDArray[np.float32]) -> None:
    """Writes the pixels, in the target's size, into the target; as `_resize`, but for rounding."""
    if pixels.shape == target.shape:
        target[:] = pixels
        return
    image = Image.fromarray(np.ascontiguousarray(pixels))
    (rows, columns), (height, width) = pixels.shape, target.shape
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        box = (0, top / height * rows, columns, bottom / height * rows)
        target[top:bottom] = image.resize((width, bottom - top), Image.Resampling.BILINEAR, box)
