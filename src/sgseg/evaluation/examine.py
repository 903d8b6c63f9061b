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
from sgseg.evaluation.intervals import interval
from sgseg.evaluation.metrics import (
    Counts,
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
from sgseg.evaluation.reliability import Reliability
from sgseg.evaluation.text import text_scores
from sgseg.formats import SheetRow, contact_sheet
from sgseg.imaging import ChestXray, read
from sgseg.inference import Prediction, Predictor
from sgseg.reports import Guidance

GIVEN = "masks"
"""Stands for the guidance where masks were given and no model was run."""

_BATCH = 16


@dataclass(frozen=True)
class Evaluation:
    """How a predictor did on N cases under one guidance, or how masks did that were given.

    Attributes:
        cases: what was examined, in order.
        counts: pixels of each case.
        zone_probabilities: (N, 6); NaN from a model that writes no report, and where masks were given.
        guidance: where the reports came from; None where masks were given.
        quality: the Dice that the model expects of each mask, (N,); NaN where masks were given.
        reliability: of the pixels' probabilities; None where masks were given.
        finding_threshold: the likeliest zone's probability above which an image is said to have a finding;
            0.5 where masks were given.
    """

    cases: Sequence[Case]
    counts: Counts
    zone_probabilities: NDArray[np.float64]
    guidance: Guidance | None
    quality: NDArray[np.float64]
    reliability: Reliability | None
    finding_threshold: float

    @property
    def patients(self) -> list[str]:
        """The patient of each case: whom intervals draw."""
        return [case.patient for case in self.cases]

    @property
    def finding_probabilities(self) -> NDArray[np.float64]:
        """The likeliest zone's probability in each case, (N,); NaN as in `zone_probabilities`."""
        likeliest: NDArray[np.float64] = self.zone_probabilities.max(1)
        return likeliest

    @property
    def findings(self) -> NDArray[np.bool_]:
        """Which cases are said to have a finding, (N,) bool; none where zone probabilities are NaN."""
        return self.finding_probabilities > self.finding_threshold

    @property
    def reported(self) -> NDArray[np.bool_]:
        """For which cases both the model's zones and the true ones are known, (N,) bool."""
        known = np.array([case.zones is not None for case in self.cases])
        return known & ~np.isnan(self.zone_probabilities).any(1)

    @property
    def zones_pred(self) -> NDArray[np.bool_]:
        """Zones of the model's own report, (M, 6), for the M cases that are `reported`."""
        return self.zone_probabilities[self.reported] > 0.5

    @property
    def zones_true(self) -> NDArray[np.bool_]:
        """Zones of the true report, (M, 6), for the M cases that are `reported`."""
        chosen = (case.zones for case, has in zip(self.cases, self.reported, strict=True) if has)
        return np.array([zones.vector for zones in chosen if zones is not None], dtype=bool).reshape(-1, 6)

    @property
    def wrong_zones(self) -> NDArray[np.int64]:
        """How many zones the model's own report has wrong, (M,), for the M cases that are `reported`."""
        wrong: NDArray[np.int64] = (self.zones_pred != self.zones_true).sum(1)
        return wrong

    @property
    def name(self) -> str:
        """Of the guidance, in tables and documents."""
        return GIVEN if self.guidance is None else self.guidance.value

    def summary(self) -> dict[str, Any]:
        """All scores, each with its 95 % interval over patients: {name: {"value", "low", "high"}}."""
        patients = self.patients
        mask = {"pooled": pooled(self.counts), "per_image": per_image(self.counts)}
        scores: dict[str, Any] = {
            kind: {name: interval(score, patients) for name, score in values._asdict().items()}
            for kind, values in mask.items()
        }
        scores["images_with_a_lesion_predicted"] = interval(lesion_rate(self.counts), patients)
        if self.reported.any():
            zones: ZoneScores = zone_scores(self.zones_pred, self.zones_true)
            known = [patient for patient, has in zip(patients, self.reported, strict=True) if has]
            named = {k: v for k, v in zones._asdict().items() if k != "per_zone"}
            scores["zones"] = {name: interval(score, known) for name, score in named.items()}
            texts = text_scores(self.zones_pred, self.zones_true)
            scores["text"] = {name: interval(score, known) for name, score in texts.items()}
        return scores

    def per_case(self) -> list[dict[str, Any]]:
        """Name, patient, Dice and pixel counts of every case: what `sgseg.evaluation.compare` reads."""
        dice = per_image_dice(self.counts)
        pixels = vars(self.counts)
        return [
            {"name": case.name, "patient": case.patient, "dice": float(dice[i])}
            | {kind: int(values[i]) for kind, values in pixels.items()}
            for i, case in enumerate(self.cases)
        ]


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
    tallies = [_Tally() for _ in guidances]
    zones: list[NDArray[np.float32]] = []
    for batch in _batched(cases):
        xrays = [read(case.image, force=True) for case in batch]  # every case counts
        truths = [load_mask(case, _shape(xray)) for case, xray in zip(batch, xrays, strict=True)]
        encoded = predictor.encode(xrays)
        zones.append(encoded.zones)
        for tally, guidance in zip(tallies, guidances, strict=True):
            predictions = predictor.decode(xrays, encoded, guidance, _reports(batch, guidance))
            for prediction, truth in zip(predictions, truths, strict=True):
                tally.add(prediction, truth)
        for _ in batch:
            progress()
    probabilities = np.concatenate(zones).astype(np.float64)
    above = predictor.runtime.finding_threshold
    return [
        Evaluation(cases, Counts.stack(t.counts), probabilities, g, np.array(t.quality), t.reliability, above)
        for t, g in zip(tallies, guidances, strict=True)
    ]


class _Tally:
    """What is kept of the predictions under one guidance."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int, int, int]] = []
        self.quality: list[float] = []
        self.reliability: Reliability | None = None

    def add(self, prediction: Prediction, truth: NDArray[np.bool_]) -> None:
        self.counts.append(count(prediction.mask, truth))
        self.quality.append(1 - prediction.uncertainty)
        pixels = Reliability.of(prediction.probability, truth)
        self.reliability = pixels if self.reliability is None else self.reliability + pixels


def picture(predictor: Predictor, evaluation: Evaluation) -> Image.Image:
    """Best, median and worst case, side by side."""
    guidance = evaluation.guidance or predictor.runtime.guidance

    def row(label: str, case: Case) -> SheetRow:
        xray = read(case.image, force=True)
        prediction = predictor.predict_batch([xray], guidance, _reports([case], guidance))[0]
        return sheet_row(label, prediction, load_mask(case, _shape(xray)))

    return exemplar_sheet(evaluation, f"{predictor.runtime.identity.name}, guidance {guidance.value}", row)


def exemplar_sheet(evaluation: Evaluation, name: str, row: Callable[[str, Case], SheetRow]) -> Image.Image:
    """A sheet of the best, the median and the worst case of whatever is named."""
    chosen = exemplars(per_image_dice(evaluation.counts)).items()
    cases = evaluation.cases
    rows = [row(f"{label}: {cases[position].name}", cases[position]) for label, position in chosen]
    return contact_sheet(rows, f"Best, median and worst: {name}, {len(cases)} cases")


def sheet_row(label: str, prediction: Prediction, truth: NDArray[np.bool_]) -> SheetRow:
    """A prediction beside the truth, for a contact sheet."""
    zones, report = prediction.zone_probabilities, prediction.report
    return hung_row(label, prediction.xray, truth, prediction.mask, zones, report)


def hung_row(
    label: str,
    xray: ChestXray,
    truth: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    zones: Sequence[float],
    report: str,
) -> SheetRow:
    """A row as a `SheetRow` describes it, of masks in the file's own rows and columns."""
    hung, dice = xray.hanging.hung, image_dice(mask, truth)
    return SheetRow(
        label, hung(xray.pixels), hung(truth), hung(mask), zones, report, dice, sides=xray.has_sides
    )


def _batched(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    return (cases[i : i + _BATCH] for i in range(0, len(cases), _BATCH))


def _reports(cases: Sequence[Case], guidance: Guidance) -> list[Any] | None:
    return [case.zones for case in cases] if guidance is Guidance.TEXT else None


def _shape(xray: ChestXray) -> tuple[int, int]:
    height, width = xray.pixels.shape
    return height, width
