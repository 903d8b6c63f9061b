"""`Predictor`: X-rays in, predictions out, whatever plays the model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgseg.anatomy import Laterality, ZoneSet
from sgseg.errors import ReportError
from sgseg.imaging import ChestXray, fit, read, restore
from sgseg.inference.prediction import Prediction
from sgseg.inference.runtime import Encoded, Runtime
from sgseg.reports import NO_REPORT, SOFT_REPORTS, Guidance, likeliest_reports, parse


@dataclass(frozen=True)
class Predictor:
    """Predicts with a runtime.

    Attributes:
        runtime: plays the model.
        threshold: of the mask.
    """

    runtime: Runtime
    threshold: float = 0.5

    def predict(
        self,
        image: str | Path | NDArray[Any] | ChestXray,
        *,
        report: str | ZoneSet | None = None,
        guidance: Guidance | str | None = None,
        laterality: Laterality | str = Laterality.PATIENT,
        force: bool = False,
    ) -> Prediction:
        """Predicts the lesion of one X-ray; no text is needed.

        Args:
            image: a file, pixels (H, W), or an X-ray that was read.
            report: the user's words or zones, to guide instead of the model's own report.
            guidance: `none`, `self` or `self-soft`; by default what was best on the validation split.
            laterality: whose left the words of `report` mean; the patient's unless said otherwise.
            force: predict it even if tags, colours or its looks speak against a frontal chest X-ray.

        Raises:
            NotApplicableError: it is not a frontal chest X-ray.
            ImageError: the image is not a readable X-ray.
            ReportError: the report is not understood, or `guidance` is `text` and there is none.
        """
        zones = parse(report, Laterality(laterality)) if isinstance(report, str) else report
        source = (
            Guidance(guidance) if guidance else Guidance.TEXT if zones is not None else self.runtime.guidance
        )
        if (source is Guidance.TEXT) != (zones is not None):
            raise ReportError(f"guidance {source.value!r} and report {report!r} do not fit; give one of them")
        xray = _xray(image, force)
        prediction = self.predict_batch([xray], source, None if zones is None else [zones])[0]
        name = "the array" if xray.path is None else str(xray.path)
        return prediction.applicable(name, force or xray.against is not None)

    def predict_batch(
        self, xrays: Sequence[ChestXray], guidance: Guidance, zones: Sequence[ZoneSet] | None = None
    ) -> list[Prediction]:
        """Predicts several X-rays at once, whatever speaks against them: `Prediction.applicable` refuses.

        Args:
            xrays: at least one.
            guidance: where the reports come from.
            zones: of the reports, one for each X-ray; for `Guidance.TEXT` only.
        """
        began = time.perf_counter()
        encoded = self.encode(xrays)
        return self.decode(xrays, encoded, guidance, zones, began)

    def encode(self, xrays: Sequence[ChestXray]) -> Encoded:
        """Looks at X-rays once; `decode` can then be asked for several reports."""
        return self.runtime.encode(np.stack([fit(xray, self.runtime.size) for xray in xrays]))

    def decode(
        self,
        xrays: Sequence[ChestXray],
        encoded: Encoded,
        guidance: Guidance,
        zones: Sequence[ZoneSet] | None = None,
        began: float | None = None,
    ) -> list[Prediction]:
        """Predictions of X-rays that were encoded.

        Args:
            xrays: as given to `encode`.
            encoded: what `encode` gave for them.
            guidance: where the reports come from.
            zones: of the reports, one for each X-ray; for `Guidance.TEXT` only.
            began: when the work began, in seconds of `time.perf_counter`; by default now.

        Raises:
            ReportError: `zones` are missing, or the model's own report is asked for and it writes none.
        """
        began = time.perf_counter() if began is None else began
        xrays = _judged(xrays, encoded)
        if guidance is Guidance.TEXT and zones is None:
            raise ReportError("text guidance needs a report for each X-ray")
        if guidance in (Guidance.SELF, Guidance.SELF_SOFT) and not self.runtime.writes_reports:
            raise ReportError(f"{self.runtime.identity.name} writes no report; give one, or guidance none")
        reports: Sequence[ZoneSet | None] = zones or self._own_reports(encoded)
        squares = self._squares(encoded, guidance, [NO_REPORT if z is None else z.index for z in reports])
        probabilities = [restore(square, xray) for square, xray in zip(squares, xrays, strict=True)]
        seconds = (time.perf_counter() - began) / len(xrays)
        maps = [None] * len(xrays) if encoded.attention is None else encoded.attention
        return [
            Prediction(
                xray=xray,
                probability=p,
                threshold=self.threshold,
                zone_probabilities=tuple(map(float, z)),
                zones=report,
                guidance=guidance,
                model=self.runtime.identity,
                seconds=seconds,
                attention=look,
                finding_threshold=self.runtime.finding_threshold,
            )
            for xray, p, z, report, look in zip(
                xrays, probabilities, encoded.zones, reports, maps, strict=True
            )
        ]

    def _own_reports(self, encoded: Encoded) -> list[ZoneSet | None]:
        if not self.runtime.writes_reports:
            return [None] * len(encoded.zones)
        return [ZoneSet.from_vector(row > 0.5) for row in encoded.zones]

    def _squares(self, encoded: Encoded, guidance: Guidance, reports: list[int]) -> NDArray[np.float32]:
        """Lesion probabilities in the network's square, (B, size, size)."""
        n = len(reports)
        if guidance is Guidance.SELF_SOFT:
            indices, weights = likeliest_reports(encoded.zones, SOFT_REPORTS)
            mixed = np.zeros((n, self.runtime.size, self.runtime.size), dtype=np.float32)
            for index, weight in zip(indices.T, weights.T, strict=True):
                mixed += weight[:, None, None] * self.runtime.decode(encoded.features, index)
            return mixed
        chosen = [NO_REPORT] * n if guidance is Guidance.NONE else reports
        return self.runtime.decode(encoded.features, np.array(chosen, dtype=np.int64))


def _xray(image: str | Path | NDArray[Any] | ChestXray, force: bool) -> ChestXray:
    if isinstance(image, ChestXray):
        return image
    return ChestXray.from_array(image) if isinstance(image, np.ndarray) else read(image, force)


def _judged(xrays: Sequence[ChestXray], encoded: Encoded) -> Sequence[ChestXray]:
    """The X-rays; those that the model has seen nothing like say so in `against`."""
    if encoded.strangeness is None:
        return xrays
    reason = "it looks unlike the X-rays that the model knows (distance {:.2f}, limit 1)"
    return [
        replace(xray, against=reason.format(far)) if far > 1 and xray.against is None else xray
        for xray, far in zip(xrays, encoded.strangeness, strict=True)
    ]
