"""SGSeg: chest X-ray segmentation that writes its own report and is guided by it.

Example:
    >>> prediction = sgseg.load().predict("xray.png")
    >>> prediction.report, prediction.mask, prediction.zone_probabilities
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgseg.inference import Predictor

__version__ = "0.1.0"


def load(
    weights: str | Path | None = None, *, threshold: float = 0.5, threads: int | None = None
) -> Predictor:
    """A predictor that plays the shipped model; needs no torch and no network.

    Args:
        weights: folder of another artefact, as written by `sgseg export`.
        threshold: of the mask.
        threads: of the CPU; by default all that this process may use.

    Raises:
        SGSegError: the folder holds no model.
    """
    from sgseg.inference import OnnxRuntime, Predictor
    from sgseg.weights import SHIPPED

    return Predictor(OnnxRuntime(Path(weights) if weights else SHIPPED, threads), threshold)
