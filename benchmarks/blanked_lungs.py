"""Does the model tell healthy X-rays by their lungs, or by where they come from?

The X-rays without a finding are another hospital's. With the lungs painted over, nothing is left that could
tell them from QaTa-COV19's but the source; if the model's reports still separate the two, its rate of false
alarms on healthy X-rays is confounded by it.

    python benchmarks/blanked_lungs.py --data QATA --negatives HEALTHY --splits valid test
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sgseg
from sgseg.data import Case, read_cases
from sgseg.evaluation.analysis import area_under_curve
from sgseg.formats import atomic, write_json
from sgseg.imaging import fit, read
from sgseg.inference import Runtime

ROWS = slice(0.06, 0.97)
COLUMNS = (slice(0.02, 0.47), slice(0.53, 0.98))
"""What is painted over, as shares of the picture: wider than any lung, the mediastinum left in between."""

_BATCH = 16


def blank(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A square X-ray, (size, size), whose lungs have the grey that the rest has on average."""
    painted = np.zeros(image.shape, dtype=bool)
    for columns in COLUMNS:
        painted[
            tuple(
                slice(round(s.start * n), round(s.stop * n))
                for s, n in zip((ROWS, columns), image.shape, strict=True)
            )
        ] = True
    return np.where(painted, image[~painted].mean(), image).astype(np.uint8)


def likeliest_zone(runtime: Runtime, cases: Sequence[Case], blanked: bool) -> NDArray[np.float64]:
    """The probability of each case's likeliest zone, (N,)."""
    found = []
    for i in range(0, len(cases), _BATCH):
        images = [fit(read(case.image, force=True), runtime.size) for case in cases[i : i + _BATCH]]
        found.append(runtime.encode(np.stack([blank(x) if blanked else x for x in images])).zones.max(1))
    return np.concatenate(found).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="QaTa-COV19")
    parser.add_argument("--negatives", type=Path, required=True, help="X-rays without a finding")
    parser.add_argument("--splits", nargs="+", default=["valid"])
    parser.add_argument(
        "--out", type=Path, default=Path("results/blanked-lungs"), help="writes OUT.md and OUT.json"
    )
    arguments = parser.parse_args()
    runtime = sgseg.load().runtime
    roots = (arguments.data, arguments.negatives)
    rows = [
        _row(runtime, [read_cases(root, split) for root in roots], split, blanked)
        for split in arguments.splits
        for blanked in (False, True)
    ]
    document = {"model": runtime.identity._asdict(), "rows": rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out.with_suffix(".json"), document)
    with atomic(arguments.out.with_suffix(".md")) as temporary:
        temporary.write_text(_markdown(document), encoding="utf-8")
    print(_markdown(document))


def _row(runtime: Runtime, sets: Sequence[Sequence[Case]], split: str, blanked: bool) -> dict[str, Any]:
    infected, healthy = (likeliest_zone(runtime, cases, blanked) for cases in sets)
    return {
        "split": split,
        "lungs": "painted over" if blanked else "as they are",
        "infected": len(infected),
        "healthy": len(healthy),
        "area_under_curve": area_under_curve(infected, healthy),
        "infected_called_infected": float((infected > 0.5).mean()),
        "healthy_called_infected": float((healthy > 0.5).mean()),
    }


def _markdown(document: dict[str, Any]) -> str:
    lines = [
        "# Healthy X-rays with their lungs painted over",
        "",
        f"Weights {document['model']['version']}; infected X-rays of QaTa-COV19, healthy ones of NIH. What "
        "separates them is the likeliest zone's probability; 0.5 under the curve would be no separation.",
        "",
        "| split | lungs | infected | healthy | area under the curve | called infected: infected | healthy |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['split']} | {row['lungs']} | {row['infected']:,} | {row['healthy']:,} "
        f"| {row['area_under_curve']:.3f} | {row['infected_called_infected']:.1%} "
        f"| {row['healthy_called_infected']:.1%} |"
        for row in document["rows"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
