"""Words of known scales come in their order; others have none."""

import pytest

from store.propose import proposed_grades
from store.scales import known_order


@pytest.mark.parametrize(
    "order",
    [
        "Irrelevant Complement Substitute Exact",
        "I C S E",
        "bad fair good excellent perfect",
        "never rarely sometimes often always",
        "strongly_disagree disagree neutral agree strongly-agree",
        "no maybe yes",
        "FALSE TRUE",
        "F D C B A",
        "C- B A+",
        "👎 👍🏽",
        "★☆☆ ★★☆ ★★★",
        "negative neutral positive",
        "nie selten manchmal oft immer",
        "jamais parfois toujours",
        "плохо хорошо отлично",
        "差 一般 好",
        "Ｎｏ ＹＥＳ",
    ],
)
def test_known_scales_come_lowest_first_whatever_the_alphabet_says(order):
    words = order.split()
    assert known_order(sorted(words)) == words
    assert known_order(reversed(words)) == words


@pytest.mark.parametrize("words", ["contradiction entailment neutral", "A B C", "spam ham", "good sausage"])
def test_words_of_no_scale_have_no_order(words):
    assert known_order(words.split()) is None
    grades, ordered = proposed_grades(words.split())
    assert not ordered
    assert [grade.symbol for grade in grades] == sorted(words.split())


def test_a_person_orders_what_no_table_knows():
    grades, ordered = proposed_grades(["spam", "maybe", "ham"], said=True)
    assert ordered
    assert [(grade.symbol, grade.value) for grade in grades] == [("spam", 0), ("maybe", 1), ("ham", 2)]


def test_labels_keep_their_names():
    grades, _ = proposed_grades(["not enough info", "refutes", "x" * 40])
    assert [(grade.symbol, grade.name) for grade in grades] == [
        ("not_enough_info", "not enough info"), ("refutes", ""), ("2", "x" * 40)]  # fmt: skip
