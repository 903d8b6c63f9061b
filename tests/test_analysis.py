"""Calibration, the model's own estimate of its masks, and where it errs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sgseg.anatomy import ZoneSet
from sgseg.cli import app
from sgseg.data import Case
from sgseg.data.phantom import write_dataset
from sgseg.errors import DataError
from sgseg.evaluation import Counts, Evaluation, Reliability, analyse, choose_finding_threshold
from sgseg.evaluation.analysis import area_under_curve, keep, rank_correlation
from sgseg.formats import save_analysis
from sgseg.reports import Guidance

_PIXELS = 200_000


def _reliability(sharpness: float) -> Reliability:
    """Pixels that are lesion with their probability, told `sharpness` times too surely."""
    random = np.random.default_rng(0)
    logit = random.normal(0, 2, _PIXELS)
    lesion = random.random(_PIXELS) < 1 / (1 + np.exp(-logit))
    told = 1 / (1 + np.exp(-sharpness * logit))
    return Reliability.of(told.astype(np.float32).reshape(-1, 100), lesion.reshape(-1, 100))


def test_probabilities_that_mean_what_they_say_have_no_calibration_error() -> None:
    right = _reliability(1)
    assert right.ece() < 0.005
    assert right.temperature() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_the_temperature_undoes_too_much_or_too_little_confidence(sharpness: float) -> None:
    wrong = _reliability(sharpness)
    assert wrong.temperature() == pytest.approx(sharpness, rel=0.03)
    assert wrong.ece() > 0.05
    assert wrong.ece(wrong.temperature()) < 0.01
    assert wrong.log_loss(wrong.temperature()) < wrong.log_loss()


def test_a_calibration_curve_holds_every_pixel_and_adds_up() -> None:
    one = _reliability(1)
    assert sum(point.pixels for point in one.curve()) == _PIXELS
    assert sum(point.pixels for point in (one + one).curve()) == 2 * _PIXELS
    assert (one + one).ece() == pytest.approx(one.ece())


def test_probabilities_of_zero_and_one_are_counted() -> None:
    certain = Reliability.of(np.array([[0, 1]], dtype=np.float32), np.array([[False, True]]))
    assert certain.ece() < 1e-4
    mistaken = Reliability.of(np.array([[0, 1]], dtype=np.float32), np.array([[True, False]]))
    assert mistaken.ece() > 0.999


@given(st.lists(st.integers(0, 5), min_size=3, max_size=30))
def test_ranks_do_not_care_for_the_scale(values: list[int]) -> None:
    a = np.array([*values, -1, 9], dtype=np.float64)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -(a**3)) == pytest.approx(-1)


def test_rank_correlation_with_ties_is_that_of_the_textbook() -> None:
    a, b = np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 4])
    assert rank_correlation(a, b) == pytest.approx(0.9486833)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=12), st.lists(st.integers(0, 4), min_size=1, max_size=12)
)
def test_area_under_the_curve_counts_pairs(positive: list[int], negative: list[int]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    area = area_under_curve(np.array(positive, dtype=np.float64), np.array(negative, dtype=np.float64))
    assert area == pytest.approx(np.mean(pairs))


def _evaluation(
    rows: list[tuple[int, int, int, int]],
    quality: list[float],
    guidance: Guidance = Guidance.NONE,
    zones: list[list[float]] | None = None,
    finding_threshold: float = 0.5,
) -> Evaluation:
    """Of cases whose report names the upper zone at the left of the image."""
    cases = [Case(f"sub-{i}_vp-ap_cr", Path(), None, ZoneSet(1), f"patient{i}") for i in range(len(rows))]
    probabilities = np.array(zones or [[0.9, 0.1, 0.1, 0.1, 0.1, 0.1]] * len(rows))
    counts, reliability = Counts.stack(rows), _reliability(1)
    return Evaluation(
        cases, counts, probabilities, guidance, np.array(quality), reliability, finding_threshold
    )


_GOOD, _POOR, _MISSED = (10, 0, 0, 90), (5, 5, 5, 85), (0, 0, 10, 90)


def test_images_of_which_little_is_expected_are_the_first_to_go() -> None:
    evaluation = _evaluation([_POOR, _GOOD, _MISSED, _GOOD], [0.5, 0.9, 0.1, 0.8])
    half = keep(evaluation, 0.5)
    assert (half.per_image_dice, half.quality) == (1.0, 0.8)
    assert keep(evaluation, 1.0).per_image_dice == pytest.approx((0.5 + 1 + 0 + 1) / 4)


def test_an_analysis_divides_the_cases_and_finds_the_worst() -> None:
    zones = [[0.9, 0, 0, 0, 0, 0], [0.9, 0.9, 0, 0, 0, 0], [0.1, 0.9, 0, 0, 0, 0]]
    own = _evaluation([_GOOD, _POOR, _MISSED], [0.9, 0.6, 0.2], zones=zones)
    told = _evaluation([_GOOD, _GOOD, _POOR], [0.9, 0.6, 0.2], Guidance.TEXT)
    document = analyse([own, told])
    wrong = {g["group"]: g for g in document["groups"]["zones that the model's own report has wrong"]}
    assert {label: group["cases"] for label, group in wrong.items()} == {"0": 1, "1": 1, "2": 1}
    assert wrong["0"]["per_image_dice"]["value"] == 1
    assert wrong["2"]["recall"] == 0
    assert [group["cases"] for group in document["groups"]["view"]] == [3]
    assert document["groups"]["source"][0]["group"] == "sub"
    assert document["perfect_report"]["value"] == pytest.approx(50 / 60 - 30 / 50)
    assert document["quality"]["rank_correlation"]["value"] == pytest.approx(1)
    worst = document["worst"][0]
    assert (worst["name"], worst["dice"], worst["own_zones"]) == ("sub-2_vp-ap_cr", 0, ["middle left"])


def test_the_ranks_of_a_single_image_tell_nothing(tmp_path: Path) -> None:
    document = analyse([_evaluation([_GOOD], [0.9])])
    assert document["quality"]["rank_correlation"] is None
    model = {"name": "m", "version": "1", "sha256": ""}
    told = {"name": "d", "split": "valid", "cases": 1}
    page = save_analysis({"model": model, "data": told, "threshold": 0.5, **document}, tmp_path / "out")
    assert "rank correlation of ?" in page.read_text()


def test_without_the_true_report_nothing_is_said_of_it() -> None:
    assert analyse([_evaluation([_GOOD, _POOR], [0.9, 0.1])])["perfect_report"] is None


def test_false_alarms_are_told_by_mask_and_by_report() -> None:
    infected = _evaluation([_GOOD, _MISSED], [0.9, 0.9])
    healthy = _evaluation(
        [(0, 3, 0, 97), (0, 0, 0, 100)], [0.9, 0.9], zones=[[0.1] * 6, [0.1, 0.2, 0.1, 0.1, 0.1, 0.7]]
    )
    found = analyse([infected], healthy)["detection"]
    assert found["any pixel in the mask"]["sensitivity"]["value"] == 0.5
    assert found["any pixel in the mask"]["false_positive_rate"]["value"] == 0.5
    assert found["any zone in the report"]["sensitivity"]["value"] == 1
    assert found["any zone in the report"]["false_positive_rate"]["value"] == 0.5
    assert found["any zone in the report"]["area_under_curve"] == 1
    assert found["specificity_of_uninvolved_zones"]["value"] == 1


def test_false_alarms_of_the_finding_are_told_at_the_models_threshold() -> None:
    sick, healthy = (
        _evaluation([_GOOD] * len(likeliest), [0.9] * len(likeliest), zones=zones, finding_threshold=0.7)
        for likeliest in ([0.9, 0.8, 0.71, 0.7], [0.1, 0.6, 0.69, 0.8, 0.9])
        for zones in [[[0.05, p, 0, 0, 0, 0] for p in likeliest]]
    )
    assert sick.findings.tolist() == [True, True, True, False]
    assert sick.finding_probabilities.tolist() == [0.9, 0.8, 0.71, 0.7]
    found = analyse([sick], healthy)["detection"]
    decision = found["the finding decision"]
    assert decision["threshold"] == 0.7
    assert decision["sensitivity"]["value"] == 0.75
    assert decision["false_positive_rate"]["value"] == 0.4
    assert found["any zone in the report"]["false_positive_rate"]["value"] == 0.8


def test_the_finding_threshold_is_the_highest_that_finds_97_percent() -> None:
    positives = np.arange(1, 101) / 101  # 98 of them are above 2 / 101, 97 above 3 / 101
    chosen = choose_finding_threshold(positives, np.array([0.01, 0.02, 0.03, 0.9]))
    assert 3 / 101 < 0.03 < 4 / 101
    assert chosen._asdict() == {
        "threshold": 0.03,
        "sensitivity": 0.97,
        "false_positive_rate": 0.25,
        "cases": 100,
        "negatives": 4,
    }


@pytest.mark.parametrize("tie", [0.07, 0.29, 0.56, 0.57, 0.58, 0.99])
def test_ties_at_the_threshold_stay_above_it(tie: float) -> None:
    """These times 100 are no whole numbers in floating point, some above and some below one."""
    low = choose_finding_threshold(np.array([tie] * 5 + [1.0] * 95), np.empty(0))
    assert (low.threshold, low.sensitivity) == (pytest.approx(tie - 0.01), 1.0)
    few = choose_finding_threshold(np.array([tie] * 3 + [1.0] * 97), np.empty(0))
    assert (few.threshold, few.sensitivity) == (0.99, 0.97)


@given(st.lists(st.floats(2**-10, 1, width=32), min_size=1, max_size=150))
def test_a_finding_threshold_in_hundredths_keeps_the_sensitivity(values: list[float]) -> None:
    positives = np.array(values)
    threshold = choose_finding_threshold(positives, np.empty(0)).threshold
    assert threshold == round(threshold, 2)
    assert (positives > threshold).mean() >= 0.97
    assert threshold == 0.99 or (positives > round(threshold + 0.01, 2)).mean() < 0.97


def test_without_any_lesion_the_finding_threshold_is_that_of_reports() -> None:
    chosen = choose_finding_threshold(np.empty(0), np.array([0.2, 0.6]))
    assert (chosen.threshold, chosen.sensitivity, chosen.false_positive_rate) == (0.5, None, 0.5)
    assert choose_finding_threshold(np.ones(1), np.empty(0)).false_positive_rate is None


def test_masks_alone_cannot_be_analysed() -> None:
    counts = Counts.stack([_GOOD])
    masks = Evaluation(
        [Case("a", Path(), None, None, "a")], counts, np.full((1, 6), np.nan), None, np.ones(1), None, 0.5
    )
    assert not masks.findings.any(), "who tells no zones has no finding"
    with pytest.raises(DataError, match="give a model"):
        analyse([masks])


def test_the_command_writes_a_page_and_its_numbers(tmp_path: Path) -> None:
    write_dataset(tmp_path / "phantoms", {"valid": 6}, 3, 96)
    out = tmp_path / "analysis"
    command = ["analyse", "--data", str(tmp_path / "phantoms"), "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--negatives", str(tmp_path / "phantoms")])
    assert result.exit_code == 0, result.output
    document = json.loads((out / "analysis.json").read_text())
    assert document["cases"] == 6
    assert set(document["scores"]) == {"none", "self", "self-soft", "text"}
    sizes = document["groups"]["lesion, share of the image"]
    assert sum(group["cases"] for group in sizes) == 6
    page = (out / "analysis.html").read_text()
    assert "Does the model know when it errs?" in page
    assert f"{document['calibration']['ece']:.4f}" in page
    assert "<img" not in page
    decision = document["detection"]["the finding decision"]
    assert f"threshold, {decision['threshold']:.2f}." in page
    assert f"<td>the finding decision</td><td>{decision['sensitivity']['value']:.3f}" in page
