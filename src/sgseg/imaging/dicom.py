"""DICOM: radiographs as `ChestXray`, and the files that a DICOMDIR lists. Needs the extra `dicom`.

Stored values become greys as PS3.4 annex N has it: Modality LUT, VOI LUT or window, and only then, once,
the inversion that MONOCHROME1 asks for. What the tags say about greys and sides is believed; flips of
the detector's picture (Field of View Horizontal Flip and Rotation, PS3.3 C.8.11.4) are already in the
pixels and in Patient Orientation, so they are not looked at.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sgseg.errors import ImageError, MissingExtraError, NotApplicableError, TooLargeError
from sgseg.imaging.applicability import colours_against, has_sides, tag, tags_against, view_of
from sgseg.imaging.chestxray import ChestXray, LateralitySource
from sgseg.imaging.hanging import STANDARD, Hanging
from sgseg.imaging.quiet import quiet

if TYPE_CHECKING:
    from pydicom import Dataset

DICOMDIR = "DICOMDIR"
"""The name of the file that lists the others on a medium (PS3.10 section 8.6)."""

START = 132
"""Bytes that tell whether a file is DICOM."""

_REQUIRED = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
_DEFLATED = "1.2.840.10008.1.2.1.99"


def is_dicom(start: bytes) -> bool:
    """Whether a file is DICOM, by its first `START` bytes.

    By its preamble (PS3.10 section 7.1); or, as old archives wrote it, a bare data set in little endian:
    it begins with an attribute of group 0008, whose type is two capitals or whose length is short.
    """
    if start[128:START] == b"DICM":
        return True
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return start[:2] == b"\x08\0" and start[3:4] == b"\0" and (explicit or start[6:8] == b"\0\0")


def holds_dicom(path: Path) -> bool:
    """Whether a file can be opened and is DICOM, whatever its name."""
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(START))
    except OSError:
        return False


@quiet()
def read_dicom(path: Path, file: BinaryIO, force: bool, most_pixels: int) -> ChestXray:
    """Reads a DICOM file.

    Args:
        path: of the file, for messages.
        file: opened, at its start.
        force: read it even if tags or colours speak against a frontal chest X-ray.
        most_pixels: a picture that claims more is refused before it is decoded.

    Raises:
        TooLargeError: it is larger.
        NotApplicableError: it is not a frontal chest X-ray.
        ImageError: it holds no readable picture.
        MissingExtraError: pydicom, or the decoder for its compression, is not installed.
        Exception: whatever pydicom and its decoders raise on damaged files.
    """
    header = _header(path, file)
    against = tags_against(header)
    if against and not force:
        raise NotApplicableError(str(path), against)
    _check_picture(path, header, most_pixels)
    stored = _stored(path, file)
    if stored.ndim == 3:
        against = against or colours_against(stored)
        if against and not force:
            raise NotApplicableError(str(path), against)
        xray = ChestXray.from_array(stored, path)
    else:
        negative = tag(header, "PhotometricInterpretation") == "MONOCHROME1"
        greys, span = _displayed(header, stored)
        xray = ChestXray.from_array(_unpadded(path, header, stored, greys, negative), path, negative, span)
    hanging, laterality = _hanging(header)
    spacing, spacing_source = _spacing(header)
    return replace(
        xray,
        pixel_spacing=spacing,
        spacing_source=spacing_source,
        view=view_of(header) or None,
        hanging=hanging,
        laterality=laterality,
        against=against,
    )


def listed_files(path: Path) -> list[Path]:
    """The files of all kinds that a DICOMDIR lists (PS3.3 annex F), in its order.

    Raises:
        ImageError: it cannot be read, or lists none.
        MissingExtraError: pydicom is not installed.
    """
    dcmread = _dcmread(path)
    try:
        with quiet():
            records = dcmread(path).get("DirectoryRecordSequence") or []
            ids = [tuple(_several(r.ReferencedFileID)) for r in records if r.get("ReferencedFileID")]
    except Exception as error:  # pydicom raises whatever a damaged file leads it to
        raise ImageError(f"{path} cannot be read ({one_line(error)}); copy the medium again") from error
    if not ids:
        raise ImageError(f"{path} lists no file; copy the medium again")
    files = [path.parent.joinpath(*map(str, parts)) for parts in dict.fromkeys(ids)]
    outside = [f for f in files if not f.resolve().is_relative_to(path.parent.resolve())]
    if outside:
        raise ImageError(f"{path} lists {outside[0]}, which is outside its own folder; copy the medium again")
    return files


def one_line(error: Exception) -> str:
    """An error's message on one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _dcmread(path: Path) -> Any:
    try:
        from pydicom import dcmread
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path}, which is DICOM,", "dicom") from error
    return dcmread


def _header(path: Path, file: BinaryIO) -> Dataset:
    """All that stands before the pixels, so that what is refused is refused unread."""
    dcmread = _dcmread(path)
    from pydicom.filereader import read_dataset

    has_preamble = file.read(START)[128:] == b"DICM"
    # A deflated data set would be inflated here and now, to a thousand times its size if it is a bomb.
    if has_preamble:
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        if meta.get("TransferSyntaxUID") == _DEFLATED:
            raise ImageError(f"{path} is a deflated data set ({_DEFLATED}); inflate it first: dcmconv +te")
    file.seek(0)
    header: Dataset = dcmread(file, stop_before_pixels=True, force=True)
    return header


def _check_picture(path: Path, header: Dataset, most_pixels: int) -> None:
    """Refuses a header that describes no single, readable picture, forced or not."""
    if "DirectoryRecordSequence" in header:
        raise ImageError(f"{path} is a {DICOMDIR}, which only lists files; give its folder")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise NotApplicableError(
            str(path), f"it holds {frames} frames", "export the X-ray as a file of its own"
        )
    missing = [keyword for keyword in _REQUIRED if header.get(keyword) is None]
    if missing:
        raise ImageError(f"{path} holds no whole picture (no {', '.join(missing)}); export it again")
    width, height = int(header.Columns), int(header.Rows)
    if width * height > most_pixels:
        raise TooLargeError(f"{path} is {width}×{height} pixels, too large for an X-ray; scale it down")
    photometric = tag(header, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2", "RGB") and not photometric.startswith("YBR_"):
        raise ImageError(f"{path} has {photometric} pixels; export it as MONOCHROME2")


def _stored(path: Path, file: BinaryIO) -> NDArray[Any]:
    """Stored values, (H, W); or (H, W, 3) in RGB."""
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    file.seek(0)
    dataset = _dcmread(path)(file, force=True)
    if dataset.file_meta.get("TransferSyntaxUID") is None:  # a bare data set
        implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    _check_syntax(path, dataset.file_meta.TransferSyntaxUID)
    stored: NDArray[Any] = pixel_array(dataset)
    return stored


def _check_syntax(path: Path, syntax: Any) -> None:
    """Refuses a transfer syntax (PS3.5 section 10) that no installed decoder knows."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ImageError(
            f"{path} is encoded as {syntax.name} ({syntax}), which is not read; decompress it: gdcmconv --raw"
        ) from None
    if not decoder.is_available:
        raise MissingExtraError(f"reading {path}, compressed as {syntax.name},", "dicom")


def _displayed(header: Dataset, stored: NDArray[Any]) -> tuple[NDArray[Any], tuple[float, float]]:
    """What is to be displayed, but for the inversion, and the lowest and highest grey there can be."""
    values = _rescaled(header, stored)
    windowed = _windowed(header, values)
    if windowed is not None:
        return windowed, (0, 1)
    bits = int(header.BitsStored)
    lowest = -(2 ** (bits - 1)) if header.PixelRepresentation else 0
    ends = _rescaled(header, np.array((lowest, lowest + 2**bits - 1)))
    return values, (float(ends.min()), float(ends.max()))


def _unpadded(
    path: Path, header: Dataset, stored: NDArray[Any], greys: NDArray[Any], negative: bool
) -> NDArray[Any]:
    """The greys with padding as black as the picture gets.

    Padding (PS3.3 C.7.5.1.1.2) is no measurement and may have any value, so it must not count in the scale.
    """
    padding = _padding(header, stored)
    if padding is None or not padding.any():
        return greys
    if padding.all():
        raise ImageError(f"{path} is nothing but padding; export it again")
    measured = greys[~padding]
    return np.where(padding, measured.max() if negative else measured.min(), greys)


def _padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    low, high = sorted((int(value), int(header.get("PixelPaddingRangeLimit", value))))
    padding: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return padding


def _rescaled(header: Dataset, stored: NDArray[Any]) -> NDArray[Any]:
    """The Modality LUT, PS3.3 C.11.1."""
    if header.get("ModalityLUTSequence"):
        return _looked_up(header, header.ModalityLUTSequence[0], stored)
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None or intercept is None or (slope, intercept) == (1, 0):
        return stored
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _windowed(header: Dataset, values: NDArray[Any]) -> NDArray[np.float32] | None:
    """Values through the VOI LUT or window (PS3.3 C.11.2) to [0, 1]; of several the first; None without."""
    if header.get("VOILUTSequence"):
        item = header.VOILUTSequence[0]
        return _looked_up(header, item, values) / np.float32(2 ** int(item.LUTDescriptor[2]) - 1)
    centres, widths = (_several(header.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if not centres or not widths or widths[0] <= 0:  # some consoles write 0 for "no window"
        return None
    centre, width = np.float32(centres[0]), np.float32(widths[0])
    x = values.astype(np.float32) - centre
    function = tag(header, "VOILUTFunction")
    if function == "SIGMOID":
        sigmoid: NDArray[np.float32] = 1 / (1 + np.exp(np.clip(-4 * x / width, -80, 80)))
        return sigmoid
    if function != "LINEAR_EXACT":
        x, width = x + np.float32(0.5), max(width - 1, np.float32(1e-3))
    windowed: NDArray[np.float32] = np.clip(x / width + np.float32(0.5), 0, 1)
    return windowed


def _looked_up(header: Dataset, item: Dataset, values: NDArray[Any]) -> NDArray[np.float32]:
    """Values through a table, PS3.3 C.11.1.1: those below its first or above its last get that one."""
    entries, first, _ = (int(x) for x in item.LUTDescriptor)
    entries = entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):  # one byte an entry is not allowed, but written
        _, little = header.original_encoding
        kind = "u1" if len(data) < 2 * entries else "<u2" if little else ">u2"
        data = np.frombuffer(data, kind)[:entries]
    table = np.asarray(data, dtype=np.float32)
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
    looked_up: NDArray[np.float32] = table[places]
    return looked_up


def _hanging(header: Dataset) -> tuple[Hanging, LateralitySource]:
    if not has_sides(header):
        return STANDARD, "none"
    directions = tag(header, "PatientOrientation").split("\\")
    hanging = Hanging.of(*directions) if len(directions) == 2 else None
    return (STANDARD, "assumed") if hanging is None else (hanging, "tagged")


def _spacing(header: Dataset) -> tuple[tuple[float, float], str] | tuple[None, None]:
    """Millimetres a pixel, and by which attribute (PS3.3 10.7.1.3).

    Imager Pixel Spacing is that of the detector's plane, onto which the patient is magnified.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        values = [float(x) for x in _several(header.get(keyword))]
        if len(values) == 2 and all(x > 0 and math.isfinite(x) for x in values):
            return (values[0], values[1]), keyword
    return None, None


def _several(value: Any) -> list[Any]:
    """The values of an attribute that may have none, one or several."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)
