"""Exports of annotation tools as tables: Prodigy, doccano, Argilla, promptfoo.

Chosen by us: who annotated is on record in Prodigy's and Argilla's files, so that their answers are votes and never
gold; doccano's labels and promptfoo's results name nobody and are gold. What a row cannot say in one grade (several
labels, a rejected choice) leaves it ungraded or out, with a reason.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from store.errors import UsageError
from store.figures import many
from store.label_studio import of_earlier, with_vote_columns
from store.tables import VOTES, Rejection, Table, from_records, moment, text

Object = Mapping[str, Any]
Numbered = Sequence[tuple[int, Any]]
Vote = tuple[str, str | None, str, list[str], Any]  # annotator, grade, comment, flags, when
SKIPPED, DRAFT = "skipped", "draft"  # flags of what is no vote


def _voted(rows: Iterable[tuple[int, Object, list[Vote]] | Rejection], called: str) -> Table:
    """Rows with the votes on them."""
    fields, lines, rejected, votes = list[Object](), list[int](), list[Rejection](), list[tuple[Any, ...]]()
    for row in rows:
        if isinstance(row, Rejection):
            rejected.append(row)
            continue
        number, said, opinions = row
        votes += [(len(fields), who, grade, None, note, flags, when) for who, grade, note, flags, when in opinions]
        fields.append(said)
        lines.append(number)
    table = with_vote_columns(from_records(fields, lines, rejected), pl.DataFrame(votes, schema=VOTES, orient="row"))
    return _named(table, called)


def _named(table: Table, called: str, **roles: str) -> Table:
    return Table(
        table.frame, table.lines, table.rejected, table.votes, table.vote_columns, (*table.notes, called), roles
    )


def _dicts(value: object) -> list[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# -- Prodigy --------------------------------------------------------------------------------


def is_prodigy(record: Object) -> bool:
    """A task of Prodigy that was answered."""
    return "_input_hash" in record or (
        record.get("answer") in ("accept", "reject", "ignore")
        and bool({"_annotator_id", "_session_id", "_view_id"} & record.keys())
    )


def read_prodigy(records: Numbered, name: str, control: str | None) -> Table:
    """Answers as votes, the answers to one text together.

    A choice is the option that was taken. Of one label to be accepted or rejected, `accept` and `reject` are the
    grades; of several labels an accepted one is the grade. Who answered one task twice has the last word alone.
    """
    given = [(number, task) for number, task in records if isinstance(task, dict)]
    last = {_asked(task) or (number,): number for number, task in given}
    kept = set(last.values())
    tasks = [(number, task) for number, task in given if number in kept]
    labels = {text(task["label"]) for _, task in tasks if isinstance(task.get("label"), str)}
    found: dict[str, tuple[int, Object, list[Vote]]] = {}
    rejected = [Rejection(number, "not an answered task") for number, task in records if not isinstance(task, dict)]
    for number, task in tasks:
        fields = {key: value for key, value in task.items() if key in ("text", "html", "image") and value}
        fields |= task["meta"] if isinstance(task.get("meta"), dict) else {}
        if isinstance(task.get("spans"), list) and task["spans"]:
            rejected.append(Rejection(number, "spans of a text: piar grades whole rows"))
            continue
        key = text(task.get("_input_hash", fields))
        found.setdefault(key, (number, fields, []))[2].extend(_prodigy_vote(task, labels))
    table = _voted([*found.values(), *rejected], "a Prodigy export")
    return replace(table, notes=(*table.notes, *of_earlier(len(given) - len(tasks))))


def _asked(task: Object) -> tuple[str, ...]:
    """What was asked of whom; empty where that is not on record. Prodigy writes answers in the order they came."""
    who, told = task.get("_annotator_id") or task.get("_session_id"), task.get("_task_hash")
    return (text(who), text(told)) if who and told is not None else ()


def _prodigy_vote(task: Object, labels: set[str]) -> Iterator[Vote]:
    answer, chosen = task.get("answer"), task.get("accept")
    grade = None
    if answer == "accept" and isinstance(chosen, list):
        grade = text(chosen[0]) if len(chosen) == 1 else None
    elif len(labels) == 1 and answer in ("accept", "reject"):
        grade = text(answer)
    elif answer == "accept" and isinstance(task.get("label"), str):
        grade = text(task["label"])
    who = text(task.get("_annotator_id") or task.get("_session_id")) or "unknown"
    yield who, grade, text(task.get("note") or task.get("comment")), [] if grade else [SKIPPED], None


# -- doccano --------------------------------------------------------------------------------


def labels_of(record: Object) -> tuple[str, str] | None:
    """Keys of the text and of its list of labels, as doccano writes them."""
    words = next((key for key in ("text", "data") if isinstance(record.get(key), str)), None)
    labels = next((key for key in ("label", "labels") if isinstance(record.get(key), list)), None)
    return (words, labels) if words and labels else None


def read_labels(records: Numbered, name: str, control: str | None) -> Table:
    """Texts with one label each; a text with several is left out.

    Raises:
        UsageError: the labels are spans of the texts.
    """
    rows, lines, rejected = list[Object](), list[int](), list[Rejection]()
    for number, record in records:
        keys = labels_of(record) if isinstance(record, dict) else None
        if keys is None:
            rejected.append(Rejection(number, "no text with a list of labels"))
            continue
        labels = record[keys[1]]
        if any(isinstance(label, list | dict) for label in labels):
            raise UsageError(
                f"{name}: its labels are spans of texts, and piar grades whole rows.",
                "Export a project of document classification; to take the file as a plain table, add --plain.",
            )
        if len(labels) > 1:
            rejected.append(Rejection(number, f"{many(len(labels), 'label')}: one grade a row"))
            continue
        about = {key: value for key, value in record.items() if key not in (*keys, "Comments", "comments")}
        rows.append({**about, keys[0]: record[keys[0]], "label": labels[0] if labels else ""})
        lines.append(number)
    table = from_records(rows, lines, rejected)
    return _named(table, "texts with lists of labels, as doccano exports them", **({"gold": "label"} if rows else {}))


# -- Argilla --------------------------------------------------------------------------------


def is_argilla(record: Object) -> bool:
    """A record of Argilla."""
    return isinstance(record.get("fields"), dict) and bool({"responses", "suggestions"} & record.keys())


def is_flat_argilla(record: Object) -> bool:
    """A record of Argilla as a row of a dataset: `QUESTION.responses`, `QUESTION.responses.users`."""
    return any(key.endswith((".responses.users", ".suggestion.agent")) for key in record)


def read_argilla(records: Numbered, name: str, control: str | None) -> Table:
    """Records as rows, the responses to one question as votes.

    Args:
        control: the question; None: the only one.

    Raises:
        UsageError: several questions of which none is named, or no such question.
    """
    good = [(number, _folded(record)) for number, record in records if isinstance(record, dict)]
    answers = [(number, record, _responses(record)) for number, record in good]
    asked = Counter(question for _, _, said in answers for question, _ in said)
    if control is not None and control not in asked:
        raise UsageError(f"Nobody answered {control!r} in {name}.", f"It has {', '.join(map(repr, asked)) or 'none'}.")
    if control is None and len(asked) > 1:
        listed = ", ".join(f"{question!r} ({n:,})" for question, n in asked.items())
        raise UsageError(f"{name} has answers to {listed}.", f"Name the question: --control {next(iter(asked))}")
    question = control or next(iter(asked), "")
    rows = [
        (number, record["fields"], [vote for named, vote in said if named == question])
        for number, record, said in answers
    ]
    rejected = [Rejection(number, "not a record") for number, record in records if not isinstance(record, dict)]
    return _voted([*rows, *rejected], "an Argilla export")


def _folded(record: Object) -> Object:
    """A flat record with its fields and responses apart."""
    if isinstance(record.get("fields"), dict):
        return record
    names = [key.removesuffix(".responses") for key in record if key.endswith(".responses")]
    responses = {}
    for name in names:
        values = record.get(f"{name}.responses") or []
        users = record.get(f"{name}.responses.users") or [None] * len(values)
        states = record.get(f"{name}.responses.status") or [None] * len(values)
        responses[name] = [
            {"value": v, "user_id": u, "status": s} for v, u, s in zip(values, users, states, strict=False)
        ]
    ours = ("id", "status", "_server_id", "inserted_at", "updated_at", "metadata", "vectors")
    asked = {*names, *(key.partition(".")[0] for key in record if ".suggestion" in key)}
    fields = {k: v for k, v in record.items() if k.partition(".")[0] not in asked and k not in ours}
    return {"fields": fields, "responses": responses}


def _responses(record: Object) -> list[tuple[str, Vote]]:
    """The question and the vote of each response, in the layout of either SDK."""
    said, found = record.get("responses"), list[tuple[str, Vote]]()
    if isinstance(said, dict):
        each = [(question, one, one.get("value")) for question, listed in said.items() for one in _dicts(listed)]
    else:
        each = [
            (question, one, value.get("value") if isinstance(value, dict) else value)
            for one in _dicts(said)
            for question, value in (one.get("values") or {}).items()
        ]
    for question, one, value in each:
        skipped = one.get("status") == "discarded" or value is None
        flags = [SKIPPED] if skipped else [DRAFT] if one.get("status") in ("draft", "pending") else []
        who = text(one.get("user_id") or one.get("user")) or "unknown"
        when = moment(one.get("updated_at") or one.get("inserted_at"))
        found.append((question, (who, None if skipped else text(value), "", flags, when)))
    return found


# -- promptfoo ------------------------------------------------------------------------------


def is_promptfoo(record: Object) -> bool:
    """One result of an evaluation."""
    return {"promptIdx", "testIdx"} <= record.keys()


def is_promptfoo_file(record: Object) -> bool:
    """An evaluation with all its results."""
    results = record.get("results")
    return isinstance(results, dict) and isinstance(results.get("results"), list)


def read_promptfoo(records: Numbered, name: str, control: str | None) -> Table:
    """Each result as a row: the test's variables, the output, and whether it passed; errors are left out."""
    first = records[0][1]
    whole = isinstance(first, dict) and is_promptfoo_file(first)
    results = list(enumerate(first["results"]["results"], 1)) if whole else records
    rows, lines, rejected = list[Object](), list[int](), list[Rejection]()
    for number, result in results:
        response = result.get("response") if isinstance(result, dict) else None
        if not isinstance(response, dict) or "output" not in response:
            rejected.append(Rejection(number, "a result without an output"))
            continue
        given = result.get("vars") if isinstance(result.get("vars"), dict) else {}
        named = {f"var_{key}" if key in ("output", "grade") else key: value for key, value in given.items()}
        rows.append({**named, "output": response["output"], "grade": "pass" if result.get("success") else "fail"})
        lines.append(number)
    table = from_records(rows, lines, rejected)
    return _named(table, "results of promptfoo", **({"gold": "grade"} if rows else {}))
