"""What classifiers on frozen states have in common: a head that begins as a pool of linear classifiers.

Beside the states of a model the head is given what a sample's texts share in words and letters, which states forget,
and for each grade what the words themselves say (`trainers.opinion_pool`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from store.errors import PiarError
from trainers.opinion_pool import Begun, fit_pool
from trainers.overlap import COMPARED, compared, parts
from trainers.words import KEPT, Words

HEAD = "head.safetensors"
UNMADE = torch.device("meta")  # where what a file describes takes no memory before the file's tensors fit it
MOST_TEXTS = 4  # of a sample; one of more fields is read as the pair of `Task.pair`
OnProgress = Callable[[int], None]  # called with the samples done since the last call
Pool = Callable[
    [NDArray[Any], int], Begun
]  # of features of the rows that are learnt from, the last so many comparisons
_KEYS = {"head.weight": "weight", "head.bias": "bias", "mean": "mean", "spread": "spread"}  # here -> in the file


class Encoded(list[int]):
    """Tokens of one sample.

    Attributes:
        types: of each token, to which of the two texts it belongs, where the encoder reads that.
        texts: tokens of each text that a `Fitted` one reads by itself.
        said: the sample's texts, for a `Fitted` one.
        compared: what `Fitted.compare` says of them.
    """

    types: list[int] | None = None
    texts: Sequence[list[int]] = ()
    said: Sequence[str] = ()
    compared: Sequence[float] = ()

    @property
    def longest(self) -> int:
        """Tokens that are read at once."""
        return max(map(len, self.texts), default=len(self))


def compared_of(ids: Sequence[Encoded], device: torch.device) -> Tensor | None:
    """[N, …] what was compared of samples, None where nothing was."""
    return torch.tensor([one.compared for one in ids], device=device) if any(one.compared for one in ids) else None


def no_head(folder: Path, error: Exception) -> PiarError:
    """Say that a folder's head is none of its model."""
    return PiarError(
        f"{folder / HEAD} is no head of its encoder: {next(iter(str(error).splitlines()), '')}.",
        "Train it again, or use another checkpoint.",
    )


class Fitted(nn.Module, ABC):
    """Logits of K grades from states of a model and from words.

    Args:
        texts: of a sample.
        states: how many features are made of the model's states.
        cosines: how many features behind those are cosines.
        compares: whether what the texts share is among the features; older ones have states alone.
        worded: whether the words' logits are, as the last K.
    """

    mean: Tensor  # [F] of the features of the rows that the head began with
    spread: Tensor
    words: Words | None = None  # once they are known

    def __init__(
        self, texts: int, grades: int, *, states: int, cosines: int = 0, compares: bool = True, worded: bool = True
    ) -> None:
        super().__init__()
        self.texts = texts
        self.compares, self.worded = compares, grades if worded else 0
        self._size(states, cosines, grades)

    def _size(self, states: int, cosines: int, grades: int) -> None:
        """Make a head of chance for so many features."""
        self.telling = cosines + COMPARED * comb(self.texts, 2) if self.compares else 0
        size = states + self.telling + self.worded
        self.head = nn.Linear(size, grades)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    @property
    @abstractmethod
    def config(self) -> Any:
        """The model's, with the names of the grades."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @abstractmethod
    def tokens(self, tokenizer: Any, texts: Sequence[Sequence[str]], limit: int | None) -> list[list[list[int]]]:
        """Of each sample's texts the tokens that are read, at most `limit` at once."""

    @abstractmethod
    def features(
        self, tokenizer: Any, ids: Sequence[Encoded], on_progress: OnProgress = lambda n: None
    ) -> NDArray[np.float32]:
        """[N, F] what the head is given of samples."""

    def compare(self, rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """Of each row of texts what each two share, see `trainers.overlap`, and its words' logits: 0 before they are
        known; empty for older ones, which have states alone."""
        found: list[list[float]] = [[] for _ in rows]
        if self.telling:
            looked = [list(map(parts, row)) for row in rows]
            found = [[share for a, b in combinations(row, 2) for share in compared(a, b)] for row in looked]
        if self.worded:
            logits = self.words.logits(rows) if self.words else np.zeros((len(rows), self.worded))
            found = [one + said for one, said in zip(found, logits.tolist(), strict=True)]
        return found

    def judged(self, features: Tensor) -> Tensor:
        """[m, K] logits of features [m, F]."""
        logits: Tensor = self.head((features - self.mean) / self.spread)
        return logits

    def begin(
        self,
        features: NDArray[Any],
        texts: Sequence[Sequence[str]],
        gold: Sequence[int],
        groups: Sequence[str],
        seed: int,
    ) -> None:
        """Set the head to a pool of linear classifiers of these rows' features [N, F] and texts; nothing where all
        have one grade."""
        if len(set(gold)) < 2:
            return

        def pool(features: NDArray[Any], telling: int) -> Begun:
            told = {"grades": self.head.out_features, "telling": telling, "seed": seed}
            return fit_pool(features, texts, np.asarray(gold), np.asarray(groups), **told)

        self._choose(features[:, : features.shape[1] - self.worded], pool)

    def _choose(self, features: NDArray[Any], pool: Pool) -> None:
        """Set the head to the pool of features without the words' logits, or of some of them."""
        self._take(pool(features, self.telling))

    def _take(self, begun: Begun) -> None:
        """Set the head to a pool."""
        grades, own = self.head.out_features, self.head.in_features - self.worded
        with torch.no_grad():
            self.head.weight[:, :own].copy_(torch.as_tensor(begun.weight))
            self.head.weight[:, own:].copy_(torch.eye(grades))
            self.head.bias.copy_(torch.as_tensor(begun.bias))
            self.mean[:own].copy_(torch.as_tensor(begun.mean))
            self.spread[:own].copy_(torch.as_tensor(begun.spread))
        self.words = begun.words

    def save_head(self, folder: Path, said: dict[str, str], more: dict[str, Tensor] | None = None) -> None:
        """Write the head beside the model.

        Args:
            said: what `load` needs to know.
            more: tensors beside the head's.
        """
        told = {key: self.state_dict()[name] for name, key in _KEYS.items()} | (more or {})
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in told.items()}
        if self.words:
            tensors |= {name: torch.from_numpy(values) for name, values in self.words.tensors().items()}
        told_of = {"texts": str(self.texts), "compares": str(int(self.telling > 0))}
        told_of |= {"worded": str(int(self.worded > 0)), "words": str(int(self.words is not None))}
        save_file(tensors, folder / HEAD, metadata=said | told_of)

    def load_head(self, file: Any) -> None:
        """Take the head and the words of an open file.

        Raises:
            RuntimeError, ValueError, SafetensorError: it holds none, or one of another size.
        """
        if self.worded and (file.metadata() or {}).get("words") == "1":
            self.words = Words.of({key: file.get_tensor(key).numpy() for key in KEPT}, self.head.out_features)
        tensors = {name: file.get_tensor(key).float() for name, key in _KEYS.items()}
        self.load_state_dict(tensors, strict=False, assign=True)  # only the model's own are left
