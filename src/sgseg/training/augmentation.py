"""Changes to training images, a batch at a time on the device, masks and zones following."""

from __future__ import annotations

import math

import kornia.augmentation as K
import torch
from kornia.geometry.transform import warp_affine
from torch import Tensor, nn

from sgseg.anatomy import ZONES, Zone
from sgseg.training.config import Augmentation

_MIRRORED = [Zone(side.opposite, level).position for side, level in ZONES]


class Augment(nn.Module):
    """Geometry for image and mask alike, then intensity, bars and rectangles for the image alone.

    All randomness is torch's global generator's.
    """

    def __init__(self, config: Augmentation) -> None:
        super().__init__()
        self.config = config
        self.intensity = nn.Sequential(
            K.RandomGamma((1 / config.gamma, config.gamma), p=0.7),
            K.RandomGaussianBlur((3, 3), (0.4, 1.2), p=config.blur),
            K.RandomSharpness((1.0, 3.0), p=config.sharpen),
            K.RandomGaussianNoise(std=config.noise_deviation, p=config.noise),
            K.RandomErasing((0.005, 0.04), (0.3, 3.3), value=0.0, p=config.erase / 2),
            K.RandomErasing((0.005, 0.04), (0.3, 3.3), value=1.0, p=config.erase / 2),
        )

    @torch.no_grad()
    def forward(self, images: Tensor, masks: Tensor, zones: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            images: (B, 1, H, W) float32 in [0, 1].
            masks: (B, 1, H, W) float32 in {0, 1}.
            zones: (B, 6).

        Returns:
            The same three, changed; images stay in [0, 1], and no lesion is moved out of the picture.
        """
        images, masks, zones = flip(images, masks, zones, torch.rand(len(images)) < self.config.flip)
        transform = _sample_transforms(masks, self.config)
        both = warp_affine(torch.cat([images, masks], 1), transform, images.shape[2:], align_corners=False)
        images, masks = both[:, :1], (both[:, 1:] > 0.5).float()
        images = self.intensity(images.clamp(0, 1)).clamp(0, 1)
        return _paint_bars(images, self.config.border), masks, zones


def flip(images: Tensor, masks: Tensor, zones: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mirrors some of a batch from left to right, pixels and zones together.

    Args:
        images, masks: (B, 1, H, W).
        zones: (B, 6).
        which: (B,) bool.
    """
    pick = which.to(images.device)[:, None, None, None]
    mirrored = zones[:, _MIRRORED]
    return (
        torch.where(pick, images.flip(3), images),
        torch.where(pick, masks.flip(3), masks),
        torch.where(pick[:, :, 0, 0], mirrored, zones),
    )


def _uniform(n: int, low: float, high: float) -> Tensor:
    return torch.rand(n) * (high - low) + low


def _sample_transforms(masks: Tensor, config: Augmentation) -> Tensor:
    """Random rotation, zoom, stretch and shift, (B, 2, 3) in pixels, that keep every lesion in the picture.

    The report names zones, so a crop that cuts one away would make the report false: the zoom is
    limited, and the shift bent, so that the lesion's bounding box stays inside.
    """
    n, size = len(masks), masks.shape[-1]
    angle = _uniform(n, -config.rotate, config.rotate) * (math.pi / 180)
    zoom = torch.exp(_uniform(n, -1, 1) * math.log(config.zoom))
    stretch = torch.exp(_uniform(n, -0.5, 0.5) * math.log(config.stretch))
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    centre, half = _lesion_boxes(masks.cpu())
    scale = torch.stack([zoom * stretch, zoom / stretch], 1)
    linear = scale[:, :, None] * rotation
    reach = (linear.abs() @ half[:, :, None])[:, :, 0]
    shrink = (1 / reach.clamp(min=1e-6)).clamp(max=1)
    linear, reach = shrink[:, :, None] * linear, shrink * reach
    moved = (linear @ centre[:, :, None])[:, :, 0]
    shift = _uniform(2 * n, -2 * config.shift, 2 * config.shift).view(n, 2)
    shift = torch.clamp(shift, -(1 - reach) - moved, (1 - reach) - moved)
    # From coordinates in [-1, 1] around the centre to pixels.
    middle = torch.full((n, 2, 1), (size - 1) / 2)
    offset = shift[:, :, None] * (size / 2) + middle - linear @ middle
    return torch.cat([linear, offset], 2).to(masks.device)


def _lesion_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and half extent of each lesion's bounding box, (B, 2) as x, y in [-1, 1]; 0 if empty."""
    size = masks.shape[-1]
    centres, halves = [], []
    for axis in (2, 3):  # projecting rows away leaves x, projecting columns away leaves y
        line = masks[:, 0].amax(axis - 1) > 0
        first = line.float().argmax(1)
        last = size - 1 - line.flip(1).float().argmax(1)
        empty = ~line.any(1)
        low, high = first * (2 / size) - 1, (last + 1) * (2 / size) - 1
        centres.append(((low + high) / 2).masked_fill(empty, 0))
        halves.append(((high - low) / 2).masked_fill(empty, 0))
    return torch.stack(centres, 1), torch.stack(halves, 1)


def _paint_bars(images: Tensor, probability: float) -> Tensor:
    """Paints bars over the edges, black or any grey, as collimation and padding leave them."""
    n, size = len(images), images.shape[-1]
    pixel = torch.arange(size)
    grey = torch.where(torch.rand(n) < 0.7, torch.zeros(n), torch.rand(n))
    bars = torch.zeros(n, 1, size, size, dtype=torch.bool)
    for axis in (2, 3):
        for reverse in (False, True):
            width = torch.where(torch.rand(n) < probability, _uniform(n, 0, 0.1 * size), torch.zeros(n))
            distance = pixel.flip(0) if reverse else pixel
            bar = distance < width[:, None]
            bars |= bar[:, None, :, None] if axis == 2 else bar[:, None, None, :]
    return torch.where(bars.to(images.device), grey.view(n, 1, 1, 1).to(images.device), images)
