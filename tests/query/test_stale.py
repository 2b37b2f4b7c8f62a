"""Labels that a change of policy has overtaken, and what they cost."""

import json
from datetime import datetime, timedelta

import pytest

from piar.cli import main
from piar.query.show import versions
from piar.query.stale_labels import stale_labels
from piar.review.batch import compose
from piar.review.settings import ReviewSettings
from store.db import now
from store.errors import UsageError
from store.types import Label
from tests.documents import check

OLD, NEW = datetime(2020, 1, 1), datetime(2999, 1, 1)


@pytest.fixture
def toys(toys):
    """A project whose seed instruction is known; its labels carry no seconds."""
    toys.adopt_instruction()
    return toys


def edit(project, text):
    """Change instruction.md, as a person does."""
    (project.folder / "instruction.md").write_text(text)
    return project.adopt_instruction()


def given(project, grade, at, by="ann", **more):
    """One label by a person on the first sample."""
    key = project.store.frame("select min(sample_id) from samples").item()
    project.store.add_labels([Label(key, "human", by, grade, at=at, batch=str(at), **more)], "r")


MEANING = "Judge toys.\n\n## Grades\n- **1**: {}\n\n## Rules\n- **R01** → 1: {}\n"


def test_nothing_is_stale_until_words_change(toys) -> None:
    given(toys, "1", OLD, seconds=1800.0)
    assert stale_labels(toys.store, toys.instruction()) == []
    added = edit(
        toys, "Judge toys.\n\n## Rules\n- **R01** → 1: the title names the toy\n- **R02** → 0: It is a book.\n"
    )
    assert stale_labels(toys.store, added) == []


def test_a_changed_meaning_and_a_changed_rule_make_earlier_labels_stale(toys) -> None:
    with toys.store.write() as con:
        con.execute("delete from labels")
    given(toys, "1", OLD, seconds=1800.0)
    given(toys, "1", OLD + timedelta(1), by="cy", rule="R01", seconds=1800.0)
    given(toys, "0", OLD, by="di", seconds=600.0)
    given(toys, "1", NEW, by="bob", seconds=600.0)
    given(toys, "1", OLD + timedelta(2), by="eve", flags=("draft",))
    changed = edit(toys, MEANING.format("It is the toy itself.", "the title names the toy"))
    (grade,) = stale_labels(toys.store, changed)
    assert (grade.what, grade.labels, grade.hours) == ("grade 1", 2, 1.0)
    changed = edit(toys, MEANING.format("It is the toy itself.", "the title says the toy's name"))
    found = {s.what: (s.labels, s.hours) for s in stale_labels(toys.store, changed)}
    assert found == {"grade 1": (2, 1.0), "rule R01": (1, 0.5)}
    assert [s.what for s in toys.status().stale] == ["people's labels", "people's labels"]
    assert "2 labels, 1.0 hours" in toys.status().stale[0].why
    back = edit(toys, "Judge toys.\n\n## Rules\n- **R01** → 1: the title names the toy\n")
    assert stale_labels(toys.store, back) == []


RULE = "Judge toys.\n\n## Rules\n- **R01** → 1: {}\n"


@pytest.fixture
def named(toys):
    """A project with one label that names R01, given before all edits."""
    with toys.store.write() as con:
        con.execute("delete from labels")
    given(toys, "1", OLD, rule="R01", seconds=3600.0)
    return toys


def whats(project):
    return [(s.what, s.labels) for s in stale_labels(project.store, project.instruction())]


def test_a_row_that_was_judged_again_is_no_longer_named(named) -> None:
    edit(named, RULE.format("the title is blue"))
    given(named, "1", OLD, by="bob", rule="R01")
    given(named, "0", now(), by="cy", rule="R01")  # one more opinion, not in their place
    assert whats(named) == [("rule R01", 2)]
    given(named, "0", now(), by="ann", rule="R01")
    assert whats(named) == [("rule R01", 1)]
    batch = compose(named.store, "again", ReviewSettings(annotators=("di",)), "r", relabel=stale_ids(named))
    assert [(a.annotator, a.role) for a in batch.assignments] == [("di", "relabel")]
    named.store.add_labels([Label(batch.assignments[0].sample_id, "human", "di", "0", batch="again")], "r")
    assert whats(named) == []


def stale_ids(project):
    return [key for old in stale_labels(project.store, project.instruction()) for key in old.sample_ids]


def test_typography_is_no_change_and_other_words_are_one(named) -> None:
    edit(named, RULE.format("the  title names\u00a0the toy."))
    assert whats(named) == []
    edit(named, RULE.format("the title names the “toy”"))
    assert whats(named) == [("rule R01", 1)]


def test_an_edit_that_somebody_calls_minor_makes_no_label_stale_and_can_be_taken_back(named, capsys) -> None:
    edit(named, RULE.format("the title has the toy's name"))
    second = edit(named, RULE.format("the title contains the toy's name"))
    assert whats(named) == [("rule R01", 1)]
    assert main(["minor", "--by", "Ada", "--json", "-C", str(named.folder)]) == 0
    document = json.loads(capsys.readouterr().out)
    check("minor", document)
    assert (document["what"], document["instruction"], document["by"]) == (["rule R01"], second.id, "Ada")
    assert whats(named) == [("rule R01", 1)]  # the edit before changed it, too
    found = named.minor(["r01"], version=named.instruction(second.parent).id, by="Ada")
    assert (found.outcome, found.instruction) == ("minor", second.parent)
    assert whats(named) == []
    (kept,) = named.status().minor
    assert (kept.what, kept.labels, kept.hours, kept.by) == ("rule R01", 1, 1.0, "Ada")
    assert main(["status", "-C", str(named.folder)]) == 0
    assert "1 label, 1.0 hours of work, stands (piar minor R01 --revoke)" in " ".join(capsys.readouterr().out.split())
    assert [v.minor.partition(",")[0] for v in versions(named.store)] == ["", "rule R01 by Ada", "rule R01 by Ada"]
    edit(named, RULE.format("the title is blue"))
    assert whats(named) == [("rule R01", 1)]
    edit(named, RULE.format("the title contains the toy's name"))  # put back
    assert whats(named) == []
    named.minor(["rule R01"], version=second.id, revoke=True, by="Bob")
    assert whats(named) == [("rule R01", 1)]


def test_what_was_not_edited_or_not_called_minor_is_refused(named) -> None:
    with pytest.raises(UsageError, match="No edit changed a rule or a grade"):
        named.minor()
    edit(named, RULE.format("the title has the toy's name"))
    for arguments, words in [
        ({"what": ["R02"]}, "No edit changed R02"),
        ({"version": "ffff"}, "that made ffff"),
        ({"revoke": True}, "No edit of a rule or a grade is called minor"),
    ]:
        with pytest.raises(UsageError, match=words):
            named.minor(**arguments)


def test_what_is_more_than_other_words_is_no_minor_edit_and_the_rest_of_it_is(named) -> None:
    edit(named, RULE.format("the title has the toy's name") + "- **R02** → 0: It is a book.\n")
    with pytest.raises(UsageError, match="adds rule R02: that is more than other words") as refused:
        named.minor()
    assert whats(named) == [("rule R01", 1)]
    command = refused.value.fix.split("`")[1]
    assert main([*command.split()[1:], "-C", str(named.folder)]) == 0
    assert whats(named) == []
    edit(named, RULE.format("the title has the toy's name").replace("→ 1", "→ 0"))
    for what, words in [("R01", "gives rule R01 another grade"), ("R02", "drops rule R02")]:
        with pytest.raises(UsageError, match=words) as refused:
            named.minor([what])
        assert "`piar status` names them" in refused.value.fix


def test_an_instruction_put_back_by_hand_is_in_force_from_then_on(named) -> None:
    """What people say between is said under it, not under the one that it replaced."""
    first = named.instruction()
    edit(named, RULE.format("the title is blue"))
    edit(named, RULE.format("the title names the toy"))
    assert named.store.frame("select instruction from in_force order by since").rows()[-1] == (first.id,)
    given(named, "1", now(), by="bob", rule="R01")
    assert whats(named) == []
    edit(named, RULE.format("the title is blue"))
    assert whats(named) == [("rule R01", 2)]


def test_a_teachers_answers_to_other_words_are_counted_and_never_taken_over(named) -> None:
    named.label()
    edit(named, RULE.format("the title names the very toy"))
    (before,) = [s.why for s in named.status().stale if s.what == "labels"]
    assert "older instruction only" in before
    assert "same in other words" not in before
    named.minor(by="Ada")
    (after,) = [s.why for s in named.status().stale if s.what == "labels"]
    assert "3 of them under one that says the same in other words" in after
    assert [step.calls for step in named.status().next if step.command == "piar label"] == [3]
