"""The paper's tables and figures, one command each: trains what is missing, examines it, writes it down.

RUNS/<preset>/<run>-seed<k>/              a training run (see `training.run`)
RUNS/<preset>/figures/figure3.{png,pdf}   pictures that show X-rays of the data set
RESULTS/<preset>/<run>-seed<k>.json       a run's record: what it reached on `test`, under every guidance
RESULTS/<preset>/table1.{json,md}         the table, the paper's own numbers beside ours
RESULTS/<preset>/figure2.{json,png,pdf}   plots, and the numbers behind every figure

No pixel of the data set gets into RESULTS, which is what is published.

Rows are compared with rows trained here. The paper's numbers stand beside them as what they are: measured by
others, and not all averaged in one way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgseg.errors import ConfigError, DataError
from sgseg.reproduce import figure2, figure3, figure4, figure5
from sgseg.reproduce.runs import PRESETS, RUNS, SEEDS, Bench, Preset, plan
from sgseg.reproduce.tables import TABLES, Row, make_table

__all__ = ["FIGURES", "PRESETS", "RUNS", "SEEDS", "TABLES", "Bench", "Preset", "Row", "plan", "reproduce"]

FIGURES = ("figure2", "figure3", "figure4", "figure5")


def reproduce(
    what: str,
    bench: Bench,
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
    cases: Sequence[str] = (),
) -> list[Path]:
    """Makes a table or a figure; whatever an earlier call finished is taken as it is.

    Args:
        what: of `TABLES` or `FIGURES`.
        bench: where runs and results lie, and the preset: recipe and sizes.
        seeds: of every run; by default those of `SEEDS`. A figure has one.
        only: the runs to train and examine now, of those that a table or figure 3 shows; by default all.
        cases: which cases figures 3, 4 and 5 show, each a part of one name in `test`; by default the paper's.

    Returns:
        The files written; of a table its Markdown, beside which the JSON lies.

    Raises:
        ConfigError: there is no such table, figure, run or case, or the choice does not concern `what`.
        DataError: the data set cannot be read, or the results cannot be written.
    """
    if what not in (*TABLES, *FIGURES):
        raise ConfigError(f"there is no {what}; give one of {', '.join((*TABLES, *FIGURES))}")
    if only and what not in (*TABLES, "figure3"):
        raise ConfigError(f"{what} is of one run; leave out --only")
    if cases and what not in FIGURES[1:]:
        raise ConfigError(f"{what} is of the whole split; leave out --cases")
    try:
        bench.published.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {bench.published} ({error.strerror}); change --results") from error
    if what in TABLES:
        return [make_table(what, bench, seeds, only)]
    if len(seeds) > 1:
        raise ConfigError(f"{what} is of one seed; give --seeds one number")
    seed = seeds[0] if seeds else 0
    if what == "figure2":
        return figure2.draw(bench, seed)
    if what == "figure3":
        return figure3.draw(bench, seed, cases, only)
    return figure4.draw(bench, seed, cases) if what == "figure4" else figure5.draw(bench, seed, cases)
