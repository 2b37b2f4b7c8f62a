import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piar.llm.grade_probs import Token, grade_probs, spelled

GRADES = ("0", "1", "2")


def tokens(*texts, top=None, at=0):
    return [Token(t, top if top and i == at else {t: -0.01}) for i, t in enumerate(texts)]


SOME = {"2": math.log(0.5), " 2": math.log(0.1), "1": math.log(0.2), "The": math.log(0.1)}


@pytest.mark.parametrize(
    ("texts", "at"),
    [
        (("2", "\n", "evidence"), 0),
        (("\n", "2", "\n"), 1),
        (('{"', "grade", '":', ' "', "2", '",'), 4),
        (('{"grade": "', "2", '"}'), 1),
        (("<think>", "\n\n", "</think>", "\n\n", "2", "\n"), 4),
        (("**", "2", "**"), 1),
    ],
)
def test_finds_the_token_that_carries_the_grade(texts, at):
    found = grade_probs(tokens(*texts, top=SOME, at=at), GRADES)
    assert found == pytest.approx({"0": 0, "1": 0.25, "2": 0.75})


def test_a_quote_glued_to_the_grade():
    found = grade_probs(
        tokens('{"grade":', ' "2', '"}', top={' "2': math.log(0.9), ' "1': math.log(0.1)}, at=1), GRADES
    )
    assert found == pytest.approx({"0": 0, "1": 0.1, "2": 0.9})


def test_unknown_when_too_little_is_on_the_grades():
    assert grade_probs(tokens("The", top={"The": math.log(0.8), "2": math.log(0.2)}), GRADES) is None
    assert grade_probs([], GRADES) is None


@pytest.mark.parametrize(
    ("text", "grade"),
    [(" Irr", "irrelevant"), ("relevant", "relevant"), ("rel", "relevant"), ("r", "relevant"), ("", None), ("x", None)],
)
def test_a_beginning_counts_when_only_one_grade_begins_so(text, grade):
    assert spelled(text, ("irrelevant", "relevant")) == grade


def test_a_beginning_of_two_grades_counts_for_neither():
    assert spelled("1", ("1", "10")) is None
    assert spelled("10", ("1", "10")) == "10"


@given(st.dictionaries(st.text(max_size=3), st.floats(-50, 0), max_size=8))
def test_always_a_distribution_or_unknown(top):
    found = grade_probs([Token("2", top)], GRADES)
    assert found is None or (set(found) == set(GRADES) and math.isclose(sum(found.values()), 1))
