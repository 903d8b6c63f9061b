"""Networks only: they take tensors, never files."""

from sgseg.models.compact import SGSegCompact
from sgseg.models.interface import Encoded, repeat_features
from sgseg.models.sgseg import SGSeg

__all__ = ["Encoded", "SGSeg", "SGSegCompact", "repeat_features"]
