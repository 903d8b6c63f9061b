"""What the figures share: which cases they show, how X-rays and masks are drawn, what is told beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from sgseg.anatomy import Laterality, Side
from sgseg.data import Case, load_mask
from sgseg.errors import ConfigError
from sgseg.evaluation import image_dice
from sgseg.evaluation.ledger import commit
from sgseg.formats import atomic
from sgseg.formats import drawing as palette
from sgseg.imaging import read
from sgseg.inference import Prediction, Predictor
from sgseg.reports import Guidance
from sgseg.reproduce.runs import SPLIT, THRESHOLD, Bench
from sgseg.training.runtime import TorchRuntime

Colour = tuple[float, float, float]


def _shares(colour: palette.Colour) -> Colour:
    red, green, blue = (part / 255 for part in colour)
    return red, green, blue


ORANGE, BLUE, INK, GREY = (
    _shares(colour) for colour in (palette.ORANGE, palette.BLUE, palette.INK, palette.GREY)
)
"""What the model says, what is true, and what is written."""

VERMILION, DARK_BLUE = "#d55e00", "#0072b2"
"""The same for letters, which need more contrast on paper."""

SIDES = "left = image left, the patient's right"
"""Beside reports in the data set's wording."""

_TINT = 0.3
_DPI = 200
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # letters stay letters
}


class Shown(NamedTuple):
    """A case and what a model makes of it, as it hangs.

    Attributes:
        pixels: (H, W) float32 in [0, 1].
        truth, mask: (H, W) bool.
        dice: of the two.
        prediction: the rest.
    """

    pixels: NDArray[np.float32]
    truth: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    dice: float
    prediction: Prediction


def find_cases(cases: Sequence[Case], wanted: Sequence[str]) -> list[Case]:
    """The cases of which parts of the names are given, whatever their case.

    Raises:
        ConfigError: a part is in no name, or in several and none of them as a whole.
    """
    return [_find(cases, part.casefold()) for part in wanted]


def _find(cases: Sequence[Case], part: str) -> Case:
    names = {case.name.casefold(): case for case in cases}
    found = [part] if part in names else [name for name in names if part in name]
    if not found:
        raise ConfigError(f"no case of {SPLIT!r} has {part!r} in its name; give --cases others")
    if len(found) > 1:
        raise ConfigError(
            f"{len(found):,} cases of {SPLIT!r} have {part!r} in their name ({', '.join(found[:3])}, …); "
            "give --cases more of it"
        )
    return names[found[0]]


def chosen(cases: Sequence[Case], wanted: Sequence[str], default: Sequence[str], bench: Bench) -> list[Case]:
    """The cases that a figure shows: those wanted, else the paper's, else as many of the first phantoms.

    Raises:
        ConfigError: they are not in the data set.
    """
    if bench.preset == "smoke" and not wanted:
        return list(cases[: len(default)])
    return find_cases(cases, wanted or default)


def show(player: TorchRuntime, case: Case, guidance: Guidance) -> Shown:
    """Predicts a case.

    Raises:
        ConfigError: it needs a report and has none.
    """
    if guidance is Guidance.TEXT and case.zones is None:
        raise ConfigError(f"{case.name} has no report to guide by; give --cases others")
    xray = read(case.image, force=True)
    zones = [case.zones] if guidance is Guidance.TEXT and case.zones is not None else None
    prediction = Predictor(player, THRESHOLD).predict_batch([xray], guidance, zones)[0]
    height, width = xray.pixels.shape
    truth, hung = load_mask(case, (height, width)), xray.hanging.hung
    dice = image_dice(prediction.mask, truth)
    return Shown(hung(xray.pixels), hung(truth), hung(prediction.mask), dice, prediction)


def about(figure: str, bench: Bench, seed: int) -> dict[str, Any]:
    """What the numbers of a figure are of, for its JSON."""
    return {
        "figure": figure,
        "preset": bench.preset,
        "data": bench.root.resolve().name,
        "split": SPLIT,
        "seed": seed,
        "threshold": THRESHOLD,
        "commit": commit(Path(__file__).parent),
    }


def told(document: dict[str, Any]) -> str:
    """The same in a line, with the run that the figure is of if it is one."""
    run = ""
    if "model" in document:
        model = document["model"]
        run = f", run {model['run']} (start: {model['init']}; weights {model['sha256'][:8]})"
    return (
        f"{document['data']}, split {document['split']}; preset {document['preset']}{run}, "
        f"seed {document['seed']}, threshold {document['threshold']}"
    )


# --- on paper


@contextmanager
def style() -> Iterator[None]:
    """Type and lines of what is drawn and saved within."""
    with matplotlib.rc_context(_STYLE):
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; what is drawn on it keeps clear of each other."""
    return Figure(figsize=(width, height), layout="constrained")


def save(drawn: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and as PDF, each whole or not at all.

    Args:
        drawn: the figure.
        path: of the files, whatever its suffix; the folder is made if it is not there.

    Returns:
        The two files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for file, metadata in zip(files, ({}, {"CreationDate": None}), strict=True):
        with atomic(file) as temporary:
            drawn.savefig(temporary, dpi=_DPI, format=file.suffix[1:], metadata=metadata)
        drawn.set_layout_engine("none")  # what was found for the first serves the second
    return files


def footnote(drawn: Figure, text: str) -> None:
    """Tells under a figure what its numbers are of."""
    lines = textwrap.fill(text, round(drawn.get_figwidth() * 22))
    drawn.supxlabel(lines, fontsize=6.5, color=GREY, x=0.01, ha="left")


def mark(axes: Axes, x: float, row: float) -> None:
    """A black stroke across a horizontal bar."""
    axes.plot([x, x], [row - 0.4, row + 0.4], color=INK, lw=1.6)


def panel(axes: Axes, title: str, pixels: NDArray[np.float32] | None = None) -> None:
    """An X-ray, (H, W) in [0, 1], with its title above; without one, room left free."""
    axes.set_axis_off()
    axes.set_title(title)
    if pixels is None:
        return
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    for side, (x, align) in {Side.IMAGE_LEFT: (0.03, "left"), Side.IMAGE_RIGHT: (0.97, "right")}.items():
        letter = side.word(Laterality.PATIENT)[0].upper()
        written = axes.text(x, 0.97, letter, color="white", va="top", ha=align, transform=axes.transAxes)
        written.set(fontsize=7, path_effects=[withStroke(linewidth=1.5, foreground=INK)])


def outline(axes: Axes, mask: NDArray[np.bool_], colour: Colour, filled: bool) -> None:
    """A mask, (H, W) bool, as a line on an X-ray, and as a tint."""
    if not mask.any():
        return
    if filled:
        tint = np.zeros((*mask.shape, 4), dtype=np.float32)
        tint[mask] = (*colour, _TINT)
        axes.imshow(tint, interpolation="nearest")
    height, width = mask.shape
    rows, columns = np.arange(-1, height + 1), np.arange(-1, width + 1)
    axes.contour(
        columns, rows, np.pad(mask, 1).astype(np.float32), levels=[0.5], colors=[colour], linewidths=0.9
    )
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
