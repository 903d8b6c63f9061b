"""The network that a configuration asks for, and the weights it starts from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertModel, BertTokenizer
from transformers.utils import logging

from sgseg.anatomy import Laterality
from sgseg.errors import ConfigError
from sgseg.inference.runtime import WEIGHTS as ARTEFACT_WEIGHTS
from sgseg.inference.runtime import read_card
from sgseg.models import SGSeg, SGSegCompact
from sgseg.models.baselines import BASELINES, Baseline, LViT
from sgseg.models.compact.efficientnet import EfficientNetLite
from sgseg.models.compact.report_encoder import ReportEncoder, whiten
from sgseg.models.sgseg.cxr_bert import REPORT_LENGTH, CXRBert, CXRBertConfig
from sgseg.models.sgseg.rtdetr import hgnetv2_l, resnet50
from sgseg.reports import all_reports
from sgseg.training import config as configs
from sgseg.training import hub
from sgseg.training.config import Config
from sgseg.training.pretrained import imagenet_state, minilm, minilm_tokenizer, report_embeddings
from sgseg.weights import SHIPPED

T = TypeVar("T")

AnyNetwork: TypeAlias = SGSegCompact | SGSeg | Baseline

WEIGHTS = "weights.safetensors"
"""The file of a run that holds its trained network."""

_BACKBONES = {"resnet50": resnet50, "hgnetv2-l": hgnetv2_l}


def build(config: Config) -> AnyNetwork:
    """The network, untrained."""
    parts = config.network
    logging.set_verbosity_error()
    if config.model in BASELINES:
        return BASELINES[config.model]("cpu" if parts.size == "cpu" else "paper", config.stages[-1].size)
    if config.model == "sgseg-compact":
        return SGSegCompact(parts.encoder)
    if parts.size == "mini":
        return SGSeg.mini()
    return SGSeg(detector=_BACKBONES[parts.backbone](), lerg=parts.lerg, freeze_text=parts.freeze_text)


def initial(config: Config) -> tuple[AnyNetwork, list[str]]:
    """The network with the weights that training starts from.

    Returns:
        The network, and what to tell the user: which parts start from random weights although pretrained
        ones were asked for, and how to get those.

    Raises:
        ConfigError: the run or the shipped weights to start from are not there, or are of another encoder.
        HubError: `hub` names a folder that lacks the encoders.
    """
    if config.init in ("pretrained", "random"):
        network = build(config)
        _start_packaged(network, config.init)
        if isinstance(network, SGSeg):
            return network, _start_sgseg(network, config)
        return network, _start_lvit(network, config) if isinstance(network, LViT) else []
    weights = SHIPPED / ARTEFACT_WEIGHTS if config.init == "shipped" else Path(config.init) / WEIGHTS
    if not weights.is_file():
        raise ConfigError(
            f"init={config.init}: {weights} is not there; give pretrained, random, shipped or a finished run"
        )
    origin = recipe(SHIPPED) if config.init == "shipped" else configs.load(weights.with_name("config.yaml"))
    if config.network.encoder != origin.network.encoder:
        raise ConfigError(
            f"init={config.init} has another encoder; add network.encoder={origin.network.encoder}"
        )
    return load(config, weights), []


def recipe(artefact: Path) -> Config:
    """How the network of an artefact was trained, which also says what its parts are."""
    return Config.model_validate(read_card(artefact)["config"])


def state(network: AnyNetwork) -> dict[str, Tensor]:
    """The network's tensors as a safetensors file takes them: contiguous, each once.

    BERT's word embeddings also are the output layer of its masked-language head. Batch norms count their
    batches; nothing reads the counts.
    """
    seen: set[int] = set()
    kept = {}
    for name, tensor in network.state_dict().items():
        if tensor.data_ptr() in seen or name.endswith("num_batches_tracked"):
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor.contiguous()
    return kept


def load(config: Config, weights: Path) -> AnyNetwork:
    """The network of a file that `state` filled, float16 tensors widened.

    Raises:
        ConfigError: the file does not fit the network.
    """
    network = build(config)
    own = state(network)
    found = {name: t.to(own[name].dtype) for name, t in load_file(weights).items() if name in own}
    missing = own.keys() - found.keys()
    try:
        network.load_state_dict(found, strict=False)
    except RuntimeError as error:
        raise ConfigError(f"{weights} does not hold {config.model}: {error}") from error
    if missing:
        raise ConfigError(
            f"{weights} does not hold {config.model}: it lacks {', '.join(sorted(missing)[:5])}"
        )
    return network


def oriented(x: Tensor, transposed: bool) -> Tensor:
    """From an image's own rows and columns to those that the network's weights know, and back."""
    return x.mT if transposed else x


def tokenize(tokenizer: BertTokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Reports as CXR-BERT reads them: padded, or cut, to `REPORT_LENGTH` tokens.

    Returns:
        input_ids, attention_mask: (B, REPORT_LENGTH) int64.
    """
    tokens = tokenizer(
        texts, padding="max_length", truncation=True, max_length=REPORT_LENGTH, return_tensors="pt"
    )
    return tokens["input_ids"], tokens["attention_mask"]


def report_tokens(network: SGSeg, config: Config) -> list[list[str]]:
    """The tokens of the 64 reports as the network reads them, [64][REPORT_LENGTH], padding included.

    Which vocabulary its numbers belong to is found out by reading the reports with either.

    Raises:
        HubError: it is not MiniLM's, and CXR-BERT's cannot be reached.
        ConfigError: it is neither's.
    """
    ids = network.report_table.input_ids
    for load_tokenizer in (minilm_tokenizer, lambda: hub.CXR_BERT.load(BertTokenizer, config.hub)):
        tokenizer = load_tokenizer()
        if torch.equal(tokenize(tokenizer, all_reports(Laterality.IMAGE))[0], ids):
            return [tokenizer.convert_ids_to_tokens(row) for row in ids.tolist()]
    raise ConfigError(f"{config.model} was trained on reports in another wording than today's; train it anew")


def _start_packaged(network: AnyNetwork, init: str) -> None:
    """Fills in what comes as packages: ImageNet's weights, and the 64 reports as MiniLM reads them."""
    for part in network.modules():
        if isinstance(part, EfficientNetLite) and init == "pretrained":
            part.load_imagenet(imagenet_state(part.variant))
        elif isinstance(part, ReportEncoder):
            part.embeddings.copy_(whiten(report_embeddings()))


def _start_lvit(network: LViT, config: Config) -> list[str]:
    """Reads the 64 reports with a frozen BERT of its width; returns what to say if that is not to be had."""
    said: list[str] = []
    if config.network.size == "cpu":
        tokenizer, bert = minilm_tokenizer(), minilm()
    elif found := _from_hub(lambda: hub.cxr_bert(config.hub), config, said):
        tokenizer, bert = found[0], found[1].bert
    else:
        tokenizer, bert = minilm_tokenizer(), CXRBert(CXRBertConfig()).eval().bert
    network.words.copy_(_read_reports(bert, tokenizer))
    return said


def _start_sgseg(network: SGSeg, config: Config) -> list[str]:
    """Fills in what the hub has; returns what to say of the parts that it has not."""
    said: list[str] = []
    tokenizer = minilm_tokenizer()
    if config.network.size == "cpu":  # LanGuideMedSeg, whose frozen BERT is MiniLM
        network.text.bert.load_state_dict(minilm().state_dict(), strict=False)
    elif config.init == "pretrained" and config.network.size == "paper":
        for start in (_start_vision, _start_detector, _start_text):
            tokenizer = _from_hub(partial(start, network, config), config, said) or tokenizer
    ids, mask = tokenize(tokenizer, all_reports(Laterality.IMAGE))
    network.report_table.input_ids.copy_(ids)
    network.report_table.attention_mask.copy_(mask)
    return said


def _from_hub(load: Callable[[], T], config: Config, said: list[str]) -> T | None:
    """What `load` gives; None where the hub cannot be reached, and then `said` gets what to say of it."""
    try:
        return load()
    except hub.HubError as error:
        if config.hub is not None:  # where files were promised, their absence is a mistake
            raise
        said.append(f"RANDOM WEIGHTS: {error}")
        return None


def _read_reports(bert: BertModel, tokenizer: BertTokenizer) -> Tensor:
    """The 64 reports as BERT's last hidden states, (64, REPORT_LENGTH, hidden), padding zero."""
    ids, mask = tokenize(tokenizer, all_reports(Laterality.IMAGE))
    with torch.no_grad():
        hidden: Tensor = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden * mask[..., None]


def _start_vision(network: SGSeg, config: Config) -> None:
    network.vision.load_state_dict(hub.convnext(config.hub).state_dict())


def _start_detector(network: SGSeg, config: Config) -> None:
    if network.lerg is None or config.network.backbone != "resnet50":
        return
    state = hub.rt_detr(config.hub).state_dict()
    detector = network.lerg.detector
    detector.load_state_dict({name: state[name] for name in detector.state_dict()})


def _start_text(network: SGSeg, config: Config) -> BertTokenizer:
    tokenizer, bert = hub.cxr_bert(config.hub)
    network.text.load_state_dict(bert.state_dict())
    return tokenizer
