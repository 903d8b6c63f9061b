"""An audit as a page to read, its pictures inside it, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from sgseg.anatomy import Laterality, Level, Side, Zone
from sgseg.data import Case, load_mask
from sgseg.data.audit import CHECKS, Audit, Finding, quantities
from sgseg.data.captions import ROWS
from sgseg.errors import DataError, ImageError
from sgseg.formats import html
from sgseg.formats.atomic import atomic
from sgseg.formats.overlay import truth_overlay
from sgseg.formats.predictions import write_json
from sgseg.imaging import read

PAGE, DOCUMENT = "audit.html", "audit.json"

_PICTURED, _LISTED = 12, 60  # findings of each kind
_PICTURES = 4  # of one finding
_REPORTS = 12
_TALLIED = 5
_NOTABLE = 0.1


def save_audit(audit: Audit, out: Path) -> Path:
    """Writes `PAGE` and `DOCUMENT`. The page shows images of the data set: keep it where they are.

    Args:
        audit: of a data set.
        out: folder; made if it is not there.

    Returns:
        The page's path.

    Raises:
        DataError: the folder cannot be written to.
    """
    document = audit.document()
    page = _page(audit, document)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / DOCUMENT, document)
        with atomic(out / PAGE) as temporary:
            temporary.write_bytes(page.encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise DataError(f"cannot write to {out} ({error.strerror}); give another folder") from error
    return out / PAGE


def _page(audit: Audit, document: Mapping[str, Any]) -> str:
    splits = document["splits"]
    sections = [
        _overview(audit),
        _sides(audit, document["sides"]),
        _splits(splits),
        _drift(audit, document["drift"]),
        _zones(splits),
        _reports(splits),
        *(_findings(key, found, audit) for key, found in audit.findings.items() if found),
    ]
    introduction = (
        f'<p class="soft">{document["cases"]:,} cases. This page shows images of the data set: treat it as '
        f"you treat the data. Everything is listed in {DOCUMENT}. The lesion of the masks is in blue.</p>"
    )
    return html.page(f"Audit of {document['data']}", introduction + "".join(sections))


# --- sections


def _overview(audit: Audit) -> str:
    rows = []
    for key, found in audit.findings.items():
        title = escape(CHECKS[key].title)
        rows.append([f'<a href="#{key}">{title}</a>' if found else title, html.number(len(found))])
    return html.section("What was looked for", html.table(["", "found"], rows))


def _sides(audit: Audit, sides: Mapping[str, int]) -> str:
    """Whether the reports' left and right are those that were told."""
    known = sum(sides.values())
    if not known:
        return ""
    share = sides["agree"] / known
    text = (
        f"<p>Of {known:,} frontal pictures whose report names one lung only, {share:.1%} have most of the "
        "lesion in that lung.</p>"
    )
    if share < 0.5:
        text += (
            '<p class="note">The reports mean the other left: before training, correct the laterality of '
            "the data set (column <code>laterality</code>).</p>"
        )
    reaches = ", ".join(
        f"{level.word} ones from {top / ROWS:.0%} to {bottom / ROWS:.0%}"
        for level, (top, bottom) in audit.reaches.items()
    )
    text += (
        '<p class="soft">The picture’s halves stand for the lungs. Where their zones may reach is learnt '
        f"from the lungs of which one zone only is named: {reaches} of the height. “image-left” is the left "
        "of the picture, mostly the patient’s right.</p>"
    )
    return html.section("Left and right", text)


def _splits(splits: Mapping[str, Any]) -> str:
    rows = []
    for name, facts in splits.items():
        patients = f"{facts['patients']:,}" if facts["patients_known"] else "not known"
        tallies = [_tally(facts[key]) for key in ("sizes", "modes", "views")]
        rows.append([escape(name), f"{facts['cases']:,}", patients, f"{facts['with_report']:,}", *tallies])
    headings = ["split", "cases", "patients", "with report", "sizes", "modes", "views"]
    return html.section("Splits", html.table(headings, rows))


def _drift(audit: Audit, drift: Sequence[Mapping[str, Any]]) -> str:
    """The distributions of each split, and the distances between them."""
    by_split = {split: quantities(looks) for split, looks in audit.by_split.items()}
    names = list(next(iter(by_split.values()), {}))
    outlines = [
        html.histogram(name, {split: values[name] for split, values in by_split.items()}) for name in names
    ]
    text = f'<p>{html.legend(by_split)}</p><div class="row">{"".join(outlines)}</div>'
    if drift:
        columns = [*names, "reports"]
        rows = [
            [escape(f"{row['a']} – {row['b']}"), *(_distance(row[column]) for column in columns)]
            for row in drift
        ]
        text += (
            '<h3>How far apart</h3><p class="soft">0: alike, 1: wholly different. Of numbers this is the '
            "Kolmogorov-Smirnov distance, of reports the total variation. Large splits drawn at random "
            f"from one pool stay near 0; from {_NOTABLE} on it is marked.</p>"
            f"{html.table(['splits', *columns], rows)}"
        )
    return html.section("How the splits differ", text)


def _zones(splits: Mapping[str, Any]) -> str:
    rows = []
    for zone in (Zone(side, level) for level in Level for side in Side):
        name = zone.name(Laterality.IMAGE)
        shares = [facts["zones_in_image_laterality"].get(name) for facts in splits.values()]
        label = f"{zone.level.word} image-{zone.side.word(Laterality.IMAGE)}"
        rows.append([label, *("–" if share is None else html.bar(share) for share in shares)])
    return html.section("Zones that the reports name", html.table(["zone", *map(escape, splits)], rows))


def _reports(splits: Mapping[str, Any]) -> str:
    tallies = {split: Counter(facts["reports_in_image_laterality"]) for split, facts in splits.items()}
    reports = [report for report, _ in sum(tallies.values(), Counter[str]()).most_common()]
    rows = [
        [escape(report), *(html.bar(tally[report] / max(tally.total(), 1)) for tally in tallies.values())]
        for report in reports
    ]
    headings = ["report (left and right of the image)", *map(escape, splits)]
    distinct = ", ".join(f"{len(tally)} in {escape(split)}" for split, tally in tallies.items())
    text = f"<p>Of 64 possible reports there are {distinct}.</p>{html.table(headings, rows[:_REPORTS])}"
    if len(rows) > _REPORTS:
        text += f"<details><summary>{len(rows) - _REPORTS} more</summary>"
        text += f"{html.table(headings, rows[_REPORTS:])}</details>"
    return html.section("Reports", text)


def _findings(key: str, found: Sequence[Finding], audit: Audit) -> str:
    pictured = [finding for finding in found if finding.cases][:_PICTURED]
    text = f"<p>{escape(CHECKS[key].meaning)}</p>"
    text += f'<div class="row">{"".join(_figure(finding, audit) for finding in pictured)}</div>'
    if rest := found[len(pictured) :]:
        rows = [[f"<code>{escape(' · '.join(f.cases))}</code>", escape(f.detail)] for f in rest[:_LISTED]]
        state = "" if pictured else " open"
        text += (
            f"<details{state}><summary>{len(rest):,} more</summary>{html.table(['', ''], rows, prose=True)}"
        )
        text += f"<p>… and the others in {DOCUMENT}.</p>" if len(rest) > _LISTED else ""
        text += "</details>"
    return html.section(f"{escape(CHECKS[key].title)} {html.number(len(found))}", text, key)


# --- pieces


def _figure(finding: Finding, audit: Audit) -> str:
    shown = finding.cases[:_PICTURES]
    cases = [audit.cases[key] for key in shown]
    pictures = [picture for case in cases if (picture := _picture(case)) is not None]
    reports = sorted({case.report for case in cases if case.report})
    more = len(finding.cases) - len(shown)
    lines = [
        escape(finding.detail),
        *(f'<span class="soft">“{escape(report)}”</span>' for report in reports),
        *(f"<code>{escape(key)}</code>" for key in shown),
        *([f"and {more:,} more"] if more else []),
    ]
    return html.figure(pictures, "<br>".join(filter(None, lines)))


def _picture(case: Case) -> Image.Image | None:
    """The X-ray with its lesion, hung the standard way; None where it cannot be read."""
    try:
        xray = read(case.image, force=True)
        hung, (height, width) = xray.hanging.hung, xray.pixels.shape
        return truth_overlay(hung(xray.pixels), hung(load_mask(case, (height, width))), sides=False)
    except (ImageError, DataError):
        return None


def _distance(value: float | None) -> str:
    if value is None:
        return "–"
    return f'<b class="some">{value:.2f}</b>' if value >= _NOTABLE else f"{value:.2f}"


def _tally(counts: Mapping[str, int]) -> str:
    """The most frequent things and how often they are."""
    shown = [f"{escape(thing)} ({count:,})" for thing, count in [*counts.items()][:_TALLIED]]
    return ", ".join([*shown, *([f"{len(counts) - _TALLIED} more"] if len(counts) > _TALLIED else [])])
