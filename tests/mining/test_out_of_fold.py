"""Where votes are missing a cheap student says how hard a sample is, and it never saw a row of that sample's group."""

import numpy as np
import polars as pl
import pytest

from mining import MiningSettings, mine
from mining.out_of_fold import Stand
from piar.measure.baselines import fit
from store.db import Store
from store.errors import UsageError
from store.types import Label, Verdict
from tests.random_store import TASK

NO_TEXTS = MiningSettings(texts=False)
WORDS = (("awful", "broken"), ("poor", "dented"), ("fair", "usable"), ("great", "perfect"))
GROUPS, ROWS, FLIPPED = 40, 400, 30
BY = "out-of-fold TF-IDF"


@pytest.fixture
def graded(tmp_path) -> Store:
    """Titles tell the grade by their words, a third less clearly; gold alone, wrong on the first rows of train."""
    store, rng = Store.create(tmp_path / "piar.duckdb", TASK), np.random.default_rng(3)
    labels, samples = [], []
    for i in range(ROWS):
        grade, group = int(rng.integers(0, 4)), f"q{i % GROUPS}"
        second = grade if i % 3 else (grade + int(rng.integers(1, 4))) % 4
        title = f"{rng.choice(WORDS[grade])} thing {rng.choice(WORDS[second])} {i}"
        key = f"{i:08d}-0000-0000-0000-000000000000"
        samples.append((key, group, "test" if i % GROUPS >= 32 else "train", title))
        wrong = i % GROUPS < 32 and i < FLIPPED * GROUPS / 32
        labels.append(Label(key, "gold", "o", str((grade + 2) % 4 if wrong else grade)))
    frame = pl.DataFrame(samples, schema=["sample_id", "group_key", "split", "title"], orient="row")  # noqa: F841
    with store.write() as con:
        con.execute(
            "insert into samples by name select sample_id::uuid as sample_id, group_key, split, 's' as source, "
            "'r' as run_id, now()::timestamp as created_at, group_key as query, title from frame"
        )
    store.add_labels(labels, "r")
    return store


def stand(store: Store, seen: list[pl.DataFrame] | None = None, asked: list[pl.DataFrame] | None = None) -> Stand:
    def teach(rows: pl.DataFrame):
        if seen is not None:
            seen.append(rows)
        predict = fit("tfidf", rows, store.task, groups=rows["group_key"]).predict

        def judge(frame: pl.DataFrame):
            if asked is not None:
                asked.append((rows, frame))
            return predict(frame)

        return judge

    return Stand("TF-IDF", teach)


def difficulty(store: Store) -> pl.DataFrame:
    return store.frame("select d.*, s.split, s.group_key from difficulty d join samples s using (sample_id) order by 1")


def vote(store: Store, *, votes: int = 1, probs=None, right: float = 0.8, same: str = "") -> None:
    rng = np.random.default_rng(0)
    rows = store.frame("select sample_id, grade from truth order by 1").rows()
    store.record_verdicts(
        [
            Verdict(f"{key}-{n}", key, "teacher:a", "i1", n, same or (g if rng.random() < right else "0"), probs)
            for key, g in rows
            for n in range(votes)
        ],
        "r",
    )


def test_gold_alone_gives_buckets_and_flips_are_the_most_suspect(graded):
    report = mine(graded, NO_TEXTS, "m", "i1", student=stand(graded))
    assert report.difficulty_by == {BY: ROWS}
    assert report.untold == 0
    assert sum(n > 0 for n in report.buckets.values()) >= 3
    ranked = graded.frame(
        "select s.sample_id from signals x join samples s using (sample_id) where s.split = 'train' "
        "order by suspicion desc limit 16"
    )["sample_id"]
    assert sum(int(key[:8]) < FLIPPED * GROUPS / 32 for key in ranked) >= 3 * 16 * FLIPPED / 320  # three times as many
    signals = graded.frame("select margin, entropy, learnability, suspicion, confident_learning from signals")
    assert signals.drop("confident_learning").null_count().row(0) == (0, 0, 0, 0)
    assert 0 < signals["confident_learning"].count() < ROWS / 2


def test_p_is_what_a_student_of_other_groups_gives_the_label(graded):
    asked: list = []
    mine(graded, NO_TEXTS, "m", "i1", student=stand(graded, asked=asked))
    groups = dict(graded.frame("select title, group_key from samples").iter_rows())
    for learnt, judged in asked:
        held = {groups[title] for title in judged["title"]}
        assert not held & set(learnt["group_key"])
    assert sum(len(judged) for _, judged in asked) == ROWS
    learnt, judged = asked[0]
    probs = fit("tfidf", learnt, TASK, groups=learnt["group_key"]).predict(judged)
    truth = dict(graded.frame("select title, grade from truth join samples using (sample_id)").iter_rows())
    p = dict(graded.frame("select title, p from difficulty join samples using (sample_id)").iter_rows())
    for row, title in zip(probs, judged["title"], strict=True):
        assert p[title] == pytest.approx(row[TASK.index(truth[title])], abs=1e-6)


def test_closed_splits_teach_nothing(graded):
    seen: list[pl.DataFrame] = []
    mine(graded, NO_TEXTS, "m", "i1", student=stand(graded, seen))
    closed = set(graded.frame("select group_key from samples where split = 'test'")["group_key"])
    assert seen
    assert not closed & set(pl.concat(seen)["group_key"])
    assert BY in set(difficulty(graded).filter(split="test")["judge"])


def test_one_vote_without_probabilities_is_filled_in_and_several_votes_are_not(graded):
    vote(graded)
    assert mine(graded, NO_TEXTS, "m", "i1", student=stand(graded)).difficulty_by == {BY: ROWS}
    vote(graded, votes=3)
    seen: list[pl.DataFrame] = []
    mine(graded, NO_TEXTS, "m", "i1", student=stand(graded, seen))
    assert not seen
    assert BY not in set(difficulty(graded)["judge"])


def test_a_row_without_gold_is_judged_by_the_label_that_its_one_vote_gives(graded):
    vote(graded)
    with graded.write() as con:
        con.execute("delete from labels where sample_id in (select sample_id from samples where split = 'test')")
    mine(graded, NO_TEXTS, "m", "i1", student=stand(graded))
    assert difficulty(graded).filter(split="test")["judge"].unique().to_list() == [BY]


def test_a_judge_that_says_the_same_of_all_is_not_heard(graded):
    vote(graded, probs=(0.1, 0.2, 0.3, 0.4), same="3")
    assert mine(graded, NO_TEXTS, "m", "i1").untold == ROWS
    assert mine(graded, NO_TEXTS, "m", "i1", student=stand(graded)).difficulty_by == {BY: ROWS}


def test_a_judge_that_knows_a_few_rows_by_a_word_and_no_other_is_not_heard_either(graded):
    keys = graded.frame("select sample_id from samples order by 1")["sample_id"].to_list()
    common, rare = [0.1, 0.2, 0.5, 0.2], [0.7, 0.1, 0.1, 0.1]
    graded.record_verdicts(
        [Verdict(f"v{i}", key, "teacher:a", "i1", 0, "0" if i < 3 else "2", rare if i < 3 else common)
         for i, key in enumerate(keys)], "r")  # fmt: skip
    assert set(mine(graded, NO_TEXTS, "m", "i1", student=stand(graded)).difficulty_by) == {BY}


def test_a_judge_whose_probabilities_are_off_is_told_so(graded):
    truth = graded.frame("select sample_id, grade, split from truth join samples using (sample_id) order by 1").rows()
    verdicts = [
        Verdict(f"v{i}", key, "teacher:a", "i1", 0, grade, [0.5 if g == int(grade) else 0.5 / 3 for g in range(4)])
        for i, (key, grade, _) in enumerate(truth)
    ]
    graded.record_verdicts(verdicts, "r")
    found = mine(graded, NO_TEXTS, "m", "i1").confidence
    rows = sum(split in ("train", "dev") for *_, split in truth)
    assert (found.rows, found.said, found.right, found.off) == (rows, pytest.approx(0.5), 1.0, True)


def test_probabilities_that_differ_are_the_judges_own(graded):
    rng = np.random.default_rng(1)
    rows = graded.frame("select sample_id from samples order by 1")["sample_id"]
    graded.record_verdicts(
        [Verdict(key, key, "teacher:a", "i1", 0, "1", tuple(rng.dirichlet((1, 1, 1, 1)))) for key in rows], "r"
    )
    assert mine(graded, NO_TEXTS, "m", "i1", student=stand(graded)).difficulty_by == {"teacher:a": ROWS}


def test_one_vote_of_a_person_tells_no_difficulty_but_makes_a_label_suspect(graded):
    keys = graded.frame("select sample_id, grade from truth order by 1 limit 40").rows()
    graded.add_labels([Label(key, "human", "p", str((int(g) + 1) % 4)) for key, g in keys], "r2")
    report = mine(graded, NO_TEXTS, "m", "i1", student=stand(graded))
    assert report.difficulty_by == {BY: ROWS}
    suspicion = (
        "select avg(suspicion) from signals where sample_id {} in (select sample_id from label where source = 'human')"
    )
    assert graded.frame(suspicion.format("")).item() > 0.5 > graded.frame(suspicion.format("not")).item()


@pytest.mark.parametrize("left", ["few rows", "few groups", "one grade"])
def test_too_little_to_learn_from_leaves_difficulty_untold(graded, left):
    with graded.write() as con:
        if left == "few rows":
            con.execute("delete from labels where sample_id >= '00000030-0000-0000-0000-000000000000'")
        elif left == "few groups":
            con.execute("update samples set group_key = 'q' || (hash(group_key) % 4)")
        else:
            con.execute("update labels set grade = '1'")
    report = mine(graded, NO_TEXTS, "m", "i1", student=stand(graded))
    assert report.difficulty_by == {}
    assert report.untold == ROWS


def test_a_project_names_who_stood_in_and_its_card_too(tmp_path, capsys):
    from piar.cli import main

    rng = np.random.default_rng(5)
    lines = ["query,title,grade"]
    for i in range(300):
        grade = int(rng.integers(0, 3))
        lines.append(f"thing {i % 30},{rng.choice(WORDS[grade])} thing {rng.choice(WORDS[grade])} {i},{grade}")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    at = ["-C", str(tmp_path / "p")]
    assert main(["init", str(tmp_path / "p"), "--from", str(tmp_path / "rows.csv")]) == 0
    assert main(["mine", *at]) == 0
    assert "difficulty by" in capsys.readouterr().out
    assert main(["curriculum", "export", *at]) == 0
    card = (tmp_path / "p" / "shards" / "README.md").read_text()
    assert "Difficulty by: out-of-fold TF-IDF (300 samples)" in card
    assert main(["mine", *at, "--set", "mining.stand_in=false", "--json"]) == 0
    assert '"difficulty_by": {}' in capsys.readouterr().out


def test_neighbours_by_an_encoder_need_one(tmp_path):
    from piar.project.facade import Project

    (tmp_path / "rows.csv").write_text("query,title,grade\n" + "\n".join(f"q {i},t {i},{i % 2}" for i in range(40)))
    project = Project.init(tmp_path / "p", from_=tmp_path / "rows.csv")
    with pytest.raises(UsageError, match="needs an encoder"):
        Project.open(project.folder, ["mining.vectors=encoder"]).mine()
