"""Where a model errs, whether it knows, and what a perfect report would give: more than one number.

Everything follows from evaluations of the same cases; no image is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgseg.anatomy import ZONES, Laterality
from sgseg.errors import DataError
from sgseg.evaluation.compare import Difference
from sgseg.evaluation.examine import Evaluation
from sgseg.evaluation.intervals import interval
from sgseg.evaluation.metrics import Counts, Score, per_image, per_image_dice, pooled
from sgseg.reports import Guidance

_SIZES = (0.0, 0.01, 0.03, 0.1, 0.2, 1.0)
_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
_WORST = 10
_RESAMPLES = 1000


class Kept(NamedTuple):
    """What is left when the images of which the model expects least go to a person.

    Attributes:
        coverage: share of the images kept.
        pooled_dice, per_image_dice: of those.
        quality: the least that was expected of an image that is kept.
    """

    coverage: float
    pooled_dice: float
    per_image_dice: float
    quality: float


def analyse(evaluations: Sequence[Evaluation], negatives: Evaluation | None = None) -> dict[str, Any]:
    """A document for a page or a JSON file.

    Args:
        evaluations: of a model on the same cases, under several guidances; the first is what is analysed, and
            one under the true report tells what a perfect report would give.
        negatives: of X-rays without a finding, under the first guidance.

    Raises:
        DataError: the first evaluation is of masks, whose probabilities are not known.
    """
    first = evaluations[0]
    if first.reliability is None:
        raise DataError("masks without probabilities cannot be analysed; give a model")
    document = {
        "guidance": first.name,
        "cases": len(first.cases),
        "scores": {e.name: _scores(e.counts, e.patients) for e in evaluations},
        "perfect_report": _perfect_report(evaluations),
        "groups": {
            name: [{"group": label, **_group(first, chosen)} for label, chosen in parts if chosen.any()]
            for name, parts in _groups(first).items()
        },
        "calibration": {
            "ece": first.reliability.ece(),
            "log_loss": first.reliability.log_loss(),
            "best_temperature": first.reliability.temperature(),
            "curve": [point._asdict() for point in first.reliability.curve()],
        },
        "quality": _quality(first),
        "worst": [_described(first, i) for i in np.argsort(per_image_dice(first.counts))[:_WORST]],
    }
    return document if negatives is None else {**document, "detection": _detection(first, negatives)}


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's, of N pairs; NaN where all values of one kind are equal."""
    if min(np.ptp(a), np.ptp(b)) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def keep(evaluation: Evaluation, coverage: float) -> Kept:
    """Scores of the share of the images of which the model expects most."""
    order = np.argsort(-evaluation.quality, kind="stable")[: max(1, round(coverage * len(evaluation.cases)))]
    counts = evaluation.counts.of(order)
    return Kept(
        coverage,
        float(pooled(counts).dice),
        float(per_image(counts).dice),
        float(evaluation.quality[order].min()),
    )


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Of the receiver operating characteristic: how often a positive ranks above a negative, ties half."""
    ranks = _ranks(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks


def _scores(counts: Counts, patients: Sequence[str]) -> dict[str, dict[str, float]]:
    return {
        "pooled_dice": interval(pooled(counts).dice, patients),
        "per_image_dice": interval(per_image(counts).dice, patients),
    }


def _perfect_report(evaluations: Sequence[Evaluation]) -> dict[str, float] | None:
    """What is gained in pooled Dice where the true report guides; None if that was not examined."""
    given = [e for e in evaluations[1:] if e.guidance is Guidance.TEXT]
    if not given:
        return None
    gain = Difference(pooled(given[0].counts).dice, pooled(evaluations[0].counts).dice)
    return interval(gain, evaluations[0].patients)


# --- groups


def _groups(evaluation: Evaluation) -> dict[str, list[tuple[str, NDArray[np.bool_]]]]:
    """Ways to divide the cases: label and members, (N,) bool, of each part."""
    cases = evaluation.cases
    share = evaluation.counts.lesion / evaluation.counts.size
    named = np.array([case.zones.vector if case.zones else (0,) * 6 for case in cases], dtype=bool)
    groups = {
        "lesion, share of the image": [
            ("none", share == 0),
            *(
                (f"{low:.0%} to {high:.0%}", (share > low) & (share <= high))
                for low, high in pairwise(_SIZES)
            ),
        ],
        "zone named by the true report (left and right of the image)": [
            (zone.name(Laterality.IMAGE), named[:, zone.position]) for zone in ZONES
        ],
        "zones named by the true report": [(str(n), named.sum(1) == n) for n in range(1, len(ZONES) + 1)],
        "view": _by(lambda i: cases[i].view, len(cases)),
        "source": _by(lambda i: cases[i].source, len(cases)),
    }
    if evaluation.reported.any():
        wrong = np.full(len(cases), -1)
        wrong[evaluation.reported] = evaluation.wrong_zones
        groups["zones that the model's own report has wrong"] = [
            *((str(n), wrong == n) for n in range(3)),
            ("3 and more", wrong >= 3),
        ]
    return groups


def _by(label: Callable[[int], str], n: int) -> list[tuple[str, NDArray[np.bool_]]]:
    labels = np.array([label(i) or "not told" for i in range(n)])
    return [(name, labels == name) for name in np.unique(labels)]


def _group(evaluation: Evaluation, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    counts = evaluation.counts.of(np.flatnonzero(chosen))
    patients = [case.patient for case, has in zip(evaluation.cases, chosen, strict=True) if has]
    return {
        "cases": len(counts),
        **_scores(counts, patients),
        "recall": float(Score(counts.tp, counts.lesion)),
        "precision": float(Score(counts.tp, counts.tp + counts.fp)),
    }


# --- does the model know?


def _quality(evaluation: Evaluation) -> dict[str, Any]:
    """How well the Dice that the model expects goes with the real one, and what rejecting buys."""
    dice = per_image_dice(evaluation.counts)
    value = rank_correlation(evaluation.quality, dice)
    correlation = None  # of a single image, or of images all alike
    if not np.isnan(value):
        low, high = np.nanquantile(_draws(evaluation, dice), [0.025, 0.975])
        correlation = {"value": value, "low": float(low), "high": float(high)}
    return {
        "rank_correlation": correlation,
        "mean_expected_dice": float(evaluation.quality.mean()),
        "mean_absolute_error": float(np.abs(evaluation.quality - dice).mean()),
        "kept": [keep(evaluation, coverage)._asdict() for coverage in _COVERAGES],
    }


def _draws(evaluation: Evaluation, dice: NDArray[np.float64]) -> list[float]:
    """Rank correlations of patients drawn with replacement, as in `intervals.bootstrap`."""
    groups = _members(evaluation.patients)
    random = np.random.default_rng(0)
    draws = (
        np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))])
        for _ in range(_RESAMPLES)
    )
    return [rank_correlation(evaluation.quality[drawn], dice[drawn]) for drawn in draws]


def _members(patients: Sequence[str]) -> list[NDArray[np.int64]]:
    """The positions of each patient's images."""
    _, which = np.unique(patients, return_inverse=True)
    return np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])


def _detection(positive: Evaluation, negative: Evaluation) -> dict[str, Any]:
    """Images with a lesion against images without: by the mask, by the report, and by the finding."""
    mask = {
        "sensitivity": _rate(positive, positive.counts.tp + positive.counts.fp > 0),
        "false_positive_rate": _rate(negative, negative.counts.tp + negative.counts.fp > 0),
    }
    document: dict[str, Any] = {"positives": len(positive.cases), "negatives": len(negative.cases)}
    document["any pixel in the mask"] = mask
    likeliest = positive.finding_probabilities, negative.finding_probabilities
    if not np.isnan(likeliest[0]).any():
        document["any zone in the report"] = {
            "sensitivity": _rate(positive, likeliest[0] > 0.5),
            "false_positive_rate": _rate(negative, likeliest[1] > 0.5),
            "area_under_curve": area_under_curve(*likeliest),
        }
        document["the finding decision"] = {
            "threshold": positive.finding_threshold,
            "sensitivity": _rate(positive, positive.findings),
            "false_positive_rate": _rate(negative, negative.findings),
        }
        document["specificity_of_uninvolved_zones"] = _uninvolved(positive)
    return document


def _uninvolved(evaluation: Evaluation) -> dict[str, float]:
    """Of the zones that true reports do not name, the share that the model's do not name either.

    Both kinds of zone are on the same X-ray, so no difference between sources helps the model.
    """
    spared = ~evaluation.zones_true
    patients = [p for p, has in zip(evaluation.patients, evaluation.reported, strict=True) if has]
    return interval(Score((spared & ~evaluation.zones_pred).sum(1), spared.sum(1)), patients)


def _rate(evaluation: Evaluation, flags: NDArray[np.bool_]) -> dict[str, float]:
    return interval(Score(flags), evaluation.patients)


def _described(evaluation: Evaluation, i: int) -> Mapping[str, Any]:
    """What the numbers tell of one case."""
    case, counts = evaluation.cases[i], evaluation.counts
    size = int(counts.size[i])
    own = evaluation.zone_probabilities[i] > 0.5
    return {
        "name": case.name,
        "dice": float(per_image_dice(counts)[i]),
        "expected_dice": float(evaluation.quality[i]),
        "lesion": float(counts.lesion[i]) / size,
        "found": float(counts.tp[i]) / size,
        "false": float(counts.fp[i]) / size,
        "true_zones": None if case.zones is None else [z.name(Laterality.IMAGE) for z in case.zones],
        "own_zones": [zone.name(Laterality.IMAGE) for zone in ZONES if own[zone.position]],
    }
