"""nnU-Net's plain residual U-Net (Isensee et al., Nature Methods 2021; MICCAI 2024)."""

from __future__ import annotations

from typing import ClassVar

from monai.networks.nets.dynunet import DynUNet
from torch import Tensor

from sgseg.models.baselines.base import ImageOnly, Size


class ResidualUNet(ImageOnly):
    """MONAI's DynUNet as nnU-Net plans it for 224 pixels: six stages down to 7, at most 512 channels.

    Instance norm, leaky ReLU and residual blocks in the encoder follow nnU-Net. Its planner has several
    residual blocks for each stage, where MONAI has one; its deep supervision, patches, augmentation and
    ensemble belong to its own training and are left out.
    """

    WIDTHS: ClassVar[dict[Size, tuple[int, ...]]] = {
        "paper": (32, 64, 128, 256, 512, 512),
        "cpu": (16, 32, 64, 128, 256, 256),
    }

    def __init__(self, size: Size, image_size: int) -> None:
        """
        Args:
            size: which widths.
            image_size: matters to systems with learned positions only.
        """
        super().__init__()
        widths = self.WIDTHS[size]
        strides = [1] + [2] * (len(widths) - 1)
        self.net = DynUNet(2, 1, 1, [3] * len(widths), strides, strides[1:], filters=widths, res_block=True)

    def segment(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits
