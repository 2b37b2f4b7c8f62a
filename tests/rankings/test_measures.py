"""Measures of rankings: those of ir_measures to the ninth digit, ERR as gdeval has it, ties as the file has them."""

import shutil

import ir_measures
import numpy as np
import polars as pl
import pytest

from piar.rankings.measures import gains, parsed, per_query
from store.errors import UsageError
from store.task import Grade, Task

TASK = Task(
    name="t", group_by="query", fields=("query", "title"), grades=tuple(Grade(symbol=str(i), value=i) for i in range(5))
)
NAMES = "nDCG@10,nDCG,RR,AP,AP@5,P@10,P(rel=2)@5,Rprec,Success@3,nDCG(judged_only=True)@5"


def world(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Judgements and a run over 40 queries; some documents are unjudged, some queries without a relevant one."""
    rng = np.random.default_rng(seed)
    judged, run = [], []
    for query in range(40):
        names = [f"d{i}" for i in rng.permutation(60)]
        high = 1 if query % 9 == 0 else 5
        judged += [(str(query), name, int(rng.integers(0, high))) for name in names[:30]]
        run += [(str(query), name, place) for place, name in enumerate(names[15 : 15 + rng.integers(1, 40)], 1)]
    grades = pl.DataFrame(judged, orient="row", schema=["query", "document", "gain"])
    places = pl.DataFrame(run, orient="row", schema=["query", "document", "place"])
    return grades.with_columns(value=pl.col("gain").cast(pl.Float64)), places


def reference(names: list[str], judged: pl.DataFrame, run: pl.DataFrame, provider) -> dict[tuple[str, str], float]:
    qrels = [ir_measures.Qrel(*row) for row in judged.select("query", "document", "gain").iter_rows()]
    scored = [ir_measures.ScoredDoc(q, d, 1000.0 - p) for q, d, p in run.iter_rows()]
    asked = [ir_measures.parse_measure(name) for name in names]
    return {(m.query_id, str(m.measure)): m.value for m in provider.iter_calc(asked, qrels, scored)}


@pytest.mark.exact
@pytest.mark.parametrize("seed", range(5))
def test_measures_of_pytrec_eval_are_those_of_ir_measures(seed):
    judged, run = world(seed)
    queries = [str(q) for q in range(40)]
    ours = per_query(parsed(NAMES, TASK), run, judged, queries, 4)
    measures = {m.name: str(ir_measures.parse_measure(m.name)) for m in parsed(NAMES, TASK)}
    theirs = reference(list(measures), judged, run, ir_measures.pytrec_eval)
    for name, values in ours.items():
        for query, value in zip(queries, values, strict=True):
            assert value == pytest.approx(theirs.get((query, measures[name]), 0.0), abs=1e-9), (name, query)


@pytest.mark.exact
@pytest.mark.skipif(shutil.which("perl") is None, reason="gdeval is written in Perl")
def test_expected_reciprocal_rank_is_that_of_gdeval():
    judged, run = world(7)
    queries = [str(q) for q in range(40)]
    for k in (1, 5, 20):
        ours = per_query(parsed(f"ERR@{k}", TASK), run, judged, queries, 4)[f"ERR@{k}"]
        theirs = reference([f"ERR@{k}"], judged, run, ir_measures.gdeval)
        for query, value in zip(queries, ours, strict=True):
            assert value == pytest.approx(theirs.get((query, f"ERR@{k}"), 0.0), abs=1e-5)


def test_a_cut_off_reciprocal_rank_is_the_whole_one_where_it_is_near_enough():
    judged, run = world(3)
    queries = [str(q) for q in range(40)]
    found = per_query(parsed("RR,RR@2", TASK), run, judged, queries, 4)
    assert np.array_equal(found["RR@2"], np.where(found["RR"] >= 1 / 2, found["RR"], 0))
    assert (found["RR"] > found["RR@2"]).any()


def test_the_threshold_of_relevance_is_the_grade_that_is_named():
    judged, run = world(1)
    queries = [str(q) for q in range(40)]
    named = per_query(parsed("P@5", TASK, relevant="3"), run, judged, queries, 4)["P@5"]
    written = per_query(parsed("P(rel=3)@5", TASK), run, judged, queries, 4)["P(rel=3)@5"]
    assert np.array_equal(named, written)
    assert not np.array_equal(named, per_query(parsed("P@5", TASK), run, judged, queries, 4)["P@5"])


def test_grades_become_whole_numbers_in_proportion():
    halves = Task(
        name="t", group_by="q", fields=("q", "d"), grades=tuple(Grade(symbol=f"g{v}", value=v) for v in (0, 0.5, 1))
    )
    assert gains(halves) == {"g0": 0, "g0.5": 1, "g1": 2}
    assert gains(TASK)["4"] == 4
    with pytest.raises(UsageError, match="no order"):
        gains(Task(**{**TASK.model_dump(), "ordered": False}))


@pytest.mark.parametrize("names", ["nDCG@ten", "import os", "foo", "", "Judged@10"])
def test_what_is_no_measure_is_refused(names):
    with pytest.raises(UsageError):
        parsed(names, TASK)
