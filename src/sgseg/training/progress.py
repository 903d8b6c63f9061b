"""What a run shows while it works: a line an epoch with the time left, metrics as CSV, curves and samples."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from sgseg.anatomy import Laterality, ZoneSet
from sgseg.evaluation import image_dice
from sgseg.formats import SheetRow, atomic, contact_sheet, save_picture
from sgseg.reports import write
from sgseg.training.sets import Batch

_SAMPLES = 6
_CURVES = {
    "loss": (
        *("train/mask_loss", "train/zone_loss", "train/language_vision_loss"),
        *("train/contrastive_loss", "valid/contrastive_loss"),
    ),
    "valid": ("valid/dice_none", "valid/dice_self", "valid/dice_text", "valid/zone_accuracy"),
}


class Progress(Callback):
    """A bar for the epoch in a terminal; a line and a row of metrics.csv for each finished epoch."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.console = Console()
        self.bars = Bars(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.began = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = time.monotonic()
        self.bars.start()
        epochs = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.task = self.bars.add_task(
            f"{self.path.parent.name} {epochs}", total=trainer.num_training_batches
        )

    def on_train_batch_end(self, *_: Any) -> None:
        self.bars.advance(self.task)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bars.remove_task(self.task)
        self.bars.stop()
        minutes = (time.monotonic() - self.began) / 60
        scores = {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
        append_metrics(self.path, {"epoch": trainer.current_epoch + 1, "minutes": minutes, **scores})
        draw_curves(self.path)
        left = minutes * ((trainer.max_epochs or 0) - trainer.current_epoch - 1)
        told = " · ".join(f"{name} {value:.3f}" for name, value in scores.items())
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        time_told = f"{minutes:.1f} min · {left:.0f} min left in this stage"
        line = f"{time.strftime('%H:%M')} {self.path.parent.name} {epoch} · {told} · {time_told}"
        self.console.print(line, soft_wrap=True, highlight=False)

    def on_exception(self, *_: Any) -> None:
        self.bars.stop()


class Samples(Callback):
    """A contact sheet of a few validation cases after each epoch, decoded without a report."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if batch_idx:
            return
        n = len(batch.images)
        rows = [_row(batch, outputs, i) for i in np.linspace(0, n - 1, min(n, _SAMPLES)).astype(int)]
        save_picture(
            contact_sheet(rows, f"Validation cases after epoch {trainer.current_epoch + 1}"), self.path
        )


def _row(batch: Batch, outputs: dict[str, torch.Tensor], i: int) -> SheetRow:
    truth = batch.masks[i, 0].cpu().numpy().astype(bool)
    mask = outputs["mask"][i, 0].cpu().numpy()
    zones = outputs["zones"][i].float().cpu().numpy()
    dice = image_dice(mask, truth)
    report = write(ZoneSet.from_vector([p > 0.5 for p in zones]), Laterality.PATIENT)
    pixels = (batch.images[i, 0].float() / 255).cpu().numpy()
    return SheetRow(f"case {i + 1}", pixels, truth, mask, [float(p) for p in zones], report, dice)


def append_metrics(path: Path, row: dict[str, float]) -> None:
    """Adds an epoch's row; rows of epochs that an interrupted run repeats are replaced."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
    rows.append({k: v if k == "epoch" else f"{v:.5f}" for k, v in row.items()})
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[-1].keys())
        writer.writeheader()
        writer.writerows(rows)


def draw_curves(metrics: Path) -> None:
    """Draws metrics.csv as curves.png beside it."""
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) for row in rows]
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4), layout="constrained")
        for axes, (title, columns) in zip(figure.subplots(1, 2), _CURVES.items(), strict=True):
            for column in (c for c in columns if c in rows[0]):
                label = (column if "contrastive" in column else column.split("/")[1]).replace("_", " ")
                axes.plot(epochs, [float(row[column]) for row in rows], marker=".", label=label)
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            if axes.lines:
                axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
        with atomic(metrics.with_name("curves.png")) as temporary:
            figure.savefig(temporary, dpi=120, format="png")
