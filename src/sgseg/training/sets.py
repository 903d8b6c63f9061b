"""The training and validation sets of a stage, and their batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from sgseg.data import phantom, read_cases
from sgseg.errors import ConfigError
from sgseg.imaging import ChestXray, fit, fit_mask
from sgseg.training.cache import Arrays, decode
from sgseg.training.config import Data, Stage

PHANTOM_SEED = 1_000_000
"""First seed of the phantoms that are trained on; those of the demo and the tests lie below it."""


class Batch(NamedTuple):
    """images and masks (B, 1, H, W) uint8, zones (B, 6) float32 with NaN where not known."""

    images: Tensor
    masks: Tensor
    zones: Tensor


class Batches(IterableDataset[Batch]):
    """Batches of several decoded sets, in an order that depends on seed and epoch alone.

    An epoch shows every example as often as its set's repeat says; the last, incomplete batch is left
    out in training.
    """

    def __init__(self, sets: Sequence[tuple[Arrays, int]], batch: int, seed: tuple[int, ...] | None) -> None:
        """
        Args:
            sets: decoded sets and how often each example of them counts.
            batch: examples per batch.
            seed: of the order; None keeps the examples in order, and all of them.
        """
        self.sets, self.batch, self.seed = [arrays for arrays, _ in sets], batch, seed
        self.order: NDArray[np.int64] = np.concatenate(
            [np.tile([(i, j) for j in range(len(arrays))], (n, 1)) for i, (arrays, n) in enumerate(sets)]
        )

    def __len__(self) -> int:
        whole, part = divmod(len(self.order), self.batch)
        return whole + (part > 0 and self.seed is None)

    def __iter__(self) -> Iterator[Batch]:
        order = self.order
        if self.seed is not None:
            order = order[np.random.default_rng(self.seed).permutation(len(order))]
        for i in range(len(self)):
            yield self._gather(order[i * self.batch : (i + 1) * self.batch])

    def _gather(self, rows: NDArray[np.int64]) -> Batch:
        parts: list[tuple[NDArray[Any], ...]] = []
        for i, arrays in enumerate(self.sets):
            chosen = rows[rows[:, 0] == i, 1]
            parts.append((arrays.images[chosen], arrays.masks[chosen], arrays.zones[chosen]))
        images, masks, zones = (
            torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)
        )
        return Batch(images[:, None], masks[:, None], zones)


def loader(batches: Batches) -> DataLoader[Batch]:
    """For Lightning; batches come ready-made, so no worker is needed."""
    return DataLoader(batches, batch_size=None)


def check(data: Data) -> None:
    """Finds out before anything is begun whether the data are there.

    Raises:
        ConfigError, DataError: they are not; the message says what is missing.
    """
    for split in ("train", "valid"):
        read_cases(_root(data), split)
    if data.negatives is not None:
        read_cases(data.negatives, "train")


def training_sets(data: Data, stage: Stage, seed: int) -> list[tuple[Arrays, int]]:
    """The training split, the healthy X-rays and the phantoms of a stage, with their repeats."""
    sets = [(decode(read_cases(_root(data), "train"), stage.size), 1)]
    if data.negatives is not None:
        sets.append((decode(read_cases(data.negatives, "train"), stage.size), data.negatives_repeat))
    if stage.phantoms:
        sets.append((_phantoms(stage.phantoms, PHANTOM_SEED + seed, stage.size), 1))
    return sets


def validation_sets(data: Data, stage: Stage) -> list[tuple[Arrays, int]]:
    """The validation split alone: the numbers that choose are the data set's."""
    return [(decode(read_cases(_root(data), "valid"), stage.size), 1)]


def _root(data: Data) -> Path:
    if data.root is None:
        raise ConfigError("there is no data to train on; add data.root=DIR")
    return data.root


def _phantoms(n: int, seed: int, size: int) -> Arrays:
    drawn = [phantom.draw(seed + i) for i in range(n)]
    xrays = [ChestXray.from_array(p.pixels) for p in drawn]
    return Arrays(
        np.stack([fit(xray, size) for xray in xrays]),
        np.stack([fit_mask(p.mask, xray.content, size) for p, xray in zip(drawn, xrays, strict=True)]).astype(
            np.uint8
        ),
        np.array([p.zones.vector for p in drawn], dtype=np.float32),
        [p.name for p in drawn],
    )
