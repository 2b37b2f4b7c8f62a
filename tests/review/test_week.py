"""A week of several people: a calibration round, overlap, somebody who stops, a new instruction, further questions."""

import csv
import json
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser

import polars as pl
import pytest

from piar.project.facade import Project
from piar.query.export import export
from piar.review.answers import read_answer
from piar.review.batch import compose, load, open_pilots
from piar.review.files import export_batch, import_batch
from piar.review.page import page
from piar.review.push_pull import pull, push, to_tasks
from piar.review.settings import Question, ReviewSettings
from piar.review.status import agenda, status
from store.errors import PiarError, UsageError
from store.readers import Reading
from store.types import Instruction, Label, Rule
from tests.review_world import ANNOTATORS, TASK, Desk, frame, result, review_store

ANN, BOB, CAT = *ANNOTATORS, "cat@example.com"
INSTRUCTION = Instruction("Judge.", (Rule("R01", "Names it <b>fully</b>.", "3"), Rule("R02", "Accessories.", "1")))
QUESTIONS = (
    Question(name="intent", ask="What do they want?", choices=("buy", "<compare>"), many=True),
    Question(name="why"),
)
SETTINGS = ReviewSettings(
    annotators=(ANN, BOB, CAT), hours=0.5, overlap=0.5, random=0.5, checks=0.0, questions=QUESTIONS
)


@pytest.fixture
def store(tmp_path):
    return review_store(tmp_path)[0]


@pytest.fixture
def desk():
    desk = Desk()
    desk.people = {1: ANN, 2: BOB, 3: CAT}
    return desk


def batch_of(store, name="w47", settings=SETTINGS, **more):
    return compose(store, name, settings, "r", **more)


def say(desk, number, person, said, at="2026-11-20T10:00:00Z", **more):
    """One answer to the n-th task of a person's project."""
    tasks = next(tasks for title, tasks in desk.projects.items() if person in title)
    who = next(i for i, name in desk.people.items() if name == person)
    tasks[number]["annotations"] = [
        {"id": number, "completed_by": who, "result": said, "updated_at": at, "lead_time": 9} | more
    ]
    return tasks[number]["data"]["sample_key"]


def test_a_pilot_gives_everybody_the_same_random_rows(store):
    batch = batch_of(store, "pilot", pilot=12)
    rows = [{a.sample_id for a in batch.of(person)} for person in (ANN, BOB, CAT)]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 12
    assert {a.role for a in batch.assignments} == {"random"}
    assert all(0 < a.inclusion < 1 for a in batch.assignments)
    assert open_pilots(store) == [("pilot", person, 12) for person in (ANN, BOB, CAT)]
    store.add_labels([Label(a.sample_id, "human", ANN, "2", batch="pilot") for a in batch.of(ANN)], "r")
    assert open_pilots(store) == [("pilot", person, 12) for person in (BOB, CAT)]
    later = {a.sample_id for a in batch_of(store, "w47").assignments}
    assert not later & rows[0]
    assert load(store, "pilot").pilot
    assert not load(store, "w47").pilot


@pytest.mark.parametrize(("raters", "each"), [(2, 2), (3, 3), (9, 3)])
def test_overlapping_rows_go_to_as_many_people_as_were_asked_for(store, raters, each):
    batch = batch_of(store, settings=SETTINGS.model_copy(update={"raters": raters}))
    counts = frame(batch.assignments).group_by("sample_id").agg(pl.col("annotator").n_unique())["annotator"]
    assert set(counts) == {1, each}
    assert (counts == each).mean() == pytest.approx(0.5, abs=0.05)


def test_what_somebody_who_stopped_has_left_goes_to_the_others_as_what_it_was(store, desk):
    batch = batch_of(store)
    push(store, desk, batch, INSTRUCTION)
    answered = say(desk, 0, BOB, result("2"))
    pull(store, desk, batch, "r")
    with pytest.raises(UsageError, match="still annotates"):
        batch_of(store, "rest", rest="w47")
    rest = batch_of(store, "rest", SETTINGS.model_copy(update={"annotators": (ANN, CAT)}), rest="w47")
    left = {a.sample_id: (a.role, a.reason, a.inclusion) for a in batch.of(BOB) if a.sample_id != answered}
    assert {a.sample_id: (a.role, a.reason, a.inclusion) for a in rest.assignments} == left
    had = {(a.sample_id, a.annotator) for a in batch.assignments}
    assert not had & {(a.sample_id, a.annotator) for a in rest.assignments}
    assert abs(len(rest.of(ANN)) - len(rest.of(CAT))) <= len(left) // 3
    ann, bob, _ = status(store, batch).annotators
    assert (bob.assigned, bob.answered, bob.hours_left) == (1, 1, 0)
    assert ann.assigned == len(batch.of(ANN))
    with pytest.raises(UsageError, match=r"still annotates: ann@example\.com, cat@example\.com"):
        batch_of(store, "rest-2", SETTINGS.model_copy(update={"annotators": (ANN, CAT)}), rest="w47")


def test_the_lead_settles_and_what_is_settled_is_not_asked_again(store, desk):
    batch = batch_of(store, settings=SETTINGS.model_copy(update={"overlap": 1.0, "lead": "lea@example.com"}))
    push(store, desk, batch, INSTRUCTION)
    key = say(desk, 0, ANN, result("1"))
    gold = store.frame("select grade from label where sample_id = ? and source = 'gold'", [key]).item()
    say(desk, 0, ANN, result("1" if gold != "1" else "2"))
    pull(store, desk, batch, "r")
    settings = SETTINGS.model_copy(update={"lead": "lea@example.com"})
    settle = batch_of(store, "settle", settings, adjudicate="w47")
    assert [(a.sample_id, a.annotator) for a in settle.assignments] == [(key, "lea@example.com")]
    store.add_labels([Label(key, "human", "lea@example.com", "3", blind=False, batch="settle")], "r")
    assert store.frame("select grade from truth where sample_id = ?", [key]).item() == "3"
    with pytest.raises(PiarError, match="nothing to settle"):
        batch_of(store, "again", settings, adjudicate="w47")


def test_an_answer_that_was_deleted_on_the_server_is_taken_back_and_may_come_again(store, desk):
    batch = batch_of(store)
    push(store, desk, batch, INSTRUCTION)
    key = say(desk, 0, ANN, result("2"))
    assert pull(store, desk, batch, "r1").pulled == 1
    say(desk, 0, ANN, result("2"))
    project = next(tasks for title, tasks in desk.projects.items() if ANN in title)
    project[0] |= {"annotations": [], "updated_at": "2026-11-20T11:00:00Z"}
    gone = pull(store, desk, batch, "r2")
    assert gone.odd == {f"answer that {ANN} took back": 1}
    assert ANN not in agenda(store, batch, ())
    assert status(store, batch).annotators[0].answered == 0
    assert pull(store, desk, batch, "r3").pulled == 0
    say(desk, 0, ANN, result("2"), at="2026-11-20T12:00:00Z")
    assert pull(store, desk, batch, "r4").pulled == 1
    sql = "select grade from label where sample_id = ? and batch = 'w47' and annotator = ?"
    assert store.frame(sql, [key, ANN])["grade"].to_list() == ["2"]


def test_an_answer_in_somebody_elses_project_hides_nothing_of_theirs(store, desk):
    batch = batch_of(store)
    push(store, desk, batch, INSTRUCTION)
    mine = {a.sample_id for a in batch.of(BOB)}
    tasks = next(tasks for title, tasks in desk.projects.items() if ANN in title)
    number = next(n for n, task in enumerate(tasks) if task["data"]["sample_key"] not in mine)
    say(desk, number, ANN, result("2"), completed_by=2)
    pull(store, desk, batch, "r")
    ann, bob, _ = status(store, batch).annotators
    assert (ann.assigned, ann.answered) == (len(batch.of(ANN)), 0)
    assert (bob.assigned, bob.answered, bob.foreign) == (len(batch.of(BOB)), 0, 1)


def test_agreement_is_told_by_person_and_by_rule(store, desk):
    batch = batch_of(store, "pilot", pilot=24)
    push(store, desk, batch, INSTRUCTION)
    place = {key: n for n, key in enumerate(sorted({a.sample_id for a in batch.assignments}))}
    for person in (ANN, BOB, CAT):
        tasks = next(tasks for title, tasks in desk.projects.items() if person in title)
        for number, task in enumerate(tasks):
            odd = place[task["data"]["sample_key"]] % 2
            grade = "1" if odd and person == CAT else "3"
            say(desk, number, person, result(grade, rule="R02" if odd else "R01"))
    pull(store, desk, batch, "r")
    found = status(store, batch)
    assert [(r.rule, r.rows, r.pairs, round(r.same.value, 3)) for r in found.rules] == [
        ("R02", 12, 36, 0.333),
        ("R01", 12, 36, 1.0),
    ]
    agreed = {p.annotator: round(p.agreement.value, 3) for p in found.annotators}
    assert agreed == {ANN: 0.75, BOB: 0.75, CAT: 0.5}
    assert found.annotators[0].hours == pytest.approx(24 * 9 / 3600)
    say(desk, 0, ANN, result("3", rule="R01"), at="2026-11-21T10:00:00Z", lead_time=50_000)  # the page stood open
    pull(store, desk, batch, "r")
    assert status(store, batch).annotators[0].hours < (23 * 9 + 301) / 3600
    assert found.annotators[0].last == datetime(2026, 11, 20, 10)


def test_spans_and_further_controls_are_kept_also_those_that_somebody_added_to_the_page(store, desk, tmp_path):
    batch = batch_of(store)
    push(store, desk, batch, INSTRUCTION)
    span = {"start": 2, "end": 5, "text": "odu", "labels": ["evidence"]}
    more = [
        {"from_name": "evidence", "to_name": "f_title", "type": "labels", "value": span},
        {"from_name": "intent", "to_name": "f_query", "type": "choices", "value": {"choices": ["buy", "<compare>"]}},
        {"from_name": "stars", "to_name": "f_query", "type": "rating", "value": {"rating": 4}},
    ]
    key = say(desk, 0, ANN, result("2", comment="so") + more)
    pull(store, desk, batch, "r")
    sql = "select further from label where sample_id = ? and batch = 'w47'"
    kept = json.loads(store.frame(sql, [key]).item())
    marked = {"field": "title", "start": 2, "end": 5, "text": "odu", "label": "evidence"}
    assert kept == {"evidence": [marked], "intent": ["buy", "<compare>"], "stars": [4]}
    say(desk, 0, ANN, result("2", comment="so") + more[:2], at="2026-11-20T11:00:00Z")
    assert pull(store, desk, batch, "r").pulled == 1  # what changed beside the grade is a newer version
    assert "stars" not in store.frame(sql, [key]).item()
    for name in ("labels.csv", "labels.parquet"):
        export(store, "labels", tmp_path / name)
        other = Project.init(tmp_path / name.replace(".", "-"), from_=tmp_path / name)
        told = other.sql(f"select further from label where annotator = '{ANN}'")["further"].to_list()
        assert [json.loads(text) for text in told] == [{k: kept[k] for k in ("evidence", "intent")}]


def test_questions_are_on_the_page_and_on_the_sheet_as_the_batch_was_made_with_them(store, tmp_path):
    batch_of(store)
    batch = load(store, "w47")
    assert batch.questions == QUESTIONS
    xml = page(TASK, INSTRUCTION, questions=batch.questions)
    assert 'name="intent"' in xml
    assert "&lt;compare&gt;" in xml
    paths = export_batch(store, batch, INSTRUCTION, tmp_path / "w47.csv")
    assert "What do they want?" in paths[-1].read_text()
    with paths[0].open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {"grade": "2", "intent": "buy; <compare>", "why": "a; b"}
    with paths[0].open("w", newline="") as file:
        sheet = csv.DictWriter(file, rows[0])
        sheet.writeheader()
        sheet.writerows(rows)
    assert import_batch(store, batch, paths[0], ANN, "r").pulled == 1
    said = store.frame("select further from label where batch = 'w47'").item()
    assert json.loads(said) == {"intent": ["buy", "<compare>"], "why": ["a; b"]}


@pytest.mark.parametrize("name", ["grade", "Comment", "a b", "", "x" * 41])
def test_a_question_has_a_name_of_its_own(name):
    with pytest.raises(ValueError, match="name"):
        Question(name=name)


class Texts(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words.append(data)


def test_a_new_instruction_is_announced_on_the_pages_and_a_page_edited_by_hand_stays(store, desk):
    batch = batch_of(store)
    store.put_instruction(INSTRUCTION, "r")
    push(store, desk, batch, INSTRUCTION)
    first = Texts(desk.pages[0][1])
    assert first.tags == {"h4", "p", "ul", "li", "br"}
    assert any("R01 → 3: Names it <b>fully</b>." in words for words in first.words)
    key = say(desk, 0, ANN, result("3", rule="R01"))
    pull(store, desk, batch, "r")
    desk.pages[1] = (desk.pages[1][0].replace("comment", "remark"), desk.pages[1][1])
    rules = (replace(INSTRUCTION.rules[0], text="Names it <i>wholly</i>."), INSTRUCTION.rules[1])
    changed = Instruction("Judge.", rules)
    store.put_instruction(changed, "r")
    report = push(store, desk, batch, changed, stale={key: ["rule R01"]})
    assert report.announced == {ANN: 1, BOB: 0, CAT: 0}
    assert report.by_hand == (BOB,)
    news = Texts(desk.pages[0][1])
    assert news.tags == first.tags
    told = " ".join(news.words)
    assert "R01 → 3: Names it <b>fully</b>. ⟶ R01 → 3: Names it <i>wholly</i>." in told
    assert "1 of your answers here rest on words that have changed (1 × rule R01)" in told
    assert "wholly" in desk.pages[0][0]
    assert "wholly" not in desk.pages[1][0]
    assert "wholly" in desk.pages[1][1]
    again = push(store, desk, batch, changed)
    assert (again.announced, again.by_hand, again.pushed) == ({}, (), 0)


def test_a_control_of_an_unknown_kind_is_no_crash():
    odd = [{"from_name": "x", "value": {"video": [1]}}, {"from_name": "y", "value": 3}, {"value": {"text": None}}]
    assert read_answer(odd, TASK).further == {}


OLD_PAGE = """<View><Text name="q" value="$q"/><Text name="t" value="$t"/>
<Choices name="label" toName="q" choice="single"><Choice value="good"/><Choice value="bad"/></Choices>
<Choices name="intent" toName="q" choice="multiple"><Choice value="buy"/><Choice value="compare"/></Choices>
<TextArea name="better" toName="q"/><Rating name="stars" toName="q"/>
<Labels name="where" toName="t"><Label value="noun"/></Labels></View>"""


def test_years_of_two_controls_come_in_with_what_was_said_beside_the_grade(tmp_path):
    """An export of somebody's own page: two choices, a text, a rating and a span; the second choice is no grade."""
    said = [
        {"from_name": "label", "to_name": "q", "type": "choices", "value": {"choices": ["good"]}},
        {"from_name": "intent", "to_name": "q", "type": "choices", "value": {"choices": ["buy", "compare"]}},
        {"from_name": "better", "to_name": "q", "type": "textarea", "value": {"text": ["<b>x</b>"]}},
        {"from_name": "stars", "to_name": "q", "type": "rating", "value": {"rating": 4}},
        {"from_name": "where", "to_name": "t", "type": "labels",
         "value": {"start": 0, "end": 3, "text": "toy", "labels": ["noun"]}},
    ]  # fmt: skip
    plain = [said[0] | {"value": {"choices": ["bad"]}}]
    tasks = [
        {"id": i, "data": {"q": f"query {i % 5}", "t": f"toy {i}"},
         "annotations": [{"completed_by": {"email": ANN}, "result": plain if i % 2 else said, "lead_time": 3}]}
        for i in range(20)
    ]  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(tasks))
    (tmp_path / "old.xml").write_text(OLD_PAGE)
    reading = Reading(control="label")
    project = Project.init(
        tmp_path / "p", from_=tmp_path / "old.json", label_config=tmp_path / "old.xml", reading=reading
    )
    kept = project.sql("select distinct grade, comment, further from label order by grade").rows()
    assert [grade for grade, _, _ in kept] == ["bad", "good"]
    assert kept[0][2] == "{}"
    marked = {"field": "t", "start": 0, "end": 3, "text": "toy", "label": "noun"}
    beside = {"intent": ["buy", "compare"], "better": ["<b>x</b>"], "stars": [4], "where": [marked]}
    assert json.loads(kept[1][2]) == beside
    assert project.import_([tmp_path / "old.json"], reading=reading).report.labels == 0


def test_what_was_said_beside_the_grade_is_shown_where_a_row_is_settled_and_talked_about(store, desk):
    batch = batch_of(store, settings=SETTINGS.model_copy(update={"overlap": 1.0}))
    push(store, desk, batch, INSTRUCTION)
    span = {"start": 2, "end": 5, "text": "*odu*", "labels": ["evidence"]}
    marked = {"from_name": "evidence", "to_name": "f_title", "type": "labels", "value": span}
    key = say(desk, 0, ANN, [*result("1", comment="so"), marked])
    other = next(p for p in (BOB, CAT) if key in {a.sample_id for a in batch.of(p)})
    tasks = next(tasks for title, tasks in desk.projects.items() if other in title)
    say(desk, next(n for n, t in enumerate(tasks) if t["data"]["sample_key"] == key), other, result("3"))
    pull(store, desk, batch, "r")
    settle = batch_of(store, "settle", adjudicate="w47")
    [task] = to_tasks(store, [a for a in settle.assignments if a.sample_id == key])
    assert f"{ANN} · 1 · so · “*odu*”" in task["data"]["said"]
    assert r"“\*odu\*”" in agenda(store, batch, ())
