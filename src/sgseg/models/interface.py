"""What training, export and prediction ask of a network, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Encoded(NamedTuple):
    """What one look at an image gives.

    Attributes:
        features: what `decode` takes; each has the B images along its first axis.
        zone_logits: (B, 6) in the order of `anatomy.ZONES`; NaN from a network that writes no report.
    """

    features: tuple[Tensor, ...]
    zone_logits: Tensor


def repeat_features(features: Sequence[Tensor], times: int) -> tuple[Tensor, ...]:
    """Stacks the batch `times` times, to decode every image under several reports at once."""
    return tuple(torch.cat([x] * times) for x in features)
