"""Semi-supervised training after LViT (Li et al., IEEE TMI 2024): images that have a report and no mask.

Exponential pseudo-label iteration (EPI): the network that an earlier stage left labels those images, and
after each epoch their labels move a little towards what it says by then. Language-vision (LV) loss: the mask
that is predicted for such an image should resemble that of a labelled image with the most similar report.

The released code has neither, so what the paper leaves open is decided here. An iteration is an epoch. The
network labels under the true report, as it is validated. Reports are as similar as the zones they name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from sgseg.reports import NO_REPORT
from sgseg.training.cache import Arrays
from sgseg.training.config import Config
from sgseg.training.losses import language_vision_loss, mask_loss
from sgseg.training.module import StageModule, zone_index
from sgseg.training.networks import AnyNetwork
from sgseg.training.sets import Batch, Batches, loader

_LABELLING_BATCH = 64


def most_similar(
    zones: NDArray[np.float32], labelled: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.int64]:
    """For each image, a labelled one whose report is the most similar: the same, or the fewest zones apart.

    Args:
        zones: (N, 6) in {0, 1}; NaN where not known.
        labelled: (M, 6), those of the labelled images.
        generator: draws among images whose reports are equally similar.

    Returns:
        (N,) rows of `labelled`; -1 where there is no report to compare.
    """
    known = np.flatnonzero(~np.isnan(labelled).any(1))
    chosen = np.full(len(zones), -1)
    if not len(known):
        return chosen
    for i in np.flatnonzero(~np.isnan(zones).any(1)):
        apart = np.abs(labelled[known] - zones[i]).sum(1)
        chosen[i] = generator.choice(known[apart == apart.min()])
    return chosen


class ContrastiveBatches(Batches):
    """Batches with masks (B, 2, H, W): an image's own, and its contrastive label, empty where it has none."""

    def __init__(
        self,
        sets: Sequence[tuple[Arrays, int]],
        batch: int,
        seed: tuple[int, ...] | None,
        partners: NDArray[np.int64],
    ) -> None:
        """
        Args:
            sets, batch, seed: as in `Batches`; the first set is labelled, the last one not.
            partners: for each example of the last set, the row of the first whose mask is its contrastive
                label, or -1.
        """
        super().__init__(sets, batch, seed)
        self.partners = partners

    def _gather(self, rows: NDArray[np.int64]) -> Batch:
        batch = super()._gather(rows)
        partners = self.partners[rows[rows[:, 0] == len(self.sets) - 1, 1]]
        paired = np.flatnonzero(partners >= 0)
        contrastive = np.zeros(batch.masks.shape, dtype=np.uint8)
        # A batch holds one set after the other, so the last set's examples are its last rows.
        contrastive[len(rows) - len(partners) + paired, 0] = self.sets[0].masks[partners[paired]]
        return batch._replace(masks=torch.cat([batch.masks, torch.from_numpy(contrastive)], 1))


class SemiSupervisedModule(StageModule):
    """A stage that also trains on images without a mask.

    Attributes:
        pseudo_labels: (N, H, W) float16, probabilities; part of every checkpoint.
        unlabelled: the N images; their masks are the pseudo-labels above 0.5.
        partners: (N,) rows of the labelled images whose masks are the contrastive labels, or -1.
    """

    def __init__(
        self,
        network: AnyNetwork,
        config: Config,
        number: int,
        sets: Sequence[tuple[Arrays, int]],
        unlabelled: Arrays,
    ) -> None:
        """
        Args:
            network: trained in place; knows how to segment.
            config: of the run; the stage has a `pseudo_label_momentum`.
            number: of the stage, from 1.
            sets: decoded training sets with masks and repeats; the first one lends the contrastive labels.
            unlabelled: decoded images; their masks are not looked at.
        """
        self.unlabelled = replace(unlabelled, masks=np.zeros(unlabelled.images.shape, dtype=np.uint8))
        super().__init__(network, config, number, [*sets, (self.unlabelled, 1)])
        self.pseudo_labels = torch.zeros(unlabelled.images.shape, dtype=torch.float16)
        self.partners = most_similar(unlabelled.zones, sets[0][0].zones, np.random.default_rng(self.seed))

    def train_dataloader(self) -> DataLoader[Batch]:
        seed = (*self.seed, self.current_epoch)
        return loader(ContrastiveBatches(self.sets, self.stage.batch, seed, self.partners))

    def _mask_losses(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        own, contrastive = masks[:, :1], masks[:, 1:]
        return {
            "mask_loss": mask_loss(logits, own),
            "language_vision_loss": language_vision_loss(logits.sigmoid(), contrastive),
        }

    def on_train_start(self) -> None:
        if self.global_step:  # resumed: the checkpoint brought the labels
            return
        training = self.network.training
        self.network.eval()
        self._iterate(0)
        self.network.train(training)

    def on_validation_epoch_start(self) -> None:
        """Asks the network here, where it is in evaluation mode and has its averaged weights."""
        super().on_validation_epoch_start()
        assert self.stage.pseudo_label_momentum is not None
        self._iterate(self.stage.pseudo_label_momentum)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["pseudo_labels"] = self.pseudo_labels

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.pseudo_labels = checkpoint["pseudo_labels"]
        self._harden()

    @torch.no_grad()
    def _iterate(self, momentum: float) -> None:
        """Moves the labels towards what the network says now; `momentum` is the share that stays."""
        batches = Batches([(self.unlabelled, 1)], _LABELLING_BATCH, None)
        for batch, labels in zip(batches, self.pseudo_labels.split(_LABELLING_BATCH), strict=True):
            labels.copy_(torch.lerp(self._probabilities(batch), labels.float(), momentum))
        self._harden()

    def _harden(self) -> None:
        self.unlabelled.masks[:] = self.pseudo_labels > 0.5

    def _probabilities(self, batch: Batch) -> Tensor:
        """(B, H, W) float32, under the true report where it is known, else under the network's own."""
        images, zones = self._seen(batch.images.to(self.device) / 255), batch.zones.to(self.device)
        with self.trainer.precision_plugin.val_step_context():
            encoded = self.network.encode(images)
            own = self.own_reports(encoded.zone_logits)
            text = torch.where(zones.isnan().any(1), own, zone_index(zones))
            report = text if self.network.reads_reports else torch.full_like(own, NO_REPORT)
            logits = self._decode(encoded.features, report)
        return logits[:, 0].float().sigmoid().cpu()
