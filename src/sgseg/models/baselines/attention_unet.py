"""Attention U-Net (Oktay et al., MIDL 2018): gates of attention on the skip connections."""

from __future__ import annotations

from typing import ClassVar

from monai.networks.nets.attentionunet import AttentionUnet
from torch import Tensor

from sgseg.models.baselines.base import ImageOnly, Size


class AttentionUNet(ImageOnly):
    """MONAI's Attention U-Net with the widths of the public implementations, to which comparisons refer.

    MONAI halves the resolution by strides, where those pool, and has no deep supervision.
    """

    WIDTHS: ClassVar[dict[Size, tuple[int, ...]]] = {
        "paper": (64, 128, 256, 512, 1024),
        "cpu": (16, 32, 64, 128, 256),
    }

    def __init__(self, size: Size, image_size: int) -> None:
        """
        Args:
            size: which widths.
            image_size: matters to systems with learned positions only.
        """
        super().__init__()
        self.net = AttentionUnet(2, 1, 1, self.WIDTHS[size], strides=(2, 2, 2, 2))

    def segment(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits
