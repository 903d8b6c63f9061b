"""Simple report generation (paper, Table 2): a plain classifier in place of LERG."""

from __future__ import annotations

from torch import Tensor, nn

from sgseg.anatomy import ZONES
from sgseg.models.baselines.base import Size
from sgseg.models.compact import SGSegCompact


class PlainClassifier(nn.Module):
    """The mean of the coarsest features, and a linear layer; it has no notion of place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classify = nn.Linear(channels, len(ZONES))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Features at strides 16 and 32 -> zone logits (B, 6); the finer are not looked at."""
        logits: Tensor = self.classify(coarse.mean((2, 3)))
        return logits

    def explain(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, None]:
        """What `forward` gives, and no map: it looks for no zone."""
        return self(fine, coarse), None


class SimpleReport(SGSegCompact):
    """SGSeg-compact that writes its report without detecting anything. It has one size."""

    def __init__(self, size: Size, image_size: int) -> None:
        super().__init__()
        self.lerg = PlainClassifier(self.encoder.channels[-1])  # type: ignore[assignment]  # LERG's contract, not its class
