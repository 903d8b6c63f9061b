"""How unlike the X-rays that it was trained on a picture looks to the network itself.

Tags and colours are all that `sgseg.imaging` can judge by; most pictures have neither. So an artefact also
holds what the network's own features of training X-rays are like: their probabilistic PCA (Tipping & Bishop,
Journal of the Royal Statistical Society B 61, 1999), and the distance above which a picture is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor, nn

from sgseg.data import Case, phantom, read_cases
from sgseg.imaging import ChestXray, fit, read
from sgseg.inference import Runtime
from sgseg.training.sets import PHANTOM_SEED

MARGIN = 1.3
"""The limit, as a multiple of the largest distance among `valid` X-rays and their twins.

Wide, for a wrong refusal is worse than a picture let through: another hospital's X-rays must pass.
"""

COMPONENTS = 96
"""Directions in which X-rays are known to vary."""

FEWEST = 500
"""Pictures below which nothing is known about what is usual, and nothing is refused."""

_TRAIN, _VALID, _PHANTOMS = 1000, 400, 100  # of each at most: more X-rays change the limit by a few percent
_BATCH = 16
_SCALES = slice(2, 4)  # of `Encoded.features`: strides 16 and 32, which say what is seen rather than where


class InputCheck(nn.Module):
    """Distance of a picture's features from those of training X-rays.

    Features are averaged over the picture and standardised; of what they then deviate, the directions in
    which X-rays vary are discounted, each by how much they do.

    Buffers:
        mean, scale: (D,) float32, of the averaged features; such that the distance is about 1 for an X-ray.
        directions: (D, K) float32.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, directions: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("directions", directions)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """`Encoded.features`, of which those at strides 16 and 32 are looked at -> (B,) float32."""
        averages = torch.cat([x.mean((2, 3)) for x in features[_SCALES]], dim=1)
        return self.distance(averages)

    def distance(self, averages: Tensor) -> Tensor:
        """(B, D) averaged features -> (B,)."""
        deviation = (averages - self.mean) / self.scale
        usual = deviation @ self.directions
        return (deviation.square().sum(1) - usual.square().sum(1)).clamp(min=0).sqrt()

    @classmethod
    def fitted(cls, averages: Tensor, components: int = COMPONENTS) -> InputCheck:
        """The check by averaged features of training X-rays.

        Args:
            averages: (N, D), N more than D if the check is to be of use.
            components: K, less than N and D.
        """
        x = averages.double()
        mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
        standard = (x - mean) / scale
        variances, axes = torch.linalg.eigh(standard.T @ standard / len(x))
        rest, kept = variances[:-components].mean(), variances[-components:]
        directions = axes[:, -components:] * (1 - rest / kept).sqrt()
        scale = scale * (rest * x.shape[1]).sqrt()
        return cls(mean.float(), scale.float(), directions.half().float())  # as they are stored


@dataclass(frozen=True)
class Chosen:
    """A check, and the distance above which it refuses.

    Attributes:
        check: says the distance.
        card: for model.json: the limit, and how it was chosen.
    """

    check: InputCheck
    card: dict[str, Any]


def choose(player: Runtime, data: Path, negatives: Path | None) -> Chosen | None:
    """Fits the check on training X-rays and their twins, and lets `valid` choose the limit.

    Args:
        player: of the trained network.
        data: the data set it was trained on.
        negatives: the X-rays without a finding, if there were any.

    Returns:
        None if there are fewer than `FEWEST` training X-rays.

    Raises:
        DataError, ImageError: an X-ray is not there or not readable.
    """
    roots = {"data": data} | ({} if negatives is None else {"negatives": negatives})
    train = {name: _squares(read_cases(root, "train"), _TRAIN, player.size) for name, root in roots.items()}
    if sum(map(len, train.values())) < FEWEST:
        return None
    rng = np.random.default_rng(0)
    drawn = [_square(phantom.draw(PHANTOM_SEED + i).pixels, player.size) for i in range(_PHANTOMS)]
    shown = [square for squares in train.values() for square in squares]
    check = InputCheck.fitted(averages(player, [*shown, *(twin(square, rng) for square in shown), *drawn]))
    largest: dict[str, float] = {}
    for name, root in roots.items():
        squares = _squares(read_cases(root, "valid"), _VALID, player.size)
        twins = [twin(square, rng) for square in squares for _ in range(2)]
        for kind, seen in (("valid", squares), ("valid, altered", twins)):
            largest[f"{name}: {kind}"] = float(check.distance(averages(player, seen)).max())
    card = {
        "limit": round(MARGIN * max(largest.values()), 3),
        "margin": MARGIN,
        "largest_distance": {name: round(value, 3) for name, value in largest.items()},
        "fitted_on": {name: len(squares) for name, squares in train.items()} | {"phantoms": len(drawn)},
    }
    return Chosen(check, card)


def averages(player: Runtime, squares: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Features of (size, size) uint8 pictures, averaged over each picture, (B, D) float32."""
    rows = []
    for i in range(0, len(squares), _BATCH):
        features = player.encode(np.stack(squares[i : i + _BATCH])).features[_SCALES]
        rows.append(np.concatenate([x.mean((2, 3)) for x in features], axis=1))
    return torch.from_numpy(np.concatenate(rows))


def twin(square: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The same X-ray as another hospital might have stored it, read like any picture.

    Tilted, cropped, of another shape, with another tone curve, blur, noise, a frame, letters.

    Args:
        square: (size, size) uint8.
        rng: draws what is done.
    """
    size = len(square)
    image = Image.fromarray(square).rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    width, height = (int(size * share) for share in rng.uniform(0.8, 1, 2))
    left, top = (int(rng.integers(0, size - side + 1)) for side in (width, height))
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((int(width * rng.uniform(0.75, 1.33)), height), Image.Resampling.BILINEAR)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    if rng.random() < 0.3:
        _letter(image, rng)
    greys = np.asarray(image, dtype=np.float32) / 255
    gamma = np.exp(rng.uniform(-0.6, 0.6))
    greys = greys**gamma if rng.random() < 0.5 else 1 - (1 - greys) ** gamma
    if rng.random() < 0.3:
        top, bottom, left, right = rng.integers(0, size // 7, 4) * (rng.random(4) < 0.6)
        grey = rng.choice((0, 0, 0, 0.5, 1))
        greys = np.pad(greys, ((top, bottom), (left, right)), constant_values=grey)
    greys = greys + rng.normal(0, rng.uniform(0, 0.03), greys.shape)
    return _square(np.rint(np.clip(greys, 0, 1) * 255).astype(np.uint8), size)


def _letter(image: Image.Image, rng: np.random.Generator) -> None:
    """Writes a marker near the upper edge."""
    font = ImageFont.load_default(size=float(image.height * rng.uniform(0.05, 0.12)))
    at = (image.width * rng.uniform(0, 0.8), image.height * rng.uniform(0, 0.1))
    ImageDraw.Draw(image).text(at, str(rng.choice(("L", "R", "AP SUPINE", "PORTABLE 12:30"))), 255, font)


def _squares(cases: Sequence[Case], most: int, size: int) -> list[NDArray[np.uint8]]:
    """Cases spread evenly over a split, as networks take them."""
    step = max(1, -(-len(cases) // most))
    return [fit(read(case.image, force=True), size) for case in cases[::step]]


def _square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return fit(ChestXray.from_array(pixels), size)
