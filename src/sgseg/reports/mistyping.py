"""How people mistype the captions of QaTa-COV19: what refinement is measured against.

Each way is a slip of a typing hand or a habit of the raw spreadsheets, done at one place of a caption in the
exact wording of `sgseg.reports.write`. Some of them leave a caption that still tells its zones, others do not
(a side or a level is gone), and nothing here says which.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from sgseg.reports.grammar import COUNTS

Way = Callable[[str, random.Random], str]

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD = r"[a-z]{3,}"
_COUNT = "one|two|three|four|five|six"
_LEVEL = "upper|middle|lower"
_LUNG = rf"(?P<levels>(?:{_LEVEL})(?: (?:{_LEVEL}))*) (?P<side>left|right) lung"
_LUNG_OF_SEVERAL_LEVELS = _LUNG.replace(")*)", ")+)")
_TWO_LUNGS = "(?<=, )([a-z ]+ lung) and ([a-z ]+ lung)"


def mistype(caption: str, way: str, rng: random.Random) -> str:
    """The caption with one slip in it, or as it is where that way does not apply.

    Args:
        caption: in the wording of `sgseg.reports.write`.
        way: a key of `WAYS`.
        rng: chooses the place, and the wrong letter, word or number.

    Raises:
        KeyError: there is no such way.
    """
    return WAYS[way](caption, rng)


def _at_one(pattern: str, slip: Callable[[re.Match[str], random.Random], str]) -> Way:
    """The way that makes the slip at one of the places that match."""

    def way(caption: str, rng: random.Random) -> str:
        places = list(re.finditer(pattern, caption))
        if not places:
            return caption
        place = rng.choice(places)
        return caption[: place.start()] + slip(place, rng) + caption[place.end() :]

    return way


def _replace(pattern: str, template: str) -> Way:
    return _at_one(pattern, lambda place, rng: place.expand(template))


def _drop(words: str) -> Way:
    return _at_one(rf"^(?:{words})\b | (?:{words})\b", lambda place, rng: "")


def _instead(pattern: str, choices: tuple[str, ...]) -> Way:
    """The way that puts another of the choices in the place of one."""
    return _at_one(pattern, lambda place, rng: rng.choice([word for word in choices if word != place[0]]))


def _everywhere(slip: Callable[[str], str]) -> Way:
    return lambda caption, rng: slip(caption)


# --- letters


def _swapped_letters(place: re.Match[str], rng: random.Random) -> str:
    word = place[0]
    i = rng.choice([i for i in range(len(word) - 1) if word[i] != word[i + 1]])
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]


def _missing_letter(place: re.Match[str], rng: random.Random) -> str:
    word = place[0]
    i = rng.randrange(len(word))
    return word[:i] + word[i + 1 :]


def _doubled_letter(place: re.Match[str], rng: random.Random) -> str:
    word = place[0]
    i = rng.randrange(len(word))
    return word[:i] + word[i] + word[i:]


def _neighbouring_key(place: re.Match[str], rng: random.Random) -> str:
    word = place[0]
    i = rng.randrange(len(word))
    return word[:i] + rng.choice(_neighbours(word[i])) + word[i + 1 :]


def _neighbours(letter: str) -> str:
    """The keys around a letter's; each row of keys is half a key further right than the one above."""
    row = next(i for i, keys in enumerate(_KEYBOARD) if letter in keys)
    column = _KEYBOARD[row].index(letter)
    around = ((row, -1), (row, 1), (row - 1, 0), (row - 1, 1), (row + 1, -1), (row + 1, 0))
    return "".join(
        _KEYBOARD[r][column + step]
        for r, step in around
        if 0 <= r < len(_KEYBOARD) and 0 <= column + step < len(_KEYBOARD[r])
    )


def _two_misspelt_words(caption: str, rng: random.Random) -> str:
    for way in rng.sample(("swapped letters", "missing letter", "doubled letter", "neighbouring key"), 2):
        caption = WAYS[way](caption, rng)
    return caption


# --- words


def _neighbouring_words_swapped(caption: str, rng: random.Random) -> str:
    words = re.split(r"([a-z]+)", caption)  # every second one is what lies between two words
    if len(words) < 5:
        return caption
    i = rng.randrange(1, len(words) - 2, 2)
    words[i], words[i + 2] = words[i + 2], words[i]
    return "".join(words)


def _missing_level(place: re.Match[str], rng: random.Random) -> str:
    levels = place["levels"].split()
    levels.remove(rng.choice(levels))
    return " ".join([*levels, place["side"], "lung"])


def _levels_out_of_order(place: re.Match[str], rng: random.Random) -> str:
    levels = place["levels"].split()
    first = rng.randrange(1, len(levels))
    return " ".join([*levels[first:], *levels[:first], place["side"], "lung"])


def _digit(place: re.Match[str], rng: random.Random) -> str:
    return str(COUNTS.index(place[0]))


def _extra_spaces(place: re.Match[str], rng: random.Random) -> str:
    return " " * rng.randint(2, 4)


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "swapped letters": _at_one(_WORD, _swapped_letters),
        "missing letter": _at_one(_WORD, _missing_letter),
        "doubled letter": _at_one(_WORD, _doubled_letter),
        "neighbouring key": _at_one(_WORD, _neighbouring_key),
        "two misspelt words": _two_misspelt_words,
        "level of two readings": _replace(r"\b(?:upper|lower)\b", "lopper"),
        "doubled word": _replace(r"\b[a-z]+\b", r"\g<0> \g<0>"),
        "doubled level": _replace(rf"\b(?:{_LEVEL})\b", r"\g<0> \g<0>"),
        "doubled side": _replace(r"\b(?:left|right)\b", r"\g<0> \g<0>"),
        "missing pulmonary": _drop("pulmonary"),
        "missing infection": _drop("infection"),
        "missing infected": _drop("infected"),
        "missing areas": _drop("areas?"),
        "missing lung": _drop("lung"),
        "missing and": _drop("and"),
        "missing count": _drop(_COUNT),
        "missing extent": _drop("unilateral|bilateral"),
        "missing side": _drop("left|right"),
        "missing level": _at_one(_LUNG_OF_SEVERAL_LEVELS, _missing_level),
        "no level": _replace(_LUNG, r"\g<side> lung"),
        "no location": _replace(r", [^,]*lung\.", "."),
        "only one lung": _at_one(_TWO_LUNGS, lambda place, rng: place[rng.randint(1, 2)]),
        "all for three levels": _replace("upper middle lower", "all"),
        "wrong count": _instead(rf"\b(?:{_COUNT})\b", COUNTS[1:]),
        "wrong extent": _instead("unilateral|bilateral", ("unilateral", "bilateral")),
        "digit for a number": _at_one(rf"\b(?:{_COUNT})\b", _digit),
        "wrong plural": _at_one(r"\bareas?\b", lambda place, rng: {"area": "areas"}.get(place[0], "area")),
        "lungs for lung": _replace(r"\blung\b", "lungs"),
        "lobe for lung": _replace(r"\blung\b", "lobe"),
        "zone for lung": _replace(r"\blung\b", "zone"),
        "side first": _replace(_LUNG, r"\g<side> \g<levels> lung"),
        "lung first": _replace(_LUNG, r"lung \g<side> \g<levels>"),
        "level last": _replace(_LUNG, r"\g<side> lung \g<levels>"),
        "levels out of order": _at_one(_LUNG_OF_SEVERAL_LEVELS, _levels_out_of_order),
        "lungs out of order": _replace(_TWO_LUNGS, r"\2 and \1"),
        "clauses out of order": _replace(r"^(.* infection), (.* areas?),", r"\2, \1,"),
        "neighbouring words swapped": _neighbouring_words_swapped,
        "wrong joiner": _instead(r" and ", (", ", " & ", " + ", " / ", "; ", " with ")),
        "missing comma": _replace(",", ""),
        "doubled comma": _replace(",", ",,"),
        "missing full stop": _replace(r"\.", ""),
        "doubled full stop": _replace(r"\.", ".."),
        "capital": _everywhere(str.capitalize),
        "upper case": _everywhere(str.upper),
        "extra spaces": _at_one(" ", _extra_spaces),
        "missing space": _replace(" ", ""),
        "hyphen": _replace(r"\b(upper|middle|lower) (left|right)\b", r"\1-\2"),
        "cut off": _at_one(".{1,30}$", lambda place, rng: place[0][: rng.randrange(len(place[0]))]),
    }
)
"""The ways by name; each takes a caption and what chooses the place."""
