"""RT-DETR, LERG's detector (Zhao et al., CVPR 2024), as transformers builds it.

A convolutional backbone, attention within the coarsest scale (AIFI), cross-scale fusion (CCFM), and a
decoder whose object queries start at the image positions that score best.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import HGNetV2Config, RTDetrConfig, RTDetrModel, RTDetrResNetConfig
from transformers.models.rt_detr.modeling_rt_detr import RTDetrMLPPredictionHead

_STAGES = ["stage2", "stage3", "stage4"]
_COCO_CLASSES = 80


class Objects(NamedTuple):
    """What the detector found.

    Attributes:
        features: (B, N, dim), hidden states of the last decoder layer.
        boxes: (B, N, 4): centre x, centre y, width, height, as shares of the image.
    """

    features: Tensor
    boxes: Tensor


def resnet50() -> RTDetrConfig:
    """With ResNet-50, as in the paper (§2.2): 300 queries of width 256, six decoder layers."""
    return _config(RTDetrResNetConfig(out_features=_STAGES), num_labels=_COCO_CLASSES)


def hgnetv2_l() -> RTDetrConfig:
    """With HGNetv2-L, as in the authors' released code."""
    return _config(HGNetV2Config(out_features=_STAGES), num_labels=_COCO_CLASSES)


def mini() -> RTDetrConfig:
    """With a ResNet of one narrow block per stage, 30 queries of width 64, two decoder layers."""
    widths = [32, 64, 96, 128]
    backbone = RTDetrResNetConfig(
        embedding_size=widths[0],
        hidden_sizes=widths,
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=_STAGES,
    )
    return _config(
        backbone,
        encoder_in_channels=widths[1:],
        encoder_hidden_dim=64,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_in_channels=[64, 64, 64],
        d_model=64,
        decoder_ffn_dim=128,
        decoder_attention_heads=4,
        decoder_layers=2,
        num_queries=30,
    )


def _config(backbone: Any, **sizes: Any) -> RTDetrConfig:
    """Batch norms learn: RT-DETR freezes the backbone's at their ImageNet statistics, which an untrained
    backbone does not have, and which those of X-rays are not. There is no denoising without boxes."""
    return RTDetrConfig(backbone_config=backbone, freeze_backbone_batch_norms=False, num_denoising=0, **sizes)


class RTDETR(nn.Module):
    """Images -> objects.

    Tensors have the names of transformers' `RTDetrForObjectDetection`, so that COCO weights load, but for
    its class heads: LERG reads the hidden states.

    No loss speaks of boxes or classes, and RT-DETR passes no gradient through the choice of its queries
    and from one layer's boxes to the next. So the heads that choose queries and move boxes keep their
    weights; untrained, they leave every box at its anchor (5, 10 or 20 % of the image wide).
    """

    def __init__(self, config: RTDetrConfig) -> None:
        super().__init__()
        self.config = config
        self.model = RTDetrModel(config)
        dim = config.d_model
        self.model.decoder.bbox_embed = nn.ModuleList(
            RTDetrMLPPredictionHead(dim, dim, 4, num_layers=3) for _ in range(config.decoder_layers)
        )
        self._initialise()

    def forward(self, images: Tensor) -> Objects:
        """
        Args:
            images: (B, 3, H, W) float32, H and W multiples of 32.

        Raises:
            ValueError: the images have fewer positions to start from than there are queries.
        """
        height, width = images.shape[2:]
        anchors = sum((height // stride) * (width // stride) for stride in self.config.feat_strides)
        if anchors < self.config.num_queries:
            raise ValueError(
                f"images of {height}×{width} have {anchors} positions for {self.config.num_queries} object "
                "queries; give larger images"
            )
        found = self.model(images)
        return Objects(found.last_hidden_state, found.intermediate_reference_points[:, -1])

    def _initialise(self) -> None:
        """Puts right what transformers leaves to its checkpoints: it draws the weights of batch norms from
        N(0, 0.01²), which silences an untrained detector."""
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        box_heads = (self.model.enc_bbox_head, *self.model.decoder.bbox_embed)
        for head in box_heads:
            nn.init.zeros_(head.layers[-1].weight)
            nn.init.zeros_(head.layers[-1].bias)
        for part in (self.model.enc_output, self.model.enc_score_head, *box_heads):
            part.requires_grad_(False)
