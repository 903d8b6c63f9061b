"""Do probabilities mean what they say? The calibration of pixels.

Pixels enter as a histogram over their logit, in which a temperature is a mere scale: a hundred million pixels
become 2 × 960 numbers, from which every calibration curve and every temperature follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LARGEST = 12.0
_BINS = 960
_EDGES = np.linspace(-_LARGEST, _LARGEST, _BINS + 1)
_CENTRES = (_EDGES[1:] + _EDGES[:-1]) / 2
_TEMPERATURES = np.geomspace(0.2, 10, 800)


class CurvePoint(NamedTuple):
    """A bin of a calibration curve.

    Attributes:
        probability: mean of its pixels.
        lesion: the share of them that is lesion.
        pixels: how many there are.
    """

    probability: float
    lesion: float
    pixels: int


@dataclass(frozen=True)
class Reliability:
    """How often pixels of each probability are lesion.

    Attributes:
        pixels: (BINS,) int64, how many had a logit in the bin.
        lesion: (BINS,) int64, how many of them are lesion.
    """

    pixels: NDArray[np.int64]
    lesion: NDArray[np.int64]

    @classmethod
    def of(cls, probability: NDArray[np.float32], mask_true: NDArray[np.bool_]) -> Reliability:
        """Counts the pixels of one image.

        Args:
            probability: of a lesion, (H, W) in [0, 1].
            mask_true: (H, W) bool.
        """
        limit = 1 / (1 + np.exp(_LARGEST))
        p = np.clip(probability.astype(np.float64), limit, 1 - limit)
        logit = np.log(p / (1 - p))
        bins = np.clip(((logit + _LARGEST) * (_BINS / (2 * _LARGEST))).astype(np.int64), 0, _BINS - 1)
        return cls(np.bincount(bins.ravel(), minlength=_BINS), np.bincount(bins[mask_true], minlength=_BINS))

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.pixels + other.pixels, self.lesion + other.lesion)

    def curve(self, temperature: float = 1.0, bins: int = 15) -> list[CurvePoint]:
        """Bins of equal width in probability, the logits divided by `temperature`; none is empty."""
        p = 1 / (1 + np.exp(-_CENTRES / temperature))
        which = np.minimum((p * bins).astype(int), bins - 1)
        n, lesion, total = (
            np.bincount(which, weights, bins) for weights in (self.pixels, self.lesion, self.pixels * p)
        )
        return [
            CurvePoint(float(total[i] / n[i]), float(lesion[i] / n[i]), int(n[i]))
            for i in range(bins)
            if n[i]
        ]

    def ece(self, temperature: float = 1.0) -> float:
        """Expected calibration error: mean distance of probability and frequency, weighted by pixels."""
        curve = self.curve(temperature)
        gaps = sum(point.pixels * abs(point.probability - point.lesion) for point in curve)
        return gaps / sum(point.pixels for point in curve)

    def log_loss(self, temperature: float = 1.0) -> float:
        """Mean cross-entropy of a pixel, nats."""
        z = _CENTRES / temperature
        return float((self.pixels * np.logaddexp(0, z) - self.lesion * z).sum() / self.pixels.sum())

    def temperature(self) -> float:
        """By what logits are best divided: the least cross-entropy (Guo et al., ICML 2017)."""
        return float(min(_TEMPERATURES, key=self.log_loss))
