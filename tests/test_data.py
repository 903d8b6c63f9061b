"""Every layout is read, and what is wrong with one is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sgseg.anatomy import Laterality, Level, Side, Zone, ZoneSet
from sgseg.data import Case, load_mask, read_cases, split_names
from sgseg.errors import DataError, MissingExtraError
from sgseg.reports import parse, write

LOWER_LEFT = ZoneSet.of([Zone(Side.IMAGE_LEFT, Level.LOWER)])
LOWER_RIGHT = ZoneSet.of([Zone(Side.IMAGE_RIGHT, Level.LOWER)])


def picture(path: Path, value: int = 0, size: tuple[int, int] = (4, 3)) -> Path:
    """A grey picture, `size` being (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def table(path: Path, *rows: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding=encoding)
    return path


def workbook(path: Path, *rows: tuple[str | None, ...]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def by_name(cases: list[Case]) -> dict[str, Case]:
    return {case.name: case for case in cases}


# --- the authors' layout


def authors(root: Path, names: list[str], split: str = "train", **changes: Any) -> Path:
    """A data set in the authors' layout; `changes` go into every annotation."""
    rows = [
        {
            "image_path": f"mask_{name}.png",
            "caption": write(LOWER_LEFT, Laterality.IMAGE),
            "pulmonary_infection": 1,
            "infected_area": 1,
            "pseudo_label": list(LOWER_LEFT.vector),
        }
        | changes
        for name in names
    ]
    for name in names:
        picture(root / "images" / split / "images" / f"{name}.png")
        picture(root / "images" / split / "masks" / f"mask_{name}.png", 255)
    path = root / "prompts" / "annotation.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | {split: rows}))
    return root


def test_authors_layout(tmp_path: Path) -> None:
    authors(tmp_path, ["sub-s2_ses-e1_dx", "covid_1"])
    authors(tmp_path, ["sub-s3_ses-e1_dx"], "valid")
    assert split_names(tmp_path) == ["train", "valid"]
    first, second = read_cases(tmp_path, "train")
    assert first == Case(
        name="sub-s2_ses-e1_dx",
        image=tmp_path / "images/train/images/sub-s2_ses-e1_dx.png",
        mask=tmp_path / "images/train/masks/mask_sub-s2_ses-e1_dx.png",
        zones=LOWER_LEFT,
        patient="sub-s2",
        report=write(LOWER_LEFT, Laterality.IMAGE),
        laterality=Laterality.IMAGE,
    )
    assert (second.name, second.patient) == ("covid_1", "covid_1")
    assert load_mask(second, (3, 4)).all()


def test_caption_must_agree_with_its_pseudo_label(tmp_path: Path) -> None:
    authors(tmp_path, ["a", "b"], caption=write(LOWER_RIGHT, Laterality.IMAGE))
    with pytest.raises(
        DataError, match=r"2 of 2 cases .*mask_a\.png: the caption .*lower right.* contradicts"
    ):
        read_cases(tmp_path, "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caption": "lower left lug"}, "unknown word, 'lug'"),
        ({"pseudo_label": [0, 0, 1]}, "'001', not six 0/1"),
        ({"pseudo_label": None}, "'', not six 0/1"),
    ],
)
def test_damaged_annotations_are_listed(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    authors(tmp_path, ["a"], **changes)
    with pytest.raises(DataError, match=message):
        read_cases(tmp_path, "train")


def test_annotation_without_a_key(tmp_path: Path) -> None:
    authors(tmp_path, ["a"])
    (tmp_path / "prompts/annotation.json").write_text('{"train": [{"image_path": "mask_a.png"}]}')
    with pytest.raises(DataError, match="row 1: there is no 'caption'"):
        read_cases(tmp_path, "train")


@pytest.mark.parametrize("content", ["[]", '{"train": 3}', '{"train": ["a.png"]}'])
def test_annotation_of_another_shape(tmp_path: Path, content: str) -> None:
    authors(tmp_path, ["a"])
    (tmp_path / "prompts/annotation.json").write_text(content)
    with pytest.raises(DataError, match="not an object with a list of dict"):
        split_names(tmp_path)


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    names = [f"c{number:02}" for number in range(15)]
    authors(tmp_path, names)
    for name in names[2:]:
        (tmp_path / f"images/train/images/{name}.png").unlink()
    with pytest.raises(DataError) as caught:
        read_cases(tmp_path, "train")
    folder = tmp_path / "images/train/images"
    shown = ", ".join(f"{name}.png" for name in names[2:12])
    assert str(caught.value) == f"13 of 15 images are missing under {folder}: {shown}, and 3 more"


def test_missing_masks(tmp_path: Path) -> None:
    authors(tmp_path, ["a", "b"])
    (tmp_path / "images/train/masks/mask_b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 masks are missing under .*masks: mask_b\.png"):
        read_cases(tmp_path, "train")


def test_missing_folder(tmp_path: Path) -> None:
    table(tmp_path / "prompts/annotation.json", '{"train": []}')
    authors(tmp_path, ["a"])
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"1 of 1 images are missing under .*images"):
        read_cases(tmp_path, "train")


def test_duplicates(tmp_path: Path) -> None:
    authors(tmp_path, ["a", "a", "b"])
    with pytest.raises(DataError, match=r"1 names occur more than once in 'train' of .*: a$"):
        read_cases(tmp_path, "train")


def test_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    authors(authors(tmp_path, ["a"]), ["b"], "valid")
    with pytest.raises(DataError, match="has no split 'val'; it has train, valid"):
        read_cases(tmp_path, "val")


def test_empty_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'train' of .* is empty"):
        read_cases(authors(tmp_path, []), "train")


# --- Kaggle's layout

CAPTION = "Unilateral pulmonary infection, one infected area, lower left lung."


def kaggle(root: Path, train: list[str], test: list[str]) -> Path:
    """`QaTa-COV19-v2` in `root`, of which the folder is returned."""
    for kind, names in (("Train Set", train), ("Test Set", test)):
        for name in names:
            picture(root / "QaTa-COV19-v2" / kind / "Images" / f"{name}.png")
            picture(root / "QaTa-COV19-v2" / kind / "Ground-truths" / f"mask_{name}.png", 255)
    return root / "QaTa-COV19-v2"


@pytest.mark.parametrize("up", [False, True])
def test_kaggle_without_spreadsheets(tmp_path: Path, up: bool) -> None:
    folder = kaggle(tmp_path, ["covid_2", "covid_1"], ["sub-S09_ses-E1_dx"])
    root = tmp_path if up else folder
    assert split_names(root) == ["train", "test"]
    assert [case.name for case in read_cases(root, "train")] == ["covid_1", "covid_2"]
    (case,) = read_cases(root, "test")
    assert case.zones is None
    assert case.patient == "sub-s09"
    assert case.mask == folder / "Test Set/Ground-truths/mask_sub-S09_ses-E1_dx.png"


def test_kaggle_with_lvits_spreadsheets(tmp_path: Path) -> None:
    """Mixed-case names, .xlsx beside .csv, at several depths, captions with errors."""
    kaggle(tmp_path, ["covid_1", "Covid_2", "sub-S09_ses-E1_dx"], ["sub-S10_ses-E1_dx"])
    workbook(
        tmp_path / "QaTa-COV19-v2/Train Set/Train_text.xlsx",
        ("Image", "Description"),
        (
            "mask_covid_2.png",
            "Bilateral pulmonary infection, four infected areas, all left lung and upper right lung.",
        ),
        ("mask_covid_1.png", "Unilateral pulmonary infection, one infected area, lwer left lung."),
        (None, None),
    )
    table(tmp_path / "Val_text.csv", "Image,Description", f'mask_sub-s09_ses-e1_dx.png,"{CAPTION}"')
    table(tmp_path / "text/Test_text.csv", "Image;Description", f"MASK_sub-S10_ses-E1_dx.PNG;{CAPTION}")
    (tmp_path / "~$Train_text.xlsx").write_bytes(b"Excel's lock")
    assert split_names(tmp_path) == ["train", "valid", "test"]
    first, second = read_cases(tmp_path, "train")
    assert first.name == "Covid_2"
    assert first.zones == parse("all left lung and upper right lung", Laterality.IMAGE)
    assert first.note == ""
    assert second.name == "covid_1"
    assert second.mask is not None
    assert second.zones is None
    assert "unknown word, 'lwer'" in second.note
    (valid,) = read_cases(tmp_path, "valid")
    assert (valid.name, valid.zones) == ("sub-S09_ses-E1_dx", LOWER_LEFT)
    (test,) = read_cases(tmp_path, "test")
    assert (test.name, test.zones) == ("sub-S10_ses-E1_dx", LOWER_LEFT)


@pytest.mark.parametrize(
    ("sheets", "expected"),
    [
        ({"Train_Val_text": "ab"}, {"train": "ab"}),
        ({"Train_Val_text": "ab", "Val_text": "b"}, {"train": "a", "valid": "b"}),
        ({"Train_Val_text": "ab", "Train_text": "a"}, {"train": "a", "valid": "b"}),
        ({"Train_Val_text": "ab", "Train_text": "a", "Val_text": "b"}, {"train": "a", "valid": "b"}),
        ({"Val_text": "b"}, {"train": "a", "valid": "b"}),
    ],
)
def test_no_case_is_in_two_of_kaggles_splits(
    tmp_path: Path, sheets: dict[str, str], expected: dict[str, str]
) -> None:
    root = kaggle(tmp_path, ["a", "b"], [])
    for stem, names in sheets.items():
        table(root / f"{stem}.csv", "Image,Description", *(f'mask_{name}.png,"{CAPTION}"' for name in names))
    assert {split: "".join(by_name(read_cases(root, split))) for split in split_names(root)} == expected


def test_two_spreadsheets_for_one_split(tmp_path: Path) -> None:
    root = kaggle(tmp_path, ["a"], [])
    for name in ("train.csv", "Train_text.csv"):
        table(root / name, "Image,Description", f'mask_a.png,"{CAPTION}"')
    with pytest.raises(DataError, match=r"Train_text\.csv and .*train\.csv both list the split 'train'"):
        read_cases(root, "train")


def test_kaggle_names_missing_images(tmp_path: Path) -> None:
    root = kaggle(tmp_path, ["a"], [])
    table(root / "Train_text.csv", "Image,Description", "mask_a.png,", "mask_b.png,")
    with pytest.raises(DataError, match=r"1 of 2 images are missing under .*Images: b\.png"):
        read_cases(root, "train")


def test_xlsx_without_openpyxl_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = kaggle(tmp_path, ["a"], [])
    workbook(root / "Train_text.xlsx", ("Image", "Description"), ("mask_a.png", CAPTION))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"reading \.xlsx .*sgseg\[tables\]"):
        read_cases(root, "train")


def test_damaged_xlsx(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    root = kaggle(tmp_path, ["a"], [])
    (root / "Train_text.xlsx").write_bytes(b"not a workbook")
    with pytest.raises(DataError, match=r"Train_text\.xlsx cannot be read"):
        read_cases(root, "train")


# --- the user's own tables


def own(root: Path, *rows: str, name: str = "train.csv", encoding: str = "utf-8") -> Path:
    """A table beside three images and their masks, a, b and c."""
    for stem in "abc":
        picture(root / "X-rays" / f"{stem}.png")
        picture(root / "masks" / f"{stem}.png", 255)
    table(root / name, *rows, encoding=encoding)
    return root


@pytest.mark.parametrize(
    ("laterality", "zones"), [("", LOWER_LEFT), ("patient", LOWER_LEFT), ("Image", LOWER_RIGHT)]
)
def test_laterality_of_reports_is_the_patients_unless_said(
    tmp_path: Path, laterality: str, zones: ZoneSet
) -> None:
    """The patient's right lung is at the image's left."""
    own(
        tmp_path,
        "image,mask,report,laterality",
        f"X-rays/a.png,masks/a.png,lower right lung,{laterality}",
    )
    (case,) = read_cases(tmp_path, "train")
    assert case.zones == zones


def test_unknown_laterality(tmp_path: Path) -> None:
    own(tmp_path, "image,mask,laterality", "X-rays/a.png,masks/a.png,mine")
    with pytest.raises(DataError, match="laterality is 'mine'; write 'patient' or 'image'"):
        read_cases(tmp_path, "train")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_dialects(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [
        ("image", "mask", "report", "patient"),
        ("X-rays/a.png", "masks/a.png", '"one infected area, lower right lung"', "Jürgen"),
        ("x-rays\\B.PNG", "Masks/b.png", "", ""),
    ]
    own(tmp_path, *(delimiter.join(row) for row in rows), delimiter * 3, encoding=encoding)
    first, second = read_cases(tmp_path, "train")
    assert (first.zones, first.patient) == (LOWER_LEFT, "Jürgen")
    assert (second.name, second.patient, second.zones) == ("b", "b", None)
    assert second.image == tmp_path / "X-rays/b.png"


def test_json_table_with_a_split_column(tmp_path: Path) -> None:
    rows = [
        {"image": "X-rays/a.png", "mask": "masks/a.png", "zones": [0, 0, 1, 0, 0, 0], "split": "train"},
        {"image": "X-rays/b.png", "mask": None, "report": "no infection", "split": "train"},
        {"image": "X-rays/c.png", "mask": "none", "split": "external"},
    ]
    own(tmp_path, json.dumps(rows), name="cases.json")
    assert split_names(tmp_path) == ["train", "external"]
    first, second = read_cases(tmp_path, "train")
    assert first.zones == LOWER_LEFT
    assert (second.mask, second.zones) == (None, ZoneSet())
    (third,) = read_cases(tmp_path, "external")
    assert (third.mask, third.zones) == (None, ZoneSet())


def test_excel_table(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / "train.csv").unlink()
    workbook(tmp_path / "valid.xlsx", ("Image", "Mask", "Zones"), ("X-rays/a.png", "masks/a.png", "001000"))
    (case,) = read_cases(tmp_path, "valid")
    assert case.zones == LOWER_LEFT


def test_other_tables_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    own(tmp_path, "image,mask", "X-rays/a.png,masks/a.png")
    table(tmp_path / "scores.csv", "case,dice", "a,0.8")
    table(tmp_path / "about.json", '{"licence": "CC-BY"}')
    assert split_names(tmp_path) == ["train"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",masks/a.png,,", "row 1: there is no image"),
        ("X-rays/a.png,,,", "there is no mask; if there is no lesion either, write 'none'"),
        ("X-rays/a.png,,lower left,", "there is no mask, but the report names infected zones"),
        ("X-rays/a.png,none,lower left,", "there is no mask, but the report names infected zones"),
        ("X-rays/a.png,masks/a.png,lower lug,", "unknown word, 'lug'"),
        ("X-rays/a.png,masks/a.png,,1001", "'1001', not six 0/1"),
        ("X-rays/a.png,masks/a.png,lower left,001000", "in patient laterality, contradicts the zones 001000"),
    ],
)
def test_rows_that_cannot_be_used_are_listed(tmp_path: Path, row: str, message: str) -> None:
    own(tmp_path, "image,mask,report,zones", row, "X-rays/b.png,masks/b.png,lower left,000001")
    with pytest.raises(DataError, match=r"1 of 2 cases .* cannot be used: ") as caught:
        read_cases(tmp_path, "train")
    assert message in str(caught.value)


def test_own_missing_files_in_several_folders(tmp_path: Path) -> None:
    own(
        tmp_path,
        "image,mask",
        "X-rays/a.png,masks/a.png",
        "X-rays/z.png,masks/a.png",
        "old/z.png,masks/a.png",
    )
    with pytest.raises(DataError) as caught:
        read_cases(tmp_path, "train")
    lost = f"{tmp_path / 'X-rays/z.png'}, {tmp_path / 'old/z.png'}"
    assert str(caught.value) == f"2 of 3 images are missing: {lost}"


@pytest.mark.parametrize("name", ["cases.csv", "annotations.csv"])
def test_a_table_for_all_splits_needs_the_column(tmp_path: Path, name: str) -> None:
    own(tmp_path, "image,mask", "X-rays/a.png,masks/a.png", name=name)
    with pytest.raises(DataError, match=rf"row 1 of .*{name} is in no split"):
        split_names(tmp_path)


def test_unquoted_commas(tmp_path: Path) -> None:
    own(tmp_path, "image,mask,report", "X-rays/a.png,masks/a.png,one infected area, lower left lung")
    with pytest.raises(DataError, match="line 2, has more cells than the header; quote reports"):
        read_cases(tmp_path, "train")


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    own(tmp_path, "image,mask,patient", "X-rays/a.png,masks/a.png,Jürgen", encoding="latin-1")
    with pytest.raises(DataError, match='not UTF-8; save it as "CSV UTF-8"'):
        read_cases(tmp_path, "train")


def test_damaged_json(tmp_path: Path) -> None:
    own(tmp_path, "[{", name="cases.json")
    with pytest.raises(DataError, match=r"cases\.json is not valid JSON"):
        split_names(tmp_path)


# --- the healthy folder, folders without a table, anything else


def test_healthy_folder(tmp_path: Path) -> None:
    picture(tmp_path / "images/00001280_004.png")
    table(tmp_path / "split.json", '{"train": ["00001280_004.png"], "test": []}')
    (case,) = read_cases(tmp_path, "train")
    assert case == Case(
        "00001280_004", tmp_path / "images/00001280_004.png", None, ZoneSet(), patient="00001280"
    )
    mask = load_mask(case, (5, 6))
    assert mask.shape == (5, 6)
    assert mask.dtype == np.bool_
    assert not mask.any()


def test_folders_without_a_table(tmp_path: Path) -> None:
    for image, mask in (("b.png", "mask_b.png"), ("A.jpg", "a.png")):
        picture(tmp_path / "train/Images" / image)
        picture(tmp_path / "train/masks" / mask)
    (tmp_path / "train/Images/Thumbs.db").write_bytes(b"")
    (tmp_path / "notes").mkdir()
    assert split_names(tmp_path) == ["train"]
    first, second = read_cases(tmp_path, "train")
    assert (first.name, first.mask, first.zones) == ("A", tmp_path / "train/masks/a.png", None)
    assert (second.name, second.mask) == ("b", tmp_path / "train/masks/mask_b.png")


def test_folder_image_without_a_mask(tmp_path: Path) -> None:
    picture(tmp_path / "train/images/a.png")
    (tmp_path / "train/masks").mkdir()
    with pytest.raises(DataError, match=r"1 of 1 masks are missing under .*masks: a\.png"):
        read_cases(tmp_path, "train")


def test_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_cases(tmp_path, "train")
    for looked_for in (
        "prompts/annotation.json",
        "Train Set/Images",
        "split.json",
        "cases.csv",
        "<split>/masks",
    ):
        assert looked_for in str(caught.value)


def test_unknown_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        split_names(tmp_path / "nowhere")


# --- masks


def masked(path: Path | None) -> Case:
    return Case("a", Path("a.png"), path, None, "a")


@pytest.mark.parametrize(
    ("values", "lesion"),
    [
        ([0, 127, 128, 255], [False, False, True, True]),
        ([0, 0, 1, 1], [False, False, True, True]),
        ([0, 0, 0, 0], [False, False, False, False]),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_mask_values(tmp_path: Path, values: list[int], lesion: list[bool], mode: str) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([values], dtype=np.uint8)).convert(mode).save(path)
    mask = load_mask(masked(path), (1, 4))
    assert mask.dtype == np.bool_
    assert mask.tolist() == [lesion]


def test_mask_of_one_bit(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(path)
    assert load_mask(masked(path), (1, 2)).tolist() == [[False, True]]


def test_mask_of_another_size(tmp_path: Path) -> None:
    path = picture(tmp_path / "mask.png", 255, size=(4, 3))
    with pytest.raises(DataError, match=r"mask\.png is 4×3, its image 3×4"):
        load_mask(masked(path), (4, 3))


def test_mask_of_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mask\.png has values up to 3; save it as 0 and 255"):
        load_mask(masked(picture(tmp_path / "mask.png", 3)), (3, 4))


def test_mask_of_sixteen_bits(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.full((3, 4), 65535, dtype=np.uint16)).save(path)
    with pytest.raises(DataError, match=r"mask\.png is not 8-bit"):
        load_mask(masked(path), (3, 4))


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_unreadable_mask(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mask\.png cannot be read"):
        load_mask(masked(path), (3, 4))


def test_truncated_mask(tmp_path: Path) -> None:
    path = picture(tmp_path / "mask.png", 255, size=(200, 200))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"mask\.png cannot be read"):
        load_mask(masked(path), (200, 200))


# --- the real data

COUNTS = {"train": (5716, 3760), "valid": (1429, 847), "test": (2113, 474)}


def test_qata_counts_and_patients(qata_root: Path) -> None:
    assert split_names(qata_root) == list(COUNTS)
    cases = {split: read_cases(qata_root, split) for split in COUNTS}
    patients = {split: {case.patient for case in cases[split]} for split in COUNTS}
    assert {split: (len(cases[split]), len(patients[split])) for split in COUNTS} == COUNTS
    assert len(set.union(*patients.values())) == sum(map(len, patients.values()))
    assert all(case.mask and case.zones and not case.note for every in cases.values() for case in every)


def test_qata_captions_are_what_is_parsed_and_written(qata_root: Path) -> None:
    splits = json.loads((qata_root / "prompts/annotation.json").read_text())
    rows = [row for split in splits.values() for row in split]
    assert len(rows) == 9258
    for row in rows:
        zones = parse(row["caption"], Laterality.IMAGE)
        assert zones == ZoneSet.from_vector(row["pseudo_label"])
        assert (len(zones), len(zones.sides)) == (row["infected_area"], row["pulmonary_infection"])
        assert write(zones, Laterality.IMAGE) == row["caption"]


def test_qata_lesions_lie_where_the_zones_say(qata_root: Path) -> None:
    """Image-left lesions are image-left zones: laterality is right from file to array."""
    cases = [case for case in read_cases(qata_root, "valid") if case.zones and len(case.zones.sides) == 1]
    agreeing = 0
    for case in cases[:200]:
        assert case.zones is not None
        columns = load_mask(case, (224, 224)).sum(axis=0)
        side = Side.IMAGE_LEFT if columns[:112].sum() > columns[112:].sum() else Side.IMAGE_RIGHT
        agreeing += side in case.zones.sides
    assert agreeing >= 0.95 * len(cases[:200])


def test_healthy_counts_and_patients(healthy_root: Path) -> None:
    cases = {split: read_cases(healthy_root, split) for split in split_names(healthy_root)}
    assert sum(map(len, cases.values())) == 300
    patients = [{case.patient for case in every} for every in cases.values()]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert all(case.mask is None and case.zones == ZoneSet() for every in cases.values() for case in every)


def test_reading_data_loads_nothing_heavy() -> None:
    code = "import sys, sgseg.data; print({'torch', 'openpyxl', 'onnxruntime', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
