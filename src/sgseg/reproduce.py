"""The paper's tables, one command each: trains what is missing, examines it on `test`, writes it down.

RUNS/<preset>/<run>-seed0/          a training run (see `training.run`)
RESULTS/<preset>/<run>-seed0.json   what it reached on `test`, under every guidance
RESULTS/<preset>/table1.{json,md}   the table, the paper's own numbers beside ours

Rows are compared with rows trained here. The paper's numbers stand beside them as what they are: measured by
others, and not all averaged in one way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sgseg.data import phantom, read_cases
from sgseg.errors import ConfigError
from sgseg.evaluation import append_to_ledger, examine
from sgseg.formats import atomic, write_json
from sgseg.inference import Predictor
from sgseg.reports import Guidance
from sgseg.training import config as configs
from sgseg.training import run
from sgseg.training.config import Config
from sgseg.training.networks import WEIGHTS
from sgseg.training.runtime import TorchRuntime

Preset = Literal["paper", "cpu", "smoke"]
PRESETS: tuple[Preset, ...] = ("paper", "cpu", "smoke")

SPLIT = "test"

_SCORES = ("accuracy", "dice", "jaccard")
_AVERAGING = (
    "Accuracy, Dice and Jaccard are pooled over all pixels, Dice with its 95 % interval by patient; beside "
    "them the mean Dice over images. The last column is the paper's Accuracy / Dice / Jaccard, not measured "
    "here."
)
_SMOKE_CASES = {"train": 16, "valid": 4, "test": 4}
_SMOKE_SEED = 20_000


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        name: of the system.
        run: what is trained for it, a key of `RUNS`.
        guidance: under which it is examined.
        paper: the paper's Accuracy, Dice and Jaccard; None where the paper has no such row.
    """

    name: str
    run: str
    guidance: Guidance
    paper: tuple[float, float, float] | None = None


_TRUE_REPORTS = ("reports.true=1", "reports.corrupted=0", "reports.unguided=false", "monitor=text")

RUNS: dict[str, tuple[str, ...]] = {
    "unet": ("model=unet",),
    "unetpp": ("model=unetpp",),
    "attention-unet": ("model=attention-unet",),
    "transunet": ("model=transunet",),
    "swin-unet": ("model=swin-unet",),
    "lvit": ("model=lvit", *_TRUE_REPORTS),
    "languidemedseg": ("model=languidemedseg", *_TRUE_REPORTS),
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

_PUBLISHED = ("model=sgseg", *_TRUE_REPORTS[:-1], "monitor=self")
"""In the preset `paper`, the run `sgseg` is the published network by the paper's recipe."""

_WARMED_UP = frozenset(("clip", "prototypes"))  # first draw images to their reports

_NONE, _SELF, _TEXT = Guidance.NONE, Guidance.SELF, Guidance.TEXT

TABLES: dict[str, tuple[Row, ...]] = {
    "table1": (
        Row("U-Net", "unet", _NONE, (0.945, 0.819, 0.692)),
        Row("U-Net++", "unetpp", _NONE, (0.947, 0.823, 0.706)),
        Row("Attention U-Net", "attention-unet", _NONE, (0.945, 0.822, 0.701)),
        Row("TransUNet", "transunet", _NONE, (0.939, 0.806, 0.687)),
        Row("Swin-Unet", "swin-unet", _NONE, (0.950, 0.832, 0.724)),
        Row("SGSeg", "sgseg", _SELF, (0.971, 0.874, 0.778)),
        Row("SGSeg, its likeliest reports mixed", "sgseg", Guidance.SELF_SOFT),
        Row("SGSeg, guidance left out", "sgseg", _NONE),
        Row("LViT, text given", "lvit", _TEXT, (0.962, 0.837, 0.751)),
        Row("LanGuideSeg, text given", "languidemedseg", _TEXT, (0.975, 0.898, 0.815)),
        Row("U-Net on the ImageNet encoder", "unet-imagenet", _NONE),
        Row("U-Net++ on the ImageNet encoder", "unetpp-imagenet", _NONE),
        Row("Attention U-Net on the ImageNet encoder", "attention-unet-imagenet", _NONE),
        Row("Residual U-Net (nnU-Net's recipe)", "nnunet", _NONE),
        Row("Prototypes (after ProLearn)", "prototypes", _NONE),
    ),
    "table2": (
        Row("Without text", "image-only", _NONE, (0.953, 0.846, 0.725)),
        Row("Trained with text, guidance left out", "sgseg", _NONE),
        Row("CLIP pre-training", "clip", _NONE, (0.962, 0.850, 0.740)),
        Row("Simple report generation", "simple-report", _SELF, (0.966, 0.861, 0.759)),
        Row("LERG", "sgseg", _SELF, (0.971, 0.874, 0.778)),
        Row("Full text", "sgseg", _TEXT, (0.973, 0.890, 0.797)),
        Row("Zone embeddings, own zones", "zone-embeddings", _SELF),
        Row("Zone embeddings, true zones", "zone-embeddings", _TEXT),
    ),
}


def reproduce(
    table: str,
    preset: Preset,
    data: Path | None,
    seed: int,
    runs: Path,
    results: Path,
    say: Callable[[str], None],
) -> Path:
    """Makes a table; whatever an earlier call finished is taken as it is.

    Args:
        table: of `TABLES`.
        preset: its recipe and sizes; `smoke` draws its own phantoms.
        data: the data set; None for `smoke`.
        seed: of every run.
        runs, results: folders, each with a folder for the preset.
        say: told what is done next.

    Returns:
        The table as Markdown; the JSON is beside it.

    Raises:
        ConfigError, DataError: there is no data set, or it cannot be read.
    """
    if data is None and preset != "smoke":
        raise ConfigError(f"the preset {preset} needs a data set; add --data QATA")
    root = data or _phantoms(runs / preset / "phantoms")
    needed = list(dict.fromkeys(row.run for row in TABLES[table]))
    scores = {}
    for number, name in enumerate(needed, start=1):
        say(f"{number}/{len(needed)} {name}")
        folder = _trained(name, preset, root, seed, runs / preset)
        record = results / preset / f"{name}-seed{seed}.json"
        scores[name] = _examined(folder, root, record, results / "test-ledger.csv", preset)
    document = _document(table, preset, seed, root, scores)
    path = results / preset / f"{table}.md"
    write_json(path.with_suffix(".json"), document)
    with atomic(path) as temporary:
        temporary.write_text(_markdown(document), encoding="utf-8")
    return path


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


def _trained(name: str, preset: Preset, root: Path, seed: int, runs: Path) -> Path:
    """The folder of a finished run; starts it, or goes on with it, if need be."""
    folder = runs / f"{name}-seed{seed}"
    if not (folder / WEIGHTS).is_file():
        if (folder / "config.yaml").is_file():
            run.resume(folder)
        else:
            run.start(plan(name, preset, root, seed), folder)
    return folder


def _examined(folder: Path, root: Path, record: Path, ledger: Path, preset: Preset) -> dict[str, Any]:
    """A run's scores on `test`, from the file that an earlier call wrote if its weights are the same."""
    player = TorchRuntime.of_run(folder)
    if record.is_file():
        written: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if written["model"]["sha256"] == player.identity.sha256:
            return written
    cases = read_cases(root, SPLIT)
    guidances = _guidances(player)
    evaluations = examine(Predictor(player), cases, guidances)
    document = {
        "model": player.identity._asdict(),
        "parameters": sum(p.numel() for p in player.network.parameters()),
        "init": configs.load(folder / "config.yaml").init,
        "warnings": json.loads((folder / "run.json").read_text(encoding="utf-8"))["warnings"],
        "cases": len(cases),
        "guidance": {g.value: e.summary() for g, e in zip(guidances, evaluations, strict=True)},
    }
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, document)
    if preset != "smoke":
        append_to_ledger(ledger, evaluations, player.identity, root)
    return document


def _guidances(player: TorchRuntime) -> list[Guidance]:
    network = player.network
    own = [Guidance.SELF, Guidance.SELF_SOFT] if network.writes_reports else []
    return [Guidance.NONE, *own, *([Guidance.TEXT] if network.reads_reports else [])]


def _document(
    table: str, preset: Preset, seed: int, root: Path, scores: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    rows = []
    for row in TABLES[table]:
        found = scores[row.run]
        measured = found["guidance"][row.guidance.value]
        rows.append(
            {
                "system": row.name,
                "run": row.run,
                "guidance": row.guidance.value,
                "parameters": found["parameters"],
                "init": found["init"],
                "warnings": found["warnings"],
                "pooled": {score: measured["pooled"][score] for score in _SCORES},
                "per_image_dice": measured["per_image"]["dice"],
                "paper": None if row.paper is None else dict(zip(_SCORES, row.paper, strict=True)),
            }
        )
    return {
        "table": table,
        "preset": preset,
        "data": root.resolve().name,
        "split": SPLIT,
        "cases": next(iter(scores.values()))["cases"],
        "seed": seed,
        "threshold": 0.5,
        "rows": rows,
    }


def _markdown(document: dict[str, Any]) -> str:
    title = {"table1": "Table 1", "table2": "Table 2"}[document["table"]]
    about = (
        f"{document['data']}, split `{document['split']}`, {document['cases']:,} cases, seed "
        f"{document['seed']}, threshold {document['threshold']}, preset `{document['preset']}`. {_AVERAGING}"
    )
    head = "| system | guidance | parameters | Accuracy | Dice | Jaccard | Dice, per image | paper |"
    lines = [f"# {title}", "", about, "", head, "|---|---|---|---|---|---|---|---|"]
    lines += [_line(row) for row in document["rows"]]
    random = [f"{row['system']}: {w}" for row in document["rows"] for w in row["warnings"]]
    if random:
        lines += [
            "",
            "Weights that could not be reached:",
            "",
            *(f"- {line}" for line in dict.fromkeys(random)),
        ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    accuracy, dice, jaccard = (row["pooled"][score] for score in _SCORES)
    paper = "–" if row["paper"] is None else " / ".join(f"{row['paper'][s]:.3f}" for s in _SCORES)
    interval = f"{dice['value']:.4f} ({dice['low']:.3f}–{dice['high']:.3f})"
    return (
        f"| {row['system']} | {row['guidance']} | {row['parameters'] / 1e6:.1f} M | {accuracy['value']:.4f} "
        f"| {interval} | {jaccard['value']:.4f} | {row['per_image_dice']['value']:.4f} | {paper} |"
    )


def _phantoms(folder: Path) -> Path:
    if not folder.is_dir():
        phantom.write_dataset(folder, _SMOKE_CASES, _SMOKE_SEED, 64)
    return folder
