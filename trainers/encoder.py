"""An encoder is taught: it reads two texts together, or each field apart, and gives K logits; no trace.

Any Hugging Face encoder, or a small BERT from nothing, on the same shards; it learns gold grades alone, and the weights
of the least loss on dev are kept. Of a language model a head on its states alone learns (`trainers.prompted`). Left
out: resuming, several processes, the curriculum's order.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from store.calibration import Fit, fit
from store.errors import PiarError, UsageError
from store.manifest import MANIFEST, Manifest, file_sha256, read_manifest
from store.probability_scores import nll_of
from store.task import Task
from trainers.apart import Apart
from trainers.budget import refuse_to_learn
from trainers.checkpoint import StudentCard, save
from trainers.config import EncoderSettings, Reads
from trainers.data import read_rows
from trainers.early import DEV, Best
from trainers.embedding import context, reach
from trainers.encoded import Row, compare, encode, fitting, padded, predict
from trainers.fitted import Encoded, Fitted, OnProgress
from trainers.folder import load_classifier, load_tokenizer, match_tokens
from trainers.logs import progress, say
from trainers.look_over import writes
from trainers.loop import Trained
from trainers.model import END_OF_TURN
from trainers.prompted import Prompted
from trainers.scoring import headline
from trainers.sentence_folder import here, read
from trainers.tiny import PAD, START, tiny_tokenizer
from trainers.vectors import Vectors
from trainers.weights import cosine

log = logging.getLogger(__name__)
_LABELS = ("id2label", "label2id")
_CUT = (
    "%d of %d training rows are cut: the encoder reads %d tokens. The %s of a text stays; train.encoder.keeps=%s and a "
    "higher train.encoder.max_length are the other ways."
)
_LARGE = (
    "Use a smaller encoder, or keep this one as it is, with a linear head on it: --set train.encoder.reads=apart "
    "--set train.encoder.epochs=0."
)


def train(
    shards: Path, out: Path, *, settings: EncoderSettings | None = None, beside: str = "", keep: Path | None = None
) -> Trained:
    """Teach an encoder to classify, and measure it on the evaluation splits.

    Args:
        out: gets `final/`, a plain Hugging Face folder with a student's card.
        beside: the sentence encoder's folder that `settings.beside = auto` means.
        keep: a folder for what a language model was read for, which is then not read for again.

    Raises:
        PiarError: no training row, no encoder of that name, or a run there already.
    """
    if (out / "final").exists():
        raise PiarError(f"{out} holds a finished run.", "Choose another folder with -o, or remove that one.")
    settings, manifest = settings or EncoderSettings(), read_manifest(shards)
    how = _reads(settings)
    optional, settings = (
        settings.beside == "auto",
        settings.model_copy(update={"beside": _beside(settings, how, beside)}),
    )
    rows = [row for bucket in read_rows(shards, manifest, "train").values() for row in bucket]
    if not rows:
        raise PiarError("The shards hold no training row.", "Export again.")
    torch.manual_seed(settings.seed)
    model, tokenizer = _make(rows, manifest, settings, how)
    _cut_at(settings.keeps, model, tokenizer)
    if isinstance(model, Prompted):
        model.optional = optional
        if keep:
            model.keep(keep)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if settings.epochs and how != "prompted":
        refuse_to_learn(model, torch.device(model.device), _LARGE)
    limit = _limit(model, tokenizer, settings)
    evaluation = read_rows(shards, manifest, "eval")
    out.mkdir(parents=True, exist_ok=True)
    kept = _Kept(model, tokenizer, evaluation.get(DEV, []), manifest.task, limit, Best(out, 0))
    steps = _teach(model, tokenizer, rows, manifest.task, settings, limit, kept)
    if how == "together" and kept.dev and here(settings.model).is_dir():
        _compare(kept, rows, manifest, settings)
    metrics, found = _measured(model, tokenizer, evaluation, manifest.task, limit)
    card = StudentCard.of(
        manifest,
        kind="encoder",
        completion="grade",
        max_length=limit,
        reads=how,
        shards=file_sha256(shards / MANIFEST),
        metrics=metrics,
        calibration=found and found.kept,
        trainer="encoder",
        base=" and ".join(
            [settings.model, *([settings.beside] if isinstance(model, Prompted) and model.beside else [])]
        ),
    )
    folder = save(out / "final", model, tokenizer, card)
    reading = "bf16" if isinstance(model, Prompted) and model.policy.lm.dtype == torch.bfloat16 else "fp32"
    return Trained(folder, steps, metrics, precision=reading, calibration=found, kept=kept.step)


def _cut_at(keeps: str, model: Any, tokenizer: Any) -> None:
    """Tell the tokenizers which end of a text stays; each is saved with it. That of a language model may cut on the
    left for the sake of long chats."""
    usual = [(tokenizer, "right" if isinstance(model, Prompted) else tokenizer.truncation_side)]
    if isinstance(model, Prompted) and (beside := model.beside):
        usual.append((beside.tokenizer, beside.tokenizer.truncation_side))
    for one, side in usual:
        chosen = {"start": "right", "end": "left"}.get(keeps, side)
        one.truncation_side = one.init_kwargs["truncation_side"] = chosen  # the second is what is saved


def _limit(model: Any, tokenizer: Any, settings: EncoderSettings) -> int:
    """Tokens of a sample that are read, of each of its texts apart, or of a prompt."""
    if isinstance(model, Prompted):
        wanted, most = settings.max_length + model.skipped, context(model.policy.lm, tokenizer)
    elif isinstance(model, Apart):
        wanted, most = settings.max_length, reach(read(here(settings.model)), model, tokenizer)
    else:
        wanted, most = settings.max_length, context(model, tokenizer)
    return min(wanted, most or wanted)


def _measured(
    model: Any, tokenizer: Any, evaluation: Mapping[str, Sequence[Row]], task: Task, limit: int
) -> tuple[dict[str, float], Fit | None]:
    """Figures on the evaluation splits, and the calibration that dev fits."""
    metrics: dict[str, float] = {}
    found: Fit | None = None
    for split, asked in evaluation.items():
        if asked:
            groups, gold = [row["group"] for row in asked], [task.index(row["grade"]) for row in asked]
            with _counted(f"encoder: judging {split}", len(asked)) as more:
                probs = predict(model, tokenizer, asked, task, limit, more)
            metrics |= headline(groups, gold, probs, task, prefix=f"{split}/")
            if split == DEV and len(set(groups)) > 1:
                found = fit(groups, gold, probs)
    return metrics, found


class _Kept:
    """Looks at dev while an encoder learns; the weights of the least loss are what stays."""

    def __init__(self, model: Any, tokenizer: Any, dev: Sequence[Row], task: Task, limit: int, best: Best) -> None:
        self.model, self.tokenizer, self.dev, self.best, self.step = model, tokenizer, dev, best, 0
        self.task, self.limit = task, limit
        self.losses: dict[int, float] = {}

    def loss(self) -> float:
        """Nats of a grade on dev, a mean over rows."""
        gold = np.array([self.task.index(row["grade"]) for row in self.dev])
        return float(nll_of(predict(self.model, self.tokenizer, self.dev, self.task, self.limit), gold).mean())

    def look(self, step: int) -> None:
        """Measure the grade's loss on dev, where there is one."""
        self.step = step
        if self.dev:
            self.losses[step] = self.loss()
            self.best.look(step, self.losses[step], self.model, writes=True)
            if math.isnan(self.losses[step]):
                self.lose(step)

    def lose(self, step: int) -> None:
        """Take note that a step's numbers are none: earlier weights stay, where dev looked at any.

        Raises:
            PiarError: it looked at none yet.
        """
        if math.isinf(self.best.state["loss"]):
            self.best.file.unlink(missing_ok=True)
            raise PiarError(
                f"The loss or the gradient of step {step:,} is no number: this run has learnt nothing that stays.",
                "Lower train.encoder.learning_rate, or leave it out.",
            )
        self.step, self.losses[step] = step, math.nan

    def recall(self) -> None:
        """Give the model its best weights back, with a word where they are not the last ones."""
        if self.best.recall(self.step, self.model):
            last, self.step = self.step, int(self.best.state["step"])
            began = "the frozen encoder's head, which it began with" if self.step == 0 else f"step {self.step:,}"
            said = f"{self.losses[self.step]:.3f} on dev ({self.losses[last]:.3f} after step {last:,})"
            say(f"encoder: keeps {began}: a loss of {said}")
        self.best.file.unlink(missing_ok=True)


def _teach(
    model: Any, tokenizer: Any, rows: Sequence[Row], task: Task, settings: EncoderSettings, limit: int, kept: _Kept
) -> int:
    """Update the weights that learn, with a look at dev after each pass; returns the steps made."""
    ids, cut = fitting(model, tokenizer, [row["fields"] for row in rows], task, limit)
    if cut:
        ends = ("end", "start") if tokenizer.truncation_side == "left" else ("start", "end")
        log.warning(_CUT, cut, len(rows), limit, *ends)
    gold = torch.tensor([task.index(row["grade"]) for row in rows])
    if isinstance(model, Fitted):
        _begin(model, tokenizer, rows, ids, gold.tolist(), settings.seed)
        if isinstance(model, Prompted):
            return 0
        kept.look(0)
    if not settings.epochs:
        return 0
    if isinstance(model, Fitted):
        compare(model, ids)  # it knows words by now
    rate = settings.learning_rate or _rate(model, settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    total = max(1, round(len(rows) * settings.epochs / settings.batch_size))
    each = max(1, round(len(rows) / settings.batch_size))
    rng, draws = np.random.default_rng(settings.seed), total * settings.batch_size
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(math.ceil(draws / len(rows)))])[:draws]
    with progress("encoder", 0, total) as show:
        for step, chosen in enumerate(order.reshape(total, -1)):
            model.train()
            inputs = padded(tokenizer, [ids[i] for i in chosen]).to(model.device)
            loss = model(**inputs, labels=gold[chosen].to(model.device)).loss
            loss.backward()
            if not torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite():
                kept.lose(step + 1)
                total = step  # no update from here on
                break
            for group in optimizer.param_groups:
                group["lr"] = cosine(rate, step, total, warmup=0.05)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            show(step + 1, {"loss": loss.item()})
            if (step + 1) % each == 0 or step + 1 == total:
                kept.look(step + 1)
    kept.recall()
    return total


@contextmanager
def _counted(what: str, total: int, known: int = 0) -> Iterator[OnProgress]:
    """Shows how many of `total` samples are done; `known` are so at once."""
    done = 0
    with progress(what, known, total) as show:

        def more(n: int) -> None:
            nonlocal done
            done += n
            show(done, {})

        yield more


def _begin(
    model: Fitted, tokenizer: Any, rows: Sequence[Row], ids: Sequence[Encoded], gold: Sequence[int], seed: int
) -> None:
    """Set the head to what frozen vectors and words tell by themselves; says how far it has read."""
    if known := model.known(ids) if isinstance(model, Prompted) else 0:
        say(f"encoder: {known:,} of {len(rows):,} rows were read before")
    with _counted("encoder: reading", len(rows), known) as more:
        read = model.eval().features(tokenizer, ids, more)
    if wrong := int((~np.isfinite(read)).any(1).sum()):
        raise PiarError(
            f"What the model says of {wrong:,} of {len(rows):,} rows is no number.",
            "Its weights are damaged, or those of the encoder beside it: download it again, or use another one.",
        )
    model.begin(read, [one.said for one in ids], gold, [row["group"] for row in rows], seed)


def _compare(kept: _Kept, rows: Sequence[Row], manifest: Manifest, settings: EncoderSettings) -> None:
    """Say so where a head on the encoder as it came has less loss on dev than what was taught."""
    try:
        frozen, tokenizer = apart_encoder(manifest, settings)
    except PiarError:  # it has no vectors that are known here
        return
    _cut_at(settings.keeps, frozen, tokenizer)
    frozen.to(kept.model.device)
    beside = _Kept(frozen, tokenizer, kept.dev, manifest.task, kept.limit, Best(kept.best.file.parent, 0))
    ids = encode(frozen, tokenizer, [row["fields"] for row in rows], manifest.task, kept.limit)
    _begin(frozen, tokenizer, rows, ids, [manifest.task.index(row["grade"]) for row in rows], settings.seed)
    if (loss := beside.loss()) < kept.losses[kept.step]:
        say(
            f"encoder: a head on the frozen encoder has a loss of {loss:.3f} on dev, less than this student's "
            f"{kept.losses[kept.step]:.3f}; --set train.encoder.reads=apart begins there"
        )


def _rate(model: Any, settings: EncoderSettings) -> float:
    """Narrow pretrained encoders with a new head need a higher rate: at 3e-5 a 384 wide one had learnt nothing from 300
    rows. One that begins with a fitted head knows something already."""
    if settings.model == "tiny":
        return 1e-3
    if isinstance(model, Apart):
        return 3e-5
    return 2e-4 if getattr(model.config.get_text_config(), "hidden_size", 768) < 512 else 3e-5


def _reads(settings: EncoderSettings) -> Reads:
    """How this encoder meets the texts.

    Raises:
        UsageError: one from nothing apart, or one that would learn nothing at all.
    """
    reads = _asked(settings)
    if not settings.epochs and reads == "together":
        raise UsageError(
            "Without a pass over the rows an encoder that reads its texts together has a head of chance.",
            "Leave train.encoder.epochs out, or pass --model with a sentence encoder's folder: its head is fitted.",
        )
    return reads


def _beside(settings: EncoderSettings, how: Reads, auto: str) -> str:
    """The folder of the sentence encoder that is read beside a language model, "" for none.

    Raises:
        UsageError: one is named, and there is no language model that is prompted.
    """
    named = {"auto": auto if how == "prompted" else "", "none": ""}.get(settings.beside, settings.beside)
    if named and how != "prompted":
        raise UsageError(
            f"A sentence encoder is read beside a language model that is prompted, and {settings.model} reads {how}.",
            "Leave train.encoder.beside at auto, or pass --model with a language model's folder.",
        )
    return named


def _asked(settings: EncoderSettings) -> Reads:
    if settings.reads != "auto":
        if settings.reads == "apart" and settings.model == "tiny":
            raise UsageError(
                "An encoder from nothing has no vectors to compare: it reads the texts together.",
                "Leave train.encoder.reads at auto, or pass --model with a sentence encoder's folder.",
            )
        if settings.reads == "prompted" and settings.model == "tiny":
            raise UsageError(
                "An encoder from nothing cannot be asked anything.",
                "Leave train.encoder.reads at auto, or pass --model with a language model's folder.",
            )
        return settings.reads
    folder = here(settings.model)
    if writes(folder) and not (folder / "modules.json").is_file():
        return "prompted"
    try:
        return "apart" if (folder / "modules.json").is_file() and read(folder) else "together"
    except PiarError as error:  # steps whose vectors are not known here
        say(f"encoder: {error.message} So it reads the texts together, as a plain encoder.")
        return "together"


def _names(manifest: Manifest) -> dict[str, Any]:
    """Of the grades, as a configuration keeps them."""
    symbols = manifest.task.symbols
    numbers = {symbol: i for i, symbol in enumerate(symbols)}
    return {"num_labels": len(symbols), "id2label": dict(enumerate(symbols)), "label2id": numbers}


def apart_encoder(manifest: Manifest, settings: EncoderSettings) -> tuple[Apart, Any]:
    """A sentence encoder with a head for the task's grades, which has learnt nothing, and its tokenizer."""
    task, names = manifest.task, _names(manifest)
    read, tokenizer = Vectors.begun(settings.model, task)
    vars(read.encoder.config).update({name: names[name] for name in _LABELS})
    return Apart(read, len(task.grades)), tokenizer


def _prompted(manifest: Manifest, settings: EncoderSettings) -> tuple[Prompted, Any]:
    """A language model with a head for the task's grades, and its tokenizer; says what is read beside it."""
    names = {name: words for name, words in _names(manifest).items() if name in _LABELS}
    rubric = manifest.rubric if manifest.prompt == "rulebook" else ""
    if settings.beside:
        say(f"encoder: reads {settings.beside} beside it; --set train.encoder.beside=none leaves that out")
    else:
        say("encoder: a sentence encoder can be read beside it, for little: --set train.encoder.beside=FOLDER")
    return Prompted.begun(settings.model, manifest.task, names, rubric=rubric, beside=settings.beside)


def _make(rows: Sequence[Row], manifest: Manifest, settings: EncoderSettings, how: Reads) -> tuple[Any, Any]:
    symbols, names = manifest.task.symbols, _names(manifest)
    if settings.model != "tiny":
        if how == "apart":
            return apart_encoder(manifest, settings)
        if how == "prompted":
            return _prompted(manifest, settings)
        model, tokenizer = load_classifier(settings.model, **names), load_tokenizer(settings.model)
        match_tokens(settings.model, model, tokenizer)
        return model, tokenizer
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
