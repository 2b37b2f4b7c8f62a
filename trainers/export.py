"""A student as a sequence classifier: the K grade rows of the head become a classification head.

Serving stacks load such a checkpoint as a classifier (one prefill, K logits). The probabilities are
the student's; `export_classifier` checks it on random prompts. The model card says what the student learned from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from store.errors import PiarError
from trainers.checkpoint import CARD, StudentCard, writing
from trainers.scoring import Student

TOLERANCE = 1e-5


def export_classifier(student: str | Path, out: Path, *, licence: str = "") -> float:
    """Write the classifier, its tokenizer, `student.json` and a model card.

    Args:
        out: a new folder.
        licence: under what terms the student and its data may be used, for the card.

    Returns:
        The largest difference between the classifier's and the student's probabilities.

    Raises:
        PiarError: the folder exists, or the architecture has no classifier that gives the same probabilities.
    """
    if out.exists():
        raise PiarError(f"{out} exists.", "Choose a new folder.")
    judge = Student.load(student, device="cpu")
    lm, symbols = judge.policy.lm, judge.task.symbols
    with _quiet():  # the head is missing from the checkpoint; it is filled in below
        classifier: Any = AutoModelForSequenceClassification.from_pretrained(
            student, num_labels=len(symbols), id2label=dict(enumerate(symbols)),
            label2id={s: i for i, s in enumerate(symbols)}, pad_token_id=judge.tokenizer.pad_token_id, dtype=lm.dtype,
        )  # fmt: skip
    if not hasattr(classifier, "score"):
        raise PiarError(f"{lm.config.model_type} has no classifier with a plain head in transformers.",
                        "Serve the student as a language model.")  # fmt: skip
    with torch.no_grad():
        classifier.score.weight.copy_(lm.get_output_embeddings().weight[judge.grade_ids])
    gap = _gap(judge, classifier.eval())
    if gap > TOLERANCE:
        raise PiarError(
            f"The classifier's probabilities differ by {gap:.1e}.", "Serve the student as a language model."
        )
    with writing(out):
        classifier.save_pretrained(out)
        judge.tokenizer.save_pretrained(out)
        (out / CARD).write_text(judge.card.model_dump_json(indent=1), encoding="utf-8")
        (out / "README.md").write_text(model_card(judge.card, licence), encoding="utf-8")
    return gap


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)


@torch.no_grad()
def _gap(judge: Student, classifier: Any) -> float:
    samples = [dict.fromkeys(judge.task.fields, text) for text in ("red lamp", "a much longer text, 40 cm", "x")]
    scored = judge.score(samples)
    gaps = []
    for ids, one in zip(judge.prompts(samples), scored, strict=True):
        probs = classifier(input_ids=torch.tensor([ids])).logits[0].float().softmax(-1)
        gaps.append(float((probs - torch.tensor(one.probs)).abs().max()))
    return max(gaps)


def model_card(card: StudentCard, licence: str = "") -> str:
    """A model card in Markdown: what is judged, how to ask, what it learned from, what is not known."""
    grades = "\n".join(f"- `{g.symbol}` {g.name}: {g.meaning}".rstrip(": ") for g in card.task.grades)
    names = sorted(name for name in card.metrics if not name.endswith(("_low", "_high")))
    figures = "\n".join(f"| {name} | {card.metrics[name]:.4f} | {_interval(card.metrics, name)} |" for name in names)
    table = (
        f"| figure | value | 95 % interval |\n|---|---|---|\n{figures}" if figures else "Nothing: no evaluation rows."
    )
    warning = (
        "\n**It learned from simulated data: no figure says anything about a real task.**\n" if card.simulated else ""
    )
    slices = ", ".join(f"{name} (`{sql}`)" for name, sql in card.task.slices.items()) or "none defined"
    rubric = " after the rubric in student.json" if card.rubric else ""
    ceiling = "unknown: the project has no single ratings" if card.ceiling is None else f"{card.ceiling:.1%}"
    return f"""---
pipeline_tag: text-classification
license: {"other" if licence else "unknown"}
---
# {card.task.name}: a student that grades with its first token
{warning}
Fields: {", ".join(card.task.fields)}. Labels, in ascending order:

{grades}

Ask with the chat template and the sample as one JSON object{rubric}; one prefill gives the grade.

- Trained by `{card.trainer or "unknown"}` from `{card.base or "unknown"}`, instruction `{card.instruction or "none"}`.
- Rows it learned from or was measured on: {_counts(card.rows)}. Splits are by `{card.task.group_by}`; look-alike groups
  stay on one side.
- Samples of the project by source: {_counts(card.sources)}. Teacher: `{card.teacher or "none"}`.
- Shards: sha256 of the manifest `{card.shards or "unknown"}`.
- Slices to watch: {slices}.
- Ceiling, how often one person agrees with the truth: {ceiling}.
- Licence: {licence or "not stated. Those of the base model and of the data it learned from hold"}.

## Measured at the end of training, intervals by {card.task.group_by}

{table}
"""


def _interval(metrics: dict[str, float], name: str) -> str:
    ends = [metrics[end] for end in (f"{name}_low", f"{name}_high") if end in metrics]
    return " – ".join(f"{value:.4f}" for value in ends)


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in rows.items()) or "unknown"
