"""The text side: the 64 possible reports as a table of frozen BERT outputs and a trained projection.

Every report that LERG can write is one of 64 sentences. The BERT is never updated, so its outputs are
constants: they are a buffer of the network, and BERT itself runs once, when the network is first built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sgseg.anatomy import N_ZONESETS

TOKENS = 28
"""Tokens of a report, padded; the longest of the 64 has fewer in BERT's uncased word pieces."""
BERT_WIDTH = 384
NO_REPORT = N_ZONESETS
"""The index that stands for "there is no report" (`Guidance.NONE`), beside 0…63 for `ZoneSet(index)`."""


class ReportEncoder(nn.Module):
    """Projects BERT's tokens and pools each report into a few report tokens.

    Buffers:
        bert: (64, TOKENS, BERT_WIDTH) float32, BERT's last hidden states of the 64 reports.
        padding: (64, TOKENS) bool, true where a token is padding.
    """

    bert: Tensor
    padding: Tensor

    def __init__(self, dim: int, tokens: int, heads: int = 4) -> None:
        super().__init__()
        self.register_buffer("bert", torch.zeros(N_ZONESETS, TOKENS, BERT_WIDTH))
        self.register_buffer("padding", torch.zeros(N_ZONESETS, TOKENS, dtype=torch.bool))
        self.project = nn.Sequential(nn.Linear(BERT_WIDTH, dim), nn.GELU(), nn.Linear(dim, dim))
        self.position = nn.Parameter(torch.randn(TOKENS, dim) * 0.02)
        self.queries = nn.Parameter(torch.randn(tokens, dim) * 0.5)
        self.pool = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        self.norm = nn.LayerNorm(dim)

    def set_bert_outputs(self, hidden: Tensor, mask: Tensor) -> None:
        """Stores BERT's outputs.

        Args:
            hidden: (64, TOKENS, BERT_WIDTH) float32, last hidden states of the report of `ZoneSet(i)`.
            mask: (64, TOKENS), 1 where there is a token.
        """
        self.bert.copy_(hidden)
        self.padding.copy_(mask == 0)

    def forward(self) -> Tensor:
        """The table of report tokens, (65, tokens, dim); the last row, `NO_REPORT`, is zero."""
        text = self.project(self.bert) + self.position
        queries = self.queries.expand(N_ZONESETS, -1, -1)
        pooled = (
            queries + self.pool(queries, text, text, key_padding_mask=self.padding, need_weights=False)[0]
        )
        table = self.norm(pooled + self.feed_forward(pooled))
        return torch.cat([table, torch.zeros_like(table[:1])])
