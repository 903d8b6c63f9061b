"""SGSeg-compact: the model that ships."""

from sgseg.models.compact.network import SGSegCompact

__all__ = ["SGSegCompact"]
