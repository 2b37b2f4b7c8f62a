"""Samples as an encoder meets them: tokens of their texts, together or apart, in padded batches."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from store.task import Task
from trainers.apart import Apart
from trainers.chat import whole
from trainers.embedding import alike, batches, tokenize

Row = dict[str, Any]
Floats = NDArray[np.float64]
OnProgress = Callable[[int], None]  # called with the samples done since the last call
_BATCH = 64  # samples that are judged together, those of like length


class Encoded(list[int]):
    """Tokens of one sample.

    Attributes:
        types: of each token, to which of the two texts it belongs, where the encoder reads that.
        texts: tokens of each text, for an encoder that reads them apart.
        said: these texts.
        compared: what `Apart.compare` says of them.
    """

    types: list[int] | None = None
    texts: Sequence[list[int]] = ()
    said: Sequence[str] = ()
    compared: Sequence[float] = ()

    @property
    def longest(self) -> int:
        """Tokens that are read at once."""
        return max(map(len, self.texts), default=len(self))


def predict(model: Any, tokenizer: Any, rows: Sequence[Row], task: Task, limit: int) -> Floats:
    """[rows, K] probabilities of shard rows, in the order given."""
    ids = encode(model, tokenizer, [row["fields"] for row in rows], task, limit)
    return probabilities(model.eval(), tokenizer, ids)


@torch.inference_mode()
def probabilities(
    model: Any, tokenizer: Any, ids: Sequence[Encoded], on_progress: OnProgress = lambda n: None
) -> Floats:
    """[rows, K] probabilities of encoded samples, in the order given."""
    if isinstance(model, Apart):
        seen = torch.from_numpy(features(model, tokenizer, ids, on_progress)).to(model.device)
        return np.asarray(model.judged(seen).double().softmax(-1).cpu().numpy())
    found = np.zeros((len(ids), model.config.num_labels))
    for part in alike(ids, _BATCH, model):
        inputs = padded(tokenizer, [ids[i] for i in part]).to(model.device)
        found[part] = model(**inputs).logits.double().softmax(-1).cpu().numpy()
        on_progress(len(part))
    return found


@torch.inference_mode()
def features(
    model: Apart, tokenizer: Any, ids: Sequence[Encoded], on_progress: OnProgress = lambda n: None
) -> NDArray[np.float32]:
    """[rows, F] what the head of an encoder that reads apart is given; a text of several rows is read once."""
    texts = [[(skip, *tokens) for skip, tokens in zip(model.skipped, one.texts, strict=True)] for one in ids]
    place = {text: i for i, text in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
    order, vectors = list(place), torch.zeros(len(place), model.pooled.size, device=model.device)
    read = told = 0
    for part, inputs in batches(tokenizer, [list(text[1:]) for text in order], _BATCH, model.encoder):
        skipped = torch.tensor([order[i][0] for i in part], device=model.device)
        vectors[part] = model.vectors(**inputs, skipped=skipped)
        read += len(part)
        before, told = told, len(ids) * read // len(order)
        on_progress(told - before)
    found = np.zeros((len(ids), model.head.in_features), dtype=np.float32)
    for start in range(0, len(ids), _BATCH):
        some = slice(start, start + _BATCH)
        each = [vectors[[place[row[k]] for row in texts[some]]] for k in range(model.texts)]
        found[some] = model.joined(each, _compared(ids[some], model.device)).cpu().numpy()
    return found


def _compared(ids: Sequence[Encoded], device: torch.device) -> torch.Tensor | None:
    return torch.tensor([one.compared for one in ids], device=device) if any(one.compared for one in ids) else None


def encode(
    model: Any, tokenizer: Any, rows: Sequence[Sequence[str]], task: Task, limit: int | None = None
) -> list[Encoded]:
    """Tokens of rows' texts as the pair of `Task.pair`; apart each field's, where the encoder has as many texts.

    Together at most `limit` of a row, taken from the longer text; apart at most so many of each text.
    """
    texts = [_texts(task, [whole(text) for text in row], getattr(model, "texts", 2)) for row in rows]
    if not texts:
        return []
    columns = [list(column) for column in zip(*texts, strict=True)]
    if isinstance(model, Apart):
        tokens = [tokenize(tokenizer, *given, limit) for given in zip(columns, model.prompts, strict=True)]
        apart = [_apart(row, each) for row, each in zip(texts, zip(*tokens, strict=True), strict=True)]
        compare(model, apart)
        return apart
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


def compare(model: Apart, ids: Sequence[Encoded]) -> None:
    """Set what an encoder that reads apart is told of samples' texts, as it knows words by now."""
    for one, told in zip(ids, model.compare([one.said for one in ids]), strict=True):
        one.compared = told


def padded(tokenizer: Any, ids: Sequence[Encoded]) -> Any:
    """A batch of encoded samples; where the texts are apart, all first ones, then all second ones and so on."""
    rows = [list(text) for column in zip(*(one.texts for one in ids), strict=True) for text in column]
    batch: dict[str, Any] = {"input_ids": rows or [list(one) for one in ids]}
    if all(one.types is not None for one in ids):
        batch["token_type_ids"] = [one.types for one in ids]
    found = tokenizer.pad(batch, return_tensors="pt", verbose=False)
    if (shared := _compared(ids, torch.device("cpu"))) is not None:
        found["compared"] = shared
    return found
