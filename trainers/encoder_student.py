"""An encoder student at work: K probabilities of a sample, and no trace."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from store.errors import PiarError, UsageError
from store.task import Task
from trainers.apart import Apart
from trainers.checkpoint import MARKER, StudentCard, check, read_card
from trainers.config import Reads
from trainers.encoded import encode, fitting, probabilities
from trainers.fitted import Encoded
from trainers.folder import load_classifier, load_tokenizer
from trainers.prompted import Prompted
from trainers.scoring import Scored, opinion
from trainers.session import TooLong

log = logging.getLogger(__name__)

_MODELS: dict[Reads, Callable[[Path], Any]] = {
    "together": lambda folder: load_classifier(str(folder), taught=True),
    "apart": Apart.load,
    "prompted": Prompted.load,
}


class EncoderStudent:
    """A trained encoder, ready to judge samples of its task.

    Args:
        card: its `max_length` is how many tokens of a sample it reads.
    """

    def __init__(self, model: Any, tokenizer: Any, card: StudentCard) -> None:
        self.model, self.tokenizer, self.card = model.eval(), tokenizer, card

    @property
    def task(self) -> Task:
        """What it judges."""
        return self.card.task

    @property
    def most(self) -> int:
        """Tokens of the longest sample that it reads."""
        return self.card.max_length

    @property
    def end(self) -> bool:
        """Whether of a text that is cut the end stays, not the start."""
        return bool(self.tokenizer.truncation_side == "left")

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None, keep: Path | None = None) -> "EncoderStudent":
        """An encoder student from a checkpoint folder.

        Args:
            keep: a folder for what a language model was read for, which is then not read for again.

        Raises:
            PiarError: no student there, or a checkpoint that is not whole.
        """
        folder = Path(path)
        card = read_card(folder)
        if (folder / MARKER).exists():
            check(folder)
        model = _MODELS[card.reads](folder)
        tokenizer = load_tokenizer(str(folder))
        if model.config.num_labels != len(card.task.grades):
            raise PiarError(
                f"{folder} tells {model.config.num_labels} grades apart, and its card names {len(card.task.grades)}.",
                "Train it again, or use another checkpoint.",
            )
        student = cls(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), tokenizer, card)
        student._try(folder)
        if keep and isinstance(model, Prompted):
            model.keep(keep)
        return student

    def _try(self, folder: Path) -> None:
        """Judge a sample, so that a folder whose parts do not fit each other is refused before it is asked.

        Raises:
            PiarError: it cannot.
        """
        try:
            ids = self.encoded([dict.fromkeys(self.task.fields, "a")])
            told = probabilities(self.model, self.tokenizer, ids)
        except (PiarError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of many kinds: other sizes, other types, names that nothing has
            said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        else:
            if np.isfinite(told).all():
                return
            said = "its probabilities are no numbers"
        raise PiarError(f"{folder} cannot judge ({said}).", "Train it again, or use another checkpoint.")

    def encoded(self, samples: Sequence[Mapping[str, str]], *, cut: bool = False) -> list[Encoded]:
        """Tokens of samples, with `cut` those that it reads alone; errors as for `texts`."""
        return encode(self.model, self.tokenizer, self.texts(samples), self.task, self.most if cut else None)

    def texts(self, samples: Sequence[Mapping[str, str]]) -> list[list[str]]:
        """Each sample's fields in the task's order.

        Raises:
            PiarError: a sample lacks one of them.
        """
        wanted = self.task.fields
        missing = next((name for fields in samples for name in wanted if name not in fields), None)
        if missing:
            raise PiarError(
                f"A sample lacks the field {missing!r} that this student reads.",
                f"It was taught on: {', '.join(wanted)}.",
            )
        return [[fields[name] for name in wanted] for fields in samples]

    def fitting(self, samples: Sequence[Mapping[str, str]]) -> list[Encoded]:
        """Tokens of samples, the longer text cut where both are too long; says how many were."""
        found, cut = fitting(self.model, self.tokenizer, self.texts(samples), self.task, self.most)
        if cut:
            log.warning("%d of %d samples were cut: this student reads %d tokens", cut, len(samples), self.most)
        return found

    def score(
        self,
        samples: Sequence[Mapping[str, str]],
        *,
        trace: bool = False,
        on_progress: Callable[[int], None] = lambda n: None,
    ) -> list[Scored]:
        """Judge samples, in the order given.

        Args:
            trace: not to be had from an encoder.
            on_progress: called with the number of samples done since the last call.

        Raises:
            UsageError: a trace was asked for.
        """
        if trace:
            no_trace()
        ids = self.fitting(samples)
        return [opinion(self.card, row) for row in probabilities(self.model, self.tokenizer, ids, on_progress).tolist()]


class EncoderSession:
    """Answers requests with an encoder; of what it reads samples share at most the beginning of a prompt."""

    def __init__(self, student: EncoderStudent) -> None:
        self.student, model = student, student.model
        self.root: list[int] = model.warm(student.tokenizer) if isinstance(model, Prompted) else []

    def prompts(self, samples: Sequence[Mapping[str, str]]) -> list[Encoded | TooLong]:
        """Tokens of each sample, or why there are none; errors as for `EncoderStudent.encoded`."""
        most = self.student.most
        found = self.student.encoded(samples)
        return [one if one.longest <= most else TooLong(one.longest, most) for one in found]

    def score(self, prompts: Sequence[Any]) -> list[Scored]:
        """The grade of each sample."""
        probs = probabilities(self.student.model, self.student.tokenizer, prompts)
        return [opinion(self.student.card, row) for row in probs.tolist()]

    explains = False

    def begin(self, sample: Mapping[str, str]) -> NoReturn:
        """Not to be had from an encoder: UsageError."""
        no_trace()


def no_trace() -> NoReturn:
    """Say that an encoder explains nothing."""
    raise UsageError(
        "This student is an encoder: it has no trace to write.",
        "A language model writes one (`piar train sft`), of its own grades or, with `piar serve --reasons`, of these.",
    )
