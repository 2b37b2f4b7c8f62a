import polars as pl
import pytest

from piar.llm.cost import Budget
from piar.measure.score import compare, measure
from piar.project.facade import Project
from store.errors import PiarError, UsageError
from store.judges import Judge
from store.prepare import ImportMapping
from store.types import Verdict
from tests.small_project import small_project


def say(project: Project, judge: str, grades: dict[str, str | None]) -> None:
    """Verdicts of a judge by title."""
    ids = dict(project.sql("select title, sample_id from samples").rows())
    verdicts = [Verdict("", ids[title], judge, "", 0, grade) for title, grade in grades.items()]
    project.store.record_verdicts(verdicts, "r")


def test_a_judge_is_measured_against_gold_and_against_the_majority(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    doll = "[red]doll[/red] <b>\x1b[31m"
    say(project, "baseline:good", {doll: "1", "-5 degrees": "1"})
    measured = measure(project.store, Judge("baseline:good"), "test")
    assert measured.scores.accuracy.value == 0.5  # gold: 1, 0
    assert measured.majority.accuracy.value == 1.0  # majority: 1, 1
    assert (measured.scores.n, measured.scores.groups, measured.unjudged) == (2, 1, 0)
    say(project, "baseline:gold", {doll: "1", "-5 degrees": "0"})
    gained = compare(project.store, Judge("baseline:gold"), Judge("baseline:good"), "test")
    assert (gained.gain.mean, gained.majority.mean) == (0.5, -0.5)


def test_a_row_without_a_verdict_counts_as_failed(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    say(project, "baseline:half", {"-5 degrees": "0"})
    measured = measure(project.store, Judge("baseline:half"), "test")
    assert (measured.scores.accuracy.value, measured.scores.failed, measured.unjudged) == (0.5, 1, 1)


def test_probabilities_are_scored_where_a_judge_gives_them(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    doll = "[red]doll[/red] <b>\x1b[31m"
    ids = dict(project.sql("select title, sample_id from samples").rows())
    told = {doll: (0.25, 0.75), "-5 degrees": None}
    verdicts = [Verdict("", ids[title], "baseline:b", "", 0, "1", probs) for title, probs in told.items()]
    project.store.record_verdicts(verdicts, "r")
    found = measure(project.store, Judge("baseline:b"), "test").probabilities
    assert (found.rows, found.without, found.clipped) == (1, 1, 0)
    assert (found.brier.value, found.alone.share.value) == (0.125, 0.0)
    say(project, "baseline:silent", dict.fromkeys(told, "1"))
    assert measure(project.store, Judge("baseline:silent"), "test").probabilities is None


def test_nothing_to_measure_is_said_plainly(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    with pytest.raises(PiarError, match="split pool has a label"):
        measure(project.store, Judge("baseline:x"), "pool")
    with pytest.raises(PiarError, match="no verdict on split test"):
        measure(project.store, Judge("baseline:x"), "test")
    with pytest.raises(UsageError, match="no judge"):
        project.score("gpt")
    with pytest.raises(UsageError, match="no split"):
        project.score(split="tset")


def test_a_broken_slice_is_named(tmp_path) -> None:
    small_project(tmp_path / "toys")
    path = tmp_path / "toys" / "task.toml"
    path.write_text(path.read_text() + '\n[slices]\nshort = "length(titel) < 9"\n')
    with pytest.raises(UsageError, match="titel"):
        measure(Project.open(tmp_path / "toys").store, Judge("baseline:x"), "test")


def test_what_the_teacher_said_is_not_asked_again(shop) -> None:
    first, receipt = shop.score(split="test")
    again, second = shop.score(split="test")
    assert receipt.calls == first.measured.scores.n
    assert (second.calls, second.cached) == (0, receipt.calls)
    assert again == first
    assert set(first.measured.scores.per_slice) == set(shop.task.slices)


def test_the_gain_over_an_older_instruction(shop) -> None:
    old = shop.adopt_instruction().id
    path = shop.folder / "instruction.md"
    before = path.read_text()
    path.write_text(before.split("## Rules")[0])
    try:
        scored, _ = shop.score(split="holdout", against=old)
    finally:
        path.write_text(before)
    assert scored.gained.against.instruction == old
    assert scored.measured.judge.instruction != old
    assert scored.gained.gain.low <= scored.gained.gain.mean <= scored.gained.gain.high


def test_labelling_keeps_to_its_budget_and_its_forecast(shop) -> None:
    forecast = shop.forecast_label()
    report, receipt = shop.label(budget=Budget(max_calls=50))
    assert (report.asked, receipt.calls, report.failed["budget"]) == (50, 50, forecast.asked - 50)
    assert shop.forecast_label().asked == forecast.asked - 50
    assert (forecast.host, forecast.fields, forecast.cost_usd) == (None, ("query", "title"), 0)
    report, _ = shop.label()
    assert (report.cached, report.asked) == (50, forecast.asked - 50)
    assert shop.forecast_label().asked == 0
    runs = shop.sql(
        "select status, count(*) as n from runs join run_events using (run_id) where verb = 'label' group by 1"
    )
    assert runs.rows() == [("done", 2)]


def test_a_wrong_condition_is_a_usage_error(shop) -> None:
    with pytest.raises(UsageError, match="prize"):
        shop.label("prize > 3")


def test_simple_baselines_stand_beside_the_offline_teacher(shop) -> None:
    scored, _ = shop.score(split="holdout")
    assert [other.judge.name for other in scored.baselines] == [
        "baseline:majority",
        "baseline:tfidf",
        "baseline:tfidf_overlap",
    ]
    assert {other.scores.n for other in scored.baselines} == {scored.measured.scores.n}
    noisy = Project.open(shop.folder, ["teacher.extra={noise=0.1}"])
    assert len(noisy.score(split="holdout")[0].baselines) == 3
    alone, _ = shop.score("baseline:majority", split="holdout")
    assert (alone.measured, alone.baselines) == (scored.baselines[0], ())


def test_one_rater_as_a_judge_and_a_judge_as_the_other(shop) -> None:
    scored, receipt = shop.score("baseline:rater:rater_1", split="holdout", against="baseline:majority")
    assert receipt.calls == 0
    assert scored.measured.scores.accuracy.value > 0.7
    assert scored.gained.gain.low > 0


def taught_beside(folder, extra: list[str]) -> dict[str, float]:
    """What TF-IDF says of test's rows, by text: P(grade 1); `extra` are more rows of train, all of grade 1."""
    words = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("lamp", "chair", "shoe", "hat")]
    rows = [(f"q{i}", f"a sturdy item, {text}, number {i}", str(i % 2), "train") for i, text in enumerate(words)]
    rows += [(f"t{i}", f"one fine thing, {text}, for the house", "0", "test") for i, text in enumerate(words)]
    rows += [(f"x{i}", text, "1", "train") for i, text in enumerate(extra)]
    frame = pl.DataFrame(rows, schema=["query", "title", "gold", "split"], orient="row")
    frame.write_csv(folder.with_suffix(".csv"))
    fields = {"query": "query", "title": "title"}
    mapping = ImportMapping(fields=fields, gold="gold", group="query", split="split", grades=("0", "1"))
    Project.init(folder, from_=folder.with_suffix(".csv"), mapping=mapping)
    project = Project.open(folder)
    project.score("baseline:tfidf", "test")
    told = "select s.title, v.probs[2] from verdict v join samples s using (sample_id) order by 1"
    return dict(project.sql(told).rows())


def test_a_baseline_learns_nothing_from_rows_that_repeat_closed_ones(tmp_path) -> None:
    """As no student may: a training row with all words of a test row but one (here its query) says nothing."""
    without = taught_beside(tmp_path / "without", ["quite another text"])
    copied = [
        "quite another text",
        "one fine thing, red lamp, for the house",
        "one FINE thing: blue lamp (for the house)",
    ]
    assert taught_beside(tmp_path / "copied", copied) == without
    other = taught_beside(tmp_path / "other", ["quite another text", "one fine thing, a boat, on the sea by night"])
    assert max(abs(other[text] - without[text]) for text in without) > 0.01


def test_a_baseline_of_texts_that_are_all_alike_learns_from_them_with_a_warning(tmp_path) -> None:
    text = "one fine thing for the house and all of the garden too"
    rows = [(f"q{i}", text, str(i % 2), "train" if i < 6 else "test") for i in range(12)]
    path = tmp_path / "rows.csv"
    pl.DataFrame(rows, schema=["query", "title", "gold", "split"], orient="row").write_csv(path)
    fields = {"query": "query", "title": "title"}
    mapping = ImportMapping(fields=fields, gold="gold", group="query", split="split", grades=("0", "1"))
    Project.init(tmp_path / "p", from_=path, mapping=mapping)
    with pytest.warns(UserWarning, match="6 of 6 labelled rows of train repeat a row of a closed split") as told:
        scored, _ = Project.open(tmp_path / "p").score("baseline:tfidf", "test", against="baseline:majority")
    assert scored.measured.scores.n == 6
    assert len(told) == 1  # however many baselines learn from them
