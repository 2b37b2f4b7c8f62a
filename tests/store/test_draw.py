"""A weighted sample of a log."""

import numpy as np
import polars as pl
import pytest

from piar.project.facade import Project
from store.draw import draw, draw_queries
from store.errors import UsageError
from store.importers import ImportMapping
from store.tables import numbered
from tests.small_project import small_project


def log(rows=1000):
    return numbered(
        pl.DataFrame({"query": [f"q{i}" for i in range(rows)], "times": [1 + 9 * (i % 2) for i in range(rows)]})
    )


def test_each_drawn_row_stands_for_as_much_traffic():
    heavy = [(draw(log(), 100, "times", seed).frame["times"] == "10").mean() for seed in range(200)]
    assert np.mean(heavy) == pytest.approx(10 / 11, abs=0.02)  # a little less: rows come once
    even = [(draw(log(), 100, None, seed).frame["times"] == "10").mean() for seed in range(200)]
    assert np.mean(even) == pytest.approx(0.5, abs=0.02)


def test_the_same_seed_draws_the_same_rows_in_their_order():
    one, again = (draw(log(), 50, "times", 3) for _ in range(2))
    assert one.frame.equals(again.frame)
    assert one.lines.is_sorted()
    assert len(draw(log(20), 50).frame) == 20


def test_bad_weights_are_counted():
    table = numbered(pl.DataFrame({"query": ["a", "b", "c", "d"], "times": ["3", "-1", "many", ""]}))
    found = draw(table, 4, "times")
    assert found.frame["query"].to_list() == ["a"]
    assert [one.line for one in found.rejected] == [2, 3, 4]
    with pytest.raises(UsageError, match="No column 'count'"):
        draw(table, 4, "count")


def test_import_draws(tmp_path):
    project: Project = small_project(tmp_path / "toys")
    path = tmp_path / "log.csv"
    pl.DataFrame({"query": [f"q{i}" for i in range(90)], "title": ["t"] * 90, "times": ["1"] * 89 + ["x"]}).write_csv(
        path
    )
    found = project.import_([path], ImportMapping(group="query", sample=10, weight="times")).report
    assert (found.read, found.added, len(found.rejected)) == (10, 10, 1)
    assert project.import_([path], ImportMapping(group="query", sample=10, weight="times")).report.added == 0


def skewed(queries: int = 300) -> pl.DataFrame:
    """A log in which a few queries make most of the traffic; three rows a query."""
    rows = [(f"q{i:03}", f"title {i} {j}", str(round(3000 / (i + 1)) + 1)) for i in range(queries) for j in range(3)]
    return pl.DataFrame(rows, orient="row", schema=["query", "title", "visits"])


def test_queries_are_drawn_whole_and_alike_from_head_torso_and_tail():
    table = numbered(skewed())
    found, drawn = draw_queries(table, 60, "query", "visits", seed=3)
    assert len(drawn) == 60
    assert found.frame.group_by("query").len()["len"].unique().to_list() == [3]
    assert set(found.frame["query"]) == set(drawn["query"])
    counts = dict(drawn["stratum"].value_counts().rows())
    assert counts["torso"] >= 20
    assert counts["tail"] >= 20
    least, most = (drawn.filter(pl.col("stratum") == part)["weight"] for part in ("head", "tail"))
    assert least.min() > most.max()
    assert draw_queries(table, 60, "query", "visits", seed=3)[1].equals(drawn)
    assert len(draw_queries(table, 10_000, "query")[1]) == 300


def test_weights_over_chances_add_up_to_the_whole_traffic_on_average():
    table = numbered(skewed())
    whole = skewed()["visits"].cast(pl.Float64).sum()
    sums = [
        (drawn["weight"] / drawn["inclusion"]).sum()
        for drawn in (draw_queries(table, 45, "query", "visits", seed)[1] for seed in range(200))
    ]
    assert np.mean(sums) == pytest.approx(whole, abs=4 * np.std(sums) / np.sqrt(200))


def test_import_writes_what_the_drawn_queries_stand_for(tmp_path):
    skewed().with_columns(grade=pl.Series([str(i % 3) for i in range(900)])).write_csv(tmp_path / "log.csv")
    project = Project.init(tmp_path / "p")
    columns = ImportMapping(gold="grade", group="query", sample_queries=30, weight="visits", source="week 2")
    found = project.import_([tmp_path / "log.csv"], columns)
    assert found.report.added == 90
    table = pl.read_csv(tmp_path / "p" / "queries-week-2.csv")
    assert table.columns == ["query", "weight", "inclusion", "stratum"]
    assert any("30 queries drawn" in note for note in found.notes)
    kept = project.sql("select distinct group_key, inclusion from samples order by group_key")
    assert kept.rows() == table.select("query", "inclusion").rows()
    again = project.import_([tmp_path / "log.csv"], ImportMapping(gold="grade", group="query", source="week 2")).report
    assert (again.added, again.rejected) == (810, [])
    assert project.sql("select count(inclusion) from samples").item() == 90
    assert set(again.splits) >= {"train", "dev", "holdout", "test"}  # drawn by chance, not chosen by a queue
