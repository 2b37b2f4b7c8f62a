"""The simulated shop: known truth, known noise, rare rules, planted wrong gold."""

import polars as pl
import pytest

from piar.shop.policies import POLICIES
from piar.shop.world import BLOCK_WRONG, RANDOM_WRONG, RATER_ACCURACY, make_shop
from store.ids import sample_id

WORLD = make_shop(6000, seed=5)
BOTH = WORLD.pairs.with_columns(WORLD.answers.drop("pair"))


def test_the_same_seed_gives_the_same_world_and_another_gives_another():
    again, other = make_shop(500, seed=1), make_shop(500, seed=2)
    first = make_shop(500, seed=1)
    assert first.pairs.equals(again.pairs)
    assert first.answers.equals(again.answers)
    assert first.pairs["title"].to_list() != other.pairs["title"].to_list()


@pytest.mark.parametrize("pairs", [1, 100, 777])
def test_it_has_the_size_that_was_asked_for(pairs):
    world = make_shop(pairs, seed=0)
    assert len(world.pairs) == len(world.answers) == pairs
    assert world.answers["sample_id"].n_unique() == pairs


def test_answers_are_keyed_like_imported_samples_and_kept_apart():
    row = BOTH.row(7, named=True)
    assert row["sample_id"] == sample_id(row["query"], (row["query"], row["title"]))
    assert "true_grade" not in WORLD.pairs.columns


def test_every_policy_occurs_and_several_are_rare():
    shares = dict(WORLD.answers["rule"].value_counts(normalize=True).rows())
    assert shares.keys() == {policy.id for policy in POLICIES}
    assert len(POLICIES) == 25
    assert sum(0.005 <= share <= 0.025 for share in shares.values()) >= 8
    assert max(shares.values()) < 0.35


def test_all_grades_are_common():
    shares = WORLD.answers["true_grade"].value_counts(normalize=True)["proportion"]
    assert shares.min() > 0.1


def test_raters_err_as_much_as_is_known():
    """Accuracy against the truth: the slip rate, and what lenience moves in some queries; raters keep their order."""
    measured = [BOTH.select((pl.col(r) == pl.col("true_grade")).mean()).item() for r in RATER_ACCURACY]
    for found, known in zip(measured, RATER_ACCURACY.values(), strict=True):
        assert known - 0.06 < found < known + 0.05
    assert measured == sorted(measured, reverse=True)


def test_rater_errors_are_shared_within_queries():
    """The variance of a query's mean error is larger than independent errors would give."""
    errors = BOTH.with_columns(error=(pl.col("rater_1").cast(int) - pl.col("true_grade").cast(int)).cast(float))
    by_query = errors.group_by("query").agg(mean=pl.col("error").mean(), n=pl.len())
    independent = errors["error"].var() * (1 / by_query["n"]).mean()
    assert by_query["mean"].var() > 1.3 * independent


def test_wrong_gold_is_planted_singly_and_in_blocks_and_is_known():
    wrong = BOTH.filter(pl.col("grade") != pl.col("true_grade"))
    assert wrong.height == BOTH.filter(pl.col("gold_wrong") != "").height
    shares = dict(BOTH["gold_wrong"].value_counts(normalize=True).rows())
    assert shares["random"] == pytest.approx(RANDOM_WRONG, abs=0.008)
    assert shares["block"] == pytest.approx(BLOCK_WRONG, abs=0.008)
    blocks = BOTH.filter(pl.col("gold_wrong") == "block").group_by("query").agg(pl.col("true_grade").n_unique())
    assert blocks["true_grade"].max() == 1  # one grade of a query, misapplied throughout


def test_evidence_is_verbatim():
    for row in BOTH.iter_rows(named=True):
        assert row["evidence"]
        assert all(span and (span in row["query"] or span in row["title"]) for span in row["evidence"]), row


def test_it_says_that_it_is_simulated():
    assert "simulated" in WORLD.task.name
    assert "simulated" in WORLD.seed.preamble
