"""One training stage as a Lightning module: what a step is, how a network is validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from sgseg.anatomy import N_ZONESETS, ZONES
from sgseg.models import SGSegCompact, repeat_features
from sgseg.reports import NO_REPORT
from sgseg.training.augmentation import Augment
from sgseg.training.cache import Arrays
from sgseg.training.config import Config, Reports
from sgseg.training.losses import mask_loss, zone_loss
from sgseg.training.sets import Batch, Batches, loader

_FINAL_LEARNING_RATE = 5e-7


def standardise(images: Tensor) -> Tensor:
    """Zero mean and unit variance for each image, (B, 1, H, W) float32."""
    variance, mean = torch.var_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
    return (images - mean) * torch.rsqrt(variance + 1e-8)


def zone_index(zones: Tensor) -> Tensor:
    """Flags (B, 6) -> index of the ZoneSet, (B,) int64."""
    bits = 2 ** torch.arange(len(ZONES), device=zones.device)
    return ((zones > 0.5) * bits).sum(1)


def choose_reports(own: Tensor, zones: Tensor, shares: Reports) -> Tensor:
    """The report that guides each image in training: true, corrupted, or the model's own.

    Args:
        own: index of the model's own report, (B,) int64.
        zones: true zones (B, 6); NaN where not known, and then the model's own report is taken.
        shares: how often which.
    """
    true = zone_index(zones)
    n, device = len(own), own.device
    toggles = 2 ** torch.randint(len(ZONES), (2, n), device=device)
    corrupted = true ^ toggles[0] ^ torch.where(torch.rand(n, device=device) < 0.5, toggles[1], 0)
    draw = torch.rand(n, device=device)
    chosen = torch.where(
        draw < shares.true, true, torch.where(draw < shares.true + shares.corrupted, corrupted, own)
    )
    return torch.where(zones.isnan().any(1), own, chosen % N_ZONESETS)


class StageModule(L.LightningModule):
    """Trains `network` through one stage.

    Every image is encoded once and decoded twice: without a report and with one. Trained mostly with
    reports, the path without text starves.
    """

    def __init__(
        self, network: SGSegCompact, config: Config, number: int, sets: Sequence[tuple[Arrays, int]]
    ) -> None:
        """
        Args:
            network: trained in place.
            config: of the run.
            number: of the stage, from 1.
            sets: decoded training sets, and how often each of their examples counts in an epoch.
        """
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config, self.stage = config, config.stages[number - 1]
        self.sets, self.seed = sets, (config.seed, number)
        self.augment = Augment(config.augmentation)
        self.counts: dict[str, Tensor] = {}

    def train_dataloader(self) -> DataLoader[Batch]:
        """The current epoch's batches; Lightning asks anew for each epoch."""
        return loader(Batches(self.sets, self.stage.batch, (*self.seed, self.current_epoch)))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Each step has a random state of its own, so that a resumed run draws what the unbroken one drew.
        torch.manual_seed(hash((*self.seed, self.global_step)) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, masks, zones = self.augment(batch.images / 255, batch.masks.float(), batch.zones)
        encoded = self.network.encode(standardise(images).contiguous(memory_format=torch.channels_last))
        own = zone_index(encoded.zone_logits.detach() > 0)
        reports = torch.cat(
            [torch.full_like(own, NO_REPORT), choose_reports(own, zones, self.config.reports)]
        )
        logits = self.network.decode(
            repeat_features(encoded.features, 2), reports, self.network.report_encoder()
        )
        mask = mask_loss(logits.float(), torch.cat([masks, masks]))
        zone = zone_loss(encoded.zone_logits.float(), zones)
        self.log_dict(
            {"train/mask_loss": mask, "train/zone_loss": zone},
            on_step=False,
            on_epoch=True,
            batch_size=len(own),
        )
        return mask + self.stage.zone_weight * zone

    def on_validation_epoch_start(self) -> None:
        self.counts = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Counts for the scores; returns masks (B, 1, H, W), decoded without a report, and zones (B, 6)."""
        truth, known = batch.masks.bool(), ~batch.zones.isnan()
        encoded = self.network.encode(
            standardise(batch.images / 255).contiguous(memory_format=torch.channels_last)
        )
        own = zone_index(encoded.zone_logits > 0)
        text = torch.where(known.all(1), zone_index(batch.zones), own)
        reports = {"none": torch.full_like(own, NO_REPORT), "self": own, "text": text}
        logits = self.network.decode(
            repeat_features(encoded.features, 3),
            torch.cat([*reports.values()]),
            self.network.report_encoder(),
        )
        for name, logit in zip(reports, logits.chunk(3), strict=True):
            predicted = logit > 0
            self._count(name, (predicted & truth).sum() * 2, predicted.sum() + truth.sum())
        right = (encoded.zone_logits > 0) == (batch.zones > 0.5)
        self._count("zones", (right & known).sum(), known.sum())
        return {"mask": logits[: len(own)] > 0, "zones": encoded.zone_logits.sigmoid()}

    def on_validation_epoch_end(self) -> None:
        scores = {name: part / whole.clamp(min=1) for name, (part, whole) in self.counts.items()}
        self.log_dict(
            {f"valid/{'zone_accuracy' if n == 'zones' else f'dice_{n}'}": s for n, s in scores.items()}
        )

    def _count(self, name: str, part: Tensor, whole: Tensor) -> None:
        pair = torch.stack([part, whole]).double()
        self.counts[name] = self.counts.get(name, torch.zeros_like(pair)) + pair

    def configure_optimizers(self) -> Any:
        groups, rates = self._parameter_groups()
        optimizer = torch.optim.AdamW(groups)
        schedule = OneCycleLR(
            optimizer,
            max_lr=rates,
            total_steps=len(Batches(self.sets, self.stage.batch, self.seed)) * self.stage.epochs,
            pct_start=self.stage.warm_up,
            div_factor=10,
            final_div_factor=max(rates) / 10 / _FINAL_LEARNING_RATE,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> tuple[list[dict[str, Any]], list[float]]:
        """Encoder and rest, each with and without weight decay (vectors have none), and their rates."""
        groups: list[dict[str, Any]] = []
        rates: list[float] = []
        for is_encoder, rate in ((True, self.stage.encoder_learning_rate), (False, self.stage.learning_rate)):
            named = [p for n, p in self.network.named_parameters() if n.startswith("encoder.") == is_encoder]
            groups.append(
                {"params": [p for p in named if p.ndim > 1], "weight_decay": self.config.weight_decay}
            )
            groups.append({"params": [p for p in named if p.ndim <= 1], "weight_decay": 0.0})
            rates += [rate, rate]
        return groups, rates
