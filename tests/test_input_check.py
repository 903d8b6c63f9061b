"""What the model itself says of a picture: X-rays pass, others are refused as by their tags."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import sgseg
from helpers import sgseg_command
from sgseg.batch import predict_files
from sgseg.data import Case, phantom
from sgseg.errors import NotApplicableError
from sgseg.evaluation import examine
from sgseg.imaging import ChestXray
from sgseg.inference import OnnxRuntime, Predictor
from sgseg.inference.runtime import read_card
from sgseg.reports import Guidance
from sgseg.weights import SHIPPED

torch = pytest.importorskip("torch", reason="making an artefact needs torch: pip install 'sgseg[train]'")

from sgseg.export import export, largest_difference  # noqa: E402
from sgseg.training import input_check, networks  # noqa: E402
from sgseg.training.input_check import InputCheck, averages, twin  # noqa: E402
from sgseg.training.runtime import TorchRuntime  # noqa: E402

SIZE = read_card(SHIPPED)["size"]
SEEDS = range(2_000, 2_100)
_MESSAGE = "unlike the X-rays that the model knows"


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)


def page() -> np.ndarray:
    image = Image.new("L", (300, 400), 255)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=15)
    for y in range(10, 390, 20):
        draw.text((10, y), "no chest is to be seen on this page", 0, font)
    return np.asarray(image)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network with a check that was fitted on phantoms."""
    player = OnnxRuntime(SHIPPED)
    rng = np.random.default_rng(0)
    squares = [phantom.draw(seed, SIZE).pixels for seed in SEEDS]
    check = InputCheck.fitted(averages(player, [*squares, *(twin(s, rng) for s in squares)]), components=40)
    others = averages(player, [twin(phantom.draw(seed, SIZE).pixels, rng) for seed in range(3_000, 3_030)])
    limit = 1.3 * float(check.distance(others).max())
    folder = tmp_path_factory.mktemp("checked")
    network = networks.load(networks.recipe(SHIPPED), SHIPPED / "model.safetensors")
    card = json.loads((SHIPPED / "model.json").read_text()) | {"input_check": {"limit": limit}}
    return export(network, folder, card, SIZE, check)


@pytest.fixture(scope="module")
def predictor(artefact: Path) -> Predictor:
    return sgseg.load(artefact)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A phantom, noise and a page of text, none of them with any tags."""
    paths = [tmp_path / f"{name}.png" for name in ("xray", "noise", "page")]
    for path, pixels in zip(paths, (phantom.draw(1).pixels, noise(), page()), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def test_the_distance_of_a_point_is_that_of_probabilistic_pca() -> None:
    """By the covariance that Tipping & Bishop's model has, inverted as a whole."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 3
    check = InputCheck.fitted(x, components=5)
    standard = ((x - x.mean(0)) / x.std(0)).double()
    variances, axes = torch.linalg.eigh(standard.T @ standard / len(x))
    variances[:-5] = variances[:-5].mean()
    inverse = axes @ torch.diag(1 / variances) @ axes.T
    expected = torch.einsum("nd,de,ne->n", standard, inverse, standard).div(12).sqrt()
    torch.testing.assert_close(check.distance(x), expected.float(), rtol=2e-3, atol=2e-3)


def test_a_phantom_is_near_and_noise_and_text_are_far(predictor: Predictor) -> None:
    pictures = [phantom.draw(seed, SIZE).pixels for seed in range(12)]
    near = predictor.encode([ChestXray.from_array(p) for p in pictures]).strangeness
    far = predictor.encode([ChestXray.from_array(p) for p in (noise(), noise(1), page())]).strangeness
    assert near is not None and far is not None
    assert near.shape == (12,) and near.dtype == np.float32
    assert near.max() < 1 < far.min()


def test_the_graph_says_what_the_network_says(artefact: Path) -> None:
    network = networks.load(networks.recipe(artefact), artefact / "model.safetensors")
    onnx = OnnxRuntime(artefact)
    player = TorchRuntime(network, SIZE, onnx.guidance, onnx.identity)
    squares = np.stack([phantom.draw(3, SIZE).pixels, noise()])
    from safetensors.torch import load_file

    state = load_file(artefact / "model.safetensors")
    check = InputCheck(*(state[f"check.{name}"].float() for name in ("mean", "scale", "directions")))
    limit = json.loads((artefact / "model.json").read_text())["input_check"]["limit"]
    expected = check.distance(averages(player, list(squares))).numpy() / limit
    np.testing.assert_allclose(onnx.encode(squares).strangeness, expected, rtol=1e-4)
    assert player.encode(squares).strangeness is None  # a run has no statistics, and refuses nothing
    assert largest_difference(onnx, player, squares) < 1e-3
    assert sum(state[f"check.{name}"].nbytes for name in ("mean", "scale", "directions")) < 300_000


def test_prediction_refuses_unless_forced(predictor: Predictor, files: list[Path]) -> None:
    assert predictor.predict(files[0]).xray.against is None
    for picture in (files[1], str(files[2]), noise()):
        with pytest.raises(NotApplicableError, match=_MESSAGE):
            predictor.predict(picture)
        assert _MESSAGE in str(predictor.predict(picture, force=True).xray.against)


def test_what_was_read_by_force_needs_no_second_force(predictor: Predictor) -> None:
    from dataclasses import replace

    xray = replace(ChestXray.from_array(noise()), against="its Modality is CT")
    assert predictor.predict(xray).xray.against == "its Modality is CT"


def test_files_are_listed_with_the_reason(predictor: Predictor, files: list[Path], tmp_path: Path) -> None:
    results = predict_files(predictor, files, tmp_path / "out", Guidance.NONE)
    assert [Path(entry["image"]).name for entry in results.images] == ["xray.png"]
    assert [Path(entry["image"]).name for entry in results.not_applicable] == ["noise.png", "page.png"]
    assert all(_MESSAGE in entry["reason"] for entry in results.not_applicable)
    assert not (tmp_path / "out" / "noise_mask.png").exists()
    forced = predict_files(predictor, files, tmp_path / "forced", Guidance.NONE, force=True)
    assert len(forced.images) == 3 and not forced.not_applicable
    assert _MESSAGE in forced.images[1]["against"] and forced.images[0]["against"] is None


def test_the_command_names_them_and_leaves_as_for_tags(
    artefact: Path, files: list[Path], tmp_path: Path
) -> None:
    for paths, code in ((files, 0), (files[1:], 1), ([*files[1:], "--force"], 0)):
        out = str(tmp_path / "out")
        done = sgseg_command("predict", *map(str, paths), "--model", str(artefact), "--out", out)
        assert done.returncode == code, done.stderr
        assert (_MESSAGE in done.stderr + done.stdout) is ("--force" not in paths)


def test_evaluation_never_refuses(predictor: Predictor, files: list[Path]) -> None:
    cases = [Case(path.stem, path, None, None, path.stem) for path in files]
    (evaluation,) = examine(predictor, cases, [Guidance.NONE])
    assert len(evaluation.counts) == 3


def test_the_service_answers_as_for_tags(predictor: Predictor, files: list[Path]) -> None:
    pytest.importorskip("fastapi", reason="the service needs fastapi: pip install 'sgseg[serve]'")
    pytest.importorskip("httpx", reason="asking the service needs httpx: pip install 'sgseg[dev]'")
    from fastapi.testclient import TestClient

    from sgseg.serving import create_app

    xray, other, text = (path.read_bytes() for path in files)
    with TestClient(create_app(predictor), raise_server_exceptions=False) as client:

        def ask(content: bytes, **fields: str) -> tuple[int, dict]:
            response = client.post("/v1/predict", files={"image": ("x.png", content)}, data=fields)
            return response.status_code, response.json()

        assert ask(xray)[0] == 200
        for _ in range(2):  # also when the look at it is kept
            status, answer = ask(other)
            assert (status, answer["error"]["code"]) == (422, "not_applicable")
            assert _MESSAGE in answer["error"]["message"] and "x.png" in answer["error"]["message"]
        status, forced = ask(other, force="true")
        assert status == 200 and _MESSAGE in forced["against"]
        by_id = {"image_id": (None, forced["image_id"]), "zones": (None, "none")}
        assert client.post("/v1/predict", files=by_id).status_code == 422
        assert client.post("/v1/predict", files={**by_id, "force": (None, "true")}).status_code == 200
        batch = [("images", (name, content)) for name, content in (("a", xray), ("b", text))]
        good, bad = client.post("/v1/predict/batch", files=batch).json()["results"]
        assert good["against"] is None and bad["error"]["code"] == "not_applicable"


def test_an_artefact_without_statistics_refuses_nothing(artefact: Path, tmp_path: Path) -> None:
    import onnx

    shutil.copytree(artefact, tmp_path / "old")
    graph = onnx.load(tmp_path / "old" / "encode.onnx", load_external_data=False)
    kept = [node for node in graph.graph.output if node.name != "distance"]
    assert len(kept) == len(graph.graph.output) - 1
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    onnx.save(graph, tmp_path / "old" / "encode.onnx")
    card = json.loads((artefact / "model.json").read_text())
    del card["input_check"]
    (tmp_path / "old" / "model.json").write_text(json.dumps(card))
    old = sgseg.load(tmp_path / "old")
    assert old.encode([ChestXray.from_array(noise())]).strangeness is None
    assert old.predict(noise()).xray.against is None


def test_the_limit_is_chosen_on_valid_and_its_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom.write_dataset(tmp_path / "data", {"train": 30, "valid": 6}, 5_000)
    player = OnnxRuntime(SHIPPED)
    assert input_check.choose(player, tmp_path / "data", None) is None, "too few X-rays to know what is usual"
    monkeypatch.setattr(input_check, "FEWEST", 20)
    chosen = input_check.choose(player, tmp_path / "data", tmp_path / "data")
    assert chosen is not None
    card = chosen.card
    assert card["fitted_on"] == {"data": 30, "negatives": 30, "phantoms": 100}
    assert set(card["largest_distance"]) == {
        f"{name}: {kind}" for name in ("data", "negatives") for kind in ("valid", "valid, altered")
    }
    assert card["limit"] == pytest.approx(card["margin"] * max(card["largest_distance"].values()), abs=2e-3)


def test_a_twin_is_another_picture_of_the_same_size() -> None:
    square = phantom.draw(1).pixels
    twins = [twin(square, np.random.default_rng(seed)) for seed in (0, *range(12))]
    assert all(t.shape == square.shape and t.dtype == np.uint8 for t in twins)
    assert np.array_equal(twins[0], twins[1]) and not np.array_equal(twins[0], twins[2])
    assert np.median([np.corrcoef(t.ravel(), square.ravel())[0, 1] for t in twins]) > 0.5


def test_the_shipped_model_refuses_what_is_no_xray() -> None:
    from sgseg.batch import SEEDS as SHOWN

    predictor = sgseg.load()
    for seed in SHOWN:
        assert predictor.predict(phantom.draw(seed, 512).pixels).xray.against is None
    for pixels in (noise(), page()):
        with pytest.raises(NotApplicableError, match="unlike"):
            predictor.predict(pixels)


def test_the_shipped_model_knows_real_xrays(qata_root: Path) -> None:
    from sgseg.data import read_cases
    from sgseg.imaging import read

    real = [read(case.image) for case in read_cases(qata_root, "valid")[::60]]
    strangeness = sgseg.load().encode(real).strangeness
    assert strangeness is not None and strangeness.max() < 1
