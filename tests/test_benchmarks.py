"""What the benchmarks compute from their measurements; the measuring itself is a command of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sgseg.data import phantom

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ratios_compare_calls_of_the_same_round() -> None:
    inference = load("inference")
    slow = np.array([1.0, 2.0, 4.0])
    seconds = {
        "artefact": {1: slow / 10, 8: slow / 5},
        "released": {1: slow, 8: slow},
        "ours": {1: slow / 2, 8: slow / 2},
    }
    rows = inference.summarise(seconds, dict.fromkeys(seconds, 2.0**21))
    first = next(row for row in rows if (row["system"], row["batch"]) == ("artefact", 1))
    # The machine slowed down fourfold from round to round; the ratio has no spread.
    assert first["times_released"] == pytest.approx({"median": 10, "p5": 10, "p95": 10})
    assert first["median_ms"] == pytest.approx(200)
    assert first["peak_memory_mb"] == 2
    eight = next(row for row in rows if (row["system"], row["batch"]) == ("ours", 8))
    assert eight["images_per_second"] == pytest.approx(8)
    assert inference.table(rows).count("\n") == len(rows) + 1


def test_the_artefact_segments() -> None:
    inference = load("inference")
    images = np.stack([phantom.draw(seed).pixels for seed in (1, 2)])
    probability = inference.artefact()(images)
    assert probability.shape == images.shape


def test_the_drawing_shows_what_was_measured() -> None:
    torch = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs" / "draw_architecture.py")
    assert spec is not None and spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    from sgseg.models import SGSeg

    torch.manual_seed(0)
    network = SGSeg.mini()
    shapes = draw.trace(network)
    assert shapes["stage 2.0"] == (32, 56, 56)
    assert shapes["out.0"] == (1, 224, 224)
    assert shapes["objects.0"] == (30, 64)
    shown = {text.get_text() for text in draw.draw(network, shapes).axes[0].texts}
    assert "objects X: 30 × 64" in shown
    assert {"guide, 24 tokens; up", "guide, 12 tokens; up", "guide, 9 tokens; up"} <= shown
    assert any("32 × 56 × 56" in text for text in shown)


def test_painting_over_the_lungs_takes_lesions_away_and_leaves_the_frame() -> None:
    blanked_lungs = load("blanked_lungs")
    for seed in range(4):
        one = phantom.draw(seed)
        changed = blanked_lungs.blank(one.pixels) != one.pixels
        width = one.pixels.shape[1]
        assert changed[one.mask].mean() > 0.9
        assert not changed[:, : width // 60].any()
        assert not changed[:, round(0.48 * width) : round(0.52 * width)].any()
