"""What training, export and prediction ask of a network, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Encoded(NamedTuple):
    """What one look at an image gives.

    Attributes:
        features: what `decode` takes; each has the B images along its first axis.
        zone_logits: (B, 6) in the order of `anatomy.ZONES`; NaN from a network that writes no report.
        attention: where the network looked for each zone, (B, 6, h, w) on a grid over the image; each map
            sums to 1. None from a network without such maps, and while it trains.
    """

    features: tuple[Tensor, ...]
    zone_logits: Tensor
    attention: Tensor | None = None


@runtime_checkable
class Network(Protocol):
    """What training, evaluation and export ask of a network, besides its being a `torch.nn.Module`.

    Attributes:
        PRETRAINED: how the names of the tensors begin that start from others' weights, and so learn at the
            encoder's rate.
        reads_reports: whether the report changes the mask.
        writes_reports: whether `encode` tells the zones.
    """

    @property
    def PRETRAINED(self) -> tuple[str, ...]: ...  # noqa: N802
    @property
    def reads_reports(self) -> bool: ...
    @property
    def writes_reports(self) -> bool: ...

    def encode(self, images: Tensor) -> Encoded:
        """Images float32 (B, 1, H, W), z-scored per image, H and W multiples of 32."""

    def report_encoder(self) -> Tensor:
        """The table of report tokens, (65, L, D): row i is `ZoneSet(i)`'s report, the last `NO_REPORT`."""

    def decode(self, features: Sequence[Tensor], report: Tensor, table: Tensor) -> Tensor:
        """Features of `encode`, reports (B,) int64, table of `report_encoder` -> mask logits (B, 1, H, W)."""

    def __call__(self, images: Tensor, report: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (B, 1, H, W) under the given reports, and zone logits (B, 6)."""


@runtime_checkable
class Alignable(Protocol):
    """A network that the contrastive objective can pre-train."""

    def align(self, images: Tensor, report: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W), their reports (B,), table of `report_encoder` -> embeddings, (B, D) both."""


def repeat_features(features: Sequence[Tensor], times: int) -> tuple[Tensor, ...]:
    """Stacks the batch `times` times, to decode every image under several reports at once."""
    return tuple(torch.cat([x] * times) for x in features)
