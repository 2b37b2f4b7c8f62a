import csv
import io
import json

import pytest

from piar.cli import main
from piar.query.sql import as_csv
from store.errors import UsageError


def test_a_query_answers_with_text_for_uuids(toys) -> None:
    frame = toys.sql("select sample_id, count(*) as n from labels group by all order by n, sample_id")
    assert frame["n"].to_list() == [4, 4, 4, 4]
    assert len(frame["sample_id"][0]) == 36


def test_repeated_column_names_are_numbered(toys) -> None:
    assert toys.sql("select 1 as a, 2 as a, 3 as b").columns == ["a", "a_2", "b"]


def test_spans_of_time_are_told_as_text(toys) -> None:
    span = "max(created_at) - min(created_at)"
    frame = toys.sql(f'select interval 26 hours as a, [interval 1 day] as a, 3 as "INTERVAL", {span} from samples')
    assert frame.columns[:3] == ["a", "a_2", "INTERVAL"]
    assert frame.row(0)[:3] == ("26:00:00", "[1 day]", 3)


def test_every_number_is_shown_and_is_a_number_in_json(toys, capsys) -> None:
    asked = "select sum(n) as total, 1.25 as part, 'nan'::double as undefined, 'inf'::double as most from range(9) t(n)"
    assert main(["sql", asked, "-C", str(toys.folder)]) == 0
    assert capsys.readouterr().out.split()[-4:] == ["36", "1.25", "nan", "inf"]
    assert main(["sql", asked, "-C", str(toys.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [[36, 1.25, None, None]]


@pytest.mark.parametrize(
    "statement",
    [
        "delete from labels",
        "create table t as select 1",
        "select * from '/etc/passwd'",
        "select * from read_text('/etc/passwd')",
        "copy labels to 'elsewhere/stolen.csv'",
        "attach 'elsewhere/other.duckdb'",
        "set enable_external_access = true; select * from read_text('/etc/passwd')",
        "install httpfs",
        "selec 1",
        "select nothing from labels",
        "  ",
    ],
)
def test_nothing_is_written_and_no_file_is_read(toys, statement) -> None:
    with pytest.raises(UsageError):
        toys.sql(statement)
    assert toys.sql("select count(*) as n from labels")["n"].to_list() == [16]


def test_csv_is_safe_for_spreadsheets_and_keeps_numbers(toys) -> None:
    text = as_csv(toys.sql("select title, -1 as n, [1, 2] as l from samples where title < '[' order by title"))
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["title", "n", "l"]
    assert rows[1:] == [["'-5 degrees", "-1", "[1, 2]"], ['\'=HYPERLINK("http://x","y")', "-1", "[1, 2]"]]
