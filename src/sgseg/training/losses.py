"""What is minimised: Dice + cross-entropy on masks, binary cross-entropy on zones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses.dice import DiceCELoss
from torch import Tensor

# Pooled over the batch, as the headline metric pools over the split; per image, an empty mask of a
# healthy X-ray would count as much as a lesion that fills both lungs.
mask_loss = DiceCELoss(sigmoid=True, batch=True)
"""Logits (B, 1, H, W) and masks (B, 1, H, W) in {0, 1} -> scalar."""


def zone_loss(logits: Tensor, zones: Tensor) -> Tensor:
    """Weak supervision of LERG (paper, eq. 2), over the zones that are known.

    Args:
        logits: (B, 6).
        zones: (B, 6) in {0, 1}; NaN where not known.
    """
    known = ~zones.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, torch.where(known, zones, 0.0), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)
