"""What is trained for the tables and figures, and what each run reached on `test`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from sgseg.data import phantom, read_cases
from sgseg.errors import ConfigError, DataError
from sgseg.evaluation import append_to_ledger, examine
from sgseg.evaluation.ledger import commit
from sgseg.formats import write_json
from sgseg.inference import Predictor
from sgseg.models import SGSeg
from sgseg.models.baselines import LViT
from sgseg.models.compact.efficientnet import EfficientNetLite
from sgseg.models.compact.report_encoder import ReportEncoder
from sgseg.reports import Guidance
from sgseg.training import config as configs
from sgseg.training import hub, run
from sgseg.training.config import Config
from sgseg.training.networks import WEIGHTS, AnyNetwork
from sgseg.training.runtime import TorchRuntime

Preset = Literal["paper", "cpu", "smoke"]
PRESETS: tuple[Preset, ...] = ("paper", "cpu", "smoke")

SPLIT = "test"
THRESHOLD = 0.5

_SMOKE_CASES = {"train": 16, "valid": 4, "test": 4}
_SMOKE_SEED = 20_000

_TRUE_REPORTS = ("reports.true=1", "reports.corrupted=0", "reports.unguided=false", "monitor=text")

_TRANSFORMER = ("stages.0.learning_rate=3e-4", "stages.0.encoder_learning_rate=3e-4")
"""The paper's rate, for transformers from scratch: at the preset `cpu`'s 1e-3 the loss of Swin-Unet leaps."""

RUNS: dict[str, tuple[str, ...]] = {
    "unet": ("model=unet",),
    "unetpp": ("model=unetpp",),
    "attention-unet": ("model=attention-unet",),
    "transunet": ("model=transunet", *_TRANSFORMER),
    "swin-unet": ("model=swin-unet", *_TRANSFORMER),
    "lvit": ("model=lvit", *_TRUE_REPORTS, *_TRANSFORMER),
    "languidemedseg": ("model=languidemedseg", *_TRUE_REPORTS, *_TRANSFORMER),
    "unet-imagenet": ("model=unet-imagenet",),
    "unetpp-imagenet": ("model=unetpp-imagenet",),
    "attention-unet-imagenet": ("model=attention-unet-imagenet",),
    "nnunet": ("model=nnunet",),
    "prototypes": ("model=prototypes",),
    "sgseg": ("model=sgseg-compact", "network={}"),
    "image-only": ("model=image-only",),
    "clip": ("model=clip",),
    "simple-report": ("model=simple-report",),
    "zone-embeddings": ("model=zone-embeddings",),
}
"""What is trained: changes to the preset's recipe."""

SEEDS: dict[Preset, dict[str, tuple[int, ...]]] = {
    "paper": {},
    "cpu": {"image-only": (0, 1, 2), "sgseg": (0, 1, 2)},  # on which the claim rests
    "smoke": {},
}
"""The seeds of the runs that have not only seed 0."""

_PUBLISHED = ("model=sgseg", *_TRUE_REPORTS[:-1], "monitor=self")
"""In the preset `paper`, the run `sgseg` is the published network by the paper's recipe."""

_WARMED_UP = frozenset(("clip", "prototypes"))  # first draw images to their reports


def plan(name: str, preset: Preset, root: Path, seed: int) -> Config:
    """What is trained for a key of `RUNS`."""
    changes = _PUBLISHED if (name, preset) == ("sgseg", "paper") else RUNS[name]
    config = configs.load(f"reproduce/{preset}", [*changes, f"data.root={root}", f"seed={seed}"])
    if name not in _WARMED_UP:
        return config
    first = config.stages[0]
    warm_up = {
        "name": "warm-up",
        "objective": "contrastive",
        "epochs": max(1, first.epochs // 4),
        "patience": None,
    }
    return config.model_copy(update={"stages": (first.model_copy(update=warm_up), *config.stages)})


def seeds_of(name: str, preset: Preset) -> tuple[int, ...]:
    """The seeds with which a key of `RUNS` is trained unless others are asked for."""
    return SEEDS[preset].get(name, (0,))


@dataclass(frozen=True)
class Bench:
    """Where runs are trained and examined.

    Attributes:
        preset: recipe and sizes; `smoke` draws its own phantoms.
        data: the data set; None for `smoke`, and where every run has its record.
        runs, results: folders, each with a folder for the preset.
        say: told what is done next.
    """

    preset: Preset
    data: Path | None
    runs: Path
    results: Path
    say: Callable[[str], None]

    @property
    def root(self) -> Path:
        """The data set.

        Raises:
            ConfigError: none was given.
        """
        if self.data is not None:
            return self.data
        if self.preset != "smoke":
            raise ConfigError(f"the preset {self.preset} needs a data set; add --data QATA")
        phantoms = self.runs / self.preset / "phantoms"
        if not phantoms.is_dir():
            phantom.write_dataset(phantoms, _SMOKE_CASES, _SMOKE_SEED, 64)
        return phantoms

    @property
    def published(self) -> Path:
        """The folder of the preset's results: numbers and plots, no pixel of the data set."""
        return self.results / self.preset

    @property
    def pictures(self) -> Path:
        """The folder of pictures that show the data set."""
        return self.runs / self.preset / "figures"

    def folder(self, name: str, seed: int) -> Path:
        """Of a run."""
        return self.runs / self.preset / f"{name}-seed{seed}"

    def is_trained(self, name: str, seed: int) -> bool:
        """Whether a run is finished on this machine."""
        return (self.folder(name, seed) / WEIGHTS).is_file()

    def trained(self, name: str, seed: int) -> Path:
        """The folder of a finished run; starts it, or goes on with it, if need be."""
        folder = self.folder(name, seed)
        if not self.is_trained(name, seed):
            if (folder / "config.yaml").is_file():
                run.resume(folder)
            else:
                run.start(plan(name, self.preset, self.root, seed), folder)
        return folder

    def player(self, name: str, seed: int) -> TorchRuntime:
        """Plays a run, which is trained first if need be."""
        return TorchRuntime.of_run(self.trained(name, seed))

    def record(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a run reached, from its file.

        None if there is no such file, or if the run is on this machine and has, or will have, other weights.

        Raises:
            DataError: the file is none of ours.
        """
        path = self._record(name, seed)
        if not path.is_file():
            return None
        try:
            written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            sha256 = written["model"]["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not the record of a run; remove it") from error
        folder = self.folder(name, seed)
        if folder.exists() and (not self.is_trained(name, seed) or _sha256(folder / WEIGHTS) != sha256):
            return None
        return written if "config" in written else None  # it was written before records had one

    def records(self, names: Sequence[str]) -> dict[tuple[str, int], dict[str, Any]]:
        """All records of these runs, by name and seed."""
        found = {}
        for name in names:
            for path in self.published.glob(f"{name}-seed*.json"):
                seed = path.stem.removeprefix(f"{name}-seed")
                if seed.isdecimal() and (record := self.record(name, int(seed))):
                    found[name, int(seed)] = record
        return found

    def examine(self, name: str, seed: int) -> dict[str, Any]:
        """Scores a run on `test`, trained first if need be, and writes its record.

        Weights, recipe, commit and machine are part of it, so that it speaks for itself where the run is not.
        """
        player = self.player(name, seed)
        cases = read_cases(self.root, SPLIT)
        guidances = _guidances(player)
        evaluations = examine(Predictor(player, THRESHOLD), cases, guidances)
        config, trained = self._origin(name, seed)
        document = {
            "run": name,
            "seed": seed,
            "model": player.identity._asdict(),
            "parameters": sum(p.numel() for p in player.network.parameters()),
            "init": initialisation(player.network, config, trained["warnings"]),
            "data": self.root.resolve().name,
            "split": SPLIT,
            "cases": len(cases),
            "threshold": THRESHOLD,
            "guidance": {g.value: e.summary() for g, e in zip(guidances, evaluations, strict=True)},
            "examined_by": commit(Path(__file__).parent),
            "trained": trained,
            "config": config.model_dump(mode="json"),
        }
        write_json(self._record(name, seed), document)
        if self.preset != "smoke":
            append_to_ledger(self.results / "test-ledger.csv", evaluations, player.identity, self.root)
        return document

    def model(self, name: str, seed: int, player: TorchRuntime) -> dict[str, Any]:
        """Which run it is that was played, for a figure's JSON."""
        config, trained = self._origin(name, seed)
        init = initialisation(player.network, config, trained["warnings"])
        return {"run": name, "seed": seed, **player.identity._asdict(), "init": init}

    def same_recipe(self, record: dict[str, Any]) -> bool:
        """Whether a recorded run was trained as this version would train it."""
        try:
            trained = Config.model_validate(record["config"])
        except ValidationError:
            return False
        today = plan(record["run"], self.preset, Path(), record["seed"])
        data = trained.data.model_copy(update={"root": Path()})
        return trained.model_copy(update={"data": data, "hub": None}) == today

    def _origin(self, name: str, seed: int) -> tuple[Config, dict[str, Any]]:
        """How a run on this machine was trained: its configuration, and what that leaves open."""
        folder = self.folder(name, seed)
        trained = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return configs.load(folder / "config.yaml"), trained

    def _record(self, name: str, seed: int) -> Path:
        return self.published / f"{name}-seed{seed}.json"


def initialisation(network: AnyNetwork, config: Config, warnings: Sequence[str]) -> str:
    """Whose weights a run started from; "random" where there were none.

    Args:
        network: of the run.
        config: of the run.
        warnings: what `training.networks.initial` said: which weights of the hub could not be reached.
    """
    if config.init != "pretrained":
        return config.init
    parts = []
    encoders = [module for module in network.modules() if isinstance(module, EfficientNetLite)]
    parts += [f"ImageNet (EfficientNet-{encoder.variant.capitalize()})" for encoder in encoders]
    if isinstance(network, SGSeg | LViT) and config.network.size == "paper":
        whole = isinstance(network, SGSeg)
        detector = [hub.RT_DETR] if whole and network.writes_reports else []
        wanted = [*([hub.CONVNEXT] if whole else []), *detector, hub.CXR_BERT]
        parts += [model.name for model in wanted if not any(model.name in line for line in warnings)]
    elif isinstance(network, SGSeg | LViT) or any(isinstance(m, ReportEncoder) for m in network.modules()):
        parts.append("MiniLM")
    return ", ".join(parts) or "random"


def _guidances(player: TorchRuntime) -> list[Guidance]:
    network = player.network
    own = [Guidance.SELF, Guidance.SELF_SOFT] if network.writes_reports else []
    return [Guidance.NONE, *own, *([Guidance.TEXT] if network.reads_reports else [])]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
