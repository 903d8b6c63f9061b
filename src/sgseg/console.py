"""What the command line shows: tables, and bars with the time left."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from sgseg.batch import Results
    from sgseg.batch.refine import Refined
    from sgseg.convert import Conversion
    from sgseg.data.audit import Audit
    from sgseg.evaluation import Comparison

_TABLE_ROWS = 20
_CONFUSED = 5
_FINDING = {True: "yes", False: "no", None: "–"}


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left, on stderr; only in a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=total)
        yield lambda: bars.advance(task)


def show_results(results: Results, out: Path) -> None:
    """What became of the files that were predicted."""
    laterality = results.settings["laterality"]
    report = f"report (the {laterality}'s left and right)"
    table = Table("image", report, "finding", "lesion", "uncertainty", box=None)
    for entry in results.images[:_TABLE_ROWS]:
        lesion, uncertainty = f"{entry['lesion_fraction']:.1%}", f"{entry['uncertainty']:.2f}"
        name, finding = escape(Path(entry["image"]).name), _FINDING[entry["finding"]]
        table.add_row(name, entry["report"], finding, lesion, uncertainty)
    console = Console()
    console.print(table)
    if len(results.images) > _TABLE_ROWS:
        console.print(f"… and {len(results.images) - _TABLE_ROWS} more")
    model, guidance = results.settings["model"], results.settings["guidance"]
    console.print(
        f"{len(results.images)} predicted by {model['name']} {model['version']}, guidance {guidance}; "
        f"results in {out}/predictions.json",
        soft_wrap=True,
        highlight=False,
    )
    if results.differing:
        _warn(f"sgseg: nothing of an earlier call is kept: it had another {', '.join(results.differing)}")
    for other in results.not_applicable:
        _warn(f"sgseg: {other['error']}")
    for failure in results.failed:
        _warn(f"sgseg: {failure['error']}")
    total = len(results.images) + len(results.not_applicable) + len(results.failed)
    if results.not_applicable:
        _warn(f"sgseg: {len(results.not_applicable)} of {total} are no frontal chest X-rays and left out")
    if results.failed:
        _warn(f"sgseg: {len(results.failed)} of {total} could not be predicted")


def show_evaluation(document: dict[str, Any], to_stderr: bool) -> None:
    """All scores, a column for each guidance; the document is that of `sgseg evaluate --json`."""
    model, data = document["model"], document["data"]
    name = f"{model['name']} {model['version']}".rstrip()
    title = f"{name} on {data['name']}/{data['split']}, {data['cases']} cases"
    if data["limit"]:
        title += " (the first ones only)"
    if document["threshold"] is not None:
        title += f", threshold {document['threshold']}"
    table = Table("", *document["guidance"], title=title, box=None)
    groups = ("pooled", "per_image", "zones", "text")
    first = next(iter(document["guidance"].values()))
    for group in (g for g in groups if g in first):
        for name in first[group]:
            cells = (_cell(scores[group][name]) for scores in document["guidance"].values())
            table.add_row(f"{group} {name}".replace("_", " "), *cells)
    cells = (_cell(scores["images_with_a_lesion_predicted"]) for scores in document["guidance"].values())
    table.add_row("images with a lesion", *cells)
    Console(stderr=to_stderr, width=None if sys.stdout.isatty() else 140).print(table)


def show_audit(audit: Audit) -> None:
    """How much was found of each kind."""
    from sgseg.data.audit import CHECKS  # here, so that no other command waits for it

    table = Table(f"{len(audit.cases):,} cases", "found", box=None)
    for key, found in audit.findings.items():
        table.add_row(CHECKS[key].title, f"{len(found):,}")
    Console().print(table)


def show_comparison(comparison: Comparison, to_stderr: bool) -> None:
    """Both systems' scores, and the difference with its interval and p."""
    title = f"{comparison.cases:,} cases of {comparison.patients:,} patients, split {comparison.split}"
    table = Table("", "A", "B", "A − B", "95 % interval", "p", title=title, box=None)
    for name, score in comparison.scores.items():
        interval = f"{score.low:+.4f} … {score.high:+.4f}"
        values = (f"{score.a:.4f}", f"{score.b:.4f}", f"{score.difference:+.4f}", interval, f"{score.p:.4f}")
        table.add_row(name, *values)
    console = Console(stderr=to_stderr, width=None if sys.stdout.isatty() else 140)
    console.print(f"A: {escape(comparison.a)}\nB: {escape(comparison.b)}", highlight=False, soft_wrap=True)
    console.print(table)


def show_conversion(conversion: Conversion) -> None:
    """What of a checkpoint was taken over, and what was not used and why."""
    table = Table("", "tensors", title=f"checkpoint of {conversion.source}", box=None)
    for part, mapped in Counter(name.split(".")[0] for name in conversion.tensors).items():
        table.add_row(part, str(mapped))
    for reason, unused in Counter(conversion.unused.values()).items():
        table.add_row(f"unused: {reason}", str(unused))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if conversion.source == "LanGuideMedSeg":
        _warn(
            "sgseg: LanGuideMedSeg HAS NO LERG: it writes no report and is guided by yours alone (--report)"
        )


def show_pseudo_labels(summary: dict[str, Any]) -> None:
    """How captions were labelled, and how often as they say."""

    def share(value: float | None) -> str:
        return "nothing to compare" if value is None else f"{value:.2%}"

    table = Table("", "captions", "agree with the zones parsed", box=None)
    for how, scores in summary["how"].items():
        table.add_row(how, f"{scores['captions']:,}", share(scores["agreement"]))
    table.add_row("all", f"{summary['captions']:,}", share(summary["agreement"]["exact"]))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    clusters = (
        "{phrases:,} location phrases, {clusters:,} clusters, {unreadable_clusters:,} of them unreadable"
    )
    purity = share(summary["purity"])
    console.print(f"{clusters.format(**summary)}; purity {purity}", soft_wrap=True, highlight=False)
    for pair in summary["confused"]["pairs_in_image_laterality"][:_CONFUSED]:
        confused = "{captions:,} × {known} -> {label} ({kind})".format(**pair)
        console.print(confused, soft_wrap=True, highlight=False)


def show_refined(refined: Refined) -> None:
    """What became of the captions."""
    n = len(refined.captions)
    table = Table("captions", f"{n:,}", "share", box=None)
    for name, count in refined.counts.items():
        table.add_row(name, f"{count:,}", f"{count / max(n, 1):.1%}")
    Console().print(table)
    print(f"{refined.table}; every change and what is unresolved: {refined.changes}")


def _cell(score: dict[str, float]) -> str:
    return f"{score['value']:.4f} ({score['low']:.3f}–{score['high']:.3f})"


def _warn(text: str) -> None:
    print(text, file=sys.stderr)
