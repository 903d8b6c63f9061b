"""`Prediction`: what comes out for one X-ray."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgseg.anatomy import ZONES, Laterality, Zone, ZoneSet
from sgseg.errors import NotApplicableError
from sgseg.imaging import ChestXray, restore
from sgseg.inference.runtime import FINDING_THRESHOLD, Identity
from sgseg.reports import Guidance, write


@dataclass(frozen=True, eq=False)
class Prediction:
    """The lesion of one X-ray, and the report that goes with it.

    `mask`, `report` and `finding` are three answers, and none changes another. Where there is no finding the
    mask is not emptied: scores of masks are of the masks as they are. A report names a zone above 0.5, a
    finding has the threshold that was chosen for it, so one can be there without the other.

    Attributes:
        xray: what was looked at; its `against` also says so if the model has seen nothing like it.
        probability: of a lesion, (H, W) float32 at the X-ray's own size.
        threshold: above which a pixel belongs to the mask.
        zone_probabilities: six, in the order of `anatomy.ZONES`, as the model reads the image; NaN if it
            writes no report.
        zones: the zones of the report: the user's if `guidance` is TEXT, else the model's own; None if it
            writes none.
        guidance: where the report that guided the mask came from.
        model: which model it was.
        seconds: spent on this X-ray, its share of a batch.
        attention: where the model looked for each zone, (6, h, w) float32 on a grid over the network's
            square; each map sums to 1. None from a model without such maps.
        finding_threshold: the likeliest zone's probability above which the image is said to have a finding.
    """

    xray: ChestXray
    probability: NDArray[np.float32]
    threshold: float
    zone_probabilities: tuple[float, ...]
    zones: ZoneSet | None
    guidance: Guidance
    model: Identity
    seconds: float
    attention: NDArray[np.float32] | None = None
    finding_threshold: float = FINDING_THRESHOLD

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The lesion, (H, W) bool."""
        return self.probability > self.threshold

    @property
    def finding_probability(self) -> float:
        """The likeliest zone's probability, 0…1, as the model reads the image; NaN if it writes no report."""
        return max(self.zone_probabilities)

    @property
    def finding(self) -> bool | None:
        """Whether the image has a finding at all: `finding_probability` exceeds `finding_threshold`.

        The model's own reading, whatever report guides the mask; None if it writes no report.
        """
        probability = self.finding_probability
        return None if math.isnan(probability) else probability > self.finding_threshold

    @property
    def report(self) -> str:
        """The report in the patient's laterality, as a clinician reads it; empty as in `report_in`."""
        return self.report_in(Laterality.PATIENT)

    def report_in(self, laterality: Laterality) -> str:
        """The report in either laterality; empty if there is none, or if the view has no left and right."""
        return "" if self.zones is None or not self.has_sides else write(self.zones, laterality)

    @property
    def has_sides(self) -> bool:
        """Whether the picture has a left and a right; a lateral view, which can be forced, has not."""
        return self.xray.has_sides

    def applicable(self, name: str, force: bool) -> Prediction:
        """Itself, if it may be used.

        Args:
            name: of the file, for the message.
            force: it may, whatever speaks against its being a frontal chest X-ray.

        Raises:
            NotApplicableError: it may not.
        """
        if self.xray.against and not force:
            raise NotApplicableError(name, self.xray.against)
        return self

    def looked_at(self, zone: Zone | None = None) -> NDArray[np.float32] | None:
        """Where the model looked, at the X-ray's own size.

        Args:
            zone: for which zone; by default for all, their maps weighted by the zones' probabilities.

        Returns:
            (H, W) float32 in the X-ray's own rows and columns: the grid's values, interpolated; zero outside
            the content. None from a model without such maps.
        """
        if self.attention is None:
            return None
        shares = self.zone_probabilities if zone is None else [z == zone for z in ZONES]
        weights = np.array(shares, dtype=np.float32)
        return restore(np.tensordot(weights / weights.sum(), self.attention, 1), self.xray)

    @property
    def uncertainty(self) -> float:
        """How wrong the mask may be by the model's own probabilities, 0…1.

        One minus the Dice that is to be expected if each pixel is lesion with its probability. Of an
        empty mask, the highest probability anywhere: the chance that something was missed.
        """
        mask = self.mask
        if not mask.any():
            return float(self.probability.max())
        area = np.float64(np.count_nonzero(mask))  # ten times as fast as its sum
        expected = 2 * self.probability[mask].sum() / (self.probability.sum() + area)
        return 1 - float(expected)
