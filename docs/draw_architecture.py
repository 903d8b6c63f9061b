"""Draws docs/architecture.png from the built network: what is written in the boxes is measured on it.

python docs/draw_architecture.py
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from sgseg.models import SGSeg

SIZE = 224

Shapes = dict[str, tuple[int, ...]]


def trace(network: SGSeg) -> Shapes:
    """Output shapes of the network's parts for one X-ray of SIZE × SIZE, without the batch."""
    assert network.lerg is not None
    detector = network.lerg.detector.model
    parts: dict[str, nn.Module] = {
        "vision": network.vision,
        "text": network.text.bert,
        **{f"stage {i}": stage for i, stage in enumerate(network.decoder.stages)},
        **{f"mix {i}": stage.guide.mix for i, stage in enumerate(network.decoder.stages)},
        "upsample": network.decoder.upsample,
        "out": network.decoder.out,
        "backbone": detector.backbone,
        "fusion": detector.encoder,
        "objects": network.lerg.detector,
        "aggregate": network.lerg.classify,
    }
    shapes: Shapes = {}

    def remember(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for i, tensor in enumerate(_tensors(output)):
                shapes[f"{name}.{i}"] = tuple(tensor.shape[1:])
            if name == "aggregate":
                shapes["location.0"] = tuple(inputs[0].shape[1:])

        return hook

    hooks = [part.register_forward_hook(remember(name)) for name, part in parts.items()]
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 1, SIZE, SIZE), torch.tensor([36]))
    for hook in hooks:
        hook.remove()
    return shapes


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values if value is not None for tensor in _tensors(value)]


def millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M"


def sides(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


INK, GREY = "#1a1a1a", "#6e6e6e"
IMAGE, TEXT, REPORT = "#dcebf7", "#fbe7c6", "#dff0e0"
GUIDE, SKIP = "#c77700", "#9a9a9a"
RAIL = 1.75  # height of the line that carries the report tokens


def box(axes: Axes, x: float, y: float, title: str, below: str, colour: str, width: float = 2.3) -> None:
    """A box around (x, y) with a title and what was measured."""
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.42), width, 0.84, boxstyle="round,pad=0.02,rounding_size=0.1",
            facecolor=colour, edgecolor=INK, linewidth=0.8,
        )
    )  # fmt: skip
    axes.text(x, y + 0.13, title, ha="center", va="center", fontsize=9.5, color=INK)
    axes.text(x, y - 0.2, below, ha="center", va="center", fontsize=7.5, color=GREY)


def arrow(axes: Axes, *points: tuple[float, float], colour: str = INK) -> None:
    """A line through the points with a head at the last one."""
    xs, ys = zip(*points[:-1], strict=True)
    if len(points) > 2:
        axes.plot(xs, ys, color=colour, linewidth=1.1, solid_capstyle="round")
    axes.annotate(
        "", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.1,
                                                "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def draw(network: SGSeg, shapes: Shapes) -> Figure:
    """The paper's Fig. 1: report generation above, the U-Net that it guides below."""
    assert network.lerg is not None
    lerg, detector = network.lerg, network.lerg.detector.model
    figure = Figure(figsize=(13.5, 7.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.3, 14.8), ylim=(-0.55, 7.8), aspect="equal")
    axes.axis("off")

    box(axes, 1.0, 6.2, "X-ray", f"{SIZE} × {SIZE}, z-scored", IMAGE, 1.9)
    box(axes, 4.0, 6.2, "Detector's backbone", f"{millions(detector.backbone)} · three scales", IMAGE)
    box(axes, 7.0, 6.2, "AIFI and CCFM", f"{millions(detector.encoder)} · fused scales", IMAGE)
    box(axes, 10.0, 6.2, "Query decoder", f"objects X: {sides(shapes['objects.0'])}", IMAGE)
    box(axes, 13.1, 6.2, "A = softmax(X qᵀ) X", f"location: {sides(shapes['location.0'])}", IMAGE, 2.6)
    box(
        axes,
        13.1,
        4.9,
        "Six zone probabilities",
        f"{lerg.classify.in_features} to 6 · BCE (eq. 2)",
        REPORT,
        2.6,
    )
    box(axes, 9.4, 4.9, "Report", "bilateral pulmonary infection, two …", REPORT, 3.1)
    bert = f"{millions(network.text.bert)} · {sides(shapes['text.0'])} · 64 reports, read once"
    box(axes, 5.6, 4.9, "CXR-BERT", bert, TEXT, 3.9)
    for left, right in ((1.95, 2.85), (5.15, 5.85), (8.15, 8.85), (11.15, 11.8)):
        arrow(axes, (left, 6.2), (right, 6.2))
    arrow(axes, (13.1, 5.78), (13.1, 5.32))
    arrow(axes, (11.8, 4.9), (10.95, 4.9))
    arrow(axes, (7.85, 4.9), (7.55, 4.9))

    features = [shape for name, shape in shapes.items() if name.startswith("vision.") and len(shape) == 3]
    columns = (4.0, 7.2, 10.4, 13.6)
    for x, stride in zip(columns, (4, 8, 16, 32), strict=True):
        channels, height, width = next(shape for shape in features if shape[1] == SIZE // stride)
        box(axes, x, 2.8, f"{height} × {width}", f"{channels} channels", IMAGE, 1.9)
    axes.text(1.2, 2.93, f"ConvNeXt-T, {millions(network.vision)}", fontsize=8, color=GREY)
    arrow(axes, (1.0, 5.78), (1.0, 2.8), (3.05, 2.8))
    for left, right in itertools.pairwise(columns):
        arrow(axes, (left + 0.95, 2.8), (right - 0.95, 2.8))
    arrow(axes, (13.6, 2.38), (13.6, 0.6), (11.65, 0.6))
    for i, (stage, x) in enumerate(zip(network.decoder.stages, reversed(columns[:-1]), strict=True)):
        measured = f"{millions(stage)} · {sides(shapes[f'stage {i}.0'])}"
        box(axes, x, 0.6, f"guide, {shapes[f'mix {i}.0'][0]} tokens; up", measured, TEXT, 2.5)
        arrow(axes, (x - 0.5, 2.38), (x - 0.5, 1.02), colour=SKIP)
        arrow(axes, (x + 0.5, RAIL), (x + 0.5, 1.02), colour=GUIDE)
    subpixel = SIZE // shapes["stage 2.0"][1]
    box(axes, 1.0, 0.6, f"sub-pixel × {subpixel}", f"mask: {sides(shapes['out.0'][1:])}", IMAGE, 1.9)
    for left, right in ((9.15, 8.45), (5.95, 5.25), (2.75, 1.95)):
        arrow(axes, (left, 0.6), (right, 0.6))
    axes.plot([5.6, 5.6], [4.48, RAIL], color=GUIDE, linewidth=1.4)
    axes.plot([4.5, 10.9], [RAIL, RAIL], color=GUIDE, linewidth=1.4)
    axes.text(8.0, RAIL + 0.08, "report tokens", va="bottom", fontsize=8, color=GUIDE)
    axes.text(-0.2, 7.4, f"SGSeg as published, {millions(network)} parameters", fontsize=12, color=INK)
    axes.text(-0.2, 6.98, "localization-enhanced report generation (LERG)", fontsize=9, color=GREY)
    axes.text(-0.2, -0.35, "language-guided U-Net; grey arrows: skip connections", fontsize=9, color=GREY)
    return figure


def main() -> None:
    torch.manual_seed(0)
    network = SGSeg()
    path = Path(__file__).with_name("architecture.png")
    draw(network, trace(network)).savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
