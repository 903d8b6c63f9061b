"""Examination: scores of masks and reports, and how sure they are. No model knows it is examined."""

from sgseg.evaluation.examine import Evaluation, examine, picture, sheet_row
from sgseg.evaluation.intervals import bootstrap
from sgseg.evaluation.ledger import append_to_ledger
from sgseg.evaluation.metrics import (
    Counts,
    Score,
    Scores,
    ZoneScores,
    count,
    exemplars,
    image_dice,
    lesion_rate,
    per_image,
    per_image_dice,
    pooled,
    zone_scores,
)

__all__ = [
    "Counts",
    "Evaluation",
    "Score",
    "Scores",
    "ZoneScores",
    "append_to_ledger",
    "bootstrap",
    "count",
    "examine",
    "exemplars",
    "image_dice",
    "lesion_rate",
    "per_image",
    "per_image_dice",
    "picture",
    "pooled",
    "sheet_row",
    "zone_scores",
]
