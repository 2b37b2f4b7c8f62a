"""What people's answers together tell of the codebook: a rule at fault is named, and how many people a row needs."""

import pytest
from rich.console import Console

from piar.cli.render.people import status_view
from piar.review.batch import compose
from piar.review.codebook import guideline_doubts, people_needed
from piar.review.settings import ReviewSettings
from piar.review.status import status
from tests.review_world import TASK, rated_store


@pytest.fixture
def rated(tmp_path):
    """Five people judged 300 rows; R02 is at fault."""
    return rated_store(tmp_path)


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
