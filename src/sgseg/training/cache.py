"""Training data decoded once: images and masks as memory-mapped uint8, ready for batches."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from sgseg.anatomy import ZONES, ZoneSet
from sgseg.data import Case, load_mask
from sgseg.formats import atomic
from sgseg.imaging import fit, fit_mask, read

_VERSION = 1


@dataclass(frozen=True)
class Arrays:
    """A split, decoded.

    Attributes:
        images: (N, size, size) uint8, as `imaging.fit` gives them.
        masks: (N, size, size) uint8, 0 or 1.
        zones: (N, 6) float32 in {0, 1}; NaN where the zones are not known.
        names: of the N cases.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    zones: NDArray[np.float32]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)


def folder() -> Path:
    """Where decoded data is kept: `SGSEG_CACHE`, or the user's cache folder."""
    base = os.environ.get("SGSEG_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sgseg"


def decode(cases: Sequence[Case], size: int) -> Arrays:
    """Reads all cases at one size, from the cache where they were read before and have not changed.

    Raises:
        ImageError, DataError: a file is not readable; named in the message.
    """
    stamp = [_VERSION, size, [[str(p), p.stat().st_mtime_ns, p.stat().st_size] for p in _files(cases)]]
    key = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:16]
    images_path, masks_path = (folder() / f"{key}-{kind}-{size}.npy" for kind in ("images", "masks"))
    if not (images_path.is_file() and masks_path.is_file()):
        _decode(cases, size, images_path, masks_path)
    return Arrays(
        np.load(images_path, mmap_mode="r"),
        np.load(masks_path, mmap_mode="r"),
        np.array([_vector(case.zones) for case in cases], dtype=np.float32).reshape(-1, len(ZONES)),
        [case.name for case in cases],
    )


def _files(cases: Sequence[Case]) -> list[Path]:
    return [path for case in cases for path in (case.image, case.mask) if path is not None]


def _vector(zones: ZoneSet | None) -> tuple[float, ...]:
    return (float("nan"),) * len(ZONES) if zones is None else zones.vector


def _decode(cases: Sequence[Case], size: int, images_path: Path, masks_path: Path) -> None:
    images_path.parent.mkdir(parents=True, exist_ok=True)
    images = np.empty((len(cases), size, size), dtype=np.uint8)
    masks = np.empty_like(images)
    for i, case in enumerate(track(cases, description=f"decoding at {size} px", transient=True)):
        xray = read(case.image, force=True)  # what is in a data set, its owner wants in
        images[i] = fit(xray, size)
        masks[i] = fit_mask(load_mask(case, xray.pixels.shape), xray.content, size, xray.hanging)
    for path, array in ((images_path, images), (masks_path, masks)):
        with atomic(path) as temporary:
            np.save(temporary, array)
