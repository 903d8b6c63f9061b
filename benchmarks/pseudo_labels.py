"""How well pseudo-labels from clusters find the zones, and what a bad embedding does to them.

    python benchmarks/pseudo_labels.py --data QATA --out results/pseudo-labels

Captions: as they are; with 4 % of them mistyped; with free wording mixed in (free_wording.csv, left and right
of the image). Encoders: MiniLM; MiniLM with its principal components drawn together (`whiten`); two controls:
random vectors, which know only that equal phrases are equal, and MiniLM of phrases whose sides were blotted
out. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sgseg.anatomy import ZONES, Laterality, ZoneSet
from sgseg.data import read_cases, split_names
from sgseg.data.tables import read_table
from sgseg.errors import ReportError
from sgseg.formats import atomic, write_json
from sgseg.models.compact.report_encoder import whiten
from sgseg.reports import parse, write
from sgseg.reports.mistyping import WAYS, mistype
from sgseg.reports.refinement import refine
from sgseg.training.labelled_sets import summarise
from sgseg.training.pretrained import minilm_embeddings
from sgseg.training.pseudo_labels import (
    MIN_CLUSTER_SIZE,
    Agreement,
    Encode,
    How,
    agreement,
    cluster,
    confusion,
    location_phrase,
    medoid,
    pseudo_label,
)

MISTYPED = 0.04
SEEDS = range(5)
LARGER = 10
SIZES = (MIN_CLUSTER_SIZE, LARGER)
PAIRS = 10
TEMPLATE = Path(__file__).with_name("pseudo_labels_template.md")
FREE_WORDING = Path(__file__).with_name("free_wording.csv")
KINDS = ("side", "level", "zones lost", "zones added", "several")
NOISES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
NOISY = 3000

Captions = Sequence[tuple[str, Laterality]]
Run = dict[str, Any]


# --- encoders


class Cache:
    """MiniLM, asked once for each text."""

    def __init__(self) -> None:
        self.known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, minilm_embeddings(new).numpy(), strict=True))
        return np.stack([self.known[text] for text in texts])


_minilm = Cache()


def minilm(texts: Sequence[str]) -> NDArray[np.float32]:
    raw = _minilm(texts)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def whitened(texts: Sequence[str]) -> NDArray[np.float32]:
    return whiten(torch.from_numpy(_minilm(texts))).numpy()


def blind_to_side(texts: Sequence[str]) -> NDArray[np.float32]:
    return minilm([re.sub(r"\b(left|right)\b", "one", text) for text in texts])


def at_random(texts: Sequence[str]) -> NDArray[np.float32]:
    raw = np.random.default_rng(0).standard_normal((len(texts), 384)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


MINILM, WHITENED, RANDOM = "MiniLM", "MiniLM, whitened", "control: random vectors"
BLIND = "control: MiniLM without sides"
ENCODERS: dict[str, Encode] = {
    MINILM: minilm,
    WHITENED: whitened,
    RANDOM: at_random,
    BLIND: blind_to_side,
}


# --- captions


@dataclass(frozen=True)
class Experiment:
    """Captions, the zones they were written for, and the rows whose location phrase is not as in the data."""

    captions: Captions
    zones: Sequence[ZoneSet]
    odd: Sequence[int]


Draw = Callable[[Sequence[str], Sequence[ZoneSet], int], Experiment]


def clean(captions: Sequence[str], zones: Sequence[ZoneSet], seed: int) -> Experiment:
    return Experiment(_image(captions), zones, ())


def mistyped(captions: Sequence[str], zones: Sequence[ZoneSet], seed: int) -> Experiment:
    """One caption in 25 gets one slip, any way being as likely as any other."""
    rng = random.Random(seed)
    typed = list(captions)
    rows = rng.sample(range(len(typed)), round(MISTYPED * len(typed)))
    for row in rows:
        while typed[row] == captions[row]:
            typed[row] = mistype(captions[row], rng.choice(list(WAYS)), rng)
    odd = [row for row in rows if location_phrase(typed[row]) != location_phrase(captions[row])]
    return Experiment(_image(typed), zones, odd)


def refined(captions: Sequence[str], zones: Sequence[ZoneSet], seed: int) -> Experiment:
    """The mistyped captions after `sgseg.reports.refinement`, which leaves what it cannot mend."""
    typed = mistyped(captions, zones, seed)
    mended = [refine(caption, laterality).text for caption, laterality in typed.captions]
    return Experiment(_image(mended), zones, typed.odd)


def free(times: int) -> Draw:
    """Free phrases among the captions; what occurs `MIN_CLUSTER_SIZE` times can be a cluster of its own."""

    def draw(captions: Sequence[str], zones: Sequence[ZoneSet], seed: int) -> Experiment:
        rows = [row for row in read_table(FREE_WORDING) for _ in range(times)]
        texts = [*captions, *(row["phrase"] for row in rows)]
        means = [*zones, *(ZoneSet.from_vector([int(flag) for flag in row["zones"]]) for row in rows)]
        return Experiment(_image(texts), means, range(len(captions), len(texts)))

    return draw


def _image(captions: Sequence[str]) -> Captions:
    return [(caption, Laterality.IMAGE) for caption in captions]


CLEAN, TYPED, REFINED = "clean", "4 % mistyped", "4 % mistyped, refined first"
FREE_ONCE, FREE_OFTEN = "free phrases, each once", "free phrases, each 5 times"
EXPERIMENTS: dict[str, Draw] = {
    CLEAN: clean, TYPED: mistyped, REFINED: refined, FREE_ONCE: free(1), FREE_OFTEN: free(5),
}  # fmt: skip


# --- scores


def score(experiment: Experiment, encode: Encode, size: int) -> dict[str, Any]:
    """The summary of the command, and how the captions fared whose location phrase is odd."""
    result = pseudo_label(experiment.captions, encode, size)
    summary = summarise(result, experiment.zones)
    del summary["confused"]
    labels = [result.labels[row] for row in experiment.odd]
    zones = [experiment.zones[row] for row in experiment.odd]
    right = [label.zones == truth for label, truth in zip(labels, zones, strict=True)]
    ways = {"all": {"captions": len(labels), "right": sum(right)}}
    for how in How:
        chosen = [yes for yes, label in zip(right, labels, strict=True) if label.how is how]
        ways[how.value] = {"captions": len(chosen), "right": sum(chosen)}
    agreed = agreement([label.zones for label in labels], zones)
    return {**summary, "odd": {**ways, **_confused(agreed)}}


def _confused(agreed: Agreement) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    for (truth, label), count in agreed.confused.items():
        kinds[confusion(truth, label)] += count
    pairs = {f"{_words(a)} -> {_words(b)}": count for (a, b), count in agreed.confused.most_common()}
    return {"kinds": dict(kinds), "pairs": pairs}


def _words(zones: ZoneSet) -> str:
    return location_phrase(write(zones, Laterality.IMAGE))


def noisy(captions: Sequence[str], zones: Sequence[ZoneSet], noise: float) -> dict[str, Any]:
    """Equal phrases with unequal embeddings: each caption's is moved in a random direction.

    Args:
        captions: clean ones; the first `NOISY` in random order are used, each a row of its own.
        zones: theirs.
        noise: length of the move, in distances between the two most similar phrases.
    """
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(captions))[:NOISY]
    phrases = [location_phrase(captions[row]) for row in rows]
    different, of_row = np.unique(phrases, return_inverse=True)
    vectors = minilm(different.tolist())
    u, s, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    plane = (u * s).astype(np.float32)  # the space that the phrases span: 62 dimensions, not 384
    between = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    step = rng.standard_normal((NOISY, plane.shape[1]))
    step *= noise * between[between > 0].min() / np.linalg.norm(step, axis=1, keepdims=True)
    points = (plane[of_row] + step).astype(np.float32)
    once = np.ones(NOISY, dtype=int)
    found = cluster(points, once, MIN_CLUSTER_SIZE)
    medoids = np.array([medoid(found == i, points, once) for i in range(found.max() + 1)])
    nearest = np.linalg.norm(points[:, None] - points[medoids][None], axis=2).argmin(1)
    speaker = medoids[np.where(found < 0, nearest, found)]
    known = [zones[row] for row in rows]
    score = agreement([known[i] for i in speaker], known)
    left_out = float((found < 0).mean())
    return {"noise": noise, "clusters": len(medoids), "left_out": left_out, "exact": score.share}


def grammar_alone(captions: Sequence[str], zones: Sequence[ZoneSet]) -> dict[str, Any]:
    """What `parse` and `refine` read, without any cluster, of captions with an odd location phrase."""
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        typed = mistyped(captions, zones, seed)
        for row in typed.odd:
            counts["captions"] += 1
            readings = {"parse": _parsed(*typed.captions[row]), "refine": refine(*typed.captions[row]).zones}
            for reader, told in readings.items():
                counts[f"{reader} right"] += told == zones[row]
                counts[f"{reader} wrong"] += told not in (None, zones[row])
    return dict(counts)


def _parsed(caption: str, laterality: Laterality) -> ZoneSet | None:
    try:
        return parse(caption, laterality)
    except ReportError:
        return None


def measure(root: Path) -> dict[str, Any]:
    cases = [case for split in split_names(root) for case in read_cases(root, split) if case.report]
    captions = [case.report for case in cases]
    zones = [case.zones for case in cases if case.zones is not None]
    runs = []
    for name, draw in EXPERIMENTS.items():
        for seed in SEEDS if name in (TYPED, REFINED) else (0,):
            experiment = draw(captions, zones, seed)
            for (encoder, encode), size in product(ENCODERS.items(), SIZES):
                setting = {"experiment": name, "seed": seed, "encoder": encoder, "min_cluster_size": size}
                runs.append({**setting, **score(experiment, encode, size)})
            print(f"{name}, seed {seed}", flush=True)
    return {
        "data": root.resolve().name,
        "captions": len(captions),
        "grammar_alone": grammar_alone(captions, zones),
        "noise": [noisy(captions, zones, noise) for noise in NOISES],
        "runs": runs,
    }


# --- what is written


def document(measured: dict[str, Any]) -> str:
    runs, settings = measured["runs"], list(product(ENCODERS, SIZES))
    confused = product((TYPED, FREE_ONCE), settings)
    return TEMPLATE.read_text(encoding="utf-8").format(
        **_numbers(runs, measured["grammar_alone"]),
        captions=measured["captions"],
        data=measured["data"],
        draws=len(SEEDS),
        noisy=NOISY,
        small=MIN_CLUSTER_SIZE,
        large=LARGER,
        zones=" | ".join(zone.name(Laterality.IMAGE) for zone in ZONES),
        kinds=" | ".join(KINDS),
        agreement_rows=_rows(_agreement(runs, name, *each) for name, each in product(EXPERIMENTS, settings)),
        zone_rows=_rows(_each_zone(runs, name) for name in EXPERIMENTS),
        confused_rows=_rows(_kinds(runs, name, *each) for name, each in confused),
        typed_pairs=_pairs(_of(runs, TYPED)),
        forced_pairs=_pairs(_of(runs, FREE_ONCE, size=LARGER)),
        noise_rows=_rows(
            (row["noise"], row["clusters"], f"{row['left_out']:.1%}", f"{row['exact']:.1%}")
            for row in measured["noise"]
        ),
    )


def _numbers(runs: list[Run], alone: Mapping[str, int]) -> dict[str, float]:
    """What the conclusions quote."""
    typed, free_once = _of(runs, TYPED), _of(runs, FREE_ONCE)
    typed_random, typed_whitened = _of(runs, TYPED, RANDOM), _of(runs, TYPED, WHITENED)
    blind = _of(runs, CLEAN, BLIND)
    n_odd = _count(typed)
    return {
        "clean": _agree(_of(runs, CLEAN)),
        "clean_random": _agree(_of(runs, CLEAN, RANDOM)),
        "clean_large": _agree(_of(runs, CLEAN, size=LARGER)),
        "clusters": _of(runs, CLEAN)[0]["clusters"],
        "typed": _agree(typed),
        "typed_random": _agree(typed_random),
        "refined": _agree(_of(runs, REFINED)),
        "n_odd": n_odd,
        "odd": _right(typed) / n_odd,
        "odd_random": _right(typed_random) / n_odd,
        "odd_whitened": _right(typed_whitened) / n_odd,
        "wrong": n_odd - _right(typed) - _count(typed, "unreadable"),
        "none": _count(typed, "unreadable"),
        "clustered": _right(typed, "clustered") / _count(typed, "clustered"),
        "clustered_all": float(np.mean([run["how"]["clustered"]["agreement"] for run in typed])),
        "nearest": _right(typed, "nearest") / _count(typed, "nearest"),
        "sides": sum(run["odd"]["kinds"].get("side", 0) for run in typed),
        "parse": alone["parse right"] / n_odd,
        "parse_wrong": alone["parse wrong"],
        "refine": alone["refine right"] / n_odd,
        "refine_wrong": alone["refine wrong"],
        "n_free": _count(free_once),
        "free": _right(free_once),
        "free_none": _count(free_once, "unreadable"),
        "free_whitened": _right(_of(runs, FREE_ONCE, WHITENED)),
        "forced": _right(_of(runs, FREE_ONCE, size=LARGER)),
        "blind": 1 - _agree(blind),
        "purity": blind[0]["purity"],
    }


def _of(runs: list[Run], name: str, encoder: str = MINILM, size: int = MIN_CLUSTER_SIZE) -> list[Run]:
    wanted = (name, encoder, size)
    return [run for run in runs if (run["experiment"], run["encoder"], run["min_cluster_size"]) == wanted]


def _agree(runs: list[Run]) -> float:
    return float(np.mean([run["agreement"]["exact"] for run in runs]))


def _count(runs: list[Run], how: str = "all") -> int:
    return sum(run["odd"][how]["captions"] for run in runs)


def _right(runs: list[Run], how: str = "all") -> int:
    return sum(run["odd"][how]["right"] for run in runs)


def _agreement(runs: list[Run], name: str, encoder: str, size: int) -> tuple[object, ...]:
    chosen = _of(runs, name, encoder, size)
    keys = ("clusters", "unreadable_clusters", "purity")
    clusters, unreadable, purity = (np.mean([run[key] for run in chosen]) for key in keys)
    ways = (f"{_right(chosen, how)} of {_count(chosen, how)}" for how in ("all", "clustered", "nearest"))
    return (
        name, encoder, size, f"{clusters:.0f} ({unreadable:.0f})", f"{purity:.2%}", f"{_agree(chosen):.2%}",
        *ways, _count(chosen, "unreadable"),
    )  # fmt: skip


def _each_zone(runs: list[Run], name: str) -> tuple[object, ...]:
    zones = [list(run["agreement"]["zones_in_image_laterality"].values()) for run in _of(runs, name)]
    return name, *(f"{share:.2%}" for share in np.mean(zones, axis=0))


def _kinds(runs: list[Run], name: str, encoder: str, size: int) -> tuple[object, ...]:
    chosen = _of(runs, name, encoder, size)
    return name, encoder, size, *(sum(run["odd"]["kinds"].get(kind, 0) for run in chosen) for kind in KINDS)


def _pairs(runs: list[Run]) -> str:
    counts: Counter[str] = Counter()
    for run in runs:
        counts.update(run["odd"]["pairs"])
    return "\n".join(f"- {count} × {pair}" for pair, count in counts.most_common(PAIRS))


def _rows(rows: Iterable[Iterable[object]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="QaTa-COV19 in the authors' layout")
    parser.add_argument("--out", type=Path, default=Path("results/pseudo-labels"), help="without its ending")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = measure(arguments.data)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(arguments.out.with_suffix(".md")) as temporary:
        temporary.write_text(document(measured), encoding="utf-8")
    for run in measured["runs"]:
        del run["odd"]["pairs"]  # hundreds; the document has the commonest
    write_json(arguments.out.with_suffix(".json"), measured)
    print(f"written: {arguments.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
