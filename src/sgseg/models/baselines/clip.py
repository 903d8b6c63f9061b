"""CLIP pre-training, then fine-tuning on images alone (paper, Table 2; Radford et al., ICML 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from sgseg.models.baselines.base import Size
from sgseg.models.baselines.image_only import ImageOnlyCompact
from sgseg.models.compact import SGSegCompact


class ClipCompact(ImageOnlyCompact):
    """SGSeg-compact without text, whose encoder has first been drawn to the reports.

    The pre-training is a stage of training with the contrastive objective, which calls `align`; the stage
    after it segments, and neither reads nor trains the text side. It has one size.
    """

    def __init__(self, size: Size, image_size: int) -> None:
        super().__init__(size, image_size)
        self.reports = SGSegCompact().report_encoder
        self.project = nn.Linear(self.encoder.channels[-1], self.reports.norm.normalized_shape[0])

    def report_encoder(self) -> Tensor:
        """The table of report tokens, (65, L, D), for `align` alone."""
        table: Tensor = self.reports()
        return table

    def align(self, images: Tensor, report: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """What the pre-training compares: mean image feature and mean report token, (B, D) both."""
        return self.project(self.encoder(images)[-1].mean((2, 3))), table[report].mean(1)
