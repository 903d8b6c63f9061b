"""LViT (Li et al., IEEE TMI 2024): a U of convolutions and a U of transformers, which reads the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgseg.anatomy import N_ZONESETS, ZONES
from sgseg.models.baselines.base import LearnedPosition, Size, resize_grid
from sgseg.models.interface import Encoded
from sgseg.models.layers import ConvNormAct, to_tokens
from sgseg.models.sgseg.cxr_bert import REPORT_LENGTH
from sgseg.reports import NO_REPORT

_STRIDE = 16  # of the transformers' one grid, which every scale of the convolutions is cut into
_HEADS = 8
_DROPOUT = 0.1


class PixelLevelAttention(nn.Module):
    """PLAM: weighs each pixel by the mean and the largest of its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Conv2d(channels, channels, 1, bias=False)
        self.largest = nn.Conv2d(channels, channels, 1, bias=False)
        self.weigh = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(inplace=True), nn.Conv2d(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = F.relu(self.mean(x)).mean(1, keepdim=True)
        largest = F.relu(self.largest(x)).amax(1, keepdim=True)
        weights: Tensor = self.weigh(torch.cat([mean, largest, mean + largest], dim=1))
        return weights * x


class ConvNormAct1d(nn.Sequential):
    """Convolution along the last axis, batch norm, ReLU; (B, inputs, N) -> (B, outputs, N)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv1d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm1d(outputs),
            nn.ReLU(inplace=True),
        )


class Block(nn.Module):
    """A transformer's layer; its MLP ends in an activation, as in the released code."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, _HEADS, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(4 * dim, dim),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim)."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        z: Tensor = x + self.mlp(self.norm2(x))
        return z


class PatchEmbedding(nn.Module):
    """A map of the convolutions as tokens of the transformers' grid."""

    def __init__(self, dim: int, patch: int, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(dim, dim, patch, patch)
        self.position = LearnedPosition(side, dim)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> (B, H / patch · W / patch, dim)."""
        x = self.patches(x)
        tokens: Tensor = self.dropout(to_tokens(x) + self.position(*x.shape[2:]))
        return tokens


class TransformerU(nn.Module):
    """The transformer branch: down through all scales' tokens and up again, on one grid.

    The report joins the finest scale's tokens, by a convolution that makes of its words one vector for each
    token of the grid.
    """

    def __init__(self, dims: Sequence[int], text_dim: int, side: int) -> None:
        super().__init__()
        widths = (*dims, text_dim)
        self.narrow_text = nn.Sequential(
            *(nn.Conv1d(widths[i + 1], widths[i], 3, padding=1) for i in reversed(range(len(dims))))
        )
        self.place_text = ConvNormAct1d(REPORT_LENGTH, side * side)
        self.embed = nn.ModuleList(PatchEmbedding(d, _STRIDE >> i, side) for i, d in enumerate(dims))
        self.down = nn.ModuleList(Block(d) for d in dims)
        self.halve = nn.ModuleList(ConvNormAct1d(d, d // 2) for d in dims[1:])
        self.up = nn.ModuleList(Block(d) for d in dims)
        self.join = nn.ModuleList(ConvNormAct1d(2 * d, d) for d in dims[:-1])

    def forward(self, maps: Sequence[Tensor], report: Tensor, present: Tensor) -> list[Tensor]:
        """
        Args:
            maps: of the convolutions at strides 1, 2, 4, 8.
            report: (B, REPORT_LENGTH, text_dim).
            present: (B,) 1 where there is a report, 0 where there is none.

        Returns:
            A map of the grid for each scale, (B, dim, H / 16, W / 16), finest first.
        """
        height, width = (n // _STRIDE for n in maps[0].shape[2:])
        text = self.place_text(self.narrow_text(report.transpose(1, 2)).transpose(1, 2))
        text = resize_grid(text, height, width) * present[:, None, None].to(text.dtype)
        tokens = [self.down[0](self.embed[0](maps[0]) + text)]
        for i, halve in enumerate(self.halve, start=1):
            own = self.down[i](self.embed[i](maps[i]))
            tokens.append(torch.cat([halve(own.mT).mT, tokens[-1]], dim=2))
        tokens[-1] = self.up[-1](tokens[-1])
        for i in reversed(range(len(self.join))):
            tokens[i] = self.up[i](tokens[i]) + self.join[i](tokens[i + 1].mT).mT
        return [x.mT.unflatten(2, (height, width)) for x in tokens]


class UpBlock(nn.Module):
    """Doubles the resolution, weighs the skip connection's pixels, convolves twice."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.attend = PixelLevelAttention(channels)
        self.convolve = _twice(2 * channels, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.convolve(torch.cat([self.attend(skip), F.interpolate(x, scale_factor=2.0)], dim=1))
        return y


class _Parts(NamedTuple):
    """Channels at stride 1, and width of a word: of BERT, or of MiniLM."""

    base: int
    text_dim: int


class LViT(nn.Module):
    """LViT-T.

    Gives what the released code gives with the same weights, without the layers that it creates and never
    uses. Reports keep their `REPORT_LENGTH` tokens; the code cuts them to ten, which loses zones. Where there
    is no report, its term is absent. The network sees one colour.

    Buffers:
        words: (64, REPORT_LENGTH, text_dim) float32, a frozen BERT's last hidden states of the report of
            `ZoneSet(i)` in row i.
    """

    PRETRAINED: tuple[str, ...] = ()
    reads_reports = True
    writes_reports = False
    PARTS: ClassVar[dict[Size, _Parts]] = {"paper": _Parts(64, 768), "cpu": _Parts(16, 384)}

    words: Tensor

    def __init__(self, size: Size, image_size: int) -> None:
        """
        Args:
            size: which widths.
            image_size: side of the images in training, a multiple of 32; positions are learned for it.
        """
        super().__init__()
        c, text_dim = self.PARTS[size]
        dims = (c, 2 * c, 4 * c, 8 * c)
        self.register_buffer("words", torch.zeros(N_ZONESETS, REPORT_LENGTH, text_dim))
        self.stem = ConvNormAct(1, c)
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _twice(i, o))
            for i, o in zip(dims, (*dims[1:], dims[-1]), strict=True)
        )
        self.transformer = TransformerU(dims, text_dim, image_size // _STRIDE)
        self.reconstruct = nn.ModuleList(ConvNormAct(d, d, kernel=1) for d in dims)
        self.up = nn.ModuleList(
            UpBlock(d, o) for d, o in zip(reversed(dims), (4 * c, 2 * c, c, c), strict=True)
        )
        self.head = nn.Conv2d(c, 1, 1)

    def encode(self, images: Tensor) -> Encoded:
        """The convolutions' way down, at strides 1, 2, 4, 8, 16; the zones are NaN."""
        features = [self.stem(images)]
        for down in self.down:
            features.append(down(features[-1]))
        return Encoded(tuple(features), images.new_full((len(images), len(ZONES)), torch.nan))

    def report_encoder(self) -> Tensor:
        """The table of report tokens, (65, REPORT_LENGTH, text_dim); the last row, `NO_REPORT`, is zero."""
        return torch.cat([self.words, torch.zeros_like(self.words[:1])])

    def decode(self, features: Sequence[Tensor], report: Tensor, table: Tensor) -> Tensor:
        """Masks of encoded images, guided by reports.

        Args:
            features: of `encode`.
            report: (B,) int64, index of the ZoneSet that the report names, or `NO_REPORT`.
            table: report tokens, from `report_encoder()`.

        Returns:
            Mask logits (B, 1, H, W).
        """
        *maps, x = features
        grids = self.transformer(maps, table[report], report != NO_REPORT)
        skips = [
            own + reconstruct(F.interpolate(grid, size=own.shape[2:]))
            for own, grid, reconstruct in zip(maps, grids, self.reconstruct, strict=True)
        ]
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        logits: Tensor = self.head(x)
        return logits

    def forward(self, images: Tensor, report: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (B, 1, H, W) under the given reports, and zone logits (B, 6), which are NaN."""
        encoded = self.encode(images)
        return self.decode(encoded.features, report, self.report_encoder()), encoded.zone_logits


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(inputs, outputs), ConvNormAct(outputs, outputs))
