"""Questions to a reviser: what it is shown, as much of it as its window holds, and how its answer has to look.

A question is made before it is known what fits. A local model says how long its window is and counts tokens itself;
an endpoint names its window when it refuses a prompt, or `[reviser] window` does, and tokens are taken for three bytes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from piar.evolve.revision import read_object
from piar.instructions.revision_schema import (
    EvidenceItem,
    ExampleShown,
    RevisionRequest,
    answer_schema,
    list_of,
    object_of,
)
from piar.llm.base import TURNS, Client, Message, Request, tokens_of
from piar.llm.settings import ModelSettings
from store.ids import content_id

MOST_DIAGNOSES = 6  # of one request
MOST_LETTERS = 12  # of a token, on average: what is longer need not be counted to be too long
LEAST_ANSWER = 256
# Tried one after the other: letters of a text, pieces of evidence that it has to leave room for, and hints.
_CUTS = ((None, 24, 24), (1200, 12, 12), (500, 8, 8), (200, 6, 4), (80, 2, 0))

T = TypeVar("T", EvidenceItem, ExampleShown)
Form = Callable[[RevisionRequest], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about some evidence.

    Attributes:
        purpose: whether edits are asked for, or the causes of what went wrong.
        system: what is asked for, in words.
        shown: what it is asked about.
    """

    purpose: Literal["revise", "diagnose"]
    system: str
    shown: RevisionRequest

    def request(self, client: Client, model: ModelSettings, window: int | None) -> tuple[Request, RevisionRequest]:
        """The question as it is sent, and what is shown of the evidence.

        Args:
            window: tokens of prompt and answer together; None where that is not known, and nothing is left out.
        """
        answer = model.max_tokens if window is None else min(model.max_tokens, max(LEAST_ANSWER, window // 3))
        shown = self.shown if window is None else shortened(self.shown, self._fits(client, window - answer))
        schema = FORMS[self.purpose](shown) if model.structured else None
        told = (client.model, self.system, shown.text(), str(answer), str(model.temperature), json.dumps(schema))
        asked = Request(
            content_id(self.purpose, *told),
            (Message("system", self.system), Message("user", shown.text())),
            schema=schema,
            max_tokens=answer,
            temperature=model.temperature,
            seed=self.shown.seed,
            check=_unread(KEYS[self.purpose]),
            purpose=self.purpose,
        )
        return asked, shown

    def _fits(self, client: Client, room: int) -> Callable[[RevisionRequest], bool]:
        left = room - TURNS - tokens_of(client, self.system)

        def fits(shown: RevisionRequest) -> bool:
            text = shown.text()
            return len(text) <= MOST_LETTERS * left and tokens_of(client, text) <= left

        return fits


def _unread(key: str) -> Callable[[str], str | None]:
    """What is wrong with an answer's text, for a client that can ask again."""
    return lambda text: None if read_object(text, key).data is not None else f"no JSON object with {key!r}"


def shortened(shown: RevisionRequest, fits: Callable[[RevisionRequest], bool]) -> RevisionRequest:
    """The same request with as much evidence as fits, and what was left out said in it.

    Long texts are cut before pieces of evidence are left out, the last ones first; an error keeps its neighbour.
    What does not fit even so is as short as it can be.
    """
    if fits(shown):
        return shown
    for letters, least, hints in _CUTS:
        cut = shown.model_copy(
            update={
                "evidence": tuple(_cut(item, letters) for item in shown.evidence),
                "examples": tuple(_cut(example, letters) for example in shown.examples),
                "hints": shown.hints[:hints],
            }
        )
        most = _most(cut, letters, fits)
        if most >= min(least, len(shown.evidence)):
            break
    return _part(cut, letters, max(most, min(1, len(shown.evidence))))


def _most(shown: RevisionRequest, letters: int | None, fits: Callable[[RevisionRequest], bool]) -> int:
    """Pieces of evidence that fit; 0 where not even one does."""
    low, high = 0, len(shown.evidence)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_part(shown, letters, middle)) else (low, middle - 1)
    split = 0 < low < len(shown.evidence) and shown.evidence[low].kind == "neighbour"
    return low - 1 if split and low > 1 else low


def _part(shown: RevisionRequest, letters: int | None, most: int) -> RevisionRequest:
    told = f"{most} of {len(shown.evidence)} pieces of evidence are shown"
    told += f"; texts of more than {letters} letters are cut" if letters else ""
    return shown.model_copy(update={"evidence": shown.evidence[:most], "shortened": told})


def _cut(item: T, letters: int | None) -> T:
    if letters is None:
        return item
    fields = {name: _middle_out(text, letters) for name, text in item.fields.items()}
    return item.model_copy(update={"fields": fields})


def _middle_out(text: str, letters: int) -> str:
    if len(text) <= letters:
        return text
    head = 2 * letters // 3
    return f"{text[:head].rstrip()} … {text[head - letters :].lstrip()}"


# -- how an answer looks --------------------------------------------------------------------------


def diagnosis_schema(shown: RevisionRequest) -> Mapping[str, Any]:
    """JSON schema of the answers to a question for causes."""
    places = {"type": "integer", "minimum": 0, "maximum": max(0, len(shown.evidence) - 1)}
    rule = [{"type": "string", "enum": [rule.id for rule in shown.rules]}] if shown.rules else []
    one = object_of(
        {
            "cause": {"type": "string", "enum": ["routing", "knowledge", "execution", "suspect"]},
            "errors": list_of(places, 12),
            "rule": {"anyOf": [*rule, {"type": "null"}]},
            "finding": {"type": "string", "minLength": 1, "maxLength": 400},
        }
    )
    return object_of({"diagnoses": list_of(one, MOST_DIAGNOSES)})


FORMS: dict[str, Form] = {"revise": answer_schema, "diagnose": diagnosis_schema}
KEYS = {"revise": "candidates", "diagnose": "diagnoses"}
