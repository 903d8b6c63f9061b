"""What speaks against a picture being a frontal chest X-ray: its tags, or its colours.

Only what contradicts counts. A file without tags passes, for most X-rays outside hospitals have none; and
neither tags nor colours tell a lateral view saved as a PNG. What the model itself makes of a picture is
judged later, in `sgseg.inference`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

CHROMA = 48.5 / 255
"""Brightest less darkest channel above which a pixel is coloured; the tint of film stays below."""

MOST_COLOURED = 0.1
"""Share of coloured pixels above which a picture is taken for a photograph; arrows and labels stay below."""

# OT and SC (secondary capture, digitised film) say nothing for or against.
_RADIOGRAPHY = ("CR", "DX", "RG", "RF", "OT", "SC")

# Fragments of PS3.16 annex L's terms and of what consoles write instead. A chest named along with another
# part counts as a chest, a spine never does.
_CHEST = re.compile("CHEST|THORA|TORA[XC]|LUNG")
_SPINE = re.compile("SPINE")
_ELSEWHERE = re.compile(
    "ABDOM|ANKLE|ARM|BREAST|CALCAN|CLAVIC|COCCYX|DENT|ELBOW|EXTREM|FACE|FACIAL|FEMUR|FIBULA|FINGER|FOOT|"
    "HAND|HEAD|HEEL|HIP|HUMER|JAW|KNEE|LEG|LIMB|LUMBAR|MANDIB|NASAL|NECK|ORBIT|PATELLA|PELVI|RADIUS|SACR|"
    "SCAPULA|SHOULDER|SINUS|SKULL|STERN|TEETH|THIGH|THUMB|TIBIA|TOE|ULNA|WRIST|ZYGOMA"
)

# PS3.3 C.8.11.5 and C.8.1.1: laterals, decubitus views, obliques; and the words that consoles write.
_LATERAL = re.compile(r"^[LR]L$|LAT(ERAL)?\b(?!.*DECUB)")
_OFF_FRONTAL = re.compile(r"^[LR](LD|LO|AO|PO)$|OBL|DECUB")


def tags_against(header: Dataset) -> str | None:
    """Why a DICOM file is not a frontal chest X-ray, by its tags; None if nothing says so."""
    modality, body, view = tag(header, "Modality"), _body_part(header), view_of(header)
    if modality and modality not in _RADIOGRAPHY:
        return f"its Modality is {modality}"
    if _SPINE.search(body) or (_ELSEWHERE.search(body) and not _CHEST.search(body)):
        return f"its body part is {body}"
    if _LATERAL.search(view) or _OFF_FRONTAL.search(view):
        return f"its view is {view}"
    if _runs_front_to_back(header):
        return f"its PatientOrientation is {tag(header, 'PatientOrientation')}, which is not a frontal view"
    return None


def has_sides(header: Dataset) -> bool:
    """Whether left and right lie beside each other in the picture; not in a lateral view."""
    return not (_LATERAL.search(view_of(header)) or _runs_front_to_back(header))


def view_of(header: Dataset) -> str:
    """View Position (0018,5101), else the meaning of the view's code (0054,0220); "" if neither is there."""
    return tag(header, "ViewPosition") or _meaning(header, "ViewCodeSequence")


def tag(header: Dataset, keyword: str) -> str:
    r"""An attribute as text in capitals, several values joined by a backslash; "" if it is not there."""
    value = header.get(keyword)
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return "\\".join(str(v).strip().upper() for v in values if v is not None)


def colours_against(array: NDArray[Any]) -> str | None:
    """Why a picture is a colour photograph; None if it is grey, tinted, or has a few coloured marks.

    Args:
        array: (H, W, 3), or (H, W, 4) with transparency; uint8 or another unsigned type.
    """
    step = max(1, min(array.shape[:2]) // 256)
    sample = array[::step, ::step] / np.float32(np.iinfo(array.dtype).max)
    chroma = np.ptp(sample[..., :3], axis=2)
    if array.shape[2] == 4:  # what is transparent has no colour
        chroma *= sample[..., 3]
    coloured = float(np.mean(chroma > CHROMA))
    return f"{coloured:.0%} of it is coloured, as in a photograph" if coloured > MOST_COLOURED else None


def _body_part(header: Dataset) -> str:
    """Body Part Examined (0018,0015), else the meaning of the anatomic region's code (0008,2218)."""
    return tag(header, "BodyPartExamined") or _meaning(header, "AnatomicRegionSequence")


def _meaning(header: Dataset, sequence: str) -> str:
    items = header.get(sequence)
    return tag(items[0], "CodeMeaning") if items else ""


def _runs_front_to_back(header: Dataset) -> bool:
    directions = tag(header, "PatientOrientation").split("\\")
    return any(direction[:1] in ("A", "P") for direction in directions)
