"""What people's answers together tell of the codebook: a rule at fault is named, and how many people a row needs."""

import random

import pytest
from rich.console import Console

from piar.cli.render.people import status_view
from piar.review.batch import compose
from piar.review.codebook import guideline_doubts, people_needed
from piar.review.settings import ReviewSettings
from piar.review.status import status
from store.types import Label
from tests.review_world import TASK, answer, review_store

PEOPLE = {"ann": 0.95, "bob": 0.9, "cy": 0.7, "di": 0.65, "eve": 0.6}  # chance of the true grade
OTHER = {"0": "1", "1": "2", "2": "3", "3": "0"}  # what the rule at fault says


@pytest.fixture
def rated(tmp_path):
    """A store where five people judged 300 rows; R02 decided every fourth, and there only ann and bob are right."""
    store, truth = review_store(tmp_path, rows=300)
    with store.write() as con:
        con.execute("delete from labels")
    rng = random.Random(0)
    labels = []
    for n, (key, grade) in enumerate(sorted(truth.items())):
        rule = f"R0{n % 4}"
        for person, chance in PEOPLE.items():
            misled = rule == "R02" and person not in ("ann", "bob")
            said = answer(OTHER[grade], 0.95, rng) if misled else answer(grade, chance, rng)
            labels.append(Label(key, "human", person, said, rule=rule, blind=True))
    store.add_labels(labels, "r")
    return store


def test_a_rule_at_fault_is_named_with_rows_to_look_at(rated):
    found, tested = guideline_doubts(rated)
    assert ([d.what for d in found], tested) == (["rule R02"], 4)
    rules = dict(rated.frame("select distinct sample_id, rule from labels").rows())
    assert {rules[key] for key in found[0].sample_ids} == {"R02"}


def test_answers_that_were_not_blind_or_drawn_for_doubt_say_nothing_of_numbers(rated):
    """Rows of an adjudication and of a queue are hard on purpose."""
    with rated.write() as con:
        con.execute("update labels set batch = 'w1' where rule = 'R01'")
        con.execute(
            "insert into review_tasks select 'w1', sample_id, annotator, 'queue', '', null, 0 from labels "
            "where batch = 'w1'"
        )
        con.execute("update labels set blind = false where rule = 'R03'")
    found = people_needed(rated, 0.02)
    assert (found.rows, found.raters) == (150, 5)
    assert found.weighed.low <= found.weighed.number <= found.weighed.high
    assert found.weighed.right[0] < found.weighed.right[-1]


def test_status_says_both_in_words(rated):
    batch = compose(rated, "w2", ReviewSettings(annotators=("ann", "bob"), hours=0.1), "run")
    found = status(rated, batch)
    console = Console(width=200)
    with console.capture() as said:
        console.print(status_view(found, TASK.symbols))
    assert "rule R02 may be wrong" in said.get()
    assert f"piar show sample {found.doubts[0].sample_ids[0]}" in said.get()
