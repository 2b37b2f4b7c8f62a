"""The two kinds of student as an export sees them: what their last layer reads, and how they are written as others."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from store.errors import PiarError
from store.stats import Floats
from trainers.checkpoint import StudentCard, read_card
from trainers.cross_encoder import write_modules
from trainers.encoded import padded
from trainers.encoder_student import EncoderStudent
from trainers.fitted import Encoded
from trainers.folder import load_tokenizer
from trainers.head import OwnHead
from trainers.layout import Item
from trainers.pairs import AS_CLASSIFIER, pair_template
from trainers.score_head import GradeRows, layers
from trainers.scoring import Student, batches

Count = Callable[[int], None]
Texts = Sequence[Sequence[str]]  # of samples: those of the task's fields, in their order
_BATCH = 16


class Source(Protocol):
    """A student to export.

    Attributes:
        chat: whether it reads a pair through its chat template, else through its tokenizer.
        biased: whether the classification head of its architecture has a bias.
    """

    card: StudentCard
    chat: bool
    biased: bool

    @property
    def most(self) -> int:
        """Tokens of the longest sample that it reads."""

    @property
    def rows(self) -> GradeRows:
        """How it makes logits of what its last layer reads."""

    def prompts(self, texts: Texts) -> Sequence[Encoded]:
        """Tokens of each sample, as the student itself reads it."""

    def read(self, texts: Texts, count: Count) -> tuple[Floats, Floats]:
        """[n, h] what its last layer reads of samples, and [n, K] the raw probabilities that the student gives."""

    def write(self, folder: Path, labels: dict[int, str], weight: Floats, bias: float) -> None:
        """Write its weights as a classifier with these labels.

        Args:
            weight: [labels, h] of the head; `bias` is that of a single label.

        Raises:
            PiarError: its architecture has no such head.
        """

    def write_whole(self, folder: Path) -> None:
        """Write weights and tokenizer as `CrossEncoder` reads them, with the layers that make a score."""

    def write_tokenizer(self, folder: Path) -> None:
        """Write the student's own tokenizer."""

    def write_pairs(self, folder: Path) -> None:
        """Write a tokenizer that makes the student's prompt of a query and a document."""


class LanguageModel:
    """A student that writes, see `Source`."""

    chat, biased = True, False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.judge = Student.load(folder, device="cpu", dtype=torch.float32)
        self.card = self.judge.card

    @property
    def most(self) -> int:
        return self.judge.most

    @property
    def rows(self) -> GradeRows:
        head, ids = self.judge.policy.head, self.judge.grade_ids
        if isinstance(head, OwnHead):
            raise PiarError(
                f"{self.judge.policy.lm.config.model_type} makes its logits in a way that no plain layer can.",
                "Serve the student as a language model: `piar serve`, or vLLM.",
            )
        with torch.no_grad():
            weight = (head.weight[ids] * head.scale).double().numpy()
            bias = np.zeros(len(ids)) if head.bias is None else (head.bias[ids] * head.scale).double().numpy()
        return GradeRows(weight, bias, head.cap)

    def prompts(self, texts: Texts) -> list[Encoded]:
        samples = [dict(zip(self.card.task.fields, row, strict=True)) for row in texts]
        return [Encoded(prompt) for prompt in self.judge.prompts(samples)]

    def read(self, texts: Texts, count: Count) -> tuple[Floats, Floats]:
        prompts, policy = self.prompts(texts), self.judge.policy
        ids = torch.tensor(self.judge.grade_ids)
        read: list[Any] = [None] * len(prompts)
        said: list[Any] = [None] * len(prompts)
        for batch in batches(prompts, policy):
            with policy.judging():
                packs = policy.pack([Item(prompts[i], [[0]]) for i in batch])
                hidden, probs = policy(packs, lambda hidden, head: (hidden, head(hidden, ids).softmax(-1)))
            for i, one, row in zip(batch, hidden.double().numpy(), probs.double().numpy(), strict=True):
                read[i], said[i] = one, row
            count(len(batch))
        return np.stack(read), np.stack(said)

    def write(self, folder: Path, labels: dict[int, str], weight: Floats, bias: float) -> None:
        lm = self.judge.policy.lm
        config = AutoConfig.from_pretrained(
            self.folder,
            trust_remote_code=False,
            num_labels=len(labels),
            id2label=labels,
            label2id={name: i for i, name in labels.items()},
            pad_token_id=self.judge.tokenizer.pad_token_id,
        )
        make: Any = AutoModelForSequenceClassification.from_config
        classifier: Any = None
        with suppress(ValueError):  # an architecture without a classifier
            classifier = make(config, dtype=lm.dtype)
        if not hasattr(classifier, "score"):
            raise PiarError(
                f"{lm.config.model_type} has no classifier with a plain head in transformers.",
                "Serve the student as a language model, or export it with `--as cross-encoder`.",
            )
        classifier.load_state_dict(lm.state_dict(), strict=False)  # all but its head
        with torch.no_grad():
            classifier.score.weight.copy_(torch.from_numpy(weight))
        classifier.save_pretrained(folder)

    def write_tokenizer(self, folder: Path) -> None:
        self.judge.tokenizer.save_pretrained(folder)

    def write_whole(self, folder: Path) -> None:
        for path in self.folder.iterdir():
            if path.name == "config.json" or path.name.startswith("model"):
                shutil.copy2(path, folder / path.name)
        self.write_pairs(folder)
        made = layers(self.rows, self.card.task, self.card.calibration)
        write_modules(folder, "feature-extraction", made, chat=True, most=self.most)

    def write_pairs(self, folder: Path) -> None:
        tokenizer = load_tokenizer(str(self.folder))
        tokenizer.chat_template = pair_template(self.judge.tokenizer, self.card)
        tokenizer.padding_side = "right"
        for name in ("add_bos_token", "add_eos_token"):  # the template writes them
            if getattr(tokenizer, name, False):
                setattr(tokenizer, name, False)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
        tokenizer.save_pretrained(folder)


class Encoder:
    """A student that reads a pair of texts, see `Source`."""

    chat, biased = False, True

    def __init__(self, folder: Path) -> None:
        self.judge = EncoderStudent.load(folder, device="cpu")
        self.card = self.judge.card
        if self.card.reads != "together":
            raise PiarError(
                f"{folder} has a fitted head, which no server of pairs knows.",
                "Serve it with `piar serve`, or teach one with --set train.encoder.reads=together.",
            )
        k = len(self.card.task.grades)
        linear = [part for part in self.judge.model.modules() if isinstance(part, nn.Linear) and part.out_features == k]
        if not linear:
            raise PiarError(f"{folder} has no plain head that could be replaced.", AS_CLASSIFIER)
        self.head = linear[-1]

    @property
    def most(self) -> int:
        return self.judge.most

    @property
    def rows(self) -> GradeRows:
        return GradeRows(self.head.weight.detach().double().numpy(), self.head.bias.detach().double().numpy())

    def prompts(self, texts: Texts) -> list[Encoded]:
        samples = [dict(zip(self.card.task.fields, row, strict=True)) for row in texts]
        return self.judge.encoded(samples, cut=True)  # others cut longer ones in the same way

    def read(self, texts: Texts, count: Count) -> tuple[Floats, Floats]:
        ids = self.prompts(texts)
        seen: list[Any] = []
        said = []
        hook = self.head.register_forward_pre_hook(lambda _, given: seen.append(given[0].double().numpy()))
        try:
            for start in range(0, len(ids), _BATCH):
                part = ids[start : start + _BATCH]
                with torch.no_grad():
                    logits = self.judge.model(**padded(self.judge.tokenizer, part)).logits
                said.append(logits.double().softmax(-1).numpy())
                count(len(part))
        finally:
            hook.remove()
        return np.concatenate(seen), np.concatenate(said)

    def write(self, folder: Path, labels: dict[int, str], weight: Floats, bias: float) -> None:
        model = self.judge.model
        with torch.no_grad():
            self.head.weight = nn.Parameter(torch.from_numpy(weight).float())
            self.head.bias = nn.Parameter(torch.tensor([bias]))
        self.head.out_features = model.num_labels = model.config.num_labels = len(labels)
        model.config.id2label, model.config.label2id = labels, {name: i for i, name in labels.items()}
        model.config.problem_type = None  # vLLM: sigmoid of one label, softmax of several
        model.save_pretrained(folder)

    def write_whole(self, folder: Path) -> None:
        self.judge.model.save_pretrained(folder)
        self.write_pairs(folder)
        k = len(self.card.task.grades)
        made = layers(GradeRows(np.eye(k), np.zeros(k)), self.card.task, self.card.calibration)
        write_modules(folder, "sequence-classification", made, chat=False, most=self.most)

    def write_tokenizer(self, folder: Path) -> None:
        self.judge.tokenizer.save_pretrained(folder)

    def write_pairs(self, folder: Path) -> None:
        tokenizer = self.judge.tokenizer
        tokenizer.split_special_tokens = True  # what a sample says is never a control token
        tokenizer.init_kwargs["split_special_tokens"] = True  # saved only where it was given
        tokenizer.save_pretrained(folder)


def source_of(folder: Path) -> Source:
    """The student of a folder.

    Raises:
        PiarError: no student there, or a checkpoint that is not whole.
    """
    return Encoder(folder) if read_card(folder).kind == "encoder" else LanguageModel(folder)
