"""The audit finds what was put wrong in a data set, names it, and finds nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import sgseg_command
from sgseg.anatomy import ZONES, Laterality, Level, Side, Zone, ZoneSet
from sgseg.data import phantom
from sgseg.data.audit import CHECKS, Audit, audit, list_cases
from sgseg.data.captions import ROWS, disagreements, learn_reaches, profile
from sgseg.data.duplicates import SIMILAR, same_pictures, thumbnail
from sgseg.data.phantom import write_dataset
from sgseg.errors import DataError
from sgseg.formats import save_audit
from sgseg.reports import write

EVERYWHERE = dict.fromkeys(Level, (0, ROWS))
THIRDS = {Level.UPPER: (0, 14), Level.MIDDLE: (10, 22), Level.LOWER: (18, ROWS)}
UPPER_LEFT, LOWER_LEFT, LOWER_RIGHT = (
    ZoneSet.of([Zone(side, level)])
    for side, level in (
        (Side.IMAGE_LEFT, Level.UPPER),
        (Side.IMAGE_LEFT, Level.LOWER),
        (Side.IMAGE_RIGHT, Level.LOWER),
    )
)


# --- the same picture


def pictures(n: int, size: int = 224) -> list[np.ndarray]:
    return [phantom.draw(seed, size).pixels.astype(np.float32) / 255 for seed in range(n)]


def found(images: list[np.ndarray]) -> list[tuple[int, int, bool]]:
    pairs = same_pictures(np.stack([thumbnail(image.astype(np.float32)) for image in images]))
    return sorted((pair.first, pair.second, pair.mirrored) for pair in pairs)


def test_copies_are_found_and_nothing_else() -> None:
    images = pictures(12)
    darker = 0.2 + 0.5 * images[3]
    smaller = phantom.draw(5, 160).pixels.astype(np.float32) / 255
    noisy = np.clip(images[7] + np.random.default_rng(0).normal(0, 0.05, (224, 224)), 0, 1)
    shifted = np.roll(images[9], 1, axis=1)
    expected = [(0, 12), (3, 13), (5, 14), (7, 15), (9, 16)]
    assert found([*images, images[0], darker, smaller, noisy, shifted]) == [
        (*pair, False) for pair in expected
    ]


def test_mirror_images_are_told_from_copies() -> None:
    images = pictures(6)
    assert found([*images, images[2][:, ::-1], 1.1 * images[4]]) == [(2, 6, True), (4, 7, False)]


def test_no_pair_is_lost_by_sorting_out() -> None:
    """Against all correlations, of pictures that differ by more and more."""
    random = np.random.default_rng(1)
    base = random.random((32, 32)).astype(np.float32)
    copies = np.stack([base + s * random.random((32, 32)) for s in np.linspace(0, 0.6, 60)]).astype(
        np.float32
    )
    correlation = np.corrcoef(copies.reshape(60, -1))
    literal = {(i, j) for i in range(60) for j in range(i + 1, 60) if correlation[i, j] >= SIMILAR}
    assert 0 < len(literal) < 60 * 59 / 2
    assert {(pair.first, pair.second) for pair in same_pictures(copies) if not pair.mirrored} == literal


def test_uniform_pictures_are_not_the_same() -> None:
    assert found([np.full((64, 64), 0.5), np.full((64, 64), 0.6)]) == []


# --- reports against masks


def mask(*parts: tuple[int, int, int, int]) -> np.ndarray:
    """(320, 200) bool; a part is top, left, bottom, right."""
    drawn = np.zeros((320, 200), dtype=bool)
    for top, left, bottom, right in parts:
        drawn[top:bottom, left:right] = True
    return drawn


def kinds(drawn: np.ndarray, zones: ZoneSet, reaches: dict[Level, tuple[int, int]] = THIRDS) -> list[str]:
    return [disagreement.kind for disagreement in disagreements(profile(drawn), zones, reaches)]


def test_profile_tells_halves_and_heights() -> None:
    spread = profile(mask((0, 0, 10, 50), (310, 150, 320, 200)))
    assert spread.shape == (2, ROWS)
    assert spread[Side.IMAGE_LEFT.value, 0] == pytest.approx(0.5)
    assert spread[Side.IMAGE_RIGHT.value, -1] == pytest.approx(0.5)
    assert spread.sum() == pytest.approx(1)
    assert not profile(mask()).any()


def test_what_agrees_is_not_told() -> None:
    assert kinds(mask((250, 20, 300, 80)), LOWER_LEFT) == []
    assert (
        kinds(mask((250, 20, 300, 80), (20, 20, 60, 80)), ZoneSet(UPPER_LEFT.index | LOWER_LEFT.index)) == []
    )
    assert kinds(mask((250, 20, 300, 105)), LOWER_LEFT) == [], "a few pixels beyond the middle"


def test_the_other_side_is_told() -> None:
    left = mask((250, 20, 300, 80))
    (disagreement,) = disagreements(profile(left), LOWER_RIGHT, THIRDS)
    assert disagreement.kind == "side_swapped"
    assert disagreement.detail == "names image-right only; 100% of the lesion is on the other side"


def test_a_lung_too_many_or_too_few_is_told() -> None:
    both = ZoneSet(LOWER_LEFT.index | LOWER_RIGHT.index)
    (disagreement,) = disagreements(profile(mask((250, 20, 300, 80))), both, THIRDS)
    assert disagreement.kind == "side"
    assert disagreement.detail == "names image-right, which has no lesion"
    assert kinds(mask((250, 20, 300, 80), (250, 120, 300, 150)), LOWER_LEFT) == ["side"]


def test_zones_are_told() -> None:
    two = ZoneSet(UPPER_LEFT.index | LOWER_LEFT.index)
    assert kinds(mask((250, 20, 300, 80)), two) == ["zone_empty"]
    assert kinds(mask((250, 20, 300, 80), (20, 20, 60, 80)), LOWER_LEFT) == ["zone_unnamed"]
    assert kinds(mask((20, 20, 60, 80)), LOWER_LEFT) == ["zone_empty", "zone_unnamed"]
    assert kinds(mask((20, 20, 60, 80)), LOWER_LEFT, EVERYWHERE) == [], "nothing is known of the zones"


def test_reaches_are_learnt_from_lungs_with_one_zone() -> None:
    upper, lower = profile(mask((40, 20, 80, 80))), profile(mask((200, 20, 280, 80)))
    zones = np.array([UPPER_LEFT.vector] * 20 + [LOWER_LEFT.vector] * 20, dtype=bool)
    reaches = learn_reaches(np.stack([upper] * 20 + [lower] * 20), zones)
    assert reaches == {Level.UPPER: (4, 8), Level.MIDDLE: (0, ROWS), Level.LOWER: (20, 28)}
    assert learn_reaches(np.stack([upper] * 19), zones[:19]) == EVERYWHERE, "too few to learn from"


# --- a whole data set


class Builder:
    """A data set of one's own in which things can be put wrong."""

    def __init__(self, root: Path) -> None:
        self.root, self.rows = root, []
        root.mkdir()

    def add(
        self, split: str, name: str, pixels: np.ndarray, lesion: np.ndarray, report: str, patient: str = ""
    ) -> None:
        Image.fromarray(pixels).save(self.root / f"{name}.png")
        Image.fromarray(lesion).save(self.root / f"{name}_mask.png")
        self.rows.append([split, f"{name}.png", f"{name}_mask.png", report, patient])

    def draw(
        self, split: str, seed: int, name: str = "", zones: ZoneSet | None = None, patient: str = ""
    ) -> None:
        drawn = phantom.draw(seed, 96, zones)
        report = write(drawn.zones, Laterality.PATIENT)
        self.add(split, name or f"p{seed}", drawn.pixels, drawn.mask.astype(np.uint8) * 255, report, patient)

    def finish(self) -> Audit:
        with (self.root / "cases.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["split", "image", "mask", "report", "patient"], *self.rows])
        return audit(list_cases(self.root))


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Builder]:
    builder = Builder(tmp_path / "data")
    for seed in range(8):
        builder.draw("train" if seed < 5 else "test", seed, zones=ZoneSet(seed + 1))
    yield builder


def of(audited: Audit) -> dict[str, list[tuple[str, ...]]]:
    """Cases of the findings, by check."""
    return {key: [f.cases for f in findings] for key, findings in audited.findings.items() if findings}


def test_nothing_is_found_where_nothing_is_wrong(built: Builder) -> None:
    audited = built.finish()
    assert of(audited) == {}
    assert len(audited.looks) == len(audited.cases) == 8


def test_copies_and_patients_across_splits(built: Builder) -> None:
    built.draw("test", 0, "copy", ZoneSet(1))
    built.draw("test", 20, "a", patient="Ann")
    built.draw("train", 21, "b", patient="Ann")
    built.draw("train", 22, "c", patient="Bob")
    built.draw("train", 23, "d", patient="Bob")
    audited = built.finish()
    assert of(audited) == {
        "duplicate_across": [("train/p0", "test/copy")],
        "patient": [("train/b", "test/a")],
    }
    assert audited.findings["patient"][0].detail == "Ann: 1 in train, 1 in test"
    assert audited.findings["duplicate_across"][0].detail == (
        "identical pixels; masks agree with Dice 1.00; same zones reported"
    )


def test_mirror_images_compare_masks_and_zones_mirrored(built: Builder) -> None:
    drawn = phantom.draw(0, 96, ZoneSet(1))
    lesion = drawn.mask.astype(np.uint8) * 255
    report = write(drawn.zones.flipped(), Laterality.PATIENT)
    built.add("train", "mirrored", drawn.pixels[:, ::-1], lesion[:, ::-1], report)
    audited = built.finish()
    assert of(audited) == {"mirrored": [("train/p0", "train/mirrored")]}
    assert audited.findings["mirrored"][0].detail == (
        "correlation 1.0000; masks agree with Dice 1.00; same zones reported"
    )


def test_reports_of_the_other_side(built: Builder) -> None:
    drawn = phantom.draw(30, 96, LOWER_LEFT)
    lesion = drawn.mask.astype(np.uint8) * 255
    built.add("train", "wrong", drawn.pixels, lesion, write(LOWER_LEFT, Laterality.IMAGE))
    drawn = phantom.draw(31, 96, LOWER_LEFT)
    lateral = write(LOWER_RIGHT, Laterality.PATIENT)
    built.add("train", "sub-1_vp-ll_cr", drawn.pixels, drawn.mask.astype(np.uint8) * 255, lateral)
    audited = built.finish()
    assert of(audited) == {"side_swapped": [("train/wrong",)], "lateral": [("train/sub-1_vp-ll_cr",)]}
    assert audited.document()["sides"]["contradict"] == 1


def test_a_wrong_laterality_of_the_whole_set_is_told_on_the_page(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "data")
    for seed in range(4):
        drawn = phantom.draw(seed, 96, LOWER_LEFT if seed % 2 else LOWER_RIGHT)
        report = write(drawn.zones, Laterality.IMAGE)  # but a table's default is the patient's
        builder.add("train", f"p{seed}", drawn.pixels, drawn.mask.astype(np.uint8) * 255, report)
    page = save_audit(builder.finish(), tmp_path / "out").read_text()
    assert "The reports mean the other left" in page


def test_files_that_are_wrong(built: Builder) -> None:
    plain = phantom.draw(40, 96, LOWER_LEFT)
    nothing, report = np.zeros((96, 96), dtype=np.uint8), write(LOWER_LEFT, Laterality.PATIENT)
    built.add("train", "damaged", plain.pixels, nothing, report)
    (built.root / "damaged.png").write_bytes(b"no picture")
    built.add("train", "misfit", phantom.draw(41, 96).pixels, np.zeros((50, 60), dtype=np.uint8), report)
    built.add("train", "empty", phantom.draw(42, 96).pixels, nothing, report)
    drawn = phantom.draw(43, 96, LOWER_LEFT)
    built.add("train", "denied", drawn.pixels, drawn.mask.astype(np.uint8) * 255, "no infection.")
    drawn = phantom.draw(45, 96, LOWER_LEFT)
    built.add("train", "unclear", drawn.pixels, drawn.mask.astype(np.uint8) * 255, "something at the base")
    drawn = phantom.draw(46, 96, LOWER_LEFT)
    built.add("train", "negative", 255 - drawn.pixels, drawn.mask.astype(np.uint8) * 255, report)
    found = of(built.finish())
    assert found["unreadable"] == [("train/damaged",), ("train/misfit",)]
    assert found["empty_mask"] == [("train/empty",)]
    assert found["unreported"] == [("train/denied",)]
    assert found["not_understood"] == [("train/unclear",)]
    assert found["negative"] == [("train/negative",)]


def test_masks_with_more_than_two_values(built: Builder) -> None:
    drawn = phantom.draw(44, 96, LOWER_LEFT)
    lesion = drawn.mask.astype(np.uint8) * 255
    lesion[0, :2] = 3, 100
    built.add("train", "soft", drawn.pixels, lesion, write(LOWER_LEFT, Laterality.PATIENT))
    assert of(built.finish()) == {"soft_mask": [("train/soft",)]}


def test_splits_that_cannot_be_read_do_not_hide_the_others(built: Builder) -> None:
    built.rows.append(["valid", "nowhere.png", "nowhere_mask.png", "", ""])
    audited = built.finish()
    assert "nowhere.png" in audited.findings["split"][0].detail
    assert len(audited.looks) == 8


def test_facts_and_drift(built: Builder) -> None:
    document = built.finish().document()
    train = document["splits"]["train"]
    assert (train["cases"], train["patients_known"], train["with_report"]) == (5, False, 5)
    assert train["sizes"] == {"96×96": 5} and train["modes"] == {"L": 5}
    assert sum(train["reports_in_image_laterality"].values()) == 5
    upper_left = ZONES[0].name(Laterality.IMAGE)  # in the zone sets 1, 3 and 5
    assert train["zones_in_image_laterality"][upper_left] == pytest.approx(3 / 5)
    (drift,) = document["drift"]
    assert (drift["a"], drift["b"], drift["reports"]) == ("train", "test", pytest.approx(1))
    assert all(0 <= value <= 1 for key, value in drift.items() if key not in "ab")


def test_page_and_document(built: Builder, tmp_path: Path) -> None:
    built.draw("test", 0, "copy<&>", ZoneSet(1))
    page = save_audit(built.finish(), tmp_path / "deep" / "out")
    text = page.read_text()
    assert "copy&lt;&amp;&gt;" in text and "copy<&>" not in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert "http" not in text.replace("data:image", ""), "the page must need nothing from outside"
    document = json.loads((page.parent / "audit.json").read_text())
    assert document["findings"].keys() == CHECKS.keys()
    assert document["findings"]["duplicate_across"]["found"][0]["cases"] == ["train/p0", "test/copy<&>"]


def test_command(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"train": 3, "valid": 2}, 900, 96)
    done = sgseg_command("data", "audit", str(tmp_path / "data"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "5 cases" in done.stdout and "Patients in two splits" in done.stdout
    assert (tmp_path / "out" / "audit.html").is_file() and (tmp_path / "out" / "audit.json").is_file()


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    write_dataset(tmp_path / "data", {"train": 1}, 900, 64)
    for arguments, message in (
        (("nowhere", "--out", str(tmp_path / "out")), "nowhere is not a folder"),
        ((str(tmp_path / "empty"), "--out", str(tmp_path / "out")), "is no data set"),
        ((str(tmp_path / "data"), "--out", str(tmp_path / "file")), "give another folder"),
    ):
        done = sgseg_command("data", "audit", *arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_no_split_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,mask\nnowhere.png,nowhere_mask.png\n")
    with pytest.raises(DataError, match=r"nowhere\.png"):
        list_cases(tmp_path)
