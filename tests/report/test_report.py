"""The report: one page, no network, data as text, claims only by interval."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from piar.evolve.run import EvolveSettings, evolve
from piar.offline.teacher import RulebookClient
from piar.project.facade import Project
from piar.report.headline import claim
from piar.report.page import report
from piar.report.pair import Pair
from piar.report.unwritten_policy import contradictions
from store.db import Store, now
from store.ids import sample_id
from store.importers import ImportMapping, import_files
from store.journal import Journal
from store.task import Grade, Task
from store.types import Instruction, Label, Verdict
from tests.small_project import small_project
from tests.worlds import fill, loop_models

HOSTILE = "<script>alert(1)</script>{{ 7 * 7 }}"
TASK = Task(
    name=f"toys {HOSTILE}",
    group_by="query",
    fields=("query", "title"),
    grades=(Grade(symbol="0", value=0), Grade(symbol="1", value=1)),
    slices={"short <b>": "length(title) < 12"},
)


class _Page(HTMLParser):
    """Tags, and every attribute that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetches: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetches += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and v and not v.startswith("#")]


def read(path: Path) -> tuple[str, _Page]:
    text = path.read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    return text, page


def evolved(folder: Path, notes: str = "note") -> Store:
    """Sixty groups whose truth follows a rule that the seed does not know."""
    rows = ["query,title,grade"]
    for g in range(60):
        for i in range(6):
            good = (g + i) % 2
            rows.append(f"thing{g},{'exact thing' if good else 'spare part for thing'}{g} no {i} {HOSTILE},{good}")
    (folder / "rows.csv").write_text("\n".join(rows))
    store = Store.create(folder / "piar.duckdb", TASK)
    mapping = ImportMapping(gold="grade", group="query", fields={"query": "query", "title": "title"})
    import_files(store, [folder / "rows.csv"], mapping, "r", 0)
    journal = Journal(folder / "journal")
    seed = Instruction(f"Judge. {HOSTILE}", note=notes)
    evolve(store, loop_models(RulebookClient(), RulebookClient()), seed, EvolveSettings(rounds=2), journal=journal)
    journal.close()
    return store


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    written = report(evolved(folder), folder / "report.html", notes=("Everything here is simulated.",))
    return (written, *read(written.path))


def test_the_page_fetches_nothing_and_runs_nothing(page):
    _, text, parsed = page
    assert parsed.fetches == []
    assert "script" not in parsed.tags
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}" in text
    assert "url(" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_a_gain_is_claimed_with_its_interval_and_split(page):
    written, text, _ = page
    assert re.search(r"right \d+\.\d points more often", written.headline)
    assert "untouched test groups" in text
    assert "Everything here is simulated." in text
    assert "tfidf" in text  # baselines stand beside the offline teacher


def test_every_section_says_how_to_get_its_figures(page):
    _, text, parsed = page
    assert parsed.tags.count("section") - 1 == text.count(
        "how to get this figure"
    )  # the configuration is its own source


@pytest.mark.parametrize(
    ("low", "mean", "high", "tone", "words"),
    [
        (0.01, 0.05, 0.09, "good", "5.0 points more often"),
        (-0.01, 0.05, 0.11, "even", "No difference can be claimed"),
        (-0.09, -0.05, -0.01, "bad", "5.0 points less often"),
        (None, 1.0, None, "even", "No difference can be claimed"),
    ],
)
def test_the_headline_follows_the_interval(low, mean, high, tone, words):
    row = {"split": "test", "truth": "gold", "groups": 27, "mean": mean, "low": low, "high": high, "tone": tone}
    first, second = claim({"rows": [row]}, "waits")
    assert words in first
    assert "27 untouched test groups" in second


def test_an_unmeasured_project_has_a_page_too(tmp_path):
    project = small_project(tmp_path / "toys")
    written = report(project.store, tmp_path / "report.html")
    assert written.headline == "Nothing has been measured yet"
    assert "unseen kite" not in written.path.read_text()  # samples are not listed


def test_an_instruction_scored_before_any_search_is_not_called_unmeasured(tmp_path):
    rows = "".join(f"thing{g},part {g % 5} no {i},{(g + i) % 2}\n" for g in range(40) for i in range(3))
    (tmp_path / "rows.csv").write_text(f"query,title,grade\n{rows}")
    project = Project.init(tmp_path / "p", from_=tmp_path / "rows.csv")
    project.score(split="test")
    written = project.report()
    assert written.headline.startswith("The instruction in force is right on ")
    assert "95 % interval" in written.detail
    assert "best plain baseline" in written.detail
    assert "piar score" not in written.detail


def test_the_page_is_replaced_whole(tmp_path):
    project = small_project(tmp_path / "toys")
    path = tmp_path / "report.html"
    path.write_text("old")
    report(project.store, path)
    assert path.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir() if "report" in p.name] == ["report.html"]


def test_the_page_says_how_far_each_revisers_proposals_came(page):
    _, text, _ = page
    table = text.partition("Who revised in the last search")[2].partition("</table>")[0]
    asked, usable, survived = map(int, re.findall(r'class="n">(\d+)</td>', table))
    assert "rulebook" in table
    assert asked >= usable >= survived


def test_truth_that_changed_later_is_what_the_page_shows(tmp_path):
    store = evolved(tmp_path)
    before = read(report(store, tmp_path / "a.html").path)[0]
    keys = store.frame("select sample_id from samples where split = 'test'")["sample_id"]
    store.add_labels([Label(k, "gold", "owner", "0", at=now()) for k in keys], "r")
    assert read(report(store, tmp_path / "b.html").path)[0] != before
    assert sample_id("a", ("a", "b")) not in before


def walked(folder: Path):
    """A small project further along: mined, a student trained and measured."""
    project = small_project(folder)
    store = project.store
    keys = store.frame("select sample_id::varchar as k from samples where split = 'test'")["k"].to_list()
    run = store.start_run("score", {"judge": "student:students/sft/final"})
    latency = {"first_token": {"p50": 4.25, "p99": 9.0}, "trace": {"p50": 80.0, "p99": 99.0}}
    store.finish_run(run, "done", detail={"latency_ms": latency})
    verdicts = [Verdict(f"k{i}", key, "student:students/sft/final", "", 0, "1") for i, key in enumerate(keys)]
    store.record_verdicts(verdicts, run)
    with store.write() as con:
        con.execute("insert into difficulty select sample_id, 0.4, 'hard', 'j', 'r' from samples")
    run_folder = folder / "students" / "sft"
    run_folder.mkdir(parents=True)
    lines = ['{"step": 10, "loss": 2.0, "collapse_alarm": 1.0, "num_tokens": 500}', '{"step": 20, "loss": 0.5}', '{"st']
    (run_folder / "metrics.jsonl").write_text("\n".join(lines))
    return project


def test_a_walk_shows_people_difficulty_training_and_students(tmp_path):
    project = walked(tmp_path / "toys")
    text, parsed = read(report(project.store, tmp_path / "report.html").path)
    for section in ("people", "difficulty", "training", "students"):
        assert f'<section id="{section}">' in text
        assert f'href="#{section}"' in text
    assert "2.000 → 0.500" in text
    assert "1 collapse alarm<" in text
    assert "hard 5 (100 %)" in text
    assert "student:students/sft/final" in text
    assert "4.2 ms" in text
    assert "Krippendorff's alpha" in text
    assert parsed.fetches == []


@pytest.mark.parametrize(("second", "shown"), [("bob@b.example", False), ("ann@b.example", True)])
def test_people_known_by_addresses_are_shown_by_name_where_that_tells_them_apart(tmp_path, second, shown):
    rows = [(group, f"{group} {i}", "train", "1") for group in ("camera", "desk") for i in range(3)]
    store, journal = fill(tmp_path, rows, [["1", "0"]] * 6)
    journal.close()
    with store.write() as con:
        for name, address in (("rater 0", "ann@a.example"), ("rater 1", second)):
            con.execute("update labels set annotator = ? where annotator = ?", [address, name])
    text, _ = read(report(store, tmp_path / "report.html").path)
    assert ("ann@a.example" in text) is shown
    assert "ann" in text


def test_a_student_that_writes_no_trace_stands_beside_its_teacher(tmp_path):
    project = walked(tmp_path / "toys")
    run = project.store.start_run("score", {"judge": "student:students/sft/final"})
    project.store.finish_run(run, "done", detail={"latency_ms": {"first_token": {"p50": 6.5, "p99": 9.0}}})
    text, _ = read(report(project.store, tmp_path / "report.html").path)
    assert "6.5 ms" in text


def test_students_without_a_measured_instruction_are_not_called_nothing(tmp_path):
    written = report(walked(tmp_path / "toys").store, tmp_path / "report.html")
    assert written.headline == "No instruction has been measured yet; students have, below"
    assert "`piar evolve`" in written.detail


def test_sections_without_anything_to_say_are_left_out(tmp_path):
    project = small_project(tmp_path / "toys")
    text, _ = read(report(project.store, tmp_path / "report.html").path)
    for section in ("difficulty", "training", "students", "contradictions"):
        assert f'<section id="{section}">' not in text


def test_final_grades_against_raters_of_one_mind_are_shown_with_whom_the_champion_sides(tmp_path):
    groups = [("camera", "train", 5), ("projector", "holdout", 3), ("desk", "test", 1), ("lamp", "test", 4)]
    rows = [(group, f"{group} {i} {HOSTILE}", split, "1") for group, split, n in groups for i in range(n)]
    raters = [["1", "0", "1"] if row[0] == "lamp" else ["0"] * 3 for row in rows]  # about lamps they disagree
    store, journal = fill(tmp_path, rows, raters)
    journal.close()
    seed, champion = Instruction("Judge."), Instruction("Judge better.")
    for sample in store.samples():
        said = {"camera": "1", "projector": "1", "desk": "0", "lamp": "1"}[sample.group]
        store.record_verdicts([
            Verdict(f"{i.id} {sample.id}", sample.id, "teacher:m", i.id, 0, grade)
            for i, grade in ((seed, "0"), (champion, said))
        ], "r")  # fmt: skip
    found = contradictions(store, Pair(seed, champion, "teacher:m"))
    assert found["lead"].startswith("9 final grades contradict raters who all agree, 56 % of them in 1 of 3 groups")
    assert [(r["group"], r["split"], r["n"], r["final_after"]) for r in found["rows"]] == [
        ("camera", "train", 5, 5), ("projector", "holdout", 3, 3), ("desk", "test", 1, 0),
    ]  # fmt: skip
    unseen = found["unseen"]
    assert (unseen["n"], unseen["moves"], unseen["judged"]) == (4, "0 → 1", 4)
    assert (unseen["final_before"], unseen["final_after"], unseen["raters_after"]) == (0, 3, 1)
    store.put_instruction(seed, "r")
    store.put_instruction(replace(champion, parent=seed.id), "r")
    text, parsed = read(report(store, tmp_path / "report.html").path)
    assert '<section id="contradictions">' in text
    assert parsed.fetches == []
