"""The location phrases of a data set on a plane, with a key to their clusters."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from textwrap import shorten

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from sgseg.formats import atomic
from sgseg.training.pseudo_labels import Cluster, PseudoLabels

_PERPLEXITY = 10
_KEY_ROWS = 48
_KEY_COLUMNS = 2
_KEY_WIDTH = 72
_FEW_POINTS = 3
_GREY = (0.6, 0.6, 0.6, 1.0)


def draw_clusters(result: PseudoLabels, path: Path) -> None:
    """Draws clusters.png: t-SNE of the phrases' embeddings, each as large as it is common.

    A number stands at the medoid of each cluster, its phrase in the key. Noise is hollow, in the colour of
    the cluster that it falls to; clusters that nobody understands are grey.
    """
    counts = Counter(label.phrase for label in result.labels)
    of_phrase = {label.phrase: label for label in result.labels}
    places = _plane(result.embeddings)
    place_of = dict(zip(result.phrases, places, strict=True))
    colours = _colours(result.clusters)
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(20, 10), layout="constrained")
        axes, key = figure.subplots(1, 2, width_ratios=(10, 9.5))
        for phrase in sorted(result.phrases, key=lambda phrase: -counts[phrase]):
            label, colour = of_phrase[phrase], colours[of_phrase[phrase].cluster]
            axes.scatter(
                *place_of[phrase],
                s=25 + 6 * np.sqrt(counts[phrase]) ** 1.5,
                facecolors="none" if label.noise else colour,
                edgecolors=colour if label.noise else "white",
                linewidths=1.2 if label.noise else 0.6,
            )
        for cluster in result.clusters:
            axes.annotate(str(cluster.number), place_of[cluster.medoid], ha="center", va="center", fontsize=7)
        axes.set(xticks=[], yticks=[], title=_title(result))
        axes.spines[:].set_color("lightgrey")
        _draw_key(key, result.clusters, colours)
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")


def _plane(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) -> (N, 2) by t-SNE, which keeps neighbours together; by PCA where there are too few for it."""
    if len(embeddings) <= _FEW_POINTS:
        return PCA(2).fit_transform(np.pad(embeddings, ((0, 2), (0, 2))))[: len(embeddings)]
    perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(embeddings)


def _colours(clusters: tuple[Cluster, ...]) -> dict[int, tuple[float, ...]]:
    """Neighbours in the key differ most: steps of the golden angle round the colour circle."""
    hue = matplotlib.colormaps["hsv"]
    pale = {c.number: np.array(hue(c.number * 0.618 % 1)) * 0.6 + 0.4 for c in clusters}
    return {c.number: tuple(pale[c.number]) if c.readable else _GREY for c in clusters}


def _title(result: PseudoLabels) -> str:
    noise = len({label.phrase for label in result.labels if label.noise})
    unreadable = sum(not cluster.readable for cluster in result.clusters)
    return (
        f"{len(result.labels):,} captions, {len(result.phrases)} location phrases, {len(result.clusters)} "
        f"clusters ({unreadable} unreadable, grey); {noise} phrases are noise (hollow)"
    )


def _draw_key(axes: Axes, clusters: tuple[Cluster, ...], colours: dict[int, tuple[float, ...]]) -> None:
    axes.axis("off")
    axes.set(xlim=(0, _KEY_COLUMNS), ylim=(_KEY_ROWS + 1, -1), title="cluster: medoid phrase (captions)")
    shown = clusters[: _KEY_ROWS * _KEY_COLUMNS]
    for i, cluster in enumerate(shown):
        column, row = divmod(i, _KEY_ROWS)
        axes.scatter(column + 0.02, row, s=60, color=colours[cluster.number], clip_on=False)
        phrase = shorten(cluster.medoid, _KEY_WIDTH, placeholder=" …")
        text = f"{cluster.number}  {phrase} ({cluster.captions:,})"
        axes.text(column + 0.05, row, text, va="center")
    if len(clusters) > len(shown):
        axes.text(0.05, _KEY_ROWS, f"… and {len(clusters) - len(shown)} smaller ones", va="center")
