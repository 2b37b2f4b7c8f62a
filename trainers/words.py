"""Words of a sample's texts as a linear classifier sees them: hashed, so that no vocabulary is kept, and weighed by how
rare they are (tf-idf as scikit-learn has it: sublinear, smoothed, each text of length 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUCKETS = 2**20  # of one text's words and pairs of neighbours
MOST = 50_000  # of them that are kept, the most common
CHARACTERS = 20_000  # of a text that are read
KEPT = ("words.index", "words.rarity", "words.weight")  # names of what `Words.tensors` keeps


@dataclass(frozen=True, slots=True)
class Words:
    """What was seen of the texts of training rows.

    Attributes:
        index: [S] buckets in ascending order, those of the second text behind those of the first and so on.
        rarity: [S] inverse document frequency.
        weight: [K, S] what each says for each grade.
    """

    index: NDArray[np.int64]
    rarity: NDArray[np.float32]
    weight: NDArray[np.float32]

    @classmethod
    def seen(cls, rows: Sequence[Sequence[str]], grades: int) -> "Words":
        """The words of rows of texts, which say nothing yet."""
        index, rarity = [], []
        for place, texts in enumerate(zip(*rows, strict=True)):
            buckets, count = np.unique(_counted(texts).indices, return_counts=True)
            common = np.sort(np.argsort(-count, kind="stable")[:MOST])
            index.append(buckets[common].astype(np.int64) + place * BUCKETS)
            rarity.append(np.log((1 + len(rows)) / (1 + count[common])) + 1)
        kept = np.concatenate(index)
        weight = np.zeros((grades, len(kept)), dtype=np.float32)
        return cls(kept, np.concatenate(rarity).astype(np.float32), weight)

    def features(self, rows: Sequence[Sequence[str]]) -> Any:
        """scipy's sparse [N, S] of rows of texts."""
        from scipy.sparse import csr_array, hstack

        parts = []
        for place, texts in enumerate(zip(*rows, strict=True)):
            mine = slice(*np.searchsorted(self.index, (place * BUCKETS, (place + 1) * BUCKETS)))
            index, counted = self.index[mine] - place * BUCKETS, _counted(texts)
            at = np.searchsorted(index, counted.indices)
            known = np.isin(counted.indices, index)
            said = (1 + np.log(counted.data[known])) * self.rarity[mine][at[known]]
            ends = np.concatenate([[0], known.cumsum()])[counted.indptr]
            row = np.repeat(np.arange(len(texts)), np.diff(ends))
            said /= np.sqrt(np.bincount(row, weights=said**2, minlength=len(texts)))[row]
            parts.append(csr_array((said, at[known], ends), shape=(len(texts), len(index))))
        return hstack(parts).tocsr()

    def logits(self, rows: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """[N, K] what the words of rows of texts say for each grade."""
        return np.asarray(self.features(rows) @ self.weight.T.astype(np.float64))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What `of` reads."""
        return dict(zip(KEPT, (self.index, self.rarity, self.weight), strict=True))

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]], grades: int) -> "Words":
        """Words that were kept.

        Raises:
            ValueError: no words of so many grades.
        """
        index, rarity, weight = (tensors[name] for name in KEPT)
        if index.ndim != 1 or rarity.shape != index.shape or weight.shape != (grades, len(index)):
            raise ValueError("its words have other shapes")
        if not (np.diff(index) > 0).all() or not np.isfinite(rarity).all() or not np.isfinite(weight).all():
            raise ValueError("its words are not in order")
        return cls(index.astype(np.int64), rarity, weight)


@cache
def _counter() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=BUCKETS, ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32)


def _counted(texts: Sequence[str]) -> Any:
    """Sparse counts [N, BUCKETS]."""
    return _counter().transform([text[:CHARACTERS] for text in texts])
