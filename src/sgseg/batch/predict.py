"""Many files: read, predict, write; what fails is named, and the rest is finished."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sgseg.anatomy import ZONES, Laterality, ZoneSet
from sgseg.batch.inputs import result_names
from sgseg.errors import ImageError, MissingExtraError, NotApplicableError
from sgseg.formats import as_written, overlay, save_mask, save_picture, write_json
from sgseg.imaging import read
from sgseg.inference import Prediction, Predictor
from sgseg.reports import Guidance

RESULTS = "predictions.json"
_MASK, _OVERLAY = "_mask.png", "_overlay.png"
_SAVE_EVERY = 5.0  # seconds between two writes of the results: what a killed run loses at most


@dataclass
class Results:
    """What became of the files.

    Attributes:
        settings: model, guidance, thresholds of mask and finding, laterality, report and the masks'
            orientation, which all share.
        images: one entry for each image that was predicted, as in predictions.json.
        not_applicable: one entry for each that is no frontal chest X-ray: its path, the reason, the message.
        failed: one entry for each that could not be read, or its results not written: its path and why.
        differing: settings of an earlier call that are others now, so that none of its results was kept.
    """

    settings: dict[str, Any]
    images: list[dict[str, Any]] = field(default_factory=list)
    not_applicable: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        files = {"images": self.images, "not_applicable": self.not_applicable, "failed": self.failed}
        write_json(folder / RESULTS, {**self.settings, **files})


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    guidance: Guidance,
    report: ZoneSet | None = None,
    laterality: Laterality = Laterality.PATIENT,
    progress: Callable[[], None] = lambda: None,
    resume: bool = False,
    force: bool = False,
) -> Results:
    """Predicts files and writes `<name>_mask.png`, `<name>_overlay.png` and predictions.json.

    A mask has the file's own rows and columns, so that it lies on the file's pixels in any program; an
    overlay hangs the standard way, as people look at it.

    Args:
        predictor: does it.
        paths: of the images.
        out: folder of the results; made if it is not there.
        guidance: where the reports come from.
        report: the user's, for `Guidance.TEXT`.
        laterality: whose left the written words mean.
        progress: called after each file.
        resume: leave out what `out` already has, from the same model and settings.
        force: predict what is not a frontal chest X-ray as well.

    Raises:
        OSError: the folder cannot be made, or the results not be written to it.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = Results(_settings(predictor, guidance, report, laterality))
    if resume:
        _keep_finished(results, out, force)
    done = {entry["image"] for entry in results.images}
    taken = {entry["mask"].removesuffix(_MASK): entry["image"] for entry in results.images}
    saved = time.monotonic()
    try:
        for path, name in zip(paths, result_names(paths, taken), strict=True):
            if str(path) not in done:
                _predict_file(predictor, path, name, out, results, guidance, report, laterality, force)
            progress()
            if time.monotonic() - saved > _SAVE_EVERY:
                results.save(out)
                saved = time.monotonic()
    finally:
        results.save(out)
    return results


def _predict_file(
    predictor: Predictor,
    path: Path,
    name: str,
    out: Path,
    results: Results,
    guidance: Guidance,
    report: ZoneSet | None,
    laterality: Laterality,
    force: bool,
) -> None:
    try:
        xray = read(path, force)
        prediction = predictor.predict_batch([xray], guidance, None if report is None else [report])[0]
        prediction.applicable(str(path), force)
    except NotApplicableError as error:
        results.not_applicable.append({"image": str(path), "reason": error.reason, "error": str(error)})
        return
    except (ImageError, MissingExtraError) as error:
        results.failed.append({"image": str(path), "error": str(error)})
        return
    hung = xray.hanging.hung
    picture = overlay(hung(xray.pixels), hung(prediction.mask), sides=xray.has_sides)
    try:
        save_mask(prediction.mask, out / f"{name}{_MASK}")
        save_picture(picture, out / f"{name}{_OVERLAY}")
    except OSError as error:
        what = f"the results of {path} cannot be written to {out} ({error.strerror})"
        results.failed.append({"image": str(path), "error": what})
        return
    results.images.append(_entry(prediction, path, name, laterality))


def _settings(
    predictor: Predictor, guidance: Guidance, report: ZoneSet | None, laterality: Laterality
) -> dict[str, Any]:
    return {
        "model": predictor.runtime.identity._asdict(),
        "guidance": guidance.value,
        "guiding_zones": None if report is None else list(report.vector),
        "threshold": predictor.threshold,
        "finding_threshold": predictor.runtime.finding_threshold,
        "laterality": laterality.value,
        "orientation": "file",  # of the masks: the file's own rows and columns
    }


def _keep_finished(results: Results, out: Path, force: bool) -> None:
    """Takes over the entries of an earlier call with the same settings whose masks are still there."""
    try:
        document = json.loads((out / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(document, dict):
        return
    settings = as_written(results.settings)
    results.differing = [key for key, value in settings.items() if document.get(key) != value]
    if not results.differing:
        kept = (entry for entry in document["images"] if (out / entry["mask"]).is_file())
        results.images = [entry for entry in kept if force or not entry.get("against")]


def _entry(prediction: Prediction, path: Path, name: str, laterality: Laterality) -> dict[str, Any]:
    """One image in predictions.json."""
    files = {"image": str(path), "mask": f"{name}{_MASK}", "overlay": f"{name}{_OVERLAY}"}
    return {**files, **describe(prediction, laterality)}


def describe(prediction: Prediction, laterality: Laterality) -> dict[str, Any]:
    """All that is known of one X-ray but its pixels, ready for JSON; the zones in the canonical order."""
    xray, mask, probability = prediction.xray, prediction.mask, prediction.finding_probability
    return {
        "report": prediction.report_in(laterality),
        "finding": prediction.finding,
        "finding_probability": None if math.isnan(probability) else probability,
        "zones": [zone.name(laterality) for zone in prediction.zones or () if prediction.has_sides],
        "zone_probabilities": {
            zone.name(laterality): None if math.isnan(p) or not prediction.has_sides else p
            for zone, p in zip(ZONES, prediction.zone_probabilities, strict=True)
        },
        "lesion_fraction": np.count_nonzero(mask) / mask.size,
        "uncertainty": prediction.uncertainty,
        "size": [mask.shape[1], mask.shape[0]],
        "view": xray.view,
        "laterality_source": xray.laterality,
        "hanging": xray.hanging._asdict(),
        "against": xray.against,
        "pixel_spacing": xray.pixel_spacing,
        "spacing_source": xray.spacing_source,
        "inverted": xray.inverted,
        "content": list(xray.content),
        "seconds": prediction.seconds,
    }
