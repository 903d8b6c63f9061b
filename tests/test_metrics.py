"""Scores against hand-computed cases and literal re-implementations; intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from sgseg.evaluation import (
    Counts,
    Score,
    bootstrap,
    count,
    exemplars,
    lesion_rate,
    per_image,
    per_image_dice,
    pooled,
    zone_scores,
)

TRUE = np.array([[1, 1, 0], [0, 0, 0]], dtype=bool)
PRED = np.array([[1, 0, 1], [1, 0, 0]], dtype=bool)
NONE = np.zeros((2, 3), dtype=bool)

MASKS = hnp.arrays(bool, (5, 2, 3, 4))


def counts_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Counts:
    return Counts.stack([count(pred, true) for pred, true in pairs])


def test_counts_by_hand() -> None:
    assert count(PRED, TRUE) == (1, 2, 1, 2)
    counts = counts_of([(PRED, TRUE), (NONE, NONE)])
    assert len(counts) == 2
    assert counts.tn.tolist() == [2, 6]
    assert counts.tp.dtype == np.int64


def test_scores_by_hand() -> None:
    counts = counts_of([(PRED, TRUE), (TRUE, TRUE)])  # Dice 2/5 and 1
    assert pooled(counts) == pytest.approx((9 / 12, 6 / 9, 3 / 6))
    assert per_image(counts) == pytest.approx((9 / 12, (0.4 + 1) / 2, (0.25 + 1) / 2))
    assert per_image_dice(counts) == pytest.approx([0.4, 1])


def test_empty_masks() -> None:
    counts = counts_of([(NONE, NONE), (PRED, NONE), (NONE, TRUE)])
    assert per_image_dice(counts).tolist() == [1, 0, 0]
    assert pooled(counts_of([(NONE, NONE)])) == (1, 1, 1)
    assert lesion_rate(counts) == pytest.approx(1 / 3)


@given(MASKS)
def test_scores_equal_a_literal_reimplementation(masks: np.ndarray) -> None:
    counts = counts_of([(pred, true) for pred, true in masks])
    pred, true = masks[:, 0], masks[:, 1]
    both, either = np.logical_and(pred, true).sum(), np.logical_or(pred, true).sum()
    size = pred.sum() + true.sum()
    assert pooled(counts).accuracy == pytest.approx(np.mean(pred == true))
    assert pooled(counts).dice == pytest.approx(2 * both / size if size else 1)
    assert pooled(counts).jaccard == pytest.approx(both / either if either else 1)
    dice = [2 * (p & t).sum() / (p.sum() + t.sum()) if p.any() or t.any() else 1.0 for p, t in masks]
    assert per_image_dice(counts) == pytest.approx(dice)
    assert per_image(counts).dice == pytest.approx(np.mean(dice))


@given(MASKS)
def test_jaccard_follows_from_dice(masks: np.ndarray) -> None:
    _, dice, jaccard = pooled(counts_of([(pred, true) for pred, true in masks]))
    assert jaccard == pytest.approx(dice / (2 - dice))


def test_bad_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        count(PRED, TRUE.T)
    with pytest.raises(ValueError, match="bool"):
        count(PRED.astype(np.uint8), TRUE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no images"):
        Counts.stack([])


def test_exemplars() -> None:
    assert exemplars(np.array([0.2, 0.9, 0.5])) == {"best": 1, "median": 2, "worst": 0}
    assert exemplars(np.array([0.2])) == {"best": 0, "median": 0, "worst": 0}


def test_zone_scores_by_hand() -> None:
    true = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=bool)
    pred = np.array([[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1]], dtype=bool)
    scores = zone_scores(pred, true)
    assert scores[:5] == pytest.approx((10 / 12, 2 / 3, 2 / 3, 2 / 3, 1 / 2))
    assert scores.per_zone == pytest.approx((1, 0.5, 1, 1, 1, 0.5))


@given(hnp.arrays(bool, (2, 7, 6)))
def test_zone_scores_equal_a_literal_reimplementation(zones: np.ndarray) -> None:
    pred, true = zones
    scores = zone_scores(pred, true)
    hits, named, infected = (pred & true).sum(), pred.sum(), true.sum()
    precision, recall = hits / named if named else 1, hits / infected if infected else 1
    assert scores.per_zone == pytest.approx((pred == true).mean(0))
    assert scores.accuracy == pytest.approx(np.mean(scores.per_zone))
    assert scores.exact == pytest.approx(
        np.mean([p.tolist() == t.tolist() for p, t in zip(pred, true, strict=True)])
    )
    assert (scores.precision, scores.recall) == pytest.approx((precision, recall))
    if named and infected:
        assert scores.f1 == pytest.approx(2 * precision * recall / (precision + recall) if hits else 0)


def test_bad_zones_are_refused() -> None:
    zones = np.zeros((3, 6), dtype=bool)
    for bad in (zones[:, :5], zones[:2], zones.astype(float)):
        with pytest.raises(ValueError, match="zones are"):
            zone_scores(bad, zones)
    with pytest.raises(ValueError, match="zones are"):
        zone_scores(zones[:0], zones[:0])


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    groups = [f"patient {i // 3}" for i in range(150)]
    hits = 0
    for seed in range(200):
        patient = np.repeat(random.normal(0.7, 0.1, 50), 3)  # images of one patient resemble each other
        low, high = bootstrap(Score(patient + random.normal(0, 0.05, 150)), groups, seed, resamples=200)
        hits += low < 0.7 < high
    assert 0.89 <= hits / 200 <= 0.98


def test_interval_is_about_two_standard_errors_wide() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = bootstrap(Score(values), [str(i) for i in range(400)])
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert low < Score(values) < high


def test_intervals_come_from_patients_not_images() -> None:
    values = np.random.default_rng(2).random(50)
    names = [f"patient {i}" for i in range(50)]
    once = bootstrap(Score(values), names)
    copies = Score(np.repeat(values, 100))
    assert bootstrap(copies, [name for name in names for _ in range(100)]) == pytest.approx(once)
    low, high = bootstrap(copies, [str(i) for i in range(5000)])
    assert (high - low) * 8 < once[1] - once[
        0
    ]  # mistaken for 5,000 patients, it would look ten times as sure


def test_one_patient_copied_widens_the_interval() -> None:
    values = np.full(40, 0.8)
    values[0] = 0.2
    names = [str(i) for i in range(40)]
    low, high = bootstrap(Score(values), names)
    copied = bootstrap(Score(np.append(values, [0.2] * 100)), [*names, *["0"] * 100])
    assert copied[1] - copied[0] > 3 * (high - low)


def test_interval_of_every_score() -> None:
    random = np.random.default_rng(3)
    masks = random.random((30, 2, 8, 8)) < 0.4
    zones = random.random((2, 30, 6)) < 0.5
    counts = counts_of([(pred, true) for pred, true in masks])
    reports = zone_scores(*zones)
    for score in (*pooled(counts), *per_image(counts), *reports[:5], *reports.per_zone):
        low, high = bootstrap(score, [str(i // 2) for i in range(30)], resamples=200)
        assert 0 <= low <= score <= high <= 1


def test_pooled_interval_equals_resampling_the_images_themselves() -> None:
    random = np.random.default_rng(4)
    masks = random.random((6, 2, 4, 4)) < 0.5
    groups = np.array(["a", "a", "b", "b", "b", "c"])
    score = pooled(counts_of([(pred, true) for pred, true in masks])).dice
    draws, literal = np.random.default_rng(7), []
    for _ in range(100):
        drawn = [np.array(["a", "b", "c"])[i] for i in draws.integers(3, size=3)]
        chosen = np.concatenate([masks[groups == name] for name in drawn])
        literal.append(pooled(counts_of([(pred, true) for pred, true in chosen])).dice)
    assert bootstrap(score, list(groups), seed=7, resamples=100) == pytest.approx(
        np.quantile(literal, [0.025, 0.975])
    )


def test_bootstrap_repeats_itself_and_wants_a_group_per_image() -> None:
    score = Score(np.arange(10.0))
    groups = [str(i) for i in range(10)]
    assert bootstrap(score, groups, seed=5) == bootstrap(score, groups, seed=5)
    assert bootstrap(score, groups, seed=5) != bootstrap(score, groups, seed=6)
    with pytest.raises(ValueError, match="9 groups for 10 images"):
        bootstrap(score, groups[:-1])
