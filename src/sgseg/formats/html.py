"""Pieces of a page that stands alone: its style, tables, bars, outlines and pictures are all in one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL = 168
"""Width and height of a picture on the page."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito's
_BINS = 24
_WIDTH, _HEIGHT, _FOOT = 330, 150, 22
_STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d9dee3; --shade: #f4f6f8; --bad: #b3261e; --good: #1a7f37;
  --bar: #4f83b6; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--shade); margin: 0; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 80px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 0 0 8px; }
h3 { font-size: 15px; margin: 20px 0 6px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 20px 24px;
  margin-top: 20px; overflow-x: auto; }
p { margin: 4px 0 12px; max-width: 80ch; }
.soft, summary, th { color: var(--soft); }
.note { border-left: 4px solid var(--bad); padding-left: 12px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
table.prose :is(th, td) { text-align: left; white-space: normal; }
a { color: inherit; }
b.some { color: var(--bad); }
b.none { color: var(--good); }
.bar { display: inline-block; width: 90px; height: 9px; background: var(--shade); border-radius: 5px;
  margin-left: 8px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--bar); }
.row { display: flex; flex-wrap: wrap; gap: 16px 32px; }
figure { margin: 0; padding: 10px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--shade); }
figure img { width: 168px; height: 168px; object-fit: contain; background: #000; border-radius: 4px;
  margin-right: 4px; }
figcaption { font-size: 13px; }
code { font: 12px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
details { margin-top: 14px; }
summary { cursor: pointer; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 6px 0 14px; }
"""


def page(title: str, body: str) -> str:
    """A whole page; the title is text, the body HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


def section(title: str, body: str, anchor: str = "") -> str:
    """A part of a page under its heading; title and body are HTML."""
    return f'<section id="{anchor}"><h2>{title}</h2>{body}</section>'


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], prose: bool = False) -> str:
    """A table of HTML cells: numbers, or with `prose` sentences that are wrapped."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    kind = ' class="prose"' if prose else ""
    return f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number(count: int) -> str:
    """How many were found, where none would be best."""
    return f'<b class="{"some" if count else "none"}">{count:,}</b>'


def bar(share: float) -> str:
    """A share in [0, 1], in figures and as a bar."""
    return f'{share:.1%}<span class="bar"><i style="width:{100 * share:.1f}%"></i></span>'


def legend(names: Iterable[str]) -> str:
    """Which colour of `histogram` stands for what."""
    return "".join(
        f'<span class="key" style="background:{colour}"></span>{escape(name)}'
        for name, colour in zip(names, cycle(_COLOURS), strict=False)
    )


def histogram(title: str, values: Mapping[str, NDArray[np.float64]]) -> str:
    """How some numbers are distributed, one outline for each name, of equal areas.

    Args:
        title: of the numbers.
        values: by name, (N,) each with N ≥ 1; the highest in 500 may fall off the right edge.
    """
    everything = np.concatenate(list(values.values()))
    low, high = float(everything.min()), float(np.quantile(everything, 0.998))
    edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
    shares = [np.histogram(numbers, edges)[0] / len(numbers) for numbers in values.values()]
    top = max(float(share.max()) for share in shares) or 1.0
    x = np.repeat(np.linspace(0, _WIDTH, _BINS + 1), 2)[1:-1]
    lines = ""
    for share, colour in zip(shares, cycle(_COLOURS), strict=False):
        y = np.repeat(_HEIGHT - share / top * (_HEIGHT - 8), 2)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lines += f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
    ends = "".join(
        f'<text x="{place}" y="{_HEIGHT + 16}" text-anchor="{anchor}" font-size="12" fill="#59636e">'
        f"{value:.2f}</text>"
        for place, anchor, value in ((0, "start", low), (_WIDTH, "end", float(edges[-1])))
    )
    axis = f'<line x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}" stroke="#d9dee3"/>'
    svg = f'<svg width="{_WIDTH}" height="{_HEIGHT + _FOOT}" role="img">{axis}{lines}{ends}</svg>'
    return f"<div><h3>{escape(title)}</h3>{svg}</div>"


def curve(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], diagonal: bool = False) -> str:
    """Curves in the unit square, one for each name; with `diagonal` also the line of equal coordinates."""
    side = _HEIGHT + 70
    drawn = f'<rect width="{side}" height="{side}" fill="none" stroke="#d9dee3"/>'
    if diagonal:
        drawn += f'<line x1="0" y1="{side}" x2="{side}" y2="0" stroke="#d9dee3" stroke-dasharray="4"/>'
    for points, colour in zip(lines.values(), cycle(_COLOURS), strict=False):
        places = [(x * side, (1 - y) * side) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn += f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        drawn += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    ends = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="12" fill="#59636e">{value}</text>'
        for x, y, anchor, value in (
            (0, side + 16, "middle", 0),
            (side, side + 16, "middle", 1),
            (-6, side, "end", 0),
            (-6, 10, "end", 1),
        )
    )
    box = f"-20 -6 {side + 32} {side + 28}"
    return (
        f'<div><h3>{escape(title)}</h3><svg viewBox="{box}" width="{side + 32}" role="img">'
        f"{drawn}{ends}</svg></div>"
    )


def figure(pictures: Sequence[Image.Image], caption: str) -> str:
    """Pictures side by side, inside the page; the caption is HTML."""
    images = "".join(f'<img src="{_data_uri(picture)}" alt="">' for picture in pictures)
    width = max(1, len(pictures)) * (THUMBNAIL + 8)
    return f'<figure>{images}<figcaption style="max-width:{width}px">{caption}</figcaption></figure>'


def _data_uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))  # twice, for sharp screens
    file = io.BytesIO()
    small.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
