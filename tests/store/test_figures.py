"""How figures are written."""

import pytest

from store.figures import many, working_time


@pytest.mark.parametrize(
    ("n", "nouns", "said"),
    [
        (0, ["row"], "0 rows"),
        (1, ["row"], "1 row"),
        (1234, ["row"], "1,234 rows"),
        (2, ["query", "queries"], "2 queries"),
    ],
)
def test_a_number_agrees_with_its_noun(n, nouns, said):
    assert many(n, *nouns) == said


@pytest.mark.parametrize(("hours", "said"), [(0.001, "1 minute"), (0.5, "30 minutes"), (1.25, "1.2 hours")])
def test_little_work_is_told_in_minutes(hours, said):
    assert working_time(hours) == said
