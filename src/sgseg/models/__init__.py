"""Networks only: they take tensors, never files."""

from sgseg.models.compact import Encoded, SGSegCompact, repeat_features

__all__ = ["Encoded", "SGSegCompact", "repeat_features"]
