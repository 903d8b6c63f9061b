"""Reports against masks: does the lesion lie where the report says?

No one has drawn the lungs. So the picture's halves stand for them, and where in the picture the upper, middle
and lower zones may reach is learnt from the data set itself: from the lungs of which its reports name one
zone only. Zones so found overlap, because lungs lie higher in one picture than in another; what contradicts
them all the same is worth a look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.anatomy import Laterality, Level, Side, ZoneSet

ROWS = 32
"""Heights that are told apart."""

_TAIL = 0.01  # share of the lesions of a zone that may lie above its reach, and below
_ENOUGH = 20  # lungs from which a reach is learnt; with fewer, nothing is held against it
_NOTABLE = 0.1  # share of the lesion from which its place counts
_TRACE = 0.01  # share of the lesion below which a zone or lung is free of it
_SWAPPED = 0.9

Reaches = Mapping[Level, tuple[int, int]]
"""Rows, half-open, that the zones of a level may cover in some picture."""


class Disagreement(NamedTuple):
    """What is wrong between a report and its mask.

    Attributes:
        kind: "side_swapped", "side", "zone_empty" or "zone_unnamed".
        detail: in words; sides are those of the image.
        gravity: share of the lesion that is not named, and one for each zone or lung that is named in vain.
    """

    kind: str
    detail: str
    gravity: float


def profile(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How the lesion is spread over the picture: (H, W) bool -> (2, ROWS) float32, halves and heights.

    The sum is 1; all zeros where there is no lesion.
    """
    image = Image.fromarray(mask.astype(np.float32)).resize((2, ROWS), Image.Resampling.BOX)
    spread = np.asarray(image, dtype=np.float32).T
    return spread / max(float(spread.sum()), 1e-12)


def learn_reaches(profiles: NDArray[np.float32], zones: NDArray[np.bool_]) -> Reaches:
    """How far up and down the lesions of each level lie.

    Args:
        profiles: of N lesions, (N, 2, ROWS).
        zones: named by their reports, (N, 6) bool.
    """
    lungs, named = profiles.reshape(-1, ROWS), zones.reshape(-1, len(Level))
    alone = (named.sum(1) == 1) & (lungs.sum(1) > 0)
    return {level: _reach(lungs[alone & named[:, level.value]]) for level in Level}


def _reach(lungs: NDArray[np.float32]) -> tuple[int, int]:
    """Rows of all but the tails of the lesions in lungs, (M, ROWS)."""
    if len(lungs) < _ENOUGH:
        return 0, ROWS
    below = np.cumsum(lungs.sum(0)) / lungs.sum()
    top, last = np.searchsorted(below, (_TAIL, 1 - _TAIL))
    return int(top), int(last) + 1


def disagreements(spread: NDArray[np.float32], zones: ZoneSet, reaches: Reaches) -> list[Disagreement]:
    """What a report and its mask contradict each other in; where a side is wrong, zones are not told.

    Args:
        spread: `profile` of a mask with a lesion, (2, ROWS).
        zones: named by the report; at least one.
        reaches: of the zones.
    """
    lung = {side: float(spread[side.value].sum()) for side in Side}
    free = [side for side in zones.sides if lung[side] < _TRACE]
    unnamed = [side for side in Side if side not in zones.sides and lung[side] >= _NOTABLE]
    if unnamed and lung[unnamed[0]] >= _SWAPPED:
        share = lung[unnamed[0]]
        detail = f"names {_lung(unnamed[0].opposite)} only; {share:.0%} of the lesion is on the other side"
        return [Disagreement("side_swapped", detail, share)]
    if free or unnamed:
        empty = [f"names {_lung(side)}, which has no lesion" for side in free]
        silent = [f"{lung[side]:.0%} of the lesion is in {_lung(side)}, not named" for side in unnamed]
        gravity = len(free) + sum(lung[side] for side in unnamed)
        return [Disagreement("side", "; ".join([*empty, *silent]), gravity)]
    return [*_named_in_vain(spread, zones, reaches), *_not_named(spread, zones, reaches)]


def _named_in_vain(spread: NDArray[np.float32], zones: ZoneSet, reaches: Reaches) -> Iterator[Disagreement]:
    empty = [zone for zone in zones if spread[zone.side.value, slice(*reaches[zone.level])].sum() < _TRACE]
    if empty:
        names = ", ".join(f"{zone.level.word} {_lung(zone.side)}" for zone in empty)
        yield Disagreement("zone_empty", f"named, but without lesion: {names}", len(empty))


def _not_named(spread: NDArray[np.float32], zones: ZoneSet, reaches: Reaches) -> Iterator[Disagreement]:
    covered = np.zeros_like(spread, dtype=bool)
    for side, level in zones:
        covered[side.value, slice(*reaches[level])] = True
    outside = {side: float(spread[side.value, ~covered[side.value]].sum()) for side in Side}
    if max(outside.values()) >= _NOTABLE:
        parts = [f"{share:.0%} of it in {_lung(side)}" for side, share in outside.items() if share > _TRACE]
        yield Disagreement(
            "zone_unnamed", f"lesion where no named zone reaches: {', '.join(parts)}", sum(outside.values())
        )


def _lung(side: Side) -> str:
    return f"image-{side.word(Laterality.IMAGE)}"
