"""The HTTP service: what it answers, what it refuses, and that nothing a client sends harms it."""

from __future__ import annotations

import base64
import gc
import io
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image

import sgseg
from helpers import COMMAND, from_run_lengths, listening, png_header
from sgseg.anatomy import ZONES, Laterality, ZoneSet
from sgseg.data import phantom
from sgseg.formats import run_lengths
from sgseg.imaging import Box, Hanging
from sgseg.inference import Encoded, Identity, Predictor
from sgseg.reports import Guidance, parse, write

pytest.importorskip("fastapi", reason="the service needs fastapi: pip install 'sgseg[serve]'")
httpx = pytest.importorskip("httpx", reason="asking the service needs httpx: pip install 'sgseg[dev]'")

from fastapi.testclient import TestClient  # noqa: E402

from sgseg.serving import Limits, create_app, schemas  # noqa: E402
from sgseg.serving.engine import Look, Looks  # noqa: E402


class Watched:
    """A runtime that counts what it is asked, and can be made to wait."""

    def __init__(self) -> None:
        self._runtime = sgseg.load(threads=1).runtime
        self.identity: Identity = self._runtime.identity
        self.size: int = self._runtime.size
        self.guidance: Guidance = self._runtime.guidance
        self.writes_reports: bool = self._runtime.writes_reports
        self.finding_threshold: float = self._runtime.finding_threshold
        self.encoded: list[int] = []
        self.decoded: list[int] = []
        self.free = threading.Event()
        self.free.set()
        self.asked = threading.Event()

    def encode(self, images: np.ndarray[Any, Any]) -> Encoded:
        self.asked.set()
        assert self.free.wait(30)
        self.encoded.append(len(images))
        return self._runtime.encode(images)

    def decode(self, features: tuple[Any, ...], reports: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.decoded.append(len(reports))
        return self._runtime.decode(features, reports)


@pytest.fixture(scope="module")
def runtime() -> Watched:
    return Watched()


@pytest.fixture(scope="module")
def client(runtime: Watched) -> Iterator[TestClient]:
    with TestClient(create_app(Predictor(runtime)), raise_server_exceptions=False) as client:
        yield client


@contextmanager
def serving(runtime: Watched, api_key: str | None = None, **limits: Any) -> Iterator[TestClient]:
    app = create_app(Predictor(runtime), Limits(**limits), api_key)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def encoded(pixels: np.ndarray[Any, Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, kind, **options)
    return file.getvalue()


def xray(seed: int) -> bytes:
    return encoded(phantom.draw(seed).pixels)


def upload(content: bytes, name: str = "x.png") -> dict[str, Any]:
    return {"image": (name, content)}


def ask(client: TestClient, content: bytes, **fields: str) -> Any:
    return client.post("/v1/predict", files=upload(content), data=fields)


def mask_of(answer: dict[str, Any]) -> np.ndarray[Any, Any]:
    mask = answer["mask"]
    if mask["encoding"] == "png":
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(mask["data"])))) > 127
    return from_run_lengths(mask)


# --- what it answers


def test_the_answer_is_that_of_the_predictor(client: TestClient) -> None:
    answer = ask(client, xray(1)).json()
    expected = sgseg.load().predict(phantom.draw(1).pixels)
    assert np.array_equal(mask_of(answer), expected.mask)
    assert answer["report"] == expected.report
    assert list(answer["zone_probabilities"].values()) == pytest.approx(expected.zone_probabilities)
    assert list(answer["zone_probabilities"]) == [zone.name(Laterality.PATIENT) for zone in ZONES]
    assert answer["model"] == expected.model._asdict()
    assert answer["guidance"] == expected.guidance.value
    assert answer["laterality_source"] == "assumed"


def test_the_finding_is_the_models_whatever_report_guides(
    client: TestClient, runtime: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sgseg.load().predict(phantom.draw(1).pixels).finding_probability
    for threshold, finding in ((expected - 0.01, True), (expected + 0.01, False)):
        monkeypatch.setattr(runtime, "finding_threshold", threshold)
        for guide in ({}, {"zones": "none"}, {"zones": "lower right"}, {"threshold": "1"}):
            answer = ask(client, xray(1), **guide).json()
            assert answer["finding"] is finding
            assert answer["finding_probability"] == pytest.approx(expected, abs=1e-4)
        assert mask_of(ask(client, xray(1)).json()).any(), "no finding empties no mask"


def test_without_a_report_the_service_says_null() -> None:
    silent = replace(sgseg.load().predict(phantom.draw(1).pixels), zone_probabilities=(float("nan"),) * 6)
    last = (Laterality.PATIENT, schemas.MaskEncoding.RLE, schemas.Orientation.FILE, False, False)
    document = schemas.answer(silent, "", "", *last).model_dump(mode="json")
    assert (document["finding"], document["finding_probability"]) == (None, None)


def test_a_mask_comes_as_png_run_lengths_or_picture(client: TestClient) -> None:
    png, rle = (mask_of(ask(client, xray(7), mask_encoding=kind).json()) for kind in ("png", "rle"))
    picture = client.post("/v1/predict", files=upload(xray(7)), headers={"Accept": "image/png"})
    assert picture.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(picture.content))
    assert image.mode == "L" and set(np.unique(np.asarray(image))) == {0, 255}
    assert png.any() and np.array_equal(png, rle) and np.array_equal(png, np.asarray(image) > 127)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_run_lengths_are_those_of_coco(array: np.ndarray[Any, Any]) -> None:
    counts = run_lengths(array)
    assert np.array_equal(from_run_lengths({"size": array.shape, "counts": counts}), array)
    assert 0 not in counts[1:]


def test_probability_and_threshold(client: TestClient) -> None:
    answer = ask(client, xray(1), threshold="0.2", probability="true").json()
    probability = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["probability_png"]))))
    expected = sgseg.load(threshold=0.2).predict(phantom.draw(1).pixels)
    assert answer["threshold"] == 0.2
    assert np.array_equal(mask_of(answer), expected.mask)
    assert np.array_equal(probability, np.rint(expected.probability * 255))


def test_attention_comes_if_asked_for(client: TestClient) -> None:
    answer = ask(client, xray(1), attention="true").json()
    expected = sgseg.load().predict(phantom.draw(1).pixels)
    assert answer["attention"]["box"] == [0, 0, 224, 224]
    assert list(answer["attention"]["maps"]) == list(answer["zone_probabilities"])
    maps = np.array(list(answer["attention"]["maps"].values()))
    np.testing.assert_allclose(maps, expected.attention, atol=1e-5)
    assert ask(client, xray(1)).json()["attention"] is None


def test_attention_lies_in_the_masks_rows_and_columns() -> None:
    """A file that is turned and has a border, in either orientation: the cells, looked up on the map."""
    prediction = sgseg.load().predict(phantom.draw(1).pixels)
    content, hanging = Box(40, 10, 300, 180), Hanging(transpose=True, mirror=True)
    seen = replace(prediction.xray, pixels=np.zeros((310, 200), np.float32), content=content, hanging=hanging)
    prediction = replace(prediction, xray=seen, probability=np.zeros((310, 200), np.float32))
    zone = ZONES[1]
    on_xray = prediction.looked_at(zone)
    for orientation in schemas.Orientation:
        shown = schemas.answer(
            prediction, "", "", Laterality.PATIENT, schemas.MaskEncoding.PNG, orientation, False, True
        ).attention
        top, left, bottom, right = shown.box
        grid = np.array(shown.maps[zone.name(Laterality.PATIENT)])
        rows, columns = (
            np.floor(start + (np.arange(cells) + 0.5) * (end - start) / cells).astype(int)
            for start, end, cells in ((top, bottom, grid.shape[0]), (left, right, grid.shape[1]))
        )
        found = schemas.turned(on_xray, prediction, orientation)[np.ix_(rows, columns)]
        assert np.corrcoef(grid.ravel(), found.ravel())[0, 1] > 0.99
    lateral = replace(prediction, xray=replace(seen, laterality="none"))
    last = (Laterality.PATIENT, schemas.MaskEncoding.PNG, schemas.Orientation.FILE, False, True)
    assert schemas.answer(lateral, "", "", *last).attention is None


@pytest.mark.parametrize("laterality", list(Laterality))
@pytest.mark.parametrize("index", [0, 1, 0b100_010, 63])
def test_words_and_zones_guide_in_either_laterality(
    client: TestClient, laterality: Laterality, index: int
) -> None:
    zones = ZoneSet(index)
    expected = sgseg.load().predict(phantom.draw(1).pixels, report=zones)
    report = write(zones, laterality)
    names = [zone.name(laterality) for zone in zones]
    for fields in ({"report": report}, {"zones": ", ".join(names) or "none"}):
        answer = ask(client, xray(1), laterality=laterality.value, **fields).json()
        assert (answer["report"], answer["zones"], answer["guidance"]) == (report, names, "text")
        assert np.array_equal(mask_of(answer), expected.mask)


@pytest.mark.parametrize("guidance", ["none", "self", "self-soft"])
def test_guidance(client: TestClient, guidance: str) -> None:
    answer = ask(client, xray(1), guidance=guidance).json()
    expected = sgseg.load().predict(phantom.draw(1).pixels, guidance=guidance)
    assert np.array_equal(mask_of(answer), expected.mask)


def test_another_report_on_the_same_image_runs_only_the_decoder(client: TestClient, runtime: Watched) -> None:
    content = xray(1001)
    before = len(runtime.encoded)
    first = ask(client, content).json()
    assert len(runtime.encoded) == before + 1
    decoded = len(runtime.decoded)
    again = ask(client, content, zones="lower left").json()
    by_id = client.post(
        "/v1/predict", files={"image_id": (None, first["image_id"]), "zones": (None, "lower left")}
    ).json()
    assert len(runtime.encoded) == before + 1, "the image was encoded again"
    assert len(runtime.decoded) == decoded + 2
    assert mask_of(again).tobytes() == mask_of(by_id).tobytes()
    assert again["image_id"] == first["image_id"]


def test_a_picture_is_what_a_person_should_see(client: TestClient) -> None:
    pixels = phantom.draw(3).pixels
    negative = ask(client, encoded(255 - pixels)).json()
    assert negative["inverted"]
    shown = client.get(f"/v1/images/{negative['image_id']}")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.content))), pixels)


def test_a_batch_names_what_fails_and_finishes_the_rest(client: TestClient) -> None:
    images = [
        ("images", (name, content))
        for name, content in (("a.png", xray(1)), ("b.png", b"?"), ("c.png", xray(2)))
    ]
    results = client.post("/v1/predict/batch", files=images, data={"mask_encoding": "rle"}).json()["results"]
    assert [result["name"] for result in results] == ["a.png", "b.png", "c.png"]
    assert results[1]["error"]["code"] == "unsupported_image"
    for result, seed in ((results[0], 1), (results[2], 2)):
        assert np.array_equal(mask_of(result), sgseg.load().predict(phantom.draw(seed).pixels).mask)


def test_examples_are_synthetic_xrays(client: TestClient) -> None:
    examples = client.get("/v1/examples").json()
    assert len(examples) == 5
    picture = Image.open(io.BytesIO(client.get(f"/{examples[0]['url']}").content))
    assert picture.size == (512, 512)


def test_operations(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    ask(client, xray(1))
    text = client.get("/metrics").text
    assert re.search(r'sgseg_requests_total\{route="/v1/predict",status="200"\} \d', text)
    assert "sgseg_encoded_images_total" in text and "sgseg_batch_images_bucket" in text


def test_openapi_page_has_examples_and_every_refusal(client: TestClient) -> None:
    page = client.get("/openapi.json").json()
    post = page["paths"]["/v1/predict"]["post"]
    assert {"400", "401", "404", "413", "415", "422", "429", "503"} <= set(post["responses"])
    answer = page["components"]["schemas"]["Answer"]
    (example,) = answer["examples"]
    assert set(answer["required"]) <= set(example) <= set(answer["properties"])
    assert {"finding", "finding_probability"} <= set(answer["required"])
    assert example["finding_probability"] == max(example["zone_probabilities"].values())
    assert client.get("/docs").status_code == 404, (
        "FastAPI's page of documentation loads scripts from elsewhere"
    )


def test_security_headers_and_no_address_of_another_host(client: TestClient) -> None:
    static = Path(sgseg.__file__).parent / "serving" / "static"
    for path in ["/", *(f"/static/{file.name}" for file in static.iterdir()), "/v1/examples", "/missing"]:
        response = client.get(path)
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'") and "unsafe" not in policy and "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers
    for file in static.iterdir():
        addresses = re.findall(
            r"(?:https?:)?//[\w.]+\.\w+", re.sub(r"(^|\s)//.*", "", file.read_text(), flags=re.M)
        )
        assert set(addresses) <= {"http://www.w3.org"}, file  # the name of SVG's namespace


# --- what it refuses


GOOD = xray(1)
REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "neither": ({"files": {"zones": (None, "none")}}, 422, "invalid_request", "image_id"),
    "both": ({"files": upload(GOOD), "data": {"image_id": "0" * 64}}, 422, "invalid_request", "image_id"),
    "unknown id": ({"files": {"image_id": (None, "0" * 64)}}, 404, "not_found", "send the file"),
    "no id": ({"files": {"image_id": (None, "../../etc/passwd")}}, 422, "invalid_request", "image_id"),
    "json": ({"json": {"image": "x"}}, 415, "unsupported_media_type", "multipart"),
    "urlencoded": ({"data": {"zones": "none"}}, 415, "unsupported_media_type", "multipart"),
    "no body": ({}, 415, "unsupported_media_type", "multipart"),
    "broken multipart": (
        {"content": b"--x\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
        400,
        "malformed_request",
        "",
    ),
    "no image": ({"files": upload(b"a letter")}, 415, "unsupported_image", "x.png is not an image"),
    "empty": ({"files": upload(b"")}, 422, "invalid_image", "x.png is empty"),
    "cut": ({"files": upload(GOOD[: len(GOOD) // 2])}, 422, "invalid_image", "damaged"),
    "uniform": ({"files": upload(encoded(np.zeros((99, 99), np.uint8)))}, 422, "invalid_image", "uniform"),
    "bomb": ({"files": upload(png_header(60_000, 60_000))}, 413, "image_too_large", "too large"),
    "many pixels": ({"files": upload(png_header(5_001, 5_000))}, 413, "image_too_large", "5001×5000"),
    "words": ({"data": {"report": "the liver"}}, 422, "invalid_report", "'liver'"),
    "no side": ({"data": {"report": "upper lung"}}, 422, "invalid_report", "left or right"),
    "zone": ({"data": {"zones": "lower middle"}}, 422, "invalid_report", "lower middle"),
    "words and zones": ({"data": {"zones": "none", "report": "no infection"}}, 422, "invalid_report", "one"),
    "long words": ({"data": {"report": "lung " * 200}}, 422, "invalid_request", "report"),
    "guidance": ({"data": {"guidance": "magic"}}, 422, "invalid_request", "guidance"),
    "text alone": ({"data": {"guidance": "text"}}, 422, "invalid_report", "text"),
    "self and zones": ({"data": {"guidance": "self", "zones": "none"}}, 422, "invalid_report", "self"),
    "threshold": ({"data": {"threshold": "1.5"}}, 422, "invalid_request", "threshold"),
    "nan": ({"data": {"threshold": "nan"}}, 422, "invalid_request", "threshold"),
    "laterality": ({"data": {"laterality": "mine"}}, 422, "invalid_request", "laterality"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_is_wrong(client: TestClient, name: str) -> None:
    request, status, code, says = REFUSED[name]
    if set(request) == {"data"} and name != "urlencoded":
        request = {**request, "files": upload(GOOD)}
    response = client.post("/v1/predict", **request)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), error
    assert says in error["message"] and "\n" not in error["message"]


def test_other_methods_and_paths(client: TestClient) -> None:
    for method, path, status in (
        ("GET", "/v1/predict", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/__init__.py", 404),
        ("GET", "/v1/examples/..%2f..%2fx", 404),
        ("DELETE", "/", 405),
    ):
        response = client.request(method, path)
        assert response.status_code == status, path
        assert response.json()["error"]["message"]


def test_large_requests_are_refused_whatever_their_header_claims(runtime: Watched) -> None:
    with serving(runtime, upload_bytes=20_000, images=2) as client:
        large = ask(client, bytes(30_000))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")

        def chunks() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
            yield from (bytes(1_000) for _ in range(100))

        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert client.post("/v1/predict", content=chunks(), headers=kind).status_code == 413
        small = encoded(phantom.draw(1, 64).pixels)
        many = client.post("/v1/predict/batch", files=[("images", ("x.png", small))] * 3)
        assert (many.status_code, "up to 2" in many.text) == (413, True)


def test_the_key_is_asked_for(runtime: Watched) -> None:
    with serving(runtime, api_key="s3cret ü") as client:
        assert [client.get(path).status_code for path in ("/", "/healthz", "/readyz")] == [200] * 3
        for path in ("/metrics", "/v1/examples"):
            assert client.get(path).status_code == 401
        key = "s3cret ü".encode()
        given: list[tuple[dict[str, Any], int]] = [
            ({}, 401),
            ({"X-API-Key": b"s3cret"}, 401),
            ({"X-API-Key": b"\xff\xfe"}, 401),
            ({"Authorization": b"Basic " + key}, 401),
            ({"X-API-Key": key}, 200),
            ({"Authorization": b"Bearer " + key}, 200),
        ]
        for headers, status in given:
            response = client.post("/v1/predict", files=upload(GOOD), headers=headers)
            assert response.status_code == status, headers


def test_a_full_house_is_told_to_wait(runtime: Watched) -> None:
    with serving(runtime, requests=2, seconds=20) as client, ThreadPoolExecutor(2) as pool:
        runtime.free.clear()
        try:
            inside = [pool.submit(ask, client, xray(seed)) for seed in (501, 502)]
            _wait_for(lambda: "sgseg_requests_under_way 2.0" in _metrics(client))
            outside = ask(client, xray(503))
        finally:
            runtime.free.set()
        assert (outside.status_code, outside.json()["error"]["code"]) == (429, "too_many_requests")
        assert outside.headers["retry-after"] == "1"
        assert [future.result().status_code for future in inside] == [200, 200]


def test_a_full_queue_is_told_to_wait(runtime: Watched) -> None:
    with serving(runtime, queue=1, seconds=20) as client, ThreadPoolExecutor(2) as pool:
        runtime.free.clear()
        try:
            runtime.asked.clear()
            first = pool.submit(ask, client, xray(504))
            assert runtime.asked.wait(20)
            second = pool.submit(ask, client, xray(505))
            engine = client.app.state.service.engine  # type: ignore[attr-defined]
            _wait_for(lambda: engine._queue.full())
            third = ask(client, xray(506))
        finally:
            runtime.free.set()
        assert (third.status_code, third.json()["error"]["code"]) == (429, "queue_full")
        assert [first.result().status_code, second.result().status_code] == [200, 200]


def test_a_batch_that_is_too_much_leaves_nothing_behind(runtime: Watched) -> None:
    with serving(runtime, queue=1, seconds=20) as client, ThreadPoolExecutor(1) as pool:
        before = sum(runtime.encoded)
        runtime.free.clear()
        try:
            runtime.asked.clear()
            first = pool.submit(ask, client, xray(521))
            assert runtime.asked.wait(20)
            files = [("images", (f"{seed}.png", xray(seed))) for seed in range(522, 526)]
            refused = client.post("/v1/predict/batch", files=files)
        finally:
            runtime.free.set()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert first.result().status_code == 200
        assert ask(client, xray(526)).status_code == 200
    assert sum(runtime.encoded) - before == 2, "the refused batch was worked on"


def test_large_answers_are_made_one_after_another(runtime: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, under_way, most = threading.Lock(), 0, []

    def watched(*arguments: Any) -> Any:
        nonlocal under_way
        with lock:
            under_way += 1
            most.append(under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return schemas.answer(*arguments)

    monkeypatch.setattr("sgseg.serving.app.answer", watched)
    for pixels, expected in ((1, {1}), (2 * 224**2, {1, 2})):
        most.clear()
        with serving(runtime, answered_pixels=pixels) as client, ThreadPoolExecutor(6) as pool:
            kept = ask(client, xray(530)).json()["image_id"]
            again = {"image_id": (None, kept)}
            answers = [pool.submit(client.post, "/v1/predict", files=again) for _ in range(6)]
            answers += [pool.submit(ask, client, xray(seed)) for seed in range(531, 534)]
            assert {future.result().status_code for future in answers} == {200}
        assert set(most) == expected


def test_what_takes_too_long_is_given_up(runtime: Watched) -> None:
    with serving(runtime, seconds=2) as client:
        runtime.free.clear()
        try:
            late = ask(client, xray(507))
        finally:
            runtime.free.set()
        assert (late.status_code, late.json()["error"]["code"]) == (503, "timeout")
        assert late.headers["retry-after"] == "1"
        time.sleep(0.2)
        assert ask(client, xray(507)).status_code == 200


def test_not_ready_without_the_engine(runtime: Watched) -> None:
    with serving(runtime) as client:
        client.app.state.service.engine.stop()  # type: ignore[attr-defined]
        response = client.get("/readyz")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        assert client.get("/healthz").status_code == 200


def _metrics(client: TestClient) -> str:
    return client.app.state.service.metrics.text().decode()  # type: ignore[attr-defined, no-any-return]


def _wait_for(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


# --- what it keeps


def test_what_is_kept_is_bounded_in_number_and_pixels() -> None:
    predictor = sgseg.load(threads=1)
    from sgseg.imaging import ChestXray

    seen = ChestXray.from_array(phantom.draw(1, 64).pixels)
    look = Look(seen, predictor.encode([seen]))
    looks = Looks(images=3, pixels=10 * 64 * 64)
    for key in "abcd":
        looks.put(key, look)
    assert [looks.get(key) is not None for key in "abcd"] == [False, True, True, True]
    looks.get("b")
    looks.put("e", look)
    assert looks.get("b") is not None and looks.get("c") is None, "the one used last stays"
    large = replace(seen, pixels=np.zeros((9 * 64, 64), np.float32))
    looks.put("f", Look(large, look.encoded))
    assert len(looks) == 2
    looks.put("g", Look(replace(seen, pixels=np.zeros((11 * 64, 64), np.float32)), look.encoded))
    assert len(looks) == 0, "nothing larger than the bound is kept"


def test_an_image_that_is_no_longer_kept_is_asked_for_again(runtime: Watched) -> None:
    with serving(runtime, kept_images=1) as client:
        first = ask(client, xray(1)).json()["image_id"]
        ask(client, xray(2))
        gone = client.post("/v1/predict", files={"image_id": (None, first)})
        assert gone.status_code == 404
        assert client.get(f"/v1/images/{first}").status_code == 404


def test_requests_that_wait_together_are_answered_together(runtime: Watched) -> None:
    with serving(runtime) as client, ThreadPoolExecutor(6) as pool:
        runtime.free.clear()
        before = len(runtime.encoded)
        try:
            runtime.asked.clear()
            futures = [pool.submit(ask, client, xray(600), zones="none")]
            assert runtime.asked.wait(20)
            futures += [pool.submit(ask, client, xray(600 + i % 5), zones="none") for i in range(1, 6)]
            engine = client.app.state.service.engine  # type: ignore[attr-defined]
            _wait_for(lambda: engine._queue.qsize() == 5)
        finally:
            runtime.free.set()
        answers = [future.result().json() for future in futures]
        assert sum(runtime.encoded[before:]) == 5, "the same image twice is encoded once"
        assert max(runtime.encoded[before:]) > 1
    for i, answer in enumerate(answers):
        expected = sgseg.load().predict(phantom.draw(600 + i % 5).pixels, report=ZoneSet())
        assert np.array_equal(mask_of(answer), expected.mask)


# --- DICOM stored turned


TURN = ("F", "R")


@pytest.fixture(scope="module")
def turned() -> tuple[bytes, np.ndarray[Any, Any], np.ndarray[Any, Any], Hanging]:
    """A file stored on its side, the X-ray as it hangs, its mask in the file's rows, and the way between."""
    hanging = Hanging.of(*TURN)
    assert hanging is not None
    hung = phantom.draw(31, 224).pixels[:, 16:208]
    stored = np.ascontiguousarray(hanging.stored(hung))
    mask = hanging.stored(sgseg.load().predict(np.ascontiguousarray(hung)).mask)
    assert mask.any() and mask.shape == stored.shape != hung.shape
    return _dicom(stored, PatientOrientation=list(TURN), ViewPosition="PA"), hung, mask, hanging


def test_masks_have_the_files_rows_unless_asked_otherwise(client: TestClient, turned: Any) -> None:
    content, hung, mask, hanging = turned
    for asked, expected in (({}, mask), ({"orientation": "standard"}, hanging.hung(mask))):
        answer = ask(client, content, **asked).json()
        assert answer["orientation"] == asked.get("orientation", "file")
        assert np.array_equal(mask_of(answer), expected)
        picture = client.post(
            "/v1/predict", files=upload(content), data=asked, headers={"Accept": "image/png"}
        )
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.content))) > 127, expected)
    seen = client.get(f"/v1/images/{answer['image_id']}").content
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen))), hung), "as a person sees it"


def test_a_batch_is_answered_as_single_images_are(client: TestClient, turned: Any) -> None:
    content, _, mask, hanging = turned
    lateral = _dicom(phantom.draw(2).pixels, ViewPosition="LL")
    files = [("images", (name, file)) for name, file in (("a.dcm", content), ("b.dcm", lateral))]
    asked = {"laterality": "image", "orientation": "standard", "zones": "lower left"}
    plain, refused = client.post("/v1/predict/batch", files=files, data=asked).json()["results"]
    assert (plain["laterality"], plain["orientation"], plain["zones"]) == (
        "image",
        "standard",
        ["lower left"],
    )
    assert np.array_equal(mask_of(plain), mask_of(ask(client, content, **asked).json()))
    assert mask_of(plain).shape == hanging.hung(mask).shape
    assert refused["error"]["code"] == "not_applicable"
    forced = client.post("/v1/predict/batch", files=files, data={**asked, "force": "true"}).json()["results"]
    assert forced[1]["against"] == "its view is LL"


# --- malformed inputs


def _dicom(pixels: np.ndarray[Any, Any], **tags: Any) -> bytes:
    """A file of these pixels, (H, W) uint8, with no more tags than it needs, and these."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    (data.Rows, data.Columns), data.Modality, data.SamplesPerPixel = pixels.shape, "CR", 1
    data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored = "MONOCHROME2", 8, 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = pixels.tobytes()
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def _malformed(count: int) -> Iterator[tuple[str, bytes]]:
    """Files that were good once, cut, garbled and blown up, under names that want out of the folder."""
    rng = random.Random(0)
    pixels = phantom.draw(1, 64).pixels
    kinds = {
        kind: encoded(pixels, kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000")
    }
    with suppress(pytest.skip.Exception):
        kinds["DICOM"] = _dicom(phantom.draw(1, 64).pixels)
    names = (
        "../../etc/cron.d/x",
        "C:\\x.png",
        "a\0b.png",
        "x" * 300,
        "",
        "наука.png",
        "`id`.png",
        "%s%n.dcm",
    )
    bomb = zlib.compress(bytes(50_000_000))
    yield (
        "bomb.png",
        png_header(5_000, 5_000)[:-12] + len(bomb).to_bytes(4, "big") + b"IDAT" + bomb + bytes(4),
    )
    for i in range(count - 1):
        good = bytearray(kinds[rng.choice(list(kinds))])
        match i % 4:
            case 0:
                del good[rng.randrange(len(good)) :]
            case 1:
                for _ in range(rng.choice((1, 3, 30))):
                    good[rng.randrange(min(len(good), 400))] = rng.randrange(256)
            case 2:
                at = rng.randrange(min(len(good), 200))
                good[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)))
            case 3:
                at = rng.randrange(len(good))
                good[at:at] = rng.randbytes(rng.choice((1, 100, 5_000)))
        yield rng.choice(names), bytes(good)


def test_malformed_files_harm_nothing(
    runtime: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(runtime, kept_images=4) as client:
        resident = []
        for name, content in _malformed(200):
            response = client.post("/v1/predict", files={"image": (name or "x", content)})
            assert response.status_code in (200, 400, 413, 415, 422), (name, response.text)
            assert response.status_code == 200 or "\n" not in response.json()["error"]["message"]
            resident.append(_resident())
        assert ask(client, GOOD).status_code == 200
        assert client.get("/readyz").status_code == 200
    gc.collect()
    assert _resident() - resident[50] < 60, "megabytes that later files left behind"
    assert not list(tmp_path.iterdir()), "a file was written"


def test_a_large_upload_stays_in_memory(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_the_disk(_: Any) -> None:
        raise AssertionError("an upload went to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", to_the_disk)
    film = Image.fromarray(phantom.draw(1).pixels).resize((1800, 1800))
    assert len(content := encoded(film, "BMP")) > 3_000_000
    assert ask(client, content).status_code == 200


def _resident() -> float:
    """Megabytes of memory of this process; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if statm.exists() else 0.0


def test_openapi_page_holds_for_generated_requests(runtime: Watched) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install 'sgseg[dev]'")
    from hypothesis import HealthCheck, Phase, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    app = create_app(Predictor(runtime))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    for operation in schema.get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(
            max_examples=8,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def holds(case: Any) -> None:
            response = case.call()
            assert response.status_code < 500, response.text
            # No page can say which bytes are an X-ray.
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

        holds()


# --- as a process


def test_many_clients_get_the_answers_of_the_command_line(runtime: Watched, tmp_path: Path) -> None:
    """SGSEG_LOAD_SECONDS makes it longer: 60 is a minute of 32 clients."""
    seconds = float(os.environ.get("SGSEG_LOAD_SECONDS", "5"))
    seeds = range(1, 9)
    for seed in seeds:
        (tmp_path / f"{seed}.png").write_bytes(xray(seed))
    subprocess.run([*COMMAND, "predict", str(tmp_path), "--out", str(tmp_path / "out")], check=True)
    expected = {s: np.asarray(Image.open(tmp_path / "out" / f"{s}_mask.png")) > 127 for s in seeds}
    statuses: list[int] = []
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=url, timeout=60) as http:
            while time.monotonic() < end:
                seed = rng.choice(seeds)
                response = http.post("/v1/predict", files=upload((tmp_path / f"{seed}.png").read_bytes()))
                statuses.append(response.status_code)
                if response.status_code == 200:
                    assert np.array_equal(mask_of(response.json()), expected[seed])

    app = create_app(Predictor(runtime), Limits(requests=24, kept_images=4))
    with listening(app) as url, ThreadPoolExecutor(32) as pool:
        for future in [pool.submit(client, number) for number in range(32)]:
            future.result()
        assert httpx.get(f"{url}/readyz").status_code == 200
    print(
        f"{seconds:g} s, 32 clients: "
        + ", ".join(f"{statuses.count(s)} × {s}" for s in sorted(set(statuses)))
    )
    assert set(statuses) <= {200, 429, 503}
    assert statuses.count(200) > 30


def test_the_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    environment = {**os.environ, "SGSEG_API_KEY": "k"}
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        url = said.split()[2].rstrip(",")
        assert "not for clinical use" in said
        assert httpx.get(f"{url}/readyz").status_code == 200, "it said so before it was true"
        assert "SGSeg" in httpx.get(url).text
        assert httpx.post(f"{url}/v1/predict", files=upload(GOOD)).status_code == 401
        assert (
            httpx.post(f"{url}/v1/predict", files=upload(GOOD), headers={"X-API-Key": "k"}).status_code == 200
        )
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors


def test_without_the_extra_the_command_says_which() -> None:
    code = "import sys; sys.modules['fastapi'] = None; from sgseg.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "serve"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "sgseg[serve]" in done.stderr and "Traceback" not in done.stderr


def test_reports_that_it_writes_can_be_sent_back(client: TestClient) -> None:
    answer = ask(client, xray(2)).json()
    again = ask(client, xray(2), report=answer["report"]).json()
    assert again["zones"] == answer["zones"]
    assert parse(answer["report"], Laterality.PATIENT) == ZoneSet.of(
        zone for zone in ZONES if zone.name(Laterality.PATIENT) in answer["zones"]
    )
