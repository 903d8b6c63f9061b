"""A procedural chest X-ray: synthetic, with no patient in it.

The phantom serves the tests, the demonstration on a fresh machine and, as a small share, training:
it knows healthy lungs and all 64 sets of zones, which QaTa-COV19 does not.

It is drawn as an X-ray is made. Tissues are laid over one another as attenuation along the beam (air,
soft tissue, bone, and lesions that fill air), the beam is weakened exponentially, scatter and quantum
noise are added, and a film curve turns what is left into grey. A patient is described in *body
coordinates*: the lungs' height is 1, y runs from the apices (0) to the costophrenic angles (1), x from the
midline to the right of the image, which is the patient's left.

Every purpose draws from a random stream of its own, so one seed is one patient: with other zones, the
same patient with other lesions; at another size, the same picture coarser or finer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgseg.anatomy import N_ZONESETS, ZONES, Laterality, Level, Side, Zone, ZoneSet
from sgseg.errors import DataError
from sgseg.reports import write

Array = NDArray[np.float64]

OUTSIDE = -1
"""Value of `zone_map` outside the lungs."""

_ALL = ZoneSet(N_ZONESETS - 1)
_BOTH_LOWER = ZoneSet.of(Zone(side, Level.LOWER) for side in Side)
_P_HEALTHY, _P_ALL, _P_BOTH_LOWER = 0.10, 0.24, 0.16

_BODY, _ZONES, _TISSUE, _LESIONS, _FILM, _GRAIN = range(6)
"""The random streams of one seed."""


@dataclass(frozen=True)
class Phantom:
    """One synthetic X-ray.

    Attributes:
        pixels: (size, size) uint8, bones bright.
        mask: (size, size) bool, the lesions.
        zones: the zones that hold lesions.
        name: stem of its file, for example "phantom_000123".
        seed: what it was drawn from.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    zones: ZoneSet
    name: str
    seed: int


def draw(seed: int, size: int = 224, zones: ZoneSet | None = None) -> Phantom:
    """Draws a phantom.

    Args:
        seed: 0 or more; the same seed gives the same picture on every machine.
        size: height and width in pixels, at least 32.
        zones: where the lesions are; None draws them from a mix like that of COVID-19 pneumonia, with
            about one in ten healthy.

    Raises:
        ValueError: the seed is negative.
    """
    if zones is None:
        zones = _random_zones(_stream(seed, _ZONES))
    body = _Body.of(seed, size)
    opacity, mask = _lesions(body, _zone_map(body), zones, _stream(seed, _LESIONS))
    attenuation = _attenuation(body, opacity, _stream(seed, _TISSUE))
    pixels = _expose(attenuation, _stream(seed, _FILM), _stream(seed, _GRAIN))
    return Phantom(pixels, mask, zones, f"phantom_{seed:06d}", seed)


def zone_map(seed: int, size: int = 224) -> NDArray[np.int8]:
    """Where the six zones of a seed's lungs are: each is a third of its lung's height.

    Returns:
        (size, size) int8: a zone's position in `ZONES`, or `OUTSIDE`.
    """
    return _zone_map(_Body.of(seed, size))


def write_dataset(
    out: Path,
    splits: Mapping[str, int],
    seed: int,
    size: int = 224,
    progress: Callable[[], None] | None = None,
) -> None:
    """Writes phantoms as a data set in the layout of QaTa-COV19.

    The annotation is written last, so that an interrupted call leaves nothing that looks complete.

    Args:
        out: a folder that does not exist yet, or is empty.
        splits: the number of phantoms of each split, for example {"train": 100, "valid": 20}.
        seed: of the first phantom; the others follow, so that none is in two splits.
        size: height and width in pixels.
        progress: called after each phantom.

    Raises:
        DataError: `out` is not empty, or not a folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not an empty folder; choose another, or empty it")
    annotation: dict[str, list[dict[str, object]]] = {}
    for split, count in splits.items():
        images, masks = (out / "images" / split / kind for kind in ("images", "masks"))
        images.mkdir(parents=True)
        masks.mkdir()
        annotation[split] = []
        for _ in range(count):
            phantom = draw(seed, size)
            Image.fromarray(phantom.pixels).save(images / f"{phantom.name}.png")
            Image.fromarray(phantom.mask.astype(np.uint8) * 255).save(masks / f"mask_{phantom.name}.png")
            annotation[split].append(_entry(phantom))
            seed += 1
            if progress is not None:
                progress()
    prompts = out / "prompts"
    prompts.mkdir(parents=True)
    partial = prompts / "annotation.json.part"
    partial.write_text(json.dumps(annotation, indent=2) + "\n", encoding="utf-8")
    partial.replace(prompts / "annotation.json")


def _entry(phantom: Phantom) -> dict[str, object]:
    """The annotation of one phantom, with QaTa's keys and QaTa's laterality."""
    return {
        "image_path": f"mask_{phantom.name}.png",
        "caption": write(phantom.zones, Laterality.IMAGE),
        "pulmonary_infection": len(phantom.zones.sides),
        "infected_area": len(phantom.zones),
        "pseudo_label": list(phantom.zones.vector),
    }


def _random_zones(rng: np.random.Generator) -> ZoneSet:
    p = rng.random()
    if p < _P_HEALTHY:
        return ZoneSet()
    if p < _P_HEALTHY + _P_ALL:
        return _ALL
    if p < _P_HEALTHY + _P_ALL + _P_BOTH_LOWER:
        return _BOTH_LOWER
    return ZoneSet(int(rng.integers(1, N_ZONESETS)))


# ---------------------------------------------------------------------------------------- small tools


def _stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed, purpose))


def _step(x: Array, low: float, high: float) -> Array:
    """A smooth step from 0 at `low` to 1 at `high`; `low` may be the greater one."""
    t = x - low
    t *= 1 / (high - low)
    np.clip(t, 0, 1, out=t)
    ease = -2 * t
    ease += 3
    ease *= t
    ease *= t
    return ease


def _chord(r2: Array) -> Array:
    """What a beam crosses of an ellipsoid, as a share of its greatest thickness; r2 is 1 at the outline."""
    chord = 1 - r2
    np.clip(chord, 0, None, out=chord)
    np.sqrt(chord, out=chord)
    return chord


def _bulge(depth: Array, reach: float) -> Array:
    """A thickness that grows from 0 at the surface to 1 at `reach` below it, round as a cylinder."""
    t = np.clip(depth * (1 / reach), 0, 1)
    t *= 2 - t
    np.sqrt(t, out=t)
    return t


def _ellipse(
    x: Array, y: Array, centre: tuple[float, float], axes: tuple[float, float], tilt: float = 0
) -> Array:
    """Squared distance from the centre, 1 on the ellipse; `tilt` in radians, clockwise."""
    c, s = np.cos(tilt), np.sin(tilt)
    dx, dy = x - centre[0], y - centre[1]
    along: Array = dx * (c / axes[0])
    along += dy * (s / axes[0])
    dy *= c / axes[1]
    dx *= s / axes[1]
    dy -= dx
    along *= along
    dy *= dy
    along += dy
    return along


@cache
def _spline(size: int, waves: int) -> Array:
    """Cubic B-spline weights that spread waves + 3 knots over `size` pixels, (size, waves + 3)."""
    at = (np.arange(size) + 0.5) / size * waves
    d = np.abs(at[:, None] - (np.arange(waves + 3) - 1))
    weights = np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.clip(2 - d, 0, None) ** 3 / 6)
    weights.flags.writeable = False
    return weights


def _noise(rng: np.random.Generator, size: int, waves: int) -> Array:
    """Smooth noise of unit variance, (size, size), with features about 1/waves of the picture wide."""
    spline = _spline(size, waves)
    # The squares of the four weights that meet at a pixel sum to 0.48 on average, in each direction.
    knots = rng.standard_normal((waves + 3, waves + 3)) / 0.48
    field: Array = spline @ knots @ spline.T
    return field


def _coarse(image: Array, waves: int) -> Array:
    """The picture without anything finer than 1/waves of it."""
    spline = _spline(len(image), waves)
    gather = spline / spline.sum(0)
    smooth: Array = spline @ (gather.T @ image @ gather) @ spline.T
    return smooth


def _blur(image: Array, sigma: float) -> Array:
    """Gaussian blur; `sigma` in pixels, small."""
    reach = max(1, int(np.ceil(2.5 * sigma)))
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    taps /= taps[0] + 2 * taps[1:].sum()
    rows = len(image)
    for _ in range(2):
        padded = np.pad(image, ((reach, reach), (0, 0)), mode="edge")
        image = taps[0] * padded[reach : reach + rows]
        for i in range(1, reach + 1):
            pair = padded[reach - i : reach - i + rows] + padded[reach + i : reach + i + rows]
            pair *= taps[i]
            image += pair
        image = image.T
    return image


def _splat(points: Array, mass: Array, size: int) -> Array:
    """Deposits points, shared among the four nearest pixels.

    Args:
        points: (N, 2), x and y in pixels.
        mass: (N,).
        size: height and width of the result.

    Returns:
        (size, size), mass per pixel.
    """
    inside = ((points > 0.5) & (points < size - 0.5)).all(1)
    points, mass = points[inside] - 0.5, mass[inside]
    corner = points.astype(np.int64)
    right, down = (points - corner).T
    up, down = mass * (1 - down), mass * down
    at = corner[:, 1] * size + corner[:, 0]
    image: Array = np.bincount(
        np.concatenate((at, at + 1, at + size, at + size + 1)),
        np.concatenate((1 - right, right, 1 - right, right)) * np.concatenate((up, up, down, down)),
        size * size,
    ).astype(np.float64)
    return image.reshape(size, size)


# ------------------------------------------------------------------------------------------- the body


@dataclass(frozen=True)
class _Body:
    """A patient in front of the detector: shape, position, and where each pixel lies in the body.

    Attributes:
        size: height and width of the picture in pixels.
        matrix: (2, 2), from body coordinates to shares of the picture.
        origin: (2,), where the body's origin lies, in shares of the picture.
        x, y: (size, size), body coordinates of the pixels.
        dome: height (y) of the image-right dome of the diaphragm.
        chest: (size, size), half of the rib cage's inner width at the height of each pixel.
        heart: (size, size), squared distance from the heart's centre, 1 at its outline.
        vessels: (size, size), the same of the aortic arch or the pulmonary trunk, whichever is nearer.
        lateral, medial, base: (size, size), distance into the lung from the rib cage, from the mediastinum
            and heart, and from the diaphragm; negative outside.
    """

    size: int
    matrix: Array
    origin: Array
    x: Array
    y: Array
    dome: float
    chest: Array
    heart: Array
    vessels: Array
    lateral: Array
    medial: Array
    base: Array

    @classmethod
    def of(cls, seed: int, size: int) -> _Body:
        rng = _stream(seed, _BODY)
        turn = np.deg2rad(np.clip(rng.normal(0, 1.8), -4, 4))
        matrix = rng.uniform(0.56, 0.82) * np.array(
            [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        )
        middle = np.array([0.5 + rng.normal(0, 0.02), 0.5 + rng.uniform(-0.06, 0.05)])
        origin = middle - matrix @ np.array([0.0, 0.5])
        inverse = np.linalg.inv(matrix)
        at = (np.arange(size) + 0.5) / size
        dx, dy = at[None, :] - origin[0], at[:, None] - origin[1]
        # No body is symmetric: bend the coordinates a little.
        x = inverse[0, 0] * dx + inverse[0, 1] * dy + 0.008 * _noise(rng, size, 3)
        y = inverse[1, 0] * dx + inverse[1, 1] * dy + 0.008 * _noise(rng, size, 3)

        width, bulk = rng.uniform(0.49, 0.59), rng.uniform(0.88, 1.15)
        axes = (0.53 * bulk * width, 0.21 * bulk)
        heart = _ellipse(x, y, (rng.uniform(0.075, 0.105) * bulk, 0.76), axes, rng.uniform(0.4, 0.75))
        arch = _ellipse(x, y, (0.07, rng.uniform(0.24, 0.28)), (0.09, 0.09))
        vessels = np.minimum(arch, _ellipse(x, y, (0.075, 0.48), (0.115, 0.18), -0.2))

        across = np.abs(x)
        spine = 0.085 + 0.13 * np.exp(np.clip(y, 0, None) / -0.10) + 0.02 * _step(y, 0.25, 0.42)
        medial = np.minimum(across - spine, (np.sqrt(np.minimum(vessels, 9)) - 1) * 0.09)
        medial = np.minimum(medial, (np.sqrt(heart) - 1) * axes[1])
        right, drop, peak = rng.uniform(0.78, 0.88), rng.uniform(0.015, 0.06), 0.5 * width
        top = right + drop * _step(x, -0.1, 0.1)
        fall = np.clip((across - peak) / (width - peak), 0, 1.2)
        sink = np.clip((peak - across) / peak, 0, 1)
        base = top + (1.0 - top) * fall * fall + 0.04 * sink * sink - y
        t = np.clip(y / 0.66, 0, 1)
        t *= 2 - t
        root = np.sqrt(t)
        chest = width * (0.2 * t + 0.55 * root + 0.25 * np.sqrt(root)) + 0.03 * np.clip(y - 0.66, 0, None)
        return cls(
            size, matrix, origin, x, y, right + drop, chest, heart, vessels, chest - across, medial, base
        )  # fmt: skip

    def lines(self, points: Array, thickness: Array, width: float) -> Array:
        """Cords seen from the side, such as vessels and cables.

        Args:
            points: (..., N, 2), points along each cord in body coordinates.
            thickness: (..., N), attenuation in the middle of the cord.
            width: standard deviation across the cord, in body coordinates.

        Returns:
            (size, size), attenuation.
        """
        scale = np.sqrt(np.linalg.det(self.matrix)) * self.size
        stride = np.linalg.norm(np.gradient(points, axis=-2), axis=-1)
        mass = np.sqrt(2 * np.pi) * width * stride * thickness * scale**2
        pixels = (points.reshape(-1, 2) @ self.matrix.T + self.origin) * self.size
        return _blur(_splat(pixels, mass.ravel(), self.size), max(0.45, width * scale))


def _zone_map(body: _Body) -> NDArray[np.int8]:
    zones = np.full((body.size, body.size), OUTSIDE, dtype=np.int8)
    lungs = (body.lateral > 0) & (body.medial > 0) & (body.base > 0)
    for side in Side:
        lung = lungs & ((body.x < 0) if side is Side.IMAGE_LEFT else (body.x >= 0))
        rows = np.flatnonzero(lung.any(1))
        level = np.clip((np.arange(body.size) - rows[0]) * len(Level) // (rows[-1] - rows[0] + 1), 0, 2)
        np.copyto(zones, side.value * len(Level) + level[:, None], where=lung, casting="unsafe")
    return zones


# ----------------------------------------------------------------------------------------- the lesions


def _lesions(
    body: _Body, where: NDArray[np.int8], zones: ZoneSet, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """Fills the named zones, and nothing but them, with the clouds of a pneumonia.

    Args:
        body: whose lungs.
        where: the zone map of this body.
        zones: where the lesions are.
        rng: the stream of the lesions.

    Returns:
        The share of the air that lesions replace, (size, size) in [0, 1], and their mask.
    """
    size = body.size
    filled, mask = np.zeros((size, size)), np.zeros((size, size), dtype=bool)
    depth = np.clip(body.lateral / np.maximum(body.lateral + body.medial, 1e-6), 0, 1)
    shape = _noise(rng, size, 8)
    # Lesions end a little short of a third that is not named, along a wavy and slanting line.
    border = 0.19 + 0.15 * np.tanh(0.7 * _noise(rng, size, 9) + rng.uniform(-2, 2) * (depth - 0.4))
    texture = np.clip(1 + 0.16 * _noise(rng, size, 20) + 0.14 * _noise(rng, size, 70), 0.3, 1.7)
    severity, diffuse = rng.uniform(0.35, 0.85), rng.random() < 0.5
    # Numbers for every zone, named or not, so that a lesion does not depend on which others there are.
    numbers = rng.random((len(ZONES), 11))
    named = np.isin(where, [zone.position for zone in zones])
    for zone in zones:
        kind, extent, density, *clouds = numbers[zone.position]
        inside = where == zone.position
        side = (where >= 0) & (where // len(Level) == zone.side.value)
        rows = np.flatnonzero(inside.any(1))
        level = (np.arange(size)[:, None] + 0.5 - rows[0]) / len(rows)
        room = _room(zone, zones, level) - border
        allowed = named & side & (room > 0)
        if diffuse and kind < 0.8:
            score, share = 0.3 * shape, min(1.0, 0.92 + 0.12 * extent)
        else:
            score, share = (
                0.3 * shape + _clouds(clouds, depth, level, zone.level),
                0.25 + 0.55 * extent * extent,
            )
        # A quantile, not a fixed level, so that the lesion has its share of the zone in every body.
        edge = float(np.quantile(score[inside & allowed], 1 - share))
        mask |= allowed & (score >= edge)
        cloud = _step(score, edge - 0.05, edge + 0.35) * _step(room, -0.05, 0.25) * side
        filled = np.maximum(filled, severity * (0.75 + 0.5 * density) * cloud)
    return np.clip(filled * texture, 0, 1), mask


def _room(zone: Zone, zones: ZoneSet, level: Array) -> Array:
    """Distance (size, 1) to the nearest third of the same lung that must stay clear, in thirds."""
    room = np.full_like(level, np.inf)
    for neighbour in Level:
        if Zone(zone.side, neighbour) not in zones:
            away = neighbour.value - zone.level.value
            room = np.minimum(room, away - level if away > 0 else level - away - 1)
    return room


def _clouds(numbers: Sequence[float], depth: Array, level: Array, third: Level) -> Array:
    """The height map of two clouds, more often near the periphery and the base; 0 at their centres."""
    heights = []
    for a, b, c, d in (numbers[:4], numbers[4:]):
        across = (depth - 0.1 - 0.5 * a * a) / (0.3 + 0.4 * c)
        down = (level - 0.3 - 0.4 * b - 0.1 * (third is Level.LOWER)) / (0.3 + 0.35 * d)
        heights.append(-across * across - down * down)
    return np.maximum(*heights)


# ------------------------------------------------------------------------------------------ the tissues


def _attenuation(body: _Body, opacity: Array, rng: np.random.Generator) -> Array:
    """Line integrals along the beam, (size, size); about 2 through a trunk without its lungs."""
    x, y, size = body.x, body.y, body.size
    across = np.abs(x)
    skin = _outline(body, rng)
    total = (
        1.9 * _step(skin, 0.0, 0.02) * (0.35 + 0.65 * _bulge(skin, 0.45)) * (1 + 0.03 * _noise(rng, size, 4))
    )

    air = _bulge(body.lateral, 0.24) * _step(body.medial, -0.02, 0.05) * _step(body.base, -0.008, 0.03)
    texture = 1 + 0.025 * _noise(rng, size, 30) + 0.035 * _noise(rng, size, 80)
    total -= rng.uniform(0.85, 1.3) * air * texture * (1 - opacity)
    total += _vessels(body, rng) * np.clip(air * 1.6, 0, 1) * (1 - 0.6 * opacity)

    # Heart, great vessels and abdomen have the same density: where they touch, no border shows.
    below = _step(body.base, 0.012, -0.012) * _step(body.lateral, -0.03, 0.03)
    centre = np.maximum(_chord(body.heart), 0.8 * _chord(body.vessels))
    centre = np.maximum(centre, _step(across, 0.2, 0.05) * _step(y, -0.1, 0.3))
    abdomen = below * (0.3 + 0.4 * _step(body.base, 0.0, -0.4))
    total += np.maximum(rng.uniform(0.35, 0.55) * centre, abdomen)
    total += _spine(across, x, y, rng)
    total -= _airways(x, y)
    total += _ribs(body, across, rng)
    total += _shoulders(across, y, rng)
    total += _breasts(across, y, rng) * _step(skin, 0, 0.1)
    if rng.random() < 0.5:
        total -= _stomach(body, rng) * below
    if rng.random() < 0.3:
        total += _leads(body, rng)
    np.clip(total, 0, None, out=total)
    return total


def _outline(body: _Body, rng: np.random.Generator) -> Array:
    """Distance inwards from the skin of trunk, neck, shoulders and upper arms."""
    across, y = np.abs(body.x), body.y
    slope, gap, wall = rng.uniform(0.3, 0.6), rng.uniform(0.0, 0.3), rng.uniform(0.09, 0.2)
    beyond = np.clip(across - 0.66, 0, None)
    shoulder = y + 0.27 - slope * (across - 0.18) - 2 * beyond * beyond
    flank = float(body.chest.max()) + wall + 0.5 * np.clip(0.42 - y, 0, None)
    trunk = np.minimum(flank - across, 0.9 * shoulder)
    neck = np.minimum(0.18 + 0.5 * np.clip(y + 0.2, 0, None) - across, 0.3 - y)
    arm = 0.15 - np.hypot(across - 0.80 - gap * np.clip((y - 0.05) / 1.3, 0, 1), np.clip(0.16 - y, 0, None))
    return np.maximum(np.maximum(trunk, neck), arm)


def _cortex(d: Array) -> Array:
    """The profile of a bone at a distance d from its axis (1 at its surface): denser towards the rim."""
    rim = np.clip(d, 0, 1)
    rim *= rim
    return _step(d, 1.1, 0.8) * (0.55 + 0.45 * rim)


def _ribs(body: _Body, across: Array, rng: np.random.Generator) -> Array:
    """Every rib is an ellipse seen from the front: its back runs above, its front below, fading to cartilage.

    Both are level lines of one function of position, so all ribs are drawn at once.
    """
    spacing, tilt, phase = rng.uniform(0.092, 0.108), rng.uniform(0.12, 0.2), rng.random()
    u = across / np.maximum(body.chest + 0.02, 0.15)
    sweep = tilt * _chord(u * u)
    level = body.y - 0.05 * u
    cage = _step(u, 1.08, 1.0) * (1 - 0.5 * _step(u, 0.85, 1.05)) * _step(body.y, -0.04, 0.1)
    # Less of a rib shows where much lies before it: below the diaphragm, behind the heart.
    cage *= (0.15 + 0.85 * _step(body.base, -0.25, 0.02)) * (0.5 + 0.5 * _step(body.medial, -0.1, 0.02))
    back, front = (level + sweep) / spacing + phase, (level - 1.4 * sweep) / spacing + phase
    back, front = (np.abs(at - np.round(at)) for at in (back, front))
    bone = 0.17 * _cortex(back / 0.24) * _step(across, 0.05, 0.10)
    bone += 0.1 * _cortex(front / 0.27) * _step(u, 0.4, 0.62)
    return rng.uniform(0.8, 1.5) * cage * bone


def _shoulders(across: Array, y: Array, rng: np.random.Generator) -> Array:
    """Clavicles, scapulae and humeri."""
    lift, bow = rng.uniform(-0.05, 0.08), rng.uniform(0.3, 0.7)
    s = np.clip((across - 0.05) / 0.62, 0, 1)
    half = 2 * s - 1
    axis = 0.16 - (lift + 0.12) * s - bow * s * (1 - s) * half
    ends = _step(across, 0.04, 0.06) * _step(across, 0.69, 0.66)
    bone = 0.24 * ends * _cortex(np.abs(y - axis) / (0.022 + 0.012 * half * half))

    edge = rng.uniform(0.48, 0.62)
    blade = np.minimum(across - edge - 0.1 * y, np.minimum(y + 0.02, edge + 0.37 - across - 0.5 * y))
    bone += 0.09 * _step(blade, 0.0, 0.015) + 0.05 * _step(np.abs(blade - 0.012), 0.014, 0.0)
    bone += 0.3 * _chord(_ellipse(across, y, (0.76, 0.08), (0.085, 0.09)))
    bone += 0.25 * _cortex(np.abs(across - 0.78 - 0.12 * y) / 0.045) * _step(y, 0.08, 0.16)
    return bone


def _spine(across: Array, x: Array, y: Array, rng: np.random.Generator) -> Array:
    """A column of vertebrae with discs, pedicles and spinous processes."""
    at = y / rng.uniform(0.085, 0.1) + rng.random()
    d = np.abs(at - np.round(at))
    column = 0.17 * _step(across, 0.075, 0.05) * (1 - 0.3 * _step(d, 0.38, 0.47))
    pedicles = _step(_ellipse(across, d, (0.042, 0.0), (0.016, 0.25)), 1.5, 0.2)
    process = _step(_ellipse(x, d, (0.0, 0.35), (0.014, 0.15)), 1.5, 0.2)
    return column + 0.06 * (pedicles + process)


def _airways(x: Array, y: Array) -> Array:
    """The air in trachea and main bronchi."""
    trachea = (x + 0.012 * _step(y, 0.1, 0.28)) / 0.036
    bronchi = (np.abs(x + 0.01) - np.clip(y - 0.33, 0, None)) / 0.03
    air = 0.22 * _chord(trachea * trachea) * _step(y, 0.37, 0.31)
    return air + 0.16 * _chord(bronchi * bronchi) * _step(y, 0.31, 0.35) * _step(y, 0.48, 0.42)


def _breasts(across: Array, y: Array, rng: np.random.Generator) -> Array:
    """Soft tissue that ends below in a clear line; in about a third of the pictures there is none."""
    bulk = max(0.0, rng.uniform(-0.2, 0.4))
    r2 = _ellipse(across, y, (0.40, 0.66 + 0.25 * bulk), (0.24 + 0.1 * bulk, 0.22 + 0.1 * bulk))
    return 0.7 * bulk * _chord(r2) * _step(y, 0.45, 0.85)


def _stomach(body: _Body, rng: np.random.Generator) -> Array:
    """The bubble of air under the image-right dome of the diaphragm."""
    place = (rng.uniform(0.17, 0.35), body.dome + rng.uniform(0.06, 0.15))
    axes = (rng.uniform(0.06, 0.13), rng.uniform(0.03, 0.07))
    bubble = _chord(_ellipse(body.x, body.y, place, axes, rng.uniform(-0.2, 0.5)))
    return rng.uniform(0.15, 0.4) * bubble * (1 + 0.4 * _noise(rng, body.size, 16))


def _vessels(body: _Body, rng: np.random.Generator) -> Array:
    """Pulmonary vessels: two trees that leave the hila, thinning with every branching."""
    fan = np.tile(np.linspace(-1.35, 1.35, 13), 2) + rng.normal(0, 0.1, 26)
    right = np.arange(26) < 13
    start = rng.normal(0, 0.015, (26, 2)) * (1, 3) + np.where(right[:, None], (-0.12, 0.44), (0.12, 0.41))
    angle = np.where(right, np.pi - fan, fan)
    length = (0.30 + 0.14 * np.abs(np.sin(fan))) * rng.uniform(0.8, 1.2, 26)
    strength = rng.uniform(0.7, 1.3)
    total = np.zeros((body.size, body.size))
    for points, width, thickness in ((40, 0.009, 0.15), (28, 0.0055, 0.11), (18, 0.0035, 0.08)):
        t = np.linspace(0, 1, points)
        heading = angle[:, None] + rng.normal(0, 0.45, (len(angle), 1)) * t
        stride = np.stack((np.cos(heading), np.sin(heading)), -1) * (length / points)[:, None, None]
        path = start[:, None] + np.cumsum(stride, axis=1)
        total += body.lines(
            path, np.broadcast_to(thickness * strength * (1.1 - 0.8 * t), heading.shape), width
        )
        twigs = np.arange(len(angle))[:, None], rng.integers(points // 5, points, (len(angle), 4))
        fork = rng.uniform(0.25, 0.75, twigs[1].shape) * rng.choice((-1.0, 1.0), twigs[1].shape)
        start, angle = path[twigs].reshape(-1, 2), (heading[twigs] + fork).ravel()
        length = (length[:, None] * rng.uniform(0.35, 0.65, fork.shape)).ravel()
    across = np.abs(body.x)
    hila = _ellipse(across, body.y + 0.03 * (body.x > 0), (0.135, 0.45), (0.06, 0.13), -0.3)
    return total + 0.12 * _step(hila, 1.6, 0.0)


def _leads(body: _Body, rng: np.random.Generator) -> Array:
    """Cables that cross the chest to an electrode."""
    total = np.zeros((body.size, body.size))
    t = np.linspace(0, 1, 400)[:, None]
    for _ in range(int(rng.integers(1, 4))):
        end = rng.uniform((-0.45, 0.0), (0.45, 0.9))
        via = rng.uniform((-0.8, -0.3), (0.8, 1.3))
        start = np.array([rng.choice((-1.1, 1.1)), rng.uniform(0.2, 1.4)])
        path = (1 - t) ** 2 * end + 2 * t * (1 - t) * via + t * t * start
        total += body.lines(path, np.full(len(t), 0.16), 0.006)
        total += 0.3 * _step(_ellipse(body.x, body.y, (end[0], end[1]), (0.022, 0.022)), 1.2, 0.8)
    return total


# --------------------------------------------------------------------------------------------- the film


def _expose(attenuation: Array, rng: np.random.Generator, grain: np.random.Generator) -> NDArray[np.uint8]:
    """From line integrals to grey values, (size, size) uint8."""
    size = len(attenuation)
    beam = np.exp(-attenuation)
    beam = _blur(beam, rng.uniform(0.3, 0.6) * size / 224)
    beam += rng.uniform(0.0, 0.25) * _coarse(beam, 6)
    beam *= 1 + 10 ** -rng.uniform(2.0, 3.1) * grain.standard_normal((size, size)) / np.sqrt(beam)
    density = -np.log(np.clip(beam, 1e-4, None))
    # Digital systems even out large differences in favour of detail, some much, some not at all.
    density += rng.uniform(0.0, 0.8) * (density - _coarse(density, 8))
    low, high = np.quantile(density, (0.004, 0.995))
    grey = np.clip((density - low) / (high - low), 0, 1.1) ** rng.uniform(0.6, 1.2)
    black, white = rng.uniform(0, 0.12), rng.uniform(0.8, 1.0)
    grey = black + (white - black) * grey
    if rng.random() < 0.25:
        grey = _collimate(grey, rng)
    if rng.random() < 0.6:
        grey = _mark(grey, rng)
    return np.asarray(np.round(255 * np.clip(grey, 0, 1)), dtype=np.uint8)


def _collimate(grey: Array, rng: np.random.Generator) -> Array:
    """The shadow of the shutters at the borders."""
    at = (np.arange(len(grey)) + 0.5) / len(grey)
    left, right, top, bottom = rng.uniform(-0.04, 0.05, 4)
    turn = rng.normal(0, 0.02)
    u, v = at[None, :] + turn * at[:, None], at[:, None] - turn * at[None, :]
    field = np.minimum(np.minimum(u - left, 1 - right - u), np.minimum(v - top, 1 - bottom - v))
    return 0.03 + (grey - 0.03) * _step(field, -0.004, 0.004)


_LETTERS = {
    Side.IMAGE_LEFT: (
        (0, 1),
        (0, 0),
        (0.5, 0),
        (0.65, 0.12),
        (0.65, 0.38),
        (0.5, 0.5),
        (0, 0.5),
        (0.3, 0.5),
        (0.7, 1),
    ),
    Side.IMAGE_RIGHT: ((0, 0), (0, 1), (0.6, 1)),
}
"""The strokes of R and L, in a unit square: the patient's right is at the image's left."""


def _mark(grey: Array, rng: np.random.Generator) -> Array:
    """The letter of lead that names the side."""
    size = len(grey)
    side = Side.IMAGE_LEFT if rng.random() < 0.7 else Side.IMAGE_RIGHT
    height, inset, down = rng.uniform(0.035, 0.06), rng.uniform(0.04, 0.15), rng.uniform(0.03, 0.2)
    corner = np.array([inset if side is Side.IMAGE_LEFT else 1 - inset - 0.7 * height, down])
    strokes = np.array(_LETTERS[side], dtype=np.float64)
    t = np.linspace(0, 1, 30, endpoint=False)[:, None]
    path = (strokes[:-1, None] * (1 - t) + strokes[1:, None] * t).reshape(-1, 2)
    length = np.repeat(np.linalg.norm(np.diff(strokes, axis=0), axis=1) / len(t), len(t))
    ink = _splat((corner + height * path) * size, 0.01 * size**2 * height * length, size)
    return grey + (0.97 - grey) * np.clip(_blur(ink, max(0.45, 0.003 * size)), 0, 1)
