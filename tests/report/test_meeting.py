"""The lead's page: agreement over time, what divides people, who needs help, what waits."""

import random
import re
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest

from piar.query.stale_labels import StaleLabels
from piar.report.meeting import collect, helped, meeting
from piar.report.page import report
from piar.review.agreement import ANSWER, pairs
from piar.review.batch import compose
from piar.review.settings import ReviewSettings
from store.types import Instruction, Label, Rule
from tests.review_world import ANNOTATORS, rated_store, review_store

ANN, BOB, CAT = *ANNOTATORS, "cat@example.com"
INSTRUCTION = Instruction("Judge.", (Rule("R01", "Names <b>it</b>.", "3"), Rule("R02", "Accessories.", "1")))
SETTINGS = ReviewSettings(annotators=(ANN, BOB, CAT), overlap=1.0, raters=3, random=1.0, checks=0.0)
MONDAY = datetime(2026, 11, 30, 9)


@pytest.fixture
def world(tmp_path):
    """A store whose instruction is in force since 1 November."""
    store, truth = review_store(tmp_path)
    in_force(store, INSTRUCTION, datetime(2026, 11, 1))
    return store, truth


def in_force(store, instruction, at):
    with store.write() as con:
        con.execute("insert into runs values (?, 'edit', '{}', '', 0, ?)", [f"edit-{at}", at])
    store.put_instruction(instruction, f"edit-{at}")
    with store.write() as con:
        con.execute("update instructions set created_at = ? where instruction_id = ?", [at, instruction.id])


def answered(store, truth, name, at, accuracy, rows=60, settings=SETTINGS, upto=None):
    """A batch that its people have answered, right with these chances; somebody's first rows alone where so said."""
    batch = compose(store, name, settings, "r", answers=rows)
    labels = []
    for person, right in accuracy.items():
        rng = random.Random(person + name)
        for assignment in batch.of(person)[: (upto or {}).get(person)]:
            key = assignment.sample_id
            grade = truth[key] if rng.random() < right else rng.choice([g for g in "0123" if g != truth[key]])
            rule = "R01" if truth[key] in "23" else "R02"
            label = Label(key, "human", person, grade, rule=rule, seconds=30.0, blind=True, batch=name, at=at)
            labels.append(label)
    store.add_labels(labels, "r")
    return batch


def page(store, tmp_path, current=INSTRUCTION, stale=(), at=MONDAY):
    out = tmp_path / "monday.html"
    meeting(store, out, current, stale, at)
    return out.read_text()


def test_an_empty_project_says_so_everywhere(world, tmp_path):
    html = page(world[0], tmp_path)
    assert "Nobody has answered a review yet" in html
    for words in ("Not known", "Nothing is known yet", "Nobody has answered yet", "None: every label", "--pilot 30"):
        assert words in html


def test_one_person_alone_is_told_that_nothing_can_be_said_of_agreement(world, tmp_path):
    store, truth = world
    alone = SETTINGS.model_copy(update={"annotators": (ANN,)})
    answered(store, truth, "w1", datetime(2026, 11, 2), {ANN: 0.9}, rows=20, settings=alone)
    html = page(store, tmp_path)
    assert "Agreement is not known" in html
    assert "One person alone" in html


def test_a_rule_in_doubt_stands_on_both_pages_with_its_words_and_what_people_said_of_a_row(tmp_path):
    store = rated_store(tmp_path)
    rules = Instruction("Judge.", (Rule("R02", "Bundles <b>too</b>.", "1"),))
    report(store, tmp_path / "report.html", current=rules)
    monday = page(store, tmp_path, rules)
    assert "rule R02 may be wrong in the guideline" in monday
    for html in (monday, (tmp_path / "report.html").read_text()):
        assert "Bundles &lt;b&gt;too&lt;/b&gt;." in html
        told = html[html.index("<b>rule R02</b>") :].partition("</tr>")[0]
        assert re.search(r"product \d+ — label <b>(\d)</b>; ann: <b>(?!\1)\d</b>", told)
        assert "rule R01" not in html


def test_whoever_reads_the_rules_otherwise_is_named_and_nobody_else(world):
    store, truth = world
    answered(store, truth, "w1", datetime(2026, 11, 2), {ANN: 0.95, BOB: 0.95, CAT: 0.4}, rows=180)
    found = collect(store, INSTRUCTION, (), MONDAY)
    assert {p.annotator for p in found["people"] if p.needed} == {CAT}
    assert found["headline"].endswith("cat@example.com differs from the others more than by chance")
    ann = next(p for p in found["people"] if p.annotator == ANN)
    assert ann.right.low <= 0.95 <= ann.right.high + 0.02
    assert ann.hours == pytest.approx(ann.rows * 30 / 3600)


def test_of_a_few_rows_nobody_is_named(world):
    store, truth = world
    answered(store, truth, "w1", datetime(2026, 11, 2), {ANN: 1.0, BOB: 1.0, CAT: 0.0}, rows=3)
    people = collect(store, INSTRUCTION, (), MONDAY)["people"]
    assert not any(p.needed for p in people)
    assert all(p.difference.low is None for p in people)


def test_alike_people_are_seldom_named(world):
    """Three people of equal skill, forty times over: in at most 5 % somebody is meant to be named."""
    named = 0
    for seed in range(40):
        rng = random.Random(seed)
        easy = [rng.random() for _ in range(30)]  # rows of one group rise and fall together
        rows = [
            (f"{group}-{row}", group, person, str(int(rng.random() < 0.5 + 0.5 * easy[group])), None, 9.0)
            for group in range(30)
            for row in range(3)
            for person in (ANN, BOB, CAT)
        ]
        said = pl.DataFrame(rows, orient="row", schema=[*ANSWER, "seconds"]).with_columns(spent="seconds")
        named += any(p.needed for p in helped(world[0], said, pairs(said)))
    assert named <= 6  # of 2 expected, more in one of two hundred runs


def test_revisions_stand_between_the_batches_and_rules_that_divide_come_first(world):
    store, truth = world
    answered(store, truth, "w1", datetime(2026, 11, 2), {ANN: 0.7, BOB: 0.7, CAT: 0.7})
    revised = replace(INSTRUCTION, rules=(INSTRUCTION.rules[0], Rule("R02", "Parts.", "1")))
    in_force(store, revised, datetime(2026, 11, 10))
    answered(store, truth, "w2", datetime(2026, 11, 16), {ANN: 0.95, BOB: 0.95, CAT: 0.95})
    found = collect(store, revised, (), MONDAY)
    chart = found["over_time"]["chart"]
    first, second = chart["points"]
    [revision] = chart["revisions"]
    assert (first["batch"], second["batch"]) == ("w1", "w2")
    assert first["x"] < revision["x"] < second["x"]
    assert first["alpha"].value < second["alpha"].value
    apart = [rule["apart"] for rule in found["rules"]]
    assert apart == sorted(apart, reverse=True)
    assert found["rules"][0]["rows"]


def test_what_waits_is_named_with_a_command_for_each(world, tmp_path):
    store, truth = world
    at = MONDAY - timedelta(days=10)
    answered(store, truth, "w1", at, {ANN: 0.9, BOB: 0.9, CAT: 0.9}, rows=60, upto={BOB: 5})
    with store.write() as con:
        con.execute("insert into review_projects values ('w1', ?, 'http://desk', 3, ?, 'older')", [BOB, at])
    stale = [StaleLabels("rule R02", at, 12, 0.4, ())]
    found = collect(store, INSTRUCTION, stale, MONDAY)
    steps = [command for command, _ in found["next"]]
    assert steps == [
        "piar review push --batch w1",
        "piar review pull --batch w1",
        "piar review push --batch w1-rest --rest w1",
        "piar review push --batch settle --adjudicate w1",
        "piar review push --batch again --relabel stale",
    ]
    assert "12 labels are stale, 24 minutes of work" in found["headline"]
    assert "stopped?" in page(store, tmp_path, stale=stale)


def test_a_team_without_label_studio_is_told_of_sheets_and_its_terminal(world):
    store, truth = world
    answered(store, truth, "w1", MONDAY - timedelta(days=1), {ANN: 0.9, BOB: 0.9, CAT: 0.5}, rows=60, upto={BOB: 29})
    alone = SETTINGS.model_copy(update={"annotators": (CAT,), "overlap": 0.0})
    answered(store, truth, "here-cat-1", MONDAY, {CAT: 0.9}, rows=3, settings=alone, upto={CAT: 2})
    found = collect(store, INSTRUCTION, [StaleLabels("rule R02", MONDAY, 1, 0.001, ())], MONDAY)
    assert [command for command, _ in found["next"]] == [
        "piar review import FILE --batch w1",
        "piar review here --batch here-cat-1 --by cat@example.com",
        "piar review export settle.csv --batch settle --adjudicate w1",
        "piar review export again.csv --batch again --relabel stale",
    ]
    whys = [why for _, why in found["next"]]
    assert whys[0] == f"1 row of {BOB} not back yet; FILE is a sheet of theirs"
    assert whys[1] == f"{CAT} has 1 row left"
    assert whys[3] == "1 label rests on words that have changed, 1 minute of work"
    assert "1 label is stale, 1 minute of work" in found["headline"]


def test_texts_of_people_and_data_are_no_markup(world, tmp_path):
    store, truth = world
    odd = SETTINGS.model_copy(update={"annotators": ("<i>ann</i>", BOB)})
    answered(store, truth, "w1", datetime(2026, 11, 2), {"<i>ann</i>": 0.5, BOB: 0.5}, settings=odd)
    with store.write() as con:
        con.execute("update samples set title = '<script>alert(1)</script>'")
    html = page(store, tmp_path)
    assert "<i>" not in html
    assert "<script>" not in html
    assert "<b>it</b>" not in html
    assert "&lt;script&gt;" in html


def test_work_is_unknown_where_no_answer_knows_its_seconds_and_a_round_that_waits_is_not_asked_for_again(world):
    store, _ = world
    batch = compose(store, "pilot", SETTINGS, "r", pilot=10)
    mine = [a.sample_id for a in batch.of(ANN)]
    store.add_labels([Label(key, "human", ANN, "1", batch="pilot") for key in mine], "r")  # from a sheet
    values = collect(store, INSTRUCTION, (), MONDAY)
    assert [(p.annotator, p.hours, p.seconds) for p in values["people"]] == [(ANN, None, None)]
    assert not any("--pilot" in command for command, _ in values["next"])
