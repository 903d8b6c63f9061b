"""What is minimised: Dice + cross-entropy on masks, binary cross-entropy on zones; and in pre-training,
contrastive alignment of images and reports, and masked words."""

from __future__ import annotations

from collections.abc import Sequence

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


def contrastive_loss(images: Tensor, reports: Tensor, same: Tensor, temperature: float = 0.1) -> Tensor:
    """Draws each image to its report and away from the others' (InfoNCE in both directions).

    With 64 possible reports, many images of a batch have the same one; they are all positives of each
    other, where the plain loss would push half of them away from their own report.

    Args:
        images, reports: embeddings (B, D).
        same: (B,) equal numbers mark equal reports.
        temperature: divides the cosines; the released code multiplies them by 10.

    Returns:
        A scalar; 0 for no image.
    """
    if not len(images):
        return (images.sum() + reports.sum()).float()
    cosines = F.normalize(images, dim=1) @ F.normalize(reports, dim=1).T / temperature
    positives = (same[:, None] == same[None]).to(cosines.dtype)
    targets = positives / positives.sum(1, keepdim=True)
    loss: Tensor = (F.cross_entropy(cosines, targets) + F.cross_entropy(cosines.T, targets)) / 2
    return loss


def language_vision_loss(predicted: Tensor, contrastive: Tensor) -> Tensor:
    """Language-vision (LV) loss of LViT (Li et al., IEEE TMI 2024): 1 - cosine of prediction and mask.

    Args:
        predicted: probabilities (B, 1, H, W).
        contrastive: masks (B, 1, H, W) of other images with the most similar report; where one is empty, its
            image is left out.

    Returns:
        Scalar, the mean over the images that are left; 0 where none is.
    """
    predicted, contrastive = predicted.flatten(1), contrastive.flatten(1)
    has = contrastive.any(1)
    return ((1 - F.cosine_similarity(predicted, contrastive)) * has).sum() / has.sum().clamp(min=1)


def mask_words(
    input_ids: Tensor, attention_mask: Tensor, special: Sequence[int], mask_id: int, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """Hides 15 % of the words for masked language modelling (Devlin et al., 2019).

    Of the hidden words, 80 % become [MASK], 10 % any word, 10 % stay. All randomness is torch's global
    generator's.

    Args:
        input_ids, attention_mask: (B, L) int64.
        special: ids that are never hidden ([CLS], [SEP], [PAD]).
        mask_id: of [MASK].
        vocabulary: number of ids.

    Returns:
        The ids with words hidden, and labels, (B, L) int64 each; labels are -100 where nothing is hidden.
    """
    words = attention_mask.bool() & ~torch.isin(input_ids, input_ids.new_tensor(list(special)))
    hidden = words & (torch.rand(input_ids.shape, device=input_ids.device) < 0.15)
    draw = torch.rand(input_ids.shape, device=input_ids.device)
    changed = torch.where(draw < 0.9, torch.randint_like(input_ids, vocabulary), input_ids)
    changed = torch.where(draw < 0.8, mask_id, changed)
    return torch.where(hidden, changed, input_ids), torch.where(hidden, input_ids, -100)
