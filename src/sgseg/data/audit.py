"""An audit of a data set: what in it would mislead training, or flatter an evaluation.

`list_cases` finds the cases, `audit` looks at each image and mask, `sgseg.formats.save_audit` shows it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.anatomy import ZONES, Laterality
from sgseg.data import captions
from sgseg.data.cases import Case, load_mask
from sgseg.data.duplicates import SIMILAR, Pair, same_pictures, thumbnail
from sgseg.data.layouts import read_cases, split_names
from sgseg.errors import DataError, ImageError
from sgseg.imaging import read
from sgseg.reports import write


class Check(NamedTuple):
    """One thing that is looked for.

    Attributes:
        title: what it is called.
        meaning: why it matters, and what to do.
    """

    title: str
    meaning: str


CHECKS: Mapping[str, Check] = {
    "split": Check(
        "Splits that cannot be read", "The table or folder has to be put right before anything is trained."
    ),
    "unreadable": Check(
        "Files that cannot be read", "Each would stop training; export it again or take it out."
    ),
    "patient": Check(
        "Patients in two splits", "The evaluation then tests on patients it was trained on; move them to one."
    ),
    "duplicate_across": Check(
        "The same picture in two splits",
        "The evaluation then tests on pictures it was trained on; take one of each pair out.",
    ),
    "duplicate_within": Check(
        "The same picture twice in one split",
        "It counts twice, and where its patients differ one of them is wrong. How far its two masks agree "
        "shows how far annotators do.",
    ),
    "mirrored": Check(
        "Mirror images", "In one of the two, left is right: find out which, and turn it or take it out."
    ),
    "side_swapped": Check(
        "Reports of the other side",
        "The report names one lung, and the lesion is in the other. Left and right are mistaken in the "
        "report, or the picture is mirrored.",
    ),
    "side": Check(
        "Reports that miss a lung or name one too many",
        "A lung is named that has no lesion, or one with a tenth of the lesion or more is not named.",
    ),
    "zone_empty": Check(
        "Zones named without a lesion",
        "A zone is named, and no lesion is where such zones reach in this data set.",
    ),
    "zone_unnamed": Check(
        "Lesions in zones that are not named",
        "A tenth of the lesion or more lies where no zone that the report names reaches in this data set.",
    ),
    "empty_mask": Check("Reports of a lesion without one in the mask", "The report or the mask is wrong."),
    "unreported": Check(
        "Lesions that the report denies", "The report says no infection; the mask has a lesion."
    ),
    "not_understood": Check(
        "Reports that are not understood", "Their zones are unknown; try sgseg data refine, or rewrite them."
    ),
    "lateral": Check(
        "Lateral views",
        "By tags or file name. They have no left and right lung, and were not compared with their reports.",
    ),
    "not_applicable": Check(
        "Not chest X-rays by tags or colours",
        "sgseg predict refuses them, training takes them as they are; take out what is something else.",
    ),
    "negative": Check(
        "Negatives", "Bones are dark. SGSeg turns them round when it reads them; others do not."
    ),
    "soft_mask": Check(
        "Masks with more than two values", "Everything above 127 counts as lesion; save them as 0 and 255."
    ),
}
"""In the order of their gravity."""

_LATERAL = frozenset(("ll", "rl", "lat", "lateral"))


class Finding(NamedTuple):
    """Something that was found.

    Attributes:
        check: key of `CHECKS`.
        cases: keys of `Audit.cases`.
        detail: in words.
        gravity: among findings of the same check; the graver come first.
    """

    check: str
    cases: tuple[str, ...]
    detail: str
    gravity: float = 0.0


@dataclass(frozen=True)
class Listing:
    """The cases of a data set by split, and the findings on splits that could not be listed."""

    root: Path
    splits: dict[str, list[Case]]
    problems: list[Finding]

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))


@dataclass(frozen=True)
class Look:
    """What one readable case looks like.

    Attributes:
        split: it is in.
        case: itself.
        size: of the image, (H, W).
        mode: Pillow's name of the image's kind of pixels.
        view: as the file's tags or its name tell, lower case; empty where neither does.
        lateral: by tags or name.
        against: why it is not a frontal chest X-ray, by tags or colours.
        digest: of the pixels.
        copy: small, of the image without its borders, hung the standard way, (SIDE, SIDE) float32.
        lesion: small, of the mask within the same borders, (SIDE, SIDE) float32.
        spread: of the lesion, hung the standard way, (2, ROWS) float32.
        quantities: single numbers by name, the same for every case.
        negative: the bones were dark.
        soft: the mask has more than two values.
    """

    split: str
    case: Case
    size: tuple[int, int]
    mode: str
    view: str
    lateral: bool
    against: str | None
    digest: bytes
    copy: NDArray[np.float32]
    lesion: NDArray[np.float32]
    spread: NDArray[np.float32]
    quantities: dict[str, float]
    negative: bool
    soft: bool

    @property
    def key(self) -> str:
        return f"{self.split}/{self.case.name}"

    @property
    def comparable(self) -> bool:
        """Whether report and mask can be compared: both tell of a lesion, in a frontal view."""
        return bool(self.case.zones) and bool(self.spread.any()) and not self.lateral


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        root: of the data set.
        cases: all of them, by "split/name".
        looks: at those that can be read.
        findings: in the order of `CHECKS`, within each the gravest first.
        reaches: of the zones, as far as reports and masks tell them.
    """

    root: Path
    cases: dict[str, Case]
    looks: list[Look]
    findings: dict[str, list[Finding]]
    reaches: captions.Reaches

    @property
    def by_split(self) -> dict[str, list[Look]]:
        splits: dict[str, list[Look]] = {}
        for look in self.looks:
            splits.setdefault(look.split, []).append(look)
        return splits

    def document(self) -> dict[str, Any]:
        """All numbers and all findings, for a JSON file."""
        return {
            "data": self.root.resolve().name,
            "cases": len(self.cases),
            "splits": {split: _facts(looks) for split, looks in self.by_split.items()},
            "drift": _drift(self.by_split),
            "sides": side_agreement(self.looks),
            "zones_reach": {
                level.word: [row / captions.ROWS for row in rows] for level, rows in self.reaches.items()
            },
            "same_picture_from_correlation": SIMILAR,
            "findings": {
                key: {
                    **CHECKS[key]._asdict(),
                    "found": [{"cases": finding.cases, "detail": finding.detail} for finding in found],
                }
                for key, found in self.findings.items()
            },
        }


def list_cases(root: Path) -> Listing:
    """The cases of a data set; a split that cannot be read becomes a finding, so that the others still can.

    Raises:
        DataError: the layout is unknown, or no split can be read.
        MissingExtraError: there is a table in .xlsx and openpyxl is not installed.
    """
    splits, problems = {}, []
    for split in split_names(root):
        try:
            splits[split] = read_cases(root, split, any_wording=True)
        except DataError as error:
            problems.append(Finding("split", (), str(error)))
    if not splits:
        raise DataError("; ".join(problem.detail for problem in problems))
    return Listing(root, splits, problems)


def audit(listing: Listing, progress: Callable[[], None] = lambda: None) -> Audit:
    """Looks at every case.

    Args:
        listing: of the data set.
        progress: called after each case.
    """
    looks: list[Look] = []
    findings = list(listing.problems)
    for split, cases in listing.splits.items():
        for case in cases:
            try:
                looks.append(_look(split, case))
            except (ImageError, DataError) as error:
                findings.append(Finding("unreadable", (f"{split}/{case.name}",), str(error)))
            progress()
    findings += _shared_patients(listing)
    findings += _duplicates(looks)
    reaches = _reaches(looks)
    findings += [finding for look in looks for finding in _of_one(look, reaches)]
    findings.sort(key=lambda finding: -finding.gravity)
    by_check = {key: [finding for finding in findings if finding.check == key] for key in CHECKS}
    keys = {f"{split}/{case.name}": case for split, cases in listing.splits.items() for case in cases}
    return Audit(listing.root, keys, looks, by_check, reaches)


def side_agreement(looks: Iterable[Look]) -> dict[str, int]:
    """How many frontal pictures of one named lung have most of the lesion in it, and how many in the other.

    If most have it in the other, the laterality of the reports is not the one that was told.
    """
    counts = Counter({"agree": 0, "contradict": 0})
    for look in looks:
        zones = look.case.zones
        if look.comparable and zones and len(zones.sides) == 1:
            (side,) = zones.sides
            counts["agree" if look.spread[side.value].sum() > 0.5 else "contradict"] += 1
    return dict(counts)


# --- one case


def _look(split: str, case: Case) -> Look:
    xray = read(case.image, force=True)  # what is in a data set, its owner wants in
    height, width = xray.pixels.shape
    mask = load_mask(case, (height, width))
    inside = xray.hanging.hung(xray.pixels[xray.content.slices])
    lesion = xray.hanging.hung(mask[xray.content.slices])
    view = (xray.view or case.view).lower()
    return Look(
        split,
        case,
        (height, width),
        _mode(case.image),
        view,
        not xray.has_sides or view in _LATERAL,
        xray.against,
        hashlib.blake2b(xray.pixels.tobytes(), digest_size=16).digest(),
        thumbnail(inside),
        thumbnail(lesion.astype(np.float32)),
        captions.profile(lesion),
        {
            "lesion, share of the image": float(mask.mean()),
            "mean grey": float(inside.mean()),
            "contrast (standard deviation of grey)": float(inside.std()),
        },
        xray.inverted,
        case.mask is not None and _is_soft(case.mask),
    )


def _mode(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return str(image.mode)
    except OSError:  # read by something else than Pillow
        return path.suffix.lower()


def _is_soft(mask: Path) -> bool:
    with Image.open(mask) as image:
        return image.convert("L").getcolors(2) is None


def _of_one(look: Look, reaches: captions.Reaches) -> Iterator[Finding]:
    """What is to be said of a case alone."""
    case, has_lesion = look.case, bool(look.quantities["lesion, share of the image"])
    told = f"“{case.report}”" if case.report else ""

    def finding(check: str, detail: str = "", gravity: float = 0.0) -> Finding:
        return Finding(check, (look.key,), detail, gravity)

    if look.lateral:
        yield finding("lateral", f"view {look.view}" if look.view else look.against or "")
    elif look.against:
        yield finding("not_applicable", look.against)
    if look.negative:
        yield finding("negative")
    if look.soft:
        yield finding("soft_mask")
    if case.zones is None:
        if case.report:
            yield finding("not_understood", case.note or told)
    elif has_lesion and not case.zones:
        yield finding("unreported", told)
    elif case.zones and not has_lesion:
        yield finding("empty_mask", told)
    elif look.comparable and case.zones:
        for disagreement in captions.disagreements(look.spread, case.zones, reaches):
            yield finding(*disagreement)


# --- many cases


def _shared_patients(listing: Listing) -> Iterator[Finding]:
    places: dict[str, list[tuple[str, str]]] = {}
    for split, cases in listing.splits.items():
        for case in cases:
            if case.patient != case.name:  # else the patient is not known
                places.setdefault(case.patient, []).append((split, f"{split}/{case.name}"))
    for patient, found in places.items():
        counts = Counter(split for split, _ in found)
        if len(counts) > 1:
            where = ", ".join(f"{count} in {split}" for split, count in counts.items())
            yield Finding("patient", tuple(key for _, key in found), f"{patient}: {where}")


def _duplicates(looks: Sequence[Look]) -> Iterator[Finding]:
    if not looks:
        return
    for pair in same_pictures(np.stack([look.copy for look in looks])):
        a, b = looks[pair.first], looks[pair.second]
        check = (
            "mirrored" if pair.mirrored else "duplicate_within" if a.split == b.split else "duplicate_across"
        )
        yield Finding(check, (a.key, b.key), "; ".join(_alike(a, b, pair)), pair.correlation)


def _alike(a: Look, b: Look, pair: Pair) -> Iterator[str]:
    """How two looks at the same picture are alike, and in what they differ."""
    yield "identical pixels" if a.digest == b.digest else f"correlation {pair.correlation:.4f}"
    if a.case.patient == b.case.patient:
        yield "same patient"
    masks = a.lesion > 0.5, (b.lesion[:, ::-1] if pair.mirrored else b.lesion) > 0.5
    size = masks[0].sum() + masks[1].sum()
    if size:
        yield f"masks agree with Dice {2 * (masks[0] & masks[1]).sum() / size:.2f}"
    zones = a.case.zones, b.case.zones.flipped() if pair.mirrored and b.case.zones else b.case.zones
    if None not in zones:
        yield "same zones reported" if zones[0] == zones[1] else "other zones reported"


def _reaches(looks: Iterable[Look]) -> captions.Reaches:
    known = [(look.spread, look.case.zones.vector) for look in looks if look.comparable and look.case.zones]
    spreads = np.array([spread for spread, _ in known], dtype=np.float32).reshape(-1, 2, captions.ROWS)
    zones = np.array([vector for _, vector in known], dtype=bool).reshape(-1, len(ZONES))
    return captions.learn_reaches(spreads, zones)


# --- splits


def _facts(looks: Sequence[Look]) -> dict[str, Any]:
    """Numbers of one split."""
    zones = [look.case.zones for look in looks if look.case.zones is not None]
    flags = np.array([zoneset.vector for zoneset in zones], dtype=float).reshape(-1, len(ZONES))
    share = flags.mean(0) if zones else [None] * len(ZONES)
    return {
        "cases": len(looks),
        "patients": len({look.case.patient for look in looks}),
        "patients_known": any(look.case.patient != look.case.name for look in looks),
        "with_report": len(zones),
        "views": _tally(look.view or "not told" for look in looks),
        "sizes": _tally(f"{look.size[1]}×{look.size[0]}" for look in looks),
        "modes": _tally(look.mode for look in looks),
        "quantities": {name: _summary(values) for name, values in quantities(looks).items()},
        "zones_in_image_laterality": {
            zone.name(Laterality.IMAGE): value for zone, value in zip(ZONES, share, strict=True)
        },
        "reports_in_image_laterality": _tally(write(zoneset, Laterality.IMAGE) for zoneset in zones),
    }


def quantities(looks: Sequence[Look]) -> dict[str, NDArray[np.float64]]:
    """The numbers of N looks by name, (N,) each."""
    return {name: np.array([look.quantities[name] for look in looks]) for name in looks[0].quantities}


def _summary(values: NDArray[np.float64]) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95))
    return {"mean": float(values.mean()), "p5": float(low), "median": float(median), "p95": float(high)}


def _tally(things: Iterable[str]) -> dict[str, int]:
    return dict(Counter(things).most_common())


def _drift(splits: Mapping[str, Sequence[Look]]) -> list[dict[str, Any]]:
    """How far apart each two splits are: 0 alike, 1 wholly different.

    Of numbers the Kolmogorov-Smirnov distance, of reports the total variation.
    """
    rows = []
    for a, b in combinations(splits, 2):
        of_a, of_b = quantities(splits[a]), quantities(splits[b])
        row: dict[str, Any] = {"a": a, "b": b}
        row |= {name: _kolmogorov_smirnov(of_a[name], of_b[name]) for name in of_a}
        row["reports"] = _total_variation(splits[a], splits[b])
        rows.append(row)
    return rows


def _kolmogorov_smirnov(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    both = np.concatenate([a, b])
    below = (np.searchsorted(np.sort(values), both, side="right") / len(values) for values in (a, b))
    return float(np.abs(np.subtract(*below)).max())


def _total_variation(a: Iterable[Look], b: Iterable[Look]) -> float | None:
    shares = []
    for looks in (a, b):
        counts = Counter(look.case.zones.index for look in looks if look.case.zones is not None)
        if not counts:
            return None
        shares.append({index: count / counts.total() for index, count in counts.items()})
    union = shares[0].keys() | shares[1].keys()
    return sum(abs(shares[0].get(index, 0) - shares[1].get(index, 0)) for index in union) / 2
