"""Small blocks that the networks share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """3×3 (or 1×1) convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Position2d(nn.Module):
    """Learned projection of sinusoids of the normalised coordinates.

    Normalised, so that a network trained at one image size keeps its sense of "upper left" at another.
    """

    FREQUENCIES = 4

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(4 * self.FREQUENCIES, dim)

    def forward(self, height: int, width: int) -> Tensor:
        """(height · width, dim), row by row."""
        device = self.project.weight.device
        angles = []
        for n in (height, width):
            centre = (torch.arange(n, device=device, dtype=torch.float32) + 0.5) / n
            octaves = 2.0 ** torch.arange(self.FREQUENCIES, device=device) * (math.pi / 2)
            phase = centre[:, None] * octaves
            angles.append(torch.cat([phase.sin(), phase.cos()], dim=1))
        rows = angles[0][:, None].expand(height, width, -1)
        columns = angles[1][None].expand(height, width, -1)
        position: Tensor = self.project(torch.cat([rows, columns], dim=2).flatten(0, 1))
        return position


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H · W, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, H · W, C) -> (B, C, H, W) with the height and width of `like`."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])
