"""A person's rows one by one: kept at once, taken back without loss, and never seen with anybody's opinion."""

import pytest

from piar.review.batch import compose
from piar.review.settings import ReviewSettings
from piar.review.sitting import Said, Sitting, batch_for
from piar.review.status import status
from store.errors import PiarError, UsageError
from tests.review_world import review_store, taught

SETTINGS = ReviewSettings(checks=0.0)


@pytest.fixture
def store(tmp_path):
    return review_store(tmp_path)[0]


def sit(store, person="ann", **how):
    return Sitting(store, batch_for(store, person, SETTINGS, "r", **how), person, "r")


def standing(store, person="ann"):
    return dict(
        store.frame(
            "select sample_id, grade from label where annotator = ? and not list_contains(flags, 'undone')", [person]
        ).rows()
    )


def test_an_answer_is_kept_before_the_next_row_and_going_on_shows_what_is_open(store):
    sitting = sit(store, rows=4)
    seen = []
    for grade in "012":
        row = sitting.next()
        seen.append(row.sample_id)
        sitting.keep(row, Said(grade), 2.0)
        assert standing(store)[row.sample_id] == grade
    again = sit(store)
    assert again.batch.name == sitting.batch.name
    assert again.next().sample_id not in seen
    assert [a.sample_id for a in again.batch.of("ann")][:3] == seen
    place = again.place()
    assert (place.done, place.rows, place.seconds, place.left) == (3, 4, 2.0, 2.0)
    again.keep(again.next(), Said(), 1.0)
    assert again.next() is None
    assert sit(store).batch.name != sitting.batch.name


def test_what_is_taken_back_is_open_again_and_stays_on_record(store):
    sitting = sit(store, rows=3)
    first = sitting.next()
    sitting.keep(first, Said("1", "hm", ("ambiguous",), "R1"), 1.0)
    sitting.keep(sitting.next(), Said(flags=("rule_unclear",)), 1.0)
    skipped = sit(store).undo()  # a later sitting goes back, too
    assert skipped.earlier == Said(None, "", ("rule_unclear",))
    back = sitting.undo()
    assert back.sample_id == first.sample_id == sitting.next().sample_id
    assert back.earlier == Said("1", "hm", ("ambiguous",), "R1")
    assert sitting.undo() is None
    assert standing(store) == {}
    sitting.keep(back, Said("1"), 1.0)
    sitting.undo()
    sitting.keep(back, Said("1"), 1.0)
    assert standing(store) == {first.sample_id: "1"}
    assert store.frame("select 1 from labels where annotator = 'ann'").height == 7
    [person] = status(store, sitting.batch).annotators
    assert (person.answered, person.skipped) == (1, 0)


def test_nobodys_opinion_is_shown_unless_a_batch_settles_disputes(store):
    taught(store)
    row = sit(store, rows=5).next()
    assert set(row.fields) == {"query", "title"}
    assert row.said == ""
    assert "gold_is_wrong" not in sit(store).doubts
    [disputed] = store.samples(ids=[row.sample_id])
    sitting = sit(store)
    gold = store.frame("select grade from label where source = 'gold' and sample_id = ?", [disputed.id]).item()
    sitting.keep(row, Said("0" if gold != "0" else "1"), 1.0)
    compose(store, "settle", ReviewSettings(annotators=("bob",)), "r", adjudicate=sitting.batch.name)
    settling = sit(store, "bob", name="settle")
    shown = settling.next()
    assert "teacher:m · 2" in shown.said
    assert "gold_is_wrong" in settling.doubts
    settling.keep(shown, Said("3"), 1.0)
    assert store.frame("select grade, basis from truth where sample_id = ?", [shown.sample_id]).rows() == [
        ("3", "settled")
    ]


def test_rows_come_from_the_queue_or_at_random_in_an_order_of_their_own(store):
    queued = {i for (i,) in store.frame("select sample_id from label_queue").rows()}
    mined = sit(store, rows=20, source="queue").batch
    assert {a.role for a in mined.assignments} == {"queue", "random"}
    assert len(mined.assignments) == 20
    drawn = sit(store, "bob", rows=20, source="random").batch
    assert {a.role for a in drawn.assignments} == {"random"}
    assert not {a.sample_id for a in drawn.assignments} & {a.sample_id for a in mined.assignments}
    assert [a.sample_id for a in mined.of("ann")] != sorted(a.sample_id for a in mined.of("ann"))
    assert queued & {a.sample_id for a in mined.assignments}


def test_a_batch_is_for_whom_it_was_made(store):
    sit(store, "Ann Müller", name="mine", rows=2)
    with pytest.raises(UsageError, match="bob has no rows in batch mine; it is for Ann Müller"):
        sit(store, "bob", name="mine")
    with store.write() as con:
        con.execute("delete from queue")
    with pytest.raises(PiarError, match="Nothing is queued"):
        sit(store, "bob", source="queue")
    names = {sit(store, person, rows=1).batch.name for person in ("ann@x.org", "ann@y.org", "安")}
    assert names == {"here-ann-1", "here-ann-2", "here-you-1"}
