"""One training stage as a Lightning module: what a step is, how a network is validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from sgseg.anatomy import ZONES
from sgseg.models import SGSegCompact, repeat_features
from sgseg.models.compact.efficientnet import EfficientNetLite
from sgseg.models.interface import Alignable
from sgseg.reports import NO_REPORT
from sgseg.training.augmentation import Augment
from sgseg.training.cache import Arrays
from sgseg.training.config import Config, Reports
from sgseg.training.losses import contrastive_loss, mask_loss, zone_loss
from sgseg.training.networks import AnyNetwork, oriented
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
        own: the model's own report, index of its ZoneSet or `NO_REPORT`, (B,) int64.
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
    return torch.where(zones.isnan().any(1), own, chosen)


def distilled(masks: Tensor, guided: Tensor, told: Tensor, share: float) -> Tensor:
    """Targets of the path without a report.

    Args:
        masks: (B, C, H, W); the first channel is what is segmented.
        guided: logits of the same images under a report, (B, 1, H, W); no gradient flows into them.
        told: (B,) whether that report was the true one; where it was not, the mask stays as it is.
        share: how far the others move, 0…1.
    """
    way = share * told.to(masks.dtype)[:, None, None, None]
    return torch.cat([torch.lerp(masks[:, :1], guided.detach().sigmoid(), way), masks[:, 1:]], dim=1)


class StageModule(L.LightningModule):
    """Trains `network` through one stage.

    Every image is encoded once and decoded with a report, and unless the recipe is the paper's also
    without one: trained with reports alone, the path without text starves.
    """

    def __init__(
        self, network: AnyNetwork, config: Config, number: int, sets: Sequence[tuple[Arrays, int]]
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
        self.augment = Augment(self.stage.augmentation or config.augmentation)
        self.counts: dict[str, Tensor] = {}
        for part in network.modules():
            if isinstance(part, EfficientNetLite):
                part.set_drop_connect(self.stage.drop_connect)

    def on_train_epoch_start(self) -> None:
        if self.stage.objective == "zones":
            self.network.eval()  # its batch norms keep their statistics, too
            self.network.lerg.train()

    def train_dataloader(self) -> DataLoader[Batch]:
        """The current epoch's batches; Lightning asks anew for each epoch."""
        return loader(Batches(self.sets, self.stage.batch, (*self.seed, self.current_epoch)))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Each step has a random state of its own, so that a resumed run draws what the unbroken one drew.
        torch.manual_seed(hash((*self.seed, self.global_step)) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, masks, zones = self.augment(batch.images / 255, batch.masks.float(), batch.zones)
        images = self._seen(images)
        if self.stage.objective == "contrastive":
            losses = {"contrastive_loss": self._align(images, zones)}
        elif self.stage.objective == "zones":
            assert isinstance(self.network, SGSegCompact)  # as the configuration made sure
            losses = {"zone_loss": zone_loss(self.network.read_zones(images).float(), zones)}
        else:
            losses = self._segment(images, masks, zones)
        shown = {f"train/{name}": loss for name, loss in losses.items()}
        self.log_dict(shown, on_step=False, on_epoch=True, batch_size=len(images))
        weights = {
            "zone_loss": self.stage.zone_weight,
            "language_vision_loss": self.stage.language_vision_weight,
        }
        return torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()

    def _segment(self, images: Tensor, masks: Tensor, zones: Tensor) -> dict[str, Tensor]:
        encoded = self.network.encode(images)
        own = self.own_reports(encoded.zone_logits.detach())
        reads = self.network.reads_reports
        paths = [choose_reports(own, zones, self.config.reports)] if reads else []
        if self.config.reports.unguided or not reads:
            paths.insert(0, torch.full_like(own, NO_REPORT))
        logits = self._decode(repeat_features(encoded.features, len(paths)), torch.cat(paths)).float()
        targets = [masks] * len(paths)
        share = self.config.reports.distil
        if share and len(paths) == 2:
            told = (paths[1] == zone_index(zones)) & ~zones.isnan().any(1)
            targets[0] = distilled(masks, logits[len(own) :], told, share)
        losses = self._mask_losses(logits, torch.cat(targets))
        if self.network.writes_reports:
            losses["zone_loss"] = self._zone_loss(encoded.zone_logits.float(), zones)
        return losses

    def own_reports(self, zone_logits: Tensor) -> Tensor:
        """The report that the network writes, (B,); `NO_REPORT` if it writes none. Zone logits are (B, 6)."""
        reports = zone_index(zone_logits > 0)
        return reports if self.network.writes_reports else torch.full_like(reports, NO_REPORT)

    def _mask_losses(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        return {"mask_loss": mask_loss(logits, masks)}

    def _zone_loss(self, logits: Tensor, zones: Tensor) -> Tensor:
        return zone_loss(logits, zones)

    def _align(self, images: Tensor, zones: Tensor) -> Tensor:
        """Contrastive loss of the images whose report is known."""
        network: nn.Module = self.network
        assert isinstance(network, Alignable)  # checked when training began
        known = ~zones.isnan().any(1)
        reports = zone_index(zones[known])
        image, report = network.align(images[known], reports, self.network.report_encoder())
        return contrastive_loss(image.float(), report.float(), reports)

    def _seen(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) in [0, 1] as the network takes them."""
        images = oriented(standardise(images), self.config.network.transposed)
        return images.contiguous(memory_format=torch.channels_last)

    def _decode(self, features: Sequence[Tensor], reports: Tensor) -> Tensor:
        logits = self.network.decode(features, reports, self.network.report_encoder())
        return oriented(logits, self.config.network.transposed)

    def on_validation_epoch_start(self) -> None:
        self.counts = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Counts for the scores; returns masks (B, 1, H, W), decoded without a report, and zones (B, 6)."""
        images = self._seen(batch.images / 255)
        if self.stage.objective == "contrastive":
            loss, known = self._align(images, batch.zones), (~batch.zones.isnan()).all(1).sum()
            self._count("contrastive_loss", loss * known, known)
            return None
        truth, known = batch.masks.bool(), ~batch.zones.isnan()
        encoded = self.network.encode(images)
        own = self.own_reports(encoded.zone_logits)
        text = torch.where(known.all(1), zone_index(batch.zones), own)
        reports = {"dice_none": torch.full_like(own, NO_REPORT)}
        if self.network.reads_reports:
            reports["dice_text"] = text
        if self.network.writes_reports:
            reports["dice_self"] = own
            right = (encoded.zone_logits > 0) == (batch.zones > 0.5)
            self._count("zone_accuracy", (right & known).sum(), known.sum())
        logits = self._decode(repeat_features(encoded.features, len(reports)), torch.cat([*reports.values()]))
        for name, logit in zip(reports, logits.chunk(len(reports)), strict=True):
            predicted = logit > 0
            self._count(name, (predicted & truth).sum() * 2, predicted.sum() + truth.sum())
        return {"mask": logits[: len(own)] > 0, "zones": encoded.zone_logits.sigmoid()}

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"valid/{n}": part / whole.clamp(min=1) for n, (part, whole) in self.counts.items()})

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
        """Pretrained parts and rest, each with and without weight decay (vectors have none); their rates."""
        groups: list[dict[str, Any]] = []
        rates: list[float] = []
        trained = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]
        for is_encoder, rate in ((True, self.stage.encoder_learning_rate), (False, self.stage.learning_rate)):
            named = [p for n, p in trained if n.startswith(self.network.PRETRAINED) == is_encoder]
            groups.append(
                {"params": [p for p in named if p.ndim > 1], "weight_decay": self.config.weight_decay}
            )
            groups.append({"params": [p for p in named if p.ndim <= 1], "weight_decay": 0.0})
            rates += [rate, rate]
        return groups, rates
