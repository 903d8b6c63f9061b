"""Figure 4: the mask beside the report that guided it, and what wrong reports cost.

The picture: a case under the model's own report and under the true one, both sentences with the words marked
in which they differ. The plot: Dice over all of `test` against the number of zones that the own report has
wrong. Hard images have wrong reports *and* bad masks, so the same images are plotted under their true reports
as well: what remains of the slope there is the images', the gap is the report's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D, ScaledTranslation

from sgseg.anatomy import ZONES, Laterality
from sgseg.data import Case, read_cases
from sgseg.errors import DataError
from sgseg.evaluation import Evaluation, append_to_ledger, examine, per_image, pooled
from sgseg.evaluation.compare import Difference
from sgseg.evaluation.intervals import interval
from sgseg.formats import write_json
from sgseg.inference import Predictor
from sgseg.reports import Guidance
from sgseg.reproduce import pictures
from sgseg.reproduce.pictures import Shown
from sgseg.reproduce.runs import SPLIT, THRESHOLD, Bench
from sgseg.training.runtime import TorchRuntime

CASES = ("s09356_ses-e19770",)
"""The paper's."""

Marked = list[tuple[str, bool]]
"""The words and marks of a sentence, and whether each is another in the other sentence."""

_RUN = "sgseg"
_OWN, _TRUE = Guidance.SELF, Guidance.TEXT
# In points, where reports are written:
_LETTER, _LEADING = 9, 15
_LEFT, _RIGHT = 68.0, 500.0


def draw(bench: Bench, seed: int, cases: Sequence[str] = ()) -> list[Path]:
    """Draws figure 4 of the run `sgseg`.

    Args:
        bench: where runs and results lie.
        seed: of the run.
        cases: parts of the names of those in the picture; by default the paper's.

    Returns:
        The JSON and the plot, which are among the results, and the picture, which shows the data and so is
        with the runs.

    Raises:
        ConfigError: there is no such case.
        DataError: a case of the split has no report.
    """
    split = read_cases(bench.root, SPLIT)
    chosen = pictures.chosen(split, cases, CASES, bench)
    bench.say(f"{_RUN}, seed {seed}")
    player = bench.player(_RUN, seed)
    shown = [(pictures.show(player, case, _OWN), pictures.show(player, case, _TRUE)) for case in chosen]
    document = {
        **pictures.about("figure4", bench, seed),
        "model": bench.model(_RUN, seed, player),
        "shown": [_described(case, *pair) for case, pair in zip(chosen, shown, strict=True)],
        "wrong_zones": wrong_zones(*_evaluated(bench, player, split)),
    }
    path = bench.published / "figure4.json"
    write_json(path, document)
    with pictures.style():
        plot = pictures.save(_plot(document), path)
        return [path, *plot, *pictures.save(_picture(document, shown), bench.pictures / "figure4")]


def mark_differences(own: str, true: str) -> tuple[Marked, Marked]:
    """The words of two sentences, those marked that the other has not at this place of the sentence.

    What is not marked is the same in both, word for word.
    """
    words = [re.findall(r"\w+|[^\w\s]", sentence) for sentence in (own, true)]
    same: tuple[set[int], set[int]] = (set(), set())
    for a, b, length in SequenceMatcher(None, words[0], words[1], autojunk=False).get_matching_blocks():
        same[0].update(range(a, a + length))
        same[1].update(range(b, b + length))
    marked = [
        [(word, i not in kept) for i, word in enumerate(said)] for said, kept in zip(words, same, strict=True)
    ]
    return marked[0], marked[1]


def wrong_zones(own: Evaluation, true: Evaluation) -> dict[str, Any]:
    """Dice against the number of zones, 0…6, that the model's own report has wrong.

    Args:
        own: under the model's own report.
        true: of the same cases, under their true reports.

    Returns:
        "cases", and "bins": for each number of wrong zones how many "cases" have it, and their Dice, if there
        are any.
    """
    wrong = own.wrong_zones
    bins = [_bin(own, true, number, np.flatnonzero(wrong == number)) for number in range(len(ZONES) + 1)]
    return {"cases": len(wrong), "interval": "95 %, by patient", "bins": bins}


def _bin(own: Evaluation, true: Evaluation, number: int, members: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"wrong_zones": number, "cases": len(members)}
    if not len(members):
        return found
    patients = [own.cases[i].patient for i in members]
    for evaluation in (own, true):
        counts = evaluation.counts.of(members)
        found[evaluation.name] = {
            "per_image_dice": interval(per_image(counts).dice, patients),
            "pooled_dice": interval(pooled(counts).dice, patients),
        }
    gain = Difference(per_image(true.counts.of(members)).dice, per_image(own.counts.of(members)).dice)
    return {**found, "per_image_gain_of_the_true_report": interval(gain, patients)}


def _evaluated(bench: Bench, player: TorchRuntime, split: Sequence[Case]) -> list[Evaluation]:
    """All of `test`, under the own and under the true reports."""
    if silent := [case.name for case in split if case.zones is None]:
        raise DataError(
            f"figure 4 needs a report for each case, and {silent[0]} has none; add it to the table"
        )
    evaluations = examine(Predictor(player, THRESHOLD), split, [_OWN, _TRUE])
    if bench.preset != "smoke":
        append_to_ledger(bench.results / "test-ledger.csv", evaluations, player.identity, bench.root)
    return evaluations


def _described(case: Case, own: Shown, true: Shown) -> dict[str, Any]:
    return {
        "case": case.name,
        "laterality": Laterality.IMAGE.value,
        "own": _side(own),
        "true": _side(true),
        "zone_probabilities": own.prediction.zone_probabilities,
    }


def _side(shown: Shown) -> dict[str, Any]:
    return {"report": shown.prediction.report_in(Laterality.IMAGE), "dice": shown.dice}


# --- the pictures


def _plot(document: dict[str, Any]) -> Figure:
    drawn = pictures.figure(5.2, 3.6)
    axes = drawn.subplots()
    bins = [found for found in document["wrong_zones"]["bins"] if found["cases"]]
    series = (
        (_OWN, pictures.ORANGE, -0.09, "o", "own report"),
        (_TRUE, pictures.BLUE, 0.09, "s", "true report"),
    )
    for guidance, colour, shift, marker, name in series:
        places = [found["wrong_zones"] + shift for found in bins]
        _draw_series(axes, places, [found[guidance.value] for found in bins], colour, marker, name)
    axes.set_xticks(
        [found["wrong_zones"] for found in bins], [f"{f['wrong_zones']}\nN = {f['cases']:,}" for f in bins]
    )
    axes.set(xlabel="zones that the model's own report has wrong", ylabel="Dice")
    axes.legend(frameon=False, fontsize=7)
    axes.set_title("The same images under their own and their true reports", loc="left")
    split = f"{document['wrong_zones']['cases']:,} cases; lines: 95 % intervals by patient"
    pictures.footnote(drawn, f"{pictures.told(document)}; {split}")
    return drawn


def _draw_series(
    axes: Axes, places: Sequence[float], scores: Sequence[Any], colour: Any, marker: str, name: str
) -> None:
    mean = [score["per_image_dice"] for score in scores]
    values = np.array([[dice["value"], dice["low"], dice["high"]] for dice in mean])
    axes.plot(places, values[:, 0], color=colour, marker=marker, label=f"{name}: mean over images")
    axes.vlines(places, values[:, 1], values[:, 2], color=colour, lw=1.2)
    total = [score["pooled_dice"]["value"] for score in scores]
    axes.plot(places, total, color=colour, marker="x", lw=0.9, ls=":", label=f"{name}: pooled over pixels")


def _picture(document: dict[str, Any], shown: Sequence[tuple[Shown, Shown]]) -> Figure:
    drawn = pictures.figure(7.2, 3.25 * len(shown) + 0.4)
    parts = drawn.subfigures(len(shown), 1, squeeze=False)[:, 0]
    for part, told, (own, true) in zip(parts, document["shown"], shown, strict=True):
        part.suptitle(told["case"], x=0.01, ha="left", fontsize=8.5)
        _draw_case(part, told, own, true)
    legend = (
        "Orange: predicted lesion; blue: true lesion; R, L: the patient's right and left. "
        f"In the reports {pictures.SIDES}; words that differ are coloured and underlined."
    )
    pictures.footnote(drawn, f"{legend} {pictures.told(document)}. Dice is of this image.")
    return drawn


def _draw_case(part: Any, told: dict[str, Any], own: Shown, true: Shown) -> None:
    grid = part.subplot_mosaic([["x", "truth", "own", "true"], ["words"] * 4], height_ratios=(1.9, 1))
    pictures.panel(grid["x"], "X-ray", own.pixels)
    pictures.panel(grid["truth"], "truth", own.pixels)
    pictures.outline(grid["truth"], own.truth, pictures.BLUE, filled=True)
    for key, name, shown in (("own", "own report", own), ("true", "true report", true)):
        pictures.panel(grid[key], f"under the {name}\nDice {shown.dice:.3f}", shown.pixels)
        pictures.outline(grid[key], shown.mask, pictures.ORANGE, filled=True)
        pictures.outline(grid[key], shown.truth, pictures.BLUE, filled=False)
    marked = mark_differences(told["own"]["report"], told["true"]["report"])
    _write_reports(grid["words"], marked)


def _write_reports(axes: Axes, marked: tuple[Marked, Marked]) -> None:
    """Both sentences, one under the other."""
    axes.set_axis_off()
    line = _LETTER
    for name, words, colour in zip(
        ("Own report:", "True report:"), marked, (pictures.VERMILION, pictures.DARK_BLUE), strict=True
    ):
        _text(axes, 0, line, name, pictures.GREY)
        line = _write(axes, words, colour, line) + round(1.3 * _LEADING)


def _write(axes: Axes, words: Marked, colour: Any, line: int) -> int:
    """Writes a sentence, in as many lines as it needs; returns the last one's place."""
    x = _LEFT
    for i, (word, differs) in enumerate(words):
        space = 0 if i == 0 or re.fullmatch(r"\W", word) else _width(" ")
        if x + space + _width(word) > _RIGHT:
            x, line, space = _LEFT, line + _LEADING, 0
        x += space
        _text(axes, x, line, word, colour if differs else pictures.INK)
        if differs:
            ends, heights = [x, x + _width(word)], [-line - 2.5] * 2
            axes.plot(
                ends, heights, color=colour, lw=1.3, transform=_points(axes), clip_on=False, in_layout=False
            )
        x += _width(word)
    return line


def _text(axes: Axes, x: float, line: float, text: str, colour: Any) -> None:
    axes.text(x, -line, text, fontsize=_LETTER, color=colour, transform=_points(axes), in_layout=False)


def _points(axes: Axes) -> Any:
    """Points to the right of, and above, the upper left corner of the axes."""
    of_axes: Any = axes.transAxes
    return Affine2D().scale(1 / 72) + axes.figure.dpi_scale_trans + ScaledTranslation(0, 1, of_axes)


def _width(text: str) -> float:
    """In points."""
    font = FontProperties(size=_LETTER)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])
