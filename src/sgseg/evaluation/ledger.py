"""The ledger of the test split: each time it is looked at leaves a line."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from sgseg.evaluation.examine import Evaluation
from sgseg.evaluation.metrics import per_image, pooled
from sgseg.inference import Identity

_COLUMNS = (
    *("date", "commit", "model", "version", "sha256", "data", "cases", "guidance"),
    *("pooled_accuracy", "pooled_dice", "pooled_jaccard", "per_image_dice"),
)


def append_to_ledger(path: Path, evaluations: Sequence[Evaluation], model: Identity, data: Path) -> None:
    """Adds a line for each evaluation: when, which commit and weights, which guidance, what came out."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(_COLUMNS)
        for evaluation in evaluations:
            scores = [*pooled(evaluation.counts), per_image(evaluation.counts).dice]
            writer.writerow(
                [
                    datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
                    commit(Path.cwd()),
                    *model,
                    data.resolve().name,
                ]
                + [len(evaluation.cases), evaluation.name]
                + [f"{score:.4f}" for score in scores]
            )


def commit(folder: Path) -> str:
    """The commit that is checked out in a folder, marked where it has changes; empty outside of git."""
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--match=-"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
