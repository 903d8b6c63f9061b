"""Scores of the wording of reports: BLEU, ROUGE-L and METEOR, as in the authors' released evaluation.

A report is one of 64 sentences, so these scores say nothing that the zones do not say, and they are high for
any of the sentences: "all six zones" for every image of QaTa-COV19's `valid` has BLEU-1 0.69 and METEOR 0.88,
with half of the zones right. They are here to be put beside published numbers. As with the authors
(torchmetrics for BLEU and ROUGE-L, NLTK for METEOR):

    BLEU-1 … 4             of the split as a whole, words divided at blanks, not smoothed
    ROUGE-L                mean over reports of the F1 of the longest common subsequence, marks left out
    METEOR (exact + stem)  mean over reports; marks are tokens

METEOR is NLTK's with the Porter stemmer, but without WordNet's synonyms, which would be a download: hence
its name. The authors gave it the tokens of a BERT with [CLS] and [SEP], which match always; here are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from re import findall

import numpy as np
from numpy.typing import NDArray

from sgseg.anatomy import Laterality, ZoneSet
from sgseg.errors import MissingExtraError
from sgseg.evaluation.intervals import Resampled
from sgseg.evaluation.metrics import Score
from sgseg.reports import write

METEOR = "METEOR (exact + stem)"

_ORDERS = (1, 2, 3, 4)


def _missing_extra() -> MissingExtraError | None:
    return None if find_spec("nltk") else MissingExtraError(METEOR, "metrics")


MISSING_EXTRA = _missing_extra()
"""What `text_scores` leaves out, and which extra brings it; None if nothing is left out."""


class Bleu:
    """BLEU-n of N reports, and the summands it is made of.

    Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002: the
    geometric mean of the precisions of 1- to n-grams, pooled over all reports, times the brevity penalty. It
    is 0 if no n-gram is right; an order of which no report is long enough to have one does not count.

    Attributes:
        order: n.
        summands: (N, 10) float64: right and all predicted n-grams, n = 1…4 in turn; lengths of the predicted
            and of the true report.
    """

    def __init__(self, order: int, summands: NDArray[np.float64]) -> None:
        self.order, self._summands = order, summands

    @property
    def summands(self) -> NDArray[np.float64]:
        return self._summands

    def of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """BLEU of other sums of such summands: (..., 10) -> (...)."""
        right, all_, lengths = sums[..., :8:2], sums[..., 1:8:2], sums[..., 8:]
        with np.errstate(divide="ignore"):
            logs = np.log(np.divide(right, all_, out=np.ones_like(right), where=all_ > 0))
        brevity = np.minimum(0, 1 - lengths[..., 1] / np.maximum(lengths[..., 0], 1))
        return np.asarray(np.exp(logs[..., : self.order].mean(-1) + brevity))


def text_scores(zones_pred: NDArray[np.bool_], zones_true: NDArray[np.bool_]) -> dict[str, Resampled]:
    """Scores of N predicted reports against the true ones, both in the wording of the data set's captions.

    Args:
        zones_pred: the zones named, (N, 6) bool, N ≥ 1.
        zones_true: the zones infected, (N, 6) bool.

    Returns:
        Scores in [0, 1] by name; without METEOR where NLTK is not installed (`MISSING_EXTRA`).
    """
    pairs = list(zip(_reports(zones_pred), _reports(zones_true), strict=True))
    ngrams = np.array([_ngrams(*pair) for pair in pairs], dtype=np.float64)
    scores: dict[str, Resampled] = {f"BLEU-{n}": Bleu(n, ngrams) for n in _ORDERS}
    scores["ROUGE-L"] = Score(np.array([_rouge_l(*pair) for pair in pairs]))
    if MISSING_EXTRA is None:
        meteor = _meteor()
        scores[METEOR] = Score(np.array([meteor(*pair) for pair in pairs]))
    return scores


def _reports(zones: NDArray[np.bool_]) -> Iterable[str]:
    return (write(ZoneSet.from_vector(row), Laterality.IMAGE) for row in zones.tolist())


@cache
def _ngrams(predicted: str, true: str) -> tuple[int, ...]:
    """The summands of BLEU of one report: see `Bleu`."""
    ours, theirs = predicted.split(), true.split()
    counts: list[int] = []
    for n in _ORDERS:
        said, wanted = _grams(ours, n), _grams(theirs, n)
        counts += [(said & wanted).total(), said.total()]
    return *counts, len(ours), len(theirs)


def _grams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


@cache
def _rouge_l(predicted: str, true: str) -> float:
    """F1 of the longest common subsequence (Lin, "ROUGE", 2004)."""
    ours, theirs = findall(r"\w+", predicted), findall(r"\w+", true)
    longest = [0] * (len(theirs) + 1)
    for word in ours:
        before = longest.copy()
        for j, other in enumerate(theirs, 1):
            longest[j] = before[j - 1] + 1 if word == other else max(before[j], longest[j - 1])
    return 2 * longest[-1] / (len(ours) + len(theirs))


class _NoSynonyms:
    """Stands in for WordNet."""

    def synsets(self, word: str) -> list[object]:
        return []


@cache
def _meteor() -> Callable[[str, str], float]:
    from nltk.translate.meteor_score import single_meteor_score

    @cache
    def meteor(predicted: str, true: str) -> float:
        ours, theirs = (findall(r"\w+|[^\w\s]", report) for report in (predicted, true))
        return float(single_meteor_score(theirs, ours, wordnet=_NoSynonyms()))

    return meteor
