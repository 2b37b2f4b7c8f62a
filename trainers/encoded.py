"""Samples as an encoder meets them: tokens of their texts, together or apart, in padded batches."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from store.task import Task
from trainers.chat import whole
from trainers.embedding import alike, pad
from trainers.fitted import Encoded, Fitted, OnProgress, compared_of

Row = dict[str, Any]
Floats = NDArray[np.float64]
_BATCH = 64  # samples that are judged together, those of like length


def predict(
    model: Any, tokenizer: Any, rows: Sequence[Row], task: Task, limit: int, on_progress: OnProgress = lambda n: None
) -> Floats:
    """[rows, K] probabilities of shard rows, in the order given."""
    ids = encode(model, tokenizer, [row["fields"] for row in rows], task, limit)
    return probabilities(model.eval(), tokenizer, ids, on_progress)


@torch.inference_mode()
def probabilities(
    model: Any, tokenizer: Any, ids: Sequence[Encoded], on_progress: OnProgress = lambda n: None
) -> Floats:
    """[rows, K] probabilities of encoded samples, in the order given."""
    if isinstance(model, Fitted):
        seen = torch.from_numpy(model.features(tokenizer, ids, on_progress)).to(model.device)
        return np.asarray(model.judged(seen).double().softmax(-1).cpu().numpy())
    found = np.zeros((len(ids), model.config.num_labels))
    for part in alike(ids, _BATCH, model):
        inputs = padded(tokenizer, [ids[i] for i in part]).to(model.device)
        found[part] = model(**inputs).logits.double().softmax(-1).cpu().numpy()
        on_progress(len(part))
    return found


def encode(
    model: Any, tokenizer: Any, rows: Sequence[Sequence[str]], task: Task, limit: int | None = None
) -> list[Encoded]:
    """Tokens of rows' texts as the pair of `Task.pair`; apart each field's, where the encoder has as many texts.

    Together at most `limit` of a row, taken from the longer text; apart at most so many of each text, or of a prompt.
    """
    texts = [_texts(task, [whole(text) for text in row], getattr(model, "texts", 2)) for row in rows]
    if not texts:
        return []
    if isinstance(model, Fitted):
        apart = [_apart(*each) for each in zip(texts, model.tokens(tokenizer, texts, limit), strict=True)]
        compare(model, apart)
        return apart
    columns = [list(column) for column in zip(*texts, strict=True)]
    told = {"truncation": limit is not None, "max_length": limit, "verbose": False}
    both = tokenizer(*columns, **told, split_special_tokens=True)  # what a sample says is never a control token
    found = [Encoded(row) for row in both["input_ids"]]
    for one, types in zip(found, both.get("token_type_ids", [None] * len(found)), strict=True):
        one.types = types
    return found


def fitting(
    model: Any, tokenizer: Any, rows: Sequence[Sequence[str]], task: Task, limit: int
) -> tuple[list[Encoded], int]:
    """The same, cut where a row is longer; and how many were."""
    found = encode(model, tokenizer, rows, task)
    cut = sum(one.longest > limit for one in found)
    return encode(model, tokenizer, rows, task, limit) if cut else found, cut


def _texts(task: Task, row: Sequence[str], most: int) -> Sequence[str]:
    """A row's texts: each field, `Task.asked` in front, where so many are read, else the pair."""
    if len(row) > 1 and most < len(row):
        return task.pair(row)
    first = task.fields.index(task.asked)
    return [row[first], *(text for i, text in enumerate(row) if i != first)]


def _apart(texts: Sequence[str], tokens: Sequence[list[int]]) -> Encoded:
    found = Encoded(chain(*tokens))
    found.texts, found.said = tokens, texts
    return found


def compare(model: Fitted, ids: Sequence[Encoded]) -> None:
    """Set what an encoder that reads apart is told of samples' texts, as it knows words by now."""
    for one, told in zip(ids, model.compare([one.said for one in ids]), strict=True):
        one.compared = told


def padded(tokenizer: Any, ids: Sequence[Encoded]) -> Any:
    """A batch of encoded samples; where the texts are apart, all first ones, then all second ones and so on."""
    rows = [list(text) for column in zip(*(one.texts for one in ids), strict=True) for text in column]
    batch: dict[str, Any] = {"input_ids": rows or [list(one) for one in ids]}
    if all(one.types is not None for one in ids):
        batch["token_type_ids"] = [one.types for one in ids]
    found = pad(tokenizer, batch)
    if (shared := compared_of(ids, torch.device("cpu"))) is not None:
        found["compared"] = shared
    return found
