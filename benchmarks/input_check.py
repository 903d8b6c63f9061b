"""What the input check of an artefact refuses: X-rays, X-rays in disguise, and everything else.

    python benchmarks/input_check.py --data QaTa --negatives HEALTHY --out results/input-check

Every picture is read by force, as if it had no tags, and encoded by the artefact; it is refused if its
distance is above the limit. Pictures come from the data sets' `valid` parts, from the phantom, from packages
that are installed (pydicom's test files, scikit-learn's and matplotlib's photographs, scikit-image's if it is
there), and from two kinds of folders: --xrays, frontal X-rays of other hospitals, which should pass, and
--pictures, which should not. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import sgseg
from sgseg.data import phantom, read_cases
from sgseg.errors import SGSegError
from sgseg.formats import atomic, write_json
from sgseg.imaging import ChestXray, fit, read
from sgseg.inference import OnnxRuntime
from sgseg.inference.runtime import read_card
from sgseg.weights import SHIPPED

Square = NDArray[np.uint8]
"""(size, size): a picture as networks take it."""

_VALID = 150  # of QaTa's 1,429
_BATCH = 16
_MODALITIES = ("CT", "MR", "US", "NM", "OT")


class Kind(NamedTuple):
    """Pictures of one kind.

    Attributes:
        name: of the kind.
        should: pass, be refused, or either: what nobody can tell, or what hardly matters.
        squares: the pictures.
    """

    name: str
    should: str
    squares: list[Square]


def kinds(
    size: int, data: Path | None, negatives: Path | None, xrays: Sequence[Path], pictures: Sequence[Path]
) -> Iterator[Kind]:
    """All kinds there are on this machine."""
    from sgseg.training.input_check import twin

    rng = np.random.default_rng(1)
    real: list[Square] = []
    for name, root, most in (("QaTa", data, _VALID), ("healthy", negatives, _VALID)):
        if root is None:
            continue
        cases = read_cases(root, "valid")
        squares = [fit(read(c.image, force=True), size) for c in cases[1 :: max(1, len(cases) // most)]]
        yield Kind(f"{name}, valid", "pass", squares)
        yield Kind(f"{name}, valid, altered", "pass", [twin(square, rng) for square in squares])
        real += squares
    yield Kind("phantoms", "pass", [_square(phantom.draw(seed).pixels, size) for seed in range(50)])
    for folder in xrays:
        yield Kind(f"X-rays of {folder.name}", "pass", _readable(folder.rglob("*"), size))
    if real:
        yield from _disguised(real, size, rng)
    yield from _dicoms(size)
    yield Kind("photographs of packages", "be refused", _readable(_photographs(), size))
    for folder in pictures:
        yield Kind(f"pictures of {folder.name}", "be refused", _readable(folder.rglob("*"), size))
    yield from _drawn(size, rng)


def _disguised(real: list[Square], size: int, rng: np.random.Generator) -> Iterator[Kind]:
    """X-rays that were changed so that they should not, or can not, be read as they are."""

    def each(change: Callable[[Square], Any]) -> list[Square]:
        return [_square(np.asarray(change(square)), size) for square in real]

    def part(square: Square, share: int) -> Square:
        side = size // share
        top, left = rng.integers(0, size - side + 1, 2)
        return square[top : top + side, left : left + side]

    def sheet(n: int) -> Square:
        chosen = rng.integers(0, len(real), (n, n))
        side = size // n
        return np.block(
            [[np.asarray(Image.fromarray(real[i]).resize((side, side))) for i in row] for row in chosen]
        )

    yield Kind("negatives, which reading turns round", "pass", each(lambda s: 255 - s))
    yield Kind("left and right exchanged", "either", each(lambda s: s[:, ::-1]))
    yield Kind("upside down", "be refused", each(lambda s: s[::-1, ::-1]))
    yield Kind("turned by 90°", "be refused", each(lambda s: np.rot90(s, rng.choice((1, 3)))))
    yield Kind("a quarter of the X-ray", "be refused", each(lambda s: part(s, 2)))
    yield Kind("a sixteenth of the X-ray", "be refused", each(lambda s: part(s, 4)))
    blur = ImageFilter.GaussianBlur(size / 28)
    yield Kind("hopelessly blurred", "be refused", each(lambda s: Image.fromarray(s).filter(blur)))
    for n in (2, 3, 4):
        yield Kind(f"contact sheets, {n}×{n}", "be refused", [_square(sheet(n), size) for _ in range(25)])


def _dicoms(size: int) -> Iterator[Kind]:
    """pydicom's test files by Modality, each picture once."""
    spec = find_spec("pydicom")
    if spec is None or spec.origin is None:
        return
    from pydicom import dcmread

    found: dict[str, dict[bytes, Square]] = {modality: {} for modality in _MODALITIES}
    for path in sorted((Path(spec.origin).parent / "data" / "test_files").rglob("*.dcm")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                modality = dcmread(path, stop_before_pixels=True).get("Modality")
        except Exception:  # files of that folder are broken in every way there is
            continue
        if modality in found:
            found[modality] |= {square.tobytes(): square for square in _readable([path], size)}
    for modality, squares in found.items():
        yield Kind(f"DICOM {modality} of pydicom, without their tags", "be refused", list(squares.values()))


def _photographs() -> Iterator[Path]:
    for package, folder in (
        ("sklearn", "datasets/images"),
        ("matplotlib", "mpl-data/sample_data"),
        ("skimage", "data"),
    ):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            yield from sorted((Path(spec.origin).parent / folder).glob("*"))


def _drawn(size: int, rng: np.random.Generator) -> Iterator[Kind]:
    """What a program draws."""
    noise = [rng.integers(0, 256, (n, n), dtype=np.uint8) for n in (4, 8, 16, 32, 64, size) * 5]
    smooth = [np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC)) for x in noise]
    y, x = np.mgrid[:size, :size] / (size - 1)
    away = np.hypot(x - 0.5, y - 0.5) / np.sqrt(0.5)
    slopes = [x, y, (x + y) / 2, away, 1 - away, np.abs(2 * x - 1)]
    boards = [20 + 200 * ((np.floor(x * n) + np.floor(y * n)) % 2) for n in (2, 4, 7, 8, 16, 28)]
    flat = [128 + rng.normal(0, spread, (size, size)) for spread in (2, 4, 8, 16)]
    for name, arrays in (
        ("noise, fine to coarse", smooth),
        ("pages of text", [_page(seed, dark=seed % 2 == 1) for seed in range(20)]),
        ("gradients", [255 * slope for slope in slopes]),
        ("checkerboards", boards),
        ("one grey with some noise", flat),
    ):
        yield Kind(name, "be refused", [_square(np.clip(a, 0, 255).astype(np.uint8), size) for a in arrays])


def _page(seed: int, dark: bool) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    page = Image.new("L", (600, 800), 0 if dark else 255)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=18)
    for y in range(30, 760, 26):
        words = ("".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(9))
        draw.text((30, y), " ".join(words), 255 if dark else 0, font)
    return np.asarray(page)


def _readable(paths: Iterator[Path] | Sequence[Path], size: int) -> list[Square]:
    """Those that are pictures; what cannot be read is refused without this check."""
    squares = []
    for path in sorted(paths):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                squares.append(fit(read(path, force=True), size))
        except SGSegError:
            continue
    return squares


def _square(pixels: NDArray[np.uint8], size: int) -> Square:
    return fit(ChestXray.from_array(pixels), size)


def measured(runtime: OnnxRuntime, kind: Kind) -> dict[str, Any]:
    """How strange pictures of one kind look; 1 is the limit."""
    batches = [np.stack(kind.squares[i : i + _BATCH]) for i in range(0, len(kind.squares), _BATCH)]
    strangeness = np.concatenate([runtime.encode(batch).strangeness for batch in batches])
    return summary(kind, strangeness)


def summary(kind: Kind, strangeness: NDArray[np.float32]) -> dict[str, Any]:
    """One row of the table."""
    return {
        "kind": kind.name,
        "should": kind.should,
        "pictures": len(strangeness),
        "refused": int(np.sum(strangeness > 1)),
        "least": float(strangeness.min()),
        "median": float(np.median(strangeness)),
        "most": float(strangeness.max()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| pictures | n | should | refused | least | median | most |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row['kind']} | {row['pictures']} | {row['should']} "
        f"| {row['refused']} ({row['refused'] / row['pictures']:.0%}) "
        f"| {row['least']:.2f} | {row['median']:.2f} | {row['most']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=SHIPPED, help="folder of an artefact")
    parser.add_argument("--data", type=Path, help="QaTa-COV19")
    parser.add_argument("--negatives", type=Path, help="X-rays without a finding")
    parser.add_argument("--xrays", type=Path, nargs="*", default=[], help="folders of other frontal X-rays")
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="folders of other pictures")
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    options = parser.parse_args()
    runtime, card = OnnxRuntime(options.model), read_card(options.model)
    if "input_check" not in card:
        parser.error(f"{options.model} was exported before there was an input check; export it again")
    found = kinds(runtime.size, options.data, options.negatives, options.xrays, options.pictures)
    rows = []
    for kind in found:
        if kind.squares:
            rows.append(measured(runtime, kind))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    if options.out is None:
        return
    document = {
        "sgseg": sgseg.__version__,
        "model": runtime.identity._asdict(),
        "input_check": card["input_check"],
        "rows": rows,
    }
    write_json(options.out.with_suffix(".json"), document)
    with atomic(options.out.with_suffix(".md")) as temporary:
        temporary.write_text(page(document), encoding="utf-8")


def page(document: dict[str, Any]) -> str:
    """Markdown: how the limit was chosen, what the check does not see, the table."""
    model, check, rows = document["model"], document["input_check"], document["rows"]
    blind = [r["kind"] for r in rows if r["should"] == "be refused" and r["refused"] < r["pictures"] / 2]
    return (
        f"# The input check\n\n{model['name']} {model['version']}, `benchmarks/input_check.py`. "
        f"Distances are shares of the limit, {check['limit']}: {check['margin']} times the largest below.\n\n"
        f"```json\n{json.dumps(check, indent=2)}\n```\n\n"
        f"It lets most of these pass, which it should not: {', '.join(blind) or 'none'}.\n\n{table(rows)}\n"
    )


if __name__ == "__main__":
    main()
