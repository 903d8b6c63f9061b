"""The language-guided decoder: report tokens steer image features by cross-modal attention (paper §2.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgseg.models.layers import ConvNormAct, Position2d, to_map, to_tokens

SUBPIXEL = 4


class Attention(nn.Module):
    """Multi-head attention of queries (B, N, dim) over a context (B, M, context_dim)."""

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(context_dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        query = self._split(self.query(x))
        key, value = (self._split(y) for y in self.key_value(context).chunk(2, dim=-1))
        # Written out: on CPUs in bfloat16 the fused kernel's backward is three to fifteen times slower.
        weights = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)
        attended = weights @ value
        y: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return y

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Image tokens attend to each other; needs no report."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.position = Position2d(dim)
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, dim, heads)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        placed = self.norm(tokens) + self.position(*x.shape[2:])
        return to_map(tokens + self.attention(placed, placed), x)


class ReportGuidance(nn.Module):
    """Image tokens attend to report tokens: x + scale · attention(x, report).

    The scale is learned and starts small, and where there is no report the term is absent: guidance
    is an addition to a decoder that works without it.
    """

    def __init__(self, dim: int, report_dim: int, heads: int) -> None:
        super().__init__()
        self.position = Position2d(dim)
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, report_dim, heads)
        self.scale = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: Tensor, report: Tensor, present: Tensor) -> Tensor:
        """x (B, C, H, W), report (B, L, report_dim), present (B,) 0 or 1 -> (B, C, H, W)."""
        tokens = to_tokens(x)
        guided = self.attention(self.norm(tokens) + self.position(*x.shape[2:]), report)
        return to_map(tokens + present[:, None, None].to(tokens.dtype) * self.scale * guided, x)


class UpBlock(nn.Module):
    """Doubles the resolution, adds the skip connection, convolves."""

    def __init__(self, inputs: int, outputs: int, convolutions: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, outputs, 1)
        self.convolve = nn.Sequential(*(ConvNormAct(outputs, outputs) for _ in range(convolutions)))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.convolve(F.interpolate(self.narrow(x), scale_factor=2.0, mode="bilinear") + skip)
        return y


class GuidedDecoder(nn.Module):
    """Encoder features and a report -> mask logits at the image's resolution.

    `project` does what needs no report, so that one image decoded with several reports pays it once.
    Guidance acts at strides 32, 16 and 8 (7, 14 and 28 pixels for an image of 224).
    """

    def __init__(self, channels: Sequence[int], dims: Sequence[int], report_dim: int, heads: int = 4) -> None:
        """
        Args:
            channels: of the encoder's features at strides 4, 8, 16, 32.
            dims: the decoder's widths at the same strides.
            report_dim: width of a report token.
        """
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, d, 1) for c, d in zip(channels, dims, strict=True))
        self.bridge = SelfAttention(dims[3], heads)
        self.guide = nn.ModuleList(ReportGuidance(d, report_dim, heads) for d in (dims[3], dims[2], dims[1]))
        self.attend = SelfAttention(dims[2], heads)
        self.up = nn.ModuleList(
            UpBlock(dims[i + 1], dims[i], convolutions) for i, convolutions in ((2, 2), (1, 2), (0, 1))
        )
        self.head = nn.Conv2d(dims[0], SUBPIXEL**2, 3, padding=1)

    def project(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Encoder features -> decoder features at strides 4, 8, 16, 32."""
        *skips, coarsest = (lateral(x) for lateral, x in zip(self.lateral, features, strict=True))
        return (*skips, self.bridge(coarsest))

    def forward(self, features: Sequence[Tensor], report: Tensor, present: Tensor) -> Tensor:
        """
        Args:
            features: from `project`.
            report: (B, L, report_dim) report tokens.
            present: (B,) 1 where there is a report, 0 where there is none.

        Returns:
            Logits (B, 1, H, W).
        """
        quarter, eighth, sixteenth, x = features
        x = self.guide[0](x, report, present)
        x = self.attend(self.up[0](x, sixteenth))
        x = self.guide[1](x, report, present)
        x = self.guide[2](self.up[1](x, eighth), report, present)
        x = self.up[2](x, quarter)
        return F.pixel_shuffle(self.head(x), SUBPIXEL)
