"""What is held true: gold first, or people's majority, their votes, or votes weighed by who errs."""

import numpy as np
import pytest

from piar.evolve.truth import ceiling, load_truth
from store.errors import PiarError
from tests.worlds import fill

ROWS = [(f"q{i}", f"t{i}", "train", "0" if i < 3 else None) for i in range(6)]
VOTES = [("1", "1", "2"), ("0", "0", "0"), ("2", "1", "0"), ("2", "2", "1"), ("1", "1", "1"), ()]


@pytest.fixture
def store(tmp_path):
    return fill(tmp_path, ROWS, VOTES)[0]


def by_title(store, mode):
    titles = dict(store.frame("select sample_id, title from samples").rows())
    return {titles[k]: v for k, v in load_truth(store, mode).items()}


def test_gold_goes_before_the_majority(store):
    found = by_title(store, "gold")
    assert [found[f"t{i}"].grade for i in range(5)] == ["0", "0", "0", "2", "1"]
    assert "t5" not in found
    assert found["t0"].votes == {"1": 2, "2": 1}
    assert (found["t0"].contested, found["t1"].contested) == (True, False)


def test_the_majority_speaks_whatever_gold_says(store):
    found = by_title(store, "majority")
    assert [found[f"t{i}"].grade for i in (0, 1, 3, 4)] == ["1", "0", "2", "1"]
    assert found["t0"].score("1") == 1
    assert found["t0"].score("2") == found["t0"].score(None) == 0


def test_votes_score_by_the_share_that_agrees(store):
    found = by_title(store, "votes")
    assert [found["t0"].score(g) for g in ("0", "1", "2", None)] == pytest.approx([0, 2 / 3, 1 / 3, 0])


def test_the_ceiling_is_one_persons_agreement_with_the_truth(store):
    assert ceiling(load_truth(store, "votes").values()) == pytest.approx((2 / 3 + 1 + 1 / 3 + 2 / 3 + 1) / 5)
    assert ceiling([]) is None


def test_where_one_persons_word_is_the_truth_the_ceiling_cannot_be_told(tmp_path):
    one = [("1",), ("0",), ("2",), ("2",), ("1",), ()]
    (tmp_path / "gold").mkdir()
    (tmp_path / "none").mkdir()
    beside = load_truth(fill(tmp_path / "gold", ROWS, one)[0], "gold").values()
    assert ceiling(beside) == pytest.approx(1 / 3)  # beside gold one person's word tells something
    assert [truth.of_one for truth in beside].count(True) == 2
    alone = fill(tmp_path / "none", [(*row[:3], None) for row in ROWS], one)[0]
    for mode in ("gold", "majority", "votes", "dawid_skene"):
        assert ceiling(load_truth(alone, mode).values()) is None


def test_weighing_people_beats_counting_them_when_most_are_careless(tmp_path):
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 400)
    rows = [(f"q{i}", f"t{i}", "train", None) for i in range(len(true))]
    chance = (0.95, 0.45, 0.45, 0.45)
    votes = [[str(t if rng.random() < p else rng.integers(3)) for p in chance] for t in true]
    store, _ = fill(tmp_path, rows, votes)

    def right(mode):
        found = by_title(store, mode)
        return np.mean([found[f"t{i}"].grade == str(t) for i, t in enumerate(true)])

    assert right("dawid_skene") > right("majority") + 0.05


def test_without_raters_there_is_no_majority(tmp_path):
    store, _ = fill(tmp_path, ROWS)
    with pytest.raises(PiarError, match="several raters"):
        load_truth(store, "majority")
