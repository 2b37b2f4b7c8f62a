"""How intervals are written."""

import pytest

from store.figures import bracketed, span


@pytest.mark.parametrize(
    ("low", "high", "form", "scale", "words"),
    [
        (0.4, 0.614, "{:.2f}", 1, "0.40 to 0.61"),
        (-0.021, 0.05, "{:+.1f}", 100, "-2.1 to +5.0"),
        (0.1, 0.2, "{:.0%}", 1, "10% to 20%"),
        (1.0, 1.0, "{:+.1f}", 100, ""),
        (0.99999, 1.0, "{:.1f}", 100, ""),
        (None, None, "{:.2f}", 1, ""),
    ],
)
def test_an_interval_is_written_only_where_its_ends_differ(low, high, form, scale, words):
    assert span(low, high, form, scale) == words
    assert bracketed(span(low, high, form, scale)) == (f" ({words})" if words else "")


def test_what_an_interval_is_by_is_said():
    assert bracketed("0.4 to 0.6", by="query") == " (0.4 to 0.6 by query)"
