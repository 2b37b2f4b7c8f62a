"""What an exported folder says, read back as its users read it, beside what the student says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from store.errors import PiarError
from store.ids import seed_of
from store.manifest import MANIFEST, read_manifest
from store.stats import Floats
from store.task import Task
from trainers.cross_encoder import read_layers
from trainers.data import read_rows
from trainers.encoded import padded
from trainers.fitted import Encoded
from trainers.pairs import pair_of
from trainers.score_head import softmax

Way = Literal["classifier", "score", "cross-encoder"]
COMPARED, FITTED = 600, 600  # rows at most
_SPLITS = ("test", "dev", "holdout")  # the first that the shards hold is compared on
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of shards: the texts of the task's fields, groups, and gold as positions of grades."""

    split: str
    texts: list[list[str]]
    groups: list[str]
    gold: list[int]


def rows_of(shards: Path, task: Task, kind: Literal["train", "eval"]) -> Rows | None:
    """At most `COMPARED` rows of one split to compare on, whole groups, or `FITTED` training rows; None for none.

    Raises:
        PiarError: no whole shards there, or those of another task.
    """
    manifest = read_manifest(shards)
    if (manifest.task.fields, manifest.task.symbols) != (task.fields, task.symbols):
        raise PiarError(
            f"{shards / MANIFEST} is of other fields or grades than this student.",
            "Name with --shards what it learned from, or a later export of the same task.",
        )
    found = read_rows(shards, manifest, kind)
    split = "train" if kind == "train" else next((name for name in _SPLITS if found.get(name)), "")
    rows = [row for part in found.values() for row in part] if kind == "train" else found.get(split, [])
    rng = np.random.default_rng(seed_of("export", split))
    rank = {group: i for i, group in enumerate(rng.permutation(sorted({row["group"] for row in rows})))}
    rows = sorted(rows, key=lambda row: (rank[row["group"]], row["sample_id"]))[
        : FITTED if kind == "train" else COMPARED
    ]
    if not rows:
        return None
    return Rows(
        split,
        [row["fields"] for row in rows],
        [row["group"] for row in rows],
        [task.index(row["grade"]) for row in rows],
    )


def pair_tokens(folder: Path, task: Task, rows: Sequence[Sequence[str]], *, chat: bool, most: int) -> list[Encoded]:
    """Tokens that other tools read for samples, by the folder's own tokenizer.

    Raises:
        PiarError: the tokenizer writes more around a text than the chat template does.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not chat:
        pairs = [task.pair(row) for row in rows]
        told = tokenizer([a for a, _ in pairs], [b for _, b in pairs], truncation=True, max_length=most)
        found = [Encoded(ids) for ids in told["input_ids"]]
        for one, types in zip(found, told.get("token_type_ids", [None] * len(found)), strict=True):
            one.types = types
        return found
    pairs = [pair_of(task, row) for row in rows]
    chats = [[{"role": "query", "content": a}, {"role": "document", "content": b}] for a, b in pairs]
    texts = tokenizer.apply_chat_template(chats, tokenize=False)
    ids = tokenizer(texts)["input_ids"]
    if ids != tokenizer(texts, add_special_tokens=False)["input_ids"]:
        raise PiarError(
            "This tokenizer puts tokens of its own around every text, also around a prompt that has them.",
            "Export with `--as classifier`.",
        )
    return [Encoded(one) for one in ids]


@torch.no_grad()
def said_by(folder: Path, way: Way, tokens: Sequence[Encoded], count: Callable[[int], None]) -> Floats:
    """[n, K] probabilities, or [n] scores, of an exported folder's own weights."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.padding_side = "right"
    deep = way == "cross-encoder" and (folder / "1_Pooling").exists()
    kind: Any = AutoModel if deep else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32).eval()
    found: list[Any] = [None] * len(tokens)
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        batch = padded(tokenizer, [tokens[i] for i in part])
        out = model(**batch)
        rows = (
            out.last_hidden_state[torch.arange(len(part)), batch["attention_mask"].sum(1) - 1] if deep else out.logits
        )
        for i, row in zip(part, rows.double().numpy(), strict=True):
            found[i] = row
        count(len(part))
    read: Floats = np.stack(found)
    if way == "classifier":
        return softmax(read)
    for layer in read_layers(folder):
        read = layer(read)
    score: Floats = 1 / (1 + np.exp(-read[:, 0])) if way == "score" else read[:, 0]
    return score
