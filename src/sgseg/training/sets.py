"""The training and validation sets of a stage, and their batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from sgseg.data import Case, phantom, read_cases, split_names
from sgseg.errors import ConfigError, DataError
from sgseg.imaging import ChestXray, fit, fit_mask
from sgseg.training.cache import Arrays, decode
from sgseg.training.config import Config, Data, Stage

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
            batch: examples per batch; all there are, if there are fewer.
            seed: of the order; None keeps the examples in order, and all of them.
        """
        self.sets, self.seed = [arrays for arrays, _ in sets], seed
        self.order: NDArray[np.int64] = np.concatenate(
            [np.tile([(i, j) for j in range(len(arrays))], (n, 1)) for i, (arrays, n) in enumerate(sets)]
        )
        self.batch = min(batch, len(self.order))

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


def check(config: Config) -> None:
    """Finds out before anything is begun whether the data are there.

    Raises:
        ConfigError, DataError: they are not; the message says what is missing.
    """
    data = config.data
    if "valid" not in split_names(_root(data)):
        raise DataError(
            f"{data.root} has no split 'valid', which chooses the epoch; move some patients' rows from "
            "train.csv to valid.csv"
        )
    read_cases(_root(data), "train")
    valid = read_cases(_root(data), "valid")
    if data.negatives is not None:
        read_cases(data.negatives, "train")
    labelled, rest = split_labelled(_trained_on(data, _root(data)), data.labelled, config.seed)
    if not rest and any(stage.pseudo_label_momentum is not None for stage in config.stages):
        raise ConfigError(f"data.labelled={data.labelled} leaves no patient to label; lower it")
    if not _all_have_reports(labelled, rest) and any(stage.language_vision_weight for stage in config.stages):
        raise ConfigError("the language-vision loss needs reports, and none is known; set its weight to 0")
    contrastive = any(stage.objective == "contrastive" for stage in config.stages)
    if contrastive and not _all_have_reports(labelled, valid):
        raise ConfigError("contrastive pre-training needs reports in train and valid; leave its stage out")


def _all_have_reports(*splits: Sequence[Case]) -> bool:
    """Whether at least one report is known in each."""
    return all(any(case.zones is not None for case in cases) for cases in splits)


def split_labelled(cases: Sequence[Case], share: float, seed: int) -> tuple[list[Case], list[Case]]:
    """Those whose masks are known, and the rest.

    Args:
        cases: of the training split.
        share: of the images that are labelled, reached with whole patients; at least one patient is.
        seed: draws the patients.
    """
    images = Counter(case.patient for case in cases)
    order = np.random.default_rng(seed).permutation(sorted(images))
    reached = np.cumsum([images[patient] for patient in order])
    known = set(order[: np.searchsorted(reached, round(share * len(cases))) + 1])
    return [c for c in cases if c.patient in known], [c for c in cases if c.patient not in known]


def training_sets(data: Data, stage: Stage, seed: int) -> list[tuple[Arrays, int]]:
    """The training split, the healthy X-rays and the phantoms of a stage, with their repeats.

    Where masks are learned, the split is its labelled part.
    """
    cases = _trained_on(data, _root(data))
    if stage.objective == "segmentation":
        cases, _ = split_labelled(cases, data.labelled, seed)
    sets = [(decode(cases, stage.size), 1)]
    if data.negatives is not None:
        sets.append((decode(_trained_on(data, data.negatives), stage.size), data.negatives_repeat))
    if stage.phantoms:
        sets.append((_phantoms(stage.phantoms, PHANTOM_SEED + seed, stage.size), 1))
    return sets


def unlabelled_set(data: Data, stage: Stage, seed: int) -> Arrays:
    """The rest of the training split, with empty masks: theirs are not opened."""
    _, cases = split_labelled(_trained_on(data, _root(data)), data.labelled, seed)
    return decode([replace(case, mask=None) for case in cases], stage.size)


def validation_sets(data: Data, stage: Stage) -> list[tuple[Arrays, int]]:
    """The validation split alone: the numbers that choose are the data set's."""
    return [(decode(read_cases(_root(data), "valid"), stage.size), 1)]


def _trained_on(data: Data, root: Path) -> list[Case]:
    return [case for split in data.splits for case in read_cases(root, split)]


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
