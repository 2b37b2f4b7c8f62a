"""Signals, difficulty, buckets, the queue and its explanations, on stores small enough to check by hand."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mining import SIGNALS, MiningSettings, explain, mine
from mining.difficulty import right_probability
from mining.neighbours import conflict, hashed_vectors, nearest, spread_out, unit
from mining.select import REASONS
from store.db import Store
from store.errors import PiarError, UsageError
from store.types import Label, Verdict
from tests.random_store import INSTRUCTION, TASK, make

NO_TEXTS = MiningSettings(texts=False)


def say(sample: str, grade: str | None, probs=None, *, judge="teacher:a", instruction="i1", vote=0) -> Verdict:
    key = f"{sample}{judge}{instruction}{vote}"
    return Verdict(key, sample, judge, instruction, vote, grade, tuple(probs) if probs else None,
                   failure=None if grade else "malformed")  # fmt: skip


@pytest.fixture
def small(tmp_path) -> Store:
    """Six samples a … f in six groups without labels or verdicts; `ids(store)` are their ids in order."""
    store = Store.create(tmp_path / "piar.duckdb", TASK)
    with store.write() as con:
        con.execute(
            "insert into samples by name select lpad(i::varchar, 32, '0')::uuid as sample_id, 'q' || i as group_key, "
            "'train' as split, 's' as source, 'r' as run_id, now()::timestamp as created_at, 'q' || i as query, "
            "(['red shoe', 'blue hat', 'green sofa', 'small lamp', 'old radio', 'new phone'])[i] as title "
            "from range(1, 7) r(i)"
        )
    return store


def ids(store: Store) -> list[str]:
    return store.frame("select sample_id from samples order by 1")["sample_id"].to_list()


def signals_of(store: Store, **options) -> dict[str, dict[str, float | None]]:
    mine(store, options.pop("settings", NO_TEXTS), "mine-1", "i1", **options)
    return {row["sample_id"]: row for row in store.frame("select * from signals").iter_rows(named=True)}


# -- each signal against its formula -----------------------------------------------------------


def test_signals_follow_their_formulas(small):
    a, b, c, d, e, f = ids(small)
    small.add_labels([Label(x, "gold", "o", "3") for x in (a, b, e)], "r")
    small.add_labels([Label(a, "human", n, g) for n, g in (("x", "3"), ("y", "3"), ("z", "1"))], "r")
    small.record_verdicts(
        [
            say(a, "3", [0.1, 0.1, 0.2, 0.6]),
            say(a, "3", [0.1, 0.1, 0.2, 0.6], vote=1),
            say(a, "2", vote=2),
            say(b, "0", [0.7, 0.1, 0.1, 0.1]),
            say(c, "2", [0.0, 0.0, 1.0, 0.0]),
            say(d, "1"),
            say(d, "2", instruction="older"),
            say(e, "3", [0, 0, 0.5, 0.5]),
            say(e, "2", [0, 0, 0.9, 0.1], instruction="older"),
            say(a, "0", [0.6, 0.2, 0.1, 0.1], judge="student:s"),
            say(f, None),
        ],
        "r",
    )
    found = signals_of(small)
    assert found[a]["margin"] == pytest.approx(1 - 0.4, abs=1e-6)
    entropy = -sum(p * math.log(p) for p in (0.1, 0.1, 0.2, 0.6)) / math.log(4)
    assert found[a]["entropy"] == pytest.approx(entropy, abs=1e-6)
    votes = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(4)
    assert found[a]["vote_entropy"] == pytest.approx(votes)
    assert found[a]["people_entropy"] == pytest.approx(votes)
    assert found[b]["vote_entropy"] is None
    assert found[b]["teacher_against_gold"] == pytest.approx(0.6, abs=1e-6)
    assert found[a]["teacher_against_gold"] == pytest.approx(0, abs=1e-6)
    assert found[c]["teacher_against_gold"] is None
    assert found[a]["teacher_against_student"] == pytest.approx(0.6, abs=1e-6)
    assert found[c]["entropy"] == pytest.approx(0, abs=1e-9)
    assert found[d]["version_flips"] == pytest.approx(0.5)
    assert found[b]["version_flips"] is None
    assert found[e]["forgetting"] == pytest.approx(1 - 0.3, abs=1e-6)
    assert found[e]["variability"] == pytest.approx(0.2, abs=1e-6)
    assert found[b]["learnability"] == pytest.approx(4 * 0.1 * 0.9, abs=1e-6)
    # People agree with gold on 2 of 3 votes; the teacher's .6/.1 and the student's .1/.6 weigh against each other.
    odds = (2 / 3) * 3 / (1 / 3)
    weights = [0.1 * 0.6, 0.1 * 0.2 * odds, 0.2 * 0.1, 0.6 * 0.1 * odds**2]
    assert found[a]["suspicion"] == pytest.approx(1 - weights[3] / sum(weights), abs=1e-5)
    assert found[f]["margin"] is None


def test_ambiguity_weighs_random_votes_against_raters_who_see_one_grade(small):
    a, b, c, *_ = ids(small)
    votes = {a: "013", b: "333", c: "000"}
    small.add_labels([Label(x, "human", f"p{i}", g) for x, said in votes.items() for i, g in enumerate(said)], "r")
    small.record_verdicts([say(x, "3", [0.1, 0.1, 0.1, 0.7]) for x in (a, b, c)], "r")
    found = {x: row["ambiguity"] for x, row in signals_of(small).items()}
    right, wrong, teacher = 0.8, 0.2 / 3, (0.1, 0.1, 0.1, 0.7)

    def expected(said: str) -> float:
        clear = sum(p * math.prod(right if vote == str(k) else wrong for vote in said) for k, p in enumerate(teacher))
        return 1 / (1 + 9 * clear * 4 ** len(said))

    assert [found[x] for x in (a, b, c)] == pytest.approx([expected(votes[x]) for x in (a, b, c)], rel=1e-5)
    assert found[a] > 0.2 > found[c] > found[b]  # split, united against the teacher, united with it
    assert found[ids(small)[3]] is None


def test_gold_counts_when_people_are_judged_ambiguous(small):
    a, b, *_ = ids(small)
    small.add_labels([Label(x, "human", f"p{i}", "3") for x in (a, b) for i in range(2)], "r")
    small.add_labels([Label(a, "gold", "o", "3"), Label(b, "gold", "o", "0")], "r")
    found = signals_of(small)
    assert found[b]["ambiguity"] > found[a]["ambiguity"]


def test_every_signal_says_formula_and_source():
    assert len(SIGNALS) >= 12
    for name, function in SIGNALS.items():
        assert len(function.__doc__ or "") > 40, name


def test_a_repeated_question_counts_once_and_its_answer_wins(small):
    a = ids(small)[0]
    small.record_verdicts([say(a, None)], "r")
    small.record_verdicts([say(a, "3", [0, 0, 0.2, 0.8])], "r2")
    small.record_verdicts([say(a, "3", [0, 0, 0.2, 0.8], vote=1)], "r2")
    found = signals_of(small)[a]
    assert found["vote_entropy"] == pytest.approx(0, abs=1e-9)
    assert found["margin"] == pytest.approx(0.4, abs=1e-6)
    with small.write() as con:
        con.execute("insert into verdicts select * replace (created_at + interval 1 hour as created_at, '0' as grade, "
                    "[1, 0, 0, 0]::float[] as probs) from verdicts where vote = 0 and grade = '3'")  # fmt: skip
    assert signals_of(small)[a]["vote_entropy"] == pytest.approx(math.log(2) / math.log(4))


@pytest.mark.parametrize("probs", [[0.5, 0.5, 0.5, 0.5], [math.nan, 0, 0, 1], [0.5, 0.5], [-0.5, 0.5, 0.5, 0.5]])
def test_probabilities_that_are_none_leave_the_grade_and_no_margin(small, probs):
    a, b, *_ = ids(small)
    small.record_verdicts([say(a, "3"), say(b, "2", [0, 0, 1, 0])], "r")
    with small.write() as con:
        con.execute("update verdicts set probs = ?::float[] where grade = '3'", [probs])
    found = signals_of(small)
    assert found[a]["margin"] is None
    assert found[a]["learnability"] is None
    assert found[b]["margin"] == pytest.approx(0)


def test_your_own_signals_are_an_expression_or_a_function(small):
    a, *_ = ids(small)
    small.record_verdicts([say(a, "3")], "r")
    settings = MiningSettings(texts=False, signals={"title_length": "length(title)"})
    found = signals_of(small, settings=settings, extra={"votes": lambda s: " + ".join(s.columns("v"))})
    assert found[a]["title_length"] == 8
    assert found[a]["votes"] == 1


@pytest.mark.parametrize("bad", ["no_such_column", "1 +", "drop table samples", "title"])
def test_a_wrong_expression_is_said_in_words_and_changes_nothing(small, bad):
    small.record_verdicts([say(ids(small)[0], "3")], "r")
    signals_of(small)
    with pytest.raises(UsageError, match=r"mining\.signals"):
        mine(small, MiningSettings(texts=False, signals={"mine": bad}), "mine-2", "i1")
    assert "margin" in small.frame("select * from signals").columns
    assert len(ids(small)) == 6


def test_a_name_that_is_taken_or_no_name_is_refused(small):
    small.record_verdicts([say(ids(small)[0], "3")], "r")
    with pytest.raises(UsageError, match="exists"):
        mine(small, MiningSettings(signals={"margin": "1"}), "m", "i1")
    with pytest.raises(ValueError, match="lower case"):
        MiningSettings(signals={'x"; drop table samples': "1"})


# -- difficulty ------------------------------------------------------------------------------------


def test_difficulty_is_the_probability_of_the_truth_and_buckets_follow_the_thresholds(small):
    sample = ids(small)
    small.add_labels([Label(x, "gold", "o", "3") for x in sample[:4]], "r")
    for x, p in zip(sample, (0.95, 0.7, 0.3, 0.05, 0.6, 0.99), strict=True):
        small.record_verdicts([say(x, "3", [1 - p, 0, 0, p])], "r")
    report = mine(small, NO_TEXTS, "mine-1", "i1")
    rows = {r["sample_id"]: r for r in small.frame("select * from difficulty").iter_rows(named=True)}
    assert [rows[x]["bucket"] for x in sample] == ["easy", "mid", "hard", "suspect", "mid", "easy"]
    assert rows[sample[3]]["p"] == pytest.approx(0.05, abs=1e-6)
    assert rows[sample[3]]["judge"] == "teacher:a"
    assert report.buckets == {"easy": 2, "mid": 2, "hard": 1, "suspect": 1}
    assert report.unjudged == 0


def test_without_a_teacher_people_say_how_difficult(small):
    a, b, c, *_ = ids(small)
    votes = {a: "333", b: "330", c: "3"}
    small.add_labels([Label(x, "human", f"p{i}", g) for x, said in votes.items() for i, g in enumerate(said)], "r")
    report = mine(small, NO_TEXTS, "mine-1", "i1")
    p = dict(small.frame("select sample_id, p from difficulty where judge = 'people'").iter_rows())
    assert p == pytest.approx({a: 4 / 7, b: 3 / 7})  # the one vote on c is the truth, and says no more than that
    assert (report.unjudged, report.untold) == (3, 4)


def test_a_student_is_read_only_when_named(small):
    a, *_ = ids(small)
    small.record_verdicts([say(a, "3", [0, 0, 0.4, 0.6]), say(a, "3", [0, 0, 0.1, 0.9], judge="student:s")], "r")
    mine(small, NO_TEXTS, "m1", "i1")
    assert small.frame("select judge from difficulty").item() == "teacher:a"
    mine(small, MiningSettings(texts=False, difficulty="student:s"), "m2", "i1")
    assert small.frame("select p from difficulty").item() == pytest.approx(0.9)
    with pytest.raises(UsageError, match="student:other"):
        mine(small, MiningSettings(texts=False, difficulty="student:other"), "m3", "i1")


def test_grades_alone_are_calibrated_out_of_fold(tmp_path):
    store = make(tmp_path / "piar.duckdb", 700, votes=3)
    with store.write() as con:
        con.execute("update verdicts set probs = null")
    mine(store, NO_TEXTS, "mine-1", INSTRUCTION.id)
    frame = store.frame(
        "select sample_id, d.p, d.judge, count(distinct v.grade) as kinds, bool_or(v.grade = t.grade) as seen "
        "from difficulty d join verdicts v using (sample_id) join truth t using (sample_id) group by all"
    )
    assert set(frame["judge"]) == {"combination"}
    united, split = (frame.filter(condition) for condition in (pl.col("kinds") == 1, pl.col("kinds") > 1))
    assert united.filter("seen")["p"].mean() > 0.85 > 0.1 > united.filter(~pl.col("seen"))["p"].mean()
    assert split["p"].max() < united.filter("seen")["p"].min()


def test_calibration_never_sees_the_group_it_predicts():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    secret = rng.random(60)[groups]  # tells the group apart, and nothing else
    right = (rng.random(60) < 0.5)[groups]
    p = right_probability(secret[:, None], right, np.ones(300, dtype=bool), groups)
    assert abs(np.corrcoef(p, right)[0, 1]) < 0.35
    assert right_probability(secret[:20, None], right[:20], np.ones(20, dtype=bool), groups[:20]) is None


# -- neighbours -----------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(3, 60), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_nearest_is_what_all_pairs_say(seed, n, k):
    vectors = unit(np.random.default_rng(seed).normal(size=(n, 8)))
    places, cosines = nearest(vectors, k)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    expected = np.sort(scores, axis=1)[:, ::-1][:, :k]
    m = min(k, n - 1)
    assert np.allclose(cosines[:, :m], expected[:, :m], atol=1e-5)
    assert (places[:, m:] == -1).all()


def test_cells_find_most_neighbours_of_many_vectors():
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(300, 32)))
    vectors = unit(centres[rng.integers(300, size=21_000)] + 0.15 * rng.normal(size=(21_000, 32)))
    places, _ = nearest(vectors, 5)
    asked = rng.choice(21_000, 200, replace=False)
    scores = vectors[asked] @ vectors.T
    scores[np.arange(200), asked] = -1
    expected = np.argsort(-scores, axis=1)[:, :5]
    found = np.mean([len(set(p) & set(e)) / 5 for p, e in zip(places[asked], expected, strict=True)])
    assert found > 0.7


def test_conflict_is_the_weighted_share_of_other_grades():
    places, cosines = (
        np.array([[1, 2, -1], [0, -1, -1], [0, 1, -1]]),
        np.array([[0.8, 0.6, -1], [0.4, -1, -1], [0.9, 0.9, -1]]),
    )
    share = conflict(places, cosines, np.array([1, 1, 0]))
    assert share[0] == pytest.approx(0.6 / 1.4)
    assert np.isnan(share[1])
    assert share[2] == 1.0
    assert np.isnan(conflict(places, cosines, np.array([1, -1, -1]))[1])


def test_spread_takes_the_first_and_then_the_farthest():
    vectors = unit(np.array([[1, 0], [0.99, 0.1], [0, 1], [-1, 0.0]]))
    assert spread_out(vectors, 3) == [0, 3, 2]
    assert sorted(spread_out(vectors, 10)) == [0, 1, 2, 3]
    assert spread_out(vectors, 3, first=2) == [0, 1, 3]


def test_similar_texts_have_similar_vectors(small):
    with small.read() as con:
        texts = ["wireless mouse black", "black wireless mouse", "garden chair", ""]
        source = " union all ".join(f"select {i} as place, '{t}' as words" for i, t in enumerate(texts))
        vectors = hashed_vectors(con, source, len(texts))
    assert vectors[0] @ vectors[1] > 0.5 > abs(float(vectors[0] @ vectors[2])) + 0.1


# -- the whole walk -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mined(tmp_path_factory) -> Store:
    store = make(tmp_path_factory.mktemp("mined") / "piar.duckdb", 800, votes=2)
    with store.write() as con:
        con.execute(
            "insert into samples by name select uuid() as sample_id, group_key, 'pool' as split, 'copy' as source, "
            "run_id, created_at, query, title || '!' as title from samples where split = 'pool' "
            "order by sample_id limit 30"
        )
    parts = list[str]()
    report = mine(store, MiningSettings(top=100), "mine-1", INSTRUCTION.id, on_part=parts.append)
    assert parts == list(report.seconds)
    return store


def test_only_open_samples_are_queued_each_once_and_with_a_random_part(mined):
    queue = mined.frame("select q.*, s.split from queue q join samples s using (sample_id) order by rank")
    assert len(queue) == 100 == queue["sample_id"].n_unique()
    assert queue["rank"].to_list() == list(range(1, 101))
    assert set(queue["split"]) <= {"train", "pool"}
    assert set(queue["reason"]) <= {*REASONS, "random"}
    drawn = queue.filter(pl.col("reason") == "random")
    assert 5 <= len(drawn) <= 10
    assert (queue.filter(pl.col("reason") != "random")["inclusion"] == 1).all()
    assert drawn["inclusion"].n_unique() == 1
    assert 0 < drawn["inclusion"][0] < 0.05
    assert 1 <= len(queue.head(30).filter(pl.col("reason") == "random")) <= 4


def test_what_a_reason_cannot_fill_goes_to_the_others_by_their_quotas(mined):
    reasons = mined.frame("select reason, count(*) as n from queue where reason <> 'random' group by all")
    filled = dict(reasons.iter_rows())
    assert "flagged by people" not in filled  # nobody flagged anything, so its tenth went to others
    assert filled["suspect gold"] <= 0.8 * sum(filled.values())


def test_near_duplicates_are_found_and_the_queue_holds_none(mined):
    copies = mined.frame("select near_duplicate from signals join samples using (sample_id) where source = 'copy'")
    originals = mined.frame("select count(*) from signals where near_duplicate = 1").item()
    assert originals == 30
    assert copies["near_duplicate"].null_count() < 30
    queued = mined.frame("select near_duplicate from queue join signals using (sample_id)")
    assert queued["near_duplicate"].null_count() == len(queued)


def test_mining_again_gives_the_same_queue_and_replaces_the_old(mined):
    before = mined.frame("select sample_id, reason, rank from queue order by rank")
    mine(mined, MiningSettings(top=100), "mine-2", INSTRUCTION.id)
    assert mined.frame("select sample_id, reason, rank from queue order by rank").equals(before)
    assert mined.frame("select distinct run_id from queue").item() == "mine-2"
    assert mined.frame("select count(*) - count(distinct sample_id) from difficulty").item() == 0


def test_explanations_say_where_a_sample_is_and_why(mined):
    settings = MiningSettings(top=100)
    first = mined.frame("select sample_id from queue where reason <> 'random' order by rank limit 1").item()
    told = explain(mined, settings, first)
    assert told.queued.startswith("rank ")
    assert told.bucket in ("easy", "mid", "hard", "suspect")
    assert all(0 <= s.percentile <= 1 for s in told.signals)
    closed = mined.frame("select sample_id from samples where split = 'dev' limit 1").item()
    assert "closed" in explain(mined, settings, closed[:20]).queued
    near = mined.frame("select sample_id from signals where near_duplicate is not null limit 1").item()
    assert "nearly the same" in explain(mined, settings, near).queued
    drawn = mined.frame("select sample_id from queue where reason = 'random' limit 1").item()
    assert "drawn with probability" in explain(mined, settings, drawn).queued
    with pytest.raises(UsageError, match="No samples"):
        explain(mined, settings, "zzzz")
    with pytest.raises(UsageError, match="Several samples"):
        explain(mined, settings, "")


def test_quotas_are_kept_and_unknown_ones_refused(mined):
    only = MiningSettings(top=40, texts=False, quotas=dict.fromkeys(REASONS, 0.0) | {"uncertain": 1.0})
    assert set(mine(mined, only, "mine-3", INSTRUCTION.id).queue) == {"uncertain", "random"}
    with pytest.raises(UsageError, match="no reason"):
        mine(mined, MiningSettings(quotas={"boredom": 1.0}), "mine-4", INSTRUCTION.id)
    mine(mined, MiningSettings(top=100), "mine-5", INSTRUCTION.id)


def test_what_people_have_reviewed_is_not_queued_again(tmp_path):
    store = make(tmp_path / "piar.duckdb", 400)
    mine(store, MiningSettings(top=20, texts=False), "m1", INSTRUCTION.id)
    seen = store.frame("select sample_id from queue")["sample_id"].to_list()
    store.add_labels([Label(x, "human", "ann", "1", batch="b1") for x in seen], "r")
    store.add_labels(
        [Label(x, "human", "rater", "1", batch="file.csv") for x in store.frame("from samples")["sample_id"]], "r"
    )
    with store.write() as con:
        con.execute("insert into review_batches values ('b1', '{}', 'r', now()::timestamp)")
    assert sum(mine(store, MiningSettings(top=20, texts=False), "m2", INSTRUCTION.id).queue.values()) == 20
    assert not set(seen) & set(store.frame("select sample_id from queue")["sample_id"])


# -- bad input ------------------------------------------------------------------------------------


def test_nothing_to_mine_is_said(small, tmp_path):
    with pytest.raises(PiarError, match="None of the 6 samples"):
        mine(small, NO_TEXTS, "m", "i1")
    with pytest.raises(PiarError, match="no samples"):
        mine(Store.create(tmp_path / "empty.duckdb", TASK), NO_TEXTS, "m", "i1")


def test_no_gold_one_grade_one_group_and_copies_are_mined(tmp_path):
    store = make(tmp_path / "piar.duckdb", 300)
    with store.write() as con:
        con.execute("delete from labels")
        con.execute("update verdicts set grade = '2', probs = [0, 0, 1, 0]")
        con.execute("update samples set group_key = 'one', query = 'same', title = 'the very same title'")
    report = mine(store, MiningSettings(top=50), "m", INSTRUCTION.id)
    assert (sum(report.buckets.values()), report.untold) == (0, 300)  # a judge that says the same of all tells nothing
    still_open = store.frame("select count(*) from samples where split in ('train', 'pool')").item()
    assert report.signals["near_duplicate"] == still_open - 1
    assert report.signals["confident_learning"] == 0
    assert report.queue == {"random": 1}


@pytest.mark.parametrize(("easy", "mid", "hard"), [(0.5, 0.9, 0.1), (1.0, 0.5, 0.1), (0.9, 0.5, 0.0)])
def test_thresholds_must_fall(easy, mid, hard):
    with pytest.raises(ValueError, match="must fall"):
        MiningSettings(thresholds={"easy": easy, "mid": mid, "hard": hard})


def test_too_little_memory_is_said_in_words_and_changes_nothing(small):
    with pytest.raises(PiarError, match="Free some space or memory"):
        mine(small, MiningSettings(memory="2MB"), "mine-9", INSTRUCTION.id)
    assert small.frame("select count(*) from difficulty where run_id = 'mine-9'").item() == 0
