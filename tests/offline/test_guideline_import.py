"""Guidelines in the layouts that people use come in as rules, with lines, contradictions and leftovers reported."""

import pytest

from piar.instructions.markdown import normal, parse, write
from piar.offline.guideline_import import import_guideline
from store.errors import UsageError
from store.task import Grade
from tests.worlds import TASK as TOY

TASK = TOY.model_copy(
    update={
        "grades": (
            Grade(symbol="0", name="poor", value=0),
            Grade(symbol="1", name="fair", value=1),
            Grade(symbol="2", name="perfect", value=2),
        )
    }
)
CODEBOOK = """# Policy
Be strict.

- Grade 0 if no word of the query appears in the title.
  - When to use: the title is about another thing.
    It is not close.
  - Counter-example: red shoe → red boot
- Otherwise grade 2.
"""


def test_the_parts_of_a_codebook_come_with_their_rule():
    found = import_guideline(CODEBOOK, TASK).instruction
    assert [[part.kind for part in rule.parts] for rule in found.rules] == [["use when", "counter-example"], []]
    assert found.rules[0].parts[0].text == "the title is about another thing. It is not close."
    assert found.preamble == "Be strict."
    assert parse(write(found, TASK), TASK) == normal(found, TASK)


LAYOUTS = {
    "bullets": """# Policy
We sell things. Be strict.

- If no word of the query appears in the title, grade 0.
- If every word of the query appears in the title, grade 2.
- Otherwise grade 1.
""",
    "numbered": """We sell things. Be strict.

1. Grade 0 if no word of the query appears in the title.
2. Grade 2 if every word of the query appears in the title.
3. Otherwise grade 1.
""",
    "table": """We sell things. Be strict.

| id | grade | rule |
|----|-------|------|
| A1 | 0 | no word of the query appears in the title |
| A2 | 2 | every word of the query appears in the title |
| A3 | 1 | otherwise |
""",
    "headings": """We sell things. Be strict.

## 0 (poor)
- No word of the query appears in the title.

## Perfect
- Every word of the query appears in the title.

## 1
- Otherwise
""",
    "prose": """We sell things. Be strict. If no word of the query appears in the title, the grade must be 0.
When every word of the query appears in the title, the grade is 2. Otherwise, give grade 1.
""",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_grades_in_the_same_order(layout):
    found = import_guideline(LAYOUTS[layout], TASK)
    grades = [r.grade for r in found.instruction.rules]
    assert sorted(grades) == ["0", "1", "2"]
    assert grades.index("0") < grades.index("2")
    assert found.contradictions == ()
    assert found.unfollowed == ()
    assert "Be strict." in found.instruction.preamble
    assert "word of the query" not in found.instruction.preamble
    assert all(r.line > 0 for r in found.recognised)
    assert parse(write(found.instruction, TASK), TASK) == normal(found.instruction, TASK)


def test_contradictions_and_rules_beyond_the_offline_teacher_are_reported():
    text = """- If no word of the query appears in the title, grade 0.
- If no word of the query appears in the title, grade 1.
- Grade 2 when the shopper would be delighted.
"""
    found = import_guideline(text, TASK)
    assert [(r.line, r.rule) for r in found.recognised] == [(1, "R01"), (2, "R02"), (3, "R03")]
    assert found.contradictions == (("R01", "R02"),)
    assert found.unfollowed == ("R03",)


def test_an_instruction_file_comes_in_as_it_is():
    text = "Judge.\n\n## Rules\n- **R07** → 0: no word of the query appears in the title\n"
    found = import_guideline(text, TASK)
    assert found.instruction == parse(text, TASK)


def test_an_empty_guideline_is_refused():
    with pytest.raises(UsageError, match="empty"):
        import_guideline(" \n", TASK)


def test_prose_without_rules_stays_prose():
    found = import_guideline("Just use your good judgement, please.", TASK)
    assert found.instruction.rules == ()
    assert found.instruction.preamble == "Just use your good judgement, please."
