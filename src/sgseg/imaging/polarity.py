"""Are the bones bright, as everywhere in SGSeg, or does a file show the negative?

A linear classifier looks at a 16×16 thumbnail with zero mean and unit variance. It has no bias, so a
picture and its negative score exactly opposite: whatever is right for one is right for the other.
`sgseg.training.polarity` fits its weights.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
MARGIN = 3.0
"""How far below zero a score must be before a picture is turned round.

On the `valid` parts, cropped, tilted, framed and with bent tone curves, it turns 0.05 % wrongly.
"""


def is_inverted(content: NDArray[np.float32]) -> bool:
    """Whether the bones are dark; in doubt they are not.

    Args:
        content: the X-ray without its borders, (H, W) float32; its scale does not matter.
    """
    return float(thumbnail(content) @ _weights()) < -MARGIN


def thumbnail(content: NDArray[np.float32]) -> NDArray[np.float32]:
    """The (256,) float32 that the classifier sees: 16×16 mean greys, zero mean, unit variance."""
    image = Image.fromarray(np.ascontiguousarray(content)).resize((SIDE, SIDE), Image.Resampling.BOX)
    greys: NDArray[np.float32] = np.asarray(image, dtype=np.float32).ravel()
    greys = greys - greys.mean()
    greys /= max(float(greys.std()), 1e-6)
    return greys


@cache
def _weights() -> NDArray[np.float32]:
    with (files("sgseg.imaging") / "polarity.npy").open("rb") as file:
        weights: NDArray[np.float32] = np.load(file)
    return weights
