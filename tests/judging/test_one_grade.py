import warnings

import numpy as np
import pytest

from piar.judging.labeller import Labeller
from piar.judging.one_grade import ALPHA, OneGrade
from piar.judging.requests import Assignment
from piar.judging.session import Respondent
from store.db import Store, now
from store.ids import content_id, sample_id
from store.journal import Journal
from store.types import Verdict
from tests.judging.test_label import INSTRUCTION, TASK, Scripted

JUDGE = "teacher:scripted"


def world(folder, truth, groups=40, rows=3):
    """A store whose train rows have a truth for each group and row."""
    store = Store.create(folder / "piar.duckdb", TASK)
    with store.write() as con:
        for g in range(groups):
            for i in range(rows):
                key = sample_id(f"q{g}", (f"q{g}", f"t{i}"))
                con.execute(
                    "insert into samples (sample_id, group_key, split, source, run_id, created_at, query, title) "
                    "values (?, ?, 'train', 's', 'r', ?, ?, ?)",
                    [key, f"q{g}", now(), f"q{g}", f"t{i}"],
                )
                if (grade := truth(g, i)) is not None:
                    con.execute(
                        "insert into labels (label_id, sample_id, source, annotator, grade, run_id, created_at) "
                        "values (?, ?, 'gold', 'owner', ?, 'r', ?)",
                        [content_id(key), key, grade, now()],
                    )
    return store


def seen(store, grades, instruction="i", probs=None, groups=None):
    """After how many answers something was told, and what."""
    looking = OneGrade(store, JUDGE)
    looking.begin([instruction])
    for n, grade in enumerate(grades, start=1):
        group = f"g{n}" if groups is None else groups[n - 1]
        if words := looking.see(Verdict("", str(n), JUDGE, instruction, 0, grade, probs), group):
            return n, words
    return None


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    return world(tmp_path_factory.mktemp("balanced"), lambda g, i: str((g + i) % 2))


def test_one_grade_for_everything_is_told_with_share_and_mend(balanced):
    n, words = seen(balanced, ["1"] * 100, probs=(0.4, 0.6))
    assert 5 < n < 25
    assert f"says '1' of 100 % of {n} samples in {n} groups; gold says so of 50 %" in words
    assert "piar calibrate" in words
    _, silent = seen(balanced, ["1"] * 100)
    assert "Give examples of the other grades in instruction.md" in silent


def test_nearly_everything_is_told_and_a_mixture_is_not(balanced):
    assert seen(balanced, (["1"] * 19 + ["0"]) * 20) is not None
    assert seen(balanced, ["1", "1", "0"] * 200) is None
    assert seen(balanced, ["1", None] * 3) is None


def test_rows_of_one_group_are_one_witness(balanced):
    assert seen(balanced, ["1"] * 500, groups=["g"] * 500) is None
    assert seen(balanced, ["1"] * 100, groups=[""] * 100) is not None  # rows without a group are their own


def test_where_one_grade_dominates_nothing_is_told(tmp_path):
    store = world(tmp_path, lambda g, i: "0" if (g, i) == (0, 0) else "1")
    assert seen(store, ["1"] * 300) is None
    assert seen(store, ["0"] * 300) is not None


def test_answers_as_truth_has_them_are_told_of_no_more_often_than_is_said(balanced):
    draw = np.random.default_rng(0)
    with balanced.read():  # one connection for all
        told = [seen(balanced, map(str, draw.integers(0, 2, 120))) for _ in range(100)]
    assert sum(one is not None for one in told) <= 100 * ALPHA + 2


def test_without_truth_earlier_verdicts_are_what_is_expected(tmp_path):
    store = world(tmp_path, lambda g, i: None)
    assert seen(store, ["1"] * 100) is None  # nothing is known
    ids = store.frame("select sample_id from samples order by group_key")["sample_id"].to_list()
    earlier = [Verdict("", key, JUDGE, "before", 0, str(n % 2)) for n, key in enumerate(ids)]
    store.record_verdicts(earlier, "r")
    _, words = seen(store, ["1"] * 100)
    assert "it said so earlier of 50 %" in words


def judged(store, folder, answer):
    session = Respondent(Scripted(answer)).session(store, Journal(folder), "r")
    with Labeller(session, watch=OneGrade(store, session.judge)) as labeller:
        return labeller.judge([Assignment(INSTRUCTION, store.samples("train"))])


def test_it_is_told_once_while_answers_come(tmp_path):
    store = world(tmp_path, lambda g, i: str((g + i) % 2))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        report = judged(store, tmp_path / "j", lambda fields: "1")
    assert report.labelled == 120
    [one] = [str(w.message) for w in told]
    assert "says '1' of 100 %" in one


def test_a_teacher_that_tells_grades_apart_is_left_alone(tmp_path):
    store = world(tmp_path, lambda g, i: str((g + i) % 2))
    assert judged(store, tmp_path / "j", lambda fields: str(int(fields["title"][1:]) % 2)).labelled == 120
