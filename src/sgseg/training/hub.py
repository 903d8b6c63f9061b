"""Weights of the paper's encoders from the Hugging Face hub, or from files that the user put in place.

Code of the hub is never run (`trust_remote_code` stays off), and pickles are read with `weights_only`.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from transformers import BertTokenizer, ConvNextModel, RTDetrForObjectDetection
from transformers.utils import logging

from sgseg.errors import SGSegError
from sgseg.models.sgseg.cxr_bert import CXRBert

_HOST = "huggingface.co"


class HubError(SGSegError):
    """Weights that can be reached neither on the hub nor on this machine."""


T = TypeVar("T")


@dataclass(frozen=True)
class HubModel:
    """A model of the hub.

    Attributes:
        name: "owner/model".
        files: what must be downloaded of it.
        licence: of the weights.
    """

    name: str
    files: tuple[str, ...]
    licence: str

    @property
    def folder(self) -> str:
        """Name of the folder that holds its files."""
        return self.name.split("/")[1]

    def load(self, kind: type[T], hub: Path | None = None) -> T:
        """Loads the model, or its tokenizer.

        Args:
            kind: of transformers, or derived from it.
            hub: a folder with the files in `folder`, or a cache of the hub; by default the hub itself and
                the user's own cache of it.

        Raises:
            HubError: the files are not there, or are not this model's; the message names them and where they
                belong.
        """
        source, where = self._source(hub)
        logging.disable_progress_bar()
        loadable: Any = kind
        try:
            loaded: T = loadable.from_pretrained(source, **where)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise HubError(self.cure(hub)) from error
        return loaded

    def _source(self, hub: Path | None) -> tuple[str, dict[str, Any]]:
        if hub is None:
            return self.name, {"local_files_only": not _online()}
        if (hub / self.folder).is_dir():
            return str(hub / self.folder), {"local_files_only": True}
        return self.name, {"cache_dir": str(hub), "local_files_only": True}

    def cure(self, hub: Path | None) -> str:
        """What to tell a user whose files are not there."""
        place = (hub or Path("HUB")) / self.folder
        files = ", ".join(self.files)
        return (
            f"the weights of {self.name} cannot be loaded; download {files} from "
            f"https://{_HOST}/{self.name}/tree/main into {place}/"
            + (
                ""
                if hub
                else " and name HUB (hub=HUB to train, --encoder HUB to pseudo-label), or do without "
                "(init=random, --encoder minilm)"
            )
        )


CONVNEXT = HubModel("facebook/convnext-tiny-224", ("config.json", "model.safetensors"), "Apache-2.0")
CXR_BERT = HubModel(
    "microsoft/BiomedVLP-CXR-BERT-specialized", ("config.json", "vocab.txt", "pytorch_model.bin"), "MIT"
)
RT_DETR = HubModel("PekingU/rtdetr_r50vd", ("config.json", "model.safetensors"), "Apache-2.0")


def convnext(hub: Path | None = None) -> ConvNextModel:
    """ConvNeXt-T, trained on ImageNet-1k.

    Raises:
        HubError: it is not to be had.
    """
    return CONVNEXT.load(ConvNextModel, hub)


def cxr_bert(hub: Path | None = None) -> tuple[BertTokenizer, CXRBert]:
    """CXR-BERT and its tokenizer.

    Raises:
        HubError: they are not to be had.
    """
    bert = CXR_BERT.load(CXRBert, hub).eval()
    tokenizer = CXR_BERT.load(BertTokenizer, hub)
    if len(tokenizer) != bert.config.vocab_size:  # without a vocabulary, transformers makes up a tiny one
        raise HubError(CXR_BERT.cure(hub))
    return tokenizer, bert


def rt_detr(hub: Path | None = None) -> RTDetrForObjectDetection:
    """RT-DETR with ResNet-50, trained on COCO.

    Raises:
        HubError: it is not to be had.
    """
    return RT_DETR.load(RTDetrForObjectDetection, hub)


@cache
def _online() -> bool:
    """Whether the hub answers; transformers would retry for half a minute before it gives up."""
    try:
        socket.create_connection((_HOST, 443), timeout=3).close()
    except OSError:
        return False
    return True
