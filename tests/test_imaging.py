"""Reading X-rays: twins of one picture must look alike to the network, bad files must say what is wrong."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from helpers import png_header
from sgseg.errors import ImageError
from sgseg.imaging import SUFFIXES, Box, ChestXray, Hanging, fit, fit_mask, read, restore
from sgseg.imaging.geometry import content_box
from sgseg.imaging.polarity import MARGIN, thumbnail

SIZE = 64


def chest(height: int = 150, width: int = 130) -> NDArray[np.uint8]:
    """A crude frontal X-ray, bones bright: air, trunk, spine, heart, two dark lungs with ribs."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    greys = np.where((np.abs(x) < 0.95) & (y > -0.75 + 0.4 * x**2), 0.7, 0.1)
    lungs = ((np.abs(x) - 0.45) / 0.33) ** 2 + ((y + 0.05) / 0.65) ** 2 < 1
    greys[lungs] = 0.25 + 0.05 * np.sin(25 * y[lungs])
    greys[np.abs(x) < 0.12] = 0.85
    greys[((x - 0.15) / 0.3) ** 2 + ((y - 0.35) / 0.3) ** 2 < 1] = 0.8
    noise = np.random.default_rng(0).normal(0, 0.01, greys.shape)
    return np.rint(np.clip(greys + noise, 0, 1) * 255).astype(np.uint8)


CHEST = chest()


def standardised(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """As networks see it."""
    return (image - image.mean()) / image.std()


def assert_alike(xray: ChestXray, other: ChestXray, within: float = 0.02) -> None:
    """The same to the network, up to the rounding to 8 bits."""
    difference = standardised(fit(xray, SIZE)) - standardised(fit(other, SIZE))
    assert np.abs(difference).max() < within


@pytest.fixture
def reference() -> ChestXray:
    return ChestXray.from_array(CHEST)


def test_plain_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(CHEST).save(path)
    xray = read(str(path))
    assert xray.pixels.dtype == np.float32
    np.testing.assert_array_equal(xray.pixels, CHEST.astype(np.float32) / 255)
    assert xray.content == Box(0, 0, *CHEST.shape)
    assert (xray.path, xray.inverted, xray.laterality) == (path, False, "assumed")
    assert (xray.pixel_spacing, xray.view) == (None, None)
    with pytest.raises(ValueError, match="read-only"):
        xray.pixels[0, 0] = 1


def _palette(image: Image.Image) -> Image.Image:
    return image.convert("P")


def _cut_out(image: Image.Image) -> Image.Image:
    """Transparent, with nonsense under what cannot be seen: padding of 20 columns at the left."""
    rgba = Image.new("RGBA", (image.width + 20, image.height), (200, 30, 90, 0))
    rgba.paste(image.convert("RGBA"), (20, 0))
    return rgba


TWINS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "l.png": lambda image: image,
    "l.bmp": lambda image: image,
    "l.tiff": lambda image: image,
    "rgb.png": lambda image: image.convert("RGB"),
    "rgba.png": lambda image: image.convert("RGBA"),
    "la.png": lambda image: image.convert("LA"),
    "p.png": _palette,
    "cutout.png": _cut_out,
    "cmyk.tif": lambda image: image.convert("CMYK"),
    "rgb.webp": lambda image: image.convert("RGB"),
}


@pytest.mark.parametrize("name", TWINS)
def test_formats_and_modes(tmp_path: Path, reference: ChestXray, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    TWINS[name](Image.fromarray(CHEST)).save(tmp_path / name, **options)
    np.testing.assert_array_equal(fit(read(tmp_path / name), SIZE), fit(reference, SIZE))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(tmp_path: Path, reference: ChestXray, mode: str) -> None:
    Image.fromarray(CHEST).convert(mode).save(tmp_path / "a.JPG", quality=95)
    assert_alike(read(tmp_path / "a.JPG"), reference, within=0.2)


DEEP: dict[str, NDArray[np.generic]] = {
    "12-in-16.png": CHEST.astype(np.uint16) * 16 + 7,
    "12-in-16.tif": CHEST.astype(np.uint16) * 16,
    "big-endian.tif": (CHEST.astype(np.uint16) * 256).astype(">u2"),
    "16.png": CHEST.astype(np.uint16) * 257,
    "int32.tif": CHEST.astype(np.int32) * 100 - 1024,
    "float.tif": CHEST.astype(np.float32) / 255,
    "hounsfield.tif": CHEST.astype(np.float32) * 10 - 1000,
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_twins(tmp_path: Path, reference: ChestXray, name: str) -> None:
    Image.fromarray(DEEP[name]).save(tmp_path / name)
    xray = read(tmp_path / name)
    assert_alike(xray, reference)
    assert (xray.pixels.min(), xray.pixels.max()) == (0, 1)


def test_hot_pixels_do_not_eat_the_contrast(reference: ChestXray) -> None:
    deep = CHEST.astype(np.uint16) * 16
    deep[10, 10] = 65535
    difference = standardised(fit(ChestXray.from_array(deep), 150)) - standardised(fit(reference, 150))
    assert np.median(np.abs(difference)) < 0.05


def test_marker_brighter_than_bone_is_kept(reference: ChestXray) -> None:
    marked = CHEST.copy()
    marked[5:9, 5:9] = 255
    assert_alike(ChestXray.from_array(marked.astype(np.uint16) * 16), ChestXray.from_array(marked))


def test_border_of_an_extreme_value_does_not_eat_the_contrast(reference: ChestXray) -> None:
    deep = np.pad(CHEST.astype(np.uint16) * 16, 20, constant_values=65535)
    assert_alike(ChestXray.from_array(deep), reference)


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(chest(400, 400)).convert("1").save(tmp_path / "a.png")
    assert set(np.unique(read(tmp_path / "a.png").pixels)) == {0, 1}


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_arrays(reference: ChestXray, dtype: type[np.generic]) -> None:
    assert_alike(ChestXray.from_array(CHEST.astype(dtype)), reference)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("scale", [np.uint8(1), np.uint16(257), np.float32(1 / 255)])
def test_colour_arrays(reference: ChestXray, channels: int, scale: np.generic) -> None:
    colour = np.stack([CHEST] * channels, -1)
    colour[..., 3:] = 255
    assert_alike(ChestXray.from_array(colour * scale), reference)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_negative_is_turned_round(reference: ChestXray, depth: type[np.generic]) -> None:
    xray = ChestXray.from_array((255 - CHEST).astype(depth))
    assert xray.inverted and not reference.inverted
    assert_alike(xray, reference)


def test_negative_of_8_bits_comes_back_exactly(reference: ChestXray) -> None:
    np.testing.assert_array_equal(fit(ChestXray.from_array(255 - CHEST), 150), fit(reference, 150))


def test_polarity_is_even_handed() -> None:
    """No bias: a negative scores the opposite, a mirror image the same; scale and offset do not matter."""
    picture = chest(160, 128) / np.float32(255)
    weights = np.load(str(files("sgseg.imaging") / "polarity.npy"))
    assert weights.shape == (256,) and weights.dtype == np.float32
    score = thumbnail(picture) @ weights
    assert score > MARGIN
    for twin, sign in ((1 - picture, -1), (picture[:, ::-1], 1), (picture * 7 - 3, 1)):
        assert thumbnail(twin) @ weights == pytest.approx(sign * score, rel=1e-3)


def test_polarity_fit_finds_the_direction() -> None:
    training = pytest.importorskip("sgseg.training.polarity")
    direction = np.zeros((16, 16), dtype=np.float32)
    direction[:, 4:12] = 1
    noise = np.random.default_rng(0).normal(0, 1, (500, 256)).astype(np.float32)
    weights = training.fitted(direction.ravel() + noise, np.ones(500))
    np.testing.assert_allclose(weights.reshape(16, 16), weights.reshape(16, 16)[:, ::-1], atol=1e-6)
    assert np.corrcoef(weights, direction.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("inverted", [False, True])
def test_borders_are_taken_off(tmp_path: Path, reference: ChestXray, grey: int, inverted: bool) -> None:
    picture = 255 - CHEST if inverted else CHEST
    Image.fromarray(np.pad(picture, ((30, 5), (0, 40)), constant_values=grey)).save(tmp_path / "a.png")
    xray = read(tmp_path / "a.png")
    assert xray.content == Box(30, 0, 180, 130)
    assert xray.inverted is inverted
    np.testing.assert_array_equal(fit(xray, SIZE), fit(reference, SIZE))


def test_borders_of_different_greys_within_a_frame() -> None:
    picture = np.pad(CHEST, ((0, 0), (12, 12)), constant_values=0)
    picture = np.pad(picture, ((9, 9), (0, 0)), constant_values=255)
    picture = np.pad(picture, 1, constant_values=60)
    assert content_box(picture / np.float32(255)) == Box(10, 13, 160, 143)


def test_border_with_a_small_marker() -> None:
    picture = np.pad(CHEST, ((0, 0), (40, 0)), constant_values=0)
    picture[20:23, 10:30] = 255
    assert content_box(picture / np.float32(255)) == Box(0, 40, 150, 170)


def test_border_with_jpeg_noise(tmp_path: Path) -> None:
    picture = np.pad(chest(400, 400), ((0, 0), (80, 80)), constant_values=0)
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=75)
    content = read(tmp_path / "a.jpg").content
    assert (content.top, content.bottom) == (0, 400)
    assert content.left == pytest.approx(80, abs=8) and content.left <= 80
    assert content.right == pytest.approx(480, abs=8) and content.right >= 480


def test_no_edge_gives_up_more_than_two_fifths() -> None:
    pixels = np.zeros((100, 100), dtype=np.float32)
    pixels[70:, 80:] = CHEST[:30, :20] / 255
    assert content_box(pixels) == Box(40, 40, 100, 100)


def test_smooth_shading_is_no_border() -> None:
    shaded = np.repeat(np.linspace(0, 1, 400, dtype=np.float32)[:, None], 300, axis=1)
    box = content_box(shaded)
    assert box.height > 360 and box.width == 300


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a16.png"])
def test_exif_orientation(tmp_path: Path, name: str, orientation: int) -> None:
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(CHEST.astype(np.uint16) * 16 if "16" in name else CHEST)
    stored = image.transpose(turn[orientation]) if orientation in turn else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / name, exif=exif)
    assert_alike(read(tmp_path / name), ChestXray.from_array(CHEST), within=0.5 if "jpg" in name else 0.02)


def test_fit_keeps_a_square_of_the_right_size() -> None:
    square = chest(224, 224)
    np.testing.assert_array_equal(fit(ChestXray.from_array(square), 224), square)


@pytest.mark.parametrize(("height", "width"), [(300, 200), (64, 64), (40, 90), (501, 333)])
def test_geometry_there_and_back(height: int, width: int) -> None:
    """A blob keeps its centre and extent to a fraction of a pixel of the coarser grid."""
    y, x = np.mgrid[:height, :width]
    blob = ((y - 0.3 * height) / (0.12 * height)) ** 2 + ((x - 0.7 * width) / (0.2 * width)) ** 2 < 1
    picture = chest(height, width)
    padding = ((20, 0), (7, 33))
    mask = np.pad(blob, padding)
    xray = ChestXray.from_array(np.pad(picture, padding))
    assert xray.content == Box(20, 7, 20 + height, 7 + width)

    square = fit_mask(mask, xray.content, SIZE)
    assert square.shape == (SIZE, SIZE) and square.dtype == np.bool_
    back = restore(square.astype(np.float32), xray)
    assert back.shape == xray.pixels.shape and back.dtype == np.float32
    assert back.min() >= 0 and back.max() <= 1
    outside = np.ones_like(mask)
    outside[xray.content.slices] = False
    assert not back[outside].any()

    for axis, side in enumerate((height, width)):
        centre = np.average(np.nonzero(mask)[axis])
        assert np.average(np.indices(back.shape)[axis], weights=back) == pytest.approx(
            centre, abs=0.25 + side / 600
        )
    found = back >= 0.5
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.95


def test_mask_and_picture_share_their_geometry() -> None:
    """The mask of the bright pixels, fitted, is the bright pixels of the fitted picture."""
    mask = np.zeros((150, 130), dtype=bool)
    mask[37:90, 20:71] = True
    xray = ChestXray(mask.astype(np.float32), Box(3, 5, 149, 122))
    np.testing.assert_array_equal(fit_mask(mask, xray.content, SIZE), fit(xray, SIZE) >= 128)


def test_restore_of_a_square_without_borders_is_the_same() -> None:
    probability = np.random.default_rng(0).random((224, 224), dtype=np.float32)
    np.testing.assert_array_equal(restore(probability, ChestXray.from_array(chest(224, 224))), probability)


@pytest.mark.parametrize(
    "hanging", [Hanging(), Hanging(mirror=True), Hanging(transpose=True, upside_down=True)]
)
@pytest.mark.parametrize(("height", "width"), [(700, 611), (257, 900), (90, 100)])
def test_restore_in_bands_is_as_in_one_go(height: int, width: int, hanging: Hanging) -> None:
    probability = np.random.default_rng(0).random((224, 224), dtype=np.float32)
    xray = ChestXray(np.zeros((height, width), np.float32), Box(0, 0, height, width), hanging=hanging)
    restored = hanging.hung(restore(probability, xray))
    whole = Image.fromarray(probability).resize(restored.shape[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(restored, whole, atol=1e-5)


@given(
    hanging=st.builds(Hanging, st.booleans(), st.booleans(), st.booleans()),
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)),
)
def test_hung_and_stored_undo_each_other(hanging: Hanging, array: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(hanging.stored(hanging.hung(array)), array)
    np.testing.assert_array_equal(hanging.hung(hanging.stored(array)), array)


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def _flipped_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _saved(
    image: Image.Image, path: Path, spoil: Callable[[Path], None] | None = None, **options: object
) -> None:
    image.save(path, **options)
    if spoil:
        spoil(path)


CHEST_IMAGE = Image.fromarray(CHEST)

BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.png": (lambda path: None, "does not exist"),
    "folder.png": (lambda path: path.mkdir(), "is a folder"),
    "empty.png": (lambda path: path.touch(), "empty"),
    "text.png": (lambda path: path.write_text("a letter, not a picture"), "not an image"),
    "scan.dcm": (lambda path: path.write_bytes(b"anything"), "not an image; give DICOM"),
    "cut.png": (lambda path: _saved(CHEST_IMAGE, path, _cut), "damaged"),
    "cut.jpg": (lambda path: _saved(CHEST_IMAGE, path, _cut), "damaged"),
    "cut.bmp": (lambda path: _saved(CHEST_IMAGE, path, _cut), "damaged"),
    "cut.tif": (lambda path: _saved(CHEST_IMAGE, path, _cut), "damaged"),
    "cut.webp": (lambda path: _saved(CHEST_IMAGE, path, _cut), "damaged"),
    "crc.png": (lambda path: _saved(CHEST_IMAGE, path, _flipped_byte), "damaged"),
    "signature.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "damaged|not an image"),
    "bomb.png": (lambda path: path.write_bytes(png_header(20_000, 20_000)), "too large"),
    "large.png": (lambda path: path.write_bytes(png_header(11_000, 10_000)), "11000×10000.*too large"),
    "pages.tif": (
        lambda path: _saved(CHEST_IMAGE, path, save_all=True, append_images=[CHEST_IMAGE] * 2),
        "3 pictures",
    ),
    "film.gif": (
        lambda path: _saved(CHEST_IMAGE, path, save_all=True, append_images=[Image.fromarray(255 - CHEST)]),
        "2 pictures",
    ),
    "blank.png": (lambda path: _saved(Image.new("L", (100, 100), 77), path), "uniform"),
    "blank.tif": (lambda path: _saved(Image.new("F", (100, 100), 7.5), path), "uniform"),
    "clear.png": (lambda path: _saved(Image.new("RGBA", (100, 100), (9, 200, 9, 0)), path), "uniform"),
    "tiny.png": (lambda path: _saved(Image.fromarray(CHEST[:31]), path), "130×31.*at least 32×32"),
    "nan.tif": (lambda path: _saved(Image.fromarray(np.full((50, 50), np.nan, np.float32)), path), "NaN"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BAD)
def test_bad_files_say_what_is_wrong(tmp_path: Path, name: str) -> None:
    make, says = BAD[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(ImageError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    CHEST_IMAGE.save(path)

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ImageError, match=r"a\.png.*permissions"):
        read(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_part_of_a_file_is_refused_unless_it_has_every_pixel(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    CHEST_IMAGE.resize((48, 48)).save(path)
    data, pixels = path.read_bytes(), read(path).pixels
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 50)):
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(read(path).pixels, pixels)
        except ImageError:
            refused += 1
    assert refused >= 48


def test_pillow_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(9_500, 10_000))
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with pytest.raises(ImageError):
        read(tmp_path / "a.png")
    assert limit == Image.MAX_IMAGE_PIXELS
    assert list(warnings.filters) == filters


BAD_ARRAYS: dict[str, tuple[NDArray[np.generic], str]] = {
    "one dimension": (np.zeros(100), "shape"),
    "a stack": (np.zeros((5, 64, 64)), "shape"),
    "two channels": (np.zeros((64, 64, 2)), "shape"),
    "empty": (np.zeros((0, 64)), "at least"),
    "nan": (np.where(CHEST > 200, np.nan, CHEST), "NaN"),
    "infinite": (np.where(CHEST > 200, np.inf, CHEST), "infinite"),
    "beyond float32": (CHEST * 1e300, "large"),
    "constant": (np.full((64, 64), 5), "uniform"),
    "complex": (CHEST * 1j, "complex"),
    "text": (CHEST.astype(str), "type"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(name: str) -> None:
    array, says = BAD_ARRAYS[name]
    with pytest.raises(ImageError, match=says):
        ChestXray.from_array(array)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_qata(qata_root: Path, split: str) -> None:
    """Real pictures: none is turned, its negative is, and no mask is cut off with a border."""
    paths = sorted((qata_root / "images" / split / "images").glob("*.png"))[::40]
    assert paths
    found = 0
    for path in paths:
        xray = read(path)
        assert not xray.inverted, path.name
        with Image.open(path) as image:
            greys = np.asarray(image)
        whole = xray.content == (0, 0, *greys.shape)
        if whole:
            np.testing.assert_array_equal(fit(xray, 224), greys)
        with Image.open(path.parent.parent / "masks" / f"mask_{path.name}") as image:
            mask = np.asarray(image) > 127
        assert mask[xray.content.slices].sum() >= 0.98 * mask.sum(), path.name
        negative = ChestXray.from_array(255 - greys)
        assert negative.content == xray.content
        found += negative.inverted
    assert found / len(paths) > 0.97


def test_healthy_are_not_turned(healthy_root: Path) -> None:
    names = json.loads((healthy_root / "split.json").read_text())["valid"]
    assert names
    assert not any(read(healthy_root / "images" / name).inverted for name in names)
