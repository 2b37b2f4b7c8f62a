"""How figures are written, everywhere: on the terminal, in tables and on pages."""

NO_INTERVAL = "fewer than six groups, or all of them alike"


def span(low: float | None, high: float | None, form: str = "{:.2f}", scale: float = 1.0) -> str:
    """The two ends in words, such as `0.40 to 0.61`; "" where there is no interval.

    Ends that are written alike are no interval either: nothing varied from group to group.

    Args:
        low, high: the ends of the interval, None where it is not defined.
        form: how one end is written, a format such as `{:+.1f}`.
        scale: what both ends are multiplied with first; 100 for points.
    """
    if low is None or high is None:
        return ""
    first, last = form.format(scale * low), form.format(scale * high)
    return "" if first == last else f"{first} to {last}"


def bracketed(span: str, by: str = "") -> str:
    """An interval to be put behind its figure: ` (0.40 to 0.61 by group)`; "" for none."""
    return f" ({span}{by and f' by {by}'})" if span else ""


def many(n: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 row`, `1,234 rows`.

    Args:
        plural: where it is more than an s.
    """
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def working_time(hours: float) -> str:
    """So many hours, or minutes where they are few."""
    return f"{hours:.1f} hours" if hours >= 1 else many(max(1, round(60 * hours)), "minute")
