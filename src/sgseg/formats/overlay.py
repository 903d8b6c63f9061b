"""An X-ray with the lesion drawn on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sgseg.anatomy import Laterality, Side
from sgseg.formats.drawing import BLUE, INK, ORANGE, PAPER, font, inner_edge, line_width, outer_edge, tinted


def overlay(
    pixels: NDArray[np.float32],
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None = None,
    *,
    sides: bool = True,
) -> Image.Image:
    """The X-ray with the predicted lesion in orange and, if known, the outline of the true one in blue.

    The orange line lies just inside the predicted mask and the blue one just outside the true mask, so that
    both are seen where the masks agree.

    Args:
        pixels: (H, W) float32 in [0, 1].
        mask: the predicted lesion, (H, W) bool.
        truth: the true lesion, (H, W) bool.
        sides: write "R" and "L" on the patient's sides; false for a lateral view, which has none.

    Returns:
        An RGB picture of the X-ray's own size.

    Raises:
        ValueError: the arrays differ in shape.
    """
    canvas = tinted(pixels, mask, ORANGE)
    width = line_width(mask.shape)
    canvas[inner_edge(mask, width)] = ORANGE
    if truth is not None:
        if truth.shape != mask.shape:
            raise ValueError(f"the masks differ in shape: predicted {mask.shape}, true {truth.shape}")
        canvas[outer_edge(truth, width)] = BLUE
    return _finished(canvas, sides)


def truth_overlay(
    pixels: NDArray[np.float32], truth: NDArray[np.bool_], *, sides: bool = True
) -> Image.Image:
    """The X-ray with the true lesion in blue; arguments, result and errors as for `overlay`."""
    canvas = tinted(pixels, truth, BLUE)
    canvas[inner_edge(truth, line_width(truth.shape))] = BLUE
    return _finished(canvas, sides)


def _finished(canvas: NDArray[np.uint8], sides: bool) -> Image.Image:
    picture = Image.fromarray(canvas)
    if sides:
        _mark_sides(picture)
    return picture


def _mark_sides(picture: Image.Image) -> None:
    """Writes "R" into the upper corner at the patient's right (image left), and "L" into the other."""
    size = max(12, round(min(picture.size) * 0.065))
    gap = size // 2
    draw = ImageDraw.Draw(picture)
    places = {Side.IMAGE_LEFT: (gap, "lt"), Side.IMAGE_RIGHT: (picture.width - 1 - gap, "rt")}
    for side, (x, anchor) in places.items():
        letter = side.word(Laterality.PATIENT)[0].upper()
        stroke = max(1, size // 10)
        draw.text((x, gap), letter, PAPER, font(size), anchor, stroke_width=stroke, stroke_fill=INK)
