"""The viewer, driven in a real Chromium: look, correct, undo, review, take away; and left stays left.

Screenshots go to SGSEG_SCREENSHOTS, or to pytest's temporary folder.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import statistics
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sgseg
from helpers import from_run_lengths, listening
from sgseg.anatomy import ZONES, Laterality, Level, Side, Zone, ZoneSet
from sgseg.batch import predict_files
from sgseg.data import phantom, read_cases
from sgseg.imaging import Hanging
from sgseg.reports import Guidance, parse

pytest.importorskip("fastapi", reason="the viewer needs fastapi: pip install 'sgseg[serve]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="driving a browser needs playwright: pip install 'sgseg[dev]'"
)


from sgseg.serving import create_app  # noqa: E402

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if _CHROMIUM is None:
    pytest.skip("no Chromium is installed: apt-get install chromium", allow_module_level=True)

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(create_app(sgseg.load())) as address:
        yield f"{address}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def viewing(browser: Any, url: str, width: int, height: int, touch: bool = False) -> Iterator[Any]:
    """The viewer on a screen of this size; fails if it logs an error or asks another host for anything."""
    screen = {"width": width, "height": height}
    context = browser.new_context(viewport=screen, has_touch=touch, is_mobile=touch)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((url, "blob:")) else problems.append(r.url))
    page.goto(url)
    yield page
    context.close()
    assert not problems


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """The viewer on a laptop."""
    with viewing(browser, url, 1366, 768) as page:
        yield page


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("SGSEG_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def until(page: Any, expression: str, arg: Any = None) -> None:
    """Waits for an expression; Playwright's own way polls with eval, which the page's policy forbids."""
    end = time.monotonic() + 30
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(10)


def drop(page: Any, *files: tuple[str, bytes]) -> None:
    """Drops files onto the page, as from a file manager."""
    data = [(name, base64.b64encode(content).decode()) for name, content in files]
    page.evaluate(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, text] of files)
                transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
        }""",
        data,
    )
    until(page, "name => document.getElementById('title').textContent === name", arg=files[0][0])
    page.wait_for_selector("body.ready")


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def phantom_file(seed: int, size: int = 224) -> tuple[str, bytes]:
    drawn = phantom.draw(seed, size)
    return f"{drawn.name}.png", png(drawn.pixels)


def dicom(hung: np.ndarray[Any, Any], *orientation: str, **tags: Any) -> bytes:
    """An X-ray, (H, W) uint8 as it hangs, stored so turned: MONOCHROME1, 12 bits, with a window."""
    pytest.importorskip("pydicom", reason="writing DICOM needs pydicom: pip install 'sgseg[dicom]'")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    hanging = Hanging.of(*orientation)
    assert hanging is not None
    values = 4095 - np.rint(hanging.stored(hung) * (2900 / 255) + 600).astype(np.uint16)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", "PA"
    data.PatientOrientation = list(orientation)
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME1"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = 2045, 3100
    data.PixelData = values.tobytes()
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def shot(canvas: Any) -> np.ndarray[Any, Any]:
    """What is on the screen there, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int)


def orange(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where the lesion's colour is, (H, W) bool."""
    return (picture[..., 0] - picture[..., 2] > 60) & (picture[..., 0] > picture[..., 1])


def fact(page: Any, term: str) -> str:
    return str(page.locator(f"#facts dt:text-is('{term}') + dd").text_content())


def report(page: Any) -> str:
    return str(page.input_value("#report"))


def after(page: Any, act: Any) -> None:
    """Does something that asks the service for a correction, and waits until it is shown."""
    count = page.evaluate("performance.getEntriesByName('correction').length")
    act()
    until(page, "n => performance.getEntriesByName('correction').length > n", arg=count)


def download(page: Any, kind: str) -> bytes:
    with page.expect_download() as waiting:
        page.click(f"[data-export={kind}]")
    return Path(waiting.value.path()).read_bytes()


def exported_mask(page: Any) -> np.ndarray[Any, Any]:
    image = Image.open(io.BytesIO(download(page, "mask")))
    assert image.mode == "L"
    return np.asarray(image) > 127


def test_look_correct_undo_and_take_away(page: Any, shots: Path) -> None:
    page.screenshot(path=shots / "1-empty.png")
    drop(page, phantom_file(7))
    expected = sgseg.load().predict(phantom.draw(7).pixels)
    assert report(page) == expected.report
    finding = f"{'likely' if expected.finding else 'unlikely'}, {expected.finding_probability:.2f}"
    assert fact(page, "Finding") == finding
    original = exported_mask(page)
    assert np.array_equal(original, expected.mask)
    page.screenshot(path=shots / "2-predicted.png")

    zone = page.locator(".zone").nth(5)  # row by row: the lower zone of the patient's left lung
    was = zone.get_attribute("aria-pressed") == "true"
    after(page, zone.click)
    assert (zone.get_attribute("aria-pressed") == "true") is not was
    assert ("lower" in report(page)) is not was
    zones = parse(report(page), Laterality.PATIENT)
    toggled = exported_mask(page)
    assert np.array_equal(toggled, sgseg.load().predict(phantom.draw(7).pixels, report=zones).mask)
    assert not np.array_equal(toggled, original)
    assert fact(page, "Finding") == finding, "it is the model's, whatever zones guide"
    page.click("#compare")
    page.screenshot(path=shots / "3-corrected.png")
    page.click("#compare")

    page.fill("#report", "upper right lung")
    after(page, lambda: page.press("#report", "Enter"))
    assert report(page) == "unilateral pulmonary infection, one infected area, upper right lung."
    assert page.locator(".zone").nth(0).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    page.locator("#corrected").focus()
    page.keyboard.press("Control+z")
    until(page, "text => document.getElementById('report').value === text", arg=_report(zones))
    page.click("#undo")
    until(page, "text => document.getElementById('report').value === text", arg=expected.report)
    assert np.array_equal(exported_mask(page), original)
    page.click("#redo")
    until(page, "text => document.getElementById('report').value === text", arg=_report(zones))
    assert np.array_equal(exported_mask(page), toggled)

    overlay = Image.open(io.BytesIO(download(page, "overlay")))
    assert overlay.size == (224, 224)
    document = json.loads(download(page, "json"))
    assert document["report"] == _report(zones) and document["laterality"] == "patient"
    assert document["mask"]["size"] == [224, 224]
    assert sum(document["mask"]["counts"][1::2]) == toggled.sum()


def _report(zones: ZoneSet) -> str:
    from sgseg.reports import write

    return write(zones, Laterality.PATIENT)


def test_words_that_are_not_understood_are_explained(page: Any) -> None:
    drop(page, phantom_file(7))
    page.fill("#report", "the liver")
    page.click("text=Apply words")
    until(page, "document.getElementById('report-problem').textContent.includes('liver')")


def test_brush_eraser_and_layers(page: Any, shots: Path) -> None:
    drop(page, phantom_file(12))
    original = exported_mask(page)
    box = page.locator("#corrected").bounding_box()
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.keyboard.press("b")
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 40, at[1] + 30, steps=4)
    page.mouse.up()
    until(page, "!document.getElementById('undo').disabled")
    painted = exported_mask(page)
    assert painted[112, 112] and (painted >= original).all() and painted.sum() > original.sum()
    assert fact(page, "Changed").startswith("+")
    page.keyboard.press("e")
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 1, at[1])
    page.mouse.up()
    page.wait_for_timeout(200)
    assert not exported_mask(page)[112, 112]
    after(page, lambda: page.keyboard.press("7"))
    assert not exported_mask(page)[112, 112], "what was drawn by hand stays when the zones change"
    for layer in ("probability", "uncertainty"):
        before = page.locator("#corrected").screenshot()
        page.check(f"#show-{layer}")
        page.wait_for_timeout(200)
        assert page.locator("#corrected").screenshot(path=shots / f"4-{layer}.png") != before
    page.uncheck("#show-uncertainty")
    page.keyboard.press("w")
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 80, at[1] + 40)
    page.mouse.up()
    assert page.input_value("#width") != "100" and page.input_value("#level") != "50"


def test_where_the_model_looked(page: Any, shots: Path) -> None:
    """The attention of all zones, or of the one that is pointed at or reached by keyboard."""
    drop(page, phantom_file(7))
    canvas, zones = page.locator("#corrected"), page.locator(".zone")
    plain = canvas.screenshot()
    page.check("#show-probability")
    page.locator("#corrected").focus()
    page.keyboard.press("a")
    until(page, "document.getElementById('caption').textContent.endsWith('for all zones')")
    assert not page.is_checked("#show-probability"), "one heat at a time can be read"
    page.mouse.move(0, 0)
    looked = canvas.screenshot(path=shots / "4-attention.png")
    assert looked != plain
    page.fill("#opacity", "90")
    assert canvas.screenshot() != looked
    name = zones.nth(4).get_attribute("data-zone")
    assert name == "lower right"
    zones.nth(4).hover()
    until(page, "zone => document.getElementById('caption').textContent.includes(zone)", arg=name)
    assert f"looked for the {name} zone" in str(canvas.get_attribute("aria-label"))
    page.mouse.move(0, 0)
    until(page, "document.getElementById('caption').textContent.endsWith('for all zones')")
    page.locator("#window-reset").focus()
    page.keyboard.press("Tab")
    until(page, "document.getElementById('caption').textContent.includes('looked for the upper right zone')")
    page.uncheck("#show-attention")
    until(page, "!document.getElementById('caption').textContent.includes('looked')")


def test_several_files_by_keyboard_and_a_bad_one(page: Any) -> None:
    drop(page, phantom_file(1), ("letter.txt", b"not a picture"), phantom_file(2))
    page.keyboard.press("Enter")
    page.wait_for_selector("#problem:not([hidden])")
    assert "not an image" in str(page.text_content("#problem-text"))
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#problem", state="hidden")
    assert page.text_content("#title") == phantom_file(2)[0]
    page.keyboard.press("Enter")
    page.wait_for_selector("#reviewed[aria-pressed=true]")
    coco = json.loads(download(page, "coco"))
    assert [image["file_name"] for image in coco["images"]] == ["phantom_000001.png", "phantom_000002.png"]
    for annotation in coco["annotations"]:
        assert annotation["area"] == sum(annotation["segmentation"]["counts"][1::2]) > 0


def test_right_lung_stays_right_lung_into_training(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shots: Path
) -> None:
    """One lesion off centre, from the viewer's "right lung" through the exported folder into training."""
    cache = pytest.importorskip("sgseg.training.cache", reason="needs torch: pip install 'sgseg[train]'")
    from sgseg.imaging import fit, read

    monkeypatch.setenv("SGSEG_CACHE", str(tmp_path / "cache"))
    right_lower = ZoneSet.of([Zone(Side.IMAGE_LEFT, Level.LOWER)])
    drawn = phantom.draw(31, 224, right_lower)
    drop(page, ("lesion.png", png(drawn.pixels)))
    page.fill("#report", "lower right lung")
    after(page, lambda: page.press("#report", "Enter"))
    label = page.locator(".zone[aria-pressed=true]").get_attribute("aria-label")
    assert label.startswith("lower right")
    button, middle = (
        page.locator(".zone[aria-pressed=true]").bounding_box(),
        page.locator("#zones").bounding_box(),
    )
    assert button["x"] + button["width"] < middle["x"] + middle["width"] / 2, "its button lies at the left"
    shown = exported_mask(page)
    assert shown[:, :112].sum() > 10 * shown[:, 112:].sum(), "the patient's right is at the picture's left"
    page.screenshot(path=shots / "5-right-lung.png")
    page.click("#reviewed")
    page.wait_for_selector("#reviewed[aria-pressed=true]")
    folder = tmp_path / "annotated"
    zipfile.ZipFile(io.BytesIO(download(page, "training"))).extractall(folder)

    (case,) = read_cases(folder, "train")
    assert case.zones == right_lower
    assert case.laterality is Laterality.PATIENT
    assert case.report == "unilateral pulmonary infection, one infected area, lower right lung."
    assert np.array_equal(np.asarray(Image.open(case.image)), drawn.pixels)
    arrays = cache.decode([case], 224)
    assert np.array_equal(arrays.images[0], fit(read(case.image), 224))
    assert np.array_equal(arrays.masks[0], shown)
    assert arrays.zones[0].tolist() == list(right_lower.vector)
    assert [zone for zone, flag in zip(ZONES, arrays.zones[0], strict=True) if flag] == [
        Zone(Side.IMAGE_LEFT, Level.LOWER)
    ]


def test_it_is_usable_at_once_and_follows_clicks(page: Any, url: str, browser: Any) -> None:
    """Prints what was measured; the bounds are wide, for the machine may be busy."""
    fresh = browser.new_page()
    began = time.perf_counter()
    fresh.goto(url)
    fresh.wait_for_selector("#examples:enabled")
    usable = time.perf_counter() - began
    fresh.close()
    drop(page, phantom_file(4, 512))
    for i in range(20):
        after(page, page.locator(".zone").nth(i % 6).click)
    clicks = page.evaluate("performance.getEntriesByName('correction').map((entry) => entry.duration)")
    print(f"usable after {usable:.2f} s; click to mask {statistics.median(clicks):.0f} ms (median)")
    assert usable < 3
    assert statistics.median(clicks) < 500


# --- DICOM, and films as large as they come

RIGHT_LOWER = ZoneSet.of([Zone(Side.IMAGE_LEFT, Level.LOWER)])
_LETTERS = """() => {
    window.letters = {};
    const { fillText } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
        if (this.canvas.id === "corrected") letters[text] = this.getTransform().transformPoint({ x, y }).x;
        return fillText.call(this, text, x, y);
    };
}"""


def test_a_forced_lateral_view_is_not_told_that_its_report_says_nothing(page: Any) -> None:
    lateral = dicom(phantom.draw(31, 256, RIGHT_LOWER).pixels, "L", "F", ViewPosition="LL")
    drop(page, phantom_file(1), ("lateral.dcm", lateral))
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#force:not([hidden])")
    page.click("#force")
    page.wait_for_selector("body.ready")
    assert page.text_content("#title") == "lateral.dcm"
    assert not fact(page, "Lesion").startswith("0 %")
    assert (report(page), page.text_content("#contradiction")) == ("", "")


@pytest.mark.parametrize("orientation", [("R", "F"), ("F", "L"), ("L", "H")])
def test_a_turned_dicom_is_clicked_through(
    page: Any, tmp_path: Path, shots: Path, orientation: tuple[str, str]
) -> None:
    """Stored mirrored, on its side or upside down: the lesion of the right lung is shown under the R."""
    drawn = phantom.draw(31, 256, RIGHT_LOWER)
    hung = drawn.pixels[:, 16:240]
    path = tmp_path / "turned.dcm"
    path.write_bytes(dicom(hung, *orientation))
    page.evaluate(_LETTERS)
    drop(page, (path.name, path.read_bytes()))
    assert page.text_content("#caption") == "Sides as the file’s tags say"
    own = sgseg.load().predict(path)
    assert report(page) == own.report
    assert np.array_equal(exported_mask(page), own.mask)

    page.locator("#corrected").focus()
    page.fill("#report", "lower right lung")
    after(page, lambda: page.press("#report", "Enter"))
    page.uncheck("#show-contour")
    page.locator("#opacity").fill("100")
    canvas = page.locator("#corrected")
    box = canvas.bounding_box()
    letters = page.evaluate("letters")
    assert letters["R"] < box["width"] / 2 < letters["L"]
    lesion = orange(shot(canvas))
    assert lesion[:, : lesion.shape[1] // 2].sum() > 20 * lesion[:, lesion.shape[1] // 2 :].sum()
    page.screenshot(path=shots / f"7-dicom-{'-'.join(orientation)}.png")

    page.uncheck("#show-mask")
    scale = min(box["width"] / 224, box["height"] / 256)
    left, top = (box["width"] - 224 * scale) / 2, (box["height"] - 256 * scale) / 2
    picture = Image.fromarray(shot(canvas)[..., 0].astype(np.uint8))
    part = picture.crop((left, top, left + 224 * scale, top + 256 * scale)).resize((224, 256))
    middle = np.asarray(part)[40:215].ravel()  # without letters and caption
    likeness = [np.corrcoef(middle, image[40:215].ravel())[0, 1] for image in (hung, hung[:, ::-1])]
    assert likeness[0] > 0.99 and likeness[1] < 0.95, "the X-ray as it hangs, no mirror image"
    plain = shot(canvas)
    page.locator("#width").fill("30")
    windowed = shot(canvas)
    ends = [np.isin(x[..., 0], (0, 255)).mean() for x in (plain, windowed)]
    assert ends[1] > ends[0] + 0.1, "a narrow window drives greys to black and white"
    page.click("#window-reset")
    assert np.array_equal(shot(canvas), plain)
    page.check("#show-mask")

    guided = exported_mask(page)
    after(page, page.locator(".zone").nth(5).click)
    toggled = exported_mask(page)
    assert not np.array_equal(toggled, guided)
    zones = parse(report(page), Laterality.PATIENT)
    results = predict_files(sgseg.load(), [path], tmp_path / "out", Guidance.TEXT, zones)
    written = np.asarray(Image.open(tmp_path / "out" / results.images[0]["mask"])) > 127
    assert np.array_equal(toggled, written), "the viewer's mask and that of the command line lie on the file"
    document = json.loads(download(page, "json"))
    assert document["orientation"] == results.settings["orientation"] == "file"
    assert document["hanging"] == results.images[0]["hanging"]
    assert np.array_equal(from_run_lengths(document["mask"]), written)
    overlay = np.asarray(Image.open(io.BytesIO(download(page, "overlay"))).convert("RGB")).astype(int)
    assert overlay.shape[:2] == hung.shape
    assert (overlay[4:30, 4:30] == 255).all(-1).any(), "a letter in the corner"


def test_exports_lie_on_the_file_however_it_is_turned(page: Any, tmp_path: Path) -> None:
    """All eight orientations: the viewer turns masks back as `Hanging.stored` does."""
    hung = phantom.draw(31, 112, RIGHT_LOWER).pixels[:, 10:100]
    turns = [(a, b) for a in "LRFH" for b in "LRFH" if (a in "LR") != (b in "LR")]
    assert len(turns) == 8
    for turn in turns:
        (tmp_path / f"{''.join(turn)}.dcm").write_bytes(dicom(hung, *turn))
    paths = [tmp_path / f"{''.join(turn)}.dcm" for turn in turns]
    drop(page, *((path.name, path.read_bytes()) for path in paths))
    expected = [sgseg.load().predict(path).mask for path in paths]
    assert len({mask.tobytes() for mask in expected}) == 8
    for path, mask in zip(paths, expected, strict=True):
        until(page, "name => document.getElementById('title').textContent === name", path.name)
        assert np.array_equal(exported_mask(page), mask)
        page.locator("#corrected").focus()
        page.keyboard.press("Enter")
    page.wait_for_selector("#reviewed[aria-pressed=true]")
    coco = json.loads(download(page, "coco"))
    assert [image["file_name"] for image in coco["images"]] == [path.name for path in paths]
    for image, annotation, mask in zip(coco["images"], coco["annotations"], expected, strict=True):
        assert (image["height"], image["width"]) == mask.shape
        assert np.array_equal(from_run_lengths(annotation["segmentation"]), mask)
        rows, columns = np.nonzero(mask)
        size = [np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation["bbox"] == [columns.min(), rows.min(), *size]
    folder = zipfile.ZipFile(io.BytesIO(download(page, "training")))
    for turn, mask in zip(turns, expected, strict=True):
        name = f"{''.join(turn)}.png"
        picture, lesion = (
            np.asarray(Image.open(folder.open(f"{kind}/{name}"))) for kind in ("images", "masks")
        )
        hanging = Hanging.of(*turn)
        assert hanging is not None
        assert np.array_equal(lesion > 127, hanging.hung(mask)), "as it hangs on the screen"
        assert np.corrcoef(picture.ravel(), hung.ravel())[0, 1] > 0.99


def test_a_film_of_several_megapixels(page: Any, shots: Path) -> None:
    """Its mask is the command line's, pixel for pixel, and still follows clicks and brush."""
    small = Image.fromarray(phantom.draw(7, 512).pixels)
    film = np.asarray(small.resize((2048, 2500), Image.Resampling.BICUBIC)).astype(np.uint16) * 257
    drop(page, ("film.png", png(film)))
    for i in range(6):
        after(page, page.locator(".zone").nth(i).click)
    clicks = page.evaluate("performance.getEntriesByName('correction').map((entry) => entry.duration)")
    print(f"2048×2500: click to mask {statistics.median(clicks):.0f} ms (median)")
    assert statistics.median(clicks) < 1000
    zones = parse(report(page), Laterality.PATIENT)
    expected = sgseg.load().predict(film, report=zones).mask
    assert np.array_equal(exported_mask(page), expected)

    box = page.locator("#corrected").bounding_box()
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.keyboard.press("b")
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 60, at[1] + 40, steps=8)
    page.mouse.up()
    until(page, "!document.getElementById('undo').disabled")
    painted = exported_mask(page)
    assert (painted >= expected).all() and painted[1250, 1024]
    assert fact(page, "Changed").startswith("+")
    page.screenshot(path=shots / "8-film.png")
    assert Image.open(io.BytesIO(download(page, "overlay"))).size == (2048, 2500)


# --- the exported folder


def exported_folder(page: Any, folder: Path) -> Path:
    zipfile.ZipFile(io.BytesIO(download(page, "training"))).extractall(folder)
    return folder


def review_all(page: Any, *files: tuple[str, bytes]) -> None:
    drop(page, *files)
    page.locator("#corrected").focus()
    for name, _ in files:
        until(page, "name => document.getElementById('title').textContent === name", name)
        page.keyboard.press("Enter")
    page.wait_for_selector("#reviewed[aria-pressed=true]")


def test_the_folder_validates_on_patients_of_its_own(page: Any, tmp_path: Path) -> None:
    """A patient is told by a name such as sub-1_a.png, or by DICOM's Patient ID, which stays in the page."""
    pixels = [phantom.draw(seed, 96).pixels for seed in range(1, 13)]
    files = [(f"sub-{i // 2}_{i}.png", png(image)) for i, image in enumerate(pixels[:8])]
    files += [(f"{i}.dcm", dicom(pixels[i], "L", "F", PatientID=f"Secret {i // 2}")) for i in range(8, 12)]
    review_all(page, *files)
    folder = exported_folder(page, tmp_path / "one")
    train, valid = (read_cases(folder, split) for split in ("train", "valid"))
    assert len(train) + len(valid) == 12
    patient = {name.split(".")[0]: f"{i // 2}" for i, (name, _) in enumerate(files)}
    sides = [{patient[case.name] for case in cases} for cases in (train, valid)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert not any(b"Secret" in path.read_bytes() for path in folder.rglob("*.*"))

    page.reload()
    review_all(page, *reversed(files))
    again = read_cases(exported_folder(page, tmp_path / "two"), "valid")
    assert {case.name for case in again} == {case.name for case in valid}, "the same patients each time"


def test_training_needs_a_second_patient_and_says_so(
    page: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sgseg.training", reason="needs torch: pip install 'sgseg[train]'")
    review_all(page, phantom_file(7))
    folder = exported_folder(page, tmp_path / "annotated")
    assert train(folder, tmp_path) == 1
    assert "valid.csv" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_the_folder_trains(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unzipped as it is, with the command that the documentation gives."""
    pytest.importorskip("sgseg.training", reason="needs torch: pip install 'sgseg[train]'")
    monkeypatch.setenv("SGSEG_CACHE", str(tmp_path / "cache"))
    review_all(page, *(phantom_file(seed) for seed in range(1, 7)))
    assert train(exported_folder(page, tmp_path / "annotated"), tmp_path) == 0
    assert (tmp_path / "run" / "weights.safetensors").is_file()


def train(folder: Path, out: Path) -> int:
    """The exit code of `sgseg train`; the run is in `out`/run."""
    from sgseg.cli import main

    options = [f"data.root={folder}", "stages.0.epochs=1", "--out", str(out / "run")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr("sys.argv", ["sgseg", "train", "sgseg-compact-finetune", *options])
        main()
    return int(caught.value.code or 0)


# --- for everyone, on every screen

_STOP = """() => {
    const at = document.activeElement;
    if (at === document.body) return { name: "", visible: true }; // in the browser's own bars
    const seen = at.id === "pick" ? at.labels[0] : at; // the input itself is hidden, its label is the button
    const { outlineStyle, outlineWidth } = getComputedStyle(seen);
    const box = seen.getBoundingClientRect();
    return {
        name: at.getAttribute("aria-label") || at.labels?.[0]?.textContent.trim() || at.textContent.trim(),
        visible: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && box.width > 0
            && box.left >= 0 && box.right <= innerWidth,
    };
}"""
_COVERED = """() => [...document.querySelectorAll("button, input, textarea, #corrected, label.button")]
    .filter((e) => e.checkVisibility() && !e.closest("dialog") && !e.matches(".hidden"))
    .filter((e) => e.id !== "corrected" || document.body.matches(".ready"))
    .filter((e) => {
        e.scrollIntoView({ block: "center", inline: "center" });
        const box = e.getBoundingClientRect();
        const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
        return !top || !(e.contains(top) || top.contains(e) || [...(e.labels ?? [])].includes(top));
    })
    .map((e) => e.outerHTML)"""


def violations(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2.1, levels A and AA."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-core: pip install 'sgseg[dev]'"
    )
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    found = axe.Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]}).response
    return [f"{v['id']}: {node['html']}" for v in found["violations"] for node in v["nodes"]]


def heard(page: Any) -> str:
    """What a screen reader announced last, from the accessibility tree."""
    return str(page.locator("#live").aria_snapshot())


def test_no_state_violates_wcag(page: Any) -> None:
    assert violations(page) == []
    drop(page, phantom_file(7), ("letter.txt", b"not a picture"))
    assert violations(page) == []
    after(page, page.locator(".zone").nth(5).click)
    page.click("#compare")
    page.fill("#report", "the liver")
    page.click("text=Apply words")
    until(page, "document.getElementById('report-problem').textContent.includes('liver')")
    assert violations(page) == []
    for dialog in ("help", "key-dialog"):
        page.evaluate("id => document.getElementById(id).showModal()", dialog)
        assert violations(page) == []
        page.keyboard.press("Escape")
    page.locator("#files button").nth(1).click()
    page.wait_for_selector("#problem:not([hidden])")
    assert violations(page) == []
    page.evaluate("document.getElementById('report').labels[0].remove()")
    assert [found.split(":")[0] for found in violations(page)] == ["label"], "axe-core looks indeed"


def test_everything_by_keyboard_alone(page: Any, shots: Path) -> None:
    """Open, hear the result, press a zone, write words, undo, review, take away; the focus is always seen."""

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            stop = page.evaluate(_STOP)
            assert stop["visible"], stop
            if stop["name"].startswith(name):
                return
        raise AssertionError(f"Tab does not lead to {name}")

    tab_to("Open X-rays")
    with page.expect_file_chooser() as chooser:
        page.wait_for_timeout(200)  # until Playwright really listens
        page.keyboard.press("Enter")
    files = [
        {"name": name, "mimeType": "image/png", "buffer": content}
        for name, content in (phantom_file(7), phantom_file(12))
    ]
    chooser.value.set_files(files)
    page.wait_for_selector("body.ready")
    own = report(page)
    until(page, "text => document.getElementById('live').textContent.endsWith(text)", own)
    assert heard(page) == f"- status: phantom_000007.png. Lesion {fact(page, 'Lesion')}. {own}"

    tab_to("lower left zone")
    pressed = page.locator(".zone").nth(5)
    was = pressed.get_attribute("aria-pressed") == "true"
    page.screenshot(path=shots / "9-focus.png")
    after(page, lambda: page.keyboard.press("Space"))
    assert page.evaluate(_STOP)["name"].startswith("lower left zone"), "the focus stays"
    until(page, "text => document.getElementById('live').textContent.endsWith(text)", report(page))
    assert report(page) != own and heard(page) == f"- status: Lesion {fact(page, 'Lesion')}. {report(page)}"
    tree = page.locator("#zones").aria_snapshot()
    line = next(line for line in tree.splitlines() if "lower left zone" in line)
    assert ("[pressed]" in line) is not was

    tab_to("In words")
    page.keyboard.press("Control+a")
    page.keyboard.type("upper right lung")
    after(page, lambda: page.keyboard.press("Enter"))
    tab_to("Model’s own")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    until(page, "text => document.getElementById('report').value === text", own)
    until(page, "text => document.getElementById('live').textContent.endsWith(text)", own)

    tab_to("Open X-rays")
    with page.expect_file_chooser():
        page.wait_for_timeout(200)
        page.keyboard.press("Enter")
    tab_to("Reviewed")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('title').textContent === 'phantom_000012.png'")
    assert page.evaluate(_STOP)["name"].startswith("Reviewed"), "the focus stays on the button"
    tab_to("Mask")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert waiting.value.suggested_filename == "phantom_000012_mask.png"
    tab_to("COCO")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert len(json.loads(Path(waiting.value.path()).read_bytes())["images"]) == 1

    page.locator("#corrected").focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    near = shot(page.locator("#corrected"))
    page.keyboard.press("Shift+ArrowRight")
    assert not np.array_equal(shot(page.locator("#corrected")), near), "it moves"


def test_single_keys_can_be_turned_off(page: Any) -> None:
    drop(page, phantom_file(7))
    page.keyboard.press("?")
    page.uncheck("#single-keys")
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    assert page.locator("button[data-tool=move]").get_attribute("aria-pressed") == "true"
    page.click("#help-open")
    page.check("#single-keys")
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    assert page.locator("button[data-tool=brush]").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize(
    ("name", "width", "height", "touch"),
    [
        ("laptop", 1366, 768, False),
        ("tablet", 1024, 768, True),
        ("upright", 820, 1180, True),
        ("narrow", 390, 844, True),
    ],
)
def test_it_fits_the_screen(
    browser: Any, url: str, shots: Path, name: str, width: int, height: int, touch: bool
) -> None:
    with viewing(browser, url, width, height, touch) as page:
        page.screenshot(path=shots / f"6-{name}-empty.png")
        assert page.evaluate(_COVERED) == []
        drop(page, ("a name as long as those that archives give to their exports.png", phantom_file(7)[1]))
        for compare in (False, True):
            page.wait_for_timeout(200)
            page.screenshot(path=shots / f"6-{name}{'-compare' * compare}.png")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(_COVERED) == []
            assert violations(page) == []
            page.click("#compare")
        heights = page.evaluate(
            "[...document.querySelectorAll('button')].map((e) => e.offsetHeight).filter(Boolean)"
        )
        assert min(heights) >= (40 if touch else 24)


@pytest.mark.parametrize(("width", "height"), [(1024, 768), (820, 1180)])
def test_fingers_tap_brush_pinch_and_drag(
    browser: Any, url: str, shots: Path, width: int, height: int
) -> None:
    with viewing(browser, url, width, height, touch=True) as page:
        drop(page, phantom_file(7))
        canvas, zone = page.locator("#corrected"), page.locator(".zone").nth(0)
        after(page, zone.tap)
        assert zone.get_attribute("aria-pressed") == "true"
        page.locator("button[data-tool=brush]").tap()
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        before = exported_mask(page)
        gesture(page, [[(x, y)], [(x + 30, y + 40)]])
        until(page, "document.getElementById('facts').textContent.includes('+')")
        painted = exported_mask(page)
        assert painted[112, 112] and painted.sum() > before.sum()
        page.screenshot(path=shots / f"10-touch-{width}.png")

        far = shot(canvas)
        gesture(page, [[(x, y - 30)], [(x, y - 30), (x, y + 30)], [(x, y - 60), (x, y + 60)]])
        assert np.array_equal(exported_mask(page), painted), "two fingers do not paint, whatever the tool"
        near = Image.fromarray(shot(canvas)[..., 0].astype(np.uint8))
        middle = (box["width"] / 4, box["height"] / 4, 3 * box["width"] / 4, 3 * box["height"] / 4)
        expected = Image.fromarray(far[..., 0].astype(np.uint8)).resize(near.size, box=middle)
        assert np.corrcoef(np.asarray(near).ravel(), np.asarray(expected).ravel())[0, 1] > 0.9, (
            "twice as near"
        )

        page.locator("button[data-tool=move]").tap()
        page.tap("#zoom-fit")
        gesture(page, [[(x, y)], [(x + 50, y - 40)]])
        moved = orange(shot(canvas))
        (row, column), (row_now, column_now) = (np.argwhere(m).min(0) for m in (orange(far), moved))
        assert (row_now - row, column_now - column) == (pytest.approx(-40, abs=3), pytest.approx(50, abs=3))


def gesture(page: Any, places: list[list[tuple[float, float]]]) -> None:
    """Fingers that touch at the first places, move on to the others, and leave."""
    session = page.context.new_cdp_session(page)
    fingers = 0
    for points in places:
        kind = "touchStart" if len(points) > fingers else "touchMove"
        fingers = len(points)
        touches = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
        page.wait_for_timeout(30)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(100)
