"""EfficientNet-Lite, the compact model's image encoder.

Lite drops EfficientNet's squeeze-and-excitation and Swish, so that it runs well on plain CPUs
(Tan & Le, ICML 2019; the Lite variants are Google's, 2020). Module names follow the published
state dict, so that ImageNet weights load without a table of names.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Variant: TypeAlias = Literal["lite0", "lite1", "lite2"]
"""Size of the encoder: 3.0, 3.7 or 4.4 million parameters."""


class Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


_LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_SCALES: dict[Variant, tuple[float, float]] = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""By how much a variant is wider and deeper than Lite0."""

_STEM_CHANNELS = 32
_TAPS = (1, 2, 4, 6)  # the stages whose outputs are the features at strides 4, 8, 16, 32


def stages(variant: Variant) -> tuple[Stage, ...]:
    """Lite0's stages scaled; as in all Lite variants, the first and the last stage are as deep as Lite0's."""
    width, depth = _SCALES[variant]
    first, *middle, last = (s._replace(channels=_eighths(width * s.channels)) for s in _LITE0)
    return (first, *(s._replace(repeats=math.ceil(depth * s.repeats)) for s in middle), last)


def channels(variant: Variant) -> tuple[int, ...]:
    """Channels of the features at strides 4, 8, 16 and 32."""
    scaled = stages(variant)
    return tuple(scaled[tap].channels for tap in _TAPS)


def _eighths(width: float) -> int:
    """The nearest multiple of 8 (the published rule; no width here is rounded down by over a tenth)."""
    return int(width + 4) // 8 * 8


class _DepthwiseConv(torch.autograd.Function):
    """Depthwise convolution whose gradient avoids what is slow on CPUs.

    oneDNN's bfloat16 gradients of strided and of 5×5 depthwise convolutions fall back to a reference
    loop, five to fifteen times slower than need be; they took 40 % of a training step. A 3×3 one with a
    stride has the gradient of the dense one with zeros between the output's gradients, a 5×5 one is
    computed in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        (dy,), stride = gradients, ctx.stride
        if weight.shape[-1] == 3:
            dy, stride = _spread(dy, x, ctx.padding), 1
            operands = dy, x, weight
        else:
            operands = dy.float(), x.float(), weight.float()
        dx, dw, _ = torch.ops.aten.convolution_backward(
            *operands,
            None,
            [stride] * 2,
            [ctx.padding] * 2,
            [1, 1],
            False,
            [0, 0],
            len(weight),
            [True, True, False],
        )
        return dx.to(x.dtype), dw.to(weight.dtype), None, None


def _spread(dy: Tensor, x: Tensor, padding: int) -> Tensor:
    """The gradient of a 3×3 stride-2 convolution, set on the grid of the stride-1 convolution of x."""
    height, width = (n + 2 * padding - 2 for n in x.shape[2:])
    spread = dy.new_zeros(len(dy), dy.shape[1], height, width).to(memory_format=torch.channels_last)
    spread[:, :, ::2, ::2] = dy
    return spread


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": with stride 2 the odd pixel goes to the bottom right."""

    def forward(self, x: Tensor) -> Tensor:
        excess = self.kernel_size[0] - self.stride[0]
        padding = 0 if excess % 2 else excess // 2
        if excess % 2:
            before = excess // 2
            x = F.pad(x, (before, excess - before, before, excess - before))
        if self._has_slow_gradient(x):
            dtype = torch.get_autocast_dtype("cpu")
            return _DepthwiseConv.apply(x.to(dtype), self.weight.to(dtype), self.stride[0], padding)
        return F.conv2d(x, self.weight, None, self.stride, padding, 1, self.groups)

    def _has_slow_gradient(self, x: Tensor) -> bool:
        awkward = self.groups > 1 and (self.stride[0] > 1 or self.kernel_size[0] > 3)
        return awkward and self.training and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> SameConv2d:
    return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; a residual where the shape allows it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expands = expand != 1
        self.residual = stride == 1 and inputs == outputs
        self.drop_connect = 0.0  # how often the branch is left out in training
        if self.expands:
            self._expand_conv = _conv(inputs, hidden, 1)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = _conv(hidden, hidden, kernel, stride, groups=hidden)
        self._bn1 = _norm(hidden)
        self._project_conv = _conv(hidden, outputs, 1)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        if self.training and self.residual and self.drop_connect:
            kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.drop_connect
            y = y * (kept / (1 - self.drop_connect)).to(y.dtype)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Image (B, 1, H, W) float32 -> features at strides 4, 8, 16 and 32 with `channels` channels.

    H and W are multiples of 32. One grey channel stands for the three equal ones of a grey RGB picture.
    """

    def __init__(self, variant: Variant = "lite0") -> None:
        super().__init__()
        self.variant, self.channels = variant, channels(variant)
        self._conv_stem = _conv(1, _STEM_CHANNELS, 3, 2)
        self._bn0 = _norm(_STEM_CHANNELS)
        blocks: list[nn.Module] = []
        self.ends: list[int] = []
        inputs = _STEM_CHANNELS
        for stage in stages(variant):
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expand))
                inputs = stage.channels
            self.ends.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        taps = [self.ends[stage] for stage in _TAPS]
        features = []
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in taps:
                features.append(x)
        return tuple(features)

    def set_drop_connect(self, rate: float) -> None:
        """Sets how often residual branches are left out in training (Huang et al., ECCV 2016).

        Args:
            rate: of the last block; the others' are in proportion to their depth.
        """
        for depth, block in enumerate(self._blocks):
            assert isinstance(block, InvertedResidual)
            block.drop_connect = rate * depth / len(self._blocks)

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Loads a published ImageNet state dict; its classification head is dropped.

        The stem's three colour kernels are summed, which is exact for a grey picture.

        Raises:
            RuntimeError: a tensor is missing or has another shape.
        """
        own = {k: v for k, v in state.items() if not k.startswith(("_fc.", "_conv_head.", "_bn1."))}
        own["_conv_stem.weight"] = torch.sum(own["_conv_stem.weight"], dim=1, keepdim=True)
        self.load_state_dict(own)
