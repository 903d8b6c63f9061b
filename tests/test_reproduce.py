"""The paper's tables and figures, in the preset that CI can afford: trained, examined and written down."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("torch")

import torch

from sgseg.anatomy import Laterality, ZoneSet
from sgseg.cli import app
from sgseg.data import Case, phantom, read_cases
from sgseg.errors import ConfigError, DataError
from sgseg.evaluation import Counts, Evaluation, Score, examine
from sgseg.imaging import ChestXray
from sgseg.inference import Identity, Predictor
from sgseg.models import SGSeg
from sgseg.models.baselines import BASELINES
from sgseg.reports import Guidance, all_reports
from sgseg.reproduce import (
    FIGURES,
    PRESETS,
    RUNS,
    SEEDS,
    TABLES,
    Bench,
    Preset,
    figure2,
    figure4,
    figure5,
    pictures,
    plan,
    reproduce,
    runs,
)
from sgseg.training import config as configs
from sgseg.training.networks import WEIGHTS, initial, report_tokens
from sgseg.training.runtime import TorchRuntime

REPORTS = all_reports(Laterality.IMAGE)
SAID: list[str] = []


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Phantoms, and the runs on them, which are trained by the first test that needs them."""
    root = tmp_path_factory.mktemp("reproduce")
    return Bench("smoke", None, root / "runs", root / "results", SAID.append)


@pytest.fixture(autouse=True)
def _cached(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGSEG_CACHE", str(bench.runs / "cache"))


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return document


# --- tables, trained


@pytest.mark.parametrize("table", ["table2", "table1"])
def test_smoke(table: str, bench: Bench) -> None:
    SAID.clear()
    (path,) = reproduce(table, bench)
    document = _read(path)
    rows = TABLES[table]
    assert [row["system"] for row in document["rows"]] == [row.name for row in rows]
    assert (document["split"], document["cases"], document["threshold"]) == ("test", 4, 0.5)
    for row, line in zip(document["rows"], path.read_text().split("|---|\n")[-1].splitlines(), strict=False):
        (first,) = row["seeds"]
        dice, jaccard = first["pooled"]["dice"], first["pooled"]["jaccard"]["value"]
        assert 0 <= dice["low"] <= dice["value"] <= dice["high"] <= 1
        assert jaccard == pytest.approx(dice["value"] / (2 - dice["value"]), abs=1e-4)
        assert row["parameters"] > 1e6
        assert (first["seed"], row["missing_seeds"], row["dice_over_seeds"]) == (0, [], None)
        assert first["same_recipe"]
        assert row["system"] in line and f"{dice['value']:.4f}" in line and f"| {row['init']} |" in line
    assert len(SAID) == len({row.run for row in rows})
    assert not (bench.results / "test-ledger.csv").exists()


def test_what_is_finished_is_not_trained_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = bench.folder("sgseg", 0) / WEIGHTS
    if not weights.is_file():
        pytest.skip("test_smoke did not run")
    before = weights.stat().st_mtime_ns
    monkeypatch.setattr(runs, "examine", None)  # would be called for a record that is not taken
    reproduce("table2", bench)
    assert weights.stat().st_mtime_ns == before


def test_records_tell_what_they_are_of(bench: Bench) -> None:
    bench.trained("image-only", 0)
    record = bench.record("image-only", 0) or bench.examine("image-only", 0)
    assert (record["run"], record["seed"], record["split"], record["cases"]) == ("image-only", 0, "test", 4)
    assert record["init"] == "ImageNet (EfficientNet-Lite0)"
    assert record["config"]["model"] == "image-only" and record["trained"]["commits"]
    assert set(record["guidance"]) == {"none"}
    assert bench.same_recipe(record)
    record["config"]["stages"][0]["epochs"] += 1
    assert not bench.same_recipe(record)


# --- tables, of records that stand for runs


@dataclass(frozen=True)
class Untrained(Bench):
    """Examines by writing a record of a Dice that follows from the seed; stops after some."""

    examined: list[tuple[str, int]] = field(default_factory=list)
    stop_after: int = 99
    cases: int = 4

    def examine(self, name: str, seed: int) -> dict[str, Any]:
        if len(self.examined) == self.stop_after:
            raise KeyboardInterrupt
        self.examined.append((name, seed))
        score = {"value": 0.7 + 0.1 * seed, "low": 0.6, "high": 0.95}
        scores = {
            "pooled": dict.fromkeys(("accuracy", "dice", "jaccard"), score),
            "per_image": {"dice": score},
        }
        record = {
            "run": name,
            "seed": seed,
            "model": {"name": name, "version": f"{name}-seed{seed}", "sha256": "0" * 64},
            "parameters": 1_000_000,
            "init": "random",
            "data": "phantoms",
            "cases": self.cases,
            "guidance": dict.fromkeys(("none", "self", "self-soft", "text"), scores),
            "trained": {"commits": ["abc"], "warnings": []},
            "config": plan(name, self.preset, Path("elsewhere"), seed).model_dump(mode="json"),
        }
        (self.published / f"{name}-seed{seed}.json").write_text(json.dumps(record))
        return record


def _untrained(root: Path, preset: Preset = "smoke", **more: Any) -> Untrained:
    return Untrained(preset, None, root / "runs", root / "results", lambda _: None, **more)


def _lines(path: Path) -> dict[str, str]:
    """Of a table in Markdown, by system and guidance."""
    rows = [line.split(" | ") for line in path.read_text().splitlines() if line.startswith("| ")]
    return {f"{row[0][2:]}, {row[1]}": " | ".join(row) for row in rows[1:]}


def test_an_interrupted_table_shows_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        reproduce("table2", _untrained(tmp_path, stop_after=2))
    lines = _lines(tmp_path / "results" / "smoke" / "table2.md")
    assert len(lines) == len(TABLES["table2"])
    missing = {name for name, line in lines.items() if "not trained yet" in line}
    assert missing == {
        "CLIP pre-training, none",
        "Simple report generation, self",
        "Zone embeddings, own zones, self",
        "Zone embeddings, true zones, text",
    }
    assert "0.7000" in lines["LERG, self"] and "0.971 / 0.874 / 0.778" in lines["LERG, self"]
    assert "0.962 / 0.850 / 0.740" in lines["CLIP pre-training, none"]
    again = _untrained(tmp_path)
    (path,) = reproduce("table2", again)
    assert again.examined == [("clip", 0), ("simple-report", 0), ("zone-embeddings", 0)]
    assert "not trained yet" not in path.read_text()


def test_all_runs_come_with_their_first_seed_first(tmp_path: Path) -> None:
    bench = _untrained(tmp_path, "cpu")
    reproduce("table2", bench)
    first = [(name, 0) for name in ("image-only", "sgseg", "clip", "simple-report", "zone-embeddings")]
    rest = [("image-only", 1), ("sgseg", 1), ("image-only", 2), ("sgseg", 2)]
    assert bench.examined == first + rest


def test_several_seeds_give_mean_and_deviation(tmp_path: Path) -> None:
    (path,) = reproduce("table2", _untrained(tmp_path, "cpu"))
    row = _read(path)["rows"][0]
    assert [each["pooled"]["dice"]["value"] for each in row["seeds"]] == pytest.approx([0.7, 0.8, 0.9])
    assert row["dice_over_seeds"] == pytest.approx({"mean": 0.8, "sd": 0.1})
    line = _lines(path)["Without text, none"]
    assert "| 0, 1, 2 |" in line and "0.7000 (0.600–0.950)" in line and "0.8000 ± 0.1000" in line
    assert "±" not in _lines(path)["CLIP pre-training, none"]


def test_seeds_of_another_recipe_are_not_averaged_in(tmp_path: Path) -> None:
    bench = _untrained(tmp_path, "cpu")
    (path,) = reproduce("table2", bench)
    record = path.with_name("image-only-seed2.json")
    record.write_text(record.read_text().replace('"epochs": 8', '"epochs": 9'))
    reproduce("table2", bench)
    row = _read(path)["rows"][0]
    assert [each["same_recipe"] for each in row["seeds"]] == [True, True, False]
    assert row["dice_over_seeds"]["mean"] == pytest.approx(0.75)


def test_seeds_that_are_missing_are_told(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        reproduce("table2", _untrained(tmp_path, "cpu", stop_after=6))
    line = _lines(tmp_path / "results" / "cpu" / "table2.md")
    assert "| 0, 1 (2 not trained yet) |" in line["Without text, none"]
    assert "| 0 (1, 2 not trained yet) |" in line["LERG, self"]


def test_only_some_runs_add_up(tmp_path: Path) -> None:
    bench = _untrained(tmp_path)
    reproduce("table1", bench, only=["lvit", "unet"])
    (path,) = reproduce("table1", bench, seeds=[4], only=["unet"])
    assert bench.examined == [("unet", 0), ("lvit", 0), ("unet", 4)]
    rows = {row["system"]: row for row in _read(path)["rows"]}
    assert [each["seed"] for each in rows["U-Net"]["seeds"]] == [0, 4]
    assert [each["seed"] for each in rows["LViT, text given"]["seeds"]] == [0]
    assert "not trained yet" in _lines(path)["TransUNet, none"]
    with pytest.raises(ConfigError, match=r"no run 'clip'.*unet,unetpp"):
        reproduce("table1", bench, only=["clip"])


def test_a_record_stands_for_a_run_on_another_machine(tmp_path: Path) -> None:
    """It is taken as it is while the run is not here; beside a run, only if the weights are its own."""
    bench = _untrained(tmp_path)
    reproduce("table1", bench, only=["unet", "unetpp", "lvit"])
    folder = bench.folder("unet", 0)
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"others")
    bench.folder("lvit", 0).mkdir()  # begun
    again = _untrained(tmp_path)
    reproduce("table1", again, only=["unet", "unetpp", "lvit"])
    assert again.examined == [("unet", 0), ("lvit", 0)]


def test_records_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    reproduce("table2", _untrained(tmp_path, cases=5), only=["clip"])
    with pytest.raises(DataError, match=r"different size.*clip seed 0: 5"):
        reproduce("table2", _untrained(tmp_path), only=["sgseg"])
    (tmp_path / "results" / "smoke" / "clip-seed0.json").write_text("[]")
    with pytest.raises(DataError, match=r"clip-seed0\.json is not the record"):
        reproduce("table2", _untrained(tmp_path))


def test_another_recipe_is_told(tmp_path: Path) -> None:
    bench = _untrained(tmp_path)
    (path,) = reproduce("table2", bench)
    assert "another recipe" not in path.read_text()
    record = path.with_name("clip-seed0.json")
    record.write_text(record.read_text().replace('"epochs": 1', '"epochs": 9'))
    reproduce("table2", bench)
    assert "another recipe than this version's:\n\n- clip, seed 0\n" in path.read_text()


def test_a_data_set_is_asked_for(tmp_path: Path) -> None:
    bench = Bench("cpu", None, tmp_path, tmp_path, lambda _: None)
    for what in (*TABLES, *FIGURES):
        with pytest.raises(ConfigError, match="--data"):
            reproduce(what, bench)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", RUNS)
def test_every_run_has_a_valid_recipe(name: str, preset: Preset) -> None:
    config = plan(name, preset, Path(), 3)
    assert config.seed == 3
    assert config.stages[-1].objective == "segmentation"
    assert (config.stages[0].objective == "contrastive") == (name in ("clip", "prototypes"))
    assert runs.seeds_of(name, preset)[0] == 0


def test_every_baseline_has_its_row() -> None:
    trained = {row.run for rows in TABLES.values() for row in rows}
    assert trained == set(RUNS)
    assert set(BASELINES) <= trained
    assert {name for seeds in SEEDS.values() for name in seeds} <= trained


def test_the_papers_numbers() -> None:
    """As printed in Tables 1 and 2."""
    first = {row.name: row.paper for row in TABLES["table1"] if row.paper}
    assert first["SGSeg"] == (0.971, 0.874, 0.778)
    assert first["LanGuideSeg, text given"] == (0.975, 0.898, 0.815)
    assert first["TransUNet"] == (0.939, 0.806, 0.687)
    second = {row.name: row.paper for row in TABLES["table2"] if row.paper}
    assert second["Without text"] == (0.953, 0.846, 0.725)
    assert second["Full text"] == (0.973, 0.890, 0.797)
    given = [row for rows in TABLES.values() for row in rows if row.guidance is Guidance.TEXT]
    assert all("text" in row.name.lower() or "true" in row.name for row in given)


# --- figures, of trained runs


def _check_files(files: list[Path], bench: Bench) -> None:
    """PNG and PDF are real; what shows X-rays is not among the results."""
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert min(picture.size) > 400
                assert len(np.unique(np.asarray(picture.convert("L")))) > 50
        elif file.suffix == ".pdf":
            assert file.read_bytes().startswith(b"%PDF")
    pictures_of_data = [file for file in files if file.is_relative_to(bench.runs)]
    assert {file.parent for file in pictures_of_data} <= {bench.pictures}


def test_figure2(bench: Bench) -> None:
    files = reproduce("figure2", bench)
    _check_files(files, bench)
    assert {file.parent for file in files} == {bench.published}
    document = _read(files[0])
    classes = document["classes"]
    assert sum(found["share"]["value"] for found in classes.values()) == pytest.approx(1, abs=1e-3)
    assert sum(found["even_share"] for found in classes.values()) == pytest.approx(1, abs=1e-3)
    assert sum(found["tokens_per_image"] for found in classes.values()) == pytest.approx(24)
    said = set(re.findall(r"\w+|[^\w\s]", " ".join(REPORTS[case.zones.index] for case in _split(bench))))
    assert set(document["words"]) == said | {"[CLS]", "[SEP]", "[PAD]"}
    total = sum(word["mean"] * word["occurrences"] for word in document["words"].values())
    assert total == pytest.approx(document["cases"], rel=1e-3)
    assert (document["model"]["run"], document["model"]["init"]) == ("languidemedseg", "MiniLM")


def test_figure3(bench: Bench) -> None:
    """With the runs that are trained; the others' panels are empty."""
    files = reproduce("figure3", bench, only=["languidemedseg", "sgseg"])
    _check_files(files, bench)
    assert [file.is_relative_to(bench.results) for file in files] == [True, False, False]
    document = _read(files[0])
    assert [system["system"] for system in document["systems"]] == [row.name for row in TABLES["table1"]]
    case = _split(bench)[0]
    assert document["cases"] == [case.name]
    for system, row in zip(document["systems"], TABLES["table1"], strict=True):
        assert (system["model"] is not None) == bench.is_trained(row.run, 0)
        if row.run in ("languidemedseg", "sgseg"):
            player = bench.player(row.run, 0)
            (evaluation,) = examine(Predictor(player), [case], [row.guidance])
            assert system["dice"] == pytest.approx([evaluation.per_case()[0]["dice"]], abs=1e-4)
            assert system["model"]["sha256"] == player.identity.sha256


def test_figure4(bench: Bench) -> None:
    case = _split(bench)[1]
    files = reproduce("figure4", bench, cases=[case.name.upper()])
    _check_files(files, bench)
    assert [file.is_relative_to(bench.results) for file in files] == [True] * 3 + [False] * 2
    document = _read(files[0])
    (shown,) = document["shown"]
    assert (shown["case"], shown["true"]["report"]) == (case.name, REPORTS[case.zones.index])
    bins = document["wrong_zones"]["bins"]
    assert sum(found["cases"] for found in bins) == document["wrong_zones"]["cases"] == 4
    own, true = examine(Predictor(bench.player("sgseg", 0)), _split(bench), [Guidance.SELF, Guidance.TEXT])
    wrong = (own.zones_pred != own.zones_true).sum(1)
    assert [found["cases"] for found in bins] == np.bincount(wrong, minlength=7).tolist()
    for evaluation in (own, true):
        mean = sum(b["cases"] * b[evaluation.name]["per_image_dice"]["value"] for b in bins if b["cases"]) / 4
        assert mean == pytest.approx(evaluation.summary()["per_image"]["dice"]["value"], abs=1e-3)


def test_figure5(bench: Bench) -> None:
    files = reproduce("figure5", bench)
    _check_files(files, bench)
    assert [file.is_relative_to(bench.results) for file in files] == [True, False, False]
    document = _read(files[0])
    assert [shown["case"] for shown in document["shown"]] == [case.name for case in _split(bench)[:2]]
    player = bench.player("sgseg", 0)
    shown = pictures.show(player, _split(bench)[0], Guidance.SELF)
    looks = figure5.looks(player, shown)
    assert [look.name for look in looks][:2] == ["upper left", "middle left"] and len(looks) == 7
    weights = np.array([look.probability for look in looks[:6]])
    mean = np.tensordot(weights / weights.sum(), np.stack([look.attention for look in looks[:6]]), 1)
    np.testing.assert_allclose(looks[6].attention, mean, atol=1e-5)
    for look, told in zip(looks, document["shown"][0]["maps"], strict=True):
        assert look.attention.sum() == pytest.approx(1, abs=1e-4)
        inside = look.attention[shown.truth].sum()
        assert told["attention_in_the_lesion"] == pytest.approx(inside, abs=1e-3)


def _split(bench: Bench) -> list[Any]:
    """Whose cases all have zones."""
    return read_cases(bench.root, "test")


# --- figures, part by part


def test_wordpieces_are_joined() -> None:
    joined = figure2.join_wordpieces(["[CLS]", "un", "##ila", "##tera", "##l", "lung", "[SEP]"])
    assert [word for word, _ in joined] == ["[CLS]", "unilateral", "lung", "[SEP]"]
    assert [(places.start, places.stop) for _, places in joined] == [(0, 1), (1, 5), (5, 6), (6, 7)]


def test_words_have_their_kinds() -> None:
    words = {word for report in REPORTS for word in re.findall(r"\w+|[^\w\s]", report)}
    kinds = {name: {word for word in words if figure2.class_of(word) == name} for name in figure2.CLASSES}
    assert kinds["location"] == {"upper", "middle", "lower"}
    assert kinds["count"] == {"one", "two", "three", "four", "five", "six"}
    assert kinds["extent"] == {"unilateral", "bilateral"}
    assert kinds[figure2.OTHER] == {
        *("pulmonary", "infection", "infected", "area", "areas", "lung", "and", "no")
    }


def test_statistics_of_words() -> None:
    """Location words get three times as much as any other token: two in one report, one in the other."""
    tokens = [
        ["[CLS]", "upper", "lower", "left", "un", "##ila"],
        ["[CLS]", "lower", "left", ".", "[PAD]", "[PAD]"],
    ]
    weights = np.array([[1, 3, 3, 1, 1, 1], [1, 3, 1, 1, 1, 1]], dtype=np.float64)
    found = figure2.statistics(weights / weights.sum(1, keepdims=True), [0, 1], tokens, ["a", "b"])
    location = found["classes"]["location"]
    assert location["share"]["value"] == pytest.approx((6 / 10 + 3 / 8) / 2)
    assert location["even_share"] == pytest.approx((2 / 6 + 1 / 6) / 2)
    assert location["mean_per_token"] == pytest.approx((6 / 10 + 3 / 8) / 3)
    rest = (4 / 10 + 5 / 8) / 9
    assert location["times_the_other_tokens"]["value"] == pytest.approx(location["mean_per_token"] / rest)
    words = (3 / 10 + 1 / 8) / 4  # left, unila, left
    assert location["times_the_other_words"]["value"] == pytest.approx(location["mean_per_token"] / words)
    assert found["classes"]["padding"]["times_the_other_words"] is None
    assert "count" not in found["classes"]
    assert sum(each["share"]["value"] for each in found["classes"].values()) == pytest.approx(1)
    lower, unila = found["words"]["lower"], found["words"]["unila"]
    assert (lower["images"], lower["occurrences"]) == (2, 2)
    assert lower["mean"] == pytest.approx((3 / 10 + 3 / 8) / 2)
    assert lower["sd_over_images"] == pytest.approx((3 / 8 - 3 / 10) / 2)
    assert (unila["mean"], unila["even"]) == (pytest.approx(2 / 10), pytest.approx(2 / 6))


def test_even_attention_dominates_nothing() -> None:
    config = configs.load("sgseg-mini", ["data.root=."])
    network, _ = initial(config)
    assert isinstance(network, SGSeg)
    tokens = report_tokens(network, config)
    assert tokens[0][:5] == ["[CLS]", "no", "infection", ".", "[SEP]"]
    reports = [1, 21, 63]
    found = figure2.statistics(np.full((3, 24), 1 / 24), reports, tokens, ["a", "b", "c"])
    for each in found["classes"].values():
        assert each["share"]["value"] == pytest.approx(each["even_share"])
        ratio = each["times_the_other_tokens"]
        assert [ratio["low"], ratio["high"]] == pytest.approx([1, 1])


def test_a_ratio_is_of_sums() -> None:
    ratio = figure2.Ratio(
        Score(np.array([1, 3]), np.array([1, 1])), Score(np.array([1, 0]), np.array([2, 2]))
    )
    assert ratio.of(ratio.summands.sum(0)) == pytest.approx(2 / 0.25)
    assert ratio.of(np.zeros(4)) == 1


def test_words_that_differ_are_marked() -> None:
    own, true = figure4.mark_differences(
        "unilateral pulmonary infection, one infected area, lower left lung.",
        "bilateral pulmonary infection, two infected areas, lower left lung and upper right lung.",
    )
    assert [word for word, differs in own if differs] == ["unilateral", "one", "area"]
    assert [word for word, differs in true if differs] == [
        *("bilateral", "two", "areas", "and", "upper", "right", "lung")
    ]


def test_what_is_not_marked_is_the_same() -> None:
    for own in REPORTS[::5]:
        for true in REPORTS[::3]:
            marked = figure4.mark_differences(own, true)
            kept = [[word for word, differs in words if not differs] for words in marked]
            assert kept[0] == kept[1]
            assert any(differs for words in marked for _, differs in words) == (own != true)
            written = ["".join(word for word, _ in words) for words in marked]
            assert written == [own.replace(" ", ""), true.replace(" ", "")]


def test_dice_against_wrong_zones() -> None:
    zones = [ZoneSet(0b000001), ZoneSet(0b000011), ZoneSet(0b000111)]
    cases = [Case(f"c{i}", Path(), None, z, f"p{i}") for i, z in enumerate(zones)]
    probabilities = np.array([[1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 1]], dtype=np.float64)

    def evaluation(guidance: Guidance, tp: list[int]) -> Evaluation:
        counts = Counts.stack([(hits, 10 - hits, 10 - hits, 80) for hits in tp])
        return Evaluation(cases, counts, probabilities, guidance, np.ones(3), None, 0.5)

    found = figure4.wrong_zones(evaluation(Guidance.SELF, [9, 5, 7]), evaluation(Guidance.TEXT, [9, 8, 8]))
    assert [each["cases"] for each in found["bins"]] == [1, 0, 2, 0, 0, 0, 0]
    assert "self" not in found["bins"][1]
    two = found["bins"][2]
    assert two["self"]["per_image_dice"] == pytest.approx({"value": 0.6, "low": 0.5, "high": 0.7})
    assert two["text"]["pooled_dice"]["value"] == pytest.approx(0.8)
    assert two["per_image_gain_of_the_true_report"] == pytest.approx({"value": 0.2, "low": 0.1, "high": 0.3})


def test_objects_are_painted_at_their_boxes() -> None:
    boxes = np.array([[0.25, 0.5, 0.5, 1.0], [0.75, 0.25, 0.5, 0.5], [1.5, 1.5, 0.1, 0.1]], dtype=np.float32)
    painted = figure5.paint(np.array([0.5, 0.25, 0.25], dtype=np.float32), boxes, 8)
    np.testing.assert_allclose(painted[:, :4], 0.5 / 32)
    np.testing.assert_allclose(painted[:4, 4:], 0.25 / 16)
    assert not painted[4:, 4:].any()


def test_how_far_zones_maps_differ() -> None:
    left, right = np.array([[1, 0]], dtype=np.float32), np.array([[0, 1]], dtype=np.float32)
    looks = [figure5.Look("", 0.5, attention) for attention in (left, right, (left + right) / 2)]
    assert figure5._spread(looks[:2]) == pytest.approx(1)
    assert figure5._spread([looks[0], looks[0]]) == 0
    assert figure5._spread(looks) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert figure5._spread([]) is None


def test_the_published_networks_objects_are_looks() -> None:
    torch.manual_seed(0)
    player = TorchRuntime(SGSeg.mini(), 128, Guidance.NONE, Identity("sgseg", "test", ""))
    xray = ChestXray.from_array(phantom.draw(7).pixels)
    prediction = Predictor(player).predict_batch([xray], Guidance.NONE)[0]
    empty = np.zeros(xray.pixels.shape, dtype=np.bool_)
    (look,) = figure5.looks(player, pictures.Shown(xray.pixels, empty, empty, 0.0, prediction))
    assert look.attention.shape == xray.pixels.shape
    assert look.attention.sum() == pytest.approx(1, abs=1e-3)
    assert look.attention.min() >= 0


def test_a_model_that_looks_for_no_zones_says_so(bench: Bench) -> None:
    player = bench.player("languidemedseg", 0)
    shown = pictures.show(player, _split(bench)[0], Guidance.TEXT)
    with pytest.raises(ConfigError, match="tells no zones"):
        figure5.looks(player, shown)


def test_cases_are_found_by_a_part_of_their_names() -> None:
    cases = [
        Case(name, Path(), None, None, name) for name in ("sub-S1_ses-E2", "sub-S1_ses-E20", "sub-S9_ses-E3")
    ]
    assert pictures.find_cases(cases, ["s9", "SUB-s1_ses-e2"]) == [cases[2], cases[0]]
    with pytest.raises(ConfigError, match=r"no case of 'test'.*'s7'"):
        pictures.find_cases(cases, ["S7"])
    with pytest.raises(ConfigError, match="2 cases of 'test'"):
        pictures.find_cases(cases, ["s1"])


def test_the_papers_cases_are_in_qata(qata_root: Path) -> None:
    found = pictures.find_cases(read_cases(qata_root, "test"), figure5.CASES)
    assert [case.name.split("_run")[0] for case in found] == [
        "sub-s08047_ses-e18100",
        "sub-s09356_ses-e19770",
    ]


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table9"], "there is no table9"),
        (["table1", "--preset", "huge"], "there is no preset huge"),
        (["table1", "--seeds", "0,x"], "give for example 0,1,2"),
        (["table1", "--cases", "s1"], "leave out --cases"),
        (["figure2", "--only", "unet"], "leave out --only"),
        (["figure3", "--seeds", "0,1"], "one number"),
        (["table1", "--only", "clip"], "no run 'clip'"),
    ],
)
def test_wrong_use_is_told(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["reproduce", "--preset", "smoke", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_the_command_line_prints_the_table(tmp_path: Path, bench: Bench) -> None:
    """From records alone: no data set, no runs."""
    bench.published.mkdir(parents=True, exist_ok=True)
    records = {path.stem for path in bench.published.glob("*-seed0.json")}
    if records != {f"{name}-seed0" for name in RUNS}:
        pytest.skip("test_smoke did not run")
    shutil.copytree(bench.published, tmp_path / "results" / "smoke")
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    result = CliRunner().invoke(app, ["reproduce", "table2", "--preset", "smoke", *folders])
    assert result.exit_code == 0, result.exception
    assert "| LERG | self |" in result.stdout and "not trained yet" not in result.stdout
    assert not (tmp_path / "runs").exists()
