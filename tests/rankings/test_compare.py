"""Two rankings compared, through the Python API and the command line."""

import json
from dataclasses import replace
from pathlib import Path

import ir_measures
import numpy as np
import polars as pl
import pytest

from piar.cli import main
from piar.project.comparing import Runs
from store.errors import PiarError, UsageError
from store.types import Verdict
from tests.rankings.world import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("rankings"))


@pytest.fixture(scope="module")
def runs(world: World) -> Runs:
    return replace(world.runs, queries=world.a.parent / "queries.csv")


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_means_and_differences_are_those_of_ir_measures(world, runs):
    unweighed = replace(runs, weight="equal", queries=world.a.parent / "equal.csv")
    table = pl.read_csv(world.a.parent / "queries.csv").drop("weight").with_columns(equal=1)
    table.write_csv(unweighed.queries)
    found = world.project.compare(unweighed)
    qrels = [ir_measures.Qrel(q.replace(" ", "%20"), d, g) for q, d, _, g in world.rows]
    asked = [ir_measures.parse_measure(n) for n in ("nDCG@10", "RR", "AP", "P@10")]
    sides = [
        ir_measures.pytrec_eval.calc_aggregate(asked, qrels, list(ir_measures.read_trec_run(str(path))))
        for path in (world.a, world.b)
    ]
    for measure, difference in zip(asked, found.differences, strict=False):
        assert difference.a.value == pytest.approx(sides[0][measure], abs=1e-9)
        assert difference.difference.value == pytest.approx(sides[1][measure] - sides[0][measure], abs=1e-9)
    claim = found.differences[0]
    assert claim.decided
    assert claim.difference.low < claim.difference.value < claim.difference.high
    assert claim.p_value < 0.01
    assert found.unjudged == (0.0, 0.0)


def test_weights_and_segments_come_from_the_table_of_queries(world, runs):
    found = world.project.compare(replace(runs, segments=("kind",)), "nDCG@10")
    values = found.values
    expected = np.average(values["b nDCG@10"] - values["a nDCG@10"], weights=values["weight"])
    assert found.differences[0].difference.value == pytest.approx(expected)
    assert set(found.segments) == {"kind: head", "kind: tail"}
    assert found.segments["kind: head"].queries == 20
    # A query that was drawn with a chance of a half stands for two.
    drawn = world.a.parent / "drawn.csv"
    pl.read_csv(runs.queries).with_columns(inclusion=pl.lit(0.5), weight=pl.lit(1)).write_csv(drawn)
    assert set(world.project.compare(replace(runs, queries=drawn)).values["weight"]) == {2.0}


def test_equal_scores_stay_in_the_file_s_order(world, tmp_path):
    (query, best), (_, worst) = max_and_min(world)
    for name, order in (("first", (best, worst)), ("second", (worst, best))):
        (tmp_path / f"{name}.csv").write_text("query,document,score\n" + "".join(f"{query},{d},1.0\n" for d in order))
    found = world.project.compare(Runs(tmp_path / "first.csv", tmp_path / "second.csv"), "nDCG@1")
    assert found.values.row(0)[2:] == (1.0, 0.0)
    assert sum("file's order" in note for note in found.notes) == 2


def max_and_min(world: World) -> tuple[tuple[str, str], tuple[str, str]]:
    """A best and a worst document of a query that has both."""
    for query in dict.fromkeys(row[0] for row in world.rows):
        graded = {doc: grade for q, doc, _, grade in world.rows if q == query}
        best = max(graded, key=lambda doc: graded[doc])
        worst = min(graded, key=lambda doc: graded[doc])
        if graded[best] and not graded[worst]:
            return (query, best), (query, worst)
    raise AssertionError


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_tables_and_ranks_give_what_the_trec_run_gives(world, runs, tmp_path, suffix):
    tables = []
    for path in (world.a, world.b):
        rows = [(line[0].replace("%20", " "), line[2], -float(line[4])) for line in lines(path)]
        frame = pl.DataFrame(rows, orient="row", schema=["Query Text", "doc_id", "score"])
        frame = frame.with_columns(position=pl.col("score").rank("ordinal").over("Query Text")).drop("score")
        tables.append(tmp_path / (path.stem + suffix))
        {".csv": frame.write_csv, ".parquet": frame.write_parquet, ".jsonl": frame.write_ndjson}[suffix](tables[-1])
    equal = world.project.compare(Runs(*tables))
    assert equal.values.drop("weight").equals(world.project.compare(runs).values.drop("weight"))


def test_a_run_of_ms_marco_needs_no_header(world, runs, tmp_path):
    paths = []
    for path in (world.a, world.b):
        ranked = "".join(f"{q}\t{d}\t{i}\n" for i, (q, _, d, *_) in enumerate(lines(path), 1))
        paths.append(tmp_path / f"{path.stem}.tsv")
        paths[-1].write_text(ranked)
    found = world.project.compare(replace(runs, a=paths[0], b=paths[1]))
    assert found.values.drop("weight").equals(world.project.compare(runs).values.drop("weight"))


def test_names_that_differ_by_case_or_form_are_found_and_said(world, tmp_path):
    for path in (world.a, world.b):
        rows = [f"{q.upper()},{d.lower()},{s}" for q, _, d, _, s, _ in lines(path)]
        text = "\n".join(["query,document,score", *rows]).replace("%20", " ")
        (tmp_path / f"{path.stem}.csv").write_text(text)
    found = world.project.compare(Runs(tmp_path / "a.csv", tmp_path / "b.csv"))
    assert found.unjudged == (0.0, 0.0)
    assert any("case, blanks" in note for note in found.notes)


def test_documents_may_be_named_by_their_text_or_through_a_table(world, tmp_path):
    titles = {doc: title for _, doc, title, _ in world.rows}
    (tmp_path / "docs.csv").write_text("key,name\n" + "".join(f"x-{doc},{title}\n" for doc, title in titles.items()))
    for path in (world.a, world.b):
        for form, called in (("text", titles.get), ("id", "x-{}".format)):
            rows = [f"{q},{called(d)},{s}" for q, _, d, _, s, _ in lines(path)]
            text = "\n".join(["query,document,score", *rows]).replace("%20", " ")
            (tmp_path / f"{path.stem}-{form}.csv").write_text(text)
    by_text = world.project.compare(Runs(tmp_path / "a-text.csv", tmp_path / "b-text.csv"))
    through = Runs(tmp_path / "a-id.csv", tmp_path / "b-id.csv", documents=tmp_path / "docs.csv")
    assert by_text.unjudged == (0.0, 0.0)
    assert by_text.values.equals(world.project.compare(through).values)
    with pytest.raises(PiarError, match="No document of the runs") as told:
        world.project.compare(replace(through, documents=None))
    assert "--documents" in told.value.fix


def test_what_nobody_graded_is_counted_and_not_relevant(world, runs, tmp_path):
    padded = tmp_path / "padded.run"
    extra = [f"{line[0]} Q0 new{i} 1 99 x" for i, line in enumerate(lines(world.a)[::12])]
    padded.write_text("\n".join([*(" ".join(line) for line in lines(world.a)), *extra]))
    found = world.project.compare(replace(runs, b=padded), "P@10")
    assert found.unjudged[0] == 0.0
    assert found.unjudged[1] == pytest.approx(0.1)
    assert (found.values["b P@10"] <= found.values["a P@10"] + 1e-9).all()


def test_a_query_that_one_run_does_not_answer_counts_nothing_there(world, runs, tmp_path):
    short = tmp_path / "short.run"
    first = lines(world.b)[0][0]
    short.write_text("".join(" ".join(line) + "\n" for line in lines(world.b) if line[0] != first))
    found = world.project.compare(replace(runs, b=short), "nDCG@10")
    lost = found.values.filter(pl.col("query") == first.replace("%20", " "))
    assert lost["b nDCG@10"].item() == 0.0
    assert found.unanswered == (0, 1)
    from piar.cli.render.compare import verdict
    from piar.rankings.page import page

    assert "short does not answer 1 of the 40 queries" in verdict(found)
    assert "short does not answer 1 of the queries" in page(found)


def test_a_run_of_which_no_query_is_known_is_refused_and_does_not_lose(world, runs, tmp_path):
    strange = tmp_path / "strange.run"
    strange.write_text("".join(f"nowhere_{i} Q0 d{i} 1 1.0 s\n" for i in range(8)))
    with pytest.raises(PiarError, match="No query of the run strange"):
        world.project.compare(replace(runs, b=strange), "nDCG@10")


def test_a_line_that_a_blank_in_the_query_shifts_is_left_out_and_counted(world, runs, tmp_path):
    shifted = tmp_path / "shifted.run"
    kept = world.b.read_text().splitlines()
    shifted.write_text("\n".join([*kept[:12], *(f"red shoes Q0 {i} 1 2.5 b" for i in range(3)), *kept[12:]]))
    found, plain = (world.project.compare(replace(runs, b=path), "nDCG@10") for path in (shifted, world.b))
    assert any("3 rows left out: too many or too few parts" in note for note in found.notes)
    assert found.differences[0].difference == plain.differences[0].difference
    shifted.write_text("".join(f"red shoes Q0 {i} 1 2.5 b\n" for i in range(9)))
    with pytest.raises(UsageError) as error:
        world.project.compare(replace(runs, b=shifted))
    assert "six parts a line" in error.value.fix
    with pytest.raises(UsageError, match="is a folder"):
        world.project.compare(replace(runs, b=tmp_path))


def test_a_run_without_a_number_to_order_by_is_refused(world, tmp_path):
    (tmp_path / "bad.csv").write_text("query,document,score\nquery 1,D001,high\n")
    with pytest.raises(PiarError, match="a score that is a number"):
        world.project.compare(Runs(tmp_path / "bad.csv", world.b))


def test_slices_that_depend_on_the_query_alone_are_segments(world, tmp_path):
    own = make_world(tmp_path, queries=24)
    path = own.project.folder / "task.toml"
    path.write_text(path.read_text() + "\n[slices]\nlate = \"query > 'query 2'\"\nsome = \"title > 'title 5'\"\n")
    reopened = type(own.project).open(own.project.folder)
    found = reopened.compare(replace(own.runs, queries=tmp_path / "queries.csv"))
    assert {name.rpartition(":")[0] for name in found.segments} == {"slice late"}


def test_the_verb_prints_json_and_writes_a_page_and_a_table(world, runs, tmp_path, capsys):
    out = tmp_path / "compare.html"
    asked = ["compare", str(world.a), str(world.b), "--queries", str(runs.queries), "-C", str(world.project.folder)]
    assert main([*asked, "--json", "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [m["measure"] for m in document["measures"]] == ["nDCG@10", "RR", "AP", "P@10", "ERR@10"]
    assert document["measures"][0]["decided"] is True
    assert document["deciding"][0]["query"].startswith("query ")
    page = out.read_text()
    assert "<rect" in page
    assert "http" not in page.replace("http-equiv", "")
    assert main([*asked, "--out", str(tmp_path / "values.csv")]) == 0
    assert pl.read_csv(tmp_path / "values.csv").height == 40
    assert "b is better" in capsys.readouterr().out


def test_texts_of_data_are_no_markup_on_the_page(tmp_path):
    own = make_world(tmp_path, queries=8)
    for path in (own.a, own.b):
        path.write_text(path.read_text().replace("%20", "<b>"))
    names = dict.fromkeys(query for query, *_ in own.rows)
    table = tmp_path / "q.csv"
    table.write_text("id,text\n" + "".join(f"{q.replace(' ', '<b>')},{q}\n" for q in names))
    found = own.project.compare(Runs(own.a, own.b, queries=table))
    from piar.rankings.page import page

    assert "<b>" not in page(replace(found, notes=("<b>",), names=("<b>", "<i>")))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"query": "nothing"}, "no column of the samples"),
        ({"columns": {"document": "nothing"}}, "names nothing"),
        ({"weight": "nothing"}, "no column 'nothing'"),
        ({"queries": None, "weight": "w"}, "of no table"),
        ({"a": Path("nowhere.run")}, "does not exist"),
    ],
)
def test_wrong_names_are_refused(world, runs, change, says):
    with pytest.raises(UsageError, match=says):
        world.project.compare(replace(runs, **change))


def test_who_has_graded_nothing_is_told_so(world, runs):
    with pytest.raises(PiarError, match="has a grade by teacher"):
        world.project.compare(runs, by="teacher")
    with pytest.raises(UsageError, match="no judge"):
        world.project.compare(runs, by="oracle")


# -- the teacher, and the teacher corrected by gold -------------------------------------------


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Runs]:
    """Gold on a third of the queries; the teacher has judged all of them, and grades most rows too high."""
    world = make_world(tmp_path_factory.mktemp("taught"), queries=60, graded=20)
    project, rng = world.project, np.random.default_rng(1)
    judge, read = f"teacher:{project.config.teacher.model}", project.adopt_instruction().id
    truth = {(query, title): grade for query, _, title, grade in world.rows}
    said = []
    for sample in project.store.samples():
        grade = min(3, truth[sample.fields["query"], sample.fields["title"]] + int(rng.random() < 0.5))
        said.append(Verdict(f"{sample.id}-v", sample.id, judge, read, 0, str(grade)))
    project.store.record_verdicts(said, "run")
    return world, replace(world.runs, queries=world.a.parent / "queries.csv", weight="one")


def test_the_teacher_s_verdicts_judge_every_query(taught):
    world, runs = taught
    assert len(world.project.compare(runs, "nDCG@10", by="teacher").values) == 60
    assert len(world.project.compare(runs, "nDCG@10").values) == 20


def test_a_judge_that_gives_one_grade_to_nearly_all_is_named(tmp_path):
    world = make_world(tmp_path, queries=8)
    runs = replace(world.runs, queries=world.a.parent / "queries.csv", weight="one")
    assert not any("hardly any order" in note for note in world.project.compare(runs, "nDCG@10").notes)
    judge, read = f"teacher:{world.project.config.teacher.model}", world.project.adopt_instruction().id
    said = [Verdict(f"{s.id}-v", s.id, judge, read, 0, "1") for s in world.project.store.samples()]
    world.project.store.record_verdicts(said, "run")
    found = world.project.compare(runs, "nDCG@10", by="teacher")
    assert found.notes[0].endswith("96 of 96 documents 1: by it hardly any order is better than another")


def test_corrected_by_gold_every_figure_has_an_interval_and_is_narrower_than_from_gold_alone(taught):
    world, runs = taught
    found = world.project.compare(runs, "P(rel=3)@5,nDCG@10,ERR@5", by="corrected")
    teacher = world.project.compare(runs, "P(rel=3)@5", by="teacher").differences[0]
    gold = world.project.compare(runs, "P(rel=3)@5").differences[0]
    claim = found.differences[0]
    assert claim.alone.value == pytest.approx(gold.difference.value)
    assert claim.difference.high - claim.difference.low < claim.alone.high - claim.alone.low
    # The teacher sees too much that is good; what people say takes that away again.
    assert abs(claim.a.value - gold.a.value) < abs(teacher.a.value - gold.a.value)
    assert all(0 <= d.p_value <= 1 and d.detectable > 0 for d in found.differences)
    assert any("20 of 60 queries whole" in note for note in found.notes)


def test_corrected_wants_some_queries_that_gold_knows_whole(tmp_path, taught):
    world, runs = taught
    one = tmp_path / "one.csv"
    pl.read_csv(runs.queries).head(27).tail(9).write_csv(one)  # two of them with gold
    with pytest.raises(PiarError, match="Gold knows all of the first 10") as told:
        world.project.compare(replace(runs, queries=one), "nDCG@10", by="corrected")
    assert "at random" in told.value.fix
    pl.read_csv(runs.queries).head(5).write_csv(one)  # all of them with gold
    with pytest.raises(PiarError, match="The teacher has judged documents of 5 queries"):
        world.project.compare(replace(runs, queries=one), "nDCG@10", by="corrected")
