"""The phantom: one seed, one patient; lesions where the zones say, on the side the captions mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgseg.anatomy import N_ZONESETS, ZONES, Laterality, Level, Side, Zone, ZoneSet
from sgseg.data.phantom import OUTSIDE, Phantom, draw, write_dataset, zone_map
from sgseg.errors import DataError
from sgseg.reports import parse

SMALL = 96


def shares(phantom: Phantom) -> np.ndarray:
    """The mask's share of each zone (6,) and, last, of what is outside the lungs."""
    where = zone_map(phantom.seed, len(phantom.mask))
    return np.array([phantom.mask[where == position].mean() for position in (*range(len(ZONES)), OUTSIDE)])


@pytest.mark.parametrize("size", [32, 64, 128, 224])
def test_sizes_and_types(size: int) -> None:
    phantom = draw(3, size)
    assert phantom.pixels.shape == phantom.mask.shape == (size, size)
    assert phantom.pixels.dtype == np.uint8
    assert phantom.mask.dtype == bool
    assert phantom.name == "phantom_000003"


def test_same_seed_same_phantom() -> None:
    first, second = draw(11), draw(11)
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.mask, second.mask)
    assert first.zones == second.zones
    assert not np.array_equal(first.pixels, draw(12).pixels)


def test_same_phantom_on_every_machine() -> None:
    """Change the numbers only if the phantom is meant to look different."""
    phantom = draw(1, 64)
    grey = [[34, 114, 142, 113], [154, 149, 167, 129], [142, 125, 208, 121], [146, 127, 206, 181]]
    assert np.abs(phantom.pixels[::16, ::16].astype(int) - grey).max() <= 1
    assert abs(int(phantom.mask.sum()) - 555) <= 1
    assert phantom.zones.index == 63


def test_another_size_is_the_same_picture() -> None:
    zones = ZoneSet.of([Zone(Side.IMAGE_RIGHT, Level.MIDDLE)])
    large, small = draw(5, 224, zones), draw(5, 56, zones)
    pooled = large.mask.reshape(56, 4, 56, 4).mean((1, 3)) > 0.5
    assert (pooled & small.mask).sum() > 0.8 * (pooled | small.mask).sum()
    grey = large.pixels.reshape(56, 4, 56, 4).mean((1, 3))
    assert np.corrcoef(grey.ravel(), small.pixels.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("index", range(N_ZONESETS))
def test_every_set_of_zones_is_honoured(index: int) -> None:
    zones = ZoneSet(index)
    for seed in (index, 1000 + index):
        phantom = draw(seed, SMALL, zones)
        found = shares(phantom)
        assert phantom.zones == zones
        assert found[-1] == 0, "a lesion outside the lungs"
        for zone in ZONES:
            share = found[zone.position]
            assert share > 0.05 if zone in zones else share == 0, zone


def test_lesions_are_large_enough_to_see() -> None:
    for seed in range(20):
        phantom = draw(seed, SMALL, ZoneSet(N_ZONESETS - 1))
        where = zone_map(seed, SMALL)
        for zone in ZONES:
            lung = np.isin(where, [Zone(zone.side, level).position for level in Level])
            assert (phantom.mask & (where == zone.position)).sum() > 0.015 * lung.sum(), (seed, zone)


def test_no_zones_no_lesion() -> None:
    assert not draw(7, SMALL, ZoneSet()).mask.any()


def test_lesions_are_opacities() -> None:
    """The same patient is brighter under the mask than without the disease, and the same elsewhere."""
    for seed in range(8):
        ill, healthy = draw(seed, SMALL, ZoneSet(N_ZONESETS - 1)), draw(seed, SMALL, ZoneSet())
        gain = ill.pixels.astype(float) - healthy.pixels
        assert gain[ill.mask].mean() > gain[zone_map(seed, SMALL) == OUTSIDE].mean() + 4, seed


@pytest.mark.parametrize("seed", range(5))
def test_right_lower_in_the_patients_words_is_low_at_image_left(seed: int) -> None:
    zones = parse("right lower zone", Laterality.PATIENT)
    rows, columns = np.nonzero(draw(seed, SMALL, zones).mask)
    assert columns.max() < SMALL * 0.55
    assert columns.mean() < SMALL / 2
    assert rows.mean() > SMALL / 2


def test_zones_are_thirds_of_the_lungs_height() -> None:
    where = zone_map(2)
    for side in Side:
        rows = [np.flatnonzero((where == Zone(side, level).position).any(1)) for level in Level]
        heights = [len(r) for r in rows]
        assert max(heights) - min(heights) <= 2
        assert rows[0].max() < rows[1].min() <= rows[1].max() < rows[2].min()
    left = np.nonzero(where == Zone(Side.IMAGE_LEFT, Level.MIDDLE).position)[1]
    right = np.nonzero(where == Zone(Side.IMAGE_RIGHT, Level.MIDDLE).position)[1]
    assert left.max() < right.min()


def test_the_mix_of_zones() -> None:
    drawn = [draw(seed, 32).zones for seed in range(300)]
    assert 0.04 < np.mean([not zones for zones in drawn]) < 0.18
    assert 0.15 < np.mean([len(zones) == 6 for zones in drawn]) < 0.35
    assert len(set(drawn)) > 40


def test_looks_like_an_x_ray() -> None:
    """Lungs darker than the mediastinum between them, bright abdomen, nothing clipped flat."""
    for seed in range(10):
        phantom = draw(seed, SMALL, ZoneSet())
        where = zone_map(seed, SMALL)
        rows, columns = np.nonzero(where != OUTSIDE)
        centre = phantom.pixels[rows.min() : rows.max(), (columns.min() + columns.max()) // 2]
        assert np.median(phantom.pixels[where != OUTSIDE]) + 20 < np.median(centre)
        assert phantom.pixels.std() > 25
        assert (phantom.pixels == 255).mean() < 0.05


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms")
    ticks: list[None] = []
    write_dataset(
        out, {"train": 6, "valid": 3, "test": 2}, seed=40, size=64, progress=lambda: ticks.append(None)
    )
    assert len(ticks) == 11
    return out


def test_dataset_layout(dataset: Path) -> None:
    annotation = json.loads((dataset / "prompts" / "annotation.json").read_text())
    assert {split: len(entries) for split, entries in annotation.items()} == {
        "train": 6,
        "valid": 3,
        "test": 2,
    }
    expected = {"prompts/annotation.json"}
    for split, entries in annotation.items():
        for entry in entries:
            expected |= {
                f"images/{split}/masks/{entry['image_path']}",
                f"images/{split}/images/{entry['image_path'].removeprefix('mask_')}",
            }
    assert {path.relative_to(dataset).as_posix() for path in dataset.rglob("*") if path.is_file()} == expected
    names = [entry["image_path"] for entries in annotation.values() for entry in entries]
    assert names == [f"mask_phantom_{seed:06d}.png" for seed in range(40, 51)]


def test_dataset_says_what_it_shows(dataset: Path) -> None:
    for split, entries in json.loads((dataset / "prompts" / "annotation.json").read_text()).items():
        for entry in entries:
            zones = ZoneSet.from_vector(entry["pseudo_label"])
            assert parse(entry["caption"], Laterality.IMAGE) == zones
            assert entry["infected_area"] == len(zones)
            assert entry["pulmonary_infection"] == len(zones.sides)
            name = entry["image_path"].removeprefix("mask_")
            phantom = draw(int(name.removesuffix(".png").removeprefix("phantom_")), 64)
            image = np.asarray(Image.open(dataset / "images" / split / "images" / name))
            mask = np.asarray(Image.open(dataset / "images" / split / "masks" / entry["image_path"]))
            assert np.array_equal(image, phantom.pixels)
            assert np.array_equal(mask, np.where(phantom.mask, 255, 0))
            assert phantom.zones == zones


def test_dataset_does_not_overwrite(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an empty folder"):
        write_dataset(dataset, {"train": 1}, seed=0, size=64)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not an empty folder"):
        write_dataset(tmp_path / "file", {"train": 1}, seed=0, size=64)


def test_an_interrupted_dataset_does_not_look_complete(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "out", {"train": 2}, seed=0, size=64, progress=interrupt)
    assert not (tmp_path / "out" / "prompts").exists()
