"""Figure 3: the masks of the compared systems beside the truth."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from sgseg.data import Case, read_cases
from sgseg.formats import write_json
from sgseg.reproduce import pictures
from sgseg.reproduce.pictures import Shown
from sgseg.reproduce.runs import SPLIT, Bench
from sgseg.reproduce.tables import TABLES, Row, runs_of

CASES = ("s08047_ses-e18100",)
"""The paper's."""

_TABLE = "table1"
_COLUMNS = 6
_PANEL = 1.3  # inches


class System(NamedTuple):
    """A row of Table 1 on the cases shown.

    Attributes:
        row: of the table.
        model: which run it is; None where its weights are missing.
        shown: each case; none where its weights are missing.
    """

    row: Row
    model: dict[str, Any] | None
    shown: list[Shown]


def draw(bench: Bench, seed: int, cases: Sequence[str] = (), only: Sequence[str] = ()) -> list[Path]:
    """Draws figure 3: the systems of Table 1, each under the guidance of its row.

    Args:
        bench: where runs and results lie.
        seed: of the runs.
        cases: parts of the names of those to show; by default the paper's.
        only: the runs to train now; others are shown if their weights are there.

    Returns:
        The JSON, PNG and PDF written; the picture is with the runs, because it shows the data.

    Raises:
        ConfigError: there is no such run or case, or a case without report is to be guided by text.
    """
    needed = runs_of(_TABLE, only)
    chosen = pictures.chosen(read_cases(bench.root, SPLIT), cases, CASES, bench)
    for number, name in enumerate(needed, start=1):
        bench.say(f"{number}/{len(needed)} {name}, seed {seed}")
        bench.trained(name, seed)
    systems = [system for name in runs_of(_TABLE) for system in _systems(bench, name, seed, chosen)]
    systems.sort(key=lambda system: TABLES[_TABLE].index(system.row))
    document = {
        **pictures.about("figure3", bench, seed),
        "cases": [case.name for case in chosen],
        "systems": [_described(system) for system in systems],
    }
    path = bench.published / "figure3.json"
    write_json(path, document)
    with pictures.style():
        return [path, *pictures.save(_figure(document, chosen, systems), bench.pictures / "figure3")]


def _systems(bench: Bench, name: str, seed: int, cases: Sequence[Case]) -> Iterator[System]:
    """The rows of a run, which is loaded once."""
    rows = [row for row in TABLES[_TABLE] if row.run == name]
    if not bench.is_trained(name, seed):
        yield from (System(row, None, []) for row in rows)
        return
    player = bench.player(name, seed)
    for row in rows:
        shown = [pictures.show(player, case, row.guidance) for case in cases]
        yield System(row, bench.model(name, seed, player), shown)


def _described(system: System) -> dict[str, Any]:
    return {
        "system": system.row.name,
        "guidance": system.row.guidance.value,
        "model": system.model,
        "dice": [shown.dice for shown in system.shown],
    }


def _figure(document: dict[str, Any], cases: Sequence[Case], systems: Sequence[System]) -> Figure:
    rows = math.ceil((2 + len(systems)) / _COLUMNS)
    drawn = pictures.figure(_COLUMNS * _PANEL, len(cases) * (rows * (_PANEL + 0.42) + 0.3) + 0.4)
    parts = drawn.subfigures(len(cases), 1, squeeze=False)[:, 0]
    for i, (case, part) in enumerate(zip(cases, parts, strict=True)):
        part.suptitle(case.name, x=0.01, ha="left", fontsize=8.5)
        panels = part.subplots(rows, _COLUMNS).flat
        seen = next(system.shown[i] for system in systems if system.shown)
        pictures.panel(next(panels), "X-ray", seen.pixels)
        truth = next(panels)
        pictures.panel(truth, "truth", seen.pixels)
        pictures.outline(truth, seen.truth, pictures.BLUE, filled=True)
        for system in systems:
            _draw(next(panels), system, i)
        for left_over in panels:
            left_over.set_axis_off()
    colours = "Orange: predicted lesion; blue line: true lesion; R, L: the patient's right and left"
    pictures.footnote(drawn, f"{colours}. {pictures.told(document)}. Dice is of this image.")
    return drawn


def _draw(axes: Any, system: System, i: int) -> None:
    name = "\n".join(textwrap.wrap(system.row.name, 20, break_on_hyphens=False))
    if not system.shown:
        pictures.panel(axes, name)
        axes.text(0.5, 0.5, "no weights here", color=pictures.GREY, ha="center", transform=axes.transAxes)
        return
    shown = system.shown[i]
    pictures.panel(axes, f"{name}\nDice {shown.dice:.3f}", shown.pixels)
    pictures.outline(axes, shown.mask, pictures.ORANGE, filled=True)
    pictures.outline(axes, shown.truth, pictures.BLUE, filled=False)
