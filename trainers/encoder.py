"""An encoder classifier on the same shards: the baseline that every colleague will ask for.

Any Hugging Face encoder, or a small BERT from nothing; it reads the fields as a pair of texts and gives K logits.
It learns gold grades alone and writes no trace. Left out, because it is only a baseline: resuming,
several processes, the curriculum's order.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from store.errors import PiarError
from store.manifest import Manifest, read_manifest
from store.task import Task
from trainers.chat import whole
from trainers.checkpoint import writing
from trainers.config import EncoderSettings
from trainers.data import read_rows
from trainers.folder import load_classifier, load_tokenizer
from trainers.logs import progress
from trainers.loop import Trained, cosine
from trainers.model import END_OF_TURN
from trainers.scoring import headline
from trainers.tiny import PAD, START, tiny_tokenizer

Row = dict[str, Any]


def train(shards: Path, out: Path, *, settings: EncoderSettings | None = None) -> Trained:
    """Teach an encoder to classify, and measure it on the evaluation splits.

    Args:
        out: gets `final/`, a plain Hugging Face folder.

    Raises:
        PiarError: no training row, no encoder of that name, or a run there already.
    """
    if (out / "final").exists():
        raise PiarError(f"{out} holds a finished run.", "Choose another folder with -o, or remove that one.")
    settings, manifest = settings or EncoderSettings(), read_manifest(shards)
    rows = [row for bucket in read_rows(shards, manifest, "train").values() for row in bucket]
    if not rows:
        raise PiarError("The shards hold no training row.", "Export again.")
    task = manifest.task
    torch.manual_seed(settings.seed)
    model, tokenizer = _make(rows, manifest, settings)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    rate = settings.learning_rate or (1e-3 if settings.model == "tiny" else 3e-5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    total = max(1, round(len(rows) * settings.epochs / settings.batch_size))
    rng, draws = np.random.default_rng(settings.seed), total * settings.batch_size
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(math.ceil(draws / len(rows)))])[:draws]
    model.train()
    with progress("encoder", 0, total) as show:
        for step, chosen in enumerate(order.reshape(total, -1)):
            batch = [rows[i] for i in chosen]
            gold = torch.tensor([task.index(row["grade"]) for row in batch], device=model.device)
            loss = model(**_inputs(tokenizer, batch, task, settings.max_length).to(model.device), labels=gold).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = cosine(rate, step, total, warmup=0.05)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            show(step + 1, {"loss": loss.item()})
    metrics: dict[str, float] = {}
    for split, asked in read_rows(shards, manifest, "eval").items():
        if asked:
            probs = predict(model, tokenizer, asked, task, settings)
            gold_grades = [task.index(row["grade"]) for row in asked]
            metrics |= headline([row["group"] for row in asked], gold_grades, probs, task, prefix=f"{split}/")
    with writing(out / "final") as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    return Trained(out / "final", total, metrics)


@torch.no_grad()
def predict(
    model: Any, tokenizer: Any, rows: Sequence[Row], task: Task, settings: EncoderSettings
) -> NDArray[np.float64]:
    """[rows, K] probabilities of shard rows, in the order given."""
    model.eval()
    found = np.zeros((len(rows), len(task.grades)))
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i]["fields"])))
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        inputs = _inputs(tokenizer, [rows[i] for i in part], task, settings.max_length).to(model.device)
        found[part] = model(**inputs).logits.float().softmax(-1).cpu().numpy()
    return found


def _inputs(tokenizer: Any, rows: Sequence[Row], task: Task, limit: int) -> Any:
    """Rows as pairs of texts, see `Task.pair`."""
    asked, others = zip(*(task.pair([whole(text) for text in row["fields"]]) for row in rows), strict=True)
    pair = (list(asked), list(others)) if len(task.fields) > 1 else (list(asked),)
    return tokenizer(
        *pair, padding=True, truncation=True, max_length=limit, return_tensors="pt", split_special_tokens=True
    )  # what a sample says is never a control token


def _make(rows: Sequence[Row], manifest: Manifest, settings: EncoderSettings) -> tuple[Any, Any]:
    symbols = manifest.task.symbols
    names: dict[str, Any] = {
        "num_labels": len(symbols),
        "id2label": dict(enumerate(symbols)),
        "label2id": {s: i for i, s in enumerate(symbols)},
    }
    if settings.model != "tiny":
        tokenizer = load_tokenizer(settings.model)
        return load_classifier(settings.model, **names), tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tiny_tokenizer([text for row in rows for text in row["fields"]], symbols, settings.vocab_size)
    begin, end = START, END_OF_TURN
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (begin, end)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}", pair=f"{begin} $A {end} $B:1 {end}:1", special_tokens=ids
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=max(1, settings.hidden // 64),
        intermediate_size=4 * settings.hidden,
        max_position_embeddings=settings.max_length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        **names,
    )
    return BertForSequenceClassification(config), tokenizer
