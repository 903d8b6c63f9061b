"""What is written and drawn: where lines, letters and zones lie, and that files are whole or absent."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgseg.anatomy import ZONES, Laterality, Side, Zone, ZoneSet
from sgseg.evaluation import pooled
from sgseg.evaluation.metrics import Counts
from sgseg.formats import (
    SheetRow,
    atomic,
    contact_sheet,
    overlay,
    save_mask,
    save_picture,
    write_json,
    zone_grid,
)
from sgseg.formats.drawing import BLUE, ORANGE, font, inner_edge, outer_edge, shorten, wrap

H, W = 224, 300
GREY = np.full((H, W), 0.5, dtype=np.float32)


def square(top: int, left: int, size: int) -> np.ndarray:
    mask = np.zeros((H, W), dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


MASK, TRUTH, EMPTY = square(100, 50, 20), square(110, 60, 40), square(0, 0, 0)


def is_colour(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return np.all(np.asarray(picture) == colour, axis=2)


def test_predicted_contour_is_the_rim_of_the_mask() -> None:
    inside = square(101, 51, 18)
    assert np.array_equal(is_colour(overlay(GREY, MASK), ORANGE), MASK & ~inside)


def test_true_contour_surrounds_the_true_mask() -> None:
    ring = is_colour(overlay(GREY, EMPTY, TRUTH), BLUE)
    assert not (ring & TRUTH).any()
    assert np.array_equal(ring, outer_edge(TRUTH, 1))
    assert ring[109, 60] and ring[150, 60] and ring[110, 59] and ring[110, 100]
    assert ring.sum() == 4 * 40


def test_both_contours_show_where_the_masks_agree() -> None:
    picture = overlay(GREY, MASK, MASK)
    assert is_colour(picture, ORANGE).sum() == 4 * 19
    assert is_colour(picture, BLUE).sum() == 4 * 20


def test_lesion_is_translucent_and_the_rest_untouched() -> None:
    pixels = np.random.default_rng(0).random((H, W), dtype=np.float32)
    picture = np.asarray(overlay(pixels, MASK, sides=False)).astype(int)
    assert np.array_equal(picture[~MASK], np.rint(pixels * 255).astype(int)[~MASK][:, None].repeat(3, 1))
    inside = square(101, 51, 18)
    assert len(np.unique(picture[inside][:, 0])) > 50  # the X-ray shows through
    assert (picture[inside][:, 0] > picture[inside][:, 2]).all()


def test_contours_close_at_the_border_and_are_as_wide_as_asked() -> None:
    everything = np.ones((20, 30), dtype=bool)
    rim = inner_edge(everything, 3)
    assert rim.sum() == 20 * 30 - 14 * 24
    assert not outer_edge(everything, 3).any()
    dot = np.zeros((21, 21), dtype=bool)
    dot[10, 10] = True
    ring = outer_edge(dot, 4)
    assert ring[10].sum() == ring[:, 10].sum() == 8


@pytest.mark.parametrize("shape", [(224, 224), (500, 300), (3000, 4000)])
def test_side_letters_stand_at_the_patients_sides(shape: tuple[int, int]) -> None:
    height, width = shape
    pixels, empty = np.full(shape, 0.5, dtype=np.float32), np.zeros(shape, dtype=bool)
    bare = np.asarray(overlay(pixels, empty, sides=False)).astype(int)
    drawn = np.asarray(overlay(pixels, empty)).astype(int)
    changed = (drawn != bare).any(2)
    rows, _ = np.nonzero(changed)
    assert rows.max() < height / 5
    assert not changed[:, width // 5 : -width // 5].any()
    letters = (drawn > 200).all(2)
    left, right = letters[:, : width // 5], letters[:, -width // 5 :]
    assert 8 <= np.ptp(np.nonzero(left.any(1))[0]) + 1 <= max(12, min(shape) * 0.07)
    letter_r, letter_l = (part[np.ix_(part.any(1), part.any(0))] for part in (left, right))
    # An L is a stem at the left and a foot; an R has ink at its upper right, where an L has none.
    assert letter_r[: len(letter_r) // 2, letter_r.shape[1] // 2 :].mean() > 0.2
    assert letter_l[: len(letter_l) // 2, letter_l.shape[1] // 2 :].mean() < 0.05
    assert letter_l[-1].mean() > 0.8


def test_overlay_keeps_the_size_and_refuses_other_shapes() -> None:
    assert overlay(GREY, MASK).size == (W, H)
    with pytest.raises(ValueError, match="shape"):
        overlay(GREY, MASK.T)
    with pytest.raises(ValueError, match="shape"):
        overlay(GREY, MASK, TRUTH.T)


def test_mask_keeps_rows_and_columns(tmp_path: Path) -> None:
    mask = square(3, 7, 5)
    save_mask(mask, tmp_path / "mask.png")
    picture = Image.open(tmp_path / "mask.png")
    assert (picture.mode, picture.size) == ("L", (W, H))
    values = np.asarray(picture)
    assert np.array_equal(values, np.where(mask, 255, 0))
    with pytest.raises(ValueError, match="bool"):
        save_mask(mask.astype(np.uint8), tmp_path / "bad.png")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["report.json", "segmentation.nii.gz", "no suffix"])
def test_atomic_files_are_whole_or_as_before(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with atomic(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
        assert temporary.suffixes == path.suffixes
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_writers_leave_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    save_picture(Image.new("L", (4, 4)), path)
    old = path.read_bytes()

    def half(self: Image.Image, where: Path, **_: object) -> None:
        where.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="no space"):
        save_mask(MASK, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    save_mask(MASK, tmp_path / "mask.png")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "mask.png")]
    assert modes[0] == modes[1]


def test_json_is_rounded_utf8_in_the_documents_order(tmp_path: Path) -> None:
    path = tmp_path / "é.json"
    counts = Counts.stack([(1, 1, 0, 1)])
    document = {
        "zones": np.array([0.123456, 1], dtype=np.float32),
        "name": "Röntgen",
        "dice": pooled(counts).dice,
        "area": np.int64(3),
        "found": np.bool_(True),
        "tiny": -0.0000123456,
        "nothing": -0.0,
        "report": None,
        "nested": [{"a": (1, 2.00004)}],
    }
    write_json(path, document)
    text = path.read_text("utf-8")
    assert "Röntgen" in text and "-0.0" not in text and text.endswith("}\n")
    expected = {
        "zones": [0.1235, 1.0],
        "name": "Röntgen",
        "dice": 0.6667,
        "area": 3,
        "found": True,
        "tiny": -1.235e-05,
        "nothing": 0.0,
        "report": None,
        "nested": [{"a": [1, 2.0]}],
    }
    assert json.loads(text) == expected
    assert list(json.loads(text)) == list(expected)


def test_json_takes_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"scan-\xff.png")
    write_json(tmp_path / "a.json", {"file": name})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"file": name}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), np.float32("nan")])
def test_json_refuses_what_is_no_number_and_says_where(tmp_path: Path, number: float) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match=r"a\.json: scores: dice\[1\] is (nan|inf)"):
        write_json(path, {"scores": {"dice": [0.5, number]}})
    with pytest.raises(TypeError, match="Path"):
        write_json(path, {"where": path})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("zone", ZONES)
def test_zone_grid_shades_the_zone_where_the_xray_has_it(zone: Zone) -> None:
    size = 240
    picture = zone_grid(ZoneSet.of([zone]).vector, size)
    shaded = is_colour(picture, ORANGE)
    rows, columns = np.nonzero(shaded)
    assert (columns.max() < size / 2) == (zone.side is Side.IMAGE_LEFT)
    assert (columns.min() > size / 2) == (zone.side is Side.IMAGE_RIGHT)
    top = size * 0.13
    assert int((rows.mean() - top) / (size - top) * 3) == zone.level.value


def test_zone_grid_heading_names_the_patients_sides() -> None:
    zones = [0.1, 0.2, 0.3, 0.3, 0.2, 0.1]
    patient, image = zone_grid(zones, 240), zone_grid(zones, 240, Laterality.IMAGE)
    heading = np.asarray(patient.convert("L"))[:28] < 200
    left, right = heading[:, :120], heading[:, 120:]
    assert left.sum() > right.sum() > 0  # "R" has more ink than "L"
    assert (np.asarray(image.convert("L"))[:28] < 200).sum() > 2 * heading.sum()  # words, not letters
    assert np.array_equal(np.asarray(patient)[60:], np.asarray(image)[60:])
    with pytest.raises(ValueError, match="zip"):
        zone_grid(zones[:5], 240)


def row(label: str = "worst", **changes: object) -> SheetRow:
    report = "bilateral pulmonary infection, two infected areas, lower left lung and lower right lung."
    fields = {
        "pixels": GREY,
        "truth": TRUTH,
        "mask": MASK,
        "zones": [0.1] * 6,
        "report": report,
        "dice": 0.12,
    }
    return SheetRow(label=label, **{**fields, **changes})  # type: ignore[arg-type]


def test_contact_sheet_has_a_row_per_case_with_truth_left_of_prediction() -> None:
    one, three = contact_sheet([row()], "title"), contact_sheet([row()] * 3, "title")
    assert one.width == three.width
    assert three.height - one.height == 2 * (320 + 24)
    pixels = np.asarray(one)[220:].astype(int)  # below the legend
    truth, prediction = pixels[:, 392:712], pixels[:, 736:1056]
    assert not (np.asarray(pixels[:, 48:368]).std(2) > 1).any()  # the X-ray itself is bare
    bluish, orange = (truth[..., 2] > truth[..., 0] + 20), (prediction[..., 0] > prediction[..., 2] + 20)
    assert bluish.sum() == pytest.approx((40 * 320 / W) ** 2, rel=0.2)
    assert orange.sum() == pytest.approx((20 * 320 / W) ** 2, rel=0.2)


def test_contact_sheet_takes_long_words_and_lateral_views() -> None:
    frontal = contact_sheet([row("sub-s12536_ses-e24791_acq-1_run-1_bp-chest_vp-ll_dx.png")], "title")
    lateral = contact_sheet([row(sides=False)], "title")
    margin = np.asarray(frontal)[:, -48:]
    assert (margin == 255).all()
    letters = (slice(232, 264), slice(736, 1056))  # the upper edge of the prediction
    assert np.asarray(frontal)[letters].max() > 200
    assert np.asarray(lateral)[letters].max() < 200
    with pytest.raises(ValueError, match="differ in shape"):
        row(mask=MASK.T)


def test_text_is_wrapped_and_shortened() -> None:
    lines = wrap("one two three four five six seven", 20, 100)
    assert " ".join(lines) == "one two three four five six seven"
    assert len(lines) > 1
    assert all(font(20).getlength(line) <= 100 for line in lines)
    assert shorten("short", 20, 100) == "short"
    short = shorten("a-very-long-file-name-without-spaces.png", 20, 100)
    assert short.startswith("a-very") and short.endswith("…")
    assert font(20).getlength(short) <= 100
