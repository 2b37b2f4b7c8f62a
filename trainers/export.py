"""A student as a sequence classifier: the K grade rows of the head become a classification head.

Serving stacks load such a checkpoint as a classifier (one prefill, K logits). The probabilities are
the student's; `export_classifier` checks it on random prompts. The model card says what the student learned from.
"""

from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from store.calibration import CARD
from store.errors import PiarError
from trainers.checkpoint import StudentCard, writing
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
    judge = Student.load(student, device="cpu", dtype=torch.float32)
    lm, symbols = judge.policy.lm, judge.task.symbols
    config = AutoConfig.from_pretrained(
        student,
        trust_remote_code=False,
        num_labels=len(symbols),
        id2label=dict(enumerate(symbols)),
        label2id={s: i for i, s in enumerate(symbols)},
        pad_token_id=judge.tokenizer.pad_token_id,
    )
    make: Any = AutoModelForSequenceClassification.from_config
    classifier: Any = None
    with suppress(ValueError):  # an architecture without a classifier
        classifier = make(config, dtype=lm.dtype)
    if not hasattr(classifier, "score"):
        raise PiarError(
            f"{lm.config.model_type} has no classifier with a plain head in transformers.",
            "Serve the student as a language model.",
        )
    classifier.load_state_dict(lm.state_dict(), strict=False)  # all but its head
    with torch.no_grad():
        classifier.score.weight.copy_(lm.get_output_embeddings().weight[judge.grade_ids])
    gap = _gap(judge, classifier.eval())
    if gap > TOLERANCE:
        raise PiarError(
            f"The classifier's probabilities differ by {gap:.1e}.", "Serve the student as a language model."
        )
    with writing(out) as aside:
        classifier.save_pretrained(aside)
        judge.tokenizer.save_pretrained(aside)
        (aside / CARD).write_text(judge.card.model_dump_json(indent=1), encoding="utf-8")
        (aside / "README.md").write_text(model_card(judge.card, licence), encoding="utf-8")
    return gap


@torch.no_grad()
def _gap(judge: Student, classifier: Any) -> float:
    samples = [dict.fromkeys(judge.task.fields, text) for text in ("red lamp", "a much longer text, 40 cm", "x")]
    scored = judge.score(samples)
    gaps = []
    for ids, one in zip(judge.prompts(samples), scored, strict=True):
        probs = classifier(input_ids=torch.tensor([ids])).logits[0].float().softmax(-1)
        gaps.append(float((probs - torch.tensor(one.raw)).abs().max()))
    return max(gaps)


def model_card(card: StudentCard, licence: str = "") -> str:
    """A model card in Markdown: what is judged, how to ask, what it learned from, what is not known."""
    from jinja2 import Template

    metrics = card.metrics
    figures = [
        (name, metrics[name], [metrics[end] for end in (f"{name}_low", f"{name}_high") if end in metrics])
        for name in sorted(metrics)
        if not name.endswith(("_low", "_high"))
    ]
    text = resources.files("trainers").joinpath("model_card.j2").read_text(encoding="utf-8")
    template = Template(text, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return str(template.render(card=card, licence=licence, figures=figures))
