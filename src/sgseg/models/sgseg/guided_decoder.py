"""The language-guided decoder of the paper (§2.1): report tokens steer image features at 7, 14 and 28 pixels.

Layers and their names follow the released code of LanGuideMedSeg and SGSeg; where there is no report, the
cross-attention is absent and the rest of the decoder works on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrUpBlock
from monai.networks.blocks.upsample import SubpixelUpsample
from torch import Tensor, nn

from sgseg.models.layers import to_map, to_tokens
from sgseg.models.sgseg.cxr_bert import REPORT_LENGTH

MIXED_TOKENS = (24, 12, 9)
"""To how many tokens the report's 24 are mixed before the three stages attend to them."""

_SUBPIXEL = 4


class StageAttention(NamedTuple):
    """What one decoder stage attended to.

    Attributes:
        weights: (B, L, H, W), for each pixel the attention over the stage's L mixed tokens, the mean over
            heads; sums to 1 over L.
        mixing: (L, REPORT_LENGTH), the weights that mixed the report's tokens.
    """

    weights: Tensor
    mixing: Tensor

    def words(self) -> Tensor:
        """Attention over the report's own tokens, (B, REPORT_LENGTH); sums to 1 over them.

        A mixed token is a weighted sum of the report's tokens, so its attention is handed back to them
        in proportion to the size of their weights. What lies between the mixing and the attention, a
        GELU and a linear layer, works on each mixed token alone and moves nothing between words.
        """
        shares = self.mixing.abs() / self.mixing.abs().sum(1, keepdim=True)
        return self.weights.mean((2, 3)) @ shares


def sinusoids(length: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoidal positions (length, dim) of Vaswani et al., sine at even and cosine at odd channels."""
    position = torch.arange(length, device=device)[:, None]
    rates = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    angles = position * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class GuideLayer(nn.Module):
    """Image tokens attend to each other, then to the report: x + scale · attention(x, report)."""

    def __init__(self, dim: int, report_dim: int, mixed_tokens: int) -> None:
        """
        Args:
            dim: width of the image tokens.
            report_dim: width of a report token.
            mixed_tokens: to how many tokens the report is mixed.
        """
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, num_heads=1, batch_first=True)
        self.self_attn_norm = nn.LayerNorm(dim)
        self.mix = nn.Conv1d(REPORT_LENGTH, mixed_tokens, kernel_size=1)
        self.project = nn.Linear(report_dim, dim)
        self.cross_attn = nn.MultiheadAttention(dim, num_heads=4, batch_first=True)
        self.cross_attn_norm = nn.LayerNorm(dim)
        self.scale = nn.Parameter(torch.tensor(0.01))

    def forward(
        self, x: Tensor, report: Tensor, present: Tensor, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            x: image tokens (B, N, dim).
            report: (B, REPORT_LENGTH, report_dim).
            present: (B,) 1 where there is a report, 0 where there is none.
            need_weights: whether to return the cross-attention.

        Returns:
            Image tokens (B, N, dim), and (B, N, mixed_tokens), the mean over heads, if asked for.
        """
        position = sinusoids(x.shape[1], x.shape[2], x.device)
        normed = self.norm1(x)
        placed = normed + position
        x = x + self.self_attn_norm(self.self_attn(placed, placed, normed, need_weights=False)[0])
        tokens = F.leaky_relu(self.project(F.gelu(self.mix(report))))
        attended, weights = self.cross_attn(
            self.norm2(x) + position,
            tokens + sinusoids(tokens.shape[1], tokens.shape[2], x.device),
            tokens,
            need_weights=need_weights,
        )
        guided = self.scale * self.cross_attn_norm(attended)
        return x + present[:, None, None].to(x.dtype) * guided, weights


class Stage(nn.Module):
    """Guides, doubles the resolution, adds the skip connection, convolves."""

    def __init__(self, inputs: int, outputs: int, report_dim: int, mixed_tokens: int) -> None:
        super().__init__()
        self.guide = GuideLayer(inputs, report_dim, mixed_tokens)
        self.up = UnetrUpBlock(2, inputs, outputs, kernel_size=3, upsample_kernel_size=2, norm_name="BATCH")

    def forward(
        self, x: Tensor, skip: Tensor, report: Tensor, present: Tensor, need_weights: bool
    ) -> tuple[Tensor, StageAttention | None]:
        tokens, weights = self.guide(to_tokens(x), report, present, need_weights)
        attention = None
        if weights is not None:
            attention = StageAttention(to_map(weights, x), self.guide.mix.weight[:, :, 0])
        return self.up(to_map(tokens, x), skip), attention


class GuidedDecoder(nn.Module):
    """Encoder features and a report -> mask logits at the image's resolution."""

    def __init__(self, dims: Sequence[int], report_dim: int) -> None:
        """
        Args:
            dims: of the encoder's features at strides 4, 8, 16, 32.
            report_dim: width of a report token.
        """
        super().__init__()
        self.stages = nn.ModuleList(
            Stage(dims[i + 1], dims[i], report_dim, mixed)
            for i, mixed in zip((2, 1, 0), MIXED_TOKENS, strict=True)
        )
        self.upsample = SubpixelUpsample(2, dims[0], dims[0] // _SUBPIXEL, _SUBPIXEL)
        self.out = UnetOutBlock(2, dims[0] // _SUBPIXEL, 1)

    def forward(
        self, features: Sequence[Tensor], report: Tensor, present: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, list[StageAttention]]:
        """
        Args:
            features: at strides 4, 8, 16, 32, each (B, C, H/s, W/s).
            report: (B, REPORT_LENGTH, report_dim).
            present: (B,) 1 where there is a report, 0 where there is none.
            need_weights: whether to return what the stages attended to.

        Returns:
            Logits (B, 1, H, W), and the stages' attention if asked for, coarsest first.
        """
        *skips, x = features
        seen = []
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x, attention = stage(x, skip, report, present, need_weights)
            if attention is not None:
                seen.append(attention)
        return self.out(self.upsample(x)), seen
