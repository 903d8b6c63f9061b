"""How long the viewer takes, measured in the browser: from a click on a zone to the changed mask.

    python benchmarks/viewer.py --out results/viewer

`sgseg serve` runs in a process of its own, Chromium without a GPU beside it, both on this machine. Films are
synthetic: a small picture, and films of several megapixels as PNG and as DICOM, 16 bits with grain. Times are
the browser's own, from the event's time stamp to the end of the frame that shows what changed. `opened` is
from choosing the file to seeing it with its mask and report. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import sgseg
from sgseg.data import phantom
from sgseg.formats import atomic, write_json

FILMS = {
    "512×512, PNG": (512, 512),
    "2048×2500, PNG": (2048, 2500),
    "2048×2500, DICOM": (2048, 2500),
    "3000×3000, PNG": (3000, 3000),
    "3000×3000, DICOM": (3000, 3000),
}
"""Width and height."""

GOAL_MS = 150
_GRAIN = 200  # standard deviation, of 65,535
_CLOCK = """
addEventListener("click", (event) => (window.pressed = event.timeStamp), true);
addEventListener("change", (event) => (window.chosen = event.timeStamp), true);
window.opened = [];
window.clicked = [];
const seen = (list, start) =>
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel(); // its message comes after the frame was painted
    port1.onmessage = () => list.push(performance.now() - start);
    port2.postMessage(null);
  });
const measure = performance.measure.bind(performance);
performance.measure = (name, options) => {
  if (name === "correction") seen(clicked, pressed);
  return measure(name, options);
};
new MutationObserver(() => {
  if (opened.length === 0 && document.body.classList.contains("ready")) seen(opened, chosen);
}).observe(document, { subtree: true, attributes: true, attributeFilter: ["class"] });
"""


def film(width: int, height: int) -> NDArray[np.uint16]:
    """A synthetic X-ray of 16 bits, (height, width), with grain: as hard to pack as a real one."""
    drawn = Image.fromarray(phantom.draw(7, 512).pixels).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, _GRAIN, (height, width))
    return np.clip(np.asarray(drawn) * 257.0 + grain, 0, 65_535).astype(np.uint16)


def save_film(name: str, folder: Path) -> Path:
    """Writes one of `FILMS`."""
    pixels = film(*FILMS[name])
    path = folder / f"{name.replace(', ', '.').lower()}"
    if name.endswith("DICOM"):
        _save_dicom(pixels, path)
    else:
        Image.fromarray(pixels).save(path, compress_level=1)
    return path


def _save_dicom(pixels: NDArray[np.uint16], path: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", "PA"
    data.PatientOrientation = ["L", "F"]
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME1"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = (65_535 - pixels).tobytes()
    data.save_as(path, enforce_file_format=True)


@contextmanager
def served() -> Iterator[str]:
    """The address of a service of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from sgseg.cli import main; main()", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait_until_ready(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}readyz"):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("sgseg serve did not become ready within a minute")


def measure(browser: Any, url: str, path: Path, clicks: int) -> tuple[float, list[float]]:
    """Milliseconds until a film is open, and from each click on a zone to the changed mask."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    page.add_init_script(_CLOCK)
    page.goto(url)
    page.set_input_files("#pick", path)
    _wait_for(page, "opened", 1)
    for done in range(clicks):
        page.locator(".zone").nth(done % 6).click()
        _wait_for(page, "clicked", done + 1)
    opened, clicked = page.evaluate("[opened[0], clicked]")
    context.close()
    return opened, clicked


def _wait_for(page: Any, times: str, count: int) -> None:
    """Playwright's own waiting polls with eval, which the page's policy forbids."""
    while page.evaluate(f"{times}.length") < count:
        page.wait_for_timeout(20)


def summarise(taken: dict[str, tuple[list[float], list[float]]]) -> list[dict[str, Any]]:
    """One row for each film from the milliseconds of its openings and clicks."""
    return [
        {
            "film": name,
            "megapixels": FILMS[name][0] * FILMS[name][1] / 1e6,
            "opened_ms": statistics.median(opened),
            "click_median_ms": statistics.median(clicked),
            "click_p95_ms": float(np.quantile(clicked, 0.95)),
            "clicks": len(clicked),
        }
        for name, (opened, clicked) in taken.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| film | megapixels | opened, ms | click to mask, median, ms | p95, ms | clicks |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['film']} | {row['megapixels']:.1f} | {row['opened_ms']:.0f} "
            f"| {row['click_median_ms']:.0f} | {row['click_p95_ms']:.0f} | {row['clicks']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each film is opened, in turn")
    parser.add_argument("--clicks", type=int, default=12, help="on zones, each time")
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in FILMS}
    with tempfile.TemporaryDirectory() as folder, served() as url, sync_playwright() as driver:
        paths = {name: save_film(name, Path(folder)) for name in FILMS}
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        version = browser.version
        for _ in range(options.rounds):
            for name, path in paths.items():
                opened, clicked = measure(browser, url, path, options.clicks)
                taken[name][0].append(opened)
                taken[name][1].extend(clicked)
        browser.close()
    rows = summarise(taken)
    print(table(rows))
    if options.out is None:
        return
    busy = {"load": round(os.getloadavg()[0], 1), "niceness": os.nice(0)}
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), **busy, "chromium": version}
    write_json(
        options.out.with_suffix(".json"),
        {"sgseg": sgseg.__version__, **machine, "goal_ms": GOAL_MS, "rounds": options.rounds, "rows": rows},
    )
    with atomic(options.out.with_suffix(".md")) as temporary:
        heading = (
            f"# Viewer\n\nMeasured in the browser (Chromium {version}, no GPU) with the service on the same "
            f"machine, {machine['cpus']} CPUs at a load of {busy['load']} (niceness {busy['niceness']}), "
            f"`benchmarks/viewer.py`. Goal: a median of {GOAL_MS} ms from click to mask.\n\n"
        )
        temporary.write_text(heading + table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
