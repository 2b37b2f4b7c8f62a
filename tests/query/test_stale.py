"""Labels that a change of policy has overtaken, and what they cost."""

from datetime import datetime, timedelta

import pytest

from piar.query.stale_labels import stale_labels
from store.types import Label

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


def given(project, grade, at, **more):
    """One label by a person on the first sample."""
    key = project.store.frame("select min(sample_id) from samples").item()
    project.store.add_labels([Label(key, "human", "ann", grade, at=at, batch=str(at), **more)], "r")


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
    given(toys, "1", OLD + timedelta(1), rule="R01", seconds=1800.0)
    given(toys, "0", OLD, seconds=600.0)
    given(toys, "1", NEW, seconds=600.0)
    given(toys, "1", OLD + timedelta(2), flags=("draft",))
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
