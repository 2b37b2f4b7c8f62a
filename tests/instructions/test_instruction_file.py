"""`instruction.md`: what is written is read back, hand edits are understood, mistakes are named by line."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piar.instructions.markdown import normal, parse, write
from piar.instructions.prompts import judge_prefix
from store.db import instruction_from_json, instruction_to_json
from store.errors import UsageError
from store.task import Grade, Task
from store.types import PART_KINDS, Example, Instruction, Part, Rule

TASK = Task(
    name="search",
    group_by="query",
    fields=("query", "title"),
    grades=(
        Grade(symbol="0", name="poor", value=0, meaning="not it"),
        Grade(symbol="1", name="fair", value=1),
        Grade(symbol="2a", value=2, meaning="it"),
    ),
)
SYMBOLS = st.sampled_from(TASK.symbols)
RULE_ID = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,6}", fullmatch=True)
TEXT = st.text(max_size=60) | st.sampled_from(
    [
        '"quoted"',
        "## Rules",
        "- **R1** → 0: x",
        "a\nb",
        "→ 0: x",
        " lead",
        "trail ",
        "\\n",
        "{{ x }}",
        "<b>",
        "**",
        "x: y",
    ]
)


PARTS = st.lists(st.builds(Part, st.sampled_from(PART_KINDS), TEXT.filter(bool)), max_size=3).map(tuple)


@st.composite
def instructions(draw):
    ids = draw(st.lists(RULE_ID, unique=True, max_size=5))
    rules = tuple(Rule(i, draw(TEXT), draw(SYMBOLS | st.none()), draw(PARTS)) for i in ids)
    cited = st.none() | (st.sampled_from(ids) if ids else st.none())
    example = st.builds(Example, st.dictionaries(st.sampled_from(TASK.fields), TEXT), SYMBOLS, cited)
    return Instruction(
        preamble=draw(TEXT),
        rules=rules,
        meanings=draw(st.dictionaries(SYMBOLS, TEXT)),
        examples=tuple(draw(st.lists(example, max_size=3))),
    )


@given(instructions())
def test_what_is_written_is_read_back(instruction):
    assert parse(write(instruction, TASK), TASK) == normal(instruction, TASK)


@given(st.text(max_size=400) | st.lists(TEXT).map("\n".join))
def test_any_text_is_read_or_refused_with_a_line(text):
    instruction, complaint = attempt(text)
    if instruction is None:
        assert "line " in complaint or "is empty" in complaint
    else:
        assert parse(write(instruction, TASK), TASK) == normal(instruction, TASK)


def attempt(text):
    try:
        return parse(text, TASK), ""
    except UsageError as error:
        return None, error.message


def test_a_hand_edit_is_understood():
    text = """Judge it.

## Grades
* **0**: way off

## Rules
Read them in order.
- **R03** -> 0: an accessory
  for the thing itself
* -> 2a: the exact product
- compare units after conversion
## Examples
- {"query": "a", "title": "b"} -> 1 (R03)
"""
    instruction = parse(text, TASK)
    assert instruction.rules == (
        Rule("R03", "an accessory for the thing itself", "0"),
        Rule("R04", "the exact product", "2a"),
        Rule("R05", "compare units after conversion"),
    )
    assert instruction.meanings == {"0": "way off"}
    assert instruction.examples == (Example({"query": "a", "title": "b"}, "1", "R03"),)


def test_the_parts_of_a_rule_are_read_as_people_write_them():
    text = """Judge it.

## Rules
- **R01** → 0: an accessory
  of any kind
  - Use when: the title names
    what it is for
  - **Do not use when:** the query asks for it

  * Counterexample: "camera bag" → camera bag
- example: camera → camera bag
- **R02**: units
    - examples:
      - 1 kg → 1000 g
      - "quoted"
  - avoid when:
- **Example**: the rule of this name
- sizes
  - mentioned in the title
"""
    instruction = parse(text, TASK)
    first = (
        Part("use when", "the title names what it is for"),
        Part("avoid when", "the query asks for it"),
        Part("counter-example", '"camera bag" → camera bag'),
        Part("example", "camera → camera bag"),
    )
    assert instruction.rules == (
        Rule("R01", "an accessory of any kind", "0", first),
        Rule("R02", "units", None, (Part("example", "1 kg → 1000 g"), Part("example", "quoted"))),
        Rule("Example", "the rule of this name"),
        Rule("R03", "sizes - mentioned in the title"),
    )
    assert parse(write(instruction, TASK), TASK) == instruction
    assert '  - counter-example: "camera bag" → camera bag' in write(instruction, TASK)


def test_no_line_of_a_list_is_lost():
    text = """Judge it.

## Rules
<!-- for us:
ask Ann -->
1. → 0: an accessory for
the thing itself
2) **R02**: units
### About size
3. sizes
---
- colours <!-- kept -->
"""
    assert [(r.id, r.grade, r.text) for r in parse(text, TASK).rules] == [
        ("R03", "0", "an accessory for the thing itself"),
        ("R02", None, "units"),
        ("R04", None, "sizes"),
        ("R05", None, "colours <!-- kept -->"),
    ]
    marked = Instruction("One.\n>>>>>>> theirs")
    assert parse(write(marked, TASK), TASK) == marked


def test_parts_are_what_a_judge_reads_and_their_absence_changes_no_id():
    plain = Instruction("Judge.", (Rule("R01", "an accessory", "0"),))
    assert plain.id == "dad1b29b5b5b"  # as it was before rules had parts: nothing is paid for twice
    told = replace(plain, rules=(replace(plain.rules[0], parts=(Part("avoid when", "it is asked for"),)),))
    assert told.id != plain.id
    assert instruction_from_json(json.loads(json.dumps(instruction_to_json(told)))) == told
    for name in ("judge", "decide"):
        assert "R01 -> 0: an accessory\n  avoid when: it is asked for\n" in judge_prefix(TASK, told, name=name) + "\n"


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("x\n## Rules\n- **R1** → 7: y", 3, "'7'"),
        ("x\n## Rules\n- **R1**: y\n- **R1**: z", 4, "line 3"),
        ("x\n## Grades\n- **9**: y", 3, "'9'"),
        ("x\n## Grades\n- nine", 3, "not a grade"),
        ("x\n## Examples\n- {broken → 0", 3, "JSON"),
        ('x\n## Examples\n- {"query": "a"} 0', 3, "GRADE"),
        ('x\n## Rules\n- **R1**: "open', 3, "quote"),
        ("x\n## Rules\n- **R1**: y\n  - avoid wen: z", 4, "no part of a rule"),
        ("x\n## Rules\n- **R1**: y\n\nNever a used one.", 5, "no judge"),
        ("x\n## Rules\nWhat is used is bad.", 3, "no judge"),
        ("x\n## Grades\n| 0 | bad |\n| - | - |", 3, "no judge"),
        ("x\n## Rules\n  - **R1**: y", 3, "blanks"),
        ("x\n## Grades\n- **0**: y\n### rules:\n- **R1**: z", 4, "no section"),
        ("x\n## Rules\n- **R1**: y\n\n## Notes\n- Ask Ann.", 5, "no section"),
        ("<<<<<<< HEAD\nx\n=======\ny\n>>>>>>> theirs\n", 1, "merge"),
        ("x\n## Rules\n- **R1**: y\n<<<<<<< HEAD\n- **R2**: y\n>>>>>>> theirs\n", 4, "merge"),
    ],
)
def test_mistakes_are_named_by_line(text, line, word):
    with pytest.raises(UsageError, match=f"line {line}: ") as caught:
        parse(text, TASK)
    assert word in caught.value.message
