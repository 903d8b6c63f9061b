"""Plays a network in PyTorch, so that what is trained can be examined like what is shipped."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgseg.errors import ConfigError
from sgseg.inference import Encoded, Identity
from sgseg.inference.runtime import FINDING_THRESHOLD
from sgseg.models import SGSeg
from sgseg.models.sgseg import Explanation
from sgseg.reports import Guidance
from sgseg.training import config as configs
from sgseg.training.module import standardise
from sgseg.training.networks import WEIGHTS, AnyNetwork, load, oriented


class TorchRuntime:
    """A `Runtime` that plays a network in float32."""

    def __init__(
        self,
        network: AnyNetwork,
        size: int,
        guidance: Guidance,
        identity: Identity,
        transposed: bool = False,
        temperature: float = 1.0,
        trained_on: Collection[str] = (),
    ) -> None:
        """
        Args:
            network: is put into evaluation mode.
            size, guidance, identity, trained_on: as in `Runtime`.
            transposed: whether its weights know images with rows and columns swapped.
            temperature: by which the logits of masks are divided, as in an artefact.
        """
        self.network = network.eval()
        self.size, self.guidance, self.identity = size, guidance, identity
        self.writes_reports, self.finding_threshold = network.writes_reports, FINDING_THRESHOLD
        self.trained_on = frozenset(trained_on)
        self._transposed, self._temperature = transposed, temperature
        with torch.inference_mode():
            self._table = network.report_encoder()

    @classmethod
    def of_run(cls, run: Path) -> TorchRuntime:
        """The network that a training run chose.

        Raises:
            ConfigError: the run is not finished.
        """
        weights = run / WEIGHTS
        if not weights.is_file():
            raise ConfigError(f"{run} has no {WEIGHTS}; finish it with: sgseg train --resume {run}")
        config = configs.load(run / "config.yaml")
        identity = Identity(config.model, run.name, hashlib.sha256(weights.read_bytes()).hexdigest())
        return cls(
            load(config, weights),
            config.stages[-1].size,
            Guidance(config.monitor),
            identity,
            config.network.transposed,
            trained_on=config.data.splits,
        )

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        encoded = self.network.encode(self._input(images))
        features = tuple(f.numpy() for f in encoded.features)
        maps = encoded.attention
        attention = None if maps is None else oriented(maps, self._transposed).numpy()
        return Encoded(features, encoded.zone_logits.sigmoid().numpy(), attention)

    @torch.inference_mode()
    def decode(self, features: tuple[NDArray[Any], ...], reports: NDArray[np.int64]) -> NDArray[np.float32]:
        tensors: list[Tensor] = [torch.from_numpy(f) for f in features]
        logits = self.network.decode(tensors, torch.from_numpy(reports), self._table)
        logits = oriented(logits, self._transposed)
        probability: NDArray[np.float32] = (logits[:, 0] / self._temperature).sigmoid().numpy()
        return probability

    @torch.inference_mode()
    def explain(self, images: NDArray[np.uint8], reports: NDArray[np.int64]) -> Explanation:
        """What the masks of images under reports were made of.

        Boxes and the stages' maps are those of the images as the network's weights know them.

        Args:
            images: (B, size, size) uint8 as `imaging.fit` gives them.
            reports: (B,) the index of the ZoneSet that guides each image.

        Raises:
            ConfigError: the network is another than SGSeg or LanGuideMedSeg.
        """
        if not isinstance(self.network, SGSeg):
            raise ConfigError(f"{self.identity.name} has no words to attend to; give a run of sgseg")
        return self.network.explain(self._input(images), torch.from_numpy(reports))

    def _input(self, images: NDArray[np.uint8]) -> Tensor:
        return oriented(standardise(torch.from_numpy(images)[:, None].float() / 255), self._transposed)
