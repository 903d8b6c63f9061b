"""Networks only: they take tensors, never files."""

from sgseg.models.compact import Encoded, SGSegCompact, repeat_features
from sgseg.models.report_encoder import NO_REPORT

__all__ = ["NO_REPORT", "Encoded", "SGSegCompact", "repeat_features"]
