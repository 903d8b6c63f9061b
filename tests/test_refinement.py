"""Refinement: mistyped captions are mended or flagged, never changed to other zones."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import sgseg_command
from sgseg.anatomy import N_ZONESETS, Laterality, ZoneSet
from sgseg.batch.refine import refine_table
from sgseg.errors import DataError
from sgseg.reports import parse, refine, write
from sgseg.reports.mistyping import WAYS, mistype

IMAGE, PATIENT = Laterality.IMAGE, Laterality.PATIENT
CAPTIONS = [write(ZoneSet(index), IMAGE) for index in range(N_ZONESETS)]
SEEDS = range(5)

FLAGGED = {
    "level of two readings",
    "missing side",
    "missing level",
    "no level",
    "no location",
    "only one lung",
}
"""What is lost there is not told by the rest of the caption."""
FLOORS = {
    "cut off": 0.10,  # mended where only letters of the last words are gone
    "wrong count": 0.30,  # mended where it is lower than the zones named; if higher, a word may be lost
    "wrong joiner": 0.75,  # "with" may mean anything
    "neighbouring words swapped": 0.80,  # "left lung lower and right lung": which lung's is "lower"?
    "two misspelt words": 0.90,  # both slips may hit one word
    "missing letter": 0.95,  # "uilateral"
    "neighbouring key": 0.95,  # "ubilateral"
}

captions = st.sampled_from(CAPTIONS)
ways = st.sampled_from(list(WAYS))


def fates(way: str) -> Counter[str]:
    """How many different mistyped captions are repaired, flagged, and changed to other zones."""
    fates: Counter[str] = Counter()
    for caption in CAPTIONS:
        for mistyped in {mistype(caption, way, random.Random(seed)) for seed in SEEDS} - {caption}:
            refined = refine(mistyped, IMAGE).refined
            fates["flagged" if refined is None else "repaired" if refined == caption else "wrong"] += 1
    return fates


def zones(bits: str) -> ZoneSet:
    return ZoneSet.from_vector([int(bit) for bit in bits])


# --- captions


@pytest.mark.parametrize("way", WAYS)
def test_mistyped_captions_are_never_changed_to_other_zones(way: str) -> None:
    n = fates(way)
    assert n["wrong"] == 0
    assert n.total() >= 16
    if way in FLAGGED:
        assert n["repaired"] == 0
    else:
        assert n["repaired"] >= FLOORS.get(way, 0.98) * n.total()


@pytest.mark.parametrize("laterality", Laterality)
@pytest.mark.parametrize("index", range(N_ZONESETS))
def test_clean_captions_stay(index: int, laterality: Laterality) -> None:
    caption = write(ZoneSet(index), laterality)
    result = refine(caption, laterality)
    assert (result.text, result.zones, result.reasons) == (caption, ZoneSet(index), ())
    assert result.resolved
    assert not result.mended


@pytest.mark.parametrize(
    ("caption", "bits", "reasons"),
    [
        ("all left lung", "111000", ["'all' for 'unilateral pulmonary infection three"]),
        ("unilateral pulmonary infection, one infected area, uper left left lung.", "100000", ["'uper' for"]),
        (
            "bilateral pulmonary infection, two infected area, lower left lung and lower right lung.",
            "001001",
            ["'area' for 'areas'"],
        ),
        (
            "bilateral pulmonary infection, one infected area, lower left lung.",
            "001000",
            ["the extent contradicts the lungs", "'bilateral' for 'unilateral'"],
        ),
        (
            "unilateral pulmonary infection, two infected areas, upper middle lower left lung.",
            "111000",
            ["the count contradicts the zones", "'two' for 'three'"],
        ),
        ("unilateral infection, one infected area, left lung lower.", "001000", ["'pulmonary' missing"]),
        ("unilateral pulmonary infection, one infected area, lower lobe left", "001000", ["'lobe'"]),
        ("Unilateral pulmonary infection, one infected area, left lower lung.", "001000", ["word order"]),
        (
            "UNILATERAL pulmonary infection,one infected area,lower left lung",
            "001000",
            ["punctuation, case or spacing"],
        ),
        ("noinfection.", "000000", ["'noinfection' for 'no infection'"]),
        ("unilateral pulmonary infection: 2 infected areas; upper - lower left lung", "101000", ["'2' for"]),
    ],
)
def test_what_is_mended(caption: str, bits: str, reasons: list[str]) -> None:
    result = refine(caption, IMAGE)
    assert result.mended
    assert result.zones == zones(bits)
    assert result.refined == write(zones(bits), IMAGE)
    for reason in reasons:
        assert any(told.startswith(reason) for told in result.reasons), result.reasons


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "no zone is named"),
        ("unilateral pulmonary infection, two infected areas, lower left lung.", "or a lost word"),
        ("bilateral pulmonary infection, two infected areas, lower left lung.", "or a lost word"),
        ("unilateral, one infected area, lower left lung and lower right lung.", "or a lost word"),
        ("unilateral pulmonary infection, infected areas, lower left lung.", "or a lost word"),
        ("unilateral pulmonary infection, zero infected areas, lower left lung.", "or a lost word"),
        ("two three infected areas, upper middle lower left lung and lower right lung", "or a lost word"),
        ("bilateral infection, two infected areas, upper left lung and lower left lung.", "is not confirmed"),
        ("bilateral infection, two infected areas, lower and upper right lung.", "is not confirmed"),
        ("left lung lower", "is not confirmed"),
        ("right middle lobe", "is not confirmed"),
        ("unilateral infection, one infected area, lower lung.", "'lower lung' has no side"),
        ("unilateral infection, one infected area, lower", "'lower' has no side"),
        ("one infected area, lower left right", "has two sides"),
        ("bilateral, two areas, left and right lower lung", "does not say upper, middle or lower"),
        ("three areas, lower left lung upper and middle right lung", "more than one reading"),
        ("one infected area, lopper left lung", "'lopper' is no word of the captions"),
        ("uninfected areas, lower left lung", "'uninfected' is no word of the captions"),
        ("possible infection, lower left lung", "'possible' is no word"),
        ("infection of the lower left lung ?", "'?' is no word"),
        ("nilateral infection, lower left lung", "may be 'bilateral' or 'unilateral'"),
        ("no lower left lung", "'no lower left lung' cannot be read"),
    ],
)
def test_what_is_flagged(caption: str, reason: str) -> None:
    result = refine(caption, IMAGE)
    assert (result.refined, result.zones, result.text) == (None, None, caption)
    assert not result.mended
    assert any(reason in told for told in result.reasons), result.reasons


def test_laterality_is_whose_left() -> None:
    mistyped = "unilateral infection, one infected area, lowr left lung"
    assert refine(mistyped, IMAGE).zones == zones("001000")
    assert refine(mistyped, PATIENT).zones == zones("000001")
    assert refine(mistyped, PATIENT).refined == refine(mistyped, IMAGE).refined


@given(captions, ways, ways, st.integers(0, 2**32), st.sampled_from(Laterality))
def test_refining_again_changes_nothing(
    caption: str, way: str, other: str, seed: int, laterality: Laterality
) -> None:
    rng = random.Random(seed)
    once = refine(mistype(mistype(caption, way, rng), other, rng), laterality)
    again = refine(once.text, laterality)
    assert again.text == once.text
    if once.resolved:
        assert not again.mended
        assert parse(once.text, laterality) == once.zones


@given(st.text(max_size=60))
def test_any_text_is_resolved_or_flagged(text: str) -> None:
    result = refine(text, IMAGE)
    assert result.resolved or (result.text == text and result.reasons)


@given(captions, ways, st.integers(0, 2**32))
def test_a_slip_is_the_seed_s(caption: str, way: str, seed: int) -> None:
    assert mistype(caption, way, random.Random(seed)) == mistype(caption, way, random.Random(seed))


def test_every_way_has_its_captions_and_an_unknown_one_is_an_error() -> None:
    assert len(WAYS) >= 24
    with pytest.raises(KeyError):
        mistype(CAPTIONS[1], "telepathy", random.Random(0))


# --- tables

CLEAN = write(zones("001000"), IMAGE)
MISTYPED = CLEAN.replace("lower", "lowr")
LOST = CLEAN.replace("left ", "")


def changes(out: Path) -> list[dict[str, str]]:
    with (out / "refinement.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_keeps_everything_else(tmp_path: Path) -> None:
    table, out = tmp_path / "reports.csv", tmp_path / "deep" / "out"
    rows = (f'a.png;{MISTYPED};" x "', "", f"b.png;{CLEAN};", "c.png;;y", f'd.png;{LOST};"1;2"', "")
    text = "\r\n".join(("Image;Report ;note", *rows))
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    refined = refine_table(table, out)
    assert refined.counts == {"unchanged": 1, "mended": 1, "unresolved": 1}
    assert refined.table.read_bytes().startswith(b"\xef\xbb\xbf")
    lines = refined.table.read_bytes().decode("utf-8-sig").split("\r\n")
    assert lines == [
        *("Image;Report ;note", f"a.png;{CLEAN}; x ", "", f"b.png;{CLEAN};", "c.png;;y"),
        *(f'd.png;{LOST};"1;2"', ""),
    ]
    assert changes(out) == [
        {
            **{"row": "1", "image": "a.png", "original": MISTYPED, "refined": CLEAN, "zones": "000001"},
            **{"reasons": "'lowr' for 'lower'", "status": "changed"},
        },
        {
            **{"row": "4", "image": "d.png", "original": LOST, "refined": "", "zones": ""},
            **{"reasons": "'lower lung' has no side", "status": "unresolved"},
        },
    ]
    assert table.read_bytes() == b"\xef\xbb\xbf" + text.encode()


def test_authors_layout(tmp_path: Path) -> None:
    content = {
        "train": [{"image_path": "mask_a.png", "caption": MISTYPED, "pseudo_label": [0, 0, 1, 0, 0, 0]}],
        "valid": [{"image_path": "mask_b.png", "caption": CLEAN, "infected_area": 1}],
    }
    path = tmp_path / "qata" / "prompts" / "annotation.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    refined = refine_table(tmp_path / "qata", tmp_path / "out")
    content["train"][0]["caption"] = CLEAN
    assert json.loads(refined.table.read_text()) == content
    assert [(row["image"], row["zones"]) for row in changes(tmp_path / "out")] == [("mask_a.png", "001000")]


def test_xlsx(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (("Image", "Description", "n"), ("a.png", MISTYPED, 1), ("b.png", None, 2), (None, LOST, 3)):
        book.active.append(row)
    book.save(tmp_path / "Train_text.xlsx")
    refined = refine_table(tmp_path / "Train_text.xlsx", tmp_path / "out")
    sheet = openpyxl.load_workbook(refined.table).active
    assert [row[1:] for row in sheet.iter_rows(values_only=True)] == [
        *(("Description", "n"), (CLEAN, 1), (None, 2), (LOST, 3)),
    ]
    assert [(row["row"], row["zones"]) for row in changes(tmp_path / "out")] == [("1", "001000"), ("3", "")]


def test_a_row_may_say_its_laterality(tmp_path: Path) -> None:
    rows = [{"report": MISTYPED, "laterality": told} for told in ("image", "patient", "")]
    (tmp_path / "cases.json").write_text(json.dumps(rows))
    refine_table(tmp_path / "cases.json", tmp_path / "out", IMAGE)
    assert [row["zones"] for row in changes(tmp_path / "out")] == ["001000", "000001", "001000"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, r"there is no .*missing\.csv; give a table"),
        ("reports.txt", "report\nx\n", r"reports\.txt is no table; give one in \.csv, \.json, \.xlsx"),
        ("reports.csv", "image,text\na.png,x\n", "has no column of captions; name it report, description"),
        ("reports.csv", "", "has no column of captions"),
        ("reports.csv", f"image,report\na.png,{CLEAN}\n", "line 2, has more cells than the header"),
        ("reports.json", '{"a": 1}', "has no column of captions"),
        ("reports.json", "{", "is not valid JSON"),
        ("refinement.csv", "report\nlower left lung\n", "would be overwritten"),
        ("reports.csv", "report,laterality\nleft,mine\n", "laterality 'mine'; write 'patient' or 'image'"),
    ],
)
def test_tables_that_cannot_be_refined(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        refine_table(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_table_itself_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text("report\nlowr left lung\n")
    with pytest.raises(DataError, match="would be overwritten; give another folder"):
        refine_table(tmp_path / "reports.csv", tmp_path)
    assert (tmp_path / "reports.csv").read_text() == "report\nlowr left lung\n"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text("report\nlowr left lung\n")
    with pytest.raises(DataError, match=r"cannot write to .*; give another folder"):
        refine_table(tmp_path / "reports.csv", tmp_path / "reports.csv")


def test_command(tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text(f'image,caption\na,"{MISTYPED}"\nb,"{LOST}"\n')
    done = sgseg_command("data", "refine", "reports.csv", "--out", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("captions 2 share", "unchanged 0 0.0%", "mended 1 50.0%", "unresolved 1 50.0%"):
        assert line in " ".join(done.stdout.split())
    assert "refinement.csv" in done.stdout
    done = sgseg_command("data", "refine", "missing.csv", "--out", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("sgseg: there is no missing.csv; give a table")
    assert "Traceback" not in done.stderr
