"""Is one system better than another? A paired comparison of two evaluations of the same cases.

What is resampled and exchanged is always a patient with all their images, because images of one patient
resemble each other. The p-value is that of a permutation test: if the two systems were equally good, it would
not matter which of them segmented a patient, so their results are exchanged for patients drawn at random, and
p says how often that gives a difference as large as the one observed. (For a mean over images, that is to
flip the sign of each patient's difference.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgseg.errors import DataError
from sgseg.evaluation.intervals import bootstrap, group_sums
from sgseg.evaluation.metrics import Counts, Score, per_image, pooled

_KINDS = ("tp", "fp", "fn", "tn")
_WRITER = "sgseg evaluate --json"
_PERMUTATIONS = 10_000
_CHUNK = 500  # permutations at once: 16 MB for the 4,000 patients of a large data set
_SHOWN = 3


@dataclass(frozen=True)
class Scored:
    """One system's results, as `sgseg evaluate --json` writes them.

    Attributes:
        name: file and guidance.
        split: of the data set.
        names: of the N cases.
        patients: of the cases.
        counts: pixels of each case.
    """

    name: str
    split: str
    names: list[str]
    patients: list[str]
    counts: Counts


class Difference:
    """A score of A minus the same score of B, over N images.

    Attributes:
        summands: (N, 4) float64: numerator and denominator of A, then of B.
    """

    def __init__(self, a: Score, b: Score) -> None:
        self._summands = np.concatenate([a.summands, b.summands], axis=1)
        self._ratio = a.of

    @property
    def summands(self) -> NDArray[np.float64]:
        return self._summands

    def of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The difference for other sums of such summands: (..., 4) -> (...)."""
        return self._ratio(sums[..., :2]) - self._ratio(sums[..., 2:])


class Compared(NamedTuple):
    """One score of two systems.

    Attributes:
        a, b: the score of each.
        difference: a - b.
        low, high: its 95 % interval over patients.
        p: how probable a difference as large is if there is none; two-sided.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float


class Comparison(NamedTuple):
    """Two systems on the same cases.

    Attributes:
        a, b: their names.
        split: of the data set.
        cases, patients: how many there were.
        scores: what was compared, by name.
    """

    a: str
    b: str
    split: str
    cases: int
    patients: int
    scores: dict[str, Compared]

    def document(self) -> dict[str, Any]:
        """For a JSON file."""
        scores = {name: score._asdict() for name, score in self.scores.items()}
        return {**self._asdict(), "scores": scores}


def read_evaluation(path: Path, guidance: str | None = None) -> Scored:
    """Reads one system's results.

    Args:
        path: of a file that `sgseg evaluate --json` wrote.
        guidance: which of the file's; may be left out where it has only one.

    Raises:
        DataError: the file is missing or something else, has no such guidance, or has several and none is
            named.
    """
    by_guidance = _all(path)
    known = ", ".join(by_guidance)
    if guidance is None and len(by_guidance) > 1:
        raise DataError(
            f"{path} has several guidances; name one as {path}:GUIDANCE or by --guidance: {known}"
        )
    if guidance is not None and guidance not in by_guidance:
        raise DataError(f"{path} has no guidance {guidance!r}; it has {known}")
    return by_guidance[guidance or known]


def compare(a: Scored, b: Scored, seed: int = 0) -> Comparison:
    """Compares pooled and per-image Dice of two systems, patient by patient.

    Args:
        a, b: results on the same cases, in any order.
        seed: of resampling and permutation.

    Raises:
        DataError: the two were scored on different splits, cases, patients or true masks.
    """
    b = _aligned(a, b)
    scores = {}
    for name, score in (("pooled Dice", pooled), ("per-image Dice", per_image)):
        of_a, of_b = score(a.counts).dice, score(b.counts).dice
        difference = Difference(of_a, of_b)
        low, high = bootstrap(difference, a.patients, seed)
        p = permutation_p(difference, a.patients, seed)
        scores[name] = Compared(float(of_a), float(of_b), of_a - of_b, low, high, p)
    return Comparison(a.name, b.name, a.split, len(a.names), len(set(a.patients)), scores)


def permutation_p(
    difference: Difference, groups: Sequence[str], seed: int = 0, permutations: int = _PERMUTATIONS
) -> float:
    """Two-sided p-value of the exchange of both systems' results, patient by patient.

    The observed assignment counts as one of the permutations, so that p is never 0 (Phipson and Smyth 2010).

    Args:
        difference: of two systems over N images.
        groups: the patient of each image, N names.
        seed: of the draws.
        permutations: how many to draw.
    """
    sums = group_sums(difference, groups)
    total, exchange = sums.sum(0), sums[:, [2, 3, 0, 1]] - sums
    observed = abs(difference.of(total)) - 1e-12  # ties must count, whatever the order of summation
    random = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, permutations, _CHUNK):
        exchanged = random.random((min(_CHUNK, permutations - start), len(sums))) < 0.5
        drawn = difference.of(total + exchanged.astype(np.float64) @ exchange)
        extreme += int(np.count_nonzero(np.abs(drawn) >= observed))
    return (1 + extreme) / (1 + permutations)


def _all(path: Path) -> dict[str, Scored]:
    """What a file has, by guidance; at least one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        split, by_guidance = document["data"]["split"], document["guidance"]
        if not by_guidance:
            raise ValueError("no guidance")
        return {name: _scored(f"{path}:{name}", split, by_guidance[name]["cases"]) for name in by_guidance}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a file of {_WRITER}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not hold the pixel counts of each case; write it again with {_WRITER}"
        ) from error


def _scored(name: str, split: str, cases: list[dict[str, Any]]) -> Scored:
    names, patients = ([str(case[key]) for case in cases] for key in ("name", "patient"))
    counts = Counts.stack([(case["tp"], case["fp"], case["fn"], case["tn"]) for case in cases])
    return Scored(name, split, names, patients, counts)


def _aligned(a: Scored, b: Scored) -> Scored:
    """B's cases in the order of A's."""
    if a.split != b.split:
        raise DataError(
            f"{a.name} is of the split {a.split!r}, {b.name} of {b.split!r}; evaluate both on one"
        )
    for first, second in ((a, b), (b, a)):
        known = set(second.names)
        _refuse(
            [name for name in first.names if name not in known],
            f"cases of {first.name} are not in {second.name}",
        )
    place = {name: i for i, name in enumerate(b.names)}
    order = [place[name] for name in a.names]
    counts = Counts(*(getattr(b.counts, kind)[order] for kind in _KINDS))
    patients = [b.patients[i] for i in order]
    same_truth = (counts.lesion == a.counts.lesion) & (counts.size == a.counts.size)
    for what, same in (("patients", np.equal(a.patients, patients)), ("true masks", same_truth)):
        differ = [name for name, equal in zip(a.names, same, strict=True) if not equal]
        _refuse(differ, f"cases have other {what} in {a.name} than in {b.name}")
    return Scored(b.name, b.split, a.names, patients, counts)


def _refuse(names: Sequence[str], why: str) -> None:
    if names:
        some = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        raise DataError(f"{len(names):,} {why} ({some}); evaluate both on the same data")
