"""Samples as an encoder meets them: tokens of one text or two, together or apart, in padded batches."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from store.task import Task
from trainers.apart import Apart
from trainers.chat import whole
from trainers.embedding import tokenize

Row = dict[str, Any]
_BATCH = 64  # samples that are judged together, those of like length


class Encoded(list[int]):
    """Tokens of one sample.

    Attributes:
        types: of each token, to which of the two texts it belongs, where the encoder reads that.
        second: where the second text begins, for an encoder that reads them apart.
    """

    types: list[int] | None = None
    second: int | None = None

    @property
    def longest(self) -> int:
        """Tokens that are read at once."""
        return len(self) if self.second is None else max(self.second, len(self) - self.second)


def predict(model: Any, tokenizer: Any, rows: Sequence[Row], task: Task, limit: int) -> NDArray[np.float64]:
    """[rows, K] probabilities of shard rows, in the order given."""
    ids = encode(model, tokenizer, [row["fields"] for row in rows], task, limit)
    return probabilities(model.eval(), tokenizer, ids)


@torch.inference_mode()
def probabilities(
    model: Any, tokenizer: Any, ids: Sequence[Encoded], on_progress: Callable[[int], None] = lambda n: None
) -> NDArray[np.float64]:
    """[rows, K] probabilities of encoded samples, in the order given."""
    found = np.zeros((len(ids), model.config.num_labels))
    for part, inputs in _batches(model, tokenizer, ids):
        found[part] = model(**inputs).logits.double().softmax(-1).cpu().numpy()
        on_progress(len(part))
    return found


@torch.inference_mode()
def features(model: Apart, tokenizer: Any, ids: Sequence[Encoded]) -> NDArray[np.float64]:
    """[rows, F] what the head of an encoder that reads apart is given."""
    found = np.zeros((len(ids), model.head.in_features))
    for part, inputs in _batches(model.eval(), tokenizer, ids):
        found[part] = model.features(**inputs).double().cpu().numpy()
    return found


def _batches(model: Any, tokenizer: Any, ids: Sequence[Encoded]) -> Iterator[tuple[list[int], Any]]:
    """Samples of like length, to be judged together: their places, and the model's inputs."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        yield part, padded(tokenizer, [ids[i] for i in part]).to(model.device)


def encode(
    model: Any, tokenizer: Any, rows: Sequence[Sequence[str]], task: Task, limit: int | None = None
) -> list[Encoded]:
    """Tokens of rows' texts as the pair of `Task.pair`.

    Together at most `limit` of a row, taken from the longer text; apart at most so many of each text.
    """
    pairs = [task.pair([whole(text) for text in row]) for row in rows]
    if not pairs:
        return []
    texts = ([a for a, _ in pairs], [b for _, b in pairs])[: 1 if len(task.fields) == 1 else 2]
    if isinstance(model, Apart):
        parts = [tokenize(tokenizer, *given, limit) for given in zip(texts, model.prompts, strict=False)]
        found = [Encoded(chain(*row)) for row in zip(*parts, strict=True)]
        for one, first in zip(found, parts[0], strict=True):
            one.second = len(first) if len(parts) == 2 else None
        return found
    told = {"truncation": limit is not None, "max_length": limit, "verbose": False}
    both = tokenizer(*texts, **told, split_special_tokens=True)  # what a sample says is never a control token
    found = [Encoded(row) for row in both["input_ids"]]
    for one, types in zip(found, both.get("token_type_ids", [None] * len(found)), strict=True):
        one.types = types
    return found


def padded(tokenizer: Any, ids: Sequence[Encoded]) -> Any:
    """A batch of encoded samples; where the texts are apart, all first ones and then all second ones."""
    rows = [list(one[: one.second]) for one in ids] + [list(one[one.second :]) for one in ids if one.second is not None]
    batch: dict[str, Any] = {"input_ids": rows}
    if all(one.types is not None for one in ids):
        batch["token_type_ids"] = [one.types for one in ids]
    return tokenizer.pad(batch, return_tensors="pt", verbose=False)
