"""Pseudo-labels of a data set: captions in, a table to train from and a report of its quality out."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgseg.anatomy import ZONES, Laterality, ZoneSet
from sgseg.data import Case, read_cases, split_names
from sgseg.errors import ConfigError, DataError
from sgseg.formats import atomic, write_json
from sgseg.reports import write
from sgseg.training.cluster_map import draw_clusters
from sgseg.training.pseudo_labels import (
    MIN_CLUSTER_SIZE,
    Agreement,
    Cluster,
    How,
    Label,
    PseudoLabels,
    agreement,
    confusion,
    embed,
    location_phrase,
    pseudo_label,
    purity,
)

TABLE = "pseudo_labels.csv"
_SHOWN = 20


def label_dataset(
    root: Path, out: Path, encoder: str = "minilm", min_cluster_size: int = MIN_CLUSTER_SIZE
) -> dict[str, Any]:
    """Writes the pseudo-labels of a data set into a folder of their own.

        pseudo_labels.csv   a row for each case. It is a data set by itself: `sgseg train … data.root=OUT`
                            takes the zones from it, and no zones where the label is unreadable
        clusters.csv        a row for each cluster
        pseudo_labels.json  what this function returns
        clusters.png        the phrases on a plane

    Args:
        root: the data set, in any layout with captions; they need not be understood.
        out: created if need be.
        encoder: see `embed`.
        min_cluster_size: captions that make a cluster.

    Returns:
        The summary, see `summarise`, with the settings.

    Raises:
        ConfigError: `out` is the data set's own folder, or there is no such encoder.
        DataError: the data set cannot be read, has no captions, or they form no cluster.
    """
    if out.resolve() == root.resolve():
        raise ConfigError(f"{out} is the data set's own folder; give another one, which becomes a data set")
    splits = {split: read_cases(root, split, any_wording=True) for split in split_names(root)}
    told = [case for cases in splits.values() for case in cases if case.report]
    if not told:
        raise DataError(f"{root} has no captions; give a table with the columns 'image', 'mask' and 'report'")
    captions = [(case.report, case.laterality) for case in told]
    result = pseudo_label(captions, lambda texts: embed(texts, encoder), min_cluster_size)
    known = [case.zones for case in told]
    settings = {"data": root.resolve().name, "encoder": encoder, "min_cluster_size": min_cluster_size}
    summary = {**settings, **summarise(result, known)}
    out.mkdir(parents=True, exist_ok=True)
    labels = iter(result.labels)
    rows = [
        _row(split, case, next(labels) if case.report else None)
        for split, cases in splits.items()
        for case in cases
    ]
    _write_table(out / TABLE, rows)
    pure = purity(result.labels, known)
    _write_table(out / "clusters.csv", [_cluster_row(c, pure.get(c.number)) for c in result.clusters])
    draw_clusters(result, out / "clusters.png")
    write_json(out / "pseudo_labels.json", summary)
    return summary


def summarise(result: PseudoLabels, known: Sequence[ZoneSet | None]) -> dict[str, Any]:
    """The quality of pseudo-labels, ready for JSON.

    Args:
        result: the labels of N captions.
        known: their zones as the grammar parses them or a table gives them; None where neither does.
    """
    by_how = {how: [label.how is how for label in result.labels] for how in How}
    zones = [label.zones for label in result.labels]
    pure = purity(result.labels, known).values()
    members = sum(total for _, total in pure)
    return {
        "captions": len(result.labels),
        "phrases": len(result.phrases),
        "clusters": len(result.clusters),
        "unreadable_clusters": sum(not cluster.readable for cluster in result.clusters),
        "purity": sum(agreeing for agreeing, _ in pure) / members if members else None,
        "agreement": _told(agreement(zones, known)),
        "how": {
            how.value: {
                "captions": sum(chosen),
                "agreement": _told(agreement(_where(chosen, zones), _where(chosen, known)))["exact"],
            }
            for how, chosen in by_how.items()
        },
        "confused": _confused(agreement(zones, known).confused),
    }


def _where(chosen: Sequence[bool], zones: Sequence[ZoneSet | None]) -> list[ZoneSet | None]:
    return [each for each, yes in zip(zones, chosen, strict=True) if yes]


def _told(score: Agreement) -> dict[str, Any]:
    n = score.compared
    names = [zone.name(Laterality.IMAGE) for zone in ZONES]
    return {
        "compared": n,
        "exact": score.exact / n if n else None,
        "unlabelled": score.unknown,
        "zones_in_image_laterality": {
            name: agreeing / n if n else None for name, agreeing in zip(names, score.zones, strict=True)
        },
    }


def _confused(pairs: Counter[tuple[ZoneSet, ZoneSet]]) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    for (truth, label), count in pairs.items():
        kinds[confusion(truth, label)] += count
    commonest = [
        {"known": _words(truth), "label": _words(label), "kind": confusion(truth, label), "captions": count}
        for (truth, label), count in pairs.most_common(_SHOWN)
    ]
    return {"kinds": dict(kinds.most_common()), "pairs_in_image_laterality": commonest}


def _words(zones: ZoneSet) -> str:
    return location_phrase(write(zones, Laterality.IMAGE))


def _row(split: str, case: Case, label: Label | None) -> dict[str, Any]:
    """A row as `sgseg.data.layouts` reads it; as a "report", the caption could contradict the zones."""
    zones = case.zones if label is None else label.zones
    if case.mask is None:  # there is no lesion, whatever cluster the caption fell to
        zones = ZoneSet()
    return {
        "split": split,
        "image": case.image.resolve().as_posix(),
        "mask": "none" if case.mask is None else case.mask.resolve().as_posix(),
        "patient": case.patient,
        "zones": _flags(zones),
        "laterality": case.laterality.value,
        "caption": case.report,
        "phrase": label.phrase if label else "",
        "cluster": label.cluster if label else "",
        "how": label.how.value if label else "",
    }


def _cluster_row(cluster: Cluster, pure: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "cluster": cluster.number,
        "medoid": cluster.medoid,
        "zones_in_image_laterality": _flags(cluster.zones(Laterality.IMAGE)),
        "zones_in_patient_laterality": _flags(cluster.zones(Laterality.PATIENT)),
        "captions": cluster.captions,
        "phrases": len(cluster.phrases),
        "noise_fallen_to_it": cluster.fallen,
        "purity": f"{pure[0] / pure[1]:.4f}" if pure else "",
    }


def _flags(zones: ZoneSet | None) -> str:
    return "" if zones is None else "".join(map(str, zones.vector))


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
