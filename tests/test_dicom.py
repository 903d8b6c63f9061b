"""DICOM in: twins of one picture give one mask, tags decide sides, and what is no chest X-ray is left out."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import sgseg
from sgseg.anatomy import Laterality, Level, Side, Zone, ZoneSet
from sgseg.batch import find_images, predict_files
from sgseg.data import phantom, read_cases
from sgseg.data.audit import audit, list_cases
from sgseg.errors import ImageError, MissingExtraError, NotApplicableError, SGSegError
from sgseg.evaluation import sheet_row
from sgseg.evaluation.masks import examine_masks, find_masks, picture_of_masks
from sgseg.formats import overlay
from sgseg.imaging import ChestXray, Hanging, fit, fit_mask, read, restore
from sgseg.imaging.applicability import CHROMA, colours_against
from sgseg.imaging.geometry import Box
from sgseg.inference import Predictor
from sgseg.reports import Guidance, write

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import apply_voi_lut, apply_windowing  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

SIZE = 224
CHEST = np.asarray(Image.fromarray(phantom.draw(1).pixels).resize((200, 240)))
"""Not square, 8 bits, bones bright."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return sgseg.load(threads=1)


def dataset(stored: NDArray[Any], **tags: Any) -> Dataset:
    """A DX image of stored values; `tags` are set last, those that are None left out."""
    bits = int(tags.pop("bits", stored.dtype.itemsize * 8))
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "DX", "CHEST", "PA"
    ds.Rows, ds.Columns = stored.shape[:2]
    ds.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    if stored.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = stored.dtype.itemsize * 8, bits, bits - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    ds.PixelData = stored.tobytes()
    for keyword, value in tags.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def saved(path: Path, stored: NDArray[Any] = CHEST, **tags: Any) -> Path:
    dataset(stored, **tags).save_as(path, enforce_file_format=True)
    return path


def lut(first: int, bits: int, table: NDArray[Any]) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(table) % 2**16, first, bits])
    item.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    return [item]


def ramp(entries: int) -> NDArray[np.float64]:
    return np.rint(np.linspace(0, 2**16 - 1, entries))


def deep(bits: int, chest: NDArray[np.uint8] = CHEST) -> NDArray[np.uint16]:
    """The chest in 0 … 2**bits - 1."""
    return np.rint(chest.astype(np.float64) * (2**bits - 1) / 255).astype(np.uint16)


def window(low: float, high: float) -> dict[str, Any]:
    """That shows `low` as black and `high` as white, PS3.3 C.11.2.1.2.1."""
    return {"WindowCenter": (low + high + 1) / 2, "WindowWidth": high - low + 1}


_RESCALED = {"RescaleSlope": 0.5, "RescaleIntercept": 100}
TWINS: dict[str, Callable[[int], dict[str, Any]]] = {
    "plain": lambda full: {},
    "window": lambda full: window(0, full - 1),
    "windows": lambda full: {"WindowCenter": [full / 2, 30], "WindowWidth": [full, 10]},
    "table": lambda full: {"VOILUTSequence": lut(0, 16, ramp(full))},
    "signed": lambda full: {},
    "signed window": lambda full: window(-full / 2, full / 2 - 1),
    "signed rescaled": lambda full: _RESCALED,
    "signed rescaled window": lambda full: _RESCALED | window(100 - full / 4, 99.5 + full / 4),
}
"""How a picture can be stored whose values fill `full` = 2**bits."""

NEGATIVE = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}


def negated(stored: NDArray[Any], bits: int) -> NDArray[Any]:
    """The same picture as MONOCHROME1: highest for lowest."""
    highest = 2 ** (bits - 1) - 1 if stored.dtype.kind == "i" else 2**bits - 1
    lowest = -(2 ** (bits - 1)) if stored.dtype.kind == "i" else 0
    return (highest + lowest - stored.astype(np.int64)).astype(stored.dtype)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def twins(folder: Path, chest: NDArray[np.uint8], bits: int, name: str) -> tuple[Path, Path]:
    """One picture as MONOCHROME2 and as MONOCHROME1."""
    stored: NDArray[Any] = chest if bits == 8 else deep(bits, chest)
    if name.startswith("signed"):
        stored = (stored.astype(np.int32) - 2 ** (bits - 1)).astype(f"i{stored.itemsize}")
    tags = {"bits": bits, **TWINS[name](2**bits)}
    mono1 = saved(folder / "mono1", negated(stored, bits), **tags, **NEGATIVE)
    return saved(folder / "mono2", stored, **tags), mono1


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_twins_give_the_same_mask(tmp_path: Path, predictor: Predictor, bits: int, name: str) -> None:
    """At any size the network sees the same picture bit for bit."""
    for chest in (phantom.draw(1).pixels, CHEST):
        Image.fromarray(chest).save(tmp_path / "a.png")
        reference = predictor.predict(tmp_path / "a.png")
        assert reference.mask.any()
        for path in twins(tmp_path, chest, bits, name):
            xray = read(path)
            assert xray.inverted is (path.name == "mono1")
            np.testing.assert_array_equal(fit(xray, SIZE), fit(reference.xray, SIZE))
            np.testing.assert_array_equal(predictor.predict(xray).mask, reference.mask)


@pytest.mark.parametrize("bits", [12, 16])
def test_a_fraction_of_the_range_is_stretched(tmp_path: Path, bits: int) -> None:
    """What fills a quarter of its range, or of a window too wide, keeps its contrast."""
    for tags in ({}, window(0, 2**bits - 1)):
        xray = read(saved(tmp_path / "a", deep(10), bits=bits, **tags))
        assert (xray.pixels.min(), xray.pixels.max()) == (0, 1)


def test_8_bits_come_bit_for_bit(tmp_path: Path) -> None:
    square = phantom.draw(2).pixels
    np.testing.assert_array_equal(fit(read(saved(tmp_path / "a", square)), SIZE), square)
    np.testing.assert_array_equal(fit(read(saved(tmp_path / "b", 255 - square, **NEGATIVE)), SIZE), square)


def test_tags_decide_the_polarity(tmp_path: Path) -> None:
    """A negative that says it is none stays one, and a MONOCHROME1 that looks right already is turned."""
    dark_bones = read(saved(tmp_path / "a", 255 - CHEST))
    assert not dark_bones.inverted
    np.testing.assert_array_equal(dark_bones.pixels, (255 - CHEST) / np.float32(255))
    assert read(saved(tmp_path / "b", CHEST, **NEGATIVE)).inverted


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_functions(tmp_path: Path, function: str) -> None:
    path = saved(
        tmp_path / "a", deep(12), bits=12, WindowCenter=1800, WindowWidth=900, VOILUTFunction=function
    )
    expected = apply_windowing(deep(12), pydicom.dcmread(path))
    expected_xray = ChestXray.from_array(expected, negative=False, span=(0, 4095))
    np.testing.assert_allclose(read(path).pixels, expected_xray.pixels, atol=1e-5)


def test_lookup_tables(tmp_path: Path) -> None:
    """VOI after modality, inversion last; entries beyond the ends of a table get its ends."""
    curve = np.linspace(0, 1, 2000) ** 2 * 4095
    path = saved(tmp_path / "a", deep(12), bits=12, VOILUTSequence=lut(1000, 12, curve), **NEGATIVE)
    expected = 4095 - apply_voi_lut(deep(12), pydicom.dcmread(path)).astype(np.int32)
    expected_xray = ChestXray.from_array(expected, negative=False, span=(0, 4095))
    np.testing.assert_allclose(read(path).pixels, expected_xray.pixels, atol=1e-6)

    tripled = {"ModalityLUTSequence": lut(0, 16, np.arange(4096) * 3)}
    plain = read(saved(tmp_path / "c", deep(12), bits=12)).pixels
    for tags in (tripled, tripled | window(0, 3 * 4095)):
        both = read(saved(tmp_path / "b", deep(12), bits=12, **tags))
        np.testing.assert_allclose(both.pixels, plain, atol=1e-5)


def test_bytes_for_table_entries(tmp_path: Path) -> None:
    item = lut(0, 8, np.arange(256))
    item[0].LUTData = np.arange(256, dtype=np.uint8).tobytes()
    xray = read(saved(tmp_path / "a", CHEST, VOILUTSequence=item))
    np.testing.assert_allclose(xray.pixels, CHEST / np.float32(255), atol=1e-6)


@pytest.mark.parametrize("padding", [0, 4095])
@pytest.mark.parametrize("negative", [False, True])
def test_padding_is_black_and_does_not_count(tmp_path: Path, padding: int, negative: bool) -> None:
    measured = (deep(12) // 4 + 1000).astype(np.uint16)
    y, x = np.mgrid[: CHEST.shape[0], : CHEST.shape[1]]
    corner = x + y < 60
    tags: dict[str, Any] = NEGATIVE if negative else {}
    stored = np.where(corner, padding, negated(measured, 12) if negative else measured).astype(np.uint16)
    xray = read(saved(tmp_path / "a", stored, bits=12, PixelPaddingValue=padding, **tags))
    expected = ChestXray.from_array(np.where(corner, measured[~corner].min(), measured), negative=False)
    np.testing.assert_allclose(xray.pixels, expected.pixels, atol=1e-5)
    assert (xray.pixels[corner] == 0).all()


def test_padding_range(tmp_path: Path) -> None:
    stored = deep(12)
    stored[:30, :30] = np.arange(900).reshape(30, 30) % 10 + 4086
    padded = {"bits": 12, "PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4086}
    pixels = read(saved(tmp_path / "a", stored, **padded)).pixels
    assert (pixels[:30, :30] == pixels.min()).all() and pixels.max() > 0.9
    with pytest.raises(ImageError, match="nothing but padding"):
        read(saved(tmp_path / "b", np.full((64, 64), 4090, np.uint16), **padded))


# How the standard picture is stored, for each Patient Orientation: (direction of rows, of columns).
STORED: dict[tuple[str, str], Callable[[NDArray[Any]], NDArray[Any]]] = {
    ("L", "F"): lambda a: a,
    ("R", "F"): lambda a: a[:, ::-1],
    ("L", "H"): lambda a: a[::-1],
    ("R", "H"): lambda a: a[::-1, ::-1],
    ("F", "L"): lambda a: a.T,
    ("F", "R"): lambda a: np.rot90(a),
    ("H", "L"): lambda a: np.rot90(a, -1),
    ("H", "R"): lambda a: np.rot90(a, 2).T,
}


@pytest.mark.parametrize("orientation", STORED)
def test_hanging_there_and_back(tmp_path: Path, predictor: Predictor, orientation: tuple[str, str]) -> None:
    """However it is stored, the network sees the same, and the mask lies where the file has the lesion."""
    turn = STORED[orientation]
    standard = predictor.predict(read(saved(tmp_path / "a", CHEST, PatientOrientation=["L", "F"])))
    path = saved(tmp_path / "b", np.ascontiguousarray(turn(CHEST)), PatientOrientation=list(orientation))
    xray = read(path)
    assert xray.laterality == "tagged"
    np.testing.assert_array_equal(xray.pixels, turn(CHEST) / np.float32(255))
    np.testing.assert_array_equal(fit(xray, SIZE), fit(standard.xray, SIZE))
    prediction = predictor.predict(xray)
    assert standard.mask.any()
    np.testing.assert_array_equal(prediction.mask, turn(standard.mask))
    assert (prediction.zones, prediction.report) == (standard.zones, standard.report)


@pytest.mark.parametrize("orientation", STORED)
def test_off_centre_blob_comes_back_where_it_was(orientation: tuple[str, str]) -> None:
    """With a border: a blob low in the patient's right lung, in the file's own rows and columns."""
    hanging = Hanging.of(*orientation)
    assert hanging is not None
    blob = np.zeros((240, 200), dtype=bool)
    blob[150:200, 20:70] = True
    stored = STORED[orientation](blob)
    np.testing.assert_array_equal(hanging.hung(stored), blob)
    np.testing.assert_array_equal(hanging.stored(blob), stored)
    padded = np.pad(stored, ((30, 0), (0, 17)))
    content = Box(30, 0, 30 + stored.shape[0], stored.shape[1])
    xray = ChestXray(padded.astype(np.float32), content, hanging=hanging)
    square = fit_mask(padded, content, SIZE, hanging)
    assert square[140:187, 23:78].all() and not square[:130].any() and not square[:, 90:].any()
    np.testing.assert_array_equal(square, fit(xray, SIZE) >= 128)
    assert dice(restore(square.astype(np.float32), xray) > 0.5, padded) > 0.97


def test_the_detectors_flips_are_in_the_pixels_already(tmp_path: Path) -> None:
    flips = {"FieldOfViewHorizontalFlip": "YES", "FieldOfViewRotation": 180}
    xray = read(saved(tmp_path / "a", PatientOrientation=["L", "F"], **flips))
    assert (xray.hanging, xray.laterality) == (Hanging(), "tagged")


@pytest.mark.parametrize("orientation", [["L", "L"], ["R"], ["H", "F"], ["X", "F"], "", "L"])
def test_unusable_orientation_is_assumed(tmp_path: Path, orientation: Any) -> None:
    xray = read(saved(tmp_path / "a", PatientOrientation=orientation))
    assert (xray.hanging, xray.laterality) == (Hanging(), "assumed")


def test_oblique_letters_count_by_the_first(tmp_path: Path) -> None:
    xray = read(saved(tmp_path / "a", PatientOrientation=["RA", "FP"]))
    assert (xray.hanging, xray.laterality) == (Hanging(mirror=True), "tagged")


def test_overlay_hangs_the_standard_way(tmp_path: Path, predictor: Predictor) -> None:
    """R and L are written on it, so the picture under them must hang as they say; the mask file must not."""
    paths = [
        saved(tmp_path / "a", CHEST, PatientOrientation=["L", "F"]),
        saved(tmp_path / "b", np.ascontiguousarray(CHEST[:, ::-1]), PatientOrientation=["R", "F"]),
    ]
    results = predict_files(predictor, paths, tmp_path / "out", Guidance.NONE)
    overlays, masks = (
        [np.asarray(Image.open(tmp_path / "out" / entry[kind])) for entry in results.images]
        for kind in ("overlay", "mask")
    )
    np.testing.assert_array_equal(*overlays)
    np.testing.assert_array_equal(masks[0], masks[1][:, ::-1])
    first, second = results.images
    assert first["hanging"] == {"transpose": False, "upside_down": False, "mirror": False}
    assert second["hanging"]["mirror"]
    assert first["zone_probabilities"] == second["zone_probabilities"]


def table(folder: Path, orientation: tuple[str, str], view: str = "PA") -> Path:
    """A data set of four synthetic X-rays of one lung each, stored as `orientation` says."""
    folder.mkdir()
    lines = ["split,image,mask,report"]
    for seed, side in enumerate((Side.IMAGE_LEFT, Side.IMAGE_RIGHT) * 2):
        drawn = phantom.draw(seed, 96, ZoneSet.of([Zone(side, Level.LOWER)]))
        pixels, lesion = (np.ascontiguousarray(STORED[orientation](a)) for a in (drawn.pixels, drawn.mask))
        saved(folder / f"{seed}.dcm", pixels, PatientOrientation=list(orientation), ViewPosition=view)
        Image.fromarray(lesion.astype(np.uint8) * 255).save(folder / f"{seed}.png")
        lines.append(f'test,{seed}.dcm,{seed}.png,"{write(drawn.zones, Laterality.PATIENT)}"')
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("orientation", STORED)
def test_audit_hangs_the_standard_way(tmp_path: Path, orientation: tuple[str, str]) -> None:
    audited = audit(list_cases(table(tmp_path / "stored", orientation)))
    assert audited.document()["sides"] == {"agree": 4, "contradict": 0}
    assert not any(audited.findings.values())


@pytest.mark.parametrize("orientation", STORED)
def test_training_sees_xrays_as_they_hang(tmp_path: Path, orientation: tuple[str, str]) -> None:
    cache = pytest.importorskip("sgseg.training.cache", reason="training needs: pip install 'sgseg[train]'")
    turned, standard = (
        cache.decode(read_cases(table(tmp_path / name, stored), "test"), 96)
        for name, stored in (("turned", orientation), ("standard", ("L", "F")))
    )
    assert standard.masks.any()
    for kind in ("images", "masks", "zones"):
        np.testing.assert_array_equal(getattr(turned, kind), getattr(standard, kind))


def test_audit_reads_what_training_reads(tmp_path: Path) -> None:
    audited = audit(list_cases(table(tmp_path / "lateral", ("L", "F"), view="LL")))
    assert [finding.detail for finding in audited.findings["lateral"]] == ["view ll"] * 4
    audited = audit(list_cases(table(tmp_path / "oblique", ("L", "F"), view="RAO")))
    assert [finding.detail for finding in audited.findings["not_applicable"]] == ["its view is RAO"] * 4
    assert audited.document()["sides"]["agree"] == 4


def test_masks_of_others_are_shown_hung_the_standard_way(tmp_path: Path) -> None:
    """However they are stored, the sheet of `evaluate --predictions` is the same."""

    def sheet(orientation: tuple[str, str]) -> Image.Image:
        root = table(tmp_path / "".join(orientation), orientation)
        masks = find_masks(root, cases := read_cases(root, "test"))
        return picture_of_masks(replace(masks, folder=tmp_path), examine_masks(masks, cases))

    assert sheet(("F", "R")) == sheet(("L", "F"))


def test_a_lateral_view_has_no_letters_on_a_sheet(tmp_path: Path, predictor: Predictor) -> None:
    rows = []
    for view in ("PA", "LL"):
        xray = read(saved(tmp_path / view, ViewPosition=view), force=True)
        (prediction,) = predictor.predict_batch([xray], Guidance.NONE)
        rows.append(sheet_row(view, prediction, prediction.mask))
    assert [row.sides for row in rows] == [True, False]


def test_spacing_and_view(tmp_path: Path) -> None:
    both = {"PixelSpacing": [0.14, 0.15], "ImagerPixelSpacing": [0.2, 0.2], "ViewPosition": "AP"}
    xray = read(saved(tmp_path / "a", **both))
    assert (xray.pixel_spacing, xray.spacing_source, xray.view) == ((0.14, 0.15), "PixelSpacing", "AP")
    xray = read(saved(tmp_path / "b", ImagerPixelSpacing=[0.2, 0.2], ViewPosition=None))
    assert (xray.pixel_spacing, xray.spacing_source, xray.view) == ((0.2, 0.2), "ImagerPixelSpacing", None)
    xray = read(saved(tmp_path / "c", PixelSpacing=[0, 0]))
    assert (xray.pixel_spacing, xray.spacing_source) == (None, None)


def _region(meaning: str, sequence: str = "AnatomicRegionSequence") -> dict[str, Any]:
    item = Dataset()
    item.CodeMeaning = meaning
    return {sequence: [item]}


NOT_APPLICABLE: dict[str, tuple[dict[str, Any], str]] = {
    "ct": ({"Modality": "CT"}, "Modality is CT"),
    "mammogram": ({"Modality": "MG"}, "Modality is MG"),
    "photograph": ({"Modality": "XC"}, "Modality is XC"),
    "hand": ({"BodyPartExamined": "HAND"}, "body part is HAND"),
    "knee": ({"BodyPartExamined": "Left Knee"}, "body part is LEFT KNEE"),
    "thoracic spine": ({"BodyPartExamined": "TSPINE"}, "body part is TSPINE"),
    "coded region": ({"BodyPartExamined": None, **_region("Pelvis")}, "body part is PELVIS"),
    "left lateral": ({"ViewPosition": "LL"}, "view is LL"),
    "right lateral": ({"ViewPosition": "RL"}, "view is RL"),
    "lateral in words": ({"ViewPosition": "LATERAL"}, "view is LATERAL"),
    "coded view": (
        {"ViewPosition": "", **_region("left lateral", "ViewCodeSequence")},
        "view is LEFT LATERAL",
    ),
    "decubitus": ({"ViewPosition": "LLD"}, "view is LLD"),
    "decubitus in words": ({"ViewPosition": "LEFT LATERAL DECUBITUS"}, "view is LEFT LATERAL DECUBITUS"),
    "oblique": ({"ViewPosition": "RLO"}, "view is RLO"),
    "orientation": ({"PatientOrientation": ["A", "F"]}, r"PatientOrientation is A\\F"),
}


@pytest.mark.parametrize("name", NOT_APPLICABLE)
def test_not_applicable_by_tags(tmp_path: Path, name: str) -> None:
    tags, reason = NOT_APPLICABLE[name]
    path = saved(tmp_path / "a", **tags)
    with pytest.raises(NotApplicableError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value) and "--force" in str(caught.value)
    xray = read(path, force=True)
    assert xray.against == caught.value.reason
    sideless = name in ("left lateral", "right lateral", "lateral in words", "coded view", "orientation")
    assert (xray.laterality == "none") is sideless


@pytest.mark.parametrize(
    "tags",
    [
        {"BodyPartExamined": None, "ViewPosition": None, "Modality": None},
        {"BodyPartExamined": "", "ViewPosition": "", "Modality": "CR"},
        {"BodyPartExamined": "PORT CHEST", "ViewPosition": "AP"},
        {"BodyPartExamined": "CHESTABDOMEN", "Modality": "OT"},
        {"BodyPartExamined": "TORAX", "ViewPosition": "ANTERO-POSTERIOR"},
        {"BodyPartExamined": "UNKNOWN", "Modality": "RF"},
    ],
)
def test_what_does_not_contradict_passes(tmp_path: Path, tags: dict[str, Any]) -> None:
    assert read(saved(tmp_path / "a", **tags)).against is None


def test_frames_are_refused_forced_or_not(tmp_path: Path) -> None:
    stored = np.concatenate([CHEST, CHEST])
    path = saved(tmp_path / "a", stored, NumberOfFrames=2, Rows=CHEST.shape[0])
    for force in (False, True):
        with pytest.raises(NotApplicableError, match=r"holds 2 frames; export"):
            read(path, force)


def photograph() -> Image.Image:
    """Sky, grass and a red roof, muted by haze."""
    image = Image.new("RGB", (300, 200), (150, 175, 215))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 120, 300, 200), fill=(96, 130, 70))
    draw.rectangle((100, 80, 180, 150), fill=(165, 80, 60))
    return image


def annotated() -> Image.Image:
    """A chest with a coloured arrow and label: 4 % of it."""
    image = Image.fromarray(CHEST).convert("RGB")
    ImageDraw.Draw(image).rectangle((10, 10, 60, 50), fill=(255, 230, 0))
    return image


def film_base() -> Image.Image:
    """Digitised film keeps the blue of its base."""
    grey = CHEST[..., None].astype(np.float64)
    return Image.fromarray(np.clip(grey * (0.85, 0.95, 1) + (0, 5, 10), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_colour_photograph(tmp_path: Path, name: str) -> None:
    photograph().save(tmp_path / name)
    with pytest.raises(NotApplicableError, match=r"coloured, as in a photograph.*--force"):
        read(tmp_path / name)
    assert "coloured" in str(read(tmp_path / name, force=True).against)
    for image in (annotated(), film_base(), Image.fromarray(CHEST).convert("RGB")):
        image.save(tmp_path / name)
        assert read(tmp_path / name).against is None


def test_colour_threshold() -> None:
    """Chroma 49 of 255 in more than 10 % of the picture, of any depth; what is transparent does not count."""
    array = np.full((100, 100, 4), 255, np.uint8)
    below, above = int(CHROMA * 255), int(CHROMA * 255) + 1
    for rows, chroma, refused in ((11, above, True), (10, above, False), (100, below, False)):
        array[..., :3] = 100
        array[:rows, :, 0] = 100 + chroma
        assert bool(colours_against(array)) is refused
        assert bool(colours_against(array.astype(np.uint16) * 257)) is refused
    array[..., 0], array[..., 3] = 255, 0
    assert colours_against(array) is None


def test_colour_in_dicom(tmp_path: Path) -> None:
    grey = read(saved(tmp_path / "a", np.stack([CHEST] * 3, -1)))
    np.testing.assert_array_equal(fit(grey, SIZE), fit(ChestXray.from_array(CHEST), SIZE))
    with pytest.raises(NotApplicableError, match="coloured"):
        read(saved(tmp_path / "b", np.asarray(photograph())))
    with pytest.raises(ImageError, match="PALETTE COLOR"):
        read(saved(tmp_path / "c", PhotometricInterpretation="PALETTE COLOR"))


def test_bare_data_set(tmp_path: Path) -> None:
    """Without preamble and meta information, as old archives wrote it."""
    reference = fit(read(saved(tmp_path / "a")), SIZE)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        ds = dataset(CHEST)
        del ds.file_meta
        path = tmp_path / "bare"
        ds.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
        np.testing.assert_array_equal(fit(read(path), SIZE), reference)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(CHEST).save(tmp_path / "a.dcm", format="PNG")
    saved(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.dcm").pixels, read(tmp_path / "a.png").pixels)


def test_rle(tmp_path: Path) -> None:
    ds = dataset(deep(12), bits=12)
    ds.compress(RLELossless)
    ds.save_as(tmp_path / "rle", enforce_file_format=True)
    plain = read(saved(tmp_path / "plain", deep(12), bits=12))
    np.testing.assert_array_equal(read(tmp_path / "rle").pixels, plain.pixels)


COMPRESSED = {  # of pydicom's own test files
    "JPEG baseline": "SC_rgb_jpeg_dcmtk.dcm",
    "JPEG extended": "JPGExtended.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG lossless": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG 2000": "JPEG2000.dcm",
    "JPEG 2000 lossless": "MR_small_jp2klossless.dcm",
    "RLE": "MR_small_RLE.dcm",
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed(name: str) -> None:
    pytest.importorskip("pylibjpeg")
    path = Path(str(pydicom.data.get_testdata_file(COMPRESSED[name], download=False)))
    header = pydicom.dcmread(path, stop_before_pixels=True)
    assert header.file_meta.TransferSyntaxUID.is_compressed
    assert read(path, force=True).pixels.shape == (header.Rows, header.Columns)


def test_lossless_syntaxes_agree_with_plain() -> None:
    pytest.importorskip("pylibjpeg")
    names = ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm")
    paths = [Path(str(pydicom.data.get_testdata_file(name, download=False))) for name in names]
    plain, *others = (read(path, force=True).pixels for path in paths)
    for pixels in others:
        np.testing.assert_array_equal(pixels, plain)


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _retagged(path: Path, syntax: str) -> None:
    """Claims another transfer syntax."""
    saved(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", syntax.encode()[:20].ljust(20, b"\0"), 1))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "preamble only": (
        lambda path: path.write_bytes(bytes(128) + b"DICM"),
        "no whole picture",
    ),
    "cut header": (lambda path: (saved(path), _cut(path, 0.004)), "no whole picture|cannot be decoded"),
    "cut pixels": (lambda path: (saved(path), _cut(path, 0.6)), "cannot be decoded.*export it again"),
    "no pixels": (lambda path: saved(path, PixelData=None), "cannot be decoded"),
    "no rows": (lambda path: saved(path, Rows=None), r"no Rows\)"),
    "no photometric": (
        lambda path: saved(path, PhotometricInterpretation=None),
        "no PhotometricInterpretation",
    ),
    "no bits": (
        lambda path: saved(path, BitsStored=None, SamplesPerPixel=None),
        "no SamplesPerPixel, BitsStored",
    ),
    "bomb": (lambda path: saved(path, Rows=60_000, Columns=60_000), "60000×60000.*too large"),
    "tiny": (lambda path: saved(path, CHEST[:20]), "at least 32"),
    "uniform": (lambda path: saved(path, np.full((64, 64), 9, np.uint8)), "uniform"),
    "unknown syntax": (
        lambda path: _retagged(path, "1.2.840.10008.9.9.9"),
        "1.2.840.10008.9.9.9.*decompress",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BAD)
def test_bad_files_say_what_is_wrong(tmp_path: Path, name: str) -> None:
    make, says = BAD[name]
    path = tmp_path / "bad"
    make(path)
    with pytest.raises(ImageError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, NotApplicableError)


def test_deflated_is_refused_before_it_is_inflated() -> None:
    path = Path(str(pydicom.data.get_testdata_file("image_dfl.dcm", download=False)))
    with pytest.raises(ImageError, match=r"deflated.*dcmconv"):
        read(path, force=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("start", ["preamble", "bare", "middle"])
def test_fuzz(tmp_path: Path, start: str) -> None:
    """Random bytes after the preamble, or in a good file, raise nothing but our own errors."""
    rng = np.random.default_rng(0)
    path = saved(tmp_path / "a")
    good = path.read_bytes()
    for _ in range(150):
        if start == "middle":
            data = bytearray(good)
            for place in rng.integers(132, 900, 12):
                data[place] = rng.integers(256)
        else:
            head = bytes(128) + b"DICM" if start == "preamble" else b"\x08\0\x05\0CS"
            data = bytearray(head + rng.bytes(int(rng.integers(0, 3000))))
        path.write_bytes(data)
        for force in (False, True):
            try:
                read(path, force)
            except SGSegError as error:
                assert "\n" not in str(error)


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: Predictor) -> None:
    path = saved(tmp_path / "a")
    Image.fromarray(CHEST).save(tmp_path / "b.png")
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "pydicom":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"{path}.*sgseg\[dicom\]"):
        read(path)
    results = predict_files(predictor, [path, tmp_path / "b.png"], tmp_path / "out", Guidance.NONE)
    assert (len(results.images), len(results.failed)) == (1, 1)


def test_missing_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    ds = dataset(CHEST)
    ds.compress(RLELossless)
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(MissingExtraError, match=r"compressed as RLE Lossless.*sgseg\[dicom\]"):
        read(tmp_path / "a")


def report(path: Path) -> Path:
    """A structured report: DICOM, but no picture."""
    ds = dataset(CHEST, Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns", "BodyPartExamined", "ViewPosition"):
        delattr(ds, keyword)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A folder as on a CD: files without endings, one of them a report, and a DICOMDIR that lists them."""
    folder = tmp_path / "cd"
    (folder / "IMAGES").mkdir(parents=True)
    saved(folder / "IMAGES" / "IM000001")
    saved(folder / "IMAGES" / "IM000002", ViewPosition="LL")
    report(folder / "IMAGES" / "SR000001")
    (folder / "README").write_text("a viewer for Windows")
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    records = []
    for kind, name in (("PATIENT", None), *(("IMAGE", n) for n in ("IM000001", "IM000002", "SR000001"))):
        record = Dataset()
        record.DirectoryRecordType = kind
        if name:
            record.ReferencedFileID = ["IMAGES", name]
        records.append(record)
    directory.DirectoryRecordSequence = records
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder


def test_folder_and_dicomdir(medium: Path) -> None:
    names = ["IM000001", "IM000002", "SR000001"]
    assert [p.name for p in find_images([str(medium)])] == names
    assert [p.name for p in find_images([str(medium / "DICOMDIR")])] == names
    with pytest.raises(ImageError, match="only lists files"):
        read(medium / "DICOMDIR")


def test_what_is_named_as_dicom_is_never_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.DCM"
    path.write_bytes(b"no longer DICOM")
    assert find_images([str(tmp_path)]) == [path]


def test_dicomdir_leads_nowhere_else(medium: Path) -> None:
    path = medium / "DICOMDIR"
    directory = pydicom.dcmread(path)
    directory.DirectoryRecordSequence[1].ReferencedFileID = ["..", "secret"]
    directory.save_as(path)
    with pytest.raises(ImageError, match="outside its own folder"):
        find_images([str(path)])
    directory.DirectoryRecordSequence = []
    directory.save_as(path)
    with pytest.raises(ImageError, match="lists no file"):
        find_images([str(path)])
    path.write_text("not DICOM")
    with pytest.raises(ImageError, match="DICOMDIR cannot be read"):
        find_images([str(path)])


def test_predict_lists_what_is_not_applicable(
    medium: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    predictor: Predictor,
) -> None:
    from sgseg.cli import main

    def predict(*arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr("sys.argv", ["sgseg", "predict", *arguments, "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        return int(code or 0), json.loads((tmp_path / "out" / "predictions.json").read_text())

    code, document = predict(str(medium))
    assert code == 0
    assert [Path(entry["image"]).name for entry in document["images"]] == ["IM000001"]
    reasons = {Path(e["image"]).name: e["reason"] for e in document["not_applicable"]}
    assert reasons == {"IM000002": "its view is LL", "SR000001": "its Modality is SR"}
    assert document["failed"] == []
    assert "2 of 3 are no frontal chest X-rays" in capsys.readouterr().err

    lateral = str(medium / "IMAGES" / "IM000002")
    code, document = predict(lateral)
    assert code == 1 and document["images"] == []
    code, document = predict(lateral, "--force")
    assert code == 0
    assert document["images"][0]["against"] == "its view is LL"
    assert document["images"][0]["laterality_source"] == "none"
    assert document["images"][0]["report"] == "" and document["images"][0]["zones"] == []
    assert set(document["images"][0]["zone_probabilities"].values()) == {None}
    own = predictor.predict(lateral, force=True)
    assert document["images"][0]["finding"] is own.finding is not None, "it names no side"
    assert document["images"][0]["finding_probability"] == pytest.approx(own.finding_probability, abs=1e-4)

    code, document = predict(str(medium), "--force")
    assert code == 1 and len(document["images"]) == 2
    assert "holds no whole picture" in document["failed"][0]["error"]


def test_a_lateral_view_gets_no_side_letters(tmp_path: Path, predictor: Predictor) -> None:
    path = saved(tmp_path / "a", ViewPosition="LL")
    results = predict_files(predictor, [path], tmp_path / "out", Guidance.NONE, force=True)
    entry = results.images[0]
    mask = np.asarray(Image.open(tmp_path / "out" / entry["mask"])) > 0
    expected = overlay(read(path, force=True).pixels, mask, sides=False)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / entry["overlay"])), expected)
