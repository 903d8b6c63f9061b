"""The paper's tables: a view of the records of their runs, rewritten after each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sgseg.errors import ConfigError, DataError
from sgseg.formats import atomic, write_json
from sgseg.reports import Guidance
from sgseg.reproduce.runs import SPLIT, THRESHOLD, Bench, seeds_of

Records = Mapping[tuple[str, int], dict[str, Any]]
"""The records of runs, by name and seed."""

_SCORES = ("accuracy", "dice", "jaccard")
_TITLES = {"table1": "Table 1", "table2": "Table 2"}
_AVERAGING = (
    "Accuracy, Dice and Jaccard are pooled over all pixels, Dice with its 95 % interval by patient; beside "
    "them the mean Dice over images. They are of the first of the seeds named. Over several seeds: mean ± "
    "standard deviation (n − 1) of the pooled Dice of those trained by this version's recipe. Start: whose "
    "weights the run began with. The last column is the paper's Accuracy / Dice / Jaccard, not measured here."
)
_HEADINGS = (
    *("system", "guidance", "parameters", "start", "seeds", "Accuracy", "Dice", "Jaccard"),
    *("Dice over seeds", "Dice, per image", "paper"),
)
_NOT_YET = "not trained yet"


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        name: of the system.
        run: what is trained for it, a key of `RUNS`.
        guidance: under which it is examined.
        paper: the paper's Accuracy, Dice and Jaccard; None where the paper has no such row.
    """

    name: str
    run: str
    guidance: Guidance
    paper: tuple[float, float, float] | None = None


_NONE, _SELF, _TEXT = Guidance.NONE, Guidance.SELF, Guidance.TEXT

TABLES: dict[str, tuple[Row, ...]] = {
    "table1": (
        Row("U-Net", "unet", _NONE, (0.945, 0.819, 0.692)),
        Row("U-Net++", "unetpp", _NONE, (0.947, 0.823, 0.706)),
        Row("Attention U-Net", "attention-unet", _NONE, (0.945, 0.822, 0.701)),
        Row("TransUNet", "transunet", _NONE, (0.939, 0.806, 0.687)),
        Row("Swin-Unet", "swin-unet", _NONE, (0.950, 0.832, 0.724)),
        Row("SGSeg", "sgseg", _SELF, (0.971, 0.874, 0.778)),
        Row("SGSeg, its likeliest reports mixed", "sgseg", Guidance.SELF_SOFT),
        Row("SGSeg, guidance left out", "sgseg", _NONE),
        Row("LViT, text given", "lvit", _TEXT, (0.962, 0.837, 0.751)),
        Row("LanGuideSeg, text given", "languidemedseg", _TEXT, (0.975, 0.898, 0.815)),
        Row("U-Net on the ImageNet encoder", "unet-imagenet", _NONE),
        Row("U-Net++ on the ImageNet encoder", "unetpp-imagenet", _NONE),
        Row("Attention U-Net on the ImageNet encoder", "attention-unet-imagenet", _NONE),
        Row("Residual U-Net (nnU-Net's recipe)", "nnunet", _NONE),
        Row("Prototypes (after ProLearn)", "prototypes", _NONE),
    ),
    "table2": (
        Row("Without text", "image-only", _NONE, (0.953, 0.846, 0.725)),
        Row("Trained with text, guidance left out", "sgseg", _NONE),
        Row("CLIP pre-training", "clip", _NONE, (0.962, 0.850, 0.740)),
        Row("Simple report generation", "simple-report", _SELF, (0.966, 0.861, 0.759)),
        Row("LERG", "sgseg", _SELF, (0.971, 0.874, 0.778)),
        Row("Full text", "sgseg", _TEXT, (0.973, 0.890, 0.797)),
        Row("Zone embeddings, own zones", "zone-embeddings", _SELF),
        Row("Zone embeddings, true zones", "zone-embeddings", _TEXT),
    ),
}


def runs_of(table: str, only: Sequence[str] = ()) -> list[str]:
    """The runs of a table, each once, in the order of its rows; of `only`, if that is given.

    Raises:
        ConfigError: `only` names a run that the table has not.
    """
    runs = list(dict.fromkeys(row.run for row in TABLES[table]))
    if unknown := [name for name in only if name not in runs]:
        raise ConfigError(f"{table} has no run {unknown[0]!r}; give --only some of {','.join(runs)}")
    return [name for name in runs if not only or name in only]


def make_table(table: str, bench: Bench, seeds: Sequence[int] = (), only: Sequence[str] = ()) -> Path:
    """Makes the records that a table lacks, one after the other, and writes it anew after each.

    All runs come with their first seed before any comes with its second.

    Args:
        table: of `TABLES`.
        bench: where runs and results lie.
        seeds: of every run; by default those of `SEEDS`.
        only: the runs to train and examine now; the other rows show what was there already.

    Returns:
        The table as Markdown; the JSON is beside it.

    Raises:
        ConfigError, DataError: there is no such run; or no data set, and a run has no record.
    """
    work = list(_in_turn({name: seeds or seeds_of(name, bench.preset) for name in runs_of(table, only)}))
    records = bench.records(runs_of(table))
    path = bench.published / f"{table}.md"
    for number, (name, seed) in enumerate(work, start=1):
        bench.say(f"{number}/{len(work)} {name}, seed {seed}")
        if (name, seed) not in records:
            bench.examine(name, seed)
            records = bench.records(runs_of(table))  # all anew: other calls may have made some meanwhile
        document = _document(table, bench, records, seeds)
        write_json(path.with_suffix(".json"), document)
        with atomic(path) as temporary:
            temporary.write_text(_markdown(document), encoding="utf-8")
    return path


def _in_turn(seeds: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int]]:
    """All runs with their first seed, then with their second, …"""
    for round_ in zip_longest(*seeds.values()):
        yield from ((name, seed) for name, seed in zip(seeds, round_, strict=True) if seed is not None)


def _document(table: str, bench: Bench, records: Records, seeds: Sequence[int]) -> dict[str, Any]:
    if len({record["cases"] for record in records.values()}) > 1:
        told = ", ".join(f"{name} seed {seed}: {r['cases']:,}" for (name, seed), r in records.items())
        raise DataError(
            f"the records in {bench.published} are of data sets of different size ({told}); remove the "
            "wrong ones"
        )
    some = next(iter(records.values()))
    return {
        "table": table,
        "preset": bench.preset,
        "data": some["data"],
        "split": SPLIT,
        "cases": some["cases"],
        "threshold": THRESHOLD,
        "averaging": _AVERAGING,
        "rows": [_row(row, bench, records, seeds) for row in TABLES[table]],
    }


def _row(row: Row, bench: Bench, records: Records, seeds: Sequence[int]) -> dict[str, Any]:
    of_run = {seed: record for (name, seed), record in sorted(records.items()) if name == row.run}
    first = next(iter(of_run.values()), None)
    measured = [_measured(record, row.guidance, bench) for record in of_run.values()]
    dice = [each["pooled"]["dice"]["value"] for each in measured if each["same_recipe"]]
    return {
        "system": row.name,
        "run": row.run,
        "guidance": row.guidance.value,
        "parameters": first and first["parameters"],
        "init": first and first["init"],
        "seeds": measured,
        "missing_seeds": [s for s in seeds or seeds_of(row.run, bench.preset) if s not in of_run],
        "dice_over_seeds": {"mean": mean(dice), "sd": stdev(dice)} if len(dice) > 1 else None,
        "paper": None if row.paper is None else dict(zip(_SCORES, row.paper, strict=True)),
    }


def _measured(record: Mapping[str, Any], guidance: Guidance, bench: Bench) -> dict[str, Any]:
    """One seed's scores, and what they are of."""
    scores = record["guidance"][guidance.value]
    return {
        "seed": record["seed"],
        "sha256": record["model"]["sha256"],
        "commits": record["trained"]["commits"],
        "pooled": {score: scores["pooled"][score] for score in _SCORES},
        "per_image_dice": scores["per_image"]["dice"],
        "warnings": record["trained"]["warnings"],
        "same_recipe": bench.same_recipe(dict(record)),
    }


def _markdown(document: Mapping[str, Any]) -> str:
    rows = document["rows"]
    about = (
        f"{document['data']}, split `{document['split']}`, {document['cases']:,} cases, threshold "
        f"{document['threshold']}, preset `{document['preset']}`. {document['averaging']}"
    )
    lines = [f"# {_TITLES[document['table']]}", "", about, ""]
    lines += [_cells(_HEADINGS), "|" + "---|" * len(_HEADINGS), *(_cells(_line(row)) for row in rows)]
    seeds = [(row, seed) for row in rows for seed in row["seeds"]]
    lines += _notes(
        "Weights that could not be reached",
        [f"{row['system']}: {w}" for row, s in seeds for w in s["warnings"]],
    )
    lines += _notes(
        "Trained by another recipe than this version's",
        [f"{row['run']}, seed {s['seed']}" for row, s in seeds if not s["same_recipe"]],
    )
    return "\n".join(lines) + "\n"


def _line(row: Mapping[str, Any]) -> list[str]:
    paper = "–" if row["paper"] is None else " / ".join(f"{row['paper'][s]:.3f}" for s in _SCORES)
    if not row["seeds"]:
        return [row["system"], row["guidance"], _NOT_YET, *["–"] * (len(_HEADINGS) - 4), paper]
    first, over_seeds = row["seeds"][0], row["dice_over_seeds"]
    accuracy, dice, jaccard = (first["pooled"][score] for score in _SCORES)
    return [
        row["system"],
        row["guidance"],
        f"{row['parameters'] / 1e6:.1f} M",
        row["init"],
        _seeds(row),
        f"{accuracy['value']:.4f}",
        f"{dice['value']:.4f} ({dice['low']:.3f}–{dice['high']:.3f})",
        f"{jaccard['value']:.4f}",
        "–" if over_seeds is None else f"{over_seeds['mean']:.4f} ± {over_seeds['sd']:.4f}",
        f"{first['per_image_dice']['value']:.4f}",
        paper,
    ]


def _seeds(row: Mapping[str, Any]) -> str:
    there = ", ".join(str(each["seed"]) for each in row["seeds"])
    missing = ", ".join(map(str, row["missing_seeds"]))
    return f"{there} ({missing} {_NOT_YET})" if missing else there


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _notes(title: str, notes: Sequence[str]) -> list[str]:
    return ["", f"{title}:", "", *(f"- {note}" for note in dict.fromkeys(notes))] if notes else []
