"""What the pictures share: colours, type, and lines around masks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

Colour = tuple[int, int, int]

ORANGE: Colour = (230, 159, 0)
"""What the model says. With `BLUE`, from the palette of Okabe and Ito, told apart by the colour-blind."""
BLUE: Colour = (86, 180, 233)
"""What is true."""
INK: Colour = (26, 26, 26)
GREY: Colour = (110, 110, 110)
PAPER: Colour = (255, 255, 255)

_TINT = 0.3


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The typeface that comes with Pillow, its size in pixels; it has Latin letters and few signs."""
    return ImageFont.load_default(size=size)


def shorten(text: str, size: int, width: int) -> str:
    """The text, its end replaced by "…" if it is wider than `width` pixels."""
    shown = text
    while font(size).getlength(shown) > width and len(text) > 1:
        text = text[:-1]
        shown = text.rstrip() + "…"
    return shown


def wrap(text: str, size: int, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(word, size, width))
    return lines


def blend(low: Colour, high: Colour, share: float) -> Colour:
    """The colour `share` of the way from one to the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return red, green, blue


def line_width(shape: tuple[int, ...]) -> int:
    """Width of a contour, in pixels, that suits a picture of this (H, W)."""
    return max(1, round(min(shape) / 240))


def inner_edge(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The outermost pixels of a mask, `width` deep, also along the border of the image. (H, W) bool."""
    outside = _grown(np.pad(~mask, 1, constant_values=True), width)
    return mask & outside[1:-1, 1:-1]


def outer_edge(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels that surround a mask, `width` deep. (H, W) bool."""
    return _grown(mask, width) & ~mask


def tinted(pixels: NDArray[np.float32], mask: NDArray[np.bool_], colour: Colour) -> NDArray[np.uint8]:
    """An X-ray, (H, W) in [0, 1], with a mask, (H, W), laid over it as translucent colour: (H, W, 3) uint8.

    Raises:
        ValueError: the two differ in shape.
    """
    if pixels.ndim != 2 or mask.shape != pixels.shape:
        raise ValueError(f"the X-ray and the mask differ in shape: {pixels.shape} and {mask.shape}")
    grey = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    canvas = np.repeat(grey[..., None], 3, axis=2)
    mixed = (1 - _TINT) * canvas[mask] + _TINT * np.array(colour)
    canvas[mask] = np.rint(mixed).astype(np.uint8)
    return canvas


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Dilation by an octagon: by a cross and by a square in turn."""
    for step in range(steps):
        tall = mask.copy()
        tall[1:] |= mask[:-1]
        tall[:-1] |= mask[1:]
        source = tall if step % 2 else mask
        mask = tall.copy()
        mask[:, 1:] |= source[:, :-1]
        mask[:, :-1] |= source[:, 1:]
    return mask
