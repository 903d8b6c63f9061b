"""The paper's tables in the preset that CI can afford: everything is trained, examined and written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from sgseg import reproduce as tables
from sgseg.errors import ConfigError
from sgseg.models.baselines import BASELINES
from sgseg.reports import Guidance
from sgseg.training.networks import WEIGHTS


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("reproduce")
    return root / "runs", root / "results"


@pytest.mark.parametrize("table", ["table2", "table1"])
def test_smoke(table: str, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    runs, results = folders
    monkeypatch.setenv("SGSEG_CACHE", str(runs / "cache"))
    said: list[str] = []
    path = tables.reproduce(table, "smoke", None, 0, runs, results, said.append)
    document = json.loads(path.with_suffix(".json").read_text())
    rows = tables.TABLES[table]
    assert [row["system"] for row in document["rows"]] == [row.name for row in rows]
    assert (document["split"], document["cases"], document["seed"]) == ("test", 4, 0)
    for row, line in zip(
        document["rows"], path.read_text().split("|---|")[-1].splitlines()[1:], strict=False
    ):
        dice = row["pooled"]["dice"]
        assert 0 <= dice["low"] <= dice["value"] <= dice["high"] <= 1
        jaccard = row["pooled"]["jaccard"]["value"]
        assert jaccard == pytest.approx(dice["value"] / (2 - dice["value"]), abs=1e-4)
        assert row["parameters"] > 1e6
        assert row["system"] in line and f"{dice['value']:.4f}" in line
    assert len(said) == len({row.run for row in rows})
    assert not (results / "test-ledger.csv").exists()


def test_what_is_finished_is_not_trained_again(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, results = folders
    weights = runs / "smoke" / "sgseg-seed0" / WEIGHTS
    if not weights.is_file():
        pytest.skip("test_smoke did not run")
    before = weights.stat().st_mtime_ns
    monkeypatch.setattr(tables, "examine", None)  # would be called for a record that is not taken
    tables.reproduce("table2", "smoke", None, 0, runs, results, lambda _: None)
    assert weights.stat().st_mtime_ns == before


@pytest.mark.parametrize("preset", tables.PRESETS)
@pytest.mark.parametrize("name", tables.RUNS)
def test_every_run_has_a_valid_recipe(name: str, preset: tables.Preset) -> None:
    config = tables.plan(name, preset, Path(), 3)
    assert config.seed == 3
    assert config.stages[-1].objective == "segmentation"
    assert (config.stages[0].objective == "contrastive") == (name in ("clip", "prototypes"))


def test_every_baseline_has_its_row() -> None:
    trained = {row.run for rows in tables.TABLES.values() for row in rows}
    assert trained == set(tables.RUNS)
    assert set(BASELINES) <= trained


def test_the_papers_numbers() -> None:
    """As printed in Tables 1 and 2."""
    first = {row.name: row.paper for row in tables.TABLES["table1"] if row.paper}
    assert first["SGSeg"] == (0.971, 0.874, 0.778)
    assert first["LanGuideSeg, text given"] == (0.975, 0.898, 0.815)
    assert first["TransUNet"] == (0.939, 0.806, 0.687)
    second = {row.name: row.paper for row in tables.TABLES["table2"] if row.paper}
    assert second["Without text"] == (0.953, 0.846, 0.725)
    assert second["Full text"] == (0.973, 0.890, 0.797)
    given = [row for rows in tables.TABLES.values() for row in rows if row.guidance is Guidance.TEXT]
    assert all("text" in row.name.lower() or "true" in row.name for row in given)


def test_a_data_set_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data"):
        tables.reproduce("table1", "cpu", None, 0, tmp_path, tmp_path, lambda _: None)
