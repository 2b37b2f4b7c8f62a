"""What people say in review reaches the truth, the reviser and the report of the next search."""

import json
from datetime import datetime

import pytest

from piar.evolve.inspection import Judged, cause_of, contrast_evidence, inspect
from piar.evolve.resume import data_fingerprint
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.truth import Truth, load_truth, people_heard, review_comments
from piar.review.batch import compose
from piar.review.push_pull import pull, push
from piar.review.settings import ReviewSettings
from store.types import Label, Sample, Verdict
from tests.review_world import ANNOTATORS, Desk, result, review_store
from tests.worlds import SEED, WordReviser, WordTeacher, loop_models, world

BLIND = {"batch": "w47", "blind": True}
SETTLED = {"batch": "w48", "blind": False}


@pytest.fixture
def stored(tmp_path):
    """A store, and a train sample with gold and two raters who agree with it."""
    store, truth = review_store(tmp_path, rows=40)
    key = store.frame("select sample_id from samples where split = 'train' order by sample_id limit 1").item()
    return store, key, truth[key], next(g for g in "0123" if g != truth[key])


def held(store, key):
    return store.frame("select grade, basis from truth where sample_id = ?", [key]).row(0)


@pytest.mark.parametrize(
    ("more", "wins"),
    [
        (BLIND, False),  # one blind opinion settles nothing
        ({"batch": "w47"}, False),  # nor one of which nobody knows what its author saw
        ({**BLIND, "flags": ("ambiguous",)}, False),
        ({**SETTLED, "flags": ("draft",)}, False),
        (SETTLED, True),
        ({**BLIND, "flags": ("gold_is_wrong",)}, True),
    ],
)
def test_gold_gives_way_to_a_settlement_and_to_nothing_less(stored, more, wins):
    store, key, gold, other = stored
    store.add_labels([Label(key, "human", "ann", other, **more)], "r")
    assert held(store, key) == ((other, "settled") if wins else (gold, "gold"))
    assert load_truth(store)[key].settled is wins


def test_doubt_without_a_grade_settles_nothing(stored):
    store, key, gold, _ = stored
    store.add_labels([Label(key, "human", "ann", None, flags=("gold_is_wrong", "skipped"), **SETTLED)], "r")
    assert held(store, key) == (gold, "gold")


@pytest.mark.parametrize("backwards", [False, True])
def test_the_latest_settlement_counts_in_whatever_order_it_arrives(stored, backwards):
    store, key, gold, other = stored
    said = [
        Label(key, "human", "ann", other, at=datetime(2026, 11, 20), **SETTLED),
        Label(key, "human", "bob", gold, at=datetime(2026, 11, 21), **SETTLED),
    ]
    for label in reversed(said) if backwards else said:
        store.add_labels([label], "r")
    assert held(store, key) == (gold, "settled")


def test_blind_answers_against_gold_are_settled_in_a_second_batch(tmp_path):
    store, truth = review_store(tmp_path)
    gold = dict(store.frame("select sample_id, grade from label where source = 'gold'").rows())
    settings = ReviewSettings(annotators=ANNOTATORS, hours=0.3, overlap=0.0, random=0.0, checks=0.0)
    batch, desk = compose(store, "w47", settings, "r"), Desk()
    doubted = {a.sample_id for a in batch.assignments[:10]}
    right = {k: ("0" if g != "0" else "1") if k in doubted else g for k, g in truth.items()}
    push(store, desk, batch, SEED)
    desk.annotate(batch, right, dict.fromkeys(ANNOTATORS, 1.0))
    pull(store, desk, batch, "r")
    assert {k: t.grade for k, t in load_truth(store).items()} == gold
    settle = compose(store, "w48", settings, "r", adjudicate="w47")
    assert {a.sample_id for a in settle.assignments} == doubted
    push(store, desk, settle, SEED)
    desk.annotate(settle, right, dict.fromkeys(ANNOTATORS, 1.0))
    pull(store, desk, settle, "r")
    assert {k: t.grade for k, t in load_truth(store).items()} == gold | {k: right[k] for k in doubted}
    assert people_heard(store, right)["settled"] == len(doubted)
    assert people_heard(store, right)["reviewed"] == len(batch.assignments) + len(settle.assignments)


def test_comments_name_the_rule_and_no_person(tmp_path):
    store, truth = review_store(tmp_path, rows=40)
    settings = ReviewSettings(annotators=ANNOTATORS, hours=0.1, overlap=0.0, random=0.0, checks=0.0)
    batch, desk = compose(store, "w47", settings, "r"), Desk()
    push(store, desk, batch, SEED)
    desk.annotate(batch, truth, dict.fromkeys(ANNOTATORS, 1.0))
    task = next(iter(desk.projects.values()))[0]
    task["annotations"][0]["result"] = result("1", rule="R02", doubts=["rule_unclear"], comment="is a case a part?")
    pull(store, desk, batch, "r")
    said = review_comments(store)
    assert said == {task["data"]["sample_key"]: "R02: the rule is unclear: is a case a part?"}


def test_a_search_begins_anew_when_a_label_only_gains_a_flag_or_a_comment(stored):
    store, key, gold, _ = stored
    prints = [data_fingerprint(store)]
    for n, more in enumerate(({}, {"flags": ("gold_is_wrong",)}, {"comment": "why?"})):
        at = datetime(2026, 11, 20, n)
        store.add_labels([Label(key, "human", "ann", gold, batch="w47", blind=True, at=at, **more)], "r")
        prints.append(data_fingerprint(store))
    assert len(set(prints)) == 4


# -- evidence ---------------------------------------------------------------------------------------


def judged(name, truth, verdict, comment=""):
    sample = Sample(id=name, group=f"q {name}", split="train", fields={"query": f"q {name}", "title": "thing"})
    return Judged(sample, truth, Verdict("k", name, "teacher:t", "i", 0, verdict), comment)


def test_a_settled_sample_is_no_suspect_and_its_old_votes_are_not_shown():
    votes = {"0": 2, "1": 1}
    doubtful, settled = judged("a", Truth("2", votes), "0"), judged("b", Truth("2", votes, settled=True), "0")
    assert cause_of(doubtful, SEED, {}, ()) == "suspect"
    assert cause_of(settled, SEED, {}, ()) == "knowledge"
    shown = contrast_evidence(inspect([doubtful, settled], SEED), 40, 0)
    assert [(item.fields["query"], dict(item.votes)) for item in shown] == [("q b", {})]


def test_what_people_commented_on_is_shown_first_and_once_even_where_the_judge_was_right():
    items = [judged(f"e{i}", Truth("2"), "0") for i in range(30)]
    items += [judged("ok", Truth("1"), "1", "R01: the rule is unclear"), judged("bad", Truth("1"), "0", "which?")]
    shown = contrast_evidence(inspect(items, SEED), 20, 0)
    assert [(e.kind, e.comment) for e in shown[:2]] == [("right", "R01: the rule is unclear"), ("error", "which?")]
    assert len(shown) <= 20
    assert sum(e.comment != "" for e in shown) == 2


def test_many_comments_leave_room_for_errors():
    items = [judged(f"e{i}", Truth("2"), "0") for i in range(30)]
    items += [judged(f"c{i}", Truth("1"), "1", "unclear") for i in range(30)]
    shown = contrast_evidence(inspect(items, SEED), 20, 0)
    assert [e.kind for e in shown[:6]] == ["right"] * 5 + ["error"]
    assert sum(e.kind == "error" for e in shown) >= 5


class _Listening(WordReviser):
    """Keeps the comments that it was shown."""

    def __init__(self):
        super().__init__()
        self.heard = set()

    def say(self, request):
        self.heard |= {e["comment"] for e in json.loads(request.messages[-1].content)["evidence"] if e["comment"]}
        return super().say(request)


@pytest.mark.parametrize(
    ("redraft", "heard"), [("none", {"about train"}), ("cross_validated", {"about train", "about dev"})]
)
def test_evolve_shows_no_comments_of_closed_splits_and_says_how_many_labels_it_used(tmp_path, redraft, heard):
    store, journal = world(tmp_path)
    rows = store.frame("select sample_id, split from samples").rows()
    said = [Label(key, "human", "ann", "1", comment=f"about {split}", **BLIND) for key, split in rows]
    store.add_labels(said, "r")
    reviser = _Listening()
    models = loop_models(WordTeacher(), reviser)
    report, _ = evolve(store, models, SEED, EvolveSettings(rounds=1, redraft=redraft), journal=journal)
    assert reviser.heard == heard
    assert report.people == {"labels": len(rows), "reviewed": 0, "settled": 0, "commented": len(rows)}
