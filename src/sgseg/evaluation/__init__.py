"""Examination: scores of masks and reports, and how sure they are. No model knows it is examined."""

from sgseg.evaluation.analysis import analyse
from sgseg.evaluation.compare import Comparison, compare, read_evaluation
from sgseg.evaluation.examine import Evaluation, examine, picture, sheet_row
from sgseg.evaluation.finding import FindingThreshold, choose_finding_threshold
from sgseg.evaluation.intervals import bootstrap
from sgseg.evaluation.ledger import append_to_ledger
from sgseg.evaluation.masks import Masks, examine_masks, find_masks, picture_of_masks
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
from sgseg.evaluation.reliability import Reliability
from sgseg.evaluation.text import MISSING_EXTRA, text_scores

__all__ = [
    "MISSING_EXTRA",
    "Comparison",
    "Counts",
    "Evaluation",
    "FindingThreshold",
    "Masks",
    "Reliability",
    "Score",
    "Scores",
    "ZoneScores",
    "analyse",
    "append_to_ledger",
    "bootstrap",
    "choose_finding_threshold",
    "compare",
    "count",
    "examine",
    "examine_masks",
    "exemplars",
    "find_masks",
    "image_dice",
    "lesion_rate",
    "per_image",
    "per_image_dice",
    "picture",
    "picture_of_masks",
    "pooled",
    "read_evaluation",
    "sheet_row",
    "text_scores",
    "zone_scores",
]
