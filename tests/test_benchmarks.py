"""What the benchmarks compute from their measurements; the measuring itself is a command of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from sgseg.data import phantom
from sgseg.imaging import read

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


def test_the_viewers_times_are_medians_of_each_film() -> None:
    viewer = load("viewer")
    (row,) = viewer.summarise({"2048×2500, PNG": ([900.0, 1000.0, 3000.0], [*range(1, 100), 500.0])})
    assert (row["megapixels"], row["opened_ms"], row["clicks"]) == (pytest.approx(5.12), 1000, 100)
    assert (row["click_median_ms"], row["click_p95_ms"]) == (50.5, pytest.approx(95.05))
    assert "| 2048×2500, PNG | 5.1 | 1000 | 50 | 95 | 100 |" in viewer.table([row])


def test_the_viewers_films_are_the_same_as_png_and_as_dicom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pydicom")
    viewer = load("viewer")
    monkeypatch.setattr(viewer, "FILMS", {"96×80, PNG": (96, 80), "96×80, DICOM": (96, 80)})
    plain, tagged = (read(viewer.save_film(name, tmp_path)) for name in viewer.FILMS)
    assert plain.pixels.shape == (80, 96) and (plain.laterality, tagged.laterality) == ("assumed", "tagged")
    assert np.corrcoef(plain.pixels.ravel(), tagged.pixels.ravel())[0, 1] > 0.999  # stretched otherwise


def test_the_input_checks_table_counts_what_is_above_the_limit(tmp_path: Path) -> None:
    check = load("input_check")
    kind = check.Kind("letters", "be refused", [])
    row = check.summary(kind, np.array([0.5, 1.0, 1.5, 2.5], dtype=np.float32))
    assert (row["pictures"], row["refused"]) == (4, 2)
    assert (row["least"], row["median"], row["most"]) == (0.5, 1.25, 2.5)
    assert check.table([row]).endswith("| letters | 4 | be refused | 2 (50%) | 0.50 | 1.25 | 2.50 |")
    card = {"limit": 2.0, "margin": 1.3}
    document = {"model": {"name": "m", "version": "1"}, "input_check": card, "rows": [row]}
    assert "should not: none." in check.page(document)
    missed = {**row, "refused": 1}
    assert "should not: letters." in check.page({**document, "rows": [missed]})


def test_the_input_check_looks_at_every_readable_picture_of_a_folder(tmp_path: Path) -> None:
    check = load("input_check")
    for seed in (1, 2):
        Image.fromarray(phantom.draw(seed).pixels).save(tmp_path / f"{seed}.png")
    (tmp_path / "note.txt").write_text("no picture")
    kinds = {kind.name: kind for kind in check.kinds(64, None, None, [tmp_path], [])}
    assert len(kinds[f"X-rays of {tmp_path.name}"].squares) == 2
    assert {"phantoms", "pages of text", "noise, fine to coarse"} <= set(kinds)
    assert all(square.shape == (64, 64) for kind in kinds.values() for square in kind.squares)


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


def test_every_loss_of_the_ideas_prefers_the_true_mask() -> None:
    torch = pytest.importorskip("torch")
    ideas = load("ideas")
    masks = torch.zeros(2, 1, 32, 32)
    masks[:, :, 8:20, 8:20] = 1
    losses = {name: idea.stage.loss for name, idea in ideas.IDEAS.items() if hasattr(idea.stage, "loss")}
    assert {"tversky-recall", "lovasz", "boundary", "focal", "image-dice", "soft-edges"} <= set(losses)
    for name, loss in losses.items():
        near, far = (loss(4 * (masks.roll(shift, 3) - 0.5), masks) for shift in (1, 12))
        assert 0 < loss(4 * (masks - 0.5), masks) < near < far, name
    recall, precision = losses["tversky-recall"], losses["tversky-precision"]
    more, less = (torch.full_like(masks, value) for value in (4.0, -4.0))
    assert recall(less, masks) - precision(less, masks) > recall(more, masks) - precision(more, masks)


def test_the_ideas_augmentation_moves_masks_with_their_images() -> None:
    torch = pytest.importorskip("torch")
    ideas = load("ideas")
    torch.manual_seed(0)
    masks = torch.zeros(8, 1, 64, 64)
    for i in range(8):
        masks[i, :, 4 + 3 * i : 24 + 3 * i, 30:50] = 1
    both = torch.cat([masks, masks], 1)
    for change in (ideas.bent, ideas.mixup, ideas.cutmix):
        changed = [change(both) for _ in range(8)]
        assert any(not torch.equal(one, both) for one in changed), change
        assert all(((one[:, :1] - one[:, 1:]).abs() > 0.5).float().mean() < 0.01 for one in changed), change
    assert torch.equal(ideas.cutmix(both)[..., :32], both[..., :32])


def test_what_the_ideas_freeze_stays_and_what_they_part_goes_apart(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.torch import load_file

    ideas = load("ideas")
    phantom.write_dataset(tmp_path / "data", {"train": 4, "valid": 2, "test": 2}, 20_000, 64)
    small = ["--data", str(tmp_path / "data"), "stages.0.size=64", "stages.0.epochs=1", "init=random"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGSEG_CACHE", str(tmp_path / "cache"))
        patch.setattr(ideas.run, "StageModule", ideas.StageModule)
        for name in ("control", "frozen", "own-encoder"):
            start = ["--start", str(tmp_path / "control")]
            patch.setattr("sys.argv", ["ideas.py", name, "--out", str(tmp_path / name), *start, *small])
            ideas.main()
    before, after, apart = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("control", "frozen", "own-encoder")
    )
    assert all(np.array_equal(after[name], tensor) for name, tensor in before.items())
    assert any(name.startswith("lerg.") for name in after)
    stems = [apart[f"{encoder}._conv_stem.weight"] for encoder in ("encoder", "own")]
    assert not np.array_equal(*stems), "each encoder learns its own task"
