"""SGSeg-compact without text (paper, Table 2, "without text"): it never sees a report or a zone."""

from __future__ import annotations

from torch import Tensor, nn

from sgseg.models.baselines.base import ImageOnly, Size
from sgseg.models.compact import SGSegCompact


class Unguided(nn.Module):
    """Stands where a decoder is guided, and does nothing."""

    def forward(self, x: Tensor, report: Tensor, present: Tensor) -> Tensor:
        return x


class ImageOnlyCompact(ImageOnly):
    """SGSeg-compact's encoder and decoder; there is no guidance to learn. It has one size."""

    PRETRAINED = ("encoder.",)

    def __init__(self, size: Size, image_size: int) -> None:
        super().__init__()
        compact = SGSegCompact()
        self.encoder, self.decoder = compact.encoder, compact.decoder
        self.decoder.guide = nn.ModuleList(Unguided() for _ in self.decoder.guide)

    def segment(self, images: Tensor) -> Tensor:
        nothing = images.new_zeros(0)
        logits: Tensor = self.decoder(self.decoder.project(self.encoder(images)), nothing, nothing)
        return logits
