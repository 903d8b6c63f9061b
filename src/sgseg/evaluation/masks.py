"""Examines masks that any program wrote, by the same scores as a predictor's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.anatomy import ZONES
from sgseg.data import Case, load_mask
from sgseg.errors import DataError
from sgseg.evaluation.examine import Evaluation, exemplar_sheet, hung_row
from sgseg.evaluation.metrics import Counts, count
from sgseg.formats import SheetRow
from sgseg.imaging import read
from sgseg.inference.runtime import FINDING_THRESHOLD

NAMES = ("{}.png", "{}_mask.png", "mask_{}.png")
"""What the mask of a case may be called, whatever the case of the letters."""

_SHOWN = 10


@dataclass(frozen=True)
class Masks:
    """A folder of masks, one for each case.

    Attributes:
        folder: where they lie.
        paths: the mask of each case, by the case's name.
        extra: PNG files of the folder that belong to no case.
    """

    folder: Path
    paths: dict[str, Path]
    extra: list[Path]


def find_masks(folder: Path, cases: Sequence[Case]) -> Masks:
    """Pairs the masks of a folder with cases, by name.

    Args:
        folder: of PNG files called as `NAMES` says.
        cases: the reference list; every one of them needs a mask.

    Raises:
        DataError: there is no such folder, or cases have no mask, or more than one.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of the predicted masks")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
    by_name: dict[str, list[Path]] = {}
    for path in files:
        by_name.setdefault(path.name.casefold(), []).append(path)
    found = {
        case.name: [path for name in NAMES for path in by_name.get(name.format(case.name).casefold(), ())]
        for case in cases
    }
    _check(found, folder)
    paths = {name: candidates[0] for name, candidates in found.items()}
    taken = set(paths.values())
    return Masks(folder, paths, [path for path in files if path not in taken])


def examine_masks(
    masks: Masks, cases: Sequence[Case], progress: Callable[[], None] = lambda: None
) -> Evaluation:
    """Scores masks against the true ones.

    Args:
        masks: of these cases.
        cases: the reference list; every one of them counts.
        progress: called after each case.

    Raises:
        ImageError, DataError: a case or its mask cannot be read, the mask has another size than the X-ray,
            or more than two values, which would leave open where the lesion ends.
    """
    rows = []
    for case in cases:
        pixels = read(case.image, force=True).pixels  # every case counts
        rows.append(count(_predicted(masks, case, pixels), _true(case, pixels)))
        progress()
    n = len(cases)
    zones, quality = np.full((n, len(ZONES)), np.nan), np.full(n, np.nan)
    return Evaluation(cases, Counts.stack(rows), zones, None, quality, None, FINDING_THRESHOLD)


def picture_of_masks(masks: Masks, evaluation: Evaluation) -> Image.Image:
    """Best, median and worst case, side by side."""

    def row(label: str, case: Case) -> SheetRow:
        xray = read(case.image, force=True)
        mask, truth = _predicted(masks, case, xray.pixels), _true(case, xray.pixels)
        return hung_row(label, xray, truth, mask, [np.nan] * len(ZONES), "")

    return exemplar_sheet(evaluation, f"masks of {masks.folder.name}", row)


def _check(found: dict[str, list[Path]], folder: Path) -> None:
    missing = [name for name, candidates in found.items() if not candidates]
    if missing:
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        names = ", ".join(pattern.format("NAME") for pattern in NAMES)
        raise DataError(
            f"{len(missing):,} of {len(found):,} cases have no mask in {folder} (looked for {names}): "
            f"{', '.join(missing[:_SHOWN])}{more}"
        )
    for name, candidates in found.items():
        if len(candidates) > 1:
            files = " and ".join(path.name for path in candidates)
            raise DataError(f"{name} has {len(candidates)} masks in {folder}: {files}; keep one of them")


def _true(case: Case, pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    return load_mask(case, (pixels.shape[0], pixels.shape[1]))


def _predicted(masks: Masks, case: Case, pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    path = masks.paths[case.name]
    mask = _true(replace(case, mask=path), pixels)
    with Image.open(path) as image:
        if image.convert("L").getcolors(2) is None:
            raise DataError(f"{path} has more than two values; a mask has 0 and 255, or 0 and 1")
    return mask
