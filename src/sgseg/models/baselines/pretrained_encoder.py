"""U-Net, U-Net++ and Attention U-Net on the compact model's ImageNet encoder.

So that guidance is not mistaken for pre-training: these differ from SGSeg-compact by the decoder, and by not
reading anything. Each has one size, which stands for both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn

from sgseg.models.baselines.base import CONVOLUTIONS, ImageOnly, Size, spare_padding
from sgseg.models.compact.efficientnet import EfficientNetLite, channels

_CHANNELS = channels("lite0")
_WIDTHS = (64, 128, 256)  # of the decoders at strides 4, 8, 16
_FULL = (32, 16)  # at strides 2 and 1, where the encoder has no features


class GatedUpCat(UpCat):
    """Upsampling whose skip connection passes a gate of attention (Oktay et al., MIDL 2018)."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__(2, inputs, skip, outputs, **CONVOLUTIONS)
        self.gate = AttentionBlock(2, f_int=skip // 2, f_g=inputs // 2, f_l=skip)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = self.upsample(x)
        y: Tensor = self.convs(torch.cat([self.gate(up, skip), up], dim=1))
        return y


class UNetDecoder(nn.Module):
    """Features at strides 4, 8, 16, 32 -> features at stride 4, (B, 64, H / 4, W / 4)."""

    def __init__(self, gated: bool) -> None:
        """
        Args:
            gated: whether attention gates the skip connections.
        """
        super().__init__()
        inputs = (*_WIDTHS[1:], _CHANNELS[-1])
        self.up = nn.ModuleList(
            GatedUpCat(i, s, o) if gated else UpCat(2, i, s, o, **CONVOLUTIONS)
            for i, s, o in reversed(list(zip(inputs, _CHANNELS[:-1], _WIDTHS, strict=True)))
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        *skips, x = features
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        return x


class NestedDecoder(nn.Module):
    """U-Net++'s nested skip connections (Zhou et al., DLMIA 2018, eq. 1), without deep supervision.

    Node j of a scale takes all nodes before it at that scale, and node j - 1 of the next coarser one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nodes = nn.ModuleDict()
        for j in range(1, len(_CHANNELS)):
            for scale in range(len(_CHANNELS) - j):
                coarser = _CHANNELS[scale + 1] if j == 1 else _WIDTHS[scale + 1]
                before = _CHANNELS[scale] + (j - 1) * _WIDTHS[scale]
                self.nodes[f"{scale}-{j}"] = UpCat(2, coarser, before, _WIDTHS[scale], **CONVOLUTIONS)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features at strides 4, 8, 16, 32 -> features at stride 4, (B, 64, H / 4, W / 4)."""
        rows = [[x] for x in features]
        for j in range(1, len(rows)):
            for scale in range(len(rows) - j):
                node = self.nodes[f"{scale}-{j}"]
                rows[scale].append(node(rows[scale + 1][j - 1], torch.cat(rows[scale], dim=1)))
        return rows[0][-1]


class OnImageNet(ImageOnly):
    """EfficientNet-Lite0, a decoder down to stride 4, and two upsamplings without skip connections."""

    PRETRAINED = ("encoder.",)

    def __init__(self, decoder: nn.Module) -> None:
        """
        Args:
            decoder: takes the encoder's features, gives those at stride 4.
        """
        super().__init__()
        self.encoder = EfficientNetLite()
        self.decoder = decoder
        steps = zip((_WIDTHS[0], *_FULL), _FULL, strict=False)
        self.full = nn.ModuleList(UpCat(2, i, 0, o, **CONVOLUTIONS) for i, o in steps)
        self.head = nn.Conv2d(_FULL[-1], 1, 1)
        spare_padding(self)

    def segment(self, images: Tensor) -> Tensor:
        x = self.decoder(self.encoder(images))
        for up in self.full:
            x = up(x, None)
        logits: Tensor = self.head(x)
        return logits


class PretrainedUNet(OnImageNet):
    """U-Net on the ImageNet encoder."""

    def __init__(self, size: Size, image_size: int) -> None:
        super().__init__(UNetDecoder(gated=False))


class PretrainedUNetPlusPlus(OnImageNet):
    """U-Net++ on the ImageNet encoder."""

    def __init__(self, size: Size, image_size: int) -> None:
        super().__init__(NestedDecoder())


class PretrainedAttentionUNet(OnImageNet):
    """Attention U-Net on the ImageNet encoder."""

    def __init__(self, size: Size, image_size: int) -> None:
        super().__init__(UNetDecoder(gated=True))
