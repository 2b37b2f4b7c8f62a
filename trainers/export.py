"""A student as a folder that serving tools load, in three ways; each is read back and compared with the student.

`classifier`: the K grade rows of a language model's head as a classification head, raw probabilities. `score`: one
label whose sigmoid is the expected grade from 0 to 1, exact for two grades and a fit for more. `cross-encoder`: the
same score, exact and calibrated, as built-in modules of sentence-transformers. Safetensors, no code, a model card.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import compress
from pathlib import Path

import numpy as np

from store.calibration import CARD
from store.decision_rule import DecisionRule
from store.errors import PiarError
from store.export_loss import ExportLoss, export_loss, levels
from store.stats import Floats, Ints
from trainers.checkpoint import StudentCard, writing
from trainers.cross_encoder import write_modules
from trainers.export_check import Rows, Way, pair_tokens, rows_of, said_by
from trainers.export_sources import Count, LanguageModel, Source, source_of
from trainers.fitted import Encoded
from trainers.logs import progress
from trainers.pairs import names, require_pair
from trainers.score_head import cut_points, exact_label, fitted_label

TOLERANCE = 1e-4
_TRIED = ("red lamp", "a much longer text, 40 cm", "x")  # compared where there are no shards


@dataclass(frozen=True, slots=True)
class Exported:
    """An export beside its student.

    Attributes:
        largest_difference: of probabilities (`classifier`: from the student's raw ones), else of scores from 0 to 1.
        compared: samples that the difference was taken over.
        fitted: rows that a head of one label was fitted on; 0 where it is exact.
        chat: whether a pair goes through the folder's chat template.
        cuts: scores from which the next grade is meant, as the student grades training rows; halfway between the
            grades' levels where there are none, empty for a classifier.
        loss: against gold, where the shards hold rows with it.
    """

    path: Path
    way: Way
    largest_difference: float
    compared: int
    fitted: int
    chat: bool
    cuts: tuple[float, ...]
    loss: ExportLoss | None


def export(
    student: str | Path, out: Path, *, way: Way = "classifier", shards: Path | None = None, licence: str = ""
) -> Exported:
    """Write the folder with its tokenizer, `student.json` and a model card, and compare it.

    Args:
        out: a new folder.
        shards: whose closed rows are compared, and whose training rows a head is fitted on; None for a few texts.
        licence: under what terms the student and its data may be used, for the card.

    Raises:
        PiarError: the folder exists, or this student has no export of that kind, with why.
    """
    if out.exists():
        raise PiarError(f"{out} exists.", "Choose a new folder.")
    source = LanguageModel(Path(student)) if way == "classifier" else source_of(Path(student))
    card = source.card
    if way != "classifier":
        require_pair(card.task, template=source.chat)
    rows = _kept(rows_of(shards, card.task, "eval"), source) if shards else None
    seen = _kept(rows_of(shards, card.task, "train"), source) if shards and way != "classifier" else None
    texts = rows.texts if rows else [[text] * len(card.task.fields) for text in _TRIED]
    with progress("export", 0, (len(seen.texts) if seen else 0) + 2 * len(texts)) as show, writing(out) as aside:
        count = _counter(show)
        _, raw = source.read(texts, count)
        read = source.read(seen.texts, count) if seen else None
        aside.mkdir()
        made = _write(source, aside, way, read)
        if way == "classifier":
            tokens: Sequence[Encoded] = source.prompts(texts)
        else:
            tokens = pair_tokens(aside, card.task, texts, chat=source.chat, most=source.most)
        chat = way != "classifier" and source.chat
        del source  # two models are enough in memory
        found = said_by(aside, way, tokens, count)
        largest = _largest(way, card, raw, found, exact=not made.fitted)
        loss = _loss(card, rows, raw, found, made.cuts)
        done = Exported(out, way, largest, len(texts), made.fitted, chat, tuple(made.cuts.tolist()), loss)
        (aside / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (aside / "README.md").write_text(model_card(card, licence, done), encoding="utf-8")
    return done


@dataclass(frozen=True, slots=True)
class _Made:
    """How scores were made: rows that a head was fitted on, and [K - 1] scores from which the next grade is meant."""

    fitted: int
    cuts: Floats


def _write(source: Source, folder: Path, way: Way, seen: tuple[Floats, Floats] | None) -> _Made:
    """Write model and tokenizer.

    Args:
        seen: what the last layer reads of training rows, and their raw probabilities.
    """
    card, marks = source.card, levels(source.card.task) if way != "classifier" else np.zeros(1)
    halfway = (marks[1:] + marks[:-1]) / 2
    if way == "classifier":
        source.write(folder, dict(enumerate(card.task.symbols)), source.rows.weight, 0.0)
        source.write_tokenizer(folder)
        return _Made(0, halfway)
    probs = None if seen is None else _calibrated(card, seen[1])
    fitted, scores = 0, None if probs is None else probs @ marks
    if way == "cross-encoder":
        source.write_whole(folder)
    else:
        label = exact_label(source.rows, card.calibration, biased=source.biased)
        if label is None:
            if seen is None or scores is None:
                raise PiarError(
                    "One label is a fit for this student, and there are no rows to fit it on.",
                    "Name the folder of `piar curriculum export` with --shards, or export with `--as cross-encoder`.",
                )
            label, fitted = fitted_label(source.rows, seen[0], scores, biased=source.biased), len(scores)
            scores = 1 / (1 + np.exp(-(seen[0] @ label[0] + label[1])))
        source.write(folder, {0: "score"}, label[0][None], label[1])
        source.write_pairs(folder)
        write_modules(folder, "sequence-classification", chat=source.chat, most=source.most, last="Sigmoid")
    if probs is None or scores is None:
        return _Made(fitted, halfway)
    return _Made(fitted, cut_points(scores, _grades(card, probs), len(marks)))


def _largest(way: Way, card: StudentCard, raw: Floats, found: Floats, *, exact: bool) -> float:
    """The largest difference from the student.

    Raises:
        PiarError: the export should be exact and is not.
    """
    meant = raw if way == "classifier" else _calibrated(card, raw) @ levels(card.task)
    gap = float(np.abs(found - meant).max())
    curved = way == "cross-encoder" and card.calibration is not None and card.calibration.curves
    if gap > TOLERANCE and exact and not curved:
        raise PiarError(
            f"What the {way} says differs by {gap:.1e} from the student.", "Serve the student itself: `piar serve`."
        )
    return gap


def _loss(card: StudentCard, rows: Rows | None, raw: Floats, found: Floats, cuts: Floats) -> ExportLoss | None:
    if rows is None:
        return None
    probs = _calibrated(card, raw)
    grades = _grades(card, probs)
    return export_loss(
        rows.split, rows.groups, rows.gold, card.task, grades=grades, before=probs, after=found, cuts=cuts
    )


def _grades(card: StudentCard, probs: Floats) -> Ints:
    return (card.rule or DecisionRule()).apply(probs)


def _calibrated(card: StudentCard, raw: Floats) -> Floats:
    return raw if card.calibration is None else card.calibration.apply(raw)


def _kept(rows: Rows | None, source: Source) -> Rows | None:
    """The rows that the student reads whole; others cut longer ones in ways of their own."""
    if rows is None:
        return None
    fits = [len(prompt) <= source.most for prompt in source.prompts(rows.texts)]
    texts = list(compress(rows.texts, fits))
    return (
        Rows(rows.split, texts, list(compress(rows.groups, fits)), list(compress(rows.gold, fits))) if texts else None
    )


def _counter(show: Callable[[int, dict[str, float]], None]) -> Count:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        show(done, {})

    return count


def model_card(card: StudentCard, licence: str = "", exported: Exported | None = None) -> str:
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
    query, *others = names(card.task)
    return str(
        template.render(card=card, licence=licence, figures=figures, exported=exported, query=query, others=others)
    )
