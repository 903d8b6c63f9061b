"""Examines a predictor on the cases of a data set, through the same `Predictor` that users run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.data import Case, load_mask
from sgseg.errors import DataError
from sgseg.evaluation.intervals import bootstrap
from sgseg.evaluation.metrics import (
    Counts,
    Score,
    ZoneScores,
    count,
    exemplars,
    image_dice,
    lesion_rate,
    per_image,
    per_image_dice,
    pooled,
    zone_scores,
)
from sgseg.formats import SheetRow, contact_sheet
from sgseg.imaging import ChestXray, read
from sgseg.inference import Prediction, Predictor
from sgseg.reports import Guidance

_BATCH = 16


@dataclass(frozen=True)
class Evaluation:
    """How a predictor did on N cases under one guidance.

    Attributes:
        cases: what was examined, in order.
        counts: pixels of each case.
        zones_pred, zones_true: zones of the model's own report and of the true one, (M, 6) bool, for the
            M cases whose true zones are known.
        reported: which cases those are, (N,) bool.
        guidance: where the reports came from.
    """

    cases: Sequence[Case]
    counts: Counts
    zones_pred: NDArray[np.bool_]
    zones_true: NDArray[np.bool_]
    reported: NDArray[np.bool_]
    guidance: Guidance

    def summary(self) -> dict[str, Any]:
        """All scores, each with its 95 % interval over patients: {name: {"value", "low", "high"}}."""
        patients = [case.patient for case in self.cases]
        mask = {"pooled": pooled(self.counts), "per_image": per_image(self.counts)}
        scores: dict[str, Any] = {
            kind: {name: _interval(score, patients) for name, score in values._asdict().items()}
            for kind, values in mask.items()
        }
        scores["images_with_a_lesion_predicted"] = _interval(lesion_rate(self.counts), patients)
        if self.reported.any():
            zones: ZoneScores = zone_scores(self.zones_pred, self.zones_true)
            known = [patient for patient, has in zip(patients, self.reported, strict=True) if has]
            named = {k: v for k, v in zones._asdict().items() if k != "per_zone"}
            scores["zones"] = {name: _interval(score, known) for name, score in named.items()}
        return scores

    def per_case(self) -> list[dict[str, Any]]:
        """Dice of every case, by name."""
        dice = per_image_dice(self.counts)
        return [{"name": case.name, "dice": float(d)} for case, d in zip(self.cases, dice, strict=True)]


def examine(
    predictor: Predictor,
    cases: Sequence[Case],
    guidances: Sequence[Guidance],
    progress: Callable[[], None] = lambda: None,
) -> list[Evaluation]:
    """Predicts every case under every guidance; each image is encoded once.

    Args:
        predictor: what is examined.
        cases: the reference list; every one of them counts.
        guidances: of the decoder.
        progress: called after each case.

    Returns:
        One evaluation for each guidance, in order.

    Raises:
        ImageError, DataError: a case cannot be read; or text guidance is asked for cases without a report.
    """
    silent = [case.name for case in cases if case.zones is None]
    if Guidance.TEXT in guidances and silent:
        raise DataError(
            f"text guidance needs a report for each case, and {len(silent)} of {len(cases)} have none "
            f"({', '.join(silent[:3])}, …); choose another guidance"
        )
    if not cases:
        raise DataError("there is no case to examine")
    rows: list[list[tuple[int, int, int, int]]] = [[] for _ in guidances]
    own: list[NDArray[np.bool_]] = []
    for batch in _batched(cases):
        xrays = [read(case.image) for case in batch]
        truths = [load_mask(case, _shape(xray)) for case, xray in zip(batch, xrays, strict=True)]
        encoded = predictor.encode(xrays)
        own.append(encoded.zones > 0.5)
        for counts, guidance in zip(rows, guidances, strict=True):
            predictions = predictor.decode(xrays, encoded, guidance, _reports(batch, guidance))
            counts += [count(p.mask, truth) for p, truth in zip(predictions, truths, strict=True)]
        for _ in batch:
            progress()
    writes = predictor.runtime.writes_reports
    reported = np.array([writes and case.zones is not None for case in cases])
    true = np.array([case.zones.vector for case in cases if writes and case.zones is not None], dtype=bool)
    true = true.reshape(-1, 6)
    pred = np.concatenate(own)[reported]
    return [
        Evaluation(cases, Counts.stack(r), pred, true, reported, g)
        for r, g in zip(rows, guidances, strict=True)
    ]


def picture(predictor: Predictor, evaluation: Evaluation) -> Image.Image:
    """Best, median and worst case, side by side."""
    dice = per_image_dice(evaluation.counts)
    rows = []
    for label, position in exemplars(dice).items():
        case = evaluation.cases[position]
        xray = read(case.image)
        reports = _reports([case], evaluation.guidance)
        prediction = predictor.predict_batch([xray], evaluation.guidance, reports)[0]
        rows.append(sheet_row(f"{label}: {case.name}", prediction, load_mask(case, _shape(xray))))
    name = f"{predictor.runtime.identity.name}, guidance {evaluation.guidance.value}, {len(dice)} cases"
    return contact_sheet(rows, f"Best, median and worst: {name}")


def sheet_row(label: str, prediction: Prediction, truth: NDArray[np.bool_]) -> SheetRow:
    """A prediction beside the truth, for a contact sheet."""
    dice = image_dice(prediction.mask, truth)
    return SheetRow(
        label,
        prediction.xray.pixels,
        truth,
        prediction.mask,
        prediction.zone_probabilities,
        prediction.report,
        dice,
    )


def _batched(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    return (cases[i : i + _BATCH] for i in range(0, len(cases), _BATCH))


def _reports(cases: Sequence[Case], guidance: Guidance) -> list[Any] | None:
    return [case.zones for case in cases] if guidance is Guidance.TEXT else None


def _shape(xray: ChestXray) -> tuple[int, int]:
    height, width = xray.pixels.shape
    return height, width


def _interval(score: Score, patients: Sequence[str]) -> dict[str, float]:
    low, high = bootstrap(score, patients)
    return {"value": float(score), "low": low, "high": high}
