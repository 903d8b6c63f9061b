"""What the compared systems share: their sizes, and the contract of those that never read a report."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn

from sgseg.anatomy import N_ZONESETS, ZONES
from sgseg.models.interface import Encoded

Size: TypeAlias = Literal["paper", "cpu"]
"""`paper`: as published, for 224 pixels; `cpu`: the same parts, narrower and shallower, for 128 pixels."""

CONVOLUTIONS: dict[str, Any] = {"act": ("relu", {"inplace": True}), "norm": "batch", "bias": False}
"""Of MONAI's U-Net blocks: batch norm and ReLU after each convolution."""


def spare_padding(network: nn.Module) -> None:
    """Lets MONAI's upsampling no longer pad for odd sizes, which H and W, multiples of 32, never have.

    Padding by nothing would still turn bfloat16 into float32, and all that is concatenated with it.
    """
    for module in network.modules():
        if isinstance(module, UpCat):
            module.is_pad = False


class ImageOnly(nn.Module, ABC):
    """A network whose mask depends on the image alone.

    What trains and examines guided networks trains and examines it as it is: `encode` makes the mask, and
    `decode` hands it out whatever the report.
    """

    PRETRAINED: tuple[str, ...] = ()
    reads_reports = False
    writes_reports = False

    @abstractmethod
    def segment(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W), H and W multiples of 32 -> mask logits (B, 1, H, W)."""

    def encode(self, images: Tensor) -> Encoded:
        """The mask logits as the only feature; the zones are NaN."""
        logits = self.segment(images)
        return Encoded((logits,), logits.new_full((len(images), len(ZONES)), torch.nan))

    def decode(self, features: Sequence[Tensor], report: Tensor, table: Tensor) -> Tensor:
        """The mask logits (B, 1, H, W) of `encode`."""
        return features[0]

    def report_encoder(self) -> Tensor:
        """A table of no tokens, (65, 0, 0)."""
        return torch.zeros(N_ZONESETS + 1, 0, 0)

    def forward(self, images: Tensor, report: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (B, 1, H, W), and zone logits (B, 6), which are NaN."""
        encoded = self.encode(images)
        return encoded.features[0], encoded.zone_logits


def resize_grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """What is learned for each token of a square grid, for a grid of another size.

    Args:
        tokens: (B, side · side, C), row by row.
        height, width: of the grid that is asked for.

    Returns:
        (B, height · width, C), interpolated bilinearly.
    """
    side = math.isqrt(tokens.shape[1])
    if (height, width) == (side, side):
        return tokens
    grid = tokens.transpose(1, 2).unflatten(2, (side, side))
    return F.interpolate(grid, size=(height, width), mode="bilinear").flatten(2).transpose(1, 2)


class LearnedPosition(nn.Module):
    """A learned vector for each token of a grid (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self, side: int, dim: int) -> None:
        """
        Args:
            side: of the grid in training; other grids interpolate.
            dim: width of a token.
        """
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, side * side, dim))

    def forward(self, height: int, width: int) -> Tensor:
        """(1, height · width, dim), row by row."""
        return resize_grid(self.table, height, width)
