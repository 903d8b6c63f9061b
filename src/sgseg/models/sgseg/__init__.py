"""SGSeg as published: ConvNeXt-T, CXR-BERT, RT-DETR, guided decoder."""

from sgseg.models.sgseg.network import Explanation, SGSeg

__all__ = ["Explanation", "SGSeg"]
