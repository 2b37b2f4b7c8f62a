"""Files as people have them: what stands above the header, how they are packed, the shapes of JSON, workbooks."""

import bz2
import datetime
import gzip
import io
import json
import lzma
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from piar.cli import main
from store import arrow_files, sources
from store.errors import PiarError, UsageError
from store.readers import Reading, read
from store.tables import Rejection

HEADER = ["query", "title", "grade"]
ROWS = [("red lamp", "lamp, red", "3"), ("red lamp", "blue lamp", "1"), ("blue chair", "chair", "2")]
CSV = 'query,title,grade\nred lamp,"lamp, red",3\nred lamp,blue lamp,1\nblue chair,chair,2\n'


@pytest.fixture
def file(tmp_path):
    def write(content, name="file.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# -- what stands around a table -------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("above", "note"),
    [
        (["sep=;"], "delimiter ';'"),
        (["Judgements of November"], "1 line above"),
        (["Judgements; November"], "1 line above"),
        (["Judgements;;", ";;", "made by Ada;;"], "3 lines above"),
        (["# exported; by; a tool; yesterday", "# all rows"], "2 lines above"),
    ],
)
def test_lines_above_the_header_are_left_out_and_said(file, above, note, end):
    body = ["query;title;grade", *(";".join(row) for row in ROWS)]
    table = read(file(end.join([*above, *body, ""])))
    assert table.frame.columns == HEADER
    assert table.frame.rows() == ROWS
    assert note in table.notes[0]
    assert not table.rejected


def test_what_is_no_row_below_the_header(file):
    table = read(file(CSV.replace("\n", ",,\n") + ",,,,\nquery,title,grade,,\n,,,,\n"))
    assert table.frame.columns == HEADER
    assert table.frame.rows() == ROWS
    assert table.rejected == (Rejection(6, "the header once more"),)


@pytest.mark.parametrize(
    "line", ["red lamp,a lamp,2", "i love this film so much,no,positive", "red lamp,blue shoe of wool,positive"]
)
def test_a_file_without_a_header_is_told_so(file, line):
    first = line.split(",")
    below = [line.replace(first[1], f"text {i}") if i % 2 else f"other {i},text {i},{first[-1]}" for i in range(9)]
    with pytest.raises(PiarError, match="no header"):
        read(file("\n".join([line, *below]) + "\n"))


def test_a_file_without_a_header_is_read_under_the_names_that_are_given(file):
    rows = [f'gj{i % 3:02}\t{i % 2}\t{"*" if i % 2 else ""}\t"Words {i} of it' for i in range(30)]
    path = file("\n".join(rows) + "\n", "cola.tsv")
    with pytest.raises(PiarError, match="no header") as refused:
        read(path)
    assert "--header value_1,value_2,value_3,text_4" in refused.value.fix
    table = read(path, Reading(header=("source", "label", "mark", "sentence")))
    assert (table.frame.columns, len(table.frame)) == (["source", "label", "mark", "sentence"], 30)
    assert (table.frame.row(0), table.lines.to_list()[:2]) == (("gj00", "0", "", '"Words 0 of it'), [1, 2])
    with pytest.raises(UsageError, match="has 4 columns, and --header names 2"):
        read(path, Reading(header=("label", "sentence")))


@pytest.mark.parametrize("header", ["text,1,2,3", "How good is this answer here?,query,grade", "0,1,2"])
def test_odd_headers_are_headers(file, header):
    width = header.count(",") + 1
    rows = [",".join([f"some text {i}", *(str((i + k) % 4) for k in range(width - 1))]) for i in range(12)]
    assert len(read(file("\n".join([header, *rows]) + "\n")).frame) == 12


def test_rows_one_cell_wider_than_the_header(file):
    numbered = "query,title,grade\n1,a,b,0\n2,c,d,1\n"
    assert read(file(numbered)).frame.columns == ["column_1", *HEADER]
    ended = "query,title,grade\na,b,0,\nc,d,1,\n"
    assert read(file(ended)).frame.rows() == [("a", "b", "0"), ("c", "d", "1")]


def test_texts_with_commas_that_are_not_quoted_cost_their_rows_and_never_the_header(file):
    table = read(file("query,title,grade\nlamp,red, small,3\nlamp,blue, big,1\nchair,plain,2\n"))
    assert table.frame.columns == HEADER
    assert [r.line for r in table.rejected] == [2, 3]


def test_quotes_escaped_by_a_backslash_and_decimal_commas(file):
    assert read(file('a,b\n"say \\"hi\\", you",1\n')).frame.rows() == [('say "hi", you', "1")]
    assert read(file("query;score\nlamp;0,5\nchair;1,25\n")).frame.rows() == [("lamp", "0,5"), ("chair", "1,25")]


@pytest.mark.parametrize("header", ["Title,title,TITLE", "a,,a", '"a\nb",a b,x', "select,group by,'; drop table--"])
def test_every_header_gives_as_many_names_as_columns(file, header):
    names = read(file(f"{header}\n1,2,3\n4,5,6\n")).frame.columns
    assert len({name.lower() for name in names}) == 3
    assert not any("\n" in name for name in names)


@pytest.mark.parametrize("name", ["a?b.csv", "[a].csv", "{a,b}.csv", "md:x.csv", "a b.csv", "-x.csv", "~.csv", "*.csv"])
def test_names_are_paths_and_nothing_else(file, name, tmp_path, monkeypatch):
    file("query,title,grade\nother,file,0\n", "axb.csv")
    file(CSV, name)
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path / name).frame.rows() == ROWS
    assert read(sources.Path(name)).frame.rows() == ROWS


# -- packed ---------------------------------------------------------------------------------


def zipped(how=zipfile.ZIP_DEFLATED, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files(file, pack):
    assert read(file(pack(CSV.encode()), "file.csv.gz")).frame.rows() == ROWS
    lines = "".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in ROWS)
    assert read(file(pack(lines.encode()), "file.jsonl.gz")).frame.rows() == ROWS


def test_a_zip_with_one_table_is_read_and_with_several_one_is_named(file):
    assert read(file(zipped(**{"a.csv": CSV, "__MACOSX/._a.csv": "x"}), "a.zip")).frame.rows() == ROWS
    two = file(zipped(**{"in/a.csv": CSV, "b.csv": "x,y\n1,2\n"}), "two.zip")
    with pytest.raises(UsageError, match=r"holds 2 files: in/a\.csv, b\.csv") as error:
        read(two)
    assert error.value.fix == "Name one: --sheet in/a.csv"
    assert read(two, Reading(sheet="in/a.csv")).frame.rows() == ROWS
    assert read(two, Reading(sheet="b.csv")).frame.columns == ["x", "y"]
    with pytest.raises(UsageError, match="There is no 'c'"):
        read(two, Reading(sheet="c"))


def test_what_unpacks_to_too_much_or_not_at_all_is_said(file, monkeypatch):
    monkeypatch.setattr(sources, "MOST_BYTES", 1 << 20)
    for name, packed in (("a.gz", gzip.compress(bytes(2 << 20))), ("a.zip", zipped(a=bytes(2 << 20)))):
        with pytest.raises(PiarError, match="holds more than 1 MiB when unpacked"):
            read(file(packed, name))
    with pytest.raises(PiarError, match=r"cut\.gz cannot be unpacked"):
        read(file(gzip.compress(CSV.encode())[:40], "cut.gz"))


def test_standard_input_is_a_file(monkeypatch, capsys, tmp_path):
    rows = "query,title,grade\n" + "".join(f"query {i // 5},thing number {i},{i % 3}\n" for i in range(60))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(rows.encode()))))
    assert main(["init", str(tmp_path / "p"), "--from", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["import"]["added"] == 60
    assert main(["sql", "select distinct source from samples", "-C", str(tmp_path / "p"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [["stdin"]]


# -- JSON -----------------------------------------------------------------------------------

OBJECTS = [dict(zip(HEADER, row, strict=True)) for row in ROWS]


@pytest.mark.parametrize(
    "document",
    [
        OBJECTS,
        {name: [record[name] for record in OBJECTS] for name in HEADER},
        {name: {str(i): record[name] for i, record in enumerate(OBJECTS)} for name in HEADER},
        {"columns": HEADER, "index": [0, 1, 2], "data": [list(row) for row in ROWS]},
        {"count": 3, "items": OBJECTS},
        {"rows": [{"row_idx": i, "row": record} for i, record in enumerate(OBJECTS)]},
        [HEADER, *map(list, ROWS)],
    ],
)
@pytest.mark.parametrize("name", ["file.json", "file.txt", "file.csv"])
def test_the_shapes_of_json(file, document, name):
    table = read(file(json.dumps(document), name))
    assert table.frame.columns == HEADER
    assert table.frame.rows() == ROWS


def test_objects_by_id_keep_it_as_a_column(file):
    table = read(file(json.dumps({"k7": OBJECTS[0], "k8": OBJECTS[1]}), "file.json"))
    assert table.frame.rows() == [("k7", *ROWS[0]), ("k8", *ROWS[1])]
    assert "by id" in table.notes[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "shift_jis"])
def test_json_in_other_encodings(file, encoding):
    lines = "".join(json.dumps({"query": "赤いランプです", "n": i}, ensure_ascii=False) + "\n" for i in range(9))
    assert read(file(lines.encode(encoding), "file.jsonl")).frame["query"].to_list() == ["赤いランプです"] * 9


def test_objects_one_after_the_other_and_faults(file):
    pretty = "\n".join(json.dumps(record, indent=2) for record in OBJECTS)
    assert read(file(pretty, "file.json")).frame.rows() == ROWS
    assert (
        read(file("[" + "".join(json.dumps(record) + ",\n" for record in OBJECTS) + "]", "file.json")).frame.rows()
        == ROWS
    )
    with pytest.raises(PiarError, match=r"file\.json is not JSON that can be read: .* line 1 column"):
        read(file(json.dumps(OBJECTS)[:-9], "file.json"))
    with pytest.raises(PiarError, match="1 row of 1,000 columns: it is not understood"):
        read(file(json.dumps({f"k{i}": i for i in range(1000)}), "file.json"))


def test_long_cells_are_rejected_whatever_the_format(file, tmp_path):
    long = "x" * 2_000_000
    reason = "a cell of 2,000,000 characters (at most 1,000,000)"
    lines = file(json.dumps({"a": "b"}) + "\n" + json.dumps({"a": long}) + "\n", "file.jsonl")
    assert read(lines).rejected == (Rejection(2, reason),)
    pq.write_table(pa.table({"a": ["b", long]}), tmp_path / "file.parquet")
    assert read(tmp_path / "file.parquet").rejected == (Rejection(2, reason),)


# -- Parquet --------------------------------------------------------------------------------


def test_a_small_parquet_file_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_files, "MOST_PARQUET", 1 << 20)
    indices = pa.array([0] * 10_000, pa.int32())
    pq.write_table(
        pa.table({"a": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 500]))}), tmp_path / "a.parquet"
    )
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    with pytest.raises(PiarError, match="when unpacked"):
        read(tmp_path / "a.parquet")


# -- workbooks ------------------------------------------------------------------------------


def workbook(path, **sheets):
    with xlsxwriter.Workbook(path) as book:
        for name, fill in sheets.items():
            fill(book, book.add_worksheet(name))
    return path


def judgements(book, sheet):
    for number, row in enumerate([HEADER, *ROWS]):
        sheet.write_row(number, 0, row)


def test_a_sheet_with_a_merged_title_dates_and_formulas(tmp_path):
    def fill(book, sheet):
        sheet.merge_range("A1:D1", "Judgements of November")
        sheet.write_row("A3", ["query", "title", "grade", "when"])
        sheet.merge_range("A4:A5", "red lamp")
        sheet.write_row("B4", ["lamp", 3])
        sheet.write_row("B5", ["blue lamp", 1.5])
        sheet.write_row("A6", ["chair", "desk"])
        sheet.write_formula("C6", "=1+1", None, 2)
        sheet.write_datetime("D4", datetime.datetime(2024, 11, 2), book.add_format({"num_format": "yyyy-mm-dd"}))
        sheet.write_formula("D6", '=IF(1,"","")', None, "")

    table = read(workbook(tmp_path / "a.xlsx", one=fill, empty=lambda book, sheet: None))
    assert table.frame.columns == ["query", "title", "grade", "when"]
    assert table.frame.rows() == [
        ("red lamp", "lamp", "3", "2024-11-02"), ("red lamp", "blue lamp", "1.5", ""), ("chair", "desk", "2", "")
    ]  # fmt: skip
    assert table.lines.to_list() == [4, 5, 6]
    assert "1 line above" in " ".join(table.notes)
    assert "1 formulas were saved without a value" in " ".join(table.notes)


def test_a_header_of_two_lines_gives_each_column_both_names(tmp_path):
    def fill(book, sheet):
        sheet.merge_range("A1:B1", "Search", None)
        sheet.merge_range("C1:D1", "Raters", None)
        sheet.write_row(1, 0, ["Query", "Product", "Anna", "Ben", "Agreed"])
        sheet.write(0, 4, "Final")
        for i in range(6):
            sheet.write_row(2 + i, 0, [f"lamp {i}", f"a lamp {i}", "good", "bad", "good"])

    frame = read(workbook(tmp_path / "a.xlsx", one=fill)).frame
    assert frame.columns == ["Search Query", "Search Product", "Raters Anna", "Raters Ben", "Agreed"]
    assert frame.row(0) == ("lamp 0", "a lamp 0", "good", "bad", "good")


def test_of_several_sheets_one_is_named(tmp_path, capsys):
    path = workbook(tmp_path / "a.xlsx", **{"my rows": judgements, "old": judgements})
    assert main(["look", str(path)]) == 2
    assert "--sheet 'my rows'" in capsys.readouterr().err
    assert read(path, Reading(sheet="old")).frame.rows() == ROWS
    with pytest.raises(UsageError, match="no sheet 'new'; it has 'my rows', 'old'"):
        read(path, Reading(sheet="new"))


def test_an_opendocument_sheet(tmp_path):
    cells = "".join(
        "<table:table-row>"
        + "".join(f'<table:table-cell office:value-type="string"><text:p>{c}</text:p></table:table-cell>' for c in row)
        + "</table:table-row>"
        for row in [HEADER, *ROWS]
    )
    space = "urn:oasis:names:tc:opendocument:xmlns:"
    content = (
        f'<office:document-content xmlns:office="{space}office:1.0" xmlns:table="{space}table:1.0" '
        f'xmlns:text="{space}text:1.0"><office:body><office:spreadsheet><table:table table:name="one">{cells}'
        "</table:table></office:spreadsheet></office:body></office:document-content>"
    )
    data = zipped(
        zipfile.ZIP_STORED,
        **{
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "content.xml": content,
            "META-INF/manifest.xml": f'<manifest:manifest xmlns:manifest="{space}manifest:1.0"/>',
        },
    )
    (tmp_path / "a.ods").write_bytes(data)
    assert read(tmp_path / "a.ods").frame.rows() == ROWS


def test_workbooks_that_cannot_be_read(file, tmp_path):
    def far(book, sheet):
        judgements(book, sheet)
        sheet.write("XFD1048576", "x")

    with pytest.raises(PiarError, match="a cell so far out"):
        read(workbook(tmp_path / "far.xlsx", one=far))
    with pytest.raises(PiarError, match="not a workbook that can be read"):
        read(file(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old.xls"))
    with pytest.raises(PiarError, match="has no rows"):
        read(workbook(tmp_path / "none.xlsx", one=lambda book, sheet: None))


@pytest.mark.parametrize("features", [[1], {"label": {"_type": "ClassLabel", "names": 3}}, "x"])
def test_classes_that_a_schema_says_badly_are_passed_over(tmp_path, features):
    said = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata(said)
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").frame["label"].to_list() == ["0", "1"]


def test_lists_within_lists_without_end_are_no_graded_things(tmp_path):
    pq.write_table(pa.table({"query": ["red lamp"], "results": ['[{"a":' * 100_000]}), tmp_path / "deep.parquet")
    assert read(tmp_path / "deep.parquet").frame.height == 1
