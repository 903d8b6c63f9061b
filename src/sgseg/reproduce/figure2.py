"""Figure 2: which words the decoder attends to. Do the words of location dominate, and by how much?

A token's importance is the share of the decoder's cross-attention that it gets, the mean over pixels, heads
and the three stages (`models.sgseg.Explanation.words`); the 24 of a report sum to 1. Wordpieces are joined to
words. SGSeg-compact reads a report as eight tokens of one sentence embedding and so has no words to attend
to: in the presets `cpu` and `smoke` the figure is of LanGuideMedSeg, whose decoder is the published one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sgseg.data import Case, read_cases
from sgseg.errors import DataError
from sgseg.evaluation import Score
from sgseg.evaluation.intervals import interval
from sgseg.evaluation.metrics import ratio
from sgseg.formats import write_json
from sgseg.imaging import fit, read
from sgseg.models import SGSeg
from sgseg.reports.grammar import COUNTS, EXTENTS, LEVELS
from sgseg.reproduce import pictures
from sgseg.reproduce.runs import SPLIT, Bench
from sgseg.training import config as configs
from sgseg.training.networks import report_tokens
from sgseg.training.runtime import TorchRuntime

OTHER = "other words"
CLASSES: dict[str, tuple[str, ...]] = {
    "location": tuple(LEVELS),
    "side": ("left", "right"),
    "count": COUNTS,
    "extent": tuple(EXTENTS),
    OTHER: (),
    "punctuation": (",", "."),
    "special tokens": ("[CLS]", "[SEP]"),
    "padding": ("[PAD]",),
}
"""Kinds of words; `OTHER` has the rest: pulmonary, infection, infected, area, areas, lung, and, no."""

# Of the palette of Okabe and Ito, told apart by the colour-blind; what is no word is grey.
_COLOURS = dict(
    zip(
        CLASSES,
        ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#999999", "#bbbbbb", "#dddddd"),
        strict=True,
    )
)
_NO_WORDS = ("punctuation", "special tokens", "padding")
_BATCH = 16
_NOTES = (
    "The decoder mixes the tokens before it attends to them; attention is handed back to them in proportion "
    "to the size of their mixing weights, and BERT has let every token hear of its neighbours. Padding is "
    "attended to as well: the published network masks none of its 24 tokens.",
    "SGSeg-compact reads a report as eight tokens of one sentence embedding and so has no words to attend "
    "to: in the presets cpu and smoke this is LanGuideMedSeg, whose decoder is the published one.",
)


class Ratio:
    """One score over another, over N images; 1 where both are 0.

    Attributes:
        summands: (N, 4) float64: numerator and denominator of the upper, then of the lower score.
    """

    def __init__(self, upper: Score, lower: Score) -> None:
        self._summands = np.concatenate([upper.summands, lower.summands], axis=1)

    @property
    def summands(self) -> NDArray[np.float64]:
        return self._summands

    def of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ratio for other sums of such summands: (..., 4) -> (...)."""
        return ratio(sums[..., 0] * sums[..., 3], sums[..., 1] * sums[..., 2])


def draw(bench: Bench, seed: int) -> list[Path]:
    """Draws figure 2 of the run `sgseg` (preset `paper`) or `languidemedseg`, over all of `test`.

    Returns:
        The JSON, PNG and PDF written.

    Raises:
        DataError: a case has no report.
    """
    name = "sgseg" if bench.preset == "paper" else "languidemedseg"
    bench.say(f"{name}, seed {seed}")
    player = bench.player(name, seed)
    assert isinstance(player.network, SGSeg)
    tokens = report_tokens(player.network, configs.load(bench.folder(name, seed) / "config.yaml"))
    split = read_cases(bench.root, SPLIT)
    reports = _reports(split)
    importance = _importance(player, split, reports)
    measured = statistics(importance, reports, tokens, [case.patient for case in split])
    document = {
        **pictures.about("figure2", bench, seed),
        "model": bench.model(name, seed, player),
        "cases": len(split),
        "guidance": "text",
        "importance": "share of the cross-attention; mean over pixels, heads and three stages",
        "interval": "95 %, by patient",
        "notes": _NOTES,
        **measured,
    }
    path = bench.published / "figure2.json"
    write_json(path, document)
    with pictures.style():
        return [path, *pictures.save(_figure(document), path)]


def join_wordpieces(tokens: Sequence[str]) -> list[tuple[str, slice]]:
    """Words, and the places of their tokens: ["un", "##ila", "lung"] -> unila 0…1, lung 2."""
    words: list[tuple[str, slice]] = []
    for place, token in enumerate(tokens):
        if token.startswith("##") and words:
            begun, places = words.pop()
            words.append((begun + token.removeprefix("##"), slice(places.start, place + 1)))
        else:
            words.append((token, slice(place, place + 1)))
    return words


def class_of(word: str) -> str:
    """The kind of a word, a key of `CLASSES`."""
    return next((name for name, words in CLASSES.items() if word in words), OTHER)


def statistics(
    importance: NDArray[np.float64],
    reports: Sequence[int],
    tokens: Sequence[Sequence[str]],
    patients: Sequence[str],
) -> dict[str, Any]:
    """What words and kinds of words get.

    Args:
        importance: of the tokens of each image's report, (N, L); each row sums to 1.
        reports: index of each image's report, N of 0…63.
        tokens: of the 64 reports, L each.
        patients: of the images, N.

    Returns:
        "words": for each word in how many images it is, how often, its mean importance each time, and the
        standard deviation of that over images. "classes": for each kind of word the share it gets, the share
        it would get if attention were spread evenly over the tokens, the mean of a token, and how many times
        that of all other tokens, and of the words of other kinds, its tokens get.
    """
    read_as = [join_wordpieces(row) for row in tokens]
    words: dict[str, list[tuple[float, int]]] = {}
    widths: dict[str, int] = {}
    sums = {name: np.zeros((len(reports), 2)) for name in CLASSES}  # importance and number of tokens
    for i, report in enumerate(reports):
        found: dict[str, list[float]] = {}
        for word, places in read_as[report]:
            share = float(importance[i, places].sum())
            found.setdefault(word, []).append(share)
            widths[word] = places.stop - places.start
            sums[class_of(word)][i] += share, places.stop - places.start
        for word, shares in found.items():
            words.setdefault(word, []).append((sum(shares), len(shares)))
    length = importance.shape[1]
    in_order = sorted(words, key=_place)
    there = {name: both for name, both in sums.items() if both[:, 1].any()}
    return {
        "words": {word: _word(word, words[word], widths[word] / length) for word in in_order},
        "classes": {name: _class(name, there, patients, length) for name in there},
    }


def _word(word: str, found: Sequence[tuple[float, int]], even: float) -> dict[str, Any]:
    """From the sum and the number of a word's occurrences in each image that has it."""
    shares, times = np.array(found).T
    return {
        "class": class_of(word),
        "images": len(found),
        "occurrences": int(times.sum()),
        "mean": float(shares.sum() / times.sum()),
        "even": even,
        "sd_over_images": float((shares / times).std()),
    }


def _class(
    name: str, sums: dict[str, NDArray[np.float64]], patients: Sequence[str], length: int
) -> dict[str, Any]:
    own = Score(*sums[name].T)
    others = [other for other in sums if other != name]
    other_words = [other for other in others if other not in _NO_WORDS]
    return {
        "share": interval(Score(sums[name][:, 0]), patients),
        "even_share": float(sums[name][:, 1].mean() / length),
        "tokens_per_image": float(sums[name][:, 1].mean()),
        "mean_per_token": float(own),
        "times_the_other_tokens": _times(own, [sums[other] for other in others], patients),
        "times_the_other_words": None
        if name in _NO_WORDS
        else _times(own, [sums[other] for other in other_words], patients),
    }


def _times(own: Score, rest: Sequence[NDArray[np.float64]], patients: Sequence[str]) -> dict[str, float]:
    return interval(Ratio(own, Score(*sum(rest, np.zeros_like(rest[0])).T)), patients)


def _place(word: str) -> tuple[int, int, str]:
    """Sorts words by their kinds, and within a kind as it lists them."""
    kind = class_of(word)
    return list(CLASSES).index(kind), (*CLASSES[kind], word).index(word), word


def _reports(cases: Sequence[Case]) -> list[int]:
    silent = [case.name for case in cases if case.zones is None]
    if silent:
        raise DataError(
            f"figure 2 needs a report for each case, and {silent[0]} has none; add it to the table"
        )
    return [case.zones.index for case in cases if case.zones is not None]


def _importance(player: TorchRuntime, cases: Sequence[Case], reports: Sequence[int]) -> NDArray[np.float64]:
    """Of the tokens of each case's true report, (N, REPORT_LENGTH)."""
    rows = []
    for start in range(0, len(cases), _BATCH):
        xrays = [read(case.image, force=True) for case in cases[start : start + _BATCH]]
        images = np.stack([fit(xray, player.size) for xray in xrays])
        found = player.explain(images, np.array(reports[start : start + _BATCH], dtype=np.int64))
        rows.append(found.words().detach().numpy().astype(np.float64))
    return np.concatenate(rows)


# --- the picture


def _figure(document: dict[str, Any]) -> Any:
    figure = pictures.figure(7.2, 5.6)
    words, classes = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_words(words, document["words"])
    _draw_classes(classes, document["classes"])
    ratios = document["classes"]["location"]
    figure.suptitle(
        "Importance of words in the cross-attention: a token of a location word gets\n"
        f"{_told(ratios['times_the_other_words'])} that of other words, "
        f"{_told(ratios['times_the_other_tokens'])} that of all other tokens",
        fontsize=9.5, x=0.01, ha="left",
    )  # fmt: skip
    pictures.footnote(
        figure, f"{pictures.told(document)}, {document['cases']:,} cases under their true reports"
    )
    return figure


def _draw_words(axes: Axes, words: dict[str, Any]) -> None:
    places = np.arange(len(words))
    means = [word["mean"] for word in words.values()]
    spread = [word["sd_over_images"] for word in words.values()]
    colours = [_COLOURS[word["class"]] for word in words.values()]
    axes.barh(places, means, xerr=spread, color=colours, ecolor=pictures.GREY, error_kw={"lw": 0.8})
    for place, word in enumerate(words.values()):
        pictures.mark(axes, word["even"], place)
    axes.set_yticks(places, [f"{name} ({word['images']:,})" for name, word in words.items()], fontsize=7)
    axes.set(xlabel="importance of a word: mean ± SD over images", xlim=(0, None))
    axes.set_title("Each word (in how many images; black: if spread evenly)", fontsize=8.5)
    axes.invert_yaxis()


def _draw_classes(axes: Axes, classes: dict[str, Any]) -> None:
    for place, (name, found) in enumerate(classes.items()):
        share, colour = found["share"], _COLOURS[name]
        axes.barh(place, share["value"], color=colour)
        axes.plot([share["low"], share["high"]], [place, place], color=pictures.GREY, lw=1.2)
        pictures.mark(axes, found["even_share"], place)
    axes.set_yticks(range(len(classes)), list(classes), fontsize=8)
    axes.set(xlabel="share of all attention", xlim=(0, None))
    axes.set_title("Each kind (black: if spread evenly)", fontsize=8.5)
    axes.invert_yaxis()


def _told(score: dict[str, float]) -> str:
    return f"{score['value']:.2f} × ({score['low']:.2f}–{score['high']:.2f})"
