"""Checkpoints of the authors' released code: read safely, converted completely, numerically the same.

`data/released_sgseg.txt` lists the tensors of the released SGSeg, names and shapes; LanGuideMedSeg has those
without a detector. `data/released_outputs.json` holds what the authors' own code (with ultralytics 8.1.0)
gives for the weights and inputs that are computed here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import sys
import types
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sgseg import convert  # noqa: E402
from sgseg.anatomy import N_ZONESETS, Laterality, ZoneSet  # noqa: E402
from sgseg.cli import app  # noqa: E402
from sgseg.errors import ConfigError  # noqa: E402
from sgseg.models import SGSeg  # noqa: E402
from sgseg.models.sgseg.rtdetr import hgnetv2_l  # noqa: E402
from sgseg.reports import write  # noqa: E402
from sgseg.training import config as configs  # noqa: E402

DATA = Path(__file__).parent / "data"
SCALE = "decoder16.guide_layer.scale"


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released SGSeg's tensors; {a,b} in a line stands for either."""
    shapes = {}
    for line in (DATA / "released_sgseg.txt").read_text().splitlines():
        name, _, shape = line.partition("  ")
        for choice in itertools.product(*(part.split(",") for part in re.split(r"[{}]", name))):
            shapes["".join(choice)] = tuple(int(n) for n in shape.split("x") if n)
    return shapes


def released_weights() -> dict[str, Tensor]:
    """Weights that are the same everywhere and let the signal live through all layers."""
    shapes = released_shapes().items()
    weights = {name: _weights(name, shape) for name, shape in shapes if not name.endswith("_pos.pe")}
    bert = "text_encoder.model."
    weights[f"{bert}cls.predictions.decoder.weight"] = weights[
        f"{bert}bert.embeddings.word_embeddings.weight"
    ]
    weights[f"{bert}cls.predictions.decoder.bias"] = weights[f"{bert}cls.predictions.bias"]
    return weights


def _weights(name: str, shape: tuple[int, ...]) -> Tensor:
    random = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if name.endswith("running_var"):
        return 1 + 0.1 * random.abs()
    if "bbox_head" in name or "sampling_offsets" in name:
        return 0.05 * random
    if len(shape) > 1:
        gain = 2.0 if len(shape) == 4 else 1.0
        return random * math.sqrt(gain / math.prod(shape[1:]))
    return (1.0 if name.endswith(("weight", "scale", "layer_scale_parameter")) else 0.0) + 0.1 * random


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Two images (2, 1, 224, 224) of waves, token ids and attention mask of two reports, both (2, 24)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 224), torch.linspace(0, 1, 224), indexing="ij")
    images = torch.stack([torch.sin(9 * x + 20 * y * y), torch.cos(25 * x * y) + torch.sin(7 * y)])[:, None]
    ids = (torch.arange(48).reshape(2, 24) * 577) % 30_000
    return images, ids, torch.ones_like(ids)


def sparse(without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """A state dict of full shape whose tensors take no memory."""
    shapes = released_shapes().items()
    return {name: torch.zeros(()).expand(s) for name, s in shapes if not name.startswith(without or ("?",))}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub folder with a vocabulary; and for this test the network has one tensor only."""

    def build(_: object) -> nn.Module:
        network = nn.Module()
        network.register_parameter("scale", nn.Parameter(torch.zeros(())))
        for name in ("guide", "0", "stages", "decoder"):
            outer = nn.Module()
            outer.add_module(name, network)
            network = outer
        return network

    monkeypatch.setattr(convert, "build", build)
    folder = tmp_path / "hub" / "BiomedVLP-CXR-BERT-specialized"
    folder.mkdir(parents=True)
    reports = " ".join(write(ZoneSet(index), Laterality.IMAGE) for index in range(N_ZONESETS)).lower()
    words = sorted(set(re.findall(r"\w+|[.,]", reports)))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    return tmp_path / "hub"


# --- names


def test_every_tensor_of_sgseg_has_its_place() -> None:
    conversion = convert.translate(sparse(), Path("x"))
    assert (conversion.source, conversion.missing) == ("SGSeg", ())
    assert len(conversion.tensors) == 1453
    assert len(conversion.unused) == 29 and "SGSeg has no such" not in conversion.unused.values()


def test_languidemedseg_has_no_lerg() -> None:
    conversion = convert.translate(sparse(without=("detector.",)), Path("x"))
    assert (conversion.source, conversion.missing) == ("LanGuideMedSeg", ())
    assert {name.split(".")[0] for name in conversion.tensors} == {"vision", "text", "decoder"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("encoder.model.encoder.stages.2.layers.8.pwconv1.weight", "vision.encoder.stages.2.layers.8."),
        ("text_encoder.model.bert.encoder.layer.11.output.dense.bias", "text.bert.encoder.layer.11.output."),
        ("decoder8.guide_layer.text_project.0.weight", "decoder.stages.1.guide.mix.weight"),
        ("decoder4.guide_layer.text_project.2.bias", "decoder.stages.2.guide.project.bias"),
        (
            "decoder16.decoder.conv_block.conv1.conv.weight",
            "decoder.stages.0.up.conv_block.conv1.conv.weight",
        ),
        ("detector.model.backbone.hgblock_4.m.5.conv2.bn.bias", "stages.2.blocks.1.layers.5.conv2.normal"),
        ("detector.model.backbone.hgblock_6.ec.conv.weight", "stages.3.blocks.0.aggregation.1.convolution."),
        ("detector.model.encoder.ccfm.fusion_2.conv_reduce.bn.weight", "model.encoder_input_proj.0.1.weight"),
        (
            "detector.model.encoder.ccfm.fusion_4.repc.m.2.conv1.bn.bias",
            "pan_blocks.1.bottlenecks.2.conv1.norm",
        ),
        (
            "detector.model.rtdetr_decoder.decoder.layers.3.norm2.bias",
            "layers.3.encoder_attn_layer_norm.bias",
        ),
        ("detector.model.rtdetr_decoder.dec_bbox_head.5.layers.2.bias", "decoder.bbox_embed.5.layers.2.bias"),
        ("detector.fc.weight", "lerg.classify.weight"),
    ],
)
def test_names(theirs: str, ours: str) -> None:
    origins = convert.translate(sparse(), Path("x")).origins
    (name,) = (name for name, origin in origins.items() if origin == theirs)
    assert ours in name


def test_queries_keys_and_values_are_taken_apart_in_order() -> None:
    name = "detector.model.rtdetr_decoder.decoder.layers.0.self_attn.in_proj_bias"
    tensors = convert.translate(sparse() | {name: torch.arange(768.0)}, Path("x")).tensors
    for i, letter in enumerate("qkv"):
        part = tensors[f"lerg.detector.model.decoder.layers.0.self_attn.{letter}_proj.bias"]
        torch.testing.assert_close(part, torch.arange(256.0) + 256 * i)


# --- numbers


@pytest.mark.parametrize("source", ["SGSeg", "LanGuideMedSeg"])
def test_the_converted_network_gives_what_the_authors_code_gives(source: str) -> None:
    weights = released_weights()
    if source == "LanGuideMedSeg":
        weights = {name: t for name, t in weights.items() if not name.startswith("detector.")}
    network = SGSeg(detector=hgnetv2_l(), lerg=source == "SGSeg").eval()
    left = network.load_state_dict(convert.translate(weights, Path("x")).tensors, strict=False)
    assert not left.unexpected_keys
    images, ids, mask = inputs()
    with torch.inference_mode():
        encoded = network.encode(images)
        masks = network.decode_text(encoded.features, ids, mask).sigmoid()
    expected = json.loads((DATA / "released_outputs.json").read_text())
    torch.testing.assert_close(masks[:, 0, 3::16, 3::16], torch.tensor(expected["masks"]), atol=1e-4, rtol=0)
    if source == "SGSeg":
        zones = encoded.zone_logits.sigmoid()
        torch.testing.assert_close(zones, torch.tensor(expected["zones"]), atol=1e-4, rtol=0)


# --- what does not fit


def test_missing_unknown_and_misshapen_tensors_are_told() -> None:
    state = sparse() | {"out.conv.conv.bias": torch.zeros(2), "text_encoder.model.x": torch.zeros(1)}
    state["text_encoder.model.bert.embeddings.position_ids"] = torch.arange(512)[None]  # transformers < 4.31
    del state["detector.agg.query"]
    conversion = convert.translate(state, Path("x"))
    assert set(conversion.missing) == {"decoder.out.conv.conv.bias", "lerg.aggregate.queries"}
    assert conversion.unused["out.conv.conv.bias"] == "its shape is (2,), SGSeg's (1,)"
    assert conversion.unused["text_encoder.model.x"] == "SGSeg has no such"
    assert "counted" in conversion.unused["text_encoder.model.bert.embeddings.position_ids"]


def test_an_incomplete_checkpoint_leaves_the_report_alone(small: Path, tmp_path: Path) -> None:
    torch.save({"decoder16.guide_layer.other": torch.zeros(1)}, tmp_path / "half.pt")
    with pytest.raises(ConfigError, match=r"half\.pt lacks 1 tensors of LanGuideMedSeg, decoder\.stages\.0"):
        convert.convert(tmp_path / "half.pt", tmp_path / "out", small)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["conversion.json"]
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert report["missing"] == ["decoder.stages.0.guide.scale"]


# --- files


def test_a_lightning_checkpoint_becomes_a_run(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hyper-parameters are of classes that are not installed here."""
    utils = types.ModuleType("utils.config")
    node = type("CfgNode", (dict,), {"__module__": "utils.config"})
    utils.CfgNode = node  # type: ignore[attr-defined]
    with monkeypatch.context() as authors:
        authors.setitem(sys.modules, "utils", types.ModuleType("utils"))
        authors.setitem(sys.modules, "utils.config", utils)
        torch.save(
            {
                "epoch": 7,
                "state_dict": {f"model.{SCALE}": torch.tensor(0.25)},
                "hyper_parameters": {
                    "args": node(lr=3e-4, inner=node(a=[1])),
                    "more": argparse.Namespace(b=2),
                },
                "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.8)}},
            },
            tmp_path / "a.ckpt",
        )
    out = tmp_path / "runs" / "out"
    convert.convert(tmp_path / "a.ckpt", out, small)
    weights = load_file(out / "weights.safetensors")
    assert weights["decoder.stages.0.guide.scale"] == 0.25
    assert weights["report_table.input_ids"].shape == (64, 24)
    config = configs.load(out / "config.yaml")
    assert (config.model, config.network.lerg, config.network.freeze_text) == ("sgseg", False, True)
    report = json.loads((out / "conversion.json").read_text())
    assert report["mapped"] == {"decoder.stages.0.guide.scale": SCALE}
    with pytest.raises(ConfigError, match="choose another --out"):
        convert.convert(tmp_path / "a.ckpt", out, small)


class _Code:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, left: Path) -> None:
        self.left = left

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.left),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    path, left = tmp_path / "evil.ckpt", tmp_path / "left"
    torch.save({"state_dict": {}, "x": _Code(left)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ConfigError, match=r"evil\.ckpt holds .*mkdir, which could run code"):
        convert.read_checkpoint(path)
    assert not left.exists()


def _wrong_files(folder: Path) -> Iterator[tuple[str, str]]:
    (folder / "text.ckpt").write_text("not a checkpoint at all")
    yield "text.ckpt", "damaged, or not a checkpoint"
    (folder / "empty.ckpt").touch()
    yield "empty.ckpt", "damaged, or not a checkpoint"
    torch.save({SCALE: torch.randn(4096)}, folder / "whole.ckpt")
    whole = (folder / "whole.ckpt").read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 30):
        (folder / f"{size}.ckpt").write_bytes(whole[:size])
        yield f"{size}.ckpt", "damaged, or not a checkpoint"
    torch.save([torch.zeros(2)], folder / "list.ckpt")
    yield "list.ckpt", "holds no state dict"
    torch.save({"epoch": 3}, folder / "none.ckpt")
    yield "none.ckpt", "holds no state dict"
    torch.save({"layer.weight": torch.zeros(2)}, folder / "other.ckpt")
    yield "other.ckpt", "not a checkpoint of SGSeg or LanGuideMedSeg"
    yield "nowhere.ckpt", "there is no file"


def test_wrong_files_are_named(tmp_path: Path) -> None:
    for name, message in _wrong_files(tmp_path):
        with pytest.raises(ConfigError, match=message) as caught:
            convert.convert(tmp_path / name, tmp_path / "out")
        assert str(tmp_path / name) in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_without_the_vocabulary_the_cure_is_told(small: Path, tmp_path: Path) -> None:
    torch.save({SCALE: torch.tensor(0.5)}, tmp_path / "a.pt")
    (vocabulary,) = small.rglob("vocab.txt")
    for spoil in (lambda: vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nlung"), vocabulary.unlink):
        spoil()
        with pytest.raises(ConfigError, match=rf"vocab\.txt from https://huggingface\.co/\S+ into {small}"):
            convert.convert(tmp_path / "a.pt", tmp_path / "out", small)
        assert not (tmp_path / "out").exists()


def test_the_command_says_loudly_that_there_is_no_lerg(small: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    torch.save({SCALE: torch.tensor(0.5)}, tmp_path / "a.pt")
    arguments = [str(tmp_path / "a.pt"), "--out", str(tmp_path / "out"), "--hub", str(small)]
    done = CliRunner().invoke(app, ["convert", *arguments])
    assert done.exit_code == 0
    assert "decoder" in done.stdout and "sgseg evaluate" in done.stdout
    assert "HAS NO LERG" in done.stderr
