"""Swin-Unet (Cao et al., ECCV Workshops 2022): a U-Net of shifted-window transformers alone."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import (
    PatchMergingV2,
    SwinTransformerBlock,
    compute_mask,
    get_window_size,
)
from torch import Tensor, nn

from sgseg.models.baselines.base import ImageOnly, Size

_PATCH = 4
_DEPTH = 2
_DROP_PATH = 0.2
_SCALES = 4


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchExpand(nn.Module):
    """Upsampling without convolution: widens each token and spreads it over factor × factor tokens."""

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Conv2d(inputs, outputs * factor**2, 1, bias=False)
        self.norm = ChannelNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, factor · H, factor · W)."""
        y: Tensor = self.norm(F.pixel_shuffle(self.expand(x), self.factor))
        return y


class _Parts(NamedTuple):
    dim: int
    heads: tuple[int, ...]
    window: int


class Stage(nn.Module):
    """Two Swin blocks, with shifted windows in the second, and patch merging after them if asked for.

    Stochastic depth grows linearly through the encoder; the decoder has the encoder's at the same scale.
    """

    def __init__(self, parts: _Parts, scale: int, merging: bool) -> None:
        super().__init__()
        dim = parts.dim * 2**scale
        self.window = (parts.window, parts.window)
        self.shift = (parts.window // 2, parts.window // 2)
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                dim,
                parts.heads[scale],
                self.window,
                shift,
                drop_path=_DROP_PATH * (_DEPTH * scale + i) / (_DEPTH * _SCALES - 1),
            )
            for i, shift in enumerate(((0, 0), self.shift))
        )
        self.merge = PatchMergingV2(dim, spatial_dims=2) if merging else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> the same, or with merging (B, 2 · dim, H / 2, W / 2)."""
        window, shift = get_window_size(x.shape[2:], self.window, self.shift)
        padded = [math.ceil(n / w) * w for n, w in zip(x.shape[2:], window, strict=True)]
        mask = compute_mask(padded, window, shift, x.device)
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.merge(x).permute(0, 3, 1, 2)


class SwinUNet(ImageOnly):
    """Swin-T as encoder, its mirror image as decoder, of MONAI's Swin blocks.

    The published network starts from ImageNet and sees three colours; this one starts from random weights and
    sees one. With windows of 7 the maps of a 224-pixel image (56, 28, 14, 7) need no padding; for 128 pixels
    windows of 4 do the same. On smaller images the coarsest map is smaller than a window; MONAI then takes
    its relative positions from a corner of the table.
    """

    PARTS: ClassVar[dict[Size, _Parts]] = {
        "paper": _Parts(96, (3, 6, 12, 24), 7),
        "cpu": _Parts(32, (1, 2, 4, 8), 4),
    }

    def __init__(self, size: Size, image_size: int) -> None:
        """
        Args:
            size: which widths.
            image_size: matters to systems with learned positions only.
        """
        super().__init__()
        parts = self.PARTS[size]
        dims = [parts.dim * 2**scale for scale in range(_SCALES)]
        self.embed = nn.Sequential(nn.Conv2d(1, dims[0], _PATCH, _PATCH), ChannelNorm(dims[0]))
        self.down = nn.ModuleList(Stage(parts, scale, scale < _SCALES - 1) for scale in range(_SCALES))
        self.norm = ChannelNorm(dims[-1])
        scales = range(_SCALES - 2, -1, -1)
        self.expand = nn.ModuleList(PatchExpand(dims[scale + 1], dims[scale], 2) for scale in scales)
        self.merge = nn.ModuleList(nn.Conv2d(2 * dims[scale], dims[scale], 1) for scale in scales)
        self.up = nn.ModuleList(Stage(parts, scale, merging=False) for scale in scales)
        self.head = nn.Sequential(
            ChannelNorm(dims[0]), PatchExpand(dims[0], dims[0], _PATCH), nn.Conv2d(dims[0], 1, 1, bias=False)
        )
        self.apply(_initialise)

    def segment(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        skips = []
        for stage in self.down:
            skips.append(x)
            x = stage(x)
        x = self.norm(x)
        decoder = zip(self.expand, self.merge, self.up, reversed(skips[:-1]), strict=True)
        for expand, merge, stage, skip in decoder:
            x = stage(merge(torch.cat([expand(x), skip], dim=1)))
        logits: Tensor = self.head(x)
        return logits


def _initialise(module: nn.Module) -> None:
    """As published: weights of linear layers, which 1×1 convolutions are, from N(0, 0.02²)."""
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
