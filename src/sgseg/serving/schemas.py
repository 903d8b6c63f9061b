"""What the service says, as JSON."""

from __future__ import annotations

from base64 import b64encode
from enum import Enum
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sgseg.anatomy import ZONES, Laterality
from sgseg.batch import describe
from sgseg.formats import png_bytes, run_lengths
from sgseg.inference import Prediction
from sgseg.reports import Guidance

_ATTENTION_DIGITS = 5
"""Of a share of the attention: the grid has a few hundred cells."""


class Orientation(str, Enum):
    """Which rows and columns a mask has.

    `FILE`: those of the file.
    `STANDARD`: those of the X-ray hung the standard way, the patient's right at the left of the image; they
        differ where DICOM's Patient Orientation says so.
    """

    FILE = "file"
    STANDARD = "standard"


class MaskEncoding(str, Enum):
    """How JSON holds a mask: a PNG in base64, or COCO's run lengths."""

    PNG = "png"
    RLE = "rle"


class Problem(BaseModel):
    code: str = Field(description="For programs.", examples=["queue_full"])
    message: str = Field(description="For people: what is wrong and how to put it right.")


class Failure(BaseModel):
    error: Problem


class PngMask(BaseModel):
    encoding: Literal["png"] = "png"
    data: str = Field(description="8-bit grey PNG in base64; 255 in the lesion, 0 elsewhere.")


class RleMask(BaseModel):
    encoding: Literal["rle"] = "rle"
    size: tuple[int, int] = Field(description="Height and width.")
    counts: list[int] = Field(description="Run lengths down the columns, background first, as in COCO.")


class Attention(BaseModel):
    """Where the model looked for each zone; no report changes it."""

    box: tuple[int, int, int, int] = Field(
        description="Where the grid lies in the mask's rows and columns: top, left, bottom, right."
    )
    maps: dict[str, list[list[float]]] = Field(
        description="For each zone, in the order of zone_probabilities, the rows of the grid; their sum is 1."
    )


class Model(BaseModel):
    name: str
    version: str
    sha256: str


_EXAMPLE: dict[str, Any] = {
    "name": "xray.png",
    "image_id": "5f2c" * 16,
    "model": {"name": "sgseg-compact", "version": "0.1.1", "sha256": "c8f6" * 16},
    "guidance": "text",
    "threshold": 0.5,
    "laterality": "patient",
    "laterality_source": "assumed",
    "report": "unilateral pulmonary infection, one infected area, lower right lung.",
    "finding": True,
    "finding_probability": 0.91,
    "zones": ["lower right"],
    "zone_probabilities": {
        "upper right": 0.03,
        "middle right": 0.22,
        "lower right": 0.91,
        "upper left": 0.02,
        "middle left": 0.06,
        "lower left": 0.12,
    },
    "lesion_fraction": 0.041,
    "uncertainty": 0.12,
    "size": [224, 224],
    "orientation": "file",
    "hanging": {"transpose": False, "upside_down": False, "mirror": False},
    "view": None,
    "against": None,
    "inverted": False,
    "content": [0, 0, 224, 224],
    "seconds": 0.021,
    "mask": {"encoding": "rle", "size": [224, 224], "counts": [30120, 24, 200, 31, 19801]},
    "probability_png": None,
    "attention": None,
}


class Answer(BaseModel):
    """One X-ray, predicted."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: str = Field(description="The name that the file was sent with.")
    image_id: str = Field(description="SHA-256 of the file; stands for it while the service keeps the image.")
    model: Model
    guidance: Guidance
    threshold: float
    laterality: Laterality = Field(description="Whose left the words of this answer mean.")
    laterality_source: str = Field(
        description="`tagged`; `assumed`: hung the standard way; `none`: a lateral view."
    )
    report: str
    finding: bool | None = Field(
        description="The image has a finding, by the model's own reading, whatever report guides the mask; "
        "null if the model writes no report. The mask is not emptied where there is none."
    )
    finding_probability: float | None = Field(
        description="The likeliest zone's, as the model reads the image; `finding` is whether it exceeds the "
        "threshold that was chosen for the model. Null if the model writes no report."
    )
    zones: list[str]
    zone_probabilities: dict[str, float | None] = Field(
        description="In this order: upper, middle, lower zone of the lung at the image's left, then right."
    )
    lesion_fraction: float
    uncertainty: float
    size: tuple[int, int] = Field(description="Width and height of the file's picture.")
    orientation: Orientation = Field(description="Whose rows and columns the mask has.")
    hanging: dict[str, bool] = Field(
        description="What turns the file's rows and columns to the standard: transposed, then turned over."
    )
    view: str | None = None
    against: str | None = Field(None, description="Why it is no frontal chest X-ray; only where forced.")
    inverted: bool = Field(description="The file's greys were turned round.")
    content: tuple[int, int, int, int] = Field(description="Top, left, bottom, right inside uniform borders.")
    seconds: float
    mask: Annotated[PngMask | RleMask, Field(discriminator="encoding")]
    probability_png: str | None = Field(
        None, description="Of a lesion, 0…255, as an 8-bit grey PNG in base64; if asked for."
    )
    attention: Attention | None = Field(
        None, description="If asked for, unless the model has none or the picture no left and right."
    )


class FailedImage(Failure):
    name: str


class BatchAnswer(BaseModel):
    """Answers and failures in the order of the images."""

    results: list[Answer | FailedImage]


class Status(BaseModel):
    status: Literal["ok", "ready"]


class Example(BaseModel):
    name: str
    url: str = Field(description="Relative to the service's root.")


def answer(
    prediction: Prediction,
    name: str,
    image_id: str,
    laterality: Laterality,
    encoding: MaskEncoding,
    orientation: Orientation,
    with_probability: bool,
    with_attention: bool,
) -> Answer:
    """A prediction as JSON."""
    mask = turned(prediction.mask, prediction, orientation)
    probability = turned(prediction.probability, prediction, orientation) if with_probability else None
    return Answer(
        name=name,
        image_id=image_id,
        model=Model(**prediction.model._asdict()),
        guidance=prediction.guidance,
        threshold=prediction.threshold,
        laterality=laterality,
        orientation=orientation,
        mask=_rle(mask) if encoding is MaskEncoding.RLE else PngMask(data=_base64(mask_png(mask))),
        probability_png=None if probability is None else _base64(_probability_png(probability)),
        attention=_attention(prediction, laterality, orientation) if with_attention else None,
        **describe(prediction, laterality),
    )


def turned(array: NDArray[Any], prediction: Prediction, orientation: Orientation) -> NDArray[Any]:
    """An array in the file's rows and columns, (H, W), as it is asked for."""
    return prediction.xray.hanging.hung(array) if orientation is Orientation.STANDARD else array


def _attention(prediction: Prediction, laterality: Laterality, orientation: Orientation) -> Attention | None:
    if prediction.attention is None or not prediction.has_sides:
        return None
    xray = prediction.xray
    content = np.zeros(xray.pixels.shape, dtype=np.bool_)
    content[xray.content.slices] = True
    inside = turned(content, prediction, orientation)
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    stored = orientation is Orientation.FILE
    grids = [xray.hanging.stored(grid) if stored else grid for grid in prediction.attention]
    maps = {
        zone.name(laterality): grid.astype(float).round(_ATTENTION_DIGITS).tolist()
        for zone, grid in zip(ZONES, grids, strict=True)
    }
    return Attention(box=box, maps=maps)


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    return png_bytes(mask.astype(np.uint8) * np.uint8(255))


def _probability_png(probability: NDArray[np.float32]) -> bytes:
    return png_bytes(np.rint(probability * 255).astype(np.uint8))


def _rle(mask: NDArray[np.bool_]) -> RleMask:
    height, width = mask.shape
    return RleMask(size=(height, width), counts=run_lengths(mask))


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")
