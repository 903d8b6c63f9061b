"""U-Net (Ronneberger et al., MICCAI 2015)."""

from __future__ import annotations

from typing import ClassVar

from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor

from sgseg.models.baselines.base import CONVOLUTIONS, ImageOnly, Size, spare_padding


class UNet(ImageOnly):
    """MONAI's U-Net with the published widths; padded convolutions and batch norm, as is usual today."""

    WIDTHS: ClassVar[dict[Size, tuple[int, ...]]] = {
        "paper": (64, 128, 256, 512, 1024, 64),
        "cpu": (16, 32, 64, 128, 256, 16),
    }

    def __init__(self, size: Size, image_size: int) -> None:
        """
        Args:
            size: which widths.
            image_size: matters to systems with learned positions only.
        """
        super().__init__()
        self.net = BasicUNet(2, 1, 1, self.WIDTHS[size], **CONVOLUTIONS)
        spare_padding(self)

    def segment(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits
