"""Time as people read it."""


def duration(seconds: float) -> str:
    """As `45 s`, `12 min` or `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:,.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min"


def pause(elapsed: float) -> float:
    """Seconds until the next line of a long job: often at first, once a minute in the end."""
    return min(60.0, max(5.0, elapsed / 10))
