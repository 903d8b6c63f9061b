"""Mends mistyped captions, and never guesses.

    bilateral pulmonery infection, two infected area, left lower lung lower right lung
    -> bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.

A caption says the same thing three times: how many lungs ("bilateral"), how many zones ("two") and which. So
a slip in one place can be mended by what the others say:

1. A word that is not known becomes the one word of the captions that is a single slip away, or the two that
   run together in it. Words that are known stay: "upper" never becomes "lower".
2. What `parse` then accepts is settled, if it has no other reading.
3. Where it contradicts itself, zones that are named exactly as `write` names them win over one wrong claim,
   if the other claim confirms them. More zones counted than named may as well be a lost word ("two infected
   areas, lower left lung"), and are not mended.
4. A location in another order or with foreign words ("left lung lower") is read if the claims confirm it.

All else is left as it is and told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, pairwise

from sgseg.anatomy import N_ZONESETS, Laterality, ZoneSet
from sgseg.errors import ReportError
from sgseg.reports.grammar import BREAKS, COUNTS, ENDS, EXTENTS, FILLERS, LEVELS, parse, write

_SIDES = frozenset(("left", "right"))
_JOINERS = frozenset(("&", "+", "/"))
_MARKS = frozenset((",", ".", ";", "-")) | _JOINERS
_LUNGS = ENDS | {"lobe", "lobes"}  # no zone is a lobe: `parse` refuses them, so the claims must confirm them
_KINDS = {"l": LEVELS.keys() | {"all"}, "s": _SIDES, "e": _LUNGS}
_NUMBERS = {word: i for i, name in enumerate(COUNTS) for word in (name, str(i))}
_WRITTEN = frozenset(
    word
    for index in range(1, N_ZONESETS)
    for word in re.findall("[a-z]+", write(ZoneSet(index), Laterality.IMAGE))
) | {"all"}
_KNOWN = _WRITTEN | _LUNGS | _MARKS | FILLERS | _NUMBERS.keys() | {"no"}


@dataclass(frozen=True)
class Refinement:
    """What became of a caption.

    Attributes:
        original: the caption as it was.
        refined: its zones in the wording of `write`; None where the caption does not tell them.
        zones: what it names; None where it does not tell.
        reasons: what was mended, or what cannot be.
    """

    original: str
    refined: str | None
    zones: ZoneSet | None
    reasons: tuple[str, ...]

    @property
    def resolved(self) -> bool:
        return self.refined is not None

    @property
    def mended(self) -> bool:
        return self.resolved and self.refined != self.original

    @property
    def text(self) -> str:
        """The refined caption, or the original where there is none."""
        return self.original if self.refined is None else self.refined


def refine(caption: str, laterality: Laterality) -> Refinement:
    """Mends a caption as far as it can be done without guessing.

    Args:
        caption: a report, mistyped or not.
        laterality: whose left the words mean.
    """
    try:
        spelt = [_spelt(word) for word in re.findall(r"[^\s,.;:&+/-]+|[,.;:&+/-]", caption.lower())]
        words = [word for _, correct in spelt for word in correct]
        zones, contradictions = _zones([word for word, _ in groupby(words)], laterality)
    except ReportError as problem:
        return Refinement(caption, None, None, (str(problem),))
    refined = write(zones, laterality)
    misspelt = [f"{word!r} for {' '.join(correct)!r}" for word, correct in spelt if correct != (word,)]
    reasons = (*misspelt, *contradictions, *_rewordings(words, refined))
    if not reasons and refined != caption:
        reasons = ("punctuation, case or spacing",)
    return Refinement(caption, refined, zones, reasons)


# --- spelling


def _spelt(word: str) -> tuple[str, tuple[str, ...]]:
    """A word, and the known ones that it stands for: itself, the nearest, or the two that run together."""
    if word == ":":
        return word, (",",)
    if word in _KNOWN:
        return word, (word,)
    for i in range(1, len(word)):
        if {word[:i], word[i:]} <= _KNOWN:
            return word, (word[:i], word[i:])
    near = sorted(known for known in _WRITTEN if _one_slip_apart(word, known))
    if not near:
        raise ReportError(f"{word!r} is no word of the captions")
    if len(near) > 1 and not FILLERS.issuperset(near):
        raise ReportError(f"{word!r} may be {' or '.join(map(repr, near))}")
    return word, (near[0],)


def _one_slip_apart(a: str, b: str) -> bool:
    """Whether one letter more, less, other or swapped with the next one makes b of a (Damerau's slips).

    Two slips are too many: "uninfected" is two away from "infected".
    """
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


# --- zones


def _zones(words: Sequence[str], laterality: Laterality) -> tuple[ZoneSet, tuple[str, ...]]:
    """The zones, and which claim contradicts them.

    Raises:
        ReportError: the words do not tell the zones.
    """
    accepted = _accepted(words, laterality)
    if accepted == ZoneSet():
        return accepted, ()
    location = _location(words)
    zones = parse(" ".join(word for phrase in _phrases(location) for word in phrase), laterality)
    counts = {_NUMBERS[word] for word in words if word in _NUMBERS}
    lungs = {EXTENTS[word] for word in words if word in EXTENTS}
    lacks_one = len(zones) == 1 and "areas" in words
    if accepted == zones and (counts or not lacks_one):
        return zones, ()
    if location == _location(re.findall("[a-z]+", write(zones, laterality))):
        return zones, (_contradiction(zones, set() if lacks_one else counts, lungs),)
    if counts == {len(zones)} and lungs <= {len(zones.sides)}:
        return zones, ()
    raise ReportError(f"{' '.join(location)!r} is not confirmed by the count and the extent")


def _accepted(words: Iterable[str], laterality: Laterality) -> ZoneSet | None:
    """What `parse` reads; None where it refuses."""
    try:
        return parse(" ".join(words), laterality)
    except ReportError:
        return None


def _location(words: Iterable[str]) -> list[str]:
    """The words that are no claim and no filler, without marks around them.

    An "and" at the end stays: something has followed it.
    """
    words = [word for word in words if word not in _NUMBERS and word not in EXTENTS and word not in FILLERS]
    places = [i for i, word in enumerate(words) if word not in _MARKS]
    return words[places[0] : places[-1] + 1] if places else []


def _contradiction(zones: ZoneSet, counts: set[int], lungs: set[int]) -> str:
    """Which claim is wrong, if it is only one and no word can be lost.

    Raises:
        ReportError: zones that are named exactly as `write` names them may lack one all the same.
    """
    if counts == {len(zones)}:
        return "the extent contradicts the lungs"
    if lungs == {len(zones.sides)} and len(counts) == 1 and 0 < max(counts) < len(zones):
        return "the count contradicts the zones"
    raise ReportError("a wrong count or extent, or a lost word")


def _phrases(location: Sequence[str]) -> Iterator[list[str]]:
    """The lungs of a location, each with its words in order: "lower left lung ,"."""
    waiting: list[str] = []
    for part in _parts(location):
        phrase = waiting + part
        waiting = phrase if LEVELS.keys() >= set(phrase) else []  # "upper and lower left lung"
        if not waiting:
            yield _in_order(phrase)
    if waiting or not location:
        raise ReportError(f"{' '.join(waiting)!r} has no side" if waiting else "no zone is named")


def _parts(location: Sequence[str]) -> Iterator[list[str]]:
    """What lies between breaks; where "and" is missing between two sides, each lung ends its part."""
    for is_break, group in groupby(location, lambda word: word in BREAKS or word in _JOINERS):
        part = [word for word in group if word != "-"]
        if not is_break:
            ends = [i for i, word in enumerate(part, 1) if word in _LUNGS]
            bounds = [0, *ends, len(part)] if _SIDES.issubset(part) else [0, len(part)]
            yield from (part[i:j] for i, j in pairwise(bounds) if i < j)


def _in_order(phrase: list[str]) -> list[str]:
    """One lung's words as `parse` takes them, if they are there and have one reading."""
    kinds = "".join(next((kind for kind, words in _KINDS.items() if word in words), "?") for word in phrase)
    text = " ".join(phrase)
    if "?" in kinds:
        raise ReportError(f"{text!r} cannot be read")
    if kinds.count("s") != 1:
        raise ReportError(f"{text!r} has {'two sides' if 's' in kinds else 'no side'}")
    if "l" not in kinds:
        raise ReportError(f"{text!r} does not say upper, middle or lower")
    if len(re.findall("l+", kinds)) > 1:  # "lower left lung upper and right lung": whose is "upper"?
        raise ReportError(f"{text!r} has more than one reading")
    return [
        *(word for word, kind in zip(phrase, kinds, strict=True) if kind == "l"),
        *_SIDES & {*phrase},
        ",",
    ]


# --- reasons


def _rewordings(words: Sequence[str], refined: str) -> Iterator[str]:
    """How the words, spelt right, differ from the refined caption."""
    given = [word for word in words if word not in _MARKS]
    wanted = re.findall("[a-z]+", refined)
    if sorted(given) == sorted(wanted):
        yield from ("word order",) if given != wanted else ()
        return
    for change, a, b, c, d in SequenceMatcher(None, given, wanted, autojunk=False).get_opcodes():
        before, after = " ".join(given[a:b]), " ".join(wanted[c:d])
        if change == "replace":
            yield f"{before!r} for {after!r}"
        elif change == "insert":
            yield f"{after!r} missing"
        elif change == "delete":
            yield f"{before!r} too much"
