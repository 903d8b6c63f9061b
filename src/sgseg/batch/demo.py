"""The demonstration: synthetic X-rays, predicted and laid out to be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from sgseg.data import phantom
from sgseg.evaluation import sheet_row
from sgseg.formats import contact_sheet, save_picture
from sgseg.inference import Predictor

SEEDS = (4, 7, 12, 15, 21)
"""Below `training.sets.PHANTOM_SEED`: no network has seen these phantoms."""

SHEET = "contact_sheet.png"
_TITLE = "SGSeg on synthetic X-rays: drawn by a program, not patients"


def demonstrate(predictor: Predictor, out: Path, progress: Callable[[], None] = lambda: None) -> Path:
    """Draws phantoms, predicts them without any text, and writes a contact sheet.

    Args:
        predictor: does it.
        out: folder; the phantoms are written there too, for trying other commands on them.
        progress: called after each phantom.

    Returns:
        The contact sheet's path.
    """
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in SEEDS:
        drawn = phantom.draw(seed)
        path = images / f"{drawn.name}.png"
        save_picture(Image.fromarray(drawn.pixels), path)
        rows.append(sheet_row(f"synthetic: {drawn.name}", predictor.predict(path), np.asarray(drawn.mask)))
        progress()
    save_picture(contact_sheet(rows, _TITLE), out / SHEET)
    return out / SHEET
