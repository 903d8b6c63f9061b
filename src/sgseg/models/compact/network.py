"""SGSeg-compact: the paper's idea for a laptop; the model that ships."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sgseg.models.compact.efficientnet import EfficientNetLite, Variant
from sgseg.models.compact.guided_decoder import GuidedDecoder
from sgseg.models.compact.lerg import CompactLERG
from sgseg.models.compact.report_encoder import ReportEncoder
from sgseg.models.interface import Encoded
from sgseg.reports import NO_REPORT


class SGSegCompact(nn.Module):
    """EfficientNet-Lite, LERG in miniature, a table of 64 reports, a guided decoder.

    Images are float32 (B, 1, H, W), z-scored per image, H and W multiples of 32.
    """

    PRETRAINED = ("encoder.",)
    reads_reports = True
    writes_reports = True

    def __init__(
        self,
        encoder: Variant = "lite0",
        decoder_dims: Sequence[int] = (48, 96, 144, 192),
        report_dim: int = 128,
        report_tokens: int = 8,
    ) -> None:
        super().__init__()
        self.encoder = EfficientNetLite(encoder)
        self.lerg = CompactLERG(self.encoder.channels[2:])
        self.report_encoder = ReportEncoder(report_dim, report_tokens)
        self.decoder = GuidedDecoder(self.encoder.channels, decoder_dims, report_dim)

    def encode(self, images: Tensor) -> Encoded:
        """Looks at the images once; everything that needs no report."""
        features = self.encoder(images)
        projected = self.decoder.project(features)
        if self.training:  # which has no use for the maps
            return Encoded(projected, self.lerg(features[2], features[3]))
        return Encoded(projected, *self.lerg.explain(features[2], features[3]))

    def read_zones(self, images: Tensor) -> Tensor:
        """Zone logits (B, 6) of `encode`, by which LERG alone can learn."""
        with torch.no_grad():
            *_, fine, coarse = self.encoder(images)
        return self.lerg(fine, coarse)

    def decode(self, features: Sequence[Tensor], report: Tensor, table: Tensor) -> Tensor:
        """Masks of encoded images, guided by reports.

        Args:
            features: of `encode`.
            report: (B,) int64, index of the ZoneSet that the report names, or `NO_REPORT`.
            table: report tokens, from `report_encoder()`.

        Returns:
            Mask logits (B, 1, H, W).
        """
        logits: Tensor = self.decoder(features, table[report], report != NO_REPORT)
        return logits

    def forward(self, images: Tensor, report: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (B, 1, H, W) under the given reports, and zone logits (B, 6)."""
        encoded = self.encode(images)
        return self.decode(encoded.features, report, self.report_encoder()), encoded.zone_logits
