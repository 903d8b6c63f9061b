"""Localization-enhanced report generation (LERG) in miniature: image features -> six zone logits.

Paper §2.2: a detector's object predictions X are aggregated by learned location queries q,
A = softmax(X qᵀ) X (eq. 1), and classified into six zones, which are decoded into the report.
RT-DETR's parts stand here in small: intra-scale attention on the coarsest map, cross-scale fusion,
and a few object queries decoded against the fused features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgseg.anatomy import ZONES
from sgseg.models.aggregation import LocationAggregation
from sgseg.models.layers import ConvNormAct, Position2d, to_map, to_tokens


class CrossScaleFusion(nn.Module):
    """Attention within the coarsest scale, then a top-down and a bottom-up pass (RT-DETR's AIFI and CCFM)."""

    def __init__(self, channels: Sequence[int], dim: int, heads: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in channels)
        self.position = Position2d(dim)
        self.intra_scale = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.top_down = ConvNormAct(dim, dim)
        self.bottom_up = ConvNormAct(dim, dim)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Features at strides 16 and 32 -> (B, tokens of both, dim), positions added."""
        fine, coarse = (lateral(x) for lateral, x in zip(self.lateral, (fine, coarse), strict=True))
        position = self.position(*coarse.shape[2:])
        coarse = to_map(self.intra_scale(to_tokens(coarse) + position), coarse)
        fine = self.top_down(fine + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        coarse = self.bottom_up(coarse + F.avg_pool2d(fine, 2))
        return torch.cat([to_tokens(x) + self.position(*x.shape[2:]) for x in (fine, coarse)], dim=1)


class ZoneEvidence(NamedTuple):
    """Zones, and where in the image the network looked for each.

    Attributes:
        zone_logits: (B, 6) in the order of `anatomy.ZONES`.
        attention: (B, 6, H / 16, W / 16); each map sums to 1.
    """

    zone_logits: Tensor
    attention: Tensor


class CompactLERG(nn.Module):
    """Features at strides 16 and 32 -> zone logits (B, 6) in the order of `anatomy.ZONES`."""

    def __init__(
        self, channels: Sequence[int], dim: int = 128, objects: int = 12, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.fusion = CrossScaleFusion(channels, dim, heads)
        self.objects = nn.Parameter(torch.randn(objects, dim))
        self.decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(
                dim, heads, 2 * dim, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.aggregate = LocationAggregation(dim, len(ZONES))
        self.classify = nn.Parameter(torch.randn(len(ZONES), dim) * dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(ZONES)))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        memory = self.fusion(fine, coarse)
        return self._classify(self.decoder[-1](self._decode(memory), memory))

    def explain(self, fine: Tensor, coarse: Tensor) -> ZoneEvidence:
        """What `forward` gives, and where the objects looked that speak for each zone.

        An object's look is its cross-attention in the last decoder layer, the mean of the heads; a zone's is
        the mean of the objects' looks, weighted by the location aggregation (eq. 1).
        """
        memory = self.fusion(fine, coarse)
        last = cast(nn.TransformerDecoderLayer, self.decoder[-1])
        objects, looks = _decode_with_weights(last, self._decode(memory), memory)
        attention = self.aggregate.weights(self.norm(objects)) @ looks
        return ZoneEvidence(self._classify(objects), _on_fine_grid(attention, fine, coarse))

    def _decode(self, memory: Tensor) -> Tensor:
        """Object queries through all layers but the last."""
        objects = self.objects.expand(memory.shape[0], -1, -1)
        for layer in self.decoder[:-1]:
            objects = layer(objects, memory)
        return objects

    def _classify(self, objects: Tensor) -> Tensor:
        zones = self.aggregate(self.norm(objects))
        return (zones * self.classify).sum(-1) + self.bias


def _decode_with_weights(
    layer: nn.TransformerDecoderLayer, objects: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """The layer's forward, norms first, written out: its own drops the weights of the cross-attention.

    Returns:
        Objects (B, N, dim), and their attention over the memory, (B, N, tokens).
    """
    placed = layer.norm1(objects)
    objects = objects + layer.dropout1(layer.self_attn(placed, placed, placed, need_weights=False)[0])
    seen, weights = layer.multihead_attn(layer.norm2(objects), memory, memory)
    objects = objects + layer.dropout2(seen)
    hidden = layer.dropout(layer.activation(layer.linear1(layer.norm3(objects))))
    return objects + layer.dropout3(layer.linear2(hidden)), weights


def _on_fine_grid(attention: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
    """(B, K, tokens of both) -> (B, K, H / 16, W / 16): a coarse token's share goes to its four cells."""
    (height, width), grid = fine.shape[2:], coarse.shape[2:]
    on_fine, on_coarse = attention.split([height * width, grid[0] * grid[1]], dim=2)
    spread = F.interpolate(on_coarse.unflatten(2, grid), scale_factor=2.0, mode="nearest") / 4
    return on_fine.unflatten(2, (height, width)) + spread
