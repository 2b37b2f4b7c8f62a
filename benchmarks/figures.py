"""`python -m benchmarks.figures`: docs/figures.md and the README's first figures, written anew.

A figure stands once, in docs/figures/results.toml, with the command that shows it again; a test
compares the pages with it.
"""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "figures" / "results.toml"
BEGIN, END = "<!-- figures: python -m benchmarks.figures -->\n", "<!-- end of figures -->\n"
HEAD = """# Figures, and how to get them again

Written by `python -m benchmarks.figures` from [figures/results.toml](figures/results.toml); change them there.
*Simulated* worlds are ours: they show search, accounting and statistics, not how well a language model reads English.
An interval in brackets is the 95 % one, by group unless it says otherwise. What was tried on the way, with what did
not work: [experiments](experiments/README.md).
"""


def results() -> list[dict[str, Any]]:
    """The topics of the result file.

    Returns:
        each with `title` and its `rows`: `what`, `figure`, `again`, and `first` where the README shows it.
    """
    topics: list[dict[str, Any]] = tomllib.loads(RESULTS.read_text(encoding="utf-8"))["topic"]
    return topics


def page(topics: list[dict[str, Any]]) -> str:
    """docs/figures.md."""
    return HEAD + "".join(f"\n## {topic['title']}\n{_table(topic['rows'])}" for topic in topics)


def readme(text: str, topics: list[dict[str, Any]]) -> str:
    """The README with its figures written anew.

    Args:
        text: the README as it is, with the two marks around its figures.
    """
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    first = [row for topic in topics for row in topic["rows"] if row.get("first")]
    return before + BEGIN + _table(first) + END + after


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | figure | again |", "|---|---|---|"]
    lines += [f"| {row['what']} | {row['figure']} | {row.get('again', '')} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both pages."""
    topics = results()
    (ROOT / "docs" / "figures.md").write_text(page(topics), encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8"), topics), encoding="utf-8")


if __name__ == "__main__":
    main()
