"""An analysis as a page to read, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sgseg.errors import DataError
from sgseg.formats import html
from sgseg.formats.atomic import atomic
from sgseg.formats.predictions import write_json

PAGE, DOCUMENT = "analysis.html", "analysis.json"


def save_analysis(document: Mapping[str, Any], out: Path) -> Path:
    """Writes `PAGE` and `DOCUMENT`; neither holds pixels of the data.

    Args:
        document: of `evaluation.analyse`, with the keys "model" and "data" added.
        out: folder; made if it is not there.

    Returns:
        The page's path.

    Raises:
        DataError: the folder cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / DOCUMENT, dict(document))
        with atomic(out / PAGE) as temporary:
            temporary.write_bytes(_page(document).encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise DataError(f"cannot write to {out} ({error.strerror}); give another folder") from error
    return out / PAGE


def _page(document: Mapping[str, Any]) -> str:
    model, data = document["model"], document["data"]
    title = f"Where {model['name']} {model['version']} errs"
    about = (
        f'<p class="soft">{escape(data["name"])}, split {escape(data["split"])}, {data["cases"]:,} cases, '
        f"threshold {document['threshold']}, guidance {document['guidance']} unless another is named. "
        f"Intervals are 95 %, over patients. Everything is also in {DOCUMENT}.</p>"
    )
    sections = [
        _scores(document),
        *(_group(name, rows) for name, rows in document["groups"].items()),
        _calibration(document["calibration"]),
        _quality(document["quality"]),
        *([_detection(document["detection"])] if "detection" in document else []),
        _worst(document["worst"]),
    ]
    return html.page(title, about + "".join(sections))


def _scores(document: Mapping[str, Any]) -> str:
    rows = [
        [name, _range(scores["pooled_dice"]), _range(scores["per_image_dice"])]
        for name, scores in document["scores"].items()
    ]
    body = html.table(["guidance", "pooled Dice", "Dice, mean over images"], rows)
    if document["perfect_report"]:
        body += f"<p>A perfect report is worth {_range(document['perfect_report'])} of pooled Dice.</p>"
    return html.section("Scores", body)


def _group(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        [
            escape(row["group"]),
            f"{row['cases']:,}",
            _range(row["pooled_dice"]),
            _range(row["per_image_dice"]),
            f"{row['recall']:.3f}",
            f"{row['precision']:.3f}",
        ]
        for row in rows
    ]
    headings = [escape(name), "cases", "pooled Dice", "Dice, mean over images", "recall", "precision"]
    return html.section(f"By {escape(name)}", html.table(headings, cells))


def _calibration(calibration: Mapping[str, Any]) -> str:
    points = [(point["probability"], point["lesion"]) for point in calibration["curve"]]
    text = (
        f"<p>Expected calibration error {calibration['ece']:.4f}, cross-entropy of a pixel "
        f"{calibration['log_loss']:.4f}. The temperature that would suit these cases best is "
        f"{calibration['best_temperature']:.2f}: 1 is right, above it the model is too sure.</p>"
    )
    curve = html.curve("Probability (across) and share of pixels that are lesion", {"": points}, True)
    return html.section("Do the probabilities mean what they say?", text + curve)


def _quality(quality: Mapping[str, Any]) -> str:
    correlation = quality["rank_correlation"]
    text = (
        f"<p>The Dice that the model expects of its masks and the real one have a rank correlation of "
        f"{'?' if correlation is None else _range(correlation)}; they differ by "
        f"{quality['mean_absolute_error']:.3f} on average. If the images of which it expects least "
        "go to a person:</p>"
    )
    kept = quality["kept"]
    rows = [
        [
            html.bar(k["coverage"]),
            f"{k['pooled_dice']:.3f}",
            f"{k['per_image_dice']:.3f}",
            f"{k['quality']:.3f}",
        ]
        for k in kept
    ]
    table = html.table(["kept", "pooled Dice", "Dice, mean over images", "expected Dice at least"], rows)
    return html.section("Does the model know when it errs?", text + table)


def _detection(detection: Mapping[str, Any]) -> str:
    rows = [
        [
            escape(rule),
            _range(found["sensitivity"]),
            _range(found["false_positive_rate"]),
            f"{found['area_under_curve']:.4f}" if "area_under_curve" in found else "–",
        ]
        for rule, found in detection.items()
        if isinstance(found, Mapping) and "sensitivity" in found
    ]
    text = (
        f"<p>{detection['positives']:,} images with a lesion and {detection['negatives']:,} without, which "
        "come from another source: part of the difference may be the source's.</p>"
    )
    if decision := detection.get("the finding decision"):
        text += (
            "<p>The finding decision: the likeliest zone's probability exceeds the model's threshold, "
            f"{decision['threshold']:.2f}.</p>"
        )
    if zones := detection.get("specificity_of_uninvolved_zones"):
        text += (
            "<p>On the images with a lesion alone, of the zones that the true report does not name, the "
            f"model's does not name {_range(zones)}.</p>"
        )
    headings = ["called infected by", "sensitivity", "false positives", "area under the curve"]
    return html.section("With a lesion or without", text + html.table(headings, rows))


def _worst(worst: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"<code>{escape(case['name'])}</code>",
            *(f"{case[key]:.3f}" for key in ("dice", "expected_dice", "lesion", "found", "false")),
            "–" if case["true_zones"] is None else escape(", ".join(case["true_zones"]) or "none"),
            escape(", ".join(case["own_zones"]) or "none"),
        ]
        for case in worst
    ]
    headings = ["case", "Dice", "expected", "lesion", "found", "false", "true zones", "own zones"]
    note = (
        '<p class="soft">Lesion, found and false are shares of the image; left and right are the image’s.</p>'
    )
    return html.section("The worst", note + html.table(headings, rows))


def _range(score: Mapping[str, float]) -> str:
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
