"""One student's grades under another one's reasons: a trace for those that write none, such as encoders.

The writer was taught to give the reasons of the grade that its answer begins with. Here it begins with a grade that is
not its own, and gives reasons for that one, whether or not it would have said it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from store.errors import UsageError
from trainers.session import Session, TooLong, Writing
from trainers.students import AnySession, AnyStudent

if TYPE_CHECKING:
    from trainers.scoring import Scored


class Explained:
    """A student kept warm for requests, and the one that explains its grades.

    Args:
        session: gives the grades.
        writer: writes the traces; its task has the same fields and grades.

    Raises:
        UsageError: the writer was taught no traces.
    """

    explains = True

    def __init__(self, session: AnySession, writer: AnySession) -> None:
        if not isinstance(writer, Session) or not writer.explains:
            raise UsageError(
                "The student that is to give the reasons was taught no traces.",
                "Name one of `piar train sft` with train.sft.completion=trace, or leave --reasons out.",
            )
        self._session, self._writer = session, writer
        self.root = session.root

    @property
    def student(self) -> AnyStudent:
        """Who gives the grades."""
        return self._session.student

    def prompts(self, samples: Sequence[Mapping[str, str]]) -> Sequence[list[int] | TooLong]:
        """Tokens of each sample as the student reads it, or why there are none."""
        return self._session.prompts(samples)

    def score(self, prompts: Sequence[Sequence[int]]) -> "list[Scored]":
        """The grade of each, in one pass."""
        return self._session.score(prompts)

    def begin(self, sample: Mapping[str, str]) -> Writing | TooLong:
        """The student's grade of one sample, and the writer's answer that begins with it."""
        [prompt] = self.prompts([sample])
        if isinstance(prompt, TooLong):
            return prompt
        [scored] = self.score([prompt])
        begun = self._writer.begin(sample, scored)
        return replace(begun, reader="the student that writes the reasons") if isinstance(begun, TooLong) else begun
