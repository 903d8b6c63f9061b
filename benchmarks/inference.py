"""How fast an X-ray is segmented, and with how much memory: one command, one table.

    python benchmarks/inference.py --out results/inference

    artefact   the shipped model in ONNX Runtime, text-free, guidance as its card says
    released   the paper's network (HGNetv2-L as in the authors' code) in eager PyTorch, run as that code runs
               it: detector for the report, BERT for each image, then the detector once more
    ours       the same network as this project runs it: one look at the image, the report from the table

Every system lives in a process of its own; they take turns, one call each in a round, so that whatever else
slows the machine slows all of them. Images are synthetic. Weights of `released` and `ours` are random: the
time does not depend on them. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sgseg
from sgseg.data import phantom
from sgseg.formats import atomic, write_json
from sgseg.imaging import ChestXray, fit
from sgseg.inference import OnnxRuntime, Predictor
from sgseg.weights import SHIPPED

SIZE = 224
BATCHES = (1, 8)
WARM_UP = 2

Images = NDArray[np.uint8]
Segment = Callable[[Images], NDArray[np.float32]]
"""(B, SIZE, SIZE) uint8 -> lesion probabilities (B, SIZE, SIZE)."""


def artefact() -> Segment:
    """The shipped model."""
    predictor = Predictor(OnnxRuntime(SHIPPED))

    def segment(images: Images) -> NDArray[np.float32]:
        xrays = [ChestXray.from_array(image) for image in images]
        predictions = predictor.predict_batch(xrays, predictor.runtime.guidance)
        return np.stack([prediction.probability for prediction in predictions])

    return segment


def ours() -> Segment:
    """The paper's network, detector once and reports from the table."""
    from sgseg.inference import Identity
    from sgseg.reports import Guidance
    from sgseg.training.runtime import TorchRuntime

    network, _ = _paper_network()
    runtime = TorchRuntime(network, SIZE, Guidance.SELF, Identity("sgseg", "random", ""))

    def segment(images: Images) -> NDArray[np.float32]:
        encoded = runtime.encode(images)
        reports = (encoded.zones > 0.5) @ (2 ** np.arange(6))
        return runtime.decode(encoded.features, reports)

    return segment


def released() -> Segment:
    """The paper's network, in the order of the authors' `forward(inference=True)`."""
    import torch

    from sgseg.anatomy import Laterality, ZoneSet
    from sgseg.reports import write
    from sgseg.training.module import standardise
    from sgseg.training.networks import tokenize

    network, tokenizer = _paper_network()
    network.eval()

    @torch.inference_mode()
    def segment(images: Images) -> NDArray[np.float32]:
        x = standardise(torch.from_numpy(images)[:, None].float() / 255).expand(-1, 3, -1, -1)
        infected = (network.lerg(x).sigmoid() >= 0.5).tolist()
        texts = [write(ZoneSet.from_vector(flags), Laterality.IMAGE) for flags in infected]
        tokens = network.text.read(*tokenize(tokenizer, texts))
        features = network.vision(x, output_hidden_states=True).hidden_states[1:]
        logits, _ = network.decoder(features, tokens, torch.ones(len(images)))
        network.lerg(x)
        probability: NDArray[np.float32] = logits[:, 0].sigmoid().numpy()
        return probability

    return segment


def _paper_network() -> tuple[Any, Any]:
    import torch

    from sgseg.training import config as configs
    from sgseg.training import networks
    from sgseg.training.pretrained import minilm_tokenizer

    torch.manual_seed(0)
    options = ["data.root=.", "init=random", "network.backbone=hgnetv2-l"]
    return networks.initial(configs.load("sgseg", options))[0], minilm_tokenizer()


SYSTEMS: dict[str, Callable[[], Segment]] = {"artefact": artefact, "released": released, "ours": ours}


def _serve(system: str, pipe: Connection) -> None:
    """A process that segments what it is sent and answers with the seconds that it took."""
    segment = SYSTEMS[system]()
    pipe.send("ready")
    while (images := pipe.recv()) is not None:
        began = time.perf_counter()
        probability = segment(images)
        seconds = time.perf_counter() - began
        assert probability.shape == images.shape
        pipe.send(seconds)
    unit = 1 if sys.platform == "darwin" else 1024
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def measure(rounds: int) -> tuple[dict[str, dict[int, NDArray[np.float64]]], dict[str, float]]:
    """Seconds of each call, by system and batch, and peak memory in bytes by system."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for system in SYSTEMS:
        pipes[system], theirs = context.Pipe()
        process = context.Process(target=_serve, args=(system, theirs), daemon=True)
        process.start()
        processes.append(process)
        pipes[system].recv()
    xrays = [ChestXray.from_array(phantom.draw(seed).pixels) for seed in range(max(BATCHES))]
    images = np.stack([fit(xray, SIZE) for xray in xrays])
    seconds: dict[str, dict[int, list[float]]] = {s: {b: [] for b in BATCHES} for s in SYSTEMS}
    for turn in range(WARM_UP + rounds):
        for batch in BATCHES:
            for system, pipe in pipes.items():
                pipe.send(images[:batch])
                taken = pipe.recv()
                if turn >= WARM_UP:
                    seconds[system][batch].append(taken)
        print(f"round {turn + 1}/{WARM_UP + rounds}", file=sys.stderr)
    peaks = {}
    for system, pipe in pipes.items():
        pipe.send(None)
        peaks[system] = float(pipe.recv())
    for process in processes:
        process.join()
    return {s: {b: np.array(t) for b, t in batches.items()} for s, batches in seconds.items()}, peaks


def summarise(
    seconds: dict[str, dict[int, NDArray[np.float64]]], peaks: dict[str, float]
) -> list[dict[str, Any]]:
    """One row for each system and batch; `times_released` compares calls of the same round."""
    rows = []
    for batch in BATCHES:
        for system in SYSTEMS:
            taken = seconds[system][batch]
            ratios = seconds["released"][batch] / taken
            low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95))
            rows.append(
                {
                    "system": system,
                    "batch": batch,
                    "images_per_second": batch / float(np.median(taken)),
                    "median_ms": 1000 * float(np.median(taken)),
                    "p95_ms": 1000 * float(np.quantile(taken, 0.95)),
                    "peak_memory_mb": peaks[system] / 2**20,
                    "times_released": {"median": float(middle), "p5": float(low), "p95": float(high)},
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| system | batch | images/s | median, ms | p95, ms | peak memory, MB | × released (p5–p95) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = row["times_released"]
        lines.append(
            f"| {row['system']} | {row['batch']} | {row['images_per_second']:.1f} | {row['median_ms']:.1f} "
            f"| {row['p95_ms']:.1f} | {row['peak_memory_mb']:.0f} "
            f"| {ratio['median']:.1f} ({ratio['p5']:.1f}–{ratio['p95']:.1f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    options = parser.parse_args()
    seconds, peaks = measure(options.rounds)
    rows = summarise(seconds, peaks)
    print(table(rows))
    if options.out is None:
        return
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
    write_json(
        options.out.with_suffix(".json"),
        {"sgseg": sgseg.__version__, **machine, "rounds": options.rounds, "rows": rows},
    )
    with atomic(options.out.with_suffix(".md")) as temporary:
        heading = (
            f"# Inference\n\n{machine['cpus']} CPUs, {options.rounds} rounds, `benchmarks/inference.py`\n\n"
        )
        temporary.write_text(heading + table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
