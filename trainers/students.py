"""One door for whatever was taught to judge: a student is a language model or an encoder, and asked in the same way."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trainers.checkpoint import StudentCard, read_card

if TYPE_CHECKING:
    from store.task import Task
    from trainers.scoring import Scored
    from trainers.session import TooLong, Writing


class AnyStudent(Protocol):
    """A student that judges samples of its task."""

    card: StudentCard

    @property
    def task(self) -> "Task":
        """What it judges."""

    @property
    def end(self) -> bool:
        """Whether of a text that is cut the end stays, not the start."""

    def fitting(self, samples: Sequence[Mapping[str, str]]) -> Sequence[list[int]]:
        """Tokens of each sample, cut where they are too long; says how many were."""

    def score(
        self,
        samples: Sequence[Mapping[str, str]],
        *,
        trace: bool = False,
        on_progress: Callable[[int], None] = lambda n: None,
    ) -> "list[Scored]":
        """Judge samples, in the order given."""


class AnySession(Protocol):
    """A student kept warm for requests."""

    @property
    def root(self) -> list[int]:
        """Tokens that all prompts begin with, which are warm."""

    @property
    def student(self) -> AnyStudent:
        """Who answers."""

    def prompts(self, samples: Sequence[Mapping[str, str]]) -> "Sequence[list[int] | TooLong]":
        """Tokens of each sample, or why there are none."""

    def score(self, prompts: Sequence[Sequence[int]]) -> "list[Scored]":
        """The grade of each, in one pass."""

    @property
    def explains(self) -> bool:
        """Whether there are traces to write."""

    def begin(self, sample: Mapping[str, str]) -> "Writing | TooLong":
        """The grade of one sample, and the answer that begins with it; or why there is none."""


def load_student(folder: str | Path, *, device: str | None = None, keep: Path | None = None) -> AnyStudent:
    """A student from a checkpoint folder, by the kind that its card says.

    Args:
        device: None for a GPU where there is one.
        keep: a folder for what a frozen language model was read for, so that no sample is read twice.

    Raises:
        PiarError: no student there, or a checkpoint that is not whole.
    """
    if read_card(Path(folder)).kind == "encoder":
        from trainers.encoder_student import EncoderStudent

        return EncoderStudent.load(folder, device=device, keep=keep)
    from trainers.scoring import Student

    return Student.load(folder, device=device)


def session_of(student: AnyStudent) -> AnySession:
    """The student, kept warm for requests."""
    from trainers.scoring import Student
    from trainers.session import Session

    if isinstance(student, Student):
        return Session(student)
    from trainers.encoder_student import EncoderSession, EncoderStudent

    assert isinstance(student, EncoderStudent)
    return EncoderSession(student)
