"""Chooses the probability above which an X-ray is said to have a finding at all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgseg.inference.runtime import FINDING_THRESHOLD

SENSITIVITY = 0.97
"""Share of the X-rays with a lesion that must have a finding: two points above the aim, for splits differ."""


class FindingThreshold(NamedTuple):
    """A threshold, and how often it is right about the X-rays that chose it and those without a lesion.

    Attributes:
        threshold: the likeliest zone's probability above which an image has a finding; whole hundredths.
        sensitivity: share of the X-rays with a lesion that have a finding; None where there are none.
        false_positive_rate: share of the X-rays without one that have a finding; None where there are none.
        cases, negatives: how many of either there are.
    """

    threshold: float
    sensitivity: float | None
    false_positive_rate: float | None
    cases: int
    negatives: int


def choose_finding_threshold(
    positives: NDArray[np.float64], negatives: NDArray[np.float64]
) -> FindingThreshold:
    """The highest threshold, in whole hundredths, at which `SENSITIVITY` of the positives have a finding.

    Args:
        positives: the likeliest zone's probability in each X-ray with a lesion, (N,).
        negatives: the same of X-rays without a finding, (M,); they choose nothing.

    Returns:
        Without any positive, the threshold `FINDING_THRESHOLD`.
    """
    threshold = FINDING_THRESHOLD
    if len(positives):
        enough = [t for t in np.arange(100) / 100 if (positives > t).mean() >= SENSITIVITY]
        threshold = float(max(enough, default=0.0))
    rates = [round(float((x > threshold).mean()), 4) if len(x) else None for x in (positives, negatives)]
    return FindingThreshold(threshold, rates[0], rates[1], len(positives), len(negatives))
