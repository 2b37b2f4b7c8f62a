"""A simulated year of a codebook: `piar status` names what is stale after each revision; minor edits cost nothing."""

import pytest

from benchmarks.codebook_year import START, simulate
from benchmarks.year_picture import draw


@pytest.mark.integration
def test_status_is_right_after_every_revision_of_a_year(tmp_path) -> None:
    rows, year = simulate(tmp_path / "team")
    assert [row["name"] for row in rows if not row["right"]] == []
    hours = {row["name"]: row["hours"] for row in rows}
    assert hours["typography"] == hours["order changed"] == hours["grade 2 reworded"] == 0
    assert hours["R01 reworded"] == hours["R02 changed"]  # the minor edit after it costs nothing
    assert hours["R03 reworded: minor taken back"] > hours["R03 reworded"]
    assert draw(rows, year.agreement, START).count("<circle") == 2 * len(rows)
