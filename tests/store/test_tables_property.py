"""What `init` says that it read is what is in the store, whatever the file looks like."""

import csv
import io
import json
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from piar.project.facade import Project
from store.importers import ImportMapping
from store.readers import Reading

LETTERS = {
    "utf-8": "abc éßñ ё 赤 ن 😀",
    "utf-8-sig": "abc é 赤",
    "utf-16": "abc ё 한",
    "cp1252": "abc éßü €",
    "shift_jis": "abc 赤いラ",
    "koi8_r": "abc ёжик",
}
MAPPING = ImportMapping(gold="grade", group="query", fields={"query": "query", "title": "title"})
READ = {"query", "title", "grade"}


@st.composite
def tables(draw):
    """(encoding, delimiter, line end, lines above, header, rows): columns in any order, some of them strangers."""
    encoding = draw(st.sampled_from(sorted(LETTERS)))
    delimiter = draw(st.sampled_from(",;\t|"))
    text = st.text(LETTERS[encoding] + ',;|"', min_size=1, max_size=12)
    rows = draw(st.lists(st.tuples(text, text, st.sampled_from(["0", "1", "2", ""])), min_size=6, max_size=25))
    rows += draw(st.lists(st.sampled_from(rows), max_size=4))  # repeats
    extra = draw(st.lists(st.sampled_from(["note", "Query Text", "select", ""]), max_size=2, unique=True))
    order = draw(st.permutations([*sorted(READ), *extra]))
    above = draw(st.sampled_from([[], ["Judgements of November"], ["# made by hand", "# twice"]]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    blanks = draw(st.booleans())
    return encoding, delimiter, end, above, order, rows, blanks


def written(encoding, delimiter, end, above, order, rows, blanks):
    out = io.StringIO(newline="")
    out.write("".join(line + end for line in above))
    sheet = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    sheet.writerow(order)
    for query, title, grade in rows:
        cells = {"query": query, "title": title, "grade": grade}
        sheet.writerow([cells.get(name, f"{query} {name}") for name in order])
        if blanks:
            out.write(end)
    return out.getvalue().encode(encoding)


def expected(rows):
    """Rows that may enter, as they will stand in the store: one with a group."""
    cleaned = [(query.strip(), title.strip(), grade) for query, title, grade in rows]
    return [row for row in cleaned if row[0]]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables())
def test_what_init_says_is_what_is_in_the_store(table):
    encoding, *_, rows, _ = table
    rows[:2] = [("first", "one", "0"), ("second", "two", "1")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.csv"
        path.write_bytes(written(*table))
        project = Project.init(Path(folder) / "p", from_=path, mapping=MAPPING, reading=Reading(encoding=encoding))
        said = project.imported.report
        sizes = "select (select count(*) from samples), (select count(*) from labels), (select count(*) from label)"
        [(samples, labels, votes)] = project.sql(sizes).rows()
        kept = expected(rows)
        texts = Counter(project.sql("select query, title from samples").rows())
        assert texts == Counter({row[:2]: 1 for row in kept})
        assert said.read == len(rows)
        assert said.read == said.added + said.repeats + len(said.rejected)
        assert (said.added, said.known, said.labels) == (samples, 0, labels)
        assert sum(said.splits.values()) == samples
        assert votes <= labels
        grades = project.sql("select query, title, grade from truth join samples using (sample_id)").rows()
        given = {(*row[:2], row[2]) for row in kept if row[2]}
        assert set(grades) <= given
        assert {row[:2] for row in grades} == {row[:2] for row in given}


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.fixed_dictionaries({name: st.text(max_size=8) for name in sorted(READ)}), min_size=1, max_size=9))
def test_json_and_json_lines_hold_the_same_table(rows):
    from store.readers import read

    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        frames = []
        for name, text in (("a.json", json.dumps(rows)), ("a.jsonl", lines)):
            (Path(folder) / name).write_bytes(text.encode())
            frames.append(read(Path(folder) / name).frame.rows(named=True))
        assert frames[0] == frames[1] == rows
