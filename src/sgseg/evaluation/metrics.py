"""Scores from counts: of masks, pixel by pixel, and of reports, zone by zone.

Every score is a sum over images divided by a sum over images, so one class, `Score`, holds them all, and
as it keeps its summands, one bootstrap (`sgseg.evaluation.intervals`) gives all their intervals.

"Dice" means two things in the literature, and they differ by points. `pooled` takes all pixels of a
split together, as the paper does; `per_image` is the mean over images. Where there is nothing to find and
nothing was claimed (0/0), a score is 1: an image whose truth and prediction are both empty has Dice 1,
and one whose truth alone is empty has Dice 0, however few pixels were predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgseg.anatomy import ZONES


def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Elementwise quotient in which 0/0 is 1: nothing to find, and nothing claimed."""
    return np.divide(numerator, denominator, out=np.ones_like(denominator), where=denominator != 0)


class Score(float):
    """A score, and the summands it is made of.

    Attributes:
        numerator: (N,) float64, one summand per image.
        denominator: (N,) float64; the score is the one sum over the other.
    """

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]

    def __new__(cls, numerator: NDArray[np.generic], denominator: NDArray[np.generic] | float = 1.0) -> Score:
        """Summands of any numeric type, (N,); a scalar denominator holds for every image."""
        upper = np.asarray(numerator, dtype=np.float64)
        lower = np.broadcast_to(np.asarray(denominator, dtype=np.float64), upper.shape)
        score = super().__new__(cls, ratio(upper.sum(keepdims=True), lower.sum(keepdims=True))[0])
        score.numerator, score.denominator = upper, lower
        return score

    @property
    def summands(self) -> NDArray[np.float64]:
        """Numerator and denominator of each image, (N, 2)."""
        return np.stack([self.numerator, self.denominator], axis=1)

    def of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The score of other sums of such summands: (..., 2) -> (...)."""
        return ratio(sums[..., 0], sums[..., 1])


def count(mask_pred: NDArray[np.bool_], mask_true: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """True positive, false positive, false negative and true negative pixels of one image.

    Args:
        mask_pred: the prediction, (H, W) bool.
        mask_true: the truth, (H, W) bool.

    Raises:
        ValueError: the masks differ in shape or are not bool.
    """
    if mask_pred.shape != mask_true.shape:
        raise ValueError(f"the masks differ in shape: predicted {mask_pred.shape}, true {mask_true.shape}")
    if mask_pred.dtype != bool or mask_true.dtype != bool:
        raise ValueError(f"masks are bool, not {mask_pred.dtype} and {mask_true.dtype}")
    tp = int(np.count_nonzero(mask_pred & mask_true))
    fp = int(np.count_nonzero(mask_pred)) - tp
    fn = int(np.count_nonzero(mask_true)) - tp
    return tp, fp, fn, mask_pred.size - tp - fp - fn


@dataclass(frozen=True)
class Counts:
    """Pixel counts of N images.

    Attributes:
        tp, fp, fn, tn: (N,) int64.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]

    @classmethod
    def stack(cls, rows: Sequence[tuple[int, int, int, int]]) -> Counts:
        """From what `count` gave for each image.

        Raises:
            ValueError: there are no images, of which every score would be a meaningless 1.
        """
        if not rows:
            raise ValueError("there are no images to score")
        tp, fp, fn, tn = np.array(rows, dtype=np.int64).T
        return cls(tp, fp, fn, tn)

    def __len__(self) -> int:
        return len(self.tp)

    def of(self, images: NDArray[np.int64]) -> Counts:
        """The counts of some of the images, by their positions."""
        return Counts(self.tp[images], self.fp[images], self.fn[images], self.tn[images])

    @property
    def lesion(self) -> NDArray[np.int64]:
        """True lesion pixels of each image."""
        return self.tp + self.fn

    @property
    def size(self) -> NDArray[np.int64]:
        """All pixels of each image."""
        return self.lesion + self.fp + self.tn


class Scores(NamedTuple):
    """The paper's three scores of masks, in [0, 1]."""

    accuracy: Score
    dice: Score
    jaccard: Score


def pooled(counts: Counts) -> Scores:
    """All pixels of the split taken together: the paper's headline."""
    return Scores(*(Score(part, whole) for part, whole in _fractions(counts)))


def per_image(counts: Counts) -> Scores:
    """Means over images, each image weighing the same."""
    return Scores(*(Score(ratio(part, whole)) for part, whole in _fractions(counts)))


def per_image_dice(counts: Counts) -> NDArray[np.float64]:
    """Dice of each image, (N,) float64."""
    return per_image(counts).dice.numerator


def image_dice(mask_pred: NDArray[np.bool_], mask_true: NDArray[np.bool_]) -> float:
    """Dice of a single image; arguments and errors as for `count`."""
    return float(per_image_dice(Counts.stack([count(mask_pred, mask_true)]))[0])


def lesion_rate(counts: Counts) -> Score:
    """Share of images with any predicted pixel: of healthy images, the false positive rate."""
    return Score(counts.tp + counts.fp > 0)


def exemplars(dice: NDArray[np.float64]) -> dict[str, int]:
    """Which images to look at: positions of the best, the median and the worst Dice, (N,) with N ≥ 1."""
    order = np.argsort(-dice, kind="stable")
    return {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}


def _fractions(counts: Counts) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Numerators and denominators, (N,) each, of accuracy, Dice and Jaccard."""
    tp, fp, fn, tn = (part.astype(np.float64) for part in (counts.tp, counts.fp, counts.fn, counts.tn))
    union = tp + fp + fn
    return [(tp + tn, union + tn), (2 * tp, union + tp), (tp, union)]


class ZoneScores(NamedTuple):
    """Scores of reports, in [0, 1].

    Attributes:
        accuracy: share of zones that are right, which is the mean over the six zones.
        precision: share of the zones named that are infected, all zones pooled.
        recall: share of the infected zones that are named, all zones pooled.
        f1: harmonic mean of the two.
        exact: share of reports that are wholly right.
        per_zone: accuracy of each zone, six in the canonical order.
    """

    accuracy: Score
    precision: Score
    recall: Score
    f1: Score
    exact: Score
    per_zone: tuple[Score, ...]


def zone_scores(zones_pred: NDArray[np.bool_], zones_true: NDArray[np.bool_]) -> ZoneScores:
    """Scores of N reports, each taken as six zones.

    Args:
        zones_pred: the zones named, (N, 6) bool.
        zones_true: the zones infected, (N, 6) bool.

    Raises:
        ValueError: the arrays are not both (N, 6) with N ≥ 1, or not bool.
    """
    if zones_pred.shape != zones_true.shape or zones_pred.shape[1:] != (len(ZONES),) or not len(zones_pred):
        raise ValueError(
            f"zones are (N, {len(ZONES)}): predicted {zones_pred.shape}, true {zones_true.shape}"
        )
    if zones_pred.dtype != bool or zones_true.dtype != bool:
        raise ValueError(f"zones are bool, not {zones_pred.dtype} and {zones_true.dtype}")
    right = zones_pred == zones_true
    hits = (zones_pred & zones_true).sum(1)
    named, infected = zones_pred.sum(1), zones_true.sum(1)
    return ZoneScores(
        accuracy=Score(right.mean(1)),
        precision=Score(hits, named),
        recall=Score(hits, infected),
        f1=Score(2 * hits, named + infected),
        exact=Score(right.all(1)),
        per_zone=tuple(Score(zone) for zone in right.T),
    )
