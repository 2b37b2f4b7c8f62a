"""Texts as vectors, their nearest neighbours, and samples whose neighbours say otherwise; numpy alone.

A text's vector is its TF-IDF over hashed words and word pairs, folded to 128 dimensions by random signs, which keeps
angles (Johnson-Lindenstrauss; feature hashing, Weinberger et al. 2009). Any other vectors do as well: pass
your own `embed`, for instance a sentence-transformers model's `encode`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from store.similar import shingles

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Any]
Array = npt.NDArray[Any]

DIMENSIONS = 128
_FEATURES = 1 << 17
_EXACT = 20_000  # up to here every pair is compared
_PROBES = 6  # cells that are searched for one text
_SCORES = 1 << 23  # cosines held at a time
_NONE = -2.0  # below any cosine
_SPARE = 32  # beyond the k nearest: candidates that are compared again, exactly
_SLICE = 16_384  # texts that are hashed, or sent to their cells, at a time


def hashed_vectors(con: duckdb.DuckDBPyConnection, source: str, n: int, dimensions: int = DIMENSIONS) -> Vectors:
    """(n, D) unit vectors of the texts of a relation (place, words), place running from 0 to n − 1.

    Beside the vectors, four bytes for each distinct word and pair of a text are held: their rarity is known at the end.
    """
    return HashedWords(con, source, n, dimensions).learnt


class HashedWords:
    """Vectors of texts, the rarity of words and pairs being that among the texts of one relation.

    Args:
        con, source, n, dimensions: as of `hashed_vectors`.

    Attributes:
        learnt: the vectors of those texts.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, source: str, n: int, dimensions: int = DIMENSIONS) -> None:
        hashed, frequency = [], np.zeros(_FEATURES)
        for places, ends, features in _features(con, source):
            frequency += np.bincount(features, minlength=_FEATURES)
            hashed.append((places, ends, features))
        idf = np.log((n + 1) / (frequency + 1)) + 1
        self._signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.float32), size=(_FEATURES, dimensions))
        self._signs *= idf[:, None].astype(np.float32)
        self.learnt = self._vectors(hashed, n)

    def vectors(self, con: duckdb.DuckDBPyConnection, source: str, n: int) -> Vectors:
        """(n, D) unit vectors of other texts."""
        return self._vectors(_features(con, source), n)

    def _vectors(self, hashed: Iterable[tuple[Array, Array, Array]], n: int) -> Vectors:
        vectors = np.zeros((n, self._signs.shape[1]), dtype=np.float32)
        for places, ends, features in hashed:
            vectors[places] = unit(_sums(self._signs, ends, features))
        return vectors


def _features(con: duckdb.DuckDBPyConnection, source: str) -> Iterator[tuple[Array, Array, Array]]:
    """For slices of the texts: places; where in the third array the features of each begin, and the end; features."""
    import pyarrow.compute as pc

    hashed = f"list_transform({shingles('words')}, lambda feature: (feature & {_FEATURES - 1})::integer)"
    query = f"select place::integer as place, coalesce({hashed}, []) as features from ({source})"
    for batch in con.sql(query).to_arrow_reader(_SLICE):
        lengths = pc.list_value_length(batch["features"]).to_numpy()
        ends = np.concatenate([[0], np.cumsum(lengths)])
        yield batch["place"].to_numpy(), ends, batch["features"].flatten().to_numpy()


def _sums(rows: Vectors, ends: Array, chosen: Array) -> Vectors:
    """(N, D) sums of the chosen rows, those of the i-th sum being `chosen[ends[i] : ends[i + 1]]`."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(chosen), dtype=np.float32)
    summed = csr_matrix((ones, chosen, ends), shape=(len(ends) - 1, len(rows))) @ rows
    return np.asarray(summed, dtype=np.float32)


def unit(vectors: Array) -> Vectors:
    """Vectors scaled to length one; a vector of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)


def nearest(vectors: Vectors, k: int, *, seed: int = 0) -> tuple[Array, Array]:
    """(N, k) places of each vector's nearest others and (N, k) their cosines; place −1 where there are fewer.

    Up to 20,000 vectors by all pairs; beyond, in cells around √N sampled centres, six cells searched for each
    (an inverted file, Jégou, Douze and Schmid 2011): time N^1.5, a few neighbours are missed.
    """
    n = len(vectors)
    places = np.full((n, k), -1, dtype=np.int64)
    cosines = np.full((n, k), -1.0, dtype=np.float32)
    if n <= _EXACT:
        _merge(places, cosines, np.arange(n), np.arange(n), vectors)
        return places, cosines
    centres = _centres(vectors, int(n**0.5), seed)
    probes = np.vstack([_top(vectors[i : i + _SLICE] @ centres.T, _PROBES) for i in range(0, n, _SLICE)])
    order = np.argsort(probes[:, 0], kind="stable")
    edges = np.searchsorted(probes[order, 0], np.arange(len(centres) + 1))
    asking = np.argsort(probes.ravel(), kind="stable")
    bounds = np.searchsorted(probes.ravel()[asking], np.arange(len(centres) + 1))
    for cell in range(len(centres)):
        members = order[edges[cell] : edges[cell + 1]]
        _merge(places, cosines, asking[bounds[cell] : bounds[cell + 1]] // _PROBES, members, vectors)
    return places, cosines


def nearest_among(asked: Vectors, others: Vectors, k: int, barred: Callable[[int, int], Array]) -> tuple[Array, Array]:
    """(N, k) places in `others` of what is nearest to each asked vector, the nearest first, and (N, k) their cosines.

    All pairs are compared, in blocks. What comes out for a vector does not depend on what is asked beside it: blocks
    choose more than k by the fast product, and those are compared again one by one.

    Args:
        barred: from and to which asked vector -> (n, M) pairs that do not count.

    Returns:
        place −1 and cosine −2 where there are fewer than k.
    """
    places = np.full((len(asked), k), -1, dtype=np.int64)
    cosines = np.full((len(asked), k), _NONE)
    step, kept = max(1, _SCORES // max(1, len(others))), min(k + _SPARE, len(others))
    for start in range(0, len(asked) if len(others) else 0, step):
        stop = min(start + step, len(asked))
        scores = asked[start:stop] @ others.T
        scores[barred(start, stop)] = _NONE
        best = np.sort(_top(scores, kept), axis=1)
        exact = np.einsum("nd,nkd->nk", asked[start:stop].astype(np.float64), others[best].astype(np.float64)).round(9)
        exact[np.take_along_axis(scores, best, axis=1) == _NONE] = _NONE
        order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
        cosines[start:stop, : order.shape[1]] = np.take_along_axis(exact, order, axis=1)
        places[start:stop, : order.shape[1]] = np.take_along_axis(best, order, axis=1)
    places[cosines == _NONE] = -1
    return places, cosines


def _centres(vectors: Vectors, cells: int, seed: int) -> Vectors:
    """Cell centres: sampled vectors, moved once to the mean of what is nearest to them (one step of k-means)."""
    rng = np.random.default_rng(seed)
    sample = vectors[rng.choice(len(vectors), min(len(vectors), cells * 32), replace=False)]
    centres = sample[:cells]
    home = (sample @ centres.T).argmax(axis=1)
    sums = np.zeros_like(centres)
    np.add.at(sums, home, sample)
    return unit(sums + 1e-6 * centres)


def _top(scores: Array, k: int) -> Array:
    """(N, k) columns with the highest scores, in no order."""
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(-scores, k - 1, axis=1)[:, :k].copy()  # a view would keep all columns alive


def _merge(places: Array, cosines: Array, rows: Array, others: Array, vectors: Vectors) -> None:
    """Offer `others` as neighbours of `rows`, keeping the best k so far; cells may be crowded, so in blocks of rows."""
    if not len(others):
        return
    theirs, block = vectors[others], max(1, _SCORES // len(others))
    for start in range(0, len(rows), block):
        _merge_block(places, cosines, rows[start : start + block], others, vectors, theirs)


def _merge_block(places: Array, cosines: Array, rows: Array, others: Array, vectors: Vectors, theirs: Vectors) -> None:
    k = places.shape[1]
    scores = vectors[rows] @ theirs.T
    scores[rows[:, None] == others[None, :]] = -2.0
    best = _top(scores, min(k, len(others)))
    found = np.hstack([cosines[rows], np.take_along_axis(scores, best, axis=1)])
    where = np.hstack([places[rows], others[best]])
    keep = np.argsort(-found, axis=1, kind="stable")[:, :k]
    cosines[rows] = np.take_along_axis(found, keep, axis=1)
    places[rows] = np.where(cosines[rows] > -1.0, np.take_along_axis(where, keep, axis=1), -1)


def conflict(places: Array, cosines: Array, grades: Array, *, least: float = 0.5) -> Array:
    """(N,) share of a sample's neighbours that hold another grade, weighted by cosine; NaN without close neighbours.

    Args:
        grades: (N,) positions of the grades, −1 where none is known; such neighbours do not count.
        least: cosine from which a neighbour counts.

    Source: edited nearest neighbours, Wilson 1972.
    """
    theirs = np.where(places >= 0, grades[places], -1)
    weight = np.where((theirs >= 0) & (cosines >= least), cosines, 0.0)
    total = weight.sum(axis=1)
    against = (weight * (theirs != grades[:, None])).sum(axis=1)
    share = np.divide(against, total, out=np.full(len(total), np.nan), where=total > 0)
    return np.where(grades >= 0, share, np.nan)


def spread_out(vectors: Vectors, n: int, *, first: int = 1) -> list[int]:
    """Places of n vectors that cover all of them: the `first` ones, then always the one farthest from those chosen.

    Source: k-centre, Gonzalez 1985; for active learning, Sener and Savarese 2018.
    """
    chosen: list[int] = []
    nearest_chosen = np.full(len(vectors), -2.0, dtype=np.float32)
    for turn in range(min(n, len(vectors))):
        chosen.append(turn if turn < first else int(nearest_chosen.argmin()))
        nearest_chosen = np.maximum(nearest_chosen, vectors @ vectors[chosen[-1]])
        nearest_chosen[chosen[-1]] = np.inf
    return chosen
