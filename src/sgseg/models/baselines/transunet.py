"""TransUNet (Chen et al., 2021): a ResNet, a vision transformer on its coarsest map, a U-Net decoder."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn
from transformers import BitConfig, BitModel, ViTConfig
from transformers.models.vit.modeling_vit import ViTLayer

from sgseg.models.baselines.base import CONVOLUTIONS, ImageOnly, LearnedPosition, Size, spare_padding
from sgseg.models.layers import ConvNormAct, to_map, to_tokens

_STRIDE = 16
_DROPOUT = 0.1


class _Parts(NamedTuple):
    """Widths and depths: of the ResNet, of the transformer, of the decoder."""

    stem: int
    stages: tuple[int, ...]
    depths: tuple[int, ...]
    groups: int
    dim: int
    layers: int
    heads: int
    decoder: tuple[int, ...]


class TransUNet(ImageOnly):
    """R50-ViT-B/16 with three skip connections (§3.2).

    BiT's ResNet is that of the published hybrid, but for the group norm of a shortcut, which has 32 groups
    instead of one for each channel, and for the stem's pooling, which is padded on all sides. The published
    network starts from ImageNet-21k and sees three colours; this one starts from random weights and sees one.
    """

    PARTS: ClassVar[dict[Size, _Parts]] = {
        "paper": _Parts(64, (256, 512, 1024), (3, 4, 9), 32, 768, 12, 12, (512, 256, 128, 64, 16)),
        "cpu": _Parts(32, (64, 128, 256), (2, 2, 3), 8, 192, 6, 3, (128, 64, 32, 32, 16)),
    }

    def __init__(self, size: Size, image_size: int) -> None:
        """
        Args:
            size: which widths and depths.
            image_size: side of the images in training, a multiple of 32; positions are learned for it.
        """
        super().__init__()
        parts = self.PARTS[size]
        self.cnn = BitModel(
            BitConfig(
                num_channels=1,
                embedding_size=parts.stem,
                hidden_sizes=parts.stages,
                depths=parts.depths,
                num_groups=parts.groups,
                layer_type="bottleneck",
            )
        )
        self.embed = nn.Conv2d(parts.stages[-1], parts.dim, 1)
        self.position = LearnedPosition(image_size // _STRIDE, parts.dim)
        self.dropout = nn.Dropout(_DROPOUT)
        self.transformer = nn.Sequential(*_transformer(parts), nn.LayerNorm(parts.dim, eps=1e-6))
        self.narrow = ConvNormAct(parts.dim, parts.decoder[0])
        skips = (*reversed(parts.stages[:-1]), parts.stem, 0)
        self.up = nn.ModuleList(
            UpCat(2, i, s, o, **CONVOLUTIONS, upsample="nontrainable", pre_conv=None)
            for i, s, o in zip(parts.decoder, skips, parts.decoder[1:], strict=False)
        )
        self.head = nn.Conv2d(parts.decoder[-1], 1, 3, padding=1)
        spare_padding(self)

    def segment(self, images: Tensor) -> Tensor:
        *skips, coarsest = self._convolve(images)
        x = self.embed(coarsest)
        tokens = self.dropout(to_tokens(x) + self.position(*x.shape[2:]))
        x = self.narrow(to_map(self.transformer(tokens), x))
        for up, skip in zip(self.up, (*reversed(skips), None), strict=True):
            x = up(x, skip)
        logits: Tensor = self.head(x)
        return logits

    def _convolve(self, images: Tensor) -> list[Tensor]:
        """The ResNet's features at strides 2, 4, 8, 16."""
        stem = self.cnn.embedder
        features = [stem.norm(stem.convolution(images))]
        x = stem.pooler(stem.pad(features[0]))
        for stage in self.cnn.encoder.stages:
            x = stage(x)
            features.append(x)
        return features


def _transformer(parts: _Parts) -> list[nn.Module]:
    config = ViTConfig(
        hidden_size=parts.dim,
        num_attention_heads=parts.heads,
        intermediate_size=4 * parts.dim,
        hidden_dropout_prob=_DROPOUT,
        layer_norm_eps=1e-6,
        attn_implementation="sdpa",
    )
    return [ViTLayer(config) for _ in range(parts.layers)]
