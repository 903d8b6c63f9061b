"""The main job: a file goes in, a mask and a report come out, through the shipped artefact."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sgseg
from helpers import sgseg_command
from sgseg.anatomy import ZONES, Laterality, ZoneSet
from sgseg.batch import Results, describe, find_images, predict_files, result_names
from sgseg.console import show_results
from sgseg.data import Case, phantom, read_cases
from sgseg.data.phantom import write_dataset
from sgseg.errors import DataError, ReportError, SGSegError
from sgseg.evaluation import append_to_ledger, examine, pooled
from sgseg.imaging import Hanging, read
from sgseg.inference import Predictor
from sgseg.reports import Guidance, likeliest_reports
from sgseg.weights import SHIPPED


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return sgseg.load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms: two plain, one wide and with a black bar."""
    root = tmp_path_factory.mktemp("xrays")
    for seed in (1, 2):
        Image.fromarray(phantom.draw(seed).pixels).save(root / f"case{seed}.png")
    wide = np.zeros((300, 400), dtype=np.uint8)
    wide[:, 60:] = np.asarray(Image.fromarray(phantom.draw(3).pixels).resize((340, 300)))
    Image.fromarray(wide).save(root / "wide.png")
    return root


def test_uncertainty_is_what_is_missing_to_the_expected_dice(predictor: Predictor, folder: Path) -> None:
    seen = predictor.predict(folder / "case1.png")
    by_hand = replace(seen, probability=np.array([[0.9, 0.6, 0.2]], dtype=np.float32), threshold=0.5)
    assert by_hand.uncertainty == pytest.approx(1 - 2 * 1.5 / (1.7 + 2))
    assert replace(by_hand, threshold=0.95).uncertainty == pytest.approx(0.9), "the mask is empty"
    case = Case("case1", folder / "case1.png", None, ZoneSet(), "p")
    (evaluation,) = examine(predictor, [case], [Guidance.NONE])
    expected = predictor.predict(folder / "case1.png", guidance=Guidance.NONE).uncertainty
    assert evaluation.quality == pytest.approx([1 - expected], abs=1e-6)


def test_prediction_has_the_size_of_the_xray_and_keeps_bars_empty(predictor: Predictor, folder: Path) -> None:
    prediction = predictor.predict(folder / "wide.png")
    assert prediction.probability.shape == prediction.mask.shape == (300, 400)
    assert prediction.probability.dtype == np.float32
    assert not prediction.probability[:, :55].any()
    assert 0 <= prediction.uncertainty <= 1
    assert len(prediction.zone_probabilities) == 6


def test_the_attention_lands_where_the_model_looked(predictor: Predictor, folder: Path) -> None:
    """A map that peaks in one cell of the grid, brought to a wide X-ray with a bar at its left."""
    prediction = predictor.predict(folder / "wide.png")
    side = predictor.runtime.size // 16
    assert prediction.attention is not None and prediction.attention.shape == (6, side, side)
    np.testing.assert_allclose(prediction.attention.sum((1, 2)), 1, atol=1e-4)
    left = prediction.xray.content.left
    assert 55 <= left <= 65
    peaks = np.zeros((6, 14, 14), dtype=np.float32)
    for position in range(6):
        peaks[position, 2 * position + 1, 12 - position] = 1
    mirrored = replace(prediction.xray, hanging=Hanging(mirror=True))
    for xray, is_mirrored in ((prediction.xray, False), (mirrored, True)):
        shown = replace(prediction, xray=xray, attention=peaks, zone_probabilities=(0, 0, 0, 0.9, 0, 0.3))
        width = (400 - left) / 14
        for zone in ZONES:
            found = shown.looked_at(zone)
            assert found is not None and found.shape == (300, 400) and not found[:, :left].any()
            row, column = np.unravel_index(found.argmax(), found.shape)
            at = zone.position + 1 if is_mirrored else 12 - zone.position
            assert abs(row + 0.5 - (2 * zone.position + 1.5) * 300 / 14) <= 1
            assert abs(column + 0.5 - left - (at + 0.5) * width) <= 1
        mean, one, other = (shown.looked_at(zone) for zone in (None, ZONES[3], ZONES[5]))
        np.testing.assert_allclose(mean, 0.75 * one + 0.25 * other, atol=1e-6)


def test_each_zone_has_a_map_of_its_own(predictor: Predictor) -> None:
    """In weights up to 0.3.0 the six were one and the same."""
    apart = []
    for seed in range(6):
        maps = predictor.predict(phantom.draw(seed).pixels).attention
        assert maps is not None
        apart += [np.abs(a - b).sum() / 2 for a, b in combinations(maps, 2)]
    assert np.mean(apart) > 0.1, "the share of the attention that lies elsewhere"


def test_weights_without_attention_maps_still_play(folder: Path, tmp_path: Path) -> None:
    """Artefacts from before 0.3 have no such output."""
    onnx = pytest.importorskip("onnx", reason="this needs onnx: pip install 'sgseg[train]'")
    shutil.copytree(SHIPPED, tmp_path / "old")
    graph = onnx.load(tmp_path / "old" / "encode.onnx", load_external_data=False)
    kept = [node for node in graph.graph.output if node.name not in ("attention", "distance")]
    assert len(kept) < len(graph.graph.output)
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    onnx.save(graph, tmp_path / "old" / "encode.onnx")
    old, new = (sgseg.load(model).predict(folder / "case1.png") for model in (tmp_path / "old", None))
    assert old.attention is None and old.looked_at() is None
    np.testing.assert_allclose(old.probability, new.probability, atol=1e-6)


def test_a_finding_is_what_exceeds_the_threshold(predictor: Predictor, folder: Path) -> None:
    zones = (0.1, 0.2, 0.56, 0.3, 0.0, 0.4)
    seen = replace(predictor.predict(folder / "case1.png"), zone_probabilities=zones)
    assert seen.finding_probability == 0.56
    assert [replace(seen, finding_threshold=t).finding for t in (0.55, 0.56, 0.57)] == [True, False, False]
    silent = replace(seen, zone_probabilities=(float("nan"),) * 6)
    assert silent.finding is None and np.isnan(silent.finding_probability)
    told = predictor.predict(folder / "case1.png", report="no infection.")
    own = predictor.predict(folder / "case1.png")
    assert (told.finding, told.finding_probability) == (own.finding, own.finding_probability)


def test_no_finding_leaves_the_mask_and_the_report(predictor: Predictor, folder: Path) -> None:
    found = replace(predictor.predict(folder / "case1.png"), finding_threshold=0.0)
    missed = replace(found, finding_threshold=1.0)
    assert (found.finding, missed.finding) == (True, False)
    assert missed.mask.any() and np.array_equal(missed.mask, found.mask)
    texts = [describe(p, Laterality.PATIENT) for p in (found, missed)]
    assert [text.pop("finding") for text in texts] == [True, False]
    assert texts[0] == texts[1]


def test_the_card_says_the_finding_threshold(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    card = json.loads(path.read_text())
    card.pop("finding", None)
    path.write_text(json.dumps(card))
    old = sgseg.load(tmp_path / "model")
    assert old.runtime.finding_threshold == 0.5, "as weights up to 0.3.0"
    own = old.predict(folder / "case1.png").finding_probability
    for threshold, finding in ((round(own - 0.01, 4), True), (round(own + 0.01, 4), False)):
        path.write_text(json.dumps({**card, "finding": {"threshold": threshold}}))
        prediction = sgseg.load(tmp_path / "model").predict(folder / "case1.png")
        assert (prediction.finding_threshold, prediction.finding) == (threshold, finding)


def test_file_array_and_xray_give_the_same(predictor: Predictor, folder: Path) -> None:
    path = folder / "case1.png"
    same = [
        predictor.predict(source) for source in (path, str(path), np.asarray(Image.open(path)), read(path))
    ]
    for other in same[1:]:
        np.testing.assert_array_equal(other.probability, same[0].probability)


def test_the_report_guides_the_mask_to_its_side(predictor: Predictor) -> None:
    """ "Right lung" in the patient's laterality is the left of the image."""

    def share_at_image_left(seed: int, side: str) -> float:
        drawn = phantom.draw(seed, zones=ZoneSet(63))
        probability = predictor.predict(drawn.pixels, report=f"upper middle lower {side} lung").probability
        return float(probability[:, :112].sum() / probability.sum())

    right, left = (
        np.mean([share_at_image_left(seed, side) for seed in range(8)]) for side in ("right", "left")
    )
    assert right > left + 0.2


def test_the_reports_extent_guides_the_mask(predictor: Predictor, folder: Path) -> None:
    areas = [predictor.predict(folder / "case1.png", report=ZoneSet(i)).probability.sum() for i in (0, 4, 63)]
    assert areas[0] < areas[1] < areas[2]


def test_laterality_of_the_words_only_renames(predictor: Predictor, folder: Path) -> None:
    image = folder / "case1.png"
    patient = predictor.predict(image, report="lower right lung")
    in_image = predictor.predict(image, report="lower left lung", laterality="image")
    np.testing.assert_array_equal(patient.probability, in_image.probability)
    assert patient.zones == ZoneSet.from_vector([0, 0, 1, 0, 0, 0])
    assert patient.report.endswith("lower right lung.")


def test_self_soft_is_the_weighted_mean_of_masks(predictor: Predictor, folder: Path) -> None:
    xray = read(folder / "case2.png")
    soft = predictor.predict(xray, guidance="self-soft")
    indices, weights = likeliest_reports(np.array([soft.zone_probabilities], dtype=np.float32), 8)
    masks = [predictor.predict(xray, report=ZoneSet(int(i))).probability for i in indices[0]]
    expected = sum(w * m for w, m in zip(weights[0], masks, strict=True))
    np.testing.assert_allclose(soft.probability, expected, atol=1e-5)


def test_self_is_the_likeliest_report(predictor: Predictor, folder: Path) -> None:
    own = predictor.predict(folder / "case2.png", guidance="self")
    told = predictor.predict(folder / "case2.png", report=own.zones)
    np.testing.assert_array_equal(own.probability, told.probability)
    none = predictor.predict(folder / "case2.png", guidance="none")
    assert np.abs(none.probability - own.probability).max() > 1e-3


def test_batch_and_single_agree(predictor: Predictor, folder: Path) -> None:
    xrays = [read(path) for path in sorted(folder.glob("*.png"))]
    together = predictor.predict_batch(xrays, Guidance.SELF)
    for xray, prediction in zip(xrays, together, strict=True):
        alone = predictor.predict_batch([xray], Guidance.SELF)[0]
        np.testing.assert_allclose(alone.probability, prediction.probability, atol=1e-4)


def test_guidance_and_report_must_fit(predictor: Predictor, folder: Path) -> None:
    for arguments in ({"guidance": "text"}, {"guidance": "self", "report": "lower left lung"}):
        with pytest.raises(ReportError, match="do not fit"):
            predictor.predict(folder / "case1.png", **arguments)


def test_phantom_lesions_are_found(predictor: Predictor) -> None:
    """Held-out phantoms: low enough to survive retraining, high enough to notice harm."""
    drawn = [phantom.draw(seed) for seed in range(100, 112)]
    dice = []
    for p in drawn:
        mask = predictor.predict(p.pixels).mask
        if p.mask.any():
            dice.append(2 * (mask & p.mask).sum() / (mask.sum() + p.mask.sum()))
    assert np.mean(dice) > 0.5


def test_files_are_found_and_named_apart(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/x.jpg", "b/x.png", "b/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([str(tmp_path), str(tmp_path / "b" / "*.png"), "missing.png"])
    assert [p.name for p in found] == ["x.jpg", "x.png", "x.png", "missing.png"]
    assert len(set(result_names(found))) == len(found)
    assert result_names([Path("q/one.png"), Path("q/two.png")]) == ["one", "two"]


def test_names_of_results_never_meet() -> None:
    uids = [Path(f"1.2.840.868.{i}") for i in (1, 2)]
    assert result_names(uids) == [path.name for path in uids], "the instance of a UID is no kind of file"
    alike = [Path(text) for text in ("s/a_b/x.png", "s/a/b/x.png", "s/A/b/X.png", "s/a.b/x.png")]
    names = result_names(alike)
    assert len({name.casefold() for name in names}) == len(alike)
    deep = [Path("/", *["1" * 60] * depth, "IM0001") for depth in (5, 6)]
    assert max(len(name) for name in result_names(deep)) < 200
    taken = {"x": "elsewhere/X.png"}
    assert result_names([Path("here/x.png")], taken) == ["x_png"]
    assert result_names([Path("elsewhere/X.png")], taken) == ["X"], "it is its own"


BAD = ("truncated.png", "text.png", "empty.png", "bomb.png", "folder.png", "missing.png")


@pytest.fixture
def with_bad_files(folder: Path, tmp_path: Path) -> list[str]:
    content = (folder / "case1.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "inside.png").write_text("nor this")
    return [str(folder / "case1.png"), *(str(tmp_path / name) for name in BAD), str(folder / "case2.png")]


def test_bad_files_are_named_and_the_rest_is_written(with_bad_files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = sgseg_command("predict", *with_bad_files, "--out", str(out))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for name in BAD:
        assert name in done.stderr
    document = json.loads((out / "predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in document["images"]] == ["case1.png", "case2.png"]
    assert len(document["failed"]) == len(BAD)
    for entry in document["images"]:
        mask = np.asarray(Image.open(out / entry["mask"]))
        assert set(np.unique(mask)) <= {0, 255}
        assert mask.shape == (entry["size"][1], entry["size"][0])
        assert entry["lesion_fraction"] == pytest.approx((mask > 0).mean(), abs=1e-4)
        assert (out / entry["overlay"]).is_file()
        assert entry["finding"] is (entry["finding_probability"] > document["finding_threshold"])
        assert entry["finding_probability"] == max(entry["zone_probabilities"].values())
    assert not list(out.glob(".sgseg-*"))


def test_command_line_laterality_and_report(folder: Path, tmp_path: Path) -> None:
    told = (("patient", "lower right"), ("image", "lower left"))
    for laterality, zone in told:
        done = sgseg_command(
            *("predict", str(folder / "case1.png"), "--out", str(tmp_path / laterality)),
            *("--report", f"{zone} lung", "--laterality", laterality),
        )
        assert done.returncode == 0, done.stderr
    masks = [np.asarray(Image.open(tmp_path / kind / "case1_mask.png")) for kind in ("patient", "image")]
    np.testing.assert_array_equal(*masks)
    probabilities = []
    for laterality, zone in told:
        document = json.loads((tmp_path / laterality / "predictions.json").read_text())
        (entry,) = document["images"]
        assert (document["laterality"], document["guiding_zones"]) == (laterality, [0, 0, 1, 0, 0, 0])
        assert entry["zones"] == [zone] and entry["report"].endswith(f"{zone} lung.")
        assert list(entry["zone_probabilities"]) == [z.name(Laterality(laterality)) for z in ZONES]
        probabilities.append([*entry["zone_probabilities"].values()])
    assert probabilities[0] == probabilities[1], "the order is that of the zones, whoever's left is meant"


def test_command_line_threshold_and_resume(folder: Path, tmp_path: Path) -> None:
    line = ("predict", str(folder / "case1.png"), "--out", str(tmp_path))
    written = []
    for threshold, resume in (("0.5", ()), ("0.9", ()), ("0.9", ("--resume",)), ("0.9", ())):
        done = sgseg_command(*line, "--threshold", threshold, *resume)
        assert done.returncode == 0, done.stderr
        document = json.loads((tmp_path / "predictions.json").read_text())
        assert document["threshold"] == float(threshold)
        fraction = document["images"][0]["lesion_fraction"]
        written.append((fraction, (tmp_path / "case1_mask.png").stat().st_mtime_ns))
    low, high, kept, anew = written
    assert low[0] > high[0]
    assert kept == high and anew[1] > high[1]


def test_resume_leaves_out_what_is_there(predictor: Predictor, folder: Path, tmp_path: Path) -> None:
    paths = sorted(folder.glob("case*.png"))
    predict_files(predictor, paths[:1], tmp_path, Guidance.NONE)
    before = (tmp_path / "case1_mask.png").stat().st_mtime_ns
    results = predict_files(predictor, paths, tmp_path, Guidance.NONE, resume=True)
    assert [Path(entry["image"]).name for entry in results.images] == ["case1.png", "case2.png"]
    assert (tmp_path / "case1_mask.png").stat().st_mtime_ns == before
    other = predict_files(predictor, paths, tmp_path, Guidance.SELF, resume=True)
    assert len(other.images) == 2
    assert (tmp_path / "case1_mask.png").stat().st_mtime_ns > before


def test_resume_with_other_files_of_the_same_name(predictor: Predictor, folder: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name / "x.png" for name in ("a", "b")]
    for path, case in zip(paths, ("case1.png", "case2.png"), strict=True):
        path.parent.mkdir()
        shutil.copyfile(folder / case, path)
        results = predict_files(predictor, [path], tmp_path / "out", Guidance.NONE, resume=True)
    assert [entry["image"] for entry in results.images] == [str(path) for path in paths]
    for entry, path in zip(results.images, paths, strict=True):
        mask = np.asarray(Image.open(tmp_path / "out" / entry["mask"])) > 0
        np.testing.assert_array_equal(mask, predictor.predict(path, guidance=Guidance.NONE).mask)


def test_resume_keeps_what_was_predicted_at_any_threshold(folder: Path, tmp_path: Path) -> None:
    """JSON rounds it."""
    predictor = sgseg.load(threshold=0.123456)
    kept = []
    for _ in range(2):
        results = predict_files(predictor, [folder / "case1.png"], tmp_path, Guidance.NONE, resume=True)
        assert not results.differing
        kept.append((tmp_path / "case1_mask.png").stat().st_mtime_ns)
    assert kept[0] == kept[1]


def test_resume_says_why_it_starts_anew(
    predictor: Predictor, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [folder / "case1.png"]
    predict_files(predictor, paths, tmp_path, Guidance.NONE)
    show_results(predict_files(predictor, paths, tmp_path, Guidance.SELF, resume=True), tmp_path)
    assert "nothing of an earlier call is kept: it had another guidance" in capsys.readouterr().err
    (tmp_path / "predictions.json").write_text("[]")
    assert len(predict_files(predictor, paths, tmp_path, Guidance.SELF, resume=True).images) == 1


def test_resume_does_not_keep_what_was_forced(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "colour.png"
    greys = phantom.draw(1).pixels
    Image.fromarray(np.stack([greys, greys // 2, 255 - greys], 2)).save(path)
    forced = predict_files(predictor, [path], tmp_path / "out", Guidance.NONE, force=True)
    assert len(forced.images) == 1
    later = predict_files(predictor, [path], tmp_path / "out", Guidance.NONE, resume=True)
    assert (later.images, len(later.not_applicable)) == ([], 1)


def test_results_that_cannot_be_written_are_named(predictor: Predictor, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "case1_mask.png").mkdir()
    paths = [folder / "case1.png", folder / "case2.png"]
    results = predict_files(predictor, paths, tmp_path, Guidance.NONE)
    assert [Path(entry["image"]).name for entry in results.images] == ["case2.png"]
    assert "case1.png cannot be written" in results.failed[0]["error"]


@pytest.mark.parametrize("command", ["predict", "demo"])
def test_a_file_in_place_of_a_folder_is_one_line(folder: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "out").touch()
    images = [str(folder / "case1.png")] if command == "predict" else []
    done = sgseg_command(command, *images, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert re.fullmatch(r"sgseg: .*out.*: (File exists|Not a directory); .*\n", done.stderr)


def test_resume_takes_no_findings_of_another_threshold(
    predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [folder / "case1.png"]
    for threshold, finding in ((0.0, True), (1.0, False)):
        monkeypatch.setattr(predictor.runtime, "finding_threshold", threshold)
        results = predict_files(predictor, paths, tmp_path, Guidance.NONE, resume=True)
        assert [entry["finding"] for entry in results.images] == [finding]
    path = tmp_path / "predictions.json"
    old = json.loads(path.read_text())
    del old["finding_threshold"], old["images"][0]["finding"]  # as written up to weights 0.3.0
    path.write_text(json.dumps(old))
    results = predict_files(predictor, paths, tmp_path, Guidance.NONE, resume=True)
    assert results.images[0]["finding"] is False


def test_the_table_says_the_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = {"name": "m", "version": "1"}
    results = Results({"laterality": "patient", "model": model, "guidance": "none"})
    rest = {"report": "", "lesion_fraction": 0.0, "uncertainty": 0.0}
    found = {"a.png": True, "b.png": False, "c.png": None}
    results.images = [{"image": name, "finding": finding, **rest} for name, finding in found.items()]
    show_results(results, tmp_path)
    heading, *rows = capsys.readouterr().out.splitlines()[:4]
    assert "finding" in heading
    assert [row.split()[:2] for row in rows] == [["a.png", "yes"], ["b.png", "no"], ["c.png", "–"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guidance", "selfish"], "no guidance 'selfish'"),
        (["--guidance", "text"], "needs --report"),
        (["--report", "somewhere"], "unknown word"),
        (["--report", "lower left lung", "--guidance", "self"], "leave out --guidance"),
        (["--model", "nowhere"], "give a folder that sgseg export wrote"),
        (["--model", "run"], "it is a training run: export it first"),
        (["--model", "old"], "model.json is no card of an SGSeg model"),
    ],
)
def test_wrong_use_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, files in (("run", ["config.yaml"]), ("old", ["model.json", "model.safetensors"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    done = sgseg_command("predict", str(folder / "case1.png"), "--out", str(tmp_path / "o"), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_instrument_imports_no_torch(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, sgseg; sgseg.load().predict(sys.argv[1]);"
        "heavy = {'torch', 'lightning', 'transformers', 'monai', 'kornia', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "case1.png")], check=True)


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    for file in SHIPPED.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(SGSegError, match="damaged"):
        sgseg.load(tmp_path)


def test_shipped_weights_fit_the_card() -> None:
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 16 * 2**20
    card = json.loads((SHIPPED / "model.json").read_text())
    assert card["parameters"] <= 7_500_000
    judged = "valid" not in card["config"]["data"]["splits"]
    assert judged or {"name", "version", "sha256"} <= card["choices"].keys()
    if judged:
        assert card["guidance"] == max(card["valid_pooled_dice"], key=card["valid_pooled_dice"].get)
    assert "Not for clinical use" in (SHIPPED / "MODEL_CARD.md").read_text()


def test_evaluation_counts_every_case(predictor: Predictor, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"test": 6}, 500)
    cases = read_cases(tmp_path / "data", "test")
    ticks: list[int] = []
    none, text = examine(predictor, cases, [Guidance.NONE, Guidance.TEXT], lambda: ticks.append(1))
    assert len(ticks) == len(none.counts) == 6
    literal = np.array([0, 0])
    for case in cases:
        mask, truth = (
            predictor.predict(case.image, guidance="none").mask,
            np.asarray(Image.open(case.mask)) > 0,
        )
        literal += [2 * (mask & truth).sum(), mask.sum() + truth.sum()]
    assert pooled(none.counts).dice == pytest.approx(literal[0] / literal[1], abs=1e-3)
    assert text.summary()["zones"]["accuracy"]["value"] == none.summary()["zones"]["accuracy"]["value"]
    ledger = tmp_path / "ledger.csv"
    for _ in range(2):
        append_to_ledger(ledger, [none, text], predictor.runtime.identity, tmp_path / "data")
    assert len(ledger.read_text().splitlines()) == 5


def test_text_guidance_needs_reports(predictor: Predictor, folder: Path) -> None:
    case = Case("case1", folder / "case1.png", None, None, "p")
    with pytest.raises(DataError, match="1 of 1 have none"):
        examine(predictor, [case], [Guidance.TEXT])


def test_evaluate_command(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"valid": 4}, 600)
    done = sgseg_command("evaluate", "--data", "data", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document["guidance"]) == {"none", "self", "self-soft", "text"}
    assert 0 <= document["guidance"]["none"]["pooled"]["dice"]["value"] <= 1
    assert Image.open(tmp_path / "evaluation.png").size[0] > 1000


def test_evaluate_command_takes_a_threshold(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"valid": 3}, 600)
    recalls = []
    for threshold in (0.05, 0.99):
        line = ("evaluate", "--data", "data", "--guidance", "none", "--threshold", str(threshold))
        done = sgseg_command(*line, "--json", "-", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["threshold"] == threshold
        cases = document["guidance"]["none"]["cases"]
        recalls.append(sum(case["tp"] for case in cases))
    assert recalls[0] > recalls[1]


def test_a_look_at_test_is_noted_where_there_is_a_ledger(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"test": 1}, 600)
    (tmp_path / "results").mkdir()
    ledger = tmp_path / "results" / "test-ledger.csv"

    def looks(*options: str) -> int:
        once = ("evaluate", "--data", "data", "--split", "test", "--guidance", "none")
        done = sgseg_command(*once, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return len(ledger.read_text().splitlines()) - 1 if ledger.is_file() else 0

    assert looks() == 0, "a folder of this name is not the project's"
    assert looks("--ledger", "results/test-ledger.csv") == 1
    assert looks() == 2
    assert looks("--limit", "1") == 2


@pytest.mark.parametrize(("splits", "told"), [(["train"], False), (["train", "valid"], True)])
def test_evaluate_tells_that_a_split_was_trained_on(tmp_path: Path, splits: list[str], told: bool) -> None:
    write_dataset(tmp_path / "data", {"valid": 1}, 600)
    shutil.copytree(SHIPPED, tmp_path / "model")
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    card["config"]["data"]["splits"] = splits
    (tmp_path / "model" / "model.json").write_text(json.dumps(card))
    for command in (["evaluate"], ["analyse", "--out", "analysis"]):
        done = sgseg_command(*command, "--data", "data", "--model", "model", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("was trained on a split valid" in done.stderr) is told


def test_demo_command(tmp_path: Path) -> None:
    done = sgseg_command("demo", "--out", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "contact_sheet.png").is_file()


def test_shipped_weights_on_real_xrays(predictor: Predictor, qata_root: Path) -> None:
    """A slice of `valid`, spread over it, which they may have seen; their scores are in the card."""
    cases = read_cases(qata_root, "valid")[::30]
    none, text = examine(predictor, cases, [Guidance.NONE, Guidance.TEXT])
    assert pooled(none.counts).dice > 0.75
    assert pooled(text.counts).dice > pooled(none.counts).dice
