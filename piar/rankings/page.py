"""A comparison as one self-contained page: its figures, and each query's difference as a bar."""

from importlib.resources import files

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from piar.rankings.comparison import Comparison

BARS = 400  # queries that are drawn; of more, evenly chosen by rank
WIDTH, HEIGHT = 900, 240


def page(found: Comparison) -> str:
    """The page as HTML; every text from data is escaped, and nothing is loaded from a network."""
    environment = ImmutableSandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("piar").joinpath("templates", "compare.html.j2").read_text("utf-8")
    name = found.differences[0].measure
    ordered = sorted(
        (b - a, query) for query, a, b in found.values.select("query", f"a {name}", f"b {name}").iter_rows()
    )
    return environment.from_string(template).render(
        found=found,
        claim=found.differences[0],
        deciding=found.deciding(30),
        bars=_bars(ordered),
        width=WIDTH,
        height=HEIGHT,
        better=sum(d > 0 for d, _ in ordered),
        worse=sum(d < 0 for d, _ in ordered),
        equal=sum(d == 0 for d, _ in ordered),
    )


def _bars(ordered: list[tuple[float, str]]) -> list[dict[str, float | str]]:
    """Bars from the greatest loss to the greatest gain, scaled to the largest of them."""
    n = len(ordered)
    shown = [ordered[i * n // min(n, BARS)] for i in range(min(n, BARS))]
    most = max((abs(d) for d, _ in shown), default=0.0) or 1.0
    step, middle = WIDTH / max(1, len(shown)), HEIGHT / 2
    return [
        {
            "x": round(i * step, 2),
            "y": round(middle - max(d, 0) / most * middle, 2),
            "width": round(max(step * 0.85, 0.5), 2),
            "height": round(abs(d) / most * middle, 2),
            "tone": "good" if d > 0 else "bad",
            "title": f"{query}: {d:+.3f}",
        }
        for i, (d, query) in enumerate(shown)
    ]
