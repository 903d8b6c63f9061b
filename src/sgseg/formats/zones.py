"""The six zone probabilities as a small map of the chest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from sgseg.anatomy import ZONES, Laterality, Level, Side, Zone
from sgseg.formats.drawing import GREY, INK, ORANGE, PAPER, blend, font

_EMPTY = (242, 242, 242)
# As shares of the picture's size:
_HEADING, _MIDLINE, _GAP = 0.13, 0.06, 0.014
_APEX_RADIUS, _BASE_RADIUS = 0.13, 0.04
_SMOOTHING = 4


def zone_grid(
    zone_probabilities: Sequence[float], size: int, laterality: Laterality | None = Laterality.PATIENT
) -> Image.Image:
    """A map of two lungs of three zones, seen as on the X-ray: the zones of image-left are at the left.

    Args:
        zone_probabilities: six in [0, 1], in the canonical order; the likelier, the more orange the zone.
            NaN stands for not known.
        size: width and height in pixels, from about 120 on.
        laterality: how the heading names the sides: "R" and "L" of the patient, "image left" and
            "image right", or nothing for a lateral view.

    Returns:
        A square RGB picture.

    Raises:
        ValueError: there are not six probabilities.
    """
    top = 0 if laterality is None else round(size * _HEADING)
    # Pillow draws round corners without smoothing: draw large, then shrink.
    large = Image.new("RGB", (size * _SMOOTHING, size * _SMOOTHING), PAPER)
    draw = ImageDraw.Draw(large)
    for zone, share in zip(ZONES, zone_probabilities, strict=True):
        apex, base = zone.level is Level.UPPER, zone.level is Level.LOWER
        left, upper, right, lower = (edge * _SMOOTHING for edge in _box(zone, size, top))
        draw.rounded_rectangle(
            (left, upper, right - 1, lower - 1),
            radius=size * _SMOOTHING * (_APEX_RADIUS if apex else _BASE_RADIUS),
            fill=_EMPTY if math.isnan(share) else blend(_EMPTY, ORANGE, share),
            corners=(apex, apex, base, base),
        )
    picture = large.reduce(_SMOOTHING)
    draw = ImageDraw.Draw(picture)
    for zone, share in zip(ZONES, zone_probabilities, strict=True):
        left, upper, right, lower = _box(zone, size, top)
        centre = ((left + right) / 2, (upper + lower) / 2)
        percent = "?" if math.isnan(share) else f"{100 * share:.0f} %"
        draw.text(centre, percent, INK, font(round(size * 0.085)), "mm")
        if zone.level is Level.UPPER and laterality is not None:
            heading = _heading(zone.side, laterality)
            draw.text((centre[0], top * 0.42), heading, GREY, font(round(size * 0.075)), "mm")
    return picture


def _box(zone: Zone, size: int, top: int) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of a zone in pixels; the lungs begin at `top`."""
    width, height, gap = round(size * (1 - _MIDLINE) / 2), (size - top) / len(Level), round(size * _GAP)
    left = 0 if zone.side is Side.IMAGE_LEFT else size - width
    upper = top + round(zone.level.value * height)
    lower = top + round((zone.level.value + 1) * height)
    return left, upper, left + width, lower if zone.level is Level.LOWER else lower - gap


def _heading(side: Side, laterality: Laterality) -> str:
    word = side.word(laterality)
    return word[0].upper() if laterality is Laterality.PATIENT else f"image {word}"
