"""What each optimizer's prompt asks, read from its text: nothing else of an optimizer is known to the endpoint.

gepa: the default reflection prompt (instruction and examples in ``` fences). DSPy: signatures in its chat and
JSON formats (`[[ ## field ## ]]`). Ours: one JSON object. Judging: a system text with one JSON object, or DSPy's form.
"""

import ast
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from piar.instructions.revision_schema import EvidenceItem
from piar.llm.base import Message

_FENCES = re.compile(r"^I provided an assistant.*?```\n(.*?)\n```.*?```\n(.*)\n```\s*\n+Your task", re.S)
_EXAMPLE = re.compile(r"^# Example \d+$", re.M)
_MARKER = re.compile(r"^\[\[ ## (\w+) ## \]\]$", re.M)
_OBJECTIVE = "your objective is: "
_RIGHT = re.compile(r"right grade is (\S+?)\.")
_DATA = re.compile(r"Example\((\{.*?\})\) \(input_keys=")


@dataclass(frozen=True)
class Asked:
    """What is asked.

    Attributes:
        kind: `judge`, `revise` (ours), `rewrite`, `advise`, `observe` or `describe`.
        wants: name of the field to answer, in DSPy's formats.
        instruction: the text to judge by or to improve.
        sample: what is to be judged.
        evidence: judged examples.
        told: earlier words of the endpoint that come with the question.
        json_form: whether a JSON object is to be answered.
    """

    kind: str
    wants: str = ""
    instruction: str = ""
    sample: dict[str, str] = field(default_factory=dict)
    evidence: tuple[EvidenceItem, ...] = ()
    told: str = ""
    json_form: bool = False


def read(messages: Sequence[Message]) -> Asked:
    """What the messages ask.

    Raises:
        ValueError: no known format.
    """
    first, last = messages[0].content, messages[-1].content
    if reflection := _FENCES.match(last):
        return Asked("rewrite", instruction=reflection[1], evidence=_from_markdown(reflection[2]))
    if _OBJECTIVE in first and "[[ ## " in last:
        return _from_dspy(first, last)
    data = json.loads(last)
    if data.get("task") == "revise":
        return Asked("revise")
    return Asked("judge", instruction=first, sample=data)


def item(fields: dict[str, str], truth: str, verdict: str | None = None) -> EvidenceItem:
    """A judged example; its query is its group."""
    return EvidenceItem(
        fields=fields, truth=truth, verdict=verdict, group=fields.get("query", ""),
        kind="right" if truth == verdict else "error",
    )  # fmt: skip


def _from_markdown(text: str) -> tuple[EvidenceItem, ...]:
    """gepa's examples: `## Inputs`, `### query`, …, `## Feedback`."""
    items = []
    for part in _EXAMPLE.split(text)[1:]:
        values = dict(re.findall(r"^#{2,4} ([\w ]+)\n+((?:(?!#).*\n?)*)", part, re.M))
        right = _RIGHT.search(values.get("Feedback", ""))
        if right:
            fields = {name: values.get(name, "").strip() for name in ("query", "title")}
            items.append(item(fields, right[1], values.get("Generated Outputs", "").strip()[:1] or None))
    return tuple(items)


def _from_dspy(system: str, user: str) -> Asked:
    given = _sections(user)
    outputs = re.findall(r"\d+\. `(\w+)`", system.partition("Your output fields are:")[2].partition("All inter")[0])
    instruction = textwrap.dedent(" " * 8 + system.partition(_OBJECTIVE)[2].strip()).strip()
    wants = outputs[-1]
    json_form = "Outputs will be a JSON object" in system
    match wants:
        case "grade":
            return Asked("judge", wants, instruction, {name: given[name] for name in ("query", "title")})
        case "new_instruction":
            shown = tuple(map(_from_record, json.loads(given["examples_with_feedback"])))
            return Asked("rewrite", wants, given["current_instruction"], evidence=shown, json_form=json_form)
        case "observations":
            shown = tuple(item(_two(d), d["grade"]) for d in map(ast.literal_eval, _DATA.findall(given["examples"])))
            return Asked("observe", wants, evidence=shown, told=given.get("prior_observations", ""))
        case "summary":
            return Asked("describe", wants, told=given["observations"])
        case "proposed_instruction":
            return Asked("rewrite", wants, given["basic_instruction"], told=given.get("dataset_description", ""))
        case "module_advice":
            truth = json.loads(given["oracle_metadata"])["grade"]
            said = json.loads(given["worse_program_outputs"]).get("grade")
            shown = (item(json.loads(given["program_inputs"]), truth, said),)
            return Asked("advise", wants, _original(given["modules_defn"]), evidence=shown)
    return Asked("describe", wants)


def _sections(text: str) -> dict[str, str]:
    parts = _MARKER.split(text.partition("\nRespond with ")[0])
    return {name: value.strip() for name, value in zip(parts[1::2], parts[2::2], strict=True)}


def _two(record: dict[str, str]) -> dict[str, str]:
    return {name: record[name] for name in ("query", "title")}


def _from_record(record: dict[str, dict[str, str]]) -> EvidenceItem:
    right = _RIGHT.search(str(record["Feedback"]))
    outputs = record["Generated Outputs"]
    return item(
        record["Inputs"], right[1] if right else "", outputs.get("grade") if isinstance(outputs, dict) else None
    )


def _original(definition: str) -> str:
    return textwrap.dedent(definition.partition("Original Instructions:")[2].rpartition("-" * 80)[0])
