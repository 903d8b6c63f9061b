"""Examination: scores of masks and reports, and how sure they are. No model knows it is examined."""

from sgseg.evaluation.intervals import bootstrap
from sgseg.evaluation.metrics import (
    Counts,
    Score,
    Scores,
    ZoneScores,
    count,
    exemplars,
    lesion_rate,
    per_image,
    per_image_dice,
    pooled,
    zone_scores,
)

__all__ = [
    "Counts",
    "Score",
    "Scores",
    "ZoneScores",
    "bootstrap",
    "count",
    "exemplars",
    "lesion_rate",
    "per_image",
    "per_image_dice",
    "pooled",
    "zone_scores",
]
