"""What one student answers, in whatever contract it is asked: its names, its grades, its instruction, its fields."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piar.serve.contracts import Refused
from piar.serve.documents import json_object
from store.task import Task
from trainers.model import shortened
from trainers.scoring import Scored
from trainers.students import AnyStudent

MOST_LEVELS = 10  # of a score question, in both contracts of decision models
MOST_QUESTIONS = 64  # of one request, as vLLM has it; one student has no use for more
_TOLD = 12  # labels that an error names
_AT_LEAST = re.compile(r"\s*grade\s*>=\s*(\S|\S.*\S)\s*")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a student can be asked.

    Attributes:
        names: what requests may call it; the first is what answers call it.
        own: the texts and the id by which its one instruction is known.
        known: the one of them that errors tell.
        most: characters of one field.
        end: whether of a text that is cut the end stays, as the student was taught.
    """

    task: Task
    names: tuple[str, ...]
    own: frozenset[str]
    known: str
    most: int
    end: bool

    @classmethod
    def of(cls, student: AnyStudent, names: tuple[str, ...], most: int) -> "Offer":
        """The offer of a student, by its card."""
        card = student.card
        own = frozenset(text.strip() for text in (card.rubric, card.instruction, card.task.ask)) | {""}
        known = card.task.ask or card.instruction
        return cls(card.task, names, own, known, most, student.end)

    @property
    def scales(self) -> tuple[tuple[str, ...], ...]:
        """The labels that a question may give the grades: all symbols, all names, or all meanings."""
        grades = self.task.grades
        kinds = (self.task.symbols, tuple(g.name for g in grades), tuple(g.meaning for g in grades))
        return tuple(labels for labels in kinds if all(labels) and len(set(labels)) == len(labels))

    @property
    def kind(self) -> str:
        """The question type that fits its scale."""
        return "score" if self.task.ordered and len(self.task.grades) <= MOST_LEVELS else "choice"

    def model(self, asked: str | None) -> None:
        """Make sure that a request means this student.

        Raises:
            Refused: 404, it names another model.
        """
        if asked is not None and asked not in self.names:
            raise Refused(
                404,
                f"no such model here; this server has {_listed(self.names)}",
                param="model",
                code="model_not_found",
            )

    def instructions(self, text: str, where: str) -> None:
        """Make sure that a question does not ask for another judgement than the one that was learned.

        Raises:
            Refused: other instructions than its own.
        """
        if text.strip() not in self.own:
            also = f", or send {json.dumps(self.known[:200], ensure_ascii=False)}" if self.known else ""
            raise Refused(
                400,
                f"this student was taught one instruction and reads no other: leave `instructions` empty{also}",
                param=where,
            )

    def question(self, kind: str, labels: Sequence[object], instructions: str, where: str, key: str) -> None:
        """Make sure that a score or choice question is the student's own: its grades in their order.

        Args:
            where: the question's place in the body; its labels are under `key`.

        Raises:
            Refused: it is not; says what the student answers.
        """
        if kind == "score" and not self.task.ordered:
            raise Refused(400, f"this student's grades have no order: {self.told()}", param=f"{where}.type")
        if kind == "score" and len(labels) > MOST_LEVELS:
            words = f"a score question has at most {MOST_LEVELS} levels, a choice more: {self.told()}"
            raise Refused(400, words, param=f"{where}.{key}")
        if tuple(labels) not in self.scales:
            same = any(set(labels) == set(scale) for scale in self.scales)
            words = f"these are {'in another order' if same else 'other'} than this student's grades: {self.told()}"
            raise Refused(400, words, param=f"{where}.{key}")
        self.instructions(instructions, f"{where}.instructions")

    def at_least(self, name: str, instructions: str, where: str) -> int:
        """The place of K in a predicate whose name or instructions are `grade>=K`.

        Raises:
            Refused: no such predicate, other instructions beside it, or grades without order.
        """
        said = [match[1] for text in (instructions, name) if (match := _AT_LEAST.fullmatch(text))]
        found = [next((scale.index(label) for scale in self.scales if label in scale), None) for label in said]
        if not self.task.ordered or not found or found[0] is None or len(set(found)) > 1:
            raise Refused(400, f"this student has no such predicate: {self.told()}", param=where)
        if not _AT_LEAST.fullmatch(instructions):
            self.instructions(instructions, where)
        return found[0]

    def sample(self, data: Mapping[str, Any], where: str) -> dict[str, str]:
        """The task's fields out of a JSON object that has exactly these.

        Raises:
            Refused: a field is missing, unknown, no text or too long.
        """
        fields = self.task.fields
        missing, unknown = [f for f in fields if f not in data], [key for key in data if key not in fields]
        if missing or unknown:
            wrong = f"lacks {_listed(missing)}" if missing else f"has {len(unknown)} keys too many"
            raise Refused(400, f"the object {wrong}; a sample of this task is {_listed(fields)}", param=where)
        return {name: self.text(data[name], f"{where}.{name}") for name in fields}

    def only(self, text: str, where: str, instead: str) -> dict[str, str]:
        """A text as the task's only field, or as the JSON of a whole sample: clients write objects as text.

        Args:
            instead: what to send for a task of several fields.

        Raises:
            Refused: it has several, or the text is too long.
        """
        fields = self.task.fields
        if (data := json_object(text)) is not None and set(data) == set(fields):
            return self.sample(data, where)
        if len(fields) > 1:
            raise Refused(400, f"this task has several fields, so {instead}: {self.told()}", param=where)
        return {fields[0]: self.text(text, where)}

    def text(self, value: Any, where: str, *, cut: bool = False) -> str:
        """A value as the text of a field; what is no text is given as JSON, nothing as "".

        Args:
            cut: give the end that the student reads of a text that is too long.

        Raises:
            Refused: too long, or no Unicode.
        """
        try:
            text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
            text.encode()
        except (RecursionError, UnicodeEncodeError):
            raise Refused(400, "nested too deeply, or half of a surrogate pair", param=where) from None
        if len(text) > self.most and not cut:
            words = f"{len(text):,} characters; this server reads {self.most:,} of a field"
            raise Refused(400, words, param=where, code="context_length_exceeded")
        return shortened(text, self.most, end=self.end)

    def relevance(self, scored: Scored) -> float:
        """The expected grade, from 0 for the lowest to 1 for the highest."""
        low, high = self.task.grades[0].value, self.task.grades[-1].value
        return min(1.0, max(0.0, (scored.expected - low) / (high - low))) if high > low else 0.0

    def told(self) -> str:
        """What it answers, in a sentence for people who asked something else."""
        more = ', or a predicate "grade>=K"' if self.task.ordered else ""
        return (
            f"it answers one question about {_listed(self.task.fields)}: a {self.kind} question with {self._grades()} "
            f"in this order{more}; `instructions` empty or its own"
        )

    def _grades(self) -> str:
        return " or ".join(_listed(scale) for scale in self.scales[:2])


def _listed(names: Sequence[str]) -> str:
    more = [f"… ({len(names)} in all)"] if len(names) > _TOLD else []
    return ", ".join([json.dumps(name, ensure_ascii=False) for name in names[:_TOLD]] + more)
