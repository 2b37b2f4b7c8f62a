"""Batches for people: how rows are chosen, pushed once, pulled without loss, and measured."""

from datetime import datetime
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest

from piar.review.answers import Reader, read_answer
from piar.review.batch import load, open_pilots
from piar.review.page import hotkeys, page
from piar.review.push_pull import pull, push
from piar.review.server import refusal
from piar.review.settings import ReviewSettings
from piar.review.status import agenda, status
from store.errors import PiarError, UsageError
from store.task import Grade, Task
from store.types import Label
from tests.review_world import (
    ANNOTATORS,
    HOSTILE,
    INSTRUCTION,
    SETTINGS,
    TASK,
    Desk,
    batch_of,
    frame,
    result,
    review_store,
    taught,
)


@pytest.fixture
def world(tmp_path):
    return review_store(tmp_path)


def test_a_batch_has_the_size_and_shares_that_were_asked_for(world):
    store, _ = world
    rows = frame(batch_of(store).assignments)
    assert rows.height == pytest.approx(0.5 * 3600 / 20, rel=0.1)  # 20 s a row until people's pace is known
    roles = dict(rows.unique("sample_id").group_by("role").len().rows())
    unique = roles["queue"] + roles["random"]
    assert roles["random"] == pytest.approx(0.4 * unique, abs=1)
    assert roles["check"] == pytest.approx(0.1 * rows.height, abs=1)
    twice = rows.group_by("sample_id").len().filter(pl.col("len") > 1)
    assert twice.height == pytest.approx(0.25 * unique, abs=1)
    assert set(rows.join(twice, on="sample_id")["role"]) == {"random"}  # agreement is measured on random rows alone


def test_closed_splits_and_earlier_batches_are_never_drawn_from(world):
    store, _ = world
    first, second = batch_of(store, "one"), batch_of(store, "two")
    closed = set(store.frame("select sample_id from samples where split = 'test'")["sample_id"])
    ours = {a.sample_id for a in first.assignments if a.role != "check"}
    theirs = {a.sample_id for a in second.assignments if a.role != "check"}
    assert ours
    assert theirs
    assert not ours & theirs
    assert not (ours | theirs) & closed


def test_a_batch_is_frozen_and_the_same_for_the_same_seed(world, tmp_path):
    store, _ = world
    first = batch_of(store)
    again = batch_of(store, settings=SETTINGS.model_copy(update={"hours": 9.0}))
    assert first.fresh
    assert not again.fresh
    assert sorted(first.assignments, key=str) == sorted(again.assignments, key=str)
    (tmp_path / "other").mkdir()
    other, _ = review_store(tmp_path / "other")
    assert sorted(batch_of(other).assignments, key=str) == sorted(first.assignments, key=str)


def test_random_rows_know_the_chance_with_which_they_were_drawn(world):
    store, _ = world
    rows = [a for a in batch_of(store).assignments if a.role == "random"]
    assert {a.inclusion for a in rows} == {len({a.sample_id for a in rows}) / 180}


def test_without_a_queue_all_rows_are_random_and_know_their_chance(tmp_path):
    store, _ = review_store(tmp_path, queued=0)
    batch = batch_of(store)
    assert batch.unqueued
    rows = [a for a in batch.assignments if a.role == "random"]
    assert len(rows) == pytest.approx(0.5 * 3600 / 20 * 0.9, abs=2)  # the rest are checks
    assert {a.inclusion for a in rows} == {len({a.sample_id for a in rows}) / 180}
    assert not batch_of(review_store_of(tmp_path / "queued")).unqueued


def review_store_of(folder):
    folder.mkdir()
    return review_store(folder)[0]


def test_relabelling_takes_a_split_whole(world):
    store, _ = world
    batch = batch_of(store, relabel="test")
    assert {a.sample_id for a in batch.assignments if a.role == "relabel"} == set(
        store.frame("select sample_id from samples where split = 'test'")["sample_id"]
    )


@pytest.mark.parametrize("name", ["", "a b", "../up", "w47;drop"])
def test_a_batch_name_is_a_plain_word(world, name):
    with pytest.raises(UsageError, match="batch name"):
        batch_of(world[0], name)


def test_nobody_to_annotate_and_nothing_to_review_are_said(world, tmp_path):
    with pytest.raises(UsageError, match="Nobody"):
        batch_of(world[0], settings=ReviewSettings())
    (tmp_path / "empty").mkdir()
    empty, _ = review_store(tmp_path / "empty", rows=0, queued=0)
    with pytest.raises(PiarError, match="nothing to review"):
        batch_of(empty)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"relabel": []}, "no label of a person is stale"),
        ({"adjudicate": "w47"}, "in w47 nobody contradicts"),
        ({"adjudicate": "w74"}, "There is no batch 'w74'"),
        ({"rest": "w74"}, "There is no batch 'w74'"),
    ],
)
def test_a_batch_of_a_kind_that_has_no_row_says_so_and_draws_no_others(world, kind, words):
    batch_of(world[0])
    with pytest.raises(PiarError, match=words):
        batch_of(world[0], "next", **kind)
    assert load(world[0], "next") is None


def test_pushing_twice_adds_nothing_and_an_interrupted_push_goes_on(world):
    store, _ = world
    batch, desk = batch_of(store), Desk(chunk=7)
    for broken_at in range(8):
        desk.fail_after = broken_at % 4
        try:
            push(store, desk, batch, INSTRUCTION)
        except ConnectionError:
            continue
    desk.fail_after = None
    push(store, desk, batch, INSTRUCTION)
    assert push(store, desk, batch, INSTRUCTION).pushed == 0
    there = [(title, t["data"]["sample_key"]) for title, tasks in desk.projects.items() for t in tasks]
    assert len(there) == len(set(there)) == len(batch.assignments)


class Late(Desk):
    """A dead process's request is finished by the server after the next push has asked what is there."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.held, self.removed = after, [], 0

    def add(self, project, tasks, progress=None):
        if not self.projects or self.held:
            return super().add(project, tasks, progress)
        self.held = [(project, t) for t in tasks[:5]]
        raise ConnectionError("killed")

    def listing(self, project):
        self.after -= bool(self.held)
        if self.held and self.after < 0:
            for place, task in self.held:
                self._of(place).append({**task, "annotations": []})
            self.held = [None]
            self.after = 10**6
        return super().listing(project)

    def remove(self, tasks):
        for at in sorted(tasks, reverse=True):
            del self._of(0)[at]
        self.removed += len(tasks)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_what_a_killed_push_had_under_way_comes_late_and_is_not_there_twice(world, monkeypatch, after):
    store, _ = world
    monkeypatch.setattr("piar.review.push_pull.PAUSE", 0)
    batch, desk = batch_of(store), Late(after)
    with pytest.raises(ConnectionError):
        push(store, desk, batch, INSTRUCTION)
    push(store, desk, batch, INSTRUCTION)
    there = [(title, t["data"]["sample_key"]) for title, tasks in desk.projects.items() for t in tasks]
    assert len(there) == len(set(there)) == len(batch.assignments)
    assert desk.removed == 5


def test_tasks_are_blind(world):
    store, _ = world
    desk = Desk()
    push(store, desk, batch_of(store), INSTRUCTION)
    for tasks in desk.projects.values():
        for task in tasks:
            assert set(task["data"]) == {"sample_key", "f_query", "f_title"}
            assert "predictions" not in task


def test_hostile_text_survives_the_round_trip_byte_for_byte(tmp_path):
    store, _ = review_store(tmp_path, rows=40, texts=HOSTILE)
    desk = Desk()
    push(store, desk, batch_of(store), INSTRUCTION)
    texts = dict(store.frame("select sample_id, title from samples").rows())
    pushed = {t["data"]["sample_key"]: t["data"]["f_title"] for tasks in desk.projects.values() for t in tasks}
    assert set(HOSTILE) & set(pushed.values())
    assert all(texts[key] == title for key, title in pushed.items())


def test_pull_brings_every_answer_once_and_an_edit_as_a_new_version(world):
    store, truth = world
    batch, desk = batch_of(store), Desk()
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, dict.fromkeys(ANNOTATORS, 1.0))
    first = pull(store, desk, batch, "r1")
    assert first.pulled == len(batch.assignments)
    assert pull(store, desk, batch, "r2").pulled == 0
    task = next(iter(desk.projects.values()))[0]
    task["annotations"][0] |= {"result": result("0", comment="thought again"), "updated_at": "2026-11-21T10:00:00Z"}
    key = task["data"]["sample_key"]
    changed = truth[key] != "0"
    assert pull(store, desk, batch, "r3").pulled == 1
    sql = "select grade, comment from {} where batch = 'w47' and sample_id = ? and annotator = ?"
    owner = next(a.annotator for a in batch.assignments if a.sample_id == key)
    assert store.frame(sql.format("label"), [key, owner]).rows() == [("0", "thought again")]
    assert store.frame(sql.format("labels"), [key, owner]).height == 2
    assert changed or truth[key] == "0"


def test_odd_exports_are_counted_and_lose_nothing(world):
    store, _ = world
    batch = batch_of(store)
    keys = sorted({a.sample_id for a in batch.assignments})[:6]
    data = [{"sample_key": k} for k in keys]
    tasks = [
        {"data": data[0], "predictions": [17, 18], "annotations": [{"completed_by": 1, "result": result("2")}]},
        {
            "data": data[1],
            "annotations": [{"completed_by": {"id": 2, "email": "bob@example.com"}, "result": result("1")}],
        },
        {"data": data[2], "annotations": [{"completed_by": 1, "result": [], "was_cancelled": True}]},
        {"data": data[3], "annotations": [], "drafts": [{"id": 1, "result": result("1"), "annotation": None}]},
        {"data": data[4], "annotations": [{"completed_by": 99, "result": result("3 perfect: Exactly it.")}, 12, None]},
        {"data": {"sample_key": "someone else's"}, "annotations": [{"completed_by": 1, "result": result("2")}]},
        {"data": None, "annotations": None},
        {"data": data[5], "annotations": [{"completed_by": 1, "result": [{"from_name": "old_control", "value": 3}]}]},
    ]
    reader = Reader(TASK, batch, ANNOTATORS[0], {1: ANNOTATORS[0]}, set(keys), "a project")
    reader.read(tasks)
    said = {(keys.index(label.sample_id), label.annotator, label.grade, label.flags) for label in reader.pulled.labels}
    assert said == {
        (0, "ann@example.com", "2", ()),
        (1, "bob@example.com", "1", ("foreign_project",)),
        (2, "ann@example.com", None, ("skipped",)),
        (4, "user-99", "3", ("foreign_project",)),
    }
    assert reader.pulled.odd == {
        "task without a known sample_key": 2, "draft of ann@example.com, not submitted": 1, "answer without a grade": 1
    }  # fmt: skip


def test_a_pull_asks_only_for_what_changed_and_counts_deleted_tasks(world):
    store, truth = world
    batch, desk = batch_of(store), Desk()
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, dict.fromkeys(ANNOTATORS, 1.0))
    pull(store, desk, batch, "r1")
    first, *others = next(iter(desk.projects.values()))
    others[0]["annotations"][0] |= {"result": result("0", comment="again"), "updated_at": "2026-11-21T10:00:00Z"}
    pull(store, desk, batch, "r2")
    desk.read = 0
    report = pull(store, desk, batch, "r3")
    assert (report.pulled, desk.read) == (0, 1 + len(batch.of(ANNOTATORS[1])))  # bob's are all of one moment
    next(iter(desk.projects.values())).remove(first)
    assert pull(store, desk, batch, "r4").odd == {"task deleted in Label Studio": 1}


def test_an_answer_whose_task_was_deleted_and_sent_again_is_not_taken_back(world):
    store, _ = world
    batch = batch_of(store)
    key, at = batch.assignments[0].sample_id, datetime(2026, 11, 20, 10)
    for sent, gone in (("2026-11-20T09:00:00Z", 1), ("2026-11-21T09:00:00Z", 0)):
        reader = Reader(TASK, batch, ANNOTATORS[0], {}, {key}, "a project", {key: {ANNOTATORS[0]: at}})
        reader.read([{"data": {"sample_key": key}, "annotations": [], "created_at": sent}])
        assert len(reader.pulled.labels) == gone


def test_a_renamed_owner_stays_himself_and_two_answers_of_one_person_are_one(world):
    store, truth = world
    batch, desk = batch_of(store), Desk()
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, dict.fromkeys(ANNOTATORS, 1.0))
    task = next(iter(desk.projects.values()))[0]
    later = {"completed_by": 1, "result": result("0", comment="no"), "updated_at": "2026-11-20T12:00:00Z"}
    task["annotations"].insert(0, later)
    desk.people[1] = "ann.married@example.com"
    report = pull(store, desk, batch, "r1")
    assert report.annotators == {p: len(batch.of(p)) for p in ANNOTATORS}
    sql = "select comment from label where source = 'human' and batch = 'w47' and annotator = ? and sample_id = ?"
    assert store.frame(sql, [ANNOTATORS[0], task["data"]["sample_key"]]).item() == "no"
    assert pull(store, desk, batch, "r2").pulled == 0


def test_an_interrupted_pull_passes_nothing_over(world):
    store, truth = world
    batch, desk = batch_of(store), Desk(chunk=5)
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, dict.fromkeys(ANNOTATORS, 1.0))
    for n, task in enumerate(task for tasks in desk.projects.values() for task in tasks):
        task["annotations"][0]["updated_at"] = f"2026-11-20T{10 + n // 6}:00:00Z"

    class Cut(Exception):
        pass

    def cut(done, total):
        if done > 12:
            raise Cut

    for _ in range(3):
        with pytest.raises(Cut):
            pull(store, desk, batch, "r", cut)
    pull(store, desk, batch, "r")
    kept = store.frame("select sample_id, annotator from label where batch = 'w47'").rows()
    assert sorted(kept) == sorted((a.sample_id, a.annotator) for a in batch.assignments)


def test_status_finds_the_better_annotator_and_the_planted_agreement(world):
    store, truth = world
    settings = SETTINGS.model_copy(update={"hours": 1.4, "overlap": 1.0, "random": 1.0})
    batch, desk = batch_of(store, settings=settings), Desk()
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, {ANNOTATORS[0]: 0.95, ANNOTATORS[1]: 0.6})
    pull(store, desk, batch, "r1")
    found = status(store, batch)
    ann, bob = found.annotators
    assert ann.answered == ann.assigned
    assert ann.seconds == 12.5
    assert ann.reliability > bob.reliability
    assert found.agreement.items > 50
    assert found.agreement.alpha.low < found.agreement.alpha.value < found.agreement.alpha.high
    both = np.array(found.agreement.confusion["ann@example.com / bob@example.com"])
    assert both.sum() == found.agreement.items


def test_disputed_rows_are_settled_with_all_opinions_shown_and_finished_batches_are_archived(world):
    store, truth = world
    settings = SETTINGS.model_copy(update={"overlap": 1.0, "random": 1.0, "checks": 0.0})
    batch, desk = batch_of(store, settings=settings), Desk()
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, {ANNOTATORS[0]: 1.0, ANNOTATORS[1]: 0.5})
    pull(store, desk, batch, "r1")
    taught(store)
    settle = batch_of(store, "settle", adjudicate="w47")
    disputed = store.frame(
        "select sample_id from label where batch = 'w47' or source = 'gold' group by sample_id "
        "having count(distinct grade) > 1 and count(batch = 'w47' or null) > 0"
    )
    assert {a.sample_id for a in settle.assignments} == set(disputed["sample_id"])
    assert len(settle.assignments) == disputed.height  # one answer settles it
    push(store, desk, settle, INSTRUCTION)
    assert all(title.startswith("done: ") for title in desk.projects if " w47 " in title)
    shown = [t["data"]["said"] for title, tasks in desk.projects.items() if " settle " in title for t in tasks]
    assert all("ann@example.com" in said and "bob@example.com" in said for said in shown)
    assert all("teacher:m · 2 · probability 0.70 · R01" in said for said in shown)
    guesses = [t["predictions"] for title, tasks in desk.projects.items() if " settle " in title for t in tasks]
    assert {(p["model_version"], round(p["score"], 2)) for ps in guesses for p in ps} == {("teacher:m", 0.7)}
    assert {read_answer(p["result"], TASK).grade for ps in guesses for p in ps} == {"2"}
    desk.annotate(settle, truth, dict.fromkeys(ANNOTATORS, 1.0))
    pull(store, desk, settle, "r2")
    assert not store.frame("select blind from label where batch = 'settle'")["blind"].any()
    assert push(store, desk, batch, INSTRUCTION).pushed == 0  # archived, not forgotten


def test_gold_that_two_people_contradict_is_counted(world):
    store, truth = world
    batch, desk = batch_of(store, settings=SETTINGS.model_copy(update={"overlap": 1.0, "random": 1.0})), Desk()
    push(store, desk, batch, INSTRUCTION)
    wrong = {key: "0" if grade == "3" else "3" for key, grade in truth.items()}
    desk.annotate(batch, wrong, dict.fromkeys(ANNOTATORS, 1.0))
    pull(store, desk, batch, "r1")
    found = status(store, batch)
    assert found.overturned == len({a.sample_id for a in batch.assignments if a.role == "random"})
    assert all(p.checks_passed == 0 for p in found.annotators)


def test_the_agenda_groups_what_people_said_and_shows_markup_as_text(tmp_path):
    store, truth = review_store(tmp_path, rows=40, texts=HOSTILE)
    batch, desk = batch_of(store), Desk()
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, dict.fromkeys(ANNOTATORS, 1.0))
    task = next(t for t in next(iter(desk.projects.values())) if "<script>" in t["data"]["f_title"])
    task["annotations"][0]["result"] = result(
        "1", rule="R02", doubts=["rule_unclear"], comment="is a [case] an *accessory*?"
    )
    pull(store, desk, batch, "r1")
    text = agenda(store, batch, [("R02", "Accessories.")])
    assert "## R02" in text
    assert "rule unclear" in text
    assert "\\<script\\>" in text
    assert "is a \\[case\\] an \\*accessory\\*?" in text


def test_the_page_is_xml_whatever_the_task_says_and_keys_are_distinct():
    words = Task(
        name="triage",
        group_by="customer",
        fields=("subject",),
        ask='<b>"Urgent"?</b> & why',
        grades=(Grade(symbol="low", value=0), Grade(symbol="high", value=1, meaning="]]> <Choice/> $x")),
    )
    root = ET.fromstring(page(words, INSTRUCTION, suggestions=True))
    captions = [c.get("value") for c in root.iter("Choice")]
    assert any("]]> <Choice/>" in c for c in captions)
    hints = [c.get("hint") for c in root.iter("Choice") if c.get("hint")]
    assert hints == ['avoid when: the "query" asks <b>more</b>']
    assert all(not c.startswith("$x") and "$x" not in c for c in captions)
    for task in (words, TASK):
        keys = hotkeys(task)
        assert len(set(keys.values())) == len(task.symbols)
    assert hotkeys(TASK) == {s: s for s in "0123"}


def test_an_answer_is_read_from_alias_or_caption():
    assert read_answer(
        result("3", rule="R01: some text", doubts=["a rule is unclear"], comment=" why "), TASK
    ) == read_answer(result("3 perfect: Exactly it.", rule="R01", doubts=["rule_unclear"], comment="why"), TASK)
    assert read_answer([], TASK).grade is None


@pytest.mark.parametrize(
    ("status_code", "body", "words"),
    [
        (401, {"detail": "Invalid token."}, "does not know this token"),
        (403, {}, "forbids"),
        (404, "<html>", "no Label Studio API"),
        (200, "<html>", "no Label Studio API"),
        (400, {"detail": "URL blocked: SSRF protection"}, "SSRF"),
        (500, None, "answered 500"),
    ],
)
def test_refusals_say_what_to_do(status_code, body, words):
    error = refusal("http://host", status_code, body)
    assert words in error.message
    assert error.fix


def test_only_somebody_who_sees_the_label_can_call_it_wrong(world):
    store, truth = world
    assert "existing label" not in page(TASK, INSTRUCTION)
    assert "existing label" in page(TASK, INSTRUCTION, suggestions=True)
    batch, desk = batch_of(store), Desk()
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, dict.fromkeys(ANNOTATORS, 1.0))
    task = next(iter(desk.projects.values()))[0]
    task["annotations"][0]["result"] = result("1", doubts=["gold_is_wrong", "ambiguous"])
    report = pull(store, desk, batch, "r1")
    assert report.odd == {"doubt about a label that a blind annotator cannot see": 1}
    flags = store.frame("select flags from label where len(flags) > 0")["flags"].to_list()
    assert flags == [["ambiguous"]]


def test_an_unknown_batch_is_none(world):
    assert load(world[0], "nope") is None


def test_settling_a_batch_named_pilot_is_no_calibration_round(world):
    store, _ = world
    first = batch_of(store, "pilot", pilot=6)
    for person, grade in zip(ANNOTATORS, ("0", "3"), strict=True):
        keys = [a.sample_id for a in first.of(person)]
        store.add_labels([Label(key, "human", person, grade, batch="pilot") for key in keys], "r")
    settle = batch_of(store, "settle", adjudicate="pilot")
    assert (first.pilot, settle.pilot, load(store, "settle").pilot) == (True, False, False)
    assert settle.assignments
    assert open_pilots(store) == []
