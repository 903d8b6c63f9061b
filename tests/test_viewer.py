"""The viewer, driven in a real Chromium: look, correct, undo, review, take away; and left stays left.

Screenshots go to SGSEG_SCREENSHOTS, or to pytest's temporary folder.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import statistics
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sgseg
from sgseg.anatomy import ZONES, Laterality, Level, Side, Zone, ZoneSet
from sgseg.data import phantom, read_cases
from sgseg.reports import parse

pytest.importorskip("fastapi", reason="the viewer needs fastapi: pip install 'sgseg[serve]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="driving a browser needs playwright: pip install 'sgseg[dev]'"
)

import uvicorn  # noqa: E402

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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(create_app(sgseg.load()), port=port, ws="none", log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """The viewer on a laptop; fails if it logs an error or asks another host for anything."""
    context = browser.new_context(viewport={"width": 1366, "height": 768}, accept_downloads=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((url, "blob:")) else problems.append(r.url))
    page.goto(url)
    yield page
    context.close()
    assert not problems


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


def test_everything_has_a_name_and_fits(page: Any, shots: Path) -> None:
    drop(page, phantom_file(7))
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, canvas")]
            .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    for name, width, height in (("laptop", 1366, 768), ("tablet", 1024, 768), ("upright", 768, 1024)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=shots / f"6-{name}.png")
