"""A contact sheet: cases side by side, for looking at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sgseg.anatomy import Laterality
from sgseg.formats.drawing import BLUE, GREY, INK, ORANGE, PAPER, font, shorten, wrap
from sgseg.formats.overlay import overlay, truth_overlay
from sgseg.formats.zones import zone_grid

_MARGIN = 48
_CELL = 320
_GAP = 24
_TEXT = 400
_HEADINGS = ("X-ray", "truth", "prediction", "zone probabilities", "report")
_LEGEND = ((BLUE, "true lesion"), (ORANGE, "predicted lesion"))
_LEFTS = [_MARGIN + i * (_CELL + _GAP) for i in range(len(_HEADINGS))]
_WIDTH = _LEFTS[-1] + _GAP + _TEXT + _MARGIN
_TITLE, _LARGE, _NORMAL, _SMALL = 40, 36, 24, 22
_LEADING = 1.4
_SHARPNESS = 2


@dataclass(frozen=True)
class SheetRow:
    """One case of a contact sheet.

    Attributes:
        label: what it is, one line, such as "worst" or a file name.
        pixels: (H, W) float32 in [0, 1].
        truth: the true lesion, (H, W) bool.
        mask: the predicted lesion, (H, W) bool.
        zones: probabilities of the six zones, in the canonical order.
        report: the predicted report, its sides the patient's.
        dice: of the two masks.
        sides: false for a lateral view, on which "R" and "L" are left out.

    Raises:
        ValueError: the arrays differ in shape.
    """

    label: str
    pixels: NDArray[np.float32]
    truth: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    zones: Sequence[float]
    report: str
    dice: float
    sides: bool = True

    def __post_init__(self) -> None:
        shapes = self.pixels.shape, self.truth.shape, self.mask.shape
        if len(set(shapes)) > 1:
            raise ValueError("X-ray, truth and mask differ in shape: {} {} {}".format(*shapes))


def contact_sheet(rows: Sequence[SheetRow], title: str) -> Image.Image:
    """A picture with one row per case: X-ray, truth, prediction, zones, and what there is to read.

    Args:
        rows: the cases, from top to bottom.
        title: what they are; where they are no patients, say so here.

    Returns:
        An RGB picture about 1,900 pixels wide.
    """
    lines = wrap(title, _TITLE, _WIDTH - 2 * _MARGIN)
    legend = _MARGIN + round(len(lines) * _TITLE * _LEADING) + 32
    headings = legend + 72
    rows_top = headings + 20
    height = rows_top + len(rows) * (_CELL + _GAP) - _GAP + _MARGIN
    sheet = Image.new("RGB", (_WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (_MARGIN, _MARGIN), lines, _TITLE)
    _draw_legend(draw, legend)
    for left, heading in zip(_LEFTS, _HEADINGS, strict=True):
        draw.text((left, headings), heading, GREY, font(_SMALL), "ls")
    for i, row in enumerate(rows):
        _draw_row(sheet, row, rows_top + i * (_CELL + _GAP))
    return sheet


def _draw_row(sheet: Image.Image, row: SheetRow, top: int) -> None:
    """Draws one case, its upper edge at `top`."""
    height, width = row.pixels.shape
    scale = _CELL * _SHARPNESS / max(height, width)
    size = (round(width * scale), round(height * scale))
    pixels = np.asarray(Image.fromarray(row.pixels).resize(size, Image.Resampling.BICUBIC))
    truth, mask = _resized(row.truth, size), _resized(row.mask, size)
    pictures = [
        truth_overlay(pixels, np.zeros_like(truth), sides=False),
        truth_overlay(pixels, truth, sides=row.sides),
        overlay(pixels, mask, truth, sides=row.sides),
    ]
    for left, picture in zip(_LEFTS, pictures, strict=False):
        # Drawn large and shrunk, the lines and letters come out smooth.
        sheet.paste(picture.reduce(_SHARPNESS), (left, top))
    zones = zone_grid(row.zones, _CELL, Laterality.PATIENT if row.sides else None)
    sheet.paste(zones, (_LEFTS[3], top))
    draw = ImageDraw.Draw(sheet)
    left = _LEFTS[4]
    draw.text((left, top + 20), shorten(row.label, _NORMAL, _TEXT), INK, font(_NORMAL), "ls")
    draw.text((left, top + 66), f"Dice {row.dice:.3f}", INK, font(_LARGE), "ls")
    _write(draw, (left, top + 96), wrap(row.report, _NORMAL, _TEXT), _NORMAL)


def _draw_legend(draw: ImageDraw.ImageDraw, baseline: int) -> None:
    """Explains the colours and letters, in one line."""
    left = _MARGIN
    for colour, text in _LEGEND:
        draw.rectangle((left, baseline - 17, left + 28, baseline), fill=colour)
        draw.text((left + 40, baseline), text, INK, font(_SMALL), "ls")
        left += 40 + round(font(_SMALL).getlength(text)) + 44
    draw.text((left, baseline), "R, L: the patient's right and left", INK, font(_SMALL), "ls")


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str], size: int) -> None:
    """Writes lines of text from `place` downwards."""
    for i, line in enumerate(lines):
        draw.text((place[0], place[1] + round(i * size * _LEADING)), line, INK, font(size), "la")


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask in another size (width, height), its outline smooth."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(grey) >= 128
