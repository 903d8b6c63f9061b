"""The text side: the 64 possible reports as a table of frozen BERT embeddings and a trained projection.

Every report that LERG can write is one of 64 sentences. The BERT is never updated, so its outputs are
constants: they are a buffer of the network, and BERT itself runs once, when the network is first built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sgseg.anatomy import N_ZONESETS

WIDTH = N_ZONESETS - 1
"""64 centred embeddings span no more dimensions than this."""

_SPREAD = 0.25


def whiten(embeddings: Tensor) -> Tensor:
    """Brings what tells the 64 reports apart to a similar size.

    A general sentence embedding hardly tells left from right: in MiniLM's, the number of zones makes up
    23 % of what distinguishes the reports, the side of a level 0.15 %, and a network trained on it follows
    the number and ignores the side. So the embeddings' principal components keep their directions, but
    their singular values are drawn together, S -> S^¼. Whitening them wholly would leave 64 unrelated
    symbols; this way, the zones of reports that were held out can still be read linearly (97 % of bits).

    Args:
        embeddings: (64, D) float32, of the report of `ZoneSet(i)` in row i.

    Returns:
        (64, WIDTH) float32 with zero mean and unit variance overall.
    """
    centred = embeddings.double() - embeddings.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    drawn = u[:, :WIDTH] * s[:WIDTH] ** _SPREAD
    return (drawn / drawn.std()).float()


class ReportEncoder(nn.Module):
    """Projects the embedding of each report to a few report tokens.

    Buffers:
        embeddings: (64, WIDTH) float32, BERT's embeddings of the 64 reports, from `whiten`.
    """

    embeddings: Tensor

    def __init__(self, dim: int, tokens: int) -> None:
        super().__init__()
        self.register_buffer("embeddings", torch.zeros(N_ZONESETS, WIDTH))
        self.project = nn.Sequential(nn.Linear(WIDTH, 2 * dim), nn.GELU(), nn.Linear(2 * dim, tokens * dim))
        self.tokens = tokens
        self.norm = nn.LayerNorm(dim)

    def forward(self) -> Tensor:
        """The table of report tokens, (65, tokens, dim); the last row, `reports.NO_REPORT`, is zero."""
        table = self.norm(self.project(self.embeddings).unflatten(1, (self.tokens, -1)))
        return torch.cat([table, torch.zeros_like(table[:1])])
