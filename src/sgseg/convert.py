"""Checkpoints of the authors' released code -> weights of this package's `SGSeg`.

Read are those of SGSeg (ShuchangYe-bib/SGSeg) and of LanGuideMedSeg (Junelin2333/LanGuideMedSeg-MICCAI2023),
as Lightning writes them or as bare state dicts. Nothing in a file is executed.

OUT/weights.safetensors   the tensors under our names
OUT/config.yaml           so that OUT plays like a training run
OUT/conversion.json       which tensor became which, which are missing, which are unused and why
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor
from torch.serialization import safe_globals
from transformers import BertTokenizer

from sgseg.anatomy import Laterality
from sgseg.errors import ConfigError
from sgseg.formats import atomic, write_json
from sgseg.reports import all_reports
from sgseg.training import hub
from sgseg.training.config import Config, Network, Stage
from sgseg.training.networks import WEIGHTS, build, tokenize

Source = Literal["SGSeg", "LanGuideMedSeg"]
"""Whose code wrote the checkpoint."""

REPORT = "conversion.json"

_Rules = tuple[tuple[str, str], ...]

_STAGE: _Rules = (
    (r"^guide_layer\.text_project\.0\.", "guide.mix."),
    (r"^guide_layer\.text_project\.2\.", "guide.project."),
    (r"^guide_layer\.", "guide."),
    (r"^decoder\.", "up."),
)
_BACKBONE: _Rules = (
    (r"^hgstem\.", "embedder."),
    *((rf"^dwconv_{i}\.", f"encoder.stages.{i}.downsample.") for i in (1, 2, 3)),
    *(
        (rf"^hgblock_{i}\.", f"encoder.stages.{stage}.blocks.{block}.")
        for i, (stage, block) in enumerate(((0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0)), start=1)
    ),
    (r"\.m\.(\d+)\.", r".layers.\1."),
    (r"\.sc\.", ".aggregation.0."),
    (r"\.ec\.", ".aggregation.1."),
    (r"\.conv\.", ".convolution."),
    (r"\.bn\.", ".normalization."),
)
_ENCODER: _Rules = (
    (r"^aifi\.ma\.out_proj\.", "aifi.self_attn.o_proj."),
    (r"^aifi\.ma\.", "aifi.self_attn."),
    (r"^aifi\.fc", "aifi.mlp.fc"),
    (r"^aifi\.norm1\.", "aifi.self_attn_layer_norm."),
    (r"^aifi\.norm2\.", "aifi.final_layer_norm."),
    (r"^aifi\.", "encoder.aifi.0.layers.0."),
    (r"^conv\.", "encoder_input_proj.2."),
    (r"^ccfm\.fusion_1\.conv_reduce\.", "encoder_input_proj.1."),
    (r"^ccfm\.fusion_2\.conv_reduce\.", "encoder_input_proj.0."),
    (r"^(encoder_input_proj\.\d)\.conv\.", r"\1.0."),
    (r"^(encoder_input_proj\.\d)\.bn\.", r"\1.1."),
    *((rf"^ccfm\.fusion_{i + 1}\.conv_standard\.", f"encoder.lateral_convs.{i}.") for i in (0, 1)),
    *((rf"^ccfm\.fusion_{i + 1}\.repc\.", f"encoder.fpn_blocks.{i}.") for i in (0, 1)),
    *((rf"^ccfm\.fusion_{i + 3}\.conv\.", f"encoder.downsample_convs.{i}.") for i in (0, 1)),
    *((rf"^ccfm\.fusion_{i + 3}\.repc\.", f"encoder.pan_blocks.{i}.") for i in (0, 1)),
    (r"\.cv(\d)\.", r".conv\1."),
    (r"\.m\.(\d)\.", r".bottlenecks.\1."),
    (r"\.bn\.", ".norm."),
)
_DECODER: _Rules = (
    (r"^input_proj\.", "decoder_input_proj."),
    (r"\.self_attn\.out_proj\.", ".self_attn.o_proj."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.linear(\d)\.", r".mlp.fc\1."),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"\.norm2\.", ".encoder_attn_layer_norm."),
    (r"\.norm3\.", ".final_layer_norm."),
    (r"^query_pos_head\.", "decoder.query_pos_head."),
    (r"^dec_bbox_head\.", "decoder.bbox_embed."),
)
_PARTS: dict[str, tuple[str, _Rules]] = {
    "encoder.model.": ("vision.", ()),
    "text_encoder.model.": ("text.", ()),
    "decoder16.": ("decoder.stages.0.", _STAGE),
    "decoder8.": ("decoder.stages.1.", _STAGE),
    "decoder4.": ("decoder.stages.2.", _STAGE),
    "decoder1.": ("decoder.upsample.", ()),
    "out.": ("decoder.out.", ()),
    "detector.model.backbone.": ("lerg.detector.model.backbone.model.", _BACKBONE),
    "detector.model.encoder.": ("lerg.detector.model.", _ENCODER),
    "detector.model.rtdetr_decoder.": ("lerg.detector.model.", _DECODER),
    "detector.agg.query": ("lerg.aggregate.queries", ()),
    "detector.fc.": ("lerg.classify.", ()),
}
"""The parts of the released networks, by prefix: our prefix, and what to rename in what follows it."""

_UNUSED: _Rules = (
    (r"^(text_)?encoder\.project_head\.", "the released code computes this projection and ignores it"),
    (r"_pos\.pe$", "position encodings are computed"),
    (r"\.position_ids$", "positions are counted"),
    (r"\.dec_score_head\.", "LERG reads the detector's hidden states, not its classes"),
    (r"\.denoising_class_embed\.", "denoising needs boxes to learn from"),
    (r"\.cls\.predictions\.decoder\.", "these are the word embeddings and the head's bias once more"),
)
_ELSEWHERE = re.compile(r"^report_table\.|^text\.cls\.predictions\.decoder\.")
"""Ours that no checkpoint needs to hold: the reports' tokens are made here, the others are tied."""

# What Lightning and the authors' options pickle beside tensors. The second of a pair is the name in the
# file; what is made for it is an ordinary dictionary, the named class is neither needed nor imported.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    (OrderedDict, "utils.config.CfgNode"),
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (OrderedDict, "lightning.fabric.utilities.data.AttributeDict"),
    (OrderedDict, "lightning_fabric.utilities.data.AttributeDict"),
]


@dataclass(frozen=True)
class Conversion:
    """What became of a checkpoint's tensors.

    Attributes:
        source: whose code wrote it.
        tensors: ours by name.
        origins: our name -> the checkpoint's.
        missing: our names for which the checkpoint has nothing.
        unused: the checkpoint's names -> why nothing became of them.
    """

    source: Source
    tensors: dict[str, Tensor]
    origins: dict[str, str]
    missing: tuple[str, ...]
    unused: dict[str, str]


def convert(checkpoint: Path, out: Path, hub_folder: Path | None = None) -> Conversion:
    """Converts a checkpoint into a folder that plays like a training run.

    Args:
        checkpoint: Lightning's `.ckpt`, or a bare state dict.
        out: a new folder.
        hub_folder: where CXR-BERT's vocabulary is; by default the hub itself and the user's cache of it.

    Raises:
        ConfigError: the folder is already there; the file is no checkpoint of the released codes; CXR-BERT's
            vocabulary is not to be had; or tensors are missing, and then only `conversion.json` is written.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is there already; choose another --out")
    conversion = translate(read_checkpoint(checkpoint), checkpoint)
    reports = _report_table(hub_folder)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / REPORT, _report(conversion, checkpoint))
    if conversion.missing:
        raise ConfigError(
            f"{checkpoint} lacks {len(conversion.missing)} tensors of {conversion.source}, "
            f"{conversion.missing[0]} first; {out / REPORT} lists them. It is incomplete or another network's"
        )
    with atomic(out / WEIGHTS) as temporary:
        temporary.write_bytes(save(conversion.tensors | reports))
    with atomic(out / "config.yaml") as temporary:
        temporary.write_text(_config(conversion.source).dump(), encoding="utf-8")
    return conversion


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The network's tensors in a checkpoint, under the names of the released code.

    Raises:
        ConfigError: it is not a checkpoint, is damaged, or holds what could run code.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        with safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged file makes torch's readers raise anything
        raise ConfigError(f"{path} is damaged, or not a checkpoint of PyTorch; get it again") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ConfigError(f"{path} holds no state dict; give Lightning's .ckpt or a state dict")
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


def translate(state: Mapping[str, Tensor], checkpoint: Path) -> Conversion:
    """Finds the place of every tensor in our network; shapes must agree.

    Args:
        state: of `read_checkpoint`.
        checkpoint: its file, for messages.

    Raises:
        ConfigError: the tensors are not those of SGSeg or LanGuideMedSeg.
    """
    if not any(name.startswith("decoder16.guide_layer.") for name in state):
        raise ConfigError(
            f"{checkpoint} is not a checkpoint of SGSeg or LanGuideMedSeg: it has no tensor "
            "decoder16.guide_layer.…"
        )
    source: Source = "SGSeg" if any(name.startswith("detector.") for name in state) else "LanGuideMedSeg"
    with torch.device("meta"):  # names and shapes without values
        own = build(_config(source)).state_dict()
    wanted = [name for name in own if not _ELSEWHERE.search(name)]
    tensors: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    unused: dict[str, str] = {}
    for origin, tensor in state.items():
        for name, part in _places(origin, tensor).items():
            if name not in wanted:
                unused[origin] = next(
                    (why for p, why in _UNUSED if re.search(p, origin)), "SGSeg has no such"
                )
            elif own[name].shape != part.shape:
                unused[origin] = f"its shape is {tuple(part.shape)}, SGSeg's {tuple(own[name].shape)}"
            else:
                tensors[name], origins[name] = _independent(part, own[name].dtype), origin
    return Conversion(source, tensors, origins, tuple(n for n in wanted if n not in tensors), unused)


def _places(origin: str, tensor: Tensor) -> dict[str, Tensor]:
    """Where a tensor goes: one place, or three for queries, keys and values that we keep apart."""
    name = _renamed(origin)
    if name == "lerg.aggregate.queries":
        return {name: tensor[None]}
    if name.startswith("lerg.") and ".in_proj_" in name:
        parts = zip("qkv", tensor.tensor_split(3), strict=True)
        return {name.replace("in_proj_", f"{letter}_proj."): part for letter, part in parts}
    return {name: tensor}


def _renamed(origin: str) -> str:
    for prefix, (target, rules) in _PARTS.items():
        if origin.startswith(prefix):
            rest = origin.removeprefix(prefix)
            for pattern, replacement in rules:
                rest = re.sub(pattern, replacement, rest)
            return target + rest
    return origin


def _independent(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy, because safetensors refuses tensors that share memory."""
    return tensor.to(dtype).clone(memory_format=torch.contiguous_format)


def _refusal(path: Path, message: str) -> str:
    """Says what PyTorch refused to load, in a sentence."""
    culprit = re.search(r"GLOBAL (\S+)", message)
    if culprit is None:
        return f"{path} is damaged, or not a checkpoint of PyTorch; get it again"
    return (
        f"{path} holds {culprit[1]}, which could run code and is not loaded; where you trust the file, save "
        "its tensors alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'tensors.pt')"
    )


def _report(conversion: Conversion, checkpoint: Path) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint.name,
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "source": conversion.source,
        "missing": list(conversion.missing),
        "unused": conversion.unused,
        "mapped": conversion.origins,
    }


def _config(source: Source) -> Config:
    """The network that the checkpoint is of, as the released code was trained."""
    released = source == "SGSeg"
    return Config(
        model="sgseg",
        network=Network(backbone="hgnetv2-l", lerg=released, freeze_text=not released, transposed=True),
        monitor="self" if released else "text",
        stages=(Stage(name="224px", size=224, epochs=100),),
    )


def _report_table(hub_folder: Path | None) -> dict[str, Tensor]:
    """The tokens of the 64 reports, which are part of our network and of no checkpoint.

    Raises:
        ConfigError: CXR-BERT's vocabulary is not to be had.
    """
    try:
        tokenizer = hub.CXR_BERT.load(BertTokenizer, hub_folder)
        ids, mask = tokenize(tokenizer, all_reports(Laterality.IMAGE))
    except hub.HubError as error:
        raise ConfigError(_vocabulary_wanted(hub_folder)) from error
    if (ids == tokenizer.unk_token_id).any():  # where vocab.txt is missing, transformers makes an empty one
        raise ConfigError(_vocabulary_wanted(hub_folder))
    return {"report_table.input_ids": ids, "report_table.attention_mask": mask}


def _vocabulary_wanted(hub_folder: Path | None) -> str:
    model = hub.CXR_BERT
    return (
        f"reports cannot be read without CXR-BERT's vocabulary; download vocab.txt from "
        f"https://huggingface.co/{model.name}/tree/main into {hub_folder or 'HUB'}/{model.folder}/"
        + ("" if hub_folder else " and add --hub HUB")
    )
