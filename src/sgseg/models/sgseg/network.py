"""SGSeg as published: a language-guided U-Net whose report LERG writes from the image (paper §2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import ConvNextConfig, ConvNextModel, RTDetrConfig

from sgseg.models.interface import Encoded
from sgseg.models.sgseg.cxr_bert import CXRBert, CXRBertConfig, ReportTable
from sgseg.models.sgseg.guided_decoder import GuidedDecoder, StageAttention
from sgseg.models.sgseg.lerg import LERG
from sgseg.models.sgseg.rtdetr import mini as mini_detector
from sgseg.models.sgseg.rtdetr import resnet50
from sgseg.reports import NO_REPORT


class Explanation(NamedTuple):
    """A mask and what it was made of.

    Attributes:
        logits: of the mask, (B, 1, H, W).
        stages: attention of the three decoder stages, coarsest first; see `StageAttention`.
        zone_logits: (B, 6); NaN from a network without LERG.
        objects: (B, N), the aggregator's weights over the detector's objects; sum to 1. None without LERG.
        boxes: (B, N, 4) of the objects: centre x, centre y, width, height, as shares of the image; or None.
    """

    logits: Tensor
    stages: list[StageAttention]
    zone_logits: Tensor
    objects: Tensor | None
    boxes: Tensor | None

    def words(self) -> Tensor:
        """Importance of each report token, (B, REPORT_LENGTH): the mean over the stages; sums to 1."""
        return torch.stack([stage.words() for stage in self.stages]).mean(0)


class SGSeg(nn.Module):
    """ConvNeXt, CXR-BERT, guided decoder and LERG.

    Images are float32 (B, 1, H, W), z-scored per image, H and W multiples of 32; the pretrained
    encoders see the one channel three times.
    """

    PRETRAINED = ("vision.", "text.", "lerg.detector.")
    reads_reports = True

    def __init__(
        self,
        vision: ConvNextConfig | None = None,
        text: CXRBertConfig | None = None,
        detector: RTDetrConfig | None = None,
        lerg: bool = True,
        freeze_text: bool = False,
    ) -> None:
        """
        Args:
            vision: by default ConvNeXt-T.
            text: by default CXR-BERT's.
            detector: by default RT-DETR with ResNet-50.
            lerg: False for LanGuideMedSeg, which is guided by the user's report alone.
            freeze_text: whether BERT keeps its weights, as in LanGuideMedSeg.
        """
        super().__init__()
        self.vision = ConvNextModel(vision or ConvNextConfig())
        self.text = CXRBert(text or CXRBertConfig())
        self.report_table = ReportTable()
        self.decoder = GuidedDecoder(self.vision.config.hidden_sizes, self.text.config.hidden_size)
        self.lerg = LERG(detector or resnet50()) if lerg else None
        self.text.requires_grad_(not freeze_text)
        self._freeze_text = freeze_text
        self._frozen_table: Tensor | None = None
        self.register_load_state_dict_post_hook(lambda *_: setattr(self, "_frozen_table", None))

    @property
    def writes_reports(self) -> bool:
        """Whether there is a LERG."""
        return self.lerg is not None

    @classmethod
    def mini(cls) -> SGSeg:
        """Every part at a width that trains on phantoms in minutes."""
        return cls(
            ConvNextConfig(depths=[1, 1, 2, 1], hidden_sizes=[32, 64, 96, 128]),
            CXRBertConfig(
                hidden_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=256,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            ),
            mini_detector(),
        )

    def encode(self, images: Tensor) -> Encoded:
        """Looks at the images once; everything that needs no report."""
        images = images.expand(-1, 3, -1, -1)
        zones = self.lerg(images) if self.lerg is not None else images.new_full((len(images), 6), torch.nan)
        return Encoded(self._features(images), zones)

    def report_encoder(self) -> Tensor:
        """The table of report tokens, (65, L, hidden); the last row, `reports.NO_REPORT`, is zero."""
        if not self._freeze_text:
            table: Tensor = self.report_table(self.text)
            return table
        if self._frozen_table is None or self._frozen_table.device != self.text.device:
            with torch.no_grad():
                self._frozen_table = self.report_table(self.text)
        return self._frozen_table

    def train(self, mode: bool = True) -> SGSeg:
        """As any module, but a frozen BERT drops nothing out."""
        super().train(mode)
        self.text.train(mode and not self._freeze_text)
        return self

    def decode(self, features: Sequence[Tensor], report: Tensor, table: Tensor) -> Tensor:
        """Masks of encoded images, guided by reports out of the 64.

        Args:
            features: of `encode`.
            report: (B,) int64, index of the ZoneSet that the report names, or `NO_REPORT`.
            table: report tokens, from `report_encoder()`.

        Returns:
            Mask logits (B, 1, H, W).
        """
        logits: Tensor = self.decoder(features, table[report], report != NO_REPORT)[0]
        return logits

    def decode_text(self, features: Sequence[Tensor], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Masks of encoded images, guided by any words.

        Args:
            features: of `encode`.
            input_ids, attention_mask: (B, L) int64, of CXR-BERT's tokenizer.

        Returns:
            Mask logits (B, 1, H, W).
        """
        tokens = self.text.read(input_ids, attention_mask)
        logits: Tensor = self.decoder(features, tokens, tokens.new_ones(len(tokens)))[0]
        return logits

    def forward(self, images: Tensor, report: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (B, 1, H, W) under the given reports, and zone logits (B, 6)."""
        encoded = self.encode(images)
        return self.decode(encoded.features, report, self.report_encoder()), encoded.zone_logits

    def align(self, images: Tensor, report: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """What the warm-up compares: mean image feature and mean report token, (B, hidden) both."""
        return self._features(images.expand(-1, 3, -1, -1))[-1].mean((2, 3)), table[report].mean(1)

    def explain(self, images: Tensor, report: Tensor) -> Explanation:
        """Masks under the given reports, and what they were made of.

        Args:
            images: (B, 1, H, W).
            report: (B,) int64, index of the ZoneSet that the report names.
        """
        images = images.expand(-1, 3, -1, -1)
        logits, stages = self.decoder(
            self._features(images), self.report_encoder()[report], report != NO_REPORT, need_weights=True
        )
        if self.lerg is None:
            return Explanation(logits, stages, images.new_full((len(images), 6), torch.nan), None, None)
        found = self.lerg.explain(images)
        return Explanation(logits, stages, found.zone_logits, found.weights, found.boxes)

    def _features(self, images: Tensor) -> tuple[Tensor, ...]:
        """ConvNeXt's features at strides 4, 8, 16, 32."""
        states: tuple[Tensor, ...] = self.vision(images, output_hidden_states=True).hidden_states
        return states[1:]
