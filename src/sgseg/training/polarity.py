"""Fits the weights that tell a chest X-ray from its negative (`sgseg.imaging.polarity`).

    python -m sgseg.training.polarity --qata DIR --healthy DIR

Ridge logistic regression without a bias, on the `train` parts; `valid` says how well it does and which
margin is safe. The weights are discriminative: no picture, nor a mean of pictures, is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.imaging import polarity
from sgseg.imaging.geometry import content_box

VARIANTS = 4
"""Jittered thumbnails per training image, beside the one as it is."""

RIDGE = 100.0

INVERTED = frozenset(("sub-s10548_ses-e22496_run-1_bp-chest_vp-ap_dx.png",))
"""Files of QaTa's `train` that are negatives themselves, found by their score and confirmed by eye."""

_HEALTHY_WEIGHT = 5.0  # 180 of the only other hospital against 5,716: enough to be heard


def main() -> None:
    parser = argparse.ArgumentParser(description="Fits the weights of sgseg.imaging.polarity.")
    parser.add_argument("--qata", type=Path, required=True)
    parser.add_argument("--healthy", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(polarity.__file__).with_name("polarity.npy"))
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    qata = _pictures(_qata(args.qata, "train"))
    healthy = _pictures(_healthy(args.healthy, "train"))
    x = np.concatenate([_variants(picture, rng) for picture in [*qata, *healthy]])
    weight = np.repeat((1.0, _HEALTHY_WEIGHT), (len(qata), len(healthy))).repeat(1 + VARIANTS)
    weights = fitted(x, weight / (1 + VARIANTS))
    np.save(args.out, weights)

    for name, paths in (
        ("QaTa valid", _qata(args.qata, "valid")),
        ("healthy valid", _healthy(args.healthy, "valid")),
    ):
        thumbnails = [_variants(picture, rng) for picture in _pictures(paths)]
        _report(name, np.stack([variants[0] for variants in thumbnails]) @ weights)
        _report(f"{name}, jittered", np.concatenate([variants[1:] for variants in thumbnails]) @ weights)


def fitted(x: NDArray[np.float32], weight: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights w that make x·w large and positive, by Newton's method.

    Args:
        x: thumbnails with the bones bright, (N, 256) float32; their negatives and mirror images are implied.
        weight: how much each counts, (N,) float64.

    Returns:
        (256,) float32, the same for the left half as for the right.
    """
    square = x.reshape(-1, polarity.SIDE, polarity.SIDE).astype(np.float64)
    # A linear score is the same for a picture and its mirror image if it sees only their mean.
    x_even = ((square + square[:, :, ::-1]) / 2).reshape(len(x), -1)
    w = np.zeros(x_even.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x_even @ w))
        gradient = x_even.T @ (weight * (p - 1)) + RIDGE * w
        hessian = (x_even.T * (weight * p * (1 - p))) @ x_even + RIDGE * np.eye(len(w))
        w -= np.linalg.solve(hessian, gradient)
    return w.astype(np.float32)


def _report(name: str, scores: NDArray[np.float32]) -> None:
    """Prints the rates at `polarity.MARGIN`. A negative's score is its picture's with the sign changed."""
    wrong = np.mean(scores < 0)
    turned = np.mean(scores < -polarity.MARGIN)
    found = np.mean(scores > polarity.MARGIN)
    safe = max(0.0, -float(np.quantile(scores, 0.001, method="lower")))
    print(
        f"{name}: {len(scores)} pictures; wrong sign {wrong:.3%}; at margin {polarity.MARGIN}: "
        f"wrongly turned {turned:.3%}, negatives found {found:.2%}; "
        f"least margin with <= 0.1 % wrongly turned {safe:.2f}"
    )


def _qata(root: Path, split: str) -> list[Path]:
    paths = sorted((root / "images" / split / "images").glob("*.png"))
    return [path for path in paths if path.name not in INVERTED]


def _healthy(root: Path, split: str) -> list[Path]:
    names = json.loads((root / "split.json").read_text())[split]
    return [root / "images" / name for name in names]


def _pictures(paths: Sequence[Path]) -> list[NDArray[np.float32]]:
    """Greys in [0, 1] as they are in the files; `sgseg.imaging.read` would already decide the polarity."""
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255))
    return pictures


def _variants(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The thumbnail as it is, then `VARIANTS` jittered ones: (1 + VARIANTS, 256) float32."""
    jittered = [_jittered(picture, rng) for _ in range(VARIANTS)]
    return np.stack([polarity.thumbnail(each[content_box(each).slices]) for each in (picture, *jittered)])


def _jittered(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Another tilt, crop, tone curve and frame, as another hospital's might be."""
    tilted = Image.fromarray(picture).rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR)
    height, width = (int(side * rng.uniform(0.7, 1)) for side in picture.shape)
    top = int(rng.integers(0, picture.shape[0] - height + 1))
    left = int(rng.integers(0, picture.shape[1] - width + 1))
    pixels = np.asarray(tilted)[top : top + height, left : left + width]
    # The curve bends the shadows or, as in a picture that was a negative once, the highlights.
    gamma = np.exp(rng.uniform(-0.7, 0.7))
    pixels = pixels**gamma if rng.random() < 0.5 else 1 - (1 - pixels) ** gamma
    return _framed(pixels, rng) if rng.random() < 0.3 else pixels


def _framed(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Black, or seldom white, bars on some sides, too noisy to be recognised and taken off."""
    sides = rng.random(4) < 0.5
    top, bottom, left, right = rng.integers(1, 50, 4) * sides
    grey = float(rng.random() < 0.2)
    framed = np.pad(pixels, ((top, bottom), (left, right)), constant_values=grey)
    return np.asarray(np.clip(framed + rng.normal(0, 0.03, framed.shape), 0, 1), dtype=np.float32)


if __name__ == "__main__":
    main()
