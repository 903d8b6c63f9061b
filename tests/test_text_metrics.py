"""BLEU, ROUGE-L and METEOR of reports: known answers, other libraries, and what holds at the ends."""

from __future__ import annotations

import builtins
from math import exp

import numpy as np
import pytest

from sgseg.anatomy import Laterality, ZoneSet
from sgseg.evaluation import text
from sgseg.evaluation.intervals import Resampled, bootstrap
from sgseg.evaluation.text import METEOR, text_scores
from sgseg.reports import write

LOWER_LEFT, LOWER_BOTH, ALL, HEALTHY = ZoneSet(4), ZoneSet(4 + 32), ZoneSet(63), ZoneSet(0)


def zones(*sets: ZoneSet) -> np.ndarray:
    return np.array([zoneset.vector for zoneset in sets], dtype=bool)


def value(score: Resampled) -> float:
    return float(score.of(score.summands.sum(0)))


def values(predicted: list[ZoneSet], true: list[ZoneSet]) -> dict[str, float]:
    scores = text_scores(zones(*predicted), zones(*true))
    return {name: value(score) for name, score in scores.items()}


def random_zones(n: int) -> list[ZoneSet]:
    return [ZoneSet(int(i)) for i in np.random.default_rng(0).integers(0, 64, n)]


def sentences(sets: list[ZoneSet]) -> list[str]:
    return [write(zoneset, Laterality.IMAGE) for zoneset in sets]


def test_by_hand() -> None:
    """unilateral pulmonary infection, one infected area, lower left lung.                       (9 words)
    bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.     (13 words)
    """
    scores = values([LOWER_LEFT], [LOWER_BOTH])
    brevity = exp(1 - 13 / 9)
    # Right: "pulmonary", "infection,", "infected", "lower", "left"; but "lung" is not "lung.": 5 + 1, since
    # the true report ends in "lung." too. Pairs: "pulmonary infection,", "lower left".
    assert scores["BLEU-1"] == pytest.approx(brevity * 6 / 9)
    assert scores["BLEU-2"] == pytest.approx(brevity * (6 / 9 * 2 / 8) ** (1 / 2))
    assert scores["BLEU-3"] == scores["BLEU-4"] == 0
    # In order: pulmonary infection infected lower left lung.
    assert scores["ROUGE-L"] == pytest.approx(2 * 6 / (9 + 13))


def test_right_reports_score_one_and_short_ones_are_not_punished() -> None:
    for name, score in values([LOWER_LEFT, HEALTHY, ALL], [LOWER_LEFT, HEALTHY, ALL]).items():
        assert score == pytest.approx(1, abs=0.02 if name == METEOR else 1e-12), name
    assert values([HEALTHY], [HEALTHY])["BLEU-4"] == 1


def test_what_has_no_word_in_common_scores_almost_nothing() -> None:
    scores = values([HEALTHY], [ALL])
    assert scores["BLEU-1"] == 0
    assert scores["ROUGE-L"] == pytest.approx(2 / (2 + 17))  # "infection"


def test_bleu_pools_the_split() -> None:
    apart = [values([a], [b])["BLEU-4"] for a, b in ((LOWER_LEFT, LOWER_LEFT), (LOWER_LEFT, LOWER_BOTH))]
    together = values([LOWER_LEFT, LOWER_LEFT], [LOWER_LEFT, LOWER_BOTH])["BLEU-4"]
    assert apart == [1, 0]
    assert together not in (pytest.approx(0), pytest.approx(0.5), pytest.approx(1))


def test_bleu_and_rouge_equal_the_library_of_the_authors() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.text")
    predicted, true = random_zones(40), random_zones(80)[40:]
    scores = values(predicted, true)
    ours, theirs = sentences(predicted), sentences(true)
    for n in (1, 2, 3, 4):
        bleu = torchmetrics.BLEUScore(n_gram=n)(ours, [[report] for report in theirs])
        assert scores[f"BLEU-{n}"] == pytest.approx(float(bleu), abs=1e-6)
    try:
        rouge = torchmetrics.ROUGEScore(rouge_keys="rougeL")(ours, theirs)
    except ModuleNotFoundError:
        pytest.skip("torchmetrics' ROUGE needs nltk")
    assert scores["ROUGE-L"] == pytest.approx(float(rouge["rougeL_fmeasure"]), abs=1e-6)


def test_bleu_equals_nltk() -> None:
    bleu_score = pytest.importorskip("nltk.translate.bleu_score")
    predicted, true = random_zones(30), random_zones(60)[30:]
    reports = [[report.split()] for report in sentences(true)], [r.split() for r in sentences(predicted)]
    for n in (1, 2, 3, 4):
        expected = bleu_score.corpus_bleu(*reports, weights=[1 / n] * n)
        assert values(predicted, true)[f"BLEU-{n}"] == pytest.approx(expected, abs=1e-3)


def test_meteor_needs_no_download() -> None:
    pytest.importorskip("nltk")
    score = values([LOWER_LEFT], [LOWER_BOTH])[METEOR]
    # Of 12 and 16 words and marks 10 match, "area" by its stem, in 5 pieces, because NLTK matches from the
    # end: pulmonary infection , | infected area(s) , | lower | left | lung .
    precision, recall = 10 / 12, 10 / 16
    mean = 10 * precision * recall / (recall + 9 * precision)
    assert score == pytest.approx(mean * (1 - 0.5 * (5 / 10) ** 3))


def test_without_nltk_meteor_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    missing = text._missing_extra()
    assert "sgseg[metrics]" in str(missing)
    monkeypatch.setattr(text, "MISSING_EXTRA", missing)
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        assert not name.startswith("nltk"), "imported all the same"
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert set(values([LOWER_LEFT], [ALL])) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"}


def test_every_score_has_an_interval_around_it() -> None:
    predicted = random_zones(40)
    true = [ZoneSet(zoneset.index ^ (i % 3 == 0)) for i, zoneset in enumerate(predicted)]
    patients = [str(i // 2) for i in range(40)]
    for name, score in text_scores(zones(*predicted), zones(*true)).items():
        low, high = bootstrap(score, patients, resamples=200)
        assert 0 < low < value(score) < high <= 1, name
