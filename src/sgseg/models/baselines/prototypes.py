"""Prototypes of reports, found again from the image, in the manner of ProLearn (Ye et al., ICCV 2025).

What follows it: image and report embeddings are drawn together first. For each zone, the pairs of those
images that have a report are clustered into 16 prototypes; the image half of one is its key, the report half
its value. An image asks for its three nearest keys by cosine; their values take up the image's features by
attention, and guide the decoder by cross-attention. From then on no text is needed, neither to train nor to
predict.

What does not: encoder, report encoder and decoder are SGSeg-compact's, where ProLearn asks with BiomedCLIP
and segments with ConvNeXt-T and LanGuideMedSeg's decoder. One encoder does both here and is trained on, so
the keys are trained too, and the softmax of the cosines weights the values: through it the gradient reaches
the question. The values take up image features once, at the coarsest scale; ProLearn's do before each of
three stages.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgseg.anatomy import ZONES
from sgseg.models.baselines.base import ImageOnly, Size
from sgseg.models.compact import SGSegCompact
from sgseg.models.layers import Position2d, to_tokens

_TEMPERATURE = 0.1  # of the contrastive loss, which shapes the cosines


class PrototypeBank(nn.Module):
    """Prototypes of what reports say: keys in the space of images, values in that of reports."""

    def __init__(self, dim: int, per_zone: int = 16, candidates: int = 3) -> None:
        """
        Args:
            dim: width of both spaces.
            per_zone: prototypes of each zone.
            candidates: how many respond to a query.
        """
        super().__init__()
        self.per_zone, self.candidates = per_zone, candidates
        self.keys = nn.Parameter(torch.randn(len(ZONES) * per_zone, dim) * dim**-0.5)
        self.values = nn.Parameter(torch.randn(len(ZONES) * per_zone, dim) * dim**-0.5)

    def forward(self, queries: Tensor) -> Tensor:
        """Queries (B, dim) -> responses (B, candidates, dim), the nearest prototype's first."""
        cosines = F.normalize(queries, dim=1) @ F.normalize(self.keys, dim=1).T
        best, chosen = cosines.topk(self.candidates)
        weights = torch.softmax(best / _TEMPERATURE, dim=1) * self.candidates
        return self.values[chosen] * weights[..., None]

    @torch.no_grad()
    def distil(self, queries: Tensor, reports: Tensor, zones: Tensor) -> None:
        """Fills the bank from images with reports, once, after both spaces have been drawn together.

        Args:
            queries, reports: (N, dim), of `PrototypeNetwork.align`.
            zones: (N, 6), which zones the reports name; a zone that none names keeps its random prototypes.
        """
        pairs = torch.cat([F.normalize(queries, dim=1), F.normalize(reports, dim=1)], dim=1)
        for zone in range(len(ZONES)):
            members = pairs[zones[:, zone] > 0.5]
            if len(members):
                rows = slice(zone * self.per_zone, (zone + 1) * self.per_zone)
                self.keys[rows], self.values[rows] = k_means(members, self.per_zone).chunk(2, dim=1)


class PrototypeNetwork(ImageOnly):
    """SGSeg-compact guided by what its bank of prototypes responds to the image. It has one size."""

    PRETRAINED = ("encoder.",)

    def __init__(self, size: Size, image_size: int) -> None:
        super().__init__()
        compact = SGSegCompact()
        self.encoder, self.decoder, self.reports = compact.encoder, compact.decoder, compact.report_encoder
        dim = self.reports.norm.normalized_shape[0]
        self.query = nn.Linear(self.encoder.channels[-1], dim)
        self.bank = PrototypeBank(dim)
        self.lateral, self.position = nn.Conv2d(self.encoder.channels[-1], dim, 1), Position2d(dim)
        self.approximate = nn.TransformerDecoderLayer(
            dim, 4, 2 * dim, dropout=0.0, activation="gelu", batch_first=True
        )

    def segment(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        coarsest = features[-1]
        memory = to_tokens(self.lateral(coarsest)) + self.position(*coarsest.shape[2:])
        tokens = self.approximate(self.bank(self._query(coarsest)), memory)
        logits: Tensor = self.decoder(self.decoder.project(features), tokens, tokens.new_ones(len(tokens)))
        return logits

    def report_encoder(self) -> Tensor:
        """The table of report tokens, (65, L, D), for `align` alone."""
        table: Tensor = self.reports()
        return table

    def align(self, images: Tensor, report: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """What the pre-training compares, and what the bank is distilled from: (B, D) both."""
        return self._query(self.encoder(images)[-1]), table[report].mean(1)

    def _query(self, coarsest: Tensor) -> Tensor:
        query: Tensor = self.query(coarsest.mean((2, 3)))
        return query


def k_means(points: Tensor, clusters: int, steps: int = 20) -> Tensor:
    """Lloyd's algorithm from random points.

    Args:
        points: (N, D); with fewer points than clusters, some centres coincide.
        clusters: how many centres.
        steps: of assignment and averaging.

    Returns:
        Centres (clusters, D).
    """
    start = torch.randperm(len(points), device=points.device)
    centres = points[start[torch.arange(clusters, device=points.device) % len(points)]]
    for _ in range(steps):
        member = F.one_hot(torch.cdist(points, centres).argmin(1), clusters).to(points.dtype)
        counts = member.sum(0)[:, None]
        centres = torch.where(counts > 0, member.T @ points / counts.clamp(min=1), centres)
    return centres
