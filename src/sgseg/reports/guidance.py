"""Where the decoder's text comes from, and how probable each of the 64 reports is."""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from sgseg.anatomy import N_ZONESETS, ZoneSet

NO_REPORT = N_ZONESETS
"""The index that stands for "there is no report" (`Guidance.NONE`), beside 0…63 for `ZoneSet(index)`."""

SOFT_REPORTS = 8
"""How many of the likeliest reports `Guidance.SELF_SOFT` mixes."""


class Guidance(str, Enum):
    """Where the report that guides the decoder comes from.

    `NONE`: no report; cross-attention is skipped. (Not the empty ZoneSet, which says "no infection.")
    `SELF`: the model's own likeliest report, as in the paper.
    `SELF_SOFT`: the mean of the masks of the likeliest reports, weighted by their probabilities.
    `TEXT`: the user's words.
    """

    NONE = "none"
    SELF = "self"
    SELF_SOFT = "self-soft"
    TEXT = "text"


_VECTORS = np.array([ZoneSet(index).vector for index in range(N_ZONESETS)], dtype=np.float32)


def report_probabilities(zones: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability of each of the 64 reports, the six zones taken as independent.

    Args:
        zones: zone probabilities, (B, 6) float32 in [0, 1].

    Returns:
        (B, 64) float32; every row sums to 1; column i belongs to `ZoneSet(i)`.
    """
    p = np.clip(zones, 1e-6, 1 - 1e-6)
    log = np.log(p) @ _VECTORS.T + np.log1p(-p) @ (1 - _VECTORS).T
    joint = np.exp(log)
    return np.asarray(joint / joint.sum(1, keepdims=True), dtype=np.float32)


def likeliest_reports(zones: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k likeliest reports and their weights.

    Args:
        zones: zone probabilities, (B, 6) float32 in [0, 1].
        k: how many, 1…64.

    Returns:
        Indices of the reports, (B, k) int64, likeliest first, and their probabilities scaled to
        sum to 1, (B, k) float32.
    """
    joint = report_probabilities(zones)
    order = np.argsort(-joint, axis=1, kind="stable")[:, :k]
    weights = np.take_along_axis(joint, order, axis=1)
    return order, weights / weights.sum(1, keepdims=True)
