"""The six lung zones and the two conventions for naming the sides.

QaTa-COV19's captions say "left lung" for the lung on the *left of the image*, which in a frontal
view hung the standard way is the patient's *right* lung. Inside SGSeg a side is therefore always
`Side.IMAGE_LEFT` or `Side.IMAGE_RIGHT`; `Side.word` and `Side.from_word` are the only places where a
side becomes the word "left" or "right" and back, and they always ask for the convention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Laterality(str, Enum):
    """Whose left is "left".

    `IMAGE`: the viewer's (QaTa's captions, training, tables).
    `PATIENT`: the patient's (everything a clinician reads or writes).
    """

    IMAGE = "image"
    PATIENT = "patient"


class Side(Enum):
    """A half of a frontal X-ray hung the standard way (the patient's right at the image's left)."""

    IMAGE_LEFT = 0
    IMAGE_RIGHT = 1

    @property
    def opposite(self) -> Side:
        return Side(1 - self.value)

    def word(self, laterality: Laterality) -> str:
        """The word for this side, "left" or "right", in the given convention."""
        says_left = (self is Side.IMAGE_LEFT) == (laterality is Laterality.IMAGE)
        return "left" if says_left else "right"

    @classmethod
    def from_word(cls, word: str, laterality: Laterality) -> Side:
        """The side that the word "left" or "right" means in the given convention.

        Raises:
            ValueError: the word is neither.
        """
        for side in cls:
            if side.word(laterality) == word:
                return side
        raise ValueError(f"not a side: {word!r}")


class Level(Enum):
    """A third of the lung's height."""

    UPPER = 0
    MIDDLE = 1
    LOWER = 2

    @property
    def word(self) -> str:
        return self.name.lower()


class Zone(NamedTuple):
    """One of the six lung zones."""

    side: Side
    level: Level

    @property
    def position(self) -> int:
        """Place in the canonical order of `ZONES`, 0…5."""
        return self.side.value * len(Level) + self.level.value

    def name(self, laterality: Laterality) -> str:
        """For example "upper left"."""
        return f"{self.level.word} {self.side.word(laterality)}"


ZONES: tuple[Zone, ...] = tuple(Zone(side, level) for side in Side for level in Level)
"""The canonical order, which is the data set's: upper, middle, lower of image-left, then of image-right."""

N_ZONESETS = 2 ** len(ZONES)


@dataclass(frozen=True)
class ZoneSet:
    """An immutable set of infected zones: one of 64.

    Attributes:
        index: 0…63; bit i stands for `ZONES[i]`, so 0 is the empty set ("no infection").

    Raises:
        ValueError: the index is out of range.
    """

    index: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index < N_ZONESETS:
            raise ValueError(f"a ZoneSet's index is 0…{N_ZONESETS - 1}, not {self.index}")

    @classmethod
    def of(cls, zones: Iterable[Zone]) -> ZoneSet:
        return cls(sum({1 << zone.position for zone in zones}))

    @classmethod
    def from_vector(cls, vector: Sequence[int | float | bool]) -> ZoneSet:
        """From six flags in the canonical order (anything truthy counts as infected).

        Raises:
            ValueError: there are not six.
        """
        if len(vector) != len(ZONES):
            raise ValueError(f"a zone vector has {len(ZONES)} entries, not {len(vector)}")
        return cls.of(zone for zone, flag in zip(ZONES, vector, strict=True) if flag)

    @property
    def vector(self) -> tuple[int, ...]:
        """Six 0/1 in the canonical order."""
        return tuple(self.index >> i & 1 for i in range(len(ZONES)))

    @property
    def sides(self) -> frozenset[Side]:
        return frozenset(zone.side for zone in self)

    def levels(self, side: Side) -> tuple[Level, ...]:
        """Infected levels of one lung, from top to bottom."""
        return tuple(zone.level for zone in self if zone.side is side)

    def flipped(self) -> ZoneSet:
        """The zones of the horizontally mirrored image."""
        return ZoneSet.of(Zone(side.opposite, level) for side, level in self)

    def __iter__(self) -> Iterator[Zone]:
        return (zone for zone in ZONES if self.index >> zone.position & 1)

    def __len__(self) -> int:
        return self.index.bit_count()

    def __contains__(self, zone: object) -> bool:
        return isinstance(zone, Zone) and bool(self.index >> zone.position & 1)
