"""The systems that SGSeg is compared with, behind one constructor: `BASELINES[name](size, image_size)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sgseg.errors import ConfigError
from sgseg.models.baselines.attention_unet import AttentionUNet
from sgseg.models.baselines.base import ImageOnly, Size
from sgseg.models.baselines.clip import ClipCompact
from sgseg.models.baselines.dynunet import ResidualUNet
from sgseg.models.baselines.image_only import ImageOnlyCompact
from sgseg.models.baselines.languidemedseg import LanGuideMedSeg
from sgseg.models.baselines.lvit import LViT
from sgseg.models.baselines.pretrained_encoder import (
    PretrainedAttentionUNet,
    PretrainedUNet,
    PretrainedUNetPlusPlus,
)
from sgseg.models.baselines.prototypes import PrototypeNetwork
from sgseg.models.baselines.simple_report import SimpleReport
from sgseg.models.baselines.swin_unet import SwinUNet
from sgseg.models.baselines.transunet import TransUNet
from sgseg.models.baselines.unet import UNet
from sgseg.models.baselines.unetpp import UNetPlusPlus
from sgseg.models.baselines.zone_embeddings import ZoneEmbeddingsCompact

__all__ = ["BASELINES", "Baseline", "ImageOnly", "LViT", "Size", "build"]

Baseline: TypeAlias = ImageOnly | LViT | LanGuideMedSeg | SimpleReport | ZoneEmbeddingsCompact

BASELINES: dict[str, Callable[[Size, int], Baseline]] = {
    "unet": UNet,
    "unetpp": UNetPlusPlus,
    "attention-unet": AttentionUNet,
    "transunet": TransUNet,
    "swin-unet": SwinUNet,
    "nnunet": ResidualUNet,
    "unet-imagenet": PretrainedUNet,
    "unetpp-imagenet": PretrainedUNetPlusPlus,
    "attention-unet-imagenet": PretrainedAttentionUNet,
    "image-only": ImageOnlyCompact,
    "clip": ClipCompact,
    "prototypes": PrototypeNetwork,
    "lvit": LViT,
    "languidemedseg": LanGuideMedSeg,
    "simple-report": SimpleReport,
    "zone-embeddings": ZoneEmbeddingsCompact,
}


def build(name: str, size: Size, image_size: int) -> Baseline:
    """A compared system, untrained.

    Args:
        name: of `BASELINES`.
        size: `paper` as published, for 224 pixels, or `cpu`, for 128; variants of SGSeg-compact have one.
        image_size: side of the images in training, a multiple of 32.

    Raises:
        ConfigError: there is no such system.
    """
    if name not in BASELINES:
        raise ConfigError(f"there is no baseline {name!r}; choose one of {', '.join(BASELINES)}")
    return BASELINES[name](size, image_size)
