"""What plays a model: a Protocol, and its player for the shipped artefact (ONNX Runtime)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sgseg.errors import SGSegError
from sgseg.reports import Guidance

CARD, WEIGHTS, ENCODE, DECODE = "model.json", "model.safetensors", "encode.onnx", "decode.onnx"
"""The files of an artefact."""

FINDING_THRESHOLD = 0.5
"""The finding threshold of models for which none was chosen: that at which a report names a zone."""


class Identity(NamedTuple):
    """Which model it was.

    Attributes:
        name: of the configuration.
        version: of the weights.
        sha256: of the weights file.
    """

    name: str
    version: str
    sha256: str


class Encoded(NamedTuple):
    """What one look at B images gives.

    Attributes:
        features: what `Runtime.decode` takes; each array has the B images along its first axis.
        zones: zone probabilities, (B, 6) float32, in the order of `anatomy.ZONES`; NaN from a model that
            writes no report.
        attention: where the model looked for each zone, (B, 6, h, w) float32 on a grid over the square image;
            each map sums to 1. None from a model without such maps.
        strangeness: how far each image is from the X-rays of the training, (B,) float32; above 1 it is
            refused. None from a model that does not know.
    """

    features: tuple[NDArray[Any], ...]
    zones: NDArray[np.float32]
    attention: NDArray[np.float32] | None = None
    strangeness: NDArray[np.float32] | None = None


class Runtime(Protocol):
    """A model that can be played: the artefact, a training run, a baseline.

    Attributes:
        identity: which model it is.
        size: side of the square images it takes, pixels.
        guidance: that was best on the validation split, without text where the model writes reports.
        writes_reports: whether it reads zones from the image; without, its zone probabilities are NaN.
        finding_threshold: the likeliest zone's probability above which an image is said to have a finding.
        trained_on: splits of its data set that it was trained on, whose scores say nothing of other images.
    """

    identity: Identity
    size: int
    guidance: Guidance
    writes_reports: bool
    finding_threshold: float
    trained_on: frozenset[str]

    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        """Looks at images, (B, size, size) uint8 as `imaging.fit` gives them."""
        ...

    def decode(self, features: tuple[NDArray[Any], ...], reports: NDArray[np.int64]) -> NDArray[np.float32]:
        """Lesion probabilities, (B, size, size) float32.

        Args:
            features: of `encode`.
            reports: (B,) the index of the ZoneSet that guides each image, or `reports.NO_REPORT`.
        """
        ...


class OnnxRuntime:
    """Plays an artefact: two graphs and one weights file, with ONNX Runtime on the CPU; no torch."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """
        Args:
            folder: of the artefact.
            threads: of the CPU; by default those that this process may use.

        Raises:
            SGSegError: the folder holds no artefact, or a damaged one.
        """
        card = read_card(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _allowed_cpus()
        options.log_severity_level = 3
        try:
            self._encode, self._decode = (
                onnxruntime.InferenceSession(folder / graph, options, providers=["CPUExecutionProvider"])
                for graph in (ENCODE, DECODE)
            )
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise SGSegError(f"the model in {folder} cannot be loaded ({error}); install it again") from error
        self.identity = Identity(card["name"], card["version"], card["sha256"])
        self.size = int(card["size"])
        self.guidance = Guidance(card["guidance"])
        self.writes_reports = bool(card.get("writes_reports", True))
        # Weights up to 0.3.0 have none.
        self.finding_threshold = float(card.get("finding", {}).get("threshold", FINDING_THRESHOLD))
        # Weights up to 0.3.1 do not say; they have seen `train` alone.
        self.trained_on = frozenset(card.get("config", {}).get("data", {}).get("splits", ["train"]))
        self._limit = np.float32(card.get("input_check", {}).get("limit", np.inf))
        self._outputs = [node.name for node in self._encode.get_outputs()]
        self._features = [node.name for node in self._decode.get_inputs() if node.name in self._outputs]

    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        found = dict(zip(self._outputs, self._encode.run(None, {"images": images}), strict=True))
        features = tuple(found[name] for name in self._features)
        # Weights from before 0.3 have neither attention nor distance.
        strangeness = found["distance"] / self._limit if "distance" in found else None
        return Encoded(features, found["zones"], found.get("attention"), strangeness)

    def decode(self, features: tuple[NDArray[Any], ...], reports: NDArray[np.int64]) -> NDArray[np.float32]:
        feeds = {"reports": reports, **dict(zip(self._features, features, strict=True))}
        probability: NDArray[np.float32] = self._decode.run(None, feeds)[0]
        return probability


def _allowed_cpus() -> int:
    """CPUs that this process may use; only Linux tells them from those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_card(folder: Path) -> dict[str, Any]:
    """The machine-readable card of an artefact, its weights checked against it.

    Raises:
        SGSegError: there is no artefact, or its weights are not those the card speaks of.
    """
    cure = "give a folder that sgseg export wrote, or install the package again"
    if (folder / "config.yaml").is_file():
        cure = "it is a training run: export it first, or use --run where there is such an option"
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise SGSegError(f"{folder} holds no SGSeg model ({error}); {cure}") from error
    if not isinstance(card, dict) or "sha256" not in card:
        raise SGSegError(f"{folder / CARD} is no card of an SGSeg model; {cure}")
    if found != card["sha256"]:
        raise SGSegError(f"{folder / WEIGHTS} is damaged or of another version; copy or install it again")
    return card
