"""Figures stand once, in docs/figures/results.toml: the pages that show them are as their script writes them."""

import tomllib

from benchmarks.figures import RESULTS, ROOT, page, readme, results


def test_the_pages_show_what_the_result_file_holds():
    topics = results()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "figures.md").read_text(encoding="utf-8") == page(topics)
    assert readme(text, topics) == text


def test_a_changed_figure_changes_both_pages():
    changed = RESULTS.read_text(encoding="utf-8").replace("56.6 % (41.8–70.5)", "12.3 %")
    topics = tomllib.loads(changed)["topic"]
    assert "12.3 %" in page(topics)
    assert "12.3 %" in readme((ROOT / "README.md").read_text(encoding="utf-8"), topics)
