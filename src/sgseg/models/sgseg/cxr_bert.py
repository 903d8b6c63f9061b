"""CXR-BERT, the report encoder (Boecking et al., ECCV 2022): BERT with a projection of its [CLS] token.

Tensors have the names of `microsoft/BiomedVLP-CXR-BERT-specialized`, so that its files load as they are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from sgseg.anatomy import N_ZONESETS

REPORT_LENGTH = 24
"""Tokens of a report, padding and [CLS] and [SEP] included (paper §2.1); the longest of the 64 has 22."""


class CXRBertConfig(BertConfig):
    """BERT's configuration, with CXR-BERT's dropout, and the width of the projection."""

    model_type = "cxr-bert"

    def __init__(
        self,
        projection_size: int = 128,
        hidden_dropout_prob: float = 0.25,
        attention_probs_dropout_prob: float = 0.25,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            hidden_dropout_prob=hidden_dropout_prob,
            attention_probs_dropout_prob=attention_probs_dropout_prob,
            **kwargs,
        )
        self.projection_size = projection_size


class ProjectionHead(nn.Module):
    """[CLS] -> the space that reports share with images."""

    def __init__(self, config: CXRBertConfig) -> None:
        super().__init__()
        self.dense_to_hidden = nn.Linear(config.hidden_size, config.projection_size)
        self.LayerNorm = nn.LayerNorm(config.projection_size, eps=1e-12)
        self.dense_to_output = nn.Linear(config.projection_size, config.projection_size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense_to_output(self.LayerNorm(F.gelu(self.dense_to_hidden(x))))
        return y


class CXRBert(BertForMaskedLM):
    """BERT that reads reports, with the heads of its two pre-training objectives.

    Masked language modelling is `BertForMaskedLM`'s own (`labels=`, see `losses.mask_words`); the
    contrastive objective compares what `embed` gives.
    """

    config_class = CXRBertConfig

    def __init__(self, config: CXRBertConfig) -> None:
        super().__init__(config)
        self.cls_projection_head = ProjectionHead(config)
        self.post_init()

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Reports as contextual tokens.

        Args:
            input_ids, attention_mask: (B, L) int64.

        Returns:
            Last hidden states (B, L, hidden).
        """
        hidden: Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Reports as unit vectors (B, projection_size), from their [CLS] tokens."""
        return F.normalize(self.cls_projection_head(self.read(input_ids, attention_mask)[:, 0]), dim=1)


class ReportTable(nn.Module):
    """The 64 reports that LERG can write, read in one batch.

    Every guided image uses one of 64 sentences, so reading each sentence once gives the same tokens as
    reading it for every image. A frozen BERT reads them once and for all.

    Buffers:
        input_ids, attention_mask: (64, REPORT_LENGTH) int64, of the report of `ZoneSet(i)` in row i.
    """

    input_ids: Tensor
    attention_mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("input_ids", "attention_mask"):
            self.register_buffer(name, torch.zeros(N_ZONESETS, REPORT_LENGTH, dtype=torch.int64))

    def forward(self, text: CXRBert) -> Tensor:
        """The table of report tokens, (65, REPORT_LENGTH, hidden); the last row, `NO_REPORT`, is zero."""
        table = text.read(self.input_ids, self.attention_mask)
        return torch.cat([table, torch.zeros_like(table[:1])])
