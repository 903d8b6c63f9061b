"""A control: six learned zone embeddings in place of BERT's words.

If they guide as well as the words, the words carry nothing but the zones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sgseg.anatomy import N_ZONESETS, ZONES, ZoneSet
from sgseg.models.baselines.base import Size
from sgseg.models.compact import SGSegCompact


class ZoneEmbeddings(nn.Module):
    """One report token for each zone: the zone's own where the report names it, a common one where not.

    Buffers:
        named: (64, 6, 1) float32, 1 where `ZoneSet(i)` of row i has the zone.
    """

    named: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        vectors = [ZoneSet(index).vector for index in range(N_ZONESETS)]
        self.register_buffer("named", torch.tensor(vectors, dtype=torch.float32)[..., None])
        self.zones = nn.Parameter(torch.randn(len(ZONES), dim))
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.norm.bias)  # the common token: what the norm makes of a zone that is not named

    def forward(self) -> Tensor:
        """The table of report tokens, (65, 6, dim); the last row, `reports.NO_REPORT`, is zero."""
        table = self.norm(self.named * self.zones)
        return torch.cat([table, torch.zeros_like(table[:1])])


class ZoneEmbeddingsCompact(SGSegCompact):
    """SGSeg-compact with `ZoneEmbeddings` as its report encoder. It has one size."""

    def __init__(self, size: Size, image_size: int) -> None:
        super().__init__()
        dim = self.report_encoder.norm.normalized_shape[0]
        self.report_encoder = ZoneEmbeddings(dim)  # type: ignore[assignment]  # the same contract
