"""U-Net++, the nested U-Net (Zhou et al., DLMIA 2018)."""

from __future__ import annotations

from typing import ClassVar

import torch
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from torch import Tensor

from sgseg.models.baselines.base import CONVOLUTIONS, ImageOnly, Size, spare_padding


class UNetPlusPlus(ImageOnly):
    """MONAI's U-Net++ with the published widths.

    The mask is the mean of the four branches, the paper's accurate mode (§3.2). The paper also gives each
    branch a loss of its own; here the mean has one, as every other network's mask.
    """

    WIDTHS: ClassVar[dict[Size, tuple[int, ...]]] = {
        "paper": (32, 64, 128, 256, 512, 32),
        "cpu": (16, 32, 64, 128, 256, 16),
    }

    def __init__(self, size: Size, image_size: int) -> None:
        """
        Args:
            size: which widths.
            image_size: matters to systems with learned positions only.
        """
        super().__init__()
        self.net = BasicUNetPlusPlus(2, 1, 1, self.WIDTHS[size], deep_supervision=True, **CONVOLUTIONS)
        spare_padding(self)

    def segment(self, images: Tensor) -> Tensor:
        return torch.stack(self.net(images)).mean(0)
