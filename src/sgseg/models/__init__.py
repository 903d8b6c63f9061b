"""Networks only: they take tensors, never files."""

from sgseg.models.compact import SGSegCompact
from sgseg.models.interface import Encoded, repeat_features

__all__ = ["Encoded", "SGSegCompact", "repeat_features"]
