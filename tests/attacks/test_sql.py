"""SQL of users and of project folders from other hands: it reads the store, and neither writes nor reaches files."""

import pytest

from piar.cli import main
from piar.measure.live_logs import judged
from piar.measure.score import rows
from piar.project.facade import Project
from store.errors import UsageError
from store.judges import Judge
from store.types import Verdict
from store.user_sql import expression, subquery
from tests.small_project import small_project

TABLES = ("labels", "samples")
GOOD = [
    "length(title) / 200", "title like '%)%' -- a comment", "split = 'pool'", "'; drop table samples' <> title",
    "sample_id in (select sample_id from Labels where source = 'gold')", "case when title = '' then 1 else 0 end",
    "exists (with mine as (select 1 as a from labels) select a from mine)", "regexp_matches(title, '[0-9]')",
    "list_contains([1, 2], 1)", "(select count(*) from labels l join samples s using (sample_id)) > 3",
]  # fmt: skip
BAD = [
    "", "  ", "-- nothing", "1; drop table samples", "1) from samples; copy (select 1) to '{x}'; select (1", "1, 2",
    "1), (2", "1) as a, (2", "true) or (true", "true] or [true", "1) union select (2", "1) where (true", "1) limit (1",
    "1 as a", "1 order by 1", "'", "1 /*", "$1", "?", "$judge", "length(title", "(select length(content) from "
    "read_text('{x}'))", "(select 1 from '{x}')", "(select 1 from \"{x}\")", "(select count(*) from glob('/*'))",
    "(select 1 from read_csv('{x}'))", "(select * from query('select 1'))", "(select 1 from range(1000000000000))",
    "(select 1 from duckdb_secrets())", "(select 1 from information_schema.tables)", "(select 1 from verdicts)",
    "(select 1 from other.main.labels)", "(from '{x}' select 1)", "(table '{x}')", "(show tables)",
    "(summarize labels)",
    "(pivot labels on grade using count(*))", "(with d as (delete from labels returning 1) select 1 from d)",
    "(with i as (insert into labels select * from labels returning 1) select 1 from i)",
    "(with \"{x}\" as (select 1) select 1 from '{x}')", "(with recursive r as (select 1 union all from r) from r)",
    "nextval('s')", "setval('s', 1)", "sleep_ms(100000)", "pg_sleep(100000)", "write_log('x')",
    "(" * 2000 + "1" + ")" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_an_expression_stands_in_brackets(text):
    assert expression(text, "here", "", TABLES) == f"({text}\n)"


@pytest.mark.parametrize("text", BAD)
def test_what_is_more_than_an_expression_is_refused_with_its_place(text):
    with pytest.raises(UsageError, match=r"^slices\.x is not one SQL expression") as told:
        expression(text.replace("{x}", "/etc/hosts"), "slices.x", "Write another.", TABLES)
    assert told.value.fix == "Write another."


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return small_project(tmp_path_factory.mktemp("sql") / "toys")


REACHING = [text for text in BAD if "{x}" in text]


@pytest.mark.parametrize("text", [*REACHING, "true) or (true", "nextval('s')"])
def test_no_condition_reaches_further_than_the_store(shared, tmp_path, text):
    (tmp_path / "x").write_text("private")
    condition = text.replace("{x}", str(tmp_path / "x"))
    with pytest.raises(UsageError, match=r"--where .* is not one SQL expression"):
        shared.forecast_label(condition)
    with pytest.raises(UsageError, match=r"--live .* is not one SQL expression"):
        judged(shared.store, Judge("a", "b"), Judge("c", "d"), condition)
    assert (tmp_path / "x").read_text() == "private"


def test_a_condition_may_ask_the_store(shared):
    asked = shared.forecast_label("sample_id not in (select sample_id from labels) -- what nobody has seen")
    assert asked.asked == 1


@pytest.mark.parametrize("text", [*REACHING, "(select count(*) from labels)", "columns(*)", "nothing_there"])
def test_signals_of_a_project_reach_nothing_but_their_row(shared, tmp_path, text):
    (tmp_path / "x").write_text("private")
    signal = text.replace("{x}", str(tmp_path / "x"))
    project = Project.open(shared.folder, [f'mining.signals.mine="""{signal}"""'])
    with pytest.raises(UsageError, match=r"mining\.signals"):
        project.mine()
    assert (tmp_path / "x").read_text() == "private"
    assert not project.sql("select * from samples").is_empty()


def test_a_signal_of_a_project_that_copies_out_ends_the_verb_with_usage(tmp_path, capsys):
    project, stolen = small_project(tmp_path / "p"), tmp_path / "stolen.csv"
    attack = (
        "1)::double as y from judged left join cited using (rule); "
        f"copy (select 'x') to '{stolen}'; create or replace table signals as select judged.sample_id, (1"
    )
    with (project.folder / "piar.toml").open("a") as file:
        file.write(f'\n[mining.signals]\nx = """{attack}"""\n')
    assert main(["mine", "-C", str(project.folder)]) == 2
    assert "mining.signals.x" in capsys.readouterr().err
    assert not stolen.exists()


def test_slices_that_end_in_a_comment_are_measured(tmp_path):
    project = small_project(tmp_path / "p")
    with (project.folder / "task.toml").open("a") as file:
        file.write('\n[slices]\nlong = "length(title) > 9 -- long ones"\n')
    project = Project.open(project.folder)
    project.store.record_verdicts(
        [Verdict("k", s.id, "a", "b", 0, "1", None, None) for s in project.store.samples("test")], "r"
    )
    assert rows(project.store, Judge("a", "b"), "test")["long"].to_list() == [True, True]


@pytest.mark.parametrize(
    "statement",
    [
        "select 1; select 2", "explain analyze delete from labels", "pragma version", "call pragma_version()",
        "load json", "use main", "begin", "vacuum", "checkpoint", "prepare a as select 1", "set memory_limit = '1GB'",
        "set variable a = 1", "export database 'elsewhere/x'", "create temp table t as select 1", "reset memory_limit",
        "with d as (delete from labels returning 1) select * from d", "select * from read_duckdb('elsewhere/x')",
        "select * from kinds", "select * from statement", "select * from parquet_metadata('elsewhere/x')",
    ],
)  # fmt: skip
def test_the_verb_asks_one_query_and_nothing_else(shared, statement):
    with pytest.raises(UsageError):
        shared.sql(statement)
    assert shared.sql("select count(*) as n from labels")["n"].to_list() == [16]


def test_queries_that_are_no_plain_select_are_answered(shared):
    assert shared.sql("pivot (select grade, sample_id from labels) on grade using count(*)").height == 5 - 1
    assert "labels" in shared.sql("show tables").to_series().to_list()
    assert shared.sql("explain select 1").height
    assert shared.sql("select 1 as a where false").columns == ["a"]


def test_a_query_that_takes_too_long_or_too_much_is_stopped(shared, monkeypatch):
    monkeypatch.setattr("piar.query.sql.SECONDS", 0.05)
    with pytest.raises(UsageError, match=r"more than 0\.05 s"):
        shared.sql("select count(*) from range(1000000000) a, range(1000) b where a.range % 7 = b.range")
    monkeypatch.undo()
    monkeypatch.setattr("piar.query.sql.MOST_BYTES", 10**6)
    with pytest.raises(UsageError, match="larger than"):
        shared.sql("select * from range(1000000000)")
    monkeypatch.setattr("piar.query.sql.MEMORY", "20MB")
    with pytest.raises(UsageError, match="failed: Out of Memory"):
        shared.sql("select list(range) from range(100000000)")


@pytest.mark.parametrize(
    "text",
    [
        "", "select 1; select 2", "select 1) a, (select 2", "select 1) where (true",
        "select * from read_text('/etc/hosts')",
        "select * from '/etc/hosts'", "delete from labels returning 1", "select 1 from verdicts", "copy labels to 'x'",
        "with d as (delete from labels returning 1) select * from d", "select sleep_ms(100000)", "select $1", "selec",
    ],
)  # fmt: skip
def test_a_query_of_one_s_own_reads_what_it_may(text):
    with pytest.raises(UsageError, match=r"^--targets is not one SQL query"):
        subquery(text, "--targets", "Write another.", TABLES)


@pytest.mark.parametrize(
    "text", ["select 1 as a -- one", "with l as (from labels) select grade, count(*) from l group by all", "values (1)"]
)
def test_a_query_of_one_s_own_stands_in_brackets(text):
    assert subquery(text, "--targets", "", TABLES) == f"({text}\n)"
