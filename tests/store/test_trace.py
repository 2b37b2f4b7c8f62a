"""The answer-first format: what is written is read back, and what is not an answer has a reason."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.task import Task
from store.trace import parse_trace, trace_schema, write_trace
from store.types import Trace

SYMBOLS = ["0", "1", "10", "-1", "A", "A*", "a", "good"]
TASK = Task.model_validate(
    {
        "name": "t",
        "group_by": "query",
        "fields": ["query", "title"],
        "grades": [{"symbol": s, "value": i} for i, s in enumerate(SYMBOLS)],
        "steps": [{"name": "kind", "choices": ["same", "other"]}, {"name": "note"}],
    }
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
traces = st.builds(
    Trace,
    grade=st.sampled_from(SYMBOLS),
    evidence=st.lists(texts, max_size=3).map(tuple),
    steps=st.fixed_dictionaries({"kind": texts, "note": texts}),
    rules=st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True), max_size=3).map(tuple),
    verdict=st.sampled_from(SYMBOLS),
)


@given(traces, st.booleans())
@settings(max_examples=300, deadline=None)
def test_parse_reads_what_write_wrote(trace, strict):
    text = write_trace(trace, TASK)
    assert parse_trace(text, TASK, strict=strict).trace == trace
    assert text.split("\n")[0] == trace.grade  # the first line is the answer
    assert len(text.split("\n")) == 6


@given(traces)
@settings(deadline=None)
def test_an_answer_as_json_is_read_as_the_same_trace(trace):
    data = {"grade": trace.grade, "evidence": trace.evidence, **trace.steps, "rules": trace.rules}
    text = json.dumps({**data, "verdict": trace.verdict})
    assert parse_trace(text, TASK).trace == trace
    assert parse_trace(text, TASK, strict=True).trace is None


@given(st.text(st.characters(codec=None)), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_trace_or_a_reason(text, strict):
    parsed = parse_trace(text, TASK, strict=strict)
    assert (parsed.trace is None) == bool(parsed.reason)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("10", "10"),
        ("1\nverdict: 10", "1"),
        ("Grade: -1", "-1"),
        ("**Answer:** good", "good"),
        ("A*", "A*"),
        ("a", "a"),
        ("A.", "A"),
        ("GOOD", "good"),
        ("<think>0\nmaybe</think>\n```\n1\n```", "1"),
        ('{"grade": 10}', "10"),
        ('{"grade": 1.0}', "1"),
        ('{"Grade": "1", "evidence": ["a"],}', "1"),
        ("{'grade': '1', 'evidence': []}", "1"),
        ('{"grade": "1 (poor)"}', "1"),
        ('{"grade": "１０"}', "10"),
        ('{"grade": "1", "evidence": ["two\nlines"]}', "1"),
        ('[{"grade": "1"}]', "1"),
        ('{"answer": {"grade": "1"}}', "1"),
        ('```json\n{"grade": "1"}\n```\nIt fits {the} query.', "1"),
        ('Here it is:\n```\n{"grade": "1"}\n```', "1"),
        ('{"grade": "1"}\n\nI chose this: grade 10 needs more.', "1"),
        ('{"grade": "1", "evidence": ["</think> 0"]}', "1"),
        ('1\nevidence: "</think>", "{\\"grade\\": \\"0\\"}"\nverdict: 1', "1"),
        ("so it is clear.</think>\n\n1\nevidence:", "1"),
        ("<think>of <think> I know</think>\n</think>\n1", "1"),
        ("[THINK]0[/THINK]1", "1"),
        ("<think>0</think>Grade: 1 (poor)", "1"),
        ("<|channel|>analysis<|message|>0<|end|><|start|>assistant<|channel|>final<|message|>1", "1"),
        ("analysisThe query asks.assistantfinal1", "1"),
        ("**10**", "10"),
        ("### Grade: **10**\nBecause.", "10"),
        ("The final grade is 10.", "10"),
        ("評価：１０\n根拠：なし", "10"),
        ("١٠", "10"),
        ("1 (poor)", "1"),
        ("1 – poor match", "1"),
        ("The title fits.\n\n**Grade:** 1\n", "1"),
        ("So $\\boxed{10}$.", "10"),
        ("Reasons.\n<grade>10</grade>", "10"),
        ('Sure, here is my verdict:\n\n10\nevidence: "a"', "10"),
    ],
)
def test_lenient_reading_finds_the_grade_that_was_meant(text, grade):
    assert parse_trace(text, TASK).trace.grade == grade


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("The grade is probably good.", "not a grade symbol"),
        ("100", "not a grade symbol"),
        ("<think>" * 20_000, "only thinking"),
        ("<think>maybe 1</think>", "no answer after it"),
        ('{"grade": "1"} or rather {"grade": "10"}', "several grades"),
        ("The query is short.\nGrade: 1\nGrade: 10", "several grades"),
        ("1. The query asks for a mouse.\n2. The title is one.", "not a grade symbol"),
        ('{"grade": "1", "evidence": ["{\'grade\': \'0\'}', "not JSON"),
        ("\n " * 60_000 + "x", "not a grade symbol"),
        ("x" + "\n " * 60_000, "not a grade symbol"),
        ("{" + '"a":{' * 30_000, "not JSON"),
        ('{"grade": "best"}', "without a known grade"),
        ("1" * 300_000, "300,000 characters"),
    ],
)
def test_what_is_no_answer_has_a_reason(text, reason):
    assert reason in parse_trace(text, TASK).reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1\nevidence:\nkind: x\nnote:\nrules: R1", "5"),
        ("1\nevidence: unquoted\nkind:\nnote:\nrules:\nverdict: 1", "not a list of quoted spans"),
        ("1\nevidence: " + "[" * 50_000 + "\nkind:\nnote:\nrules:\nverdict: 1", "not a list of quoted spans"),
        ("1\nevidence: 3\nkind:\nnote:\nrules:\nverdict: 1", "not a quoted span"),
        ("1\nkind:\nevidence:\nnote:\nrules:\nverdict: 1", "expected"),
        ('1\nevidence:\nkind: "open\nnote:\nrules:\nverdict: 1', "quoted value is broken"),
        ("1\nevidence:\nkind:\nnote:\nrules: R 1\nverdict: 1", "not a rule id"),
        ("1\nevidence:\nkind:\nnote:\nrules:\nverdict: 7", "not a grade symbol"),
    ],
)
def test_strict_reading_says_what_is_wrong(text, reason):
    text = text.replace("5", "5") if reason != "5" else text
    parsed = parse_trace(text, TASK, strict=True)
    assert parsed.trace is None
    assert (reason if reason != "5" else "4 lines after the grade where 5 are due") in parsed.reason


def test_schema_puts_the_grade_first_and_knows_the_rules():
    schema = trace_schema(TASK, ("R1", "R2"))
    assert list(schema["properties"]) == ["grade", "evidence", "kind", "note", "rules", "verdict"]
    assert schema["properties"]["grade"]["enum"] == list(TASK.symbols)
    assert schema["properties"]["rules"]["items"]["enum"] == ["R1", "R2"]
