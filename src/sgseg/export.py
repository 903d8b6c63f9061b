"""The bridge from workshop to instrument: a trained network -> the artefact that ONNX Runtime plays.

    model.safetensors   the truth: kernels and matrices as float16, the rest float32
    encode.onnx         uint8 images -> zone probabilities, attention maps, distance from the X-rays of the
                        training (`sgseg.training.input_check`) and decoder features
    decode.onnx         report index and decoder features -> lesion probabilities
    model.json          which model it is, and the hash of the weights

The graphs hold no weights of their own: their initializers are external data that point into
model.safetensors by offset, and are widened to float32 when a session is opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxscript import ir
from onnxscript.optimizer import fold_constants_ir, remove_unused_nodes
from safetensors.torch import save
from torch import Tensor, nn

from sgseg.data import Case, read_cases
from sgseg.errors import ConfigError, SGSegError
from sgseg.evaluation import choose_finding_threshold, examine, pooled
from sgseg.formats import atomic, write_json
from sgseg.imaging import fit, read
from sgseg.inference import OnnxRuntime, Predictor, Runtime
from sgseg.inference.runtime import CARD, DECODE, ENCODE, WEIGHTS, read_card
from sgseg.reports import NO_REPORT, Guidance
from sgseg.training import config as configs
from sgseg.training import input_check, networks
from sgseg.training.input_check import InputCheck
from sgseg.training.module import standardise
from sgseg.training.networks import AnyNetwork
from sgseg.training.pretrained import EFFICIENTNETS, MINILM
from sgseg.training.runtime import TorchRuntime

REPORT_TABLE = "report_table"
"""The projected reports, (65, tokens, dim) float32, stored beside the network's own tensors."""

INPUT_CHECK = "check."
"""How the names of the tensors begin that say what X-rays look like to the network."""

TOLERANCE = 1e-3
"""Largest difference in probability that artefact and network may show."""

_FEATURES = ("features_4", "features_8", "features_16", "features_32")
_OPSET = 18
_CHECKED = 16  # real images on which artefact and network must agree


class _Encode(nn.Module):
    def __init__(self, network: AnyNetwork, check: InputCheck | None) -> None:
        super().__init__()
        self.network = network
        self.check = check

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode(standardise(images[:, None].float() / 255))
        assert encoded.attention is not None  # sgseg-compact has the maps, and nothing else is exported
        distance = () if self.check is None else (self.check(encoded.features),)
        return (encoded.zone_logits.sigmoid(), encoded.attention, *distance, *encoded.features)


class _Decode(nn.Module):
    report_table: Tensor

    def __init__(self, network: AnyNetwork, table: Tensor, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.register_buffer(REPORT_TABLE, table)

    def forward(self, reports: Tensor, *features: Tensor) -> Tensor:
        logits = self.network.decode(features, reports, self.report_table)
        return (logits / self.temperature).sigmoid()[:, 0]


@torch.no_grad()
def export(
    network: AnyNetwork,
    folder: Path,
    card: dict[str, Any],
    size: int = 224,
    check: InputCheck | None = None,
    temperature: float = 1.0,
) -> Path:
    """Writes the artefact of a network.

    Args:
        network: trained; its weights are rounded to what is stored.
        folder: is made if it is not there.
        card: what goes into model.json beside size and hash: name, version, guidance, ….
        size: side of the square images, pixels.
        check: tells X-rays from other pictures, by a limit in the card; without, nothing is refused.
        temperature: by which the logits of masks are divided, so that probabilities mean what they say.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = networks.state(network)
    stored = {name: _narrowed(tensor) for name, tensor in state.items()}
    network.load_state_dict({name: t.to(state[name].dtype) for name, t in stored.items()}, strict=False)
    network.eval()
    stored[REPORT_TABLE] = network.report_encoder()
    encoder = _Encode(network, check)
    stored |= {name: _narrowed(t) for name, t in encoder.state_dict().items() if name.startswith(INPUT_CHECK)}
    blob = save(stored)
    with atomic(folder / WEIGHTS) as temporary:
        temporary.write_bytes(blob)
    features = network.encode(torch.zeros(2, 1, size, size)).features
    images, reports = torch.zeros(2, size, size, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    decoder = _Decode(network, stored[REPORT_TABLE], temperature)
    looks = ["zones", "attention", *(["distance"] if check else []), *_FEATURES]
    graphs = {
        ENCODE: _graph(encoder, [images], ["images"], looks),
        DECODE: _graph(decoder, [reports, *features], ["reports", *_FEATURES], ["probability"]),
    }
    offsets = _offsets(blob)
    for name, graph in graphs.items():
        _point_into(graph, offsets)
        with atomic(folder / name) as temporary:
            temporary.write_bytes(graph.SerializeToString())
    write_json(folder / CARD, {**card, "size": size, "sha256": hashlib.sha256(blob).hexdigest()})
    return folder


def export_run(run: Path, out: Path, data: Path, version: str, choices: Path | None = None) -> Path:
    """Exports a finished run and holds the artefact against the network.

    `valid` chooses the guidance, the temperature of the probabilities, the threshold above which an image has
    a finding, and which pictures are too unlike an X-ray to be predicted. A run that was trained on `valid`
    takes these choices from an artefact that was not.

    Args:
        run: folder of the run.
        out: folder of the artefact.
        data: the data set; its `valid` split is the judge.
        version: of the weights.
        choices: folder of an artefact of the same recipe, for a run that was trained on `valid`.

    Raises:
        SGSegError: artefact and network differ by more than `TOLERANCE` on real images.
        DataError: the data, or the X-rays without a finding that the run was trained on, are not there.
        ConfigError: the run is of another model than `sgseg-compact`: RT-DETR, as transformers builds it,
            cannot be exported for batches of any size; or it was trained on `valid` and there are no
            `choices`, or some of an older version; or there are some and it was not.
    """
    player = TorchRuntime.of_run(run)
    if player.identity.name != "sgseg-compact":
        raise ConfigError(
            f"{run} holds {player.identity.name}; only sgseg-compact has an artefact: use --run {run}"
        )
    config = configs.load(run / "config.yaml")
    made = _choices_made(run, config, choices)
    card: dict[str, Any] = {
        "name": player.identity.name,
        "version": version,
        "guidance": Guidance.NONE.value,
        "parameters": sum(p.numel() for p in player.network.parameters()),
        "config": yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")),
        "run": json.loads((run / "run.json").read_text(encoding="utf-8")),
        "pretrained": [asdict(package) for package in (EFFICIENTNETS[config.network.encoder], MINILM)],
    }
    chosen = input_check.choose(player, data, config.data.negatives)
    if chosen is not None:
        least = made.get("input_check", {}).get("limit", 0.0)
        card["input_check"] = {**chosen.card, "limit": max(chosen.card["limit"], least)}
    cases = read_cases(data, "valid")
    negatives = [] if config.data.negatives is None else read_cases(config.data.negatives, "valid")
    card["calibration"] = made["calibration"] if made else _calibrated(player, cases)
    temperature = card["calibration"]["temperature"]
    check = None if chosen is None else chosen.check
    out.mkdir(parents=True, exist_ok=True)
    # Whoever plays what is in `out` gets all of it, or what was there before.
    with TemporaryDirectory(dir=out, prefix=".sgseg-") as name:
        folder = export(player.network, Path(name), card, player.size, check, temperature)
        artefact = OnnxRuntime(folder)
        weights = networks.load(config, folder / WEIGHTS)
        rounded = TorchRuntime(
            weights, player.size, player.guidance, player.identity, temperature=temperature
        )
        images = np.stack([fit(read(case.image, force=True), player.size) for case in cases[:_CHECKED]])
        difference = largest_difference(artefact, rounded, images)
        if difference > TOLERANCE:
            raise SGSegError(f"artefact and network differ by {difference:.1e}, more than {TOLERANCE:.0e}")
        card |= _taken(made) if made else _chosen(artefact, cases, negatives)
        card["difference"] = difference
        write_json(folder / CARD, {**json.loads((folder / CARD).read_text(encoding="utf-8")), **card})
        for file in (WEIGHTS, ENCODE, DECODE, CARD):
            (folder / file).replace(out / file)
    return out


def _taken(made: dict[str, Any]) -> dict[str, Any]:
    """The choices that another artefact's card made, and whose they are."""
    return {
        **{key: made[key] for key in ("guidance", "finding")},
        "choices": {key: made[key] for key in ("name", "version", "sha256")},
    }


def _choices_made(run: Path, config: configs.Config, choices: Path | None) -> dict[str, Any]:
    """The card whose choices hold for a run that was trained on `valid`; empty for one that was not.

    Raises:
        ConfigError: as in `export_run`.
    """
    if config.data.has_judge:
        if choices is not None:
            raise ConfigError(f"{run} was not trained on valid, which makes the choices; leave out --choices")
        return {}
    if choices is None:
        raise ConfigError(
            f"{run} was trained on valid, which can judge nothing any more; add --choices MODEL, an artefact "
            "of the same recipe without it"
        )
    card = read_card(choices)
    if lacking := [key for key in ("guidance", "calibration", "finding") if key not in card]:
        raise ConfigError(f"{choices} was exported before models had {', '.join(lacking)}; export it again")
    return card


def _calibrated(player: Runtime, cases: Sequence[Case]) -> dict[str, float]:
    """The temperature that suits the masks of these cases, and the calibration error it mends."""
    evaluation = examine(Predictor(player), cases, [Guidance.NONE])[0]
    assert evaluation.reliability is not None  # a model was examined
    temperature = round(evaluation.reliability.temperature(), 3)
    errors = (evaluation.reliability.ece(), evaluation.reliability.ece(temperature))
    return {"temperature": temperature, "ece_before": round(errors[0], 4), "ece": round(errors[1], 4)}


def _chosen(artefact: OnnxRuntime, cases: Sequence[Case], negatives: Sequence[Case]) -> dict[str, Any]:
    """The guidance with the best masks of these cases, and the finding threshold that suits them."""
    text_free = [guidance for guidance in Guidance if guidance is not Guidance.TEXT]
    evaluations = examine(Predictor(artefact), cases, text_free)
    healthy = examine(Predictor(artefact), negatives, [Guidance.NONE])[0] if negatives else None
    dice = {e.name: round(float(pooled(e.counts).dice), 4) for e in evaluations}
    found = evaluations[0].finding_probabilities[evaluations[0].counts.lesion > 0]
    spared = np.empty(0) if healthy is None else healthy.finding_probabilities
    return {
        "guidance": max(dice, key=dice.__getitem__),
        "valid_pooled_dice": dice,
        "finding": choose_finding_threshold(found, spared)._asdict(),
    }


def largest_difference(artefact: OnnxRuntime, network: Runtime, images: NDArray[np.uint8]) -> float:
    """Largest difference in probability, of lesions with and without a report and of zones, and in attention.

    Args:
        artefact, network: the two players.
        images: (B, size, size) uint8.
    """
    looks = [player.encode(images) for player in (artefact, network)]
    differences = [np.abs(looks[0].zones - looks[1].zones).max()]
    if looks[0].attention is not None and looks[1].attention is not None:
        differences.append(np.abs(looks[0].attention - looks[1].attention).max())
    for report in (NO_REPORT, 0, 36):
        reports = np.full(len(images), report, dtype=np.int64)
        a, b = (
            player.decode(look.features, reports)
            for player, look in zip((artefact, network), looks, strict=True)
        )
        differences.append(np.abs(a - b).max())
    return float(max(differences))


def _narrowed(tensor: Tensor) -> Tensor:
    """float16 for kernels and matrices; vectors (variances above all) keep their range."""
    return (
        tensor.half().contiguous() if tensor.is_floating_point() and tensor.ndim > 1 else tensor.contiguous()
    )


def _graph(
    module: nn.Module, example: Sequence[Tensor], inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    """An ONNX graph whose initializers keep the network's names and whose batch is free.

    Raises:
        SGSegError: the exporter baked the example's batch into the graph.
    """
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(example),
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes if len(example) == 1 else (shapes[0], shapes[1:]),
            opset_version=_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    _simplify(program.model)
    graph = program.model_proto
    for node in (*graph.graph.input, *graph.graph.output):
        if node.type.tensor_type.shape.dim[0].dim_param != "batch":
            raise SGSegError(f"the exported graph has a fixed batch at {node.name}; the exporter changed")
    return graph


def _simplify(model: ir.Model) -> None:
    """Works out shapes and other small constants now; weights stay as they are, under their names."""

    def touches_weights(node: ir.Node) -> bool:
        return any(value is not None and value.is_initializer() for value in node.inputs)

    fold_constants_ir(
        model, onnx_shape_inference=True, should_fold=lambda n: False if touches_weights(n) else None
    )
    remove_unused_nodes(model)
    for node in model.graph:
        node.metadata_props.clear()  # stack traces of the exporter, half of the file


def _offsets(blob: bytes) -> dict[str, tuple[str, int, int]]:
    """dtype, offset and length of each tensor in a safetensors file."""
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + length])
    start = 8 + length
    return {
        name: (
            entry["dtype"],
            start + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _point_into(model: onnx.ModelProto, offsets: dict[str, tuple[str, int, int]]) -> None:
    """Replaces the network's initializers by external data in the safetensors file; float16 is widened."""
    casts = []
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix("network.")
        if name not in offsets:
            continue
        dtype, offset, length = offsets[name]
        if dtype == "F16":
            casts.append(
                helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=TensorProto.FLOAT)
            )
            tensor.name = f"{tensor.name}.half"
            tensor.data_type = TensorProto.FLOAT16
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("external_data")
        for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
