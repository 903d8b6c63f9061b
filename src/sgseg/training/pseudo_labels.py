"""Pseudo-labels: the six zones of each caption, from clusters of its location phrase (paper, section 2.1).

    caption -> location phrase -> BERT embedding -> HDBSCAN -> cluster -> the zones of its medoid phrase

Only the medoid phrase of a cluster is ever read, so that one phrase speaks for captions that the grammar
does not understand. A phrase that HDBSCAN leaves out as noise falls to the cluster with the nearest medoid. A
cluster whose medoid the grammar does not understand gives no zones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN
from sklearn.metrics import pairwise_distances

from sgseg.anatomy import ZONES, Laterality, Side, Zone, ZoneSet
from sgseg.errors import ConfigError, DataError, ReportError
from sgseg.reports import parse
from sgseg.training.hub import cxr_bert
from sgseg.training.pretrained import mean_embeddings, minilm_embeddings

MIN_CLUSTER_SIZE = 3
"""As in the authors' script."""

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> (N, D) float32; the distance between two rows is how different the texts are."""

_NOISE = -1
_CLAIMS = frozenset(("pulmonary", "infection", "infected", "area", "areas"))
_PLACES = frozenset(
    (
        *("upper", "middle", "lower", "left", "right", "all", "both"),
        *("lung", "lungs", "zone", "zones", "field", "fields", "lobe", "lobes"),
    )
)


# --- text


def location_phrase(caption: str) -> str:
    """The part of a caption that says where, lower case.

    In the wording of the data that is what follows the last comma. Here the parts that claim an extent or a
    count are left out instead, so that a comma typed for "and" does not cost a lung. A caption without such
    parts, or with nothing else, is its own phrase ("no infection").
    """
    text = " ".join(caption.lower().split()).strip(" .")
    parts = [part.strip() for part in text.split(",")]
    rest = ", ".join(part for part in parts if part and not _is_claim(part))
    return rest if _PLACES.intersection(_words(rest)) else text


def _is_claim(part: str) -> bool:
    words = _words(part)
    return not _CLAIMS.isdisjoint(words) and _PLACES.isdisjoint(words)


def _words(text: str) -> list[str]:
    return re.findall("[a-z]+", text)


def embed(texts: Sequence[str], encoder: str | Path) -> NDArray[np.float32]:
    """Sentence embeddings of unit length, so that their Euclidean distance orders texts as the cosine does.

    Args:
        texts: N sentences.
        encoder: "minilm" (its package), "cxr-bert" (the hub, as the paper), or a folder in which
            CXR-BERT's own lies.

    Returns:
        (N, D) float32.

    Raises:
        ConfigError: there is no such encoder.
        HubError: CXR-BERT is not to be had.
        MissingExtraError: MiniLM's package is not installed.
    """
    if encoder == "minilm":
        embeddings = minilm_embeddings(texts).numpy()
    elif encoder == "cxr-bert" or Path(encoder).is_dir():
        tokenizer, bert = cxr_bert(None if encoder == "cxr-bert" else Path(encoder))
        embeddings = mean_embeddings(texts, tokenizer, bert).numpy()
    else:
        raise ConfigError(
            f"there is no encoder {str(encoder)!r}; give minilm, cxr-bert, or the folder with CXR-BERT's"
        )
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


# --- clusters


@dataclass(frozen=True)
class Cluster:
    """Phrases that lie together.

    Attributes:
        number: from 1, the cluster of most captions.
        medoid: the phrase that lies nearest to all others, each counted as often as it occurs.
        phrases: its phrases.
        captions: how many captions have one of these phrases.
        fallen: how many more have a phrase that is noise and nearest to this medoid.
    """

    number: int
    medoid: str
    phrases: tuple[str, ...]
    captions: int
    fallen: int

    def zones(self, laterality: Laterality) -> ZoneSet | None:
        """What the medoid phrase alone says; None where the grammar does not understand it."""
        try:
            return parse(self.medoid, laterality)
        except ReportError:
            return None

    @property
    def readable(self) -> bool:
        return self.zones(Laterality.IMAGE) is not None


class How(str, Enum):
    """How a caption came by its label."""

    CLUSTERED = "clustered"
    NEAREST = "nearest"
    """Its phrase is noise, and the nearest medoid speaks for it."""
    UNREADABLE = "unreadable"
    """It has no zones: nobody understands the medoid of its cluster, or of the nearest one."""


@dataclass(frozen=True)
class Label:
    """The pseudo-label of one caption.

    Attributes:
        phrase: its location phrase.
        laterality: whose left the caption means.
        cluster: number of its cluster, or of the nearest one.
        noise: whether HDBSCAN left the phrase out.
        zones: None where the medoid is not understood.
    """

    phrase: str
    laterality: Laterality
    cluster: int
    noise: bool
    zones: ZoneSet | None

    @property
    def how(self) -> How:
        if self.zones is None:
            return How.UNREADABLE
        return How.NEAREST if self.noise else How.CLUSTERED


@dataclass(frozen=True)
class PseudoLabels:
    """What clustering gave.

    Attributes:
        labels: of the captions, in their order.
        clusters: by number, from 1.
        phrases: the N different location phrases.
        embeddings: theirs, (N, D) float32.
    """

    labels: tuple[Label, ...]
    clusters: tuple[Cluster, ...]
    phrases: tuple[str, ...]
    embeddings: NDArray[np.float32]


def pseudo_label(
    captions: Sequence[tuple[str, Laterality]], encode: Encode, min_cluster_size: int = MIN_CLUSTER_SIZE
) -> PseudoLabels:
    """Labels captions by clusters of their location phrases.

    Clusters are of words; whose left the words mean is asked only when a caption gets its zones.

    Args:
        captions: each with whose left it means.
        encode: the text encoder; it sees each phrase once.
        min_cluster_size: captions that make a cluster.

    Raises:
        DataError: the captions form no cluster.
    """
    told = [(location_phrase(caption), laterality) for caption, laterality in captions]
    counted = Counter(phrase for phrase, _ in told)
    phrases = tuple(sorted(counted))
    counts = np.array([counted[phrase] for phrase in phrases])
    embeddings = encode(phrases)
    found = cluster(embeddings, counts, min_cluster_size)
    noise = found == _NOISE
    if noise.all():
        raise DataError(
            f"{len(captions):,} captions with {len(phrases):,} different location phrases form no clusters "
            f"of {min_cluster_size}; give more captions or a smaller --min-cluster-size"
        )
    rows = [medoid(found == i, embeddings, counts) for i in range(found.max() + 1)]
    nearest = pairwise_distances(embeddings, embeddings[rows]).argmin(1)
    number = np.where(noise, nearest, found) + 1
    clusters = tuple(
        Cluster(
            number=i,
            medoid=phrases[row],
            phrases=tuple(phrases[j] for j in np.flatnonzero((number == i) & ~noise)),
            captions=int(counts[(number == i) & ~noise].sum()),
            fallen=int(counts[(number == i) & noise].sum()),
        )
        for i, row in enumerate(rows, 1)
    )
    owners = [clusters[i - 1] for i in number]
    own = dict(zip(phrases, zip(owners, noise.tolist(), strict=True), strict=True))
    labels = {each: _label(*each, *own[each[0]]) for each in set(told)}
    return PseudoLabels(tuple(labels[each] for each in told), clusters, phrases, embeddings)


def _label(phrase: str, laterality: Laterality, own: Cluster, noise: bool) -> Label:
    return Label(phrase, laterality, own.number, noise, own.zones(laterality))


def cluster(
    embeddings: NDArray[np.float32], counts: NDArray[np.int_], min_cluster_size: int
) -> NDArray[np.int_]:
    """HDBSCAN of points that each occur many times.

    A point that occurs `min_cluster_size` times is as dense as can be, and more copies of it change no
    core distance. So that many stand for all, and no set of equal points is large enough to be split. On
    QaTa's 9,258 captions it finds the clusters that HDBSCAN of all rows finds, in a thousandth of the time;
    with 4 % of them mistyped it finds the same 86, but for one caption.

    Args:
        embeddings: (N, D), all different texts.
        counts: (N,), how often each occurs.
        min_cluster_size: HDBSCAN's.

    Returns:
        (N,), the cluster of each, from 0, that of most points first; -1 is noise.
    """
    points, of_text = np.unique(embeddings, axis=0, return_inverse=True)
    of_text = of_text.reshape(-1)
    copies = np.minimum(np.bincount(of_text, counts), min_cluster_size).astype(int)
    rows = np.repeat(np.arange(len(points)), copies)
    if len(rows) < min_cluster_size:
        return np.full(len(embeddings), _NOISE)
    found = np.full(len(points), _NOISE)
    found[rows] = HDBSCAN(min_cluster_size=min_cluster_size, copy=True).fit_predict(points[rows])
    return _largest_first(found[of_text], counts)


def _largest_first(found: NDArray[np.int_], counts: NDArray[np.int_]) -> NDArray[np.int_]:
    """The same clusters, numbered by how many captions they have."""
    sizes = np.bincount(found[found != _NOISE], counts[found != _NOISE])
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    return np.append(rank, _NOISE)[found]


def medoid(members: NDArray[np.bool_], embeddings: NDArray[np.float32], counts: NDArray[np.int_]) -> int:
    """The member with the smallest sum of distances to all members, each counted as often as it occurs.

    Args:
        members: (N,), which points are meant; at least one.
        embeddings: (N, D).
        counts: (N,).

    Returns:
        Its row, the first one among equals.
    """
    rows = np.flatnonzero(members)
    distances = pairwise_distances(embeddings[rows].astype(np.float64))
    return int(rows[(distances @ counts[rows]).argmin()])


# --- how good it is


@dataclass(frozen=True)
class Agreement:
    """Pseudo-labels against zones that are known otherwise.

    Attributes:
        compared: captions whose zones are known.
        exact: those with all six zones right.
        unknown: those that got no label; they agree with nothing.
        zones: how many agree in each zone, in the canonical order.
        confused: how often a known set of zones, first, got the label that is second.
    """

    compared: int
    exact: int
    unknown: int
    zones: tuple[int, ...]
    confused: Counter[tuple[ZoneSet, ZoneSet]]

    @property
    def share(self) -> float:
        """Of all that were compared; NaN where there is nothing to compare."""
        return self.exact / self.compared if self.compared else float("nan")


def agreement(labels: Sequence[ZoneSet | None], known: Sequence[ZoneSet | None]) -> Agreement:
    """Compares labels with known zones, where these are known."""
    pairs = Counter((truth, label) for truth, label in zip(known, labels, strict=True) if truth is not None)
    labelled = Counter({(a, b): n for (a, b), n in pairs.items() if a is not None and b is not None})
    return Agreement(
        compared=pairs.total(),
        exact=sum(n for (truth, label), n in labelled.items() if truth == label),
        unknown=pairs.total() - labelled.total(),
        zones=tuple(sum(n for (a, b), n in labelled.items() if (zone in a) == (zone in b)) for zone in ZONES),
        confused=Counter({pair: n for pair, n in labelled.items() if pair[0] != pair[1]}),
    )


def purity(labels: Sequence[Label], known: Sequence[ZoneSet | None]) -> dict[int, tuple[int, int]]:
    """Of each cluster's own captions: how many have its commonest zones, and how many are known at all.

    Noise that fell to a cluster is none of its own. Zones are compared as words: where captions differ in
    laterality, those of the patient are mirrored.
    """
    members: dict[int, Counter[ZoneSet]] = {}
    for label, zones in zip(labels, known, strict=True):
        if zones is not None and not label.noise:
            words = zones if label.laterality is Laterality.IMAGE else zones.flipped()
            members.setdefault(label.cluster, Counter())[words] += 1
    return {number: (max(zones.values()), zones.total()) for number, zones in sorted(members.items())}


def confusion(truth: ZoneSet, label: ZoneSet) -> str:
    """What kind of mistake a label is: "side", "level", "zones lost", "zones added" or "several"."""
    lost, added = set(truth) - set(label), set(label) - set(truth)
    if not added:
        return "zones lost"
    if not lost:
        return "zones added"
    if added == {Zone(side.opposite, level) for side, level in lost}:
        return "side"
    if all(_in_lung(lost, side) == _in_lung(added, side) for side in Side):
        return "level"
    return "several"


def _in_lung(zones: set[Zone], lung: Side) -> int:
    return sum(side is lung for side, _ in zones)
