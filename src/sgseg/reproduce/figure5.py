"""Figure 5: where the model looked for the zones that its report names, alone and on the X-ray.

SGSeg-compact (presets `cpu` and `smoke`) has a map for each zone, and their mean, weighted by the zones'
probabilities. The published network (`paper`) has one location query: the weights of its aggregation over the
detector's objects, each spread evenly over its box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sgseg.anatomy import ZONES, Laterality
from sgseg.data import Case, read_cases
from sgseg.errors import ConfigError
from sgseg.formats import write_json
from sgseg.imaging import fit, restore
from sgseg.models import SGSeg
from sgseg.reports import NO_REPORT, Guidance
from sgseg.reproduce import figure3, figure4, pictures
from sgseg.reproduce.pictures import Shown
from sgseg.reproduce.runs import SPLIT, Bench
from sgseg.training.runtime import TorchRuntime

CASES = (*figure3.CASES, *figure4.CASES)
"""The paper's."""

_RUN = "sgseg"
_PANEL = 1.25  # inches
_COLOURS = "cividis"  # as light as it is large, also to the colour-blind


class Look(NamedTuple):
    """Where the model looked.

    Attributes:
        name: what for.
        probability: of the zone; None of the map that stands for all.
        attention: (H, W) float32 at the X-ray's own size, as it hangs; sums to 1.
    """

    name: str
    probability: float | None
    attention: NDArray[np.float32]


def draw(bench: Bench, seed: int, cases: Sequence[str] = ()) -> list[Path]:
    """Draws figure 5 of the run `sgseg`.

    Args:
        bench: where runs and results lie.
        seed: of the run.
        cases: parts of the names of those to show; by default the paper's of figures 3 and 4.

    Returns:
        The JSON, PNG and PDF written; the picture is with the runs, because it shows the data.

    Raises:
        ConfigError: there is no such case.
    """
    chosen = pictures.chosen(read_cases(bench.root, SPLIT), cases, CASES, bench)
    bench.say(f"{_RUN}, seed {seed}")
    player = bench.player(_RUN, seed)
    shown = [pictures.show(player, case, Guidance.SELF) for case in chosen]
    seen = [looks(player, each) for each in shown]
    document = {
        **pictures.about("figure5", bench, seed),
        "model": bench.model(_RUN, seed, player),
        "lesion": "share of the image that is true lesion",
        "attention_in_the_lesion": "share of the attention on true lesion pixels",
        "zone_maps_differ_by": "total variation between zones' maps, the mean over pairs: 0 alike, 1 apart",
        "shown": [_described(*each) for each in zip(chosen, shown, seen, strict=True)],
    }
    path = bench.published / "figure5.json"
    write_json(path, document)
    with pictures.style():
        return [path, *pictures.save(_figure(document, shown, seen), bench.pictures / "figure5")]


def looks(player: TorchRuntime, shown: Shown) -> list[Look]:
    """Where the model looked: for each zone and for all, or for all only.

    Raises:
        ConfigError: the model has neither maps nor objects.
    """
    prediction = shown.prediction
    hung = prediction.xray.hanging.hung
    if prediction.attention is None:
        return [Look("objects", None, hung(_objects(player, shown)))]
    of_zones = [(z.name(Laterality.IMAGE), prediction.zone_probabilities[z.position], z) for z in ZONES]
    maps = [(name, p, prediction.looked_at(zone)) for name, p, zone in (*of_zones, ("all zones", None, None))]
    return [Look(name, p, hung(_scaled(look))) for name, p, look in maps if look is not None]


def paint(weights: NDArray[np.float32], boxes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Objects as a map: each spreads its weight evenly over its box.

    Args:
        weights: (N,) of the objects.
        boxes: (N, 4): centre x, centre y, width, height, as shares of the image.
        size: side of the map, pixels.

    Returns:
        (size, size) float32, of the sum of the weights of all objects of which some part is in the image.
    """
    painted = np.zeros((size, size), dtype=np.float32)
    for weight, (x, y, width, height) in zip(weights, boxes, strict=True):
        left, right = _ends(x, width, size)
        top, bottom = _ends(y, height, size)
        area = (bottom - top) * (right - left)
        if area:
            painted[top:bottom, left:right] += weight / area
    return painted


def _ends(centre: float, width: float, size: int) -> tuple[int, int]:
    """First and last pixel, half-open, of a box along one axis; a box in the image has one pixel at least."""
    first = min(max(math.floor((centre - width / 2) * size), 0), size)
    return first, min(max(math.ceil((centre + width / 2) * size), 0), size)


def _objects(player: TorchRuntime, shown: Shown) -> NDArray[np.float32]:
    if not (isinstance(player.network, SGSeg) and player.network.writes_reports):
        raise ConfigError(f"{player.identity.name} tells no zones, so it looks for none; give a run of sgseg")
    xray = shown.prediction.xray
    found = player.explain(fit(xray, player.size)[None], np.array([NO_REPORT], dtype=np.int64))
    assert found.objects is not None and found.boxes is not None
    return _scaled(restore(paint(found.objects[0].numpy(), found.boxes[0].numpy(), player.size), xray))


def _scaled(attention: NDArray[np.float32]) -> NDArray[np.float32]:
    """To the sum 1, which resizing changes."""
    return attention / max(float(attention.sum()), 1e-12)


def _described(case: Case, shown: Shown, seen: Sequence[Look]) -> dict[str, Any]:
    return {
        "case": case.name,
        "report": shown.prediction.report_in(Laterality.IMAGE),
        "dice": shown.dice,
        "lesion": float(shown.truth.mean()),
        "zone_maps_differ_by": _spread([look for look in seen if look.probability is not None]),
        "maps": [_measured(look, shown) for look in seen],
    }


def _spread(zones: Sequence[Look]) -> float | None:
    """Total variation between two zones' maps, the mean over pairs; None where there are no such maps.

    0 means that the model looks at the same places whichever the zone, 1 that no two zones share any.
    """
    apart = [np.abs(a.attention - b.attention).sum() / 2 for a, b in combinations(zones, 2)]
    return float(np.mean(apart)) if apart else None


def _measured(look: Look, shown: Shown) -> dict[str, Any]:
    row, column = np.unravel_index(look.attention.argmax(), look.attention.shape)
    height, width = look.attention.shape
    return {
        "for": look.name,
        "probability": look.probability,
        "peak": {"x": (column + 0.5) / width, "y": (row + 0.5) / height},
        "attention_in_the_lesion": float(look.attention[shown.truth].sum()),
    }


# --- the picture


def _figure(document: dict[str, Any], shown: Sequence[Shown], seen: Sequence[list[Look]]) -> Figure:
    columns = 1 + max(len(maps) for maps in seen)
    drawn = pictures.figure(columns * _PANEL, len(shown) * (2 * _PANEL + 0.95) + 0.5)
    parts = drawn.subfigures(len(shown), 1, squeeze=False)[:, 0]
    for part, told, case, maps in zip(parts, document["shown"], shown, seen, strict=True):
        part.suptitle(_title(told), x=0.01, ha="left", fontsize=8.5)
        _draw_case(part.subplots(2, columns), case, maps)
    legend = (
        "Above: attention alone, each map from 0 (dark) to its own largest value (light); below: on the "
        "X-ray, with the share of it that lies in the true lesion. Blue line: true lesion; R, L: the "
        f"patient's right and left; in words {pictures.SIDES}."
    )
    pictures.footnote(drawn, f"{legend} {pictures.told(document)}.")
    return drawn


def _title(told: dict[str, Any]) -> str:
    zones = told["zone_maps_differ_by"]
    apart = "" if zones is None else f"; the zones' maps differ by {zones:.2%} of their attention"
    lesion = f"lesion {told['lesion']:.0%} of the image"
    return f"{told['case']}: {lesion}{apart}\nOwn report: “{told['report']}”"


def _draw_case(panels: Any, shown: Shown, maps: Sequence[Look]) -> None:
    pictures.panel(panels[0, 0], "X-ray", shown.pixels)
    pictures.panel(panels[1, 0], f"own report\nDice {shown.dice:.3f}", shown.pixels)
    pictures.outline(panels[1, 0], shown.mask, pictures.ORANGE, filled=True)
    pictures.outline(panels[1, 0], shown.truth, pictures.BLUE, filled=False)
    for look, (above, below) in zip(maps, panels.T[1:], strict=True):
        title = look.name if look.probability is None else f"{look.name}\np = {look.probability:.2f}"
        pictures.panel(above, title)
        _draw_map(above, look, opaque=True)
        inside = float(look.attention[shown.truth].sum())
        pictures.panel(below, f"{inside:.0%} in lesion", shown.pixels)
        _draw_map(below, look, opaque=False)
        pictures.outline(below, shown.truth, pictures.BLUE, filled=False)


def _draw_map(axes: Axes, look: Look, opaque: bool) -> None:
    """From 0 to its largest value; on an X-ray the more opaque the larger."""
    strength = look.attention / look.attention.max()
    alpha = 1.0 if opaque else 0.75 * np.sqrt(strength)
    axes.imshow(strength, cmap=_COLOURS, vmin=0, vmax=1, alpha=alpha, interpolation="bilinear")
