"""What is held true where people have judged a row again since the policy changed."""

from datetime import timedelta

import pytest

from piar.evolve.truth import load_truth
from piar.project.facade import Project
from piar.query.show import show_sample
from piar.review.batch import compose
from piar.review.settings import ReviewSettings
from store.db import now
from store.types import Label

RULES = "Judge toys.\n\n## Rules\n- **R01** → 1: {}\n- **R02** → 0: It is a book.\n"


@pytest.fixture
def closed(toys):
    """A project whose first sample has no label, under its first instruction."""
    with toys.store.write() as con:
        con.execute("delete from labels")
        edit(toys, "the title names the toy")
    return toys


@pytest.fixture
def team(closed):
    """The same, its store opened once for the whole test."""
    with closed.store.write():
        yield closed


def edit(project, text):
    """Change rule R01, as a person does."""
    (project.folder / "instruction.md").write_text(RULES.format(text))
    return project.adopt_instruction()


def key(project):
    return project.store.frame("select min(sample_id) from samples").item()


def says(project, by, grade, rule="R01", **more):
    """An answer given now, in a batch of its own."""
    at = now()
    said = {"rule": rule, "batch": str(at), "at": at, "blind": True} | more
    project.store.add_labels([Label(key(project), "human", by, grade, **said)], "r")


def held(project):
    """What is held true of the sample, why, and how many votes that has."""
    grade, basis = project.store.frame("select grade, basis from truth where sample_id = ?", [key(project)]).row(0)
    votes = project.store.frame("select count(*) from vote where sample_id = ?", [key(project)]).item()
    return grade, basis, votes


def test_stale_answers_stand_until_somebody_judges_the_row_again_and_then_vote_no_more(team):
    for by in ("ann", "bob", "cy"):
        says(team, by, "1")
    edit(team, "the title is blue")
    assert held(team) == ("1", "majority", 3)
    says(team, "di", "0")
    assert held(team) == ("0", "majority", 1)
    found = load_truth(team.store, "votes")[key(team)]
    assert (found.votes, found.of_one, found.score("1")) == ({"0": 1}, True, 0.0)
    assert load_truth(team.store, "dawid_skene")[key(team)].grade == "0"
    told = {label["annotator"]: label["superseded"] for label in show_sample(team.store, key(team))["labels"]}
    assert told == {"ann": True, "bob": True, "cy": True, "di": False}


def test_a_person_is_taken_at_the_latest_word_once_the_policy_has_changed_and_not_before(team):
    says(team, "ann", "1", rule="R02")
    says(team, "bob", "0", rule="R02")
    says(team, "ann", "0", rule="R02")  # asked twice of the same words: both count, as they do without any edit
    assert held(team) == ("0", "majority", 3)
    edit(team, "the title is blue")  # another rule
    says(team, "ann", "1", rule="R02")
    assert held(team) == ("0", "majority", 2)
    assert load_truth(team.store)[key(team)].votes == {"0": 1, "1": 1}


def test_an_edit_called_minor_takes_no_vote_away_and_a_change_put_back_gives_it_back(team):
    says(team, "ann", "1")
    edit(team, "the title has the name of the toy")
    says(team, "bob", "0")
    assert held(team) == ("0", "majority", 1)
    team.minor(by="Ada")
    assert held(team)[2] == 2
    team.minor(revoke=True, by="Ada")
    assert held(team) == ("0", "majority", 1)
    edit(team, "the title names the toy")
    assert held(team)[2] == 2


def test_a_stale_settlement_gives_way_to_fresh_answers_and_can_be_settled_anew(team):
    team.store.add_labels([Label(key(team), "gold", "owner", "0")], "r")
    says(team, "lead", "1", blind=False)
    edit(team, "the title is blue")
    assert held(team)[:2] == ("1", "settled")
    people = ReviewSettings(annotators=("ann", "bob"), lead="lead")
    compose(team.store, "again", people, "r", relabel=[key(team)])
    says(team, "ann", "1", batch="again")
    assert held(team)[:2] == ("1", "majority")  # not gold, which was settled before
    says(team, "bob", "0", rule="R02", batch="again")
    assert [a.sample_id for a in compose(team.store, "s", people, "r", adjudicate="again").assignments] == [key(team)]
    says(team, "lead", "0", blind=False, batch="s")
    assert held(team)[:2] == ("0", "settled")


def test_an_answer_between_two_changes_takes_the_place_of_those_before_it(team):
    says(team, "ann", "1")
    edit(team, "the title is blue")
    says(team, "bob", "0")
    edit(team, "the title is red")
    assert held(team) == ("0", "majority", 1)
    says(team, "cy", "1")
    assert held(team) == ("1", "majority", 1)


def test_a_store_made_before_knows_at_once_what_has_been_judged_again(closed):
    says(closed, "ann", "1")
    edit(closed, "the title is blue")
    says(closed, "bob", "0")
    with closed.store.write() as con:
        con.execute("drop table overtaken cascade; update meta set value = '5' where key = 'schema'")
    assert held(Project.open(closed.folder)) == ("0", "majority", 1)


def test_exported_labels_say_which_are_superseded_and_come_back(closed, tmp_path):
    says(closed, "ann", "1")
    edit(closed, "the title is blue")
    says(closed, "bob", "0", at=now() + timedelta(seconds=1))
    closed.export("labels", tmp_path / "labels.csv")
    text = (tmp_path / "labels.csv").read_text()
    assert [line.rsplit(",", 1)[1] for line in text.splitlines()] == ["superseded", "true", "false"]
    assert closed.import_([tmp_path / "labels.csv"]).report.labels == 0
