"""Localization-enhanced report generation (LERG, paper §2.2): image -> objects -> six zone logits.

The zones are then written out as a report (`sgseg.reports.write`).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from transformers import RTDetrConfig

from sgseg.anatomy import ZONES
from sgseg.models.aggregation import LocationAggregation
from sgseg.models.sgseg.rtdetr import RTDETR


class ZoneEvidence(NamedTuple):
    """Zones and the objects that speak for them.

    Attributes:
        zone_logits: (B, 6) in the order of `anatomy.ZONES`.
        weights: (B, N), of the objects in the aggregation; sum to 1.
        boxes: (B, N, 4) of the objects: centre x, centre y, width, height, as shares of the image.
    """

    zone_logits: Tensor
    weights: Tensor
    boxes: Tensor


class LERG(nn.Module):
    """Detector, location-based attention aggregation (eq. 1) with one query, classifier."""

    def __init__(self, detector: RTDetrConfig) -> None:
        super().__init__()
        self.detector = RTDETR(detector)
        self.aggregate = LocationAggregation(detector.d_model, queries=1)
        self.classify = nn.Linear(detector.d_model, len(ZONES))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) float32 -> zone logits (B, 6) in the order of `anatomy.ZONES`."""
        return self.explain(images).zone_logits

    def explain(self, images: Tensor) -> ZoneEvidence:
        """Images (B, 3, H, W) float32 -> zone logits and what they were drawn from."""
        objects = self.detector(images)
        weights = self.aggregate.weights(objects.features)
        location = (weights @ objects.features)[:, 0]
        return ZoneEvidence(self.classify(location), weights[:, 0], objects.boxes)
