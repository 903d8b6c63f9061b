"""LanGuideMedSeg (Zhong et al., MICCAI 2023): guided by the user's report alone."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import ConvNextConfig

from sgseg.models.baselines.base import Size
from sgseg.models.sgseg import SGSeg
from sgseg.models.sgseg.cxr_bert import CXRBertConfig

_SCALE = 1.421


class LanGuideMedSeg(SGSeg):
    """SGSeg without a detector, its BERT frozen, its guidance strong from the start, as in the released code.

    `cpu` has a narrow ConvNeXt, and MiniLM in place of CXR-BERT.
    """

    VISION: ClassVar[dict[Size, dict[str, Any]]] = {
        "paper": {},
        "cpu": {"depths": [2, 2, 4, 2], "hidden_sizes": [40, 80, 160, 240]},
    }
    TEXT: ClassVar[dict[Size, dict[str, Any]]] = {
        "paper": {},
        "cpu": {
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
        },
    }

    def __init__(self, size: Size, image_size: int) -> None:
        """
        Args:
            size: which widths and depths.
            image_size: matters to systems with learned positions only.
        """
        super().__init__(
            ConvNextConfig(**self.VISION[size]),
            CXRBertConfig(**self.TEXT[size]),
            lerg=False,
            freeze_text=True,
        )
        for name, parameter in self.decoder.named_parameters():
            if name.endswith("guide.scale"):
                nn.init.constant_(parameter, _SCALE)
