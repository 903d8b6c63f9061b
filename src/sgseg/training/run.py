"""A training run: its folder, its stages one after the other, and how it goes on after an interruption.

RUN/config.yaml        everything that decides what comes out
RUN/run.json           version, commit, machine, precision
RUN/1-128px/           a stage: last.ckpt, best.ckpt, metrics.csv, curves.png, samples.png
RUN/weights.safetensors   the network that the last stage chose
"""

from __future__ import annotations

import json
import logging
import platform
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from safetensors.torch import save
from torch import Tensor

import sgseg
from sgseg.errors import ConfigError
from sgseg.evaluation.ledger import commit
from sgseg.formats import atomic, write_json
from sgseg.models import SGSegCompact
from sgseg.models.baselines.prototypes import PrototypeNetwork
from sgseg.models.interface import Alignable
from sgseg.training import config as configs
from sgseg.training.config import Config, Stage
from sgseg.training.cpu import bfloat16_pays, keep_freed_memory
from sgseg.training.module import StageModule, standardise, zone_index
from sgseg.training.networks import WEIGHTS, AnyNetwork, build, initial, state
from sgseg.training.progress import Progress, Samples
from sgseg.training.semi_supervised import SemiSupervisedModule
from sgseg.training.sets import Batches, check, loader, training_sets, unlabelled_set, validation_sets

_VALIDATION_BATCH = 64


def start(config: Config, folder: Path) -> Path:
    """Begins a run in a new folder and trains all its stages.

    Returns:
        The file of the trained weights.

    Raises:
        ConfigError, DataError, HubError: the folder is already there, or the data, or the weights to start
            from, are not; then no folder is left behind.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is there already; go on with --resume {folder}, or choose another --out")
    check(config)
    begun = _begin(config)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "config.yaml") as temporary:
        temporary.write_text(config.dump(), encoding="utf-8")
    return _train(*begun, config, folder)


def resume(folder: Path) -> Path:
    """Goes on with a run exactly where its last finished epoch left it.

    Order of the data, augmentation, optimizer, schedule and moving average are those of the unbroken
    run, because all randomness derives from the seed and the step.

    Raises:
        ConfigError: the folder is not a run.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} is not a run: it has no config.yaml")
    config = configs.load(folder / "config.yaml")
    return _train(*_begin(config), config, folder)


def _begin(config: Config) -> tuple[AnyNetwork, list[str]]:
    """The network that training starts from, and what to tell the user of it."""
    keep_freed_memory()
    _quiet()
    torch.manual_seed(config.seed)
    network, said = initial(config)
    if any(s.objective == "contrastive" for s in config.stages) and not isinstance(network, Alignable):
        raise ConfigError(f"{config.model} has no contrastive pre-training; leave its stage out")
    if (config.monitor, False) in (("self", network.writes_reports), ("text", network.reads_reports)):
        raise ConfigError(
            f"this network has no masks under guidance {config.monitor}; set monitor to another"
        )
    if not config.data.has_judge:
        said.append("valid is trained on: its scores judge nothing, and each stage keeps its last epoch")
    return network, said


def _train(network: AnyNetwork, said: list[str], config: Config, folder: Path) -> Path:
    """Trains the stages of a run that are not finished yet."""
    for line in said:
        print(f"sgseg: {line}", file=sys.stderr)
    record = _record(folder, config, said)
    for number in range(1, len(config.stages) + 1):
        network = _train_stage(network, config, number, folder, record["precision"])
    with atomic(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(state(network)))
    return folder / WEIGHTS


def _train_stage(network: AnyNetwork, config: Config, number: int, run: Path, precision: str) -> AnyNetwork:
    """Trains one stage, or takes what it left behind.

    Returns:
        The network that was best on `valid` (the last one, if `valid` is trained on), mixed with the one that
        the stage began with where the stage asks for it.
    """
    stage = config.stages[number - 1]
    begun = deepcopy(network.state_dict()) if stage.start_share else None
    folder = run / f"{number}-{stage.name}"
    last, best, finished = folder / "last.ckpt", folder / "best.ckpt", folder / "finished"
    if not finished.is_file():
        folder.mkdir(exist_ok=True)
        module = _module(network, config, number)
        valid = Batches(validation_sets(config.data, stage), _VALIDATION_BATCH, None)
        trainer = _trainer(config, stage, folder, precision)
        try:
            trainer.fit(module, val_dataloaders=loader(valid), ckpt_path=last if last.is_file() else None)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
        finished.touch()
    kept = best if config.data.has_judge else last
    chosen = torch.load(kept, map_location="cpu", weights_only=True)["state_dict"]
    learned = {k.removeprefix("network."): v for k, v in chosen.items() if k.startswith("network.")}
    network.load_state_dict(learned if begun is None else _mixed(learned, begun, stage.start_share))
    if stage.objective == "contrastive" and isinstance(network, PrototypeNetwork):
        _fill_bank(network, config, stage)
    return network


def _mixed(learned: dict[str, Tensor], begun: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The mean of two networks' weights, `share` of it begun's; counters stay learned's."""
    return {
        k: v.lerp(begun[k].to(v.device), share) if v.is_floating_point() else v for k, v in learned.items()
    }


def _module(network: AnyNetwork, config: Config, number: int) -> StageModule:
    stage = config.stages[number - 1]
    sets = training_sets(config.data, stage, config.seed)
    if stage.objective == "zones":
        _start_lerg(network, config)
    if stage.pseudo_label_momentum is None:
        return StageModule(network, config, number, sets)
    rest = unlabelled_set(config.data, stage, config.seed)
    return SemiSupervisedModule(network, config, number, sets, rest)


def _start_lerg(network: AnyNetwork, config: Config) -> None:
    """Puts a new LERG in the place of the network's, and freezes all else."""
    fresh = build(config)
    assert isinstance(network, SGSegCompact) and isinstance(fresh, SGSegCompact)
    network.requires_grad_(False)
    network.lerg = fresh.lerg


@torch.no_grad()
def _fill_bank(network: PrototypeNetwork, config: Config, stage: Stage) -> None:
    """Distils the prototypes from the training images that have a report, as the warm-up left the network."""
    torch.manual_seed(config.seed)
    network.eval()
    table = network.report_encoder()
    pairs = []
    for batch in Batches(training_sets(config.data, stage, config.seed), _VALIDATION_BATCH, None):
        known = ~batch.zones.isnan().any(1)
        images, zones = standardise(batch.images[known] / 255), batch.zones[known]
        pairs.append((*network.align(images, zone_index(zones), table), zones))
    queries, reports, zones = (torch.cat(column) for column in zip(*pairs, strict=True))
    network.bank.distil(queries, reports, zones)
    network.train()  # Lightning trains a network in the mode that it finds it in


class BestCheckpoint(ModelCheckpoint):
    """Remembers the best epoch's score even if the run was moved to another folder in between."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


def _trainer(config: Config, stage: Stage, folder: Path, precision: str) -> L.Trainer:
    contrastive = stage.objective == "contrastive"
    judges = {"contrastive": "contrastive_loss", "zones": "zone_accuracy"}
    monitor = f"valid/{judges.get(stage.objective, f'dice_{config.monitor}')}"
    mode = "min" if contrastive else "max"
    callbacks: list[Callback] = [
        WeightAveraging(multi_avg_fn=_moving_average(config.ema)),
        BestCheckpoint(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False),
        Progress(folder),
        *([] if contrastive else [Samples(folder / "samples.png")]),
        *([] if stage.patience is None else [EarlyStopping(monitor, patience=stage.patience, mode=mode)]),
        ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False),
    ]
    return L.Trainer(
        accelerator="auto",
        devices=1,
        precision=precision,
        max_epochs=stage.epochs,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        logger=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=folder,
    )


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """Exponential moving average whose memory grows to `decay`, so that short runs leave their start.

    It moves all tensors of a kind at once: one by one, a GPU would be waited for at each.
    """

    def average(averaged: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + float(n)) / (10 + float(n))))
        else:
            torch._foreach_copy_(averaged, current)

    return average


def _record(folder: Path, config: Config, said: list[str]) -> dict[str, Any]:
    """Writes down what the configuration leaves open; a resumed run keeps its precision, adds its commit."""
    path = folder / "run.json"
    now = commit(Path(__file__).parent)
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        record["commits"] = list(dict.fromkeys([*record["commits"], now]))
        write_json(path, record)
        return record
    record = {
        "sgseg": sgseg.__version__,
        "commits": [now],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "precision": _precision(config.precision),
        "warnings": said,
    }
    write_json(path, record)
    return record


def _precision(asked: str) -> str:
    """The precision to train in, as Lightning names it."""
    if asked != "auto":
        return asked
    pays = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else bfloat16_pays()
    return "bf16-mixed" if pays else "32-true"


def _quiet() -> None:
    """Silences what does not concern the user: Lightning's advice and its own use of old functions."""
    for pattern in (
        ".*does not have many workers.*",
        ".*heckpoint directory .* exists.*",
        ".*has `__len__` defined.*",
    ):
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
