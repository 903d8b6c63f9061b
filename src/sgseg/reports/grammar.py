"""The report grammar of QaTa-COV19: a set of zones <-> one sentence.

    bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.
    no infection.

`write` gives the exact wording of the refined captions. `parse` reads them back, and takes what
people type as well ("right lower zone", "upper and middle left lung"), but it never guesses: words
it does not know, a count or a "bilateral" that contradicts the zones, and a zone without a side are
errors.
"""

from __future__ import annotations

import re

from sgseg.anatomy import N_ZONESETS, Laterality, Level, Side, Zone, ZoneSet
from sgseg.errors import ReportError

NO_INFECTION = "no infection."
COUNTS = ("zero", "one", "two", "three", "four", "five", "six")
EXTENTS = {"unilateral": 1, "bilateral": 2}
LEVELS = {level.word: level for level in Level}
ENDS = frozenset(("lung", "lungs", "zone", "zones", "field", "fields"))
BREAKS = frozenset((",", "and", ".", ";"))
FILLERS = frozenset(("pulmonary", "infection", "infected", "area", "areas", "the", "of", "in"))

_EXAMPLE = '"lower left lung and middle lower right lung"'
_NEGATIVES = frozenset(("no infection", "no pulmonary infection", "no infected area", "no infected areas"))


def write(zones: ZoneSet, laterality: Laterality) -> str:
    """The report for a set of zones, in the wording of the data set.

    Args:
        zones: the infected zones.
        laterality: `IMAGE` for QaTa's captions, `PATIENT` for people.
    """
    if not zones:
        return NO_INFECTION
    extent = "bilateral" if len(zones.sides) == 2 else "unilateral"
    areas = "area" if len(zones) == 1 else "areas"
    sides = (Side.from_word(word, laterality) for word in ("left", "right"))
    lungs = [
        " ".join([*(level.word for level in zones.levels(side)), side.word(laterality), "lung"])
        for side in sides
        if side in zones.sides
    ]
    return f"{extent} pulmonary infection, {COUNTS[len(zones)]} infected {areas}, {' and '.join(lungs)}."


def all_reports(laterality: Laterality) -> list[str]:
    """The 64 reports; that of `ZoneSet(i)` is at place i."""
    return [write(ZoneSet(index), laterality) for index in range(N_ZONESETS)]


def parse(text: str, laterality: Laterality) -> ZoneSet:
    """The zones that a report names.

    Args:
        text: a report, or just its zones.
        laterality: whose left the words mean.

    Raises:
        ReportError: the text is empty, has unknown words, or contradicts itself.
    """
    words = re.findall(r"[^\s,.;]+|[,.;]", text.lower())
    plain = " ".join(word for word in words if word not in BREAKS)
    if plain in _NEGATIVES:
        return ZoneSet()
    claims = [word for word in words if word in COUNTS or word.isdecimal() or word.endswith("lateral")]
    zones = _zones([word for word in words if word not in claims and word not in FILLERS], text, laterality)
    if not zones:
        raise ReportError(
            f"the report {text!r} names no zone; write for example {_EXAMPLE} or {NO_INFECTION!r}"
        )
    for claim in claims:
        _check(claim, zones, text)
    return zones


def _zones(words: list[str], text: str, laterality: Laterality) -> ZoneSet:
    """Reads location phrases: levels and one side in any order, closed by "lung", "," or "and"."""
    zones: list[Zone] = []
    levels: list[Level] = []
    side: Side | None = None
    for word in [*words, "."]:
        if word in LEVELS:
            levels.append(LEVELS[word])
        elif word == "all":
            levels.extend(Level)
        elif word in ("left", "right"):
            if side is not None:
                raise ReportError(
                    f"the report {text!r} has two sides in one phrase; write for example {_EXAMPLE}"
                )
            side = Side.from_word(word, laterality)
        elif word in ENDS or word in BREAKS:
            if levels and side is not None:
                zones.extend(Zone(side, level) for level in levels)
                levels, side = [], None
            elif side is not None or (levels and (word in ENDS or word == ".")):  # only levels may wait
                lacks = "left or right" if levels else "upper, middle or lower"
                raise ReportError(f"the report {text!r} does not say {lacks}; write for example {_EXAMPLE}")
        else:
            raise ReportError(
                f"the report {text!r} has an unknown word, {word!r}; write for example {_EXAMPLE}"
            )
    return ZoneSet.of(zones)


def _check(claim: str, zones: ZoneSet, text: str) -> None:
    """Holds a count or an extent against the zones that were named."""
    if claim in EXTENTS:
        agrees = EXTENTS[claim] == len(zones.sides)
    elif claim in COUNTS:
        agrees = COUNTS.index(claim) == len(zones)
    elif claim.isdecimal():
        agrees = claim == str(len(zones))
    else:
        raise ReportError(f"the report {text!r} has an unknown word, {claim!r}; write for example {_EXAMPLE}")
    if not agrees:
        raise ReportError(
            f"the report {text!r} contradicts itself: it says {claim!r} but names "
            f"{len(zones)} zone(s) in {len(zones.sides)} lung(s); correct one of them"
        )
