"""A weighted sample of a log."""

import numpy as np
import polars as pl
import pytest

from piar.project.facade import Project
from store.draw import draw
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
