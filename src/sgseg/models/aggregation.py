"""Location-based attention aggregation (paper §2.2, eq. 1), which every LERG ends in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LocationAggregation(nn.Module):
    """Object predictions -> location vectors, A = softmax(X qᵀ) X.

    The softmax runs over the objects, so each location query draws on the objects that speak of it.
    """

    def __init__(self, dim: int, queries: int) -> None:
        """
        Args:
            dim: width of an object prediction.
            queries: how many q there are.
        """
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, dim) * dim**-0.5)

    def weights(self, objects: Tensor) -> Tensor:
        """softmax(X qᵀ): (B, N, dim) objects -> (B, queries, N); each row sums to 1."""
        return torch.softmax(objects @ self.queries.T, dim=1).transpose(1, 2)

    def forward(self, objects: Tensor) -> Tensor:
        """(B, N, dim) objects -> (B, queries, dim)."""
        return self.weights(objects) @ objects
