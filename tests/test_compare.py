"""Masks of other programs, and paired comparison: known answers, and what the two promise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sgseg
from helpers import sgseg_command
from sgseg.batch import predict_files
from sgseg.data import Case, read_cases
from sgseg.data.phantom import write_dataset
from sgseg.errors import DataError
from sgseg.evaluation import (
    Counts,
    compare,
    examine,
    examine_masks,
    find_masks,
    per_image,
    pooled,
    read_evaluation,
)
from sgseg.evaluation.compare import Difference, permutation_p
from sgseg.evaluation.metrics import Score
from sgseg.formats import write_json
from sgseg.reports import Guidance

N_PIXELS = 1000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / "data"
    write_dataset(root, {"valid": 4}, 700)
    return root


@pytest.fixture(scope="module")
def cases(data: Path) -> list[Case]:
    return read_cases(data, "valid")


@pytest.fixture
def masks(cases: list[Case], tmp_path: Path) -> Path:
    """The true masks, each called in another of the ways."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for case, name in zip(cases, ("{}.png", "{}_MASK.PNG", "Mask_{}.png", "{}.PNG"), strict=True):
        assert case.mask is not None or case.zones is not None
        target = folder / name.format(case.name.upper() if name.startswith("Mask") else case.name)
        if case.mask is not None:
            shutil.copyfile(case.mask, target)
        else:
            Image.new("L", (224, 224)).save(target)
    return folder


# --- masks of other programs


def test_the_true_masks_score_one(masks: Path, cases: list[Case]) -> None:
    ticks: list[int] = []
    evaluation = examine_masks(find_masks(masks, cases), cases, lambda: ticks.append(1))
    assert len(ticks) == 4
    assert pooled(evaluation.counts) == per_image(evaluation.counts) == (1, 1, 1)
    assert evaluation.name == "masks"
    assert {"pooled", "per_image"} <= set(evaluation.summary()) and "zones" not in evaluation.summary()


def test_masks_of_0_and_1_count_as_well(masks: Path, cases: list[Case]) -> None:
    for path in masks.iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    assert pooled(examine_masks(find_masks(masks, cases), cases).counts).dice == 1


def test_predictions_score_as_their_model_does(data: Path, cases: list[Case], tmp_path: Path) -> None:
    predictor = sgseg.load()
    predict_files(predictor, [case.image for case in cases], tmp_path / "out", Guidance.NONE)
    found = find_masks(tmp_path / "out", cases)
    assert [path.name for path in found.extra] == [f"{case.name}_overlay.png" for case in cases]
    of_masks = examine_masks(found, cases)
    of_model = examine(predictor, cases, [Guidance.NONE])[0]
    for score in (pooled, per_image):
        assert score(of_masks.counts) == pytest.approx(score(of_model.counts), abs=5e-5)
    mine, its = of_masks.summary()["pooled"]["dice"], of_model.summary()["pooled"]["dice"]
    assert mine == pytest.approx(its, abs=5e-5)


def test_missing_predictions_are_named_up_to_ten(cases: list[Case], masks: Path) -> None:
    absent = [Case(f"absent{i}", cases[0].image, None, None, "p") for i in range(12)]
    with pytest.raises(
        DataError, match=r"12 of 16 cases have no mask .*absent0.*absent9 and 2 more"
    ) as raised:
        find_masks(masks, [*cases, *absent])
    assert "absent10" not in str(raised.value)


def test_two_masks_of_one_case_are_refused(cases: list[Case], masks: Path) -> None:
    shutil.copyfile(next(masks.iterdir()), masks / f"mask_{cases[0].name}.png")
    with pytest.raises(DataError, match=f"{cases[0].name} has 2 masks .*keep one"):
        find_masks(masks, cases)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("L", (100, 90)), "100×90, its image 224×224"),
        (Image.linear_gradient("L").resize((224, 224)), "more than two values"),
        (Image.new("I;16", (224, 224)), "not 8-bit"),
        (Image.new("L", (224, 224), 3), "values up to 3"),
    ],
)
def test_wrong_masks_are_named(picture: Image.Image, message: str, masks: Path, cases: list[Case]) -> None:
    picture.save(masks / f"{cases[0].name}.png")
    with pytest.raises(DataError, match=message) as raised:
        examine_masks(find_masks(masks, cases), cases)
    assert f"{cases[0].name}.png" in str(raised.value)


def test_evaluate_predictions_command(data: Path, masks: Path, tmp_path: Path) -> None:
    Image.new("L", (5, 5)).save(masks / "stray.png")
    arguments = ["evaluate", "--data", str(data), "--predictions", str(masks)]
    done = sgseg_command(*arguments, "--json", "scores.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 files" in done.stderr and "stray.png" in done.stderr
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["guidance"]["masks"]["pooled"]["dice"] == {"value": 1, "low": 1, "high": 1}
    assert document["threshold"] is None
    case = document["guidance"]["masks"]["cases"][0]
    assert case["tp"] + case["fp"] + case["fn"] + case["tn"] == 224 * 224
    assert {"name", "patient", "dice"} <= case.keys()
    assert Image.open(tmp_path / "evaluation.png").size[0] > 1000


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--predictions", "nowhere"], "nowhere is not a folder"),
        (
            ["--predictions", "m", "--guidance", "self", "--threshold", "0.4"],
            "leave out --guidance, --thr",
        ),
        (["--predictions", "."], "4 of 4 cases have no mask"),
        (["--predictions", ".", "--json", "no/x.json"], "there is no folder no; make it first"),
        (["--picture", "no/x.png"], "there is no folder no; make it first"),
        (["--ledger", "no/x.csv"], "there is no folder no; make it first"),
    ],
)
def test_wrong_predictions_are_one_line(extra: list[str], message: str, data: Path, tmp_path: Path) -> None:
    done = sgseg_command("evaluate", "--data", str(data), *extra, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- comparison


def document(rows: Sequence[tuple[str, int, int, int]], split: str = "valid") -> dict[str, Any]:
    """An evaluation: patient, tp, fp, fn of each case."""
    cases = [
        {"name": f"case{i}", "patient": patient, "tp": tp, "fp": fp, "fn": fn, "tn": N_PIXELS - tp - fp - fn}
        for i, (patient, tp, fp, fn) in enumerate(rows)
    ]
    return {"data": {"split": split}, "guidance": {"none": {"cases": cases}}}


def written(path: Path, *arguments: Any, **changes: Any) -> Path:
    write_json(path, document(*arguments) | changes)
    return path


def random_rows(n: int, better: float = 0, seed: int = 0) -> list[tuple[str, int, int, int]]:
    """Cases of n / 2 patients; the true lesion, 100 pixels, is found by about 70 % + `better`."""
    random = np.random.default_rng(seed)
    tp = np.clip(70 + 100 * better + random.normal(0, 10, n), 0, 100).astype(int)
    return [(f"patient{i // 2}", int(tp[i]), int(random.integers(40)), 100 - int(tp[i])) for i in range(n)]


def test_a_system_equals_itself(tmp_path: Path) -> None:
    scored = read_evaluation(written(tmp_path / "a.json", random_rows(20)))
    comparison = compare(scored, scored)
    assert (comparison.cases, comparison.patients, comparison.split) == (20, 10, "valid")
    for score in comparison.scores.values():
        assert score[2:] == (0, 0, 0, 1)


def test_scores_are_those_of_the_metrics_and_order_does_not_matter(tmp_path: Path) -> None:
    a = read_evaluation(written(tmp_path / "a.json", random_rows(20)))
    shuffled = document(random_rows(20, seed=1))
    shuffled["guidance"]["none"]["cases"].reverse()
    write_json(tmp_path / "b.json", shuffled)
    comparison = compare(a, read_evaluation(tmp_path / "b.json"))
    straight = compare(a, read_evaluation(written(tmp_path / "c.json", random_rows(20, seed=1))))
    assert comparison.scores == straight.scores
    literal = [(tp, fp, fn, N_PIXELS - tp - fp - fn) for _, tp, fp, fn in random_rows(20, seed=1)]
    assert comparison.scores["pooled Dice"].b == pooled(Counts.stack(literal)).dice
    assert comparison.scores["per-image Dice"].b == per_image(Counts.stack(literal)).dice
    for score in comparison.scores.values():
        assert score.low < score.difference < score.high
        assert score.difference == pytest.approx(score.a - score.b)


def test_a_clear_difference_is_found_and_has_the_right_sign(tmp_path: Path) -> None:
    a = read_evaluation(written(tmp_path / "a.json", random_rows(60, better=0.15)))
    b = read_evaluation(written(tmp_path / "b.json", random_rows(60, seed=1)))
    for forth, back in zip(compare(a, b).scores.values(), compare(b, a).scores.values(), strict=True):
        assert forth.low > 0 and forth.p < 0.001
        assert back.difference == pytest.approx(-forth.difference) and back.p == pytest.approx(forth.p)


def test_p_equals_all_sign_flips() -> None:
    random = np.random.default_rng(2)
    groups = [f"patient{i // 2}" for i in range(16)]
    a, b = random.normal(0.8, 0.1, 16), random.normal(0.72, 0.1, 16)
    by_patient = (a - b).reshape(8, 2).sum(1)
    flipped = [abs(np.dot(signs, by_patient)) for signs in product((1, -1), repeat=8)]
    exact = np.mean(np.array(flipped) >= abs(by_patient.sum()) - 1e-9)
    p = permutation_p(Difference(Score(a), Score(b)), groups, permutations=20_000)
    assert p == pytest.approx(exact, abs=0.012)


def test_p_is_uniform_where_there_is_no_difference() -> None:
    groups = [f"patient{i // 3}" for i in range(90)]
    ps = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        patient = np.repeat(random.normal(0, 0.1, (2, 30)), 3, axis=1)  # a patient's images are alike
        a, b = patient + random.normal(0.7, 0.02, (2, 90))
        ps.append(permutation_p(Difference(Score(a), Score(b)), groups, seed, permutations=200))
    assert np.mean(np.array(ps) <= 0.05) <= 0.1
    assert 0.4 < np.mean(ps) < 0.6


def test_images_of_one_patient_are_no_evidence_of_their_own() -> None:
    a, b = Score(np.full(50, 0.9)), Score(np.full(50, 0.8))
    assert permutation_p(Difference(a, b), ["one patient"] * 50) == 1
    assert permutation_p(Difference(a, b), [str(i) for i in range(50)]) < 0.001


@pytest.mark.parametrize(
    ("rows", "split", "message"),
    [
        (random_rows(6), "test", "of the split 'valid'"),
        (random_rows(5), "valid", "1 cases of .*a.json:none are not in .*b.json:none .case5.; evaluate both"),
        (random_rows(7), "valid", "1 cases of .*b.json:none are not in .*a.json:none .case6.; evaluate both"),
        ([("q", *row[1:]) for row in random_rows(6)], "valid", "6 cases have other patients"),
        ([(*row[:3], row[3] + 1) for row in random_rows(6)], "valid", "6 cases have other true masks"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    rows: list[tuple[str, int, int, int]], split: str, message: str, tmp_path: Path
) -> None:
    a = read_evaluation(written(tmp_path / "a.json", random_rows(6)))
    b = read_evaluation(written(tmp_path / "b.json", rows, split))
    with pytest.raises(DataError, match=message):
        compare(a, b)


def test_guidance_must_be_named_where_there_are_several(tmp_path: Path) -> None:
    several = document(random_rows(6))
    several["guidance"]["self"] = document(random_rows(6, seed=1))["guidance"]["none"]
    path = tmp_path / "several.json"
    write_json(path, several)
    with pytest.raises(DataError, match=r"several guidances; .*none, self"):
        read_evaluation(path)
    with pytest.raises(DataError, match="no guidance 'text'; it has none, self"):
        read_evaluation(path, "text")
    assert read_evaluation(path, "self").name.endswith("several.json:self")
    assert (
        read_evaluation(path, "self").counts.tp.tolist() != read_evaluation(path, "none").counts.tp.tolist()
    )


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"guidance": {}}', '{"guidance": {"none": {"cases": []}}}']
)
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"a\.json .*sgseg evaluate --json"):
        read_evaluation(path)


def test_evaluations_without_counts_are_refused(tmp_path: Path) -> None:
    """As written by version 0.1."""
    old = document(random_rows(3))
    old["guidance"]["none"]["cases"] = [{"name": "case0", "dice": 0.5}]
    write_json(tmp_path / "a.json", old)
    with pytest.raises(DataError, match="pixel counts of each case; write it again"):
        read_evaluation(tmp_path / "a.json")


def test_compare_command(tmp_path: Path) -> None:
    written(tmp_path / "a.json", random_rows(30, better=0.1))
    several = document(random_rows(30, seed=1))
    several["guidance"]["self"] = document(random_rows(30, seed=2))["guidance"]["none"]
    write_json(tmp_path / "b.json", several)
    done = sgseg_command("compare", "a.json", "b.json:self", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    comparison = json.loads(done.stdout)
    assert comparison["b"] == "b.json:self"
    assert set(comparison["scores"]["pooled Dice"]) == {"a", "b", "difference", "low", "high", "p"}
    assert "per-image Dice" in done.stderr
    done = sgseg_command(
        "compare", "a.json", "b.json", "--guidance", "none", "--json", "c.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "pooled Dice" in done.stdout
    assert json.loads((tmp_path / "c.json").read_text())["cases"] == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.json", "nowhere.json"], "nowhere.json cannot be read"),
        (["a.json", "a.json:text"], "no guidance 'text'"),
        (["a.json", "notes.txt"], "notes.txt does not hold"),
        (["a.json", "."], ". cannot be read"),
    ],
)
def test_wrong_comparison_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    written(tmp_path / "a.json", random_rows(4))
    (tmp_path / "notes.txt").write_text("not an evaluation")
    done = sgseg_command("compare", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
