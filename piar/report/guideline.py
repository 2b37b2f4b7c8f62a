"""Where people's answers say that the guideline may be wrong, told with its words and some rows to talk about."""

from typing import Any

from piar.review.codebook import ANSWERS, GuidelineDoubt, guideline_doubts
from store.db import Store
from store.types import Instruction

SHOWN, SHOWN_ROWS = 5, 2
_SAID = """select sample_id, annotator, grade, rule from vote
where source = 'human' and sample_id in (select unnest($1::uuid[])) order by sample_id, annotator, created_at"""
_HELD = "select sample_id, grade from truth where sample_id in (select unnest($1::uuid[]))"


def doubted(store: Store, current: Instruction | None) -> dict[str, Any] | None:
    """The surest doubts of `piar.review.codebook`, each with what is written and rows that divide people there.

    Args:
        current: the instruction whose words are shown.

    Returns:
        `rows` (of each: `found`, `words`, `rows` with the fields, the label and who said what), how many were `tested`
        and the `source`; None where nothing is in doubt.
    """
    found, tested = guideline_doubts(store)
    if not found:
        return None
    return {"rows": [_told(store, current, doubt) for doubt in found[:SHOWN]], "tested": tested, "source": ANSWERS}


def _told(store: Store, current: Instruction | None, doubt: GuidelineDoubt) -> dict[str, Any]:
    keys = list(doubt.sample_ids[:SHOWN_ROWS])
    samples = {s.id: s.fields for s in store.samples(ids=keys)}
    said, held = store.frame(_SAID, [keys]).rows(named=True), dict(store.frame(_HELD, [keys]).rows())
    rows = [
        {"id": k, "fields": samples[k], "label": held.get(k), "said": [s for s in said if s["sample_id"] == k]}
        for k in keys
    ]
    return {"found": doubt, "words": _words(store, current, doubt.what), "rows": rows}


def _words(store: Store, current: Instruction | None, what: str) -> str:
    """What the instruction says there now; "" of a row."""
    kind, _, name = what.partition(" ")
    if kind == "rule":
        rule = current.rule(name) if current else None
        return rule.text if rule else "This rule is not in the instruction."
    if kind == "grade":
        meanings = {g.symbol: g.meaning for g in store.task.grades} | dict(current.meanings if current else {})
        return meanings.get(name, "")
    return ""
