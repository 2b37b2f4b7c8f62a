"""Starting without gold: a file nobody has graded becomes a project that can search, through people's answers alone."""

import csv
import json

import pytest

from piar.cli import main
from piar.project.facade import Project
from piar.review.batch import compose
from piar.review.first import GROUPS, ROWS_A_GROUP, first_rows, settle_in
from piar.review.settings import ReviewSettings
from store.errors import UsageError
from store.prepare import ImportMapping
from store.splits import SplitSettings

PEOPLE = ("ann@example.com", "bob@example.com")
QUERIES = [
    f"{a} {b}"
    for a in ("red", "blue", "old", "tiny", "wet", "odd", "big", "raw")
    for b in ("lamp", "desk", "shoe", "bag", "pen", "mug")
]


def ungraded(folder, per_query=9):
    file = folder / "pairs.csv"
    with file.open("w", newline="") as out:
        sheet = csv.writer(out)
        sheet.writerow(["query", "title"])
        sheet.writerows(
            [q, f"{w} {n}{q[:2]} {q if n % 3 else 'thing'}"]
            for q in QUERIES
            for n, w in zip(range(per_query), ["fine", "new", "spare"] * 9, strict=False)
        )
    return file


@pytest.fixture
def project(tmp_path):
    return Project.init(tmp_path / "p", from_=ungraded(tmp_path), mapping=ImportMapping(grades=("no", "maybe", "yes")))


def grade(row):
    return "no" if "spare" in row["title"] else "yes" if row["query"] in row["title"] else "maybe"


def test_an_ungraded_file_needs_its_grades_named(tmp_path):
    with pytest.raises(UsageError, match="No grade column") as caught:
        Project.init(tmp_path / "p", from_=ungraded(tmp_path))
    assert "--grades" in caught.value.fix


def test_grades_keep_the_order_in_which_they_are_named(project):
    assert project.task.symbols == ("no", "maybe", "yes")
    assert dict(project.status().holds["samples"]) == {"pool": len(QUERIES) * 9}
    assert project.status().next[0].command == "piar review here"


def test_few_groups_give_as_many_random_rows_as_are_wanted(project):
    with project.store.write() as con:
        con.execute("delete from samples where group_key not in (select distinct group_key from samples limit 10)")
    at_random, diverse = first_rows(project.store, 12, 0, differing=0.0)
    assert (len(at_random), diverse) == (12, [])
    assert len({sample for sample, _ in at_random}) == 12


def test_a_first_batch_is_a_few_rows_of_many_random_groups_and_some_that_differ_most(project):
    at_random, diverse = first_rows(project.store, 60, 0)
    assert first_rows(project.store, 60, 0) == (at_random, diverse)
    groups = dict(project.sql("select sample_id, group_key from samples").rows())
    drawn = [groups[i] for i, _ in at_random]
    each = max(drawn.count(g) for g in drawn)
    assert each <= ROWS_A_GROUP
    assert len(set(drawn)) >= GROUPS
    assert len(at_random) + len(diverse) == 60
    assert not set(drawn) & {groups[i] for i in diverse}
    assert len({groups[i] for i in diverse}) > 5
    chance = len(set(drawn)) / len(QUERIES) * each / 9
    assert all(p == pytest.approx(chance) for _, p in at_random)


def test_answers_bring_random_rows_into_every_split_and_diverse_ones_into_train_alone(project):
    batch = compose(project.store, "b1", ReviewSettings(annotators=PEOPLE, hours=0.4), "run")
    diverse = {a.sample_id for a in batch.assignments if a.role == "queue"}
    answer(project, batch, "b1")
    moved = settle_in(project.store, SplitSettings(), 0)
    assert moved["train"] > 0 < moved["holdout"]
    assert settle_in(project.store, SplitSettings(), 0) == {}
    for sample, split, group in project.sql("select sample_id, split, group_key from samples").rows():
        if sample in diverse:
            assert split == "train"
        assert split == "pool" or group
    splits = project.sql(
        "select group_key from samples where split <> 'pool' group by all having count(distinct split) > 1"
    )
    assert splits.is_empty()
    before = dict(project.sql("select group_key, max(split) from samples where split <> 'pool' group by all").rows())
    again = compose(project.store, "b2", ReviewSettings(annotators=PEOPLE, hours=0.3), "run")
    answer(project, again, "b2")
    settle_in(project.store, SplitSettings(), 0)
    after = dict(project.sql("select group_key, max(split) from samples where split <> 'pool' group by all").rows())
    assert before.items() <= after.items()
    assert len(after) > len(before)


def test_a_few_answers_at_a_time_reach_every_split_and_never_part_a_group(project):
    shares = SplitSettings().shares
    for sitting in range(12):
        batch = compose(project.store, f"b{sitting}", ReviewSettings(annotators=("ann",), random=1.0), "run", answers=2)
        answer(project, batch, f"b{sitting}")
        settle_in(project.store, SplitSettings(), 0)
    dealt = project.sql("select group_key, split from samples where split <> 'pool' group by all")
    assert dealt["group_key"].is_unique().all()
    for split, share in shares.items():
        assert abs((dealt["split"] == split).sum() - share * len(dealt)) <= 1


def test_settling_rows_one_by_one_keeps_spellings_of_one_group_together(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(
        "query,title\n" + "".join(f"{q},a title of {i}\n" for i, q in enumerate(["usb cable", "USB cables"] * 2))
    )
    project = Project.init(tmp_path / "p", from_=file, mapping=ImportMapping(grades=("no", "maybe", "yes")))
    batch = compose(project.store, "b", ReviewSettings(annotators=("ann",), random=1.0), "run", answers=4)
    answer(project, batch, "b")
    settle_in(project.store, SplitSettings(), 0)
    assert project.sql("select count(distinct split), min(split) <> 'pool' from samples").rows() == [(1, True)]


def answer(project, batch, name):
    from store.types import Label

    rows = {r["sample_id"]: r for r in project.sql("select sample_id, query, title from samples").rows(named=True)}
    project.store.add_labels(
        [Label(a.sample_id, "human", a.annotator, grade(rows[a.sample_id]), batch=name) for a in batch.assignments], "r"
    )


def test_from_an_ungraded_file_to_a_search_by_the_command_line(tmp_path, capsys, monkeypatch):
    folder = str(tmp_path / "p")
    monkeypatch.chdir(tmp_path)
    assert main(["init", folder, "--from", str(ungraded(tmp_path)), "--grades", "no,maybe,yes"]) == 0
    (tmp_path / "p" / "piar.toml").write_text('[review]\nannotators = ["ann@example.com"]\nchecks = 0.0\n')
    assert main(["review", "export", str(tmp_path / "first.csv"), "--batch", "first", "-C", folder]) == 0
    sheet = tmp_path / "first-ann.csv"
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        filled = csv.DictWriter(file, rows[0].keys())
        filled.writeheader()
        filled.writerows({**row, "grade": grade(row)} for row in rows)
    capsys.readouterr()
    assert main(["review", "import", str(sheet), "--json", "-C", folder]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["splits"]) == {"train", "dev", "holdout", "test"}
    assert main(["status", "--json", "-C", folder]) == 0
    asked = [step["command"] for step in json.loads(capsys.readouterr().out)["next"]]
    assert asked[0].startswith(("piar review here", "piar evolve"))
    assert main(["evolve", "--rounds", "1", "--json", "-C", folder]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["holdout"]["groups"] > 2
