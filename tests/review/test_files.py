"""Answers that come back by file: Label Studio's exports and sheets, as people and programs save them."""

import csv
import io
import json
from xml.etree import ElementTree as ET

import polars as pl
import pytest

from piar.review.batch import Batch
from piar.review.files import export_batch, import_batch
from piar.review.push_pull import pull, push
from piar.review.sheets import sheet_text
from store.errors import PiarError, UsageError
from tests.review_world import (
    ANNOTATORS,
    HOSTILE,
    INSTRUCTION,
    SETTINGS,
    TASK,
    Desk,
    batch_of,
    result,
    review_store,
    taught,
)


@pytest.fixture
def world(tmp_path):
    return review_store(tmp_path)


def test_a_sheet_goes_out_and_comes_back(tmp_path):
    store, truth = review_store(tmp_path, rows=40, texts=HOSTILE)
    batch = batch_of(store)
    paths = export_batch(store, batch, INSTRUCTION, tmp_path / "w47.csv")
    assert [p.name for p in paths] == ["w47-ann.csv", "w47-bob.csv", "w47.md"]
    assert export_batch(store, batch, INSTRUCTION, tmp_path / "w47.csv") == paths  # untouched, so written again
    guide = paths[-1].read_text(encoding="utf-8")
    assert all(words in guide for words in ("`3` perfect: Exactly it.", "`R02` → 1: Accessories.", "`ambiguous`"))
    assert '→ 3: When $the title <names> it & more.\n    - avoid when: the "query" asks <b>more</b>\n' in guide
    assert "gold_is_wrong" not in guide
    with paths[0].open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(not row["title"].startswith("=") for row in rows)
    for row in rows[:-1]:
        row |= {"grade": truth[row["sample_key"]], "comment": "by hand"}
    rows[-1]["grade"] = "excellent"
    rows[0]["grade"] = {"0": "poor", "1": "FAIR", "2": "2.0", "3": " 3 "}[rows[0]["grade"]]
    with paths[0].open("w", encoding="utf-8", newline="") as file:
        sheet = csv.DictWriter(file, rows[0].keys())
        sheet.writeheader()
        sheet.writerows(rows)
    filled = paths[0].read_bytes()
    with pytest.raises(PiarError, match="perhaps answers"):
        export_batch(store, batch, INSTRUCTION, tmp_path / "w47.csv")
    assert paths[0].read_bytes() == filled
    report = import_batch(store, batch, paths[0], "", "r1")
    assert report.pulled == len(rows) - 1
    assert report.odd == {"unknown grade 'excellent'": 1}
    assert import_batch(store, batch, paths[0], "", "r2").pulled == 0


def test_a_sheet_to_settle_shows_all_opinions_and_may_come_back_with_semicolons(tmp_path):
    store, truth = review_store(tmp_path, rows=40)
    taught(store)
    desk, batch = Desk(), batch_of(store, settings=SETTINGS.model_copy(update={"overlap": 1.0, "random": 1.0}))
    push(store, desk, batch, INSTRUCTION)
    desk.annotate(batch, truth, {ANNOTATORS[0]: 1.0, ANNOTATORS[1]: 0.2})
    pull(store, desk, batch, "r1")
    settle = batch_of(store, "settle", adjudicate="w47")
    path = export_batch(store, settle, INSTRUCTION, tmp_path / "settle.csv")[0]
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all("bob@example.com" in row["said"] and "teacher:m" in row["said"] for row in rows)
    for row in rows:
        row |= {"grade": truth[row["sample_key"]], "doubts": "gold_is_wrong, ambiguous"}
    with path.open("w", encoding="utf-8", newline="") as file:
        sheet = csv.DictWriter(file, rows[0].keys(), delimiter=";")
        sheet.writeheader()
        sheet.writerows(rows)
    assert import_batch(store, settle, path, "", "r2").pulled == len(rows)
    kept = store.frame("select blind, flags from label where batch = 'settle'")
    assert not kept["blind"].any()
    assert kept["flags"].to_list() == [["gold_is_wrong", "ambiguous"]] * len(rows)


def test_json_files_go_out_and_come_back(tmp_path):
    store, truth = review_store(tmp_path, rows=40)
    batch = batch_of(store)
    *files, config = export_batch(store, batch, INSTRUCTION, tmp_path / "w47.json")
    ET.parse(config)
    tasks = json.loads(files[0].read_text())
    for task in tasks:
        task["annotations"] = [{"completed_by": 5, "result": result(truth[task["data"]["sample_key"]])}]
    files[0].write_text(json.dumps(tasks))
    report = import_batch(store, batch, files[0], ANNOTATORS[0], "r1")
    assert report.pulled == len(tasks)
    assert report.odd == {}


@pytest.mark.parametrize("text", ["", "{", "3", "{}", "[1, 2", "\ufeff"])
def test_a_broken_file_is_explained(world, tmp_path, text):
    path = tmp_path / "back.json"
    path.write_text(text)
    with pytest.raises(PiarError, match="cannot be read"):
        import_batch(world[0], batch_of(world[0]), path, "", "r")


def answered(key, who, grade="1", **more):
    """A task as Label Studio exports it, with one answer."""
    return {"data": {"sample_key": key}, "annotations": [{"completed_by": who, "result": result(grade), **more}]}


def people_of(store):
    return sorted(store.frame("select annotator, count(*) as n from label where batch = 'w47' group by all").rows())


def test_answers_of_several_people_in_one_file_are_never_taken_for_one(tmp_path):
    store, _ = review_store(tmp_path, rows=40)
    batch, path = batch_of(store), tmp_path / "all.json"
    key = batch.assignments[0].sample_id
    path.write_text(json.dumps([answered(key, 1, "0"), answered(key, {"id": 2}, "3")]))
    for told in ("", ANNOTATORS[0]):
        with pytest.raises(PiarError, match=r"by numbers \(1, 2\)") as refused:
            import_batch(store, batch, path, told, "r")
    assert "--annotator 1=ann@example.com,2=bob@example.com" in refused.value.fix
    assert import_batch(store, batch, path, "1=ann@example.com,2=bob@example.com", "r").pulled == 2
    assert people_of(store) == [(ANNOTATORS[0], 1), (ANNOTATORS[1], 1)]
    path.write_text(
        json.dumps([answered(key, "Eve@example.com"), answered(key, {"id": 2, "email": "ANN@example.com"})])
    )
    told = import_batch(store, batch, path, "", "r")
    assert told.odd == {"answer of Eve@example.com, to whom batch w47 was not given": 1}
    assert people_of(store)[0] == ("Eve@example.com", 1)
    path.write_text(json.dumps([answered(key, None)]))
    with pytest.raises(PiarError, match="does not say who answered"):
        import_batch(store, batch, path, "", "r")


def test_label_studios_flat_export_comes_back_with_doubts_and_dates(tmp_path):
    store, _ = review_store(tmp_path, rows=40)
    batch, path = batch_of(store), tmp_path / "min.json"
    row = {"sample_key": batch.assignments[0].sample_id, "annotation_id": 1, "annotator": 7, "grade": "2",
           "doubt": {"choices": ["ambiguous", "rule_unclear"]}, "lead_time": 3.5,
           "updated_at": "2026-11-20T10:00:00Z"}  # fmt: skip
    earlier = {**row, "annotation_id": 2, "grade": "0", "updated_at": "2026-11-19T10:00:00Z"}
    path.write_text(json.dumps([row, earlier]))
    assert import_batch(store, batch, path, ANNOTATORS[0], "r").pulled == 1
    kept = store.frame("select annotator, flags, seconds, created_at::varchar from label where batch = 'w47'").row(0)
    assert kept == (ANNOTATORS[0], ["ambiguous", "rule_unclear"], 3.5, "2026-11-20 10:00:00")


def test_an_answer_without_a_grade_says_why(tmp_path):
    store, _ = review_store(tmp_path, rows=40)
    batch, path = batch_of(store), tmp_path / "all.json"
    key = batch.assignments[0].sample_id
    renamed = {"from_name": "relevance", "type": "choices", "value": {"choices": ["1"]}}
    two = {"from_name": "grade", "type": "choices", "value": {"choices": ["1", "2"]}}
    tasks = [answered(key, ANNOTATORS[0], result=[item]) for item in (renamed, two)]
    path.write_text(json.dumps([*tasks, answered(key, ANNOTATORS[0], "7")]))
    report = import_batch(store, batch, path, "", "r")
    assert report.pulled == 0
    assert set(report.odd) == {
        "answer without a grade, but with 'relevance': was the page changed?",
        "answer with several grades or an unknown one: '1', '2'",
        "answer with several grades or an unknown one: '7'",
    }


def test_a_file_of_another_kind_is_refused(world, tmp_path):
    with pytest.raises(UsageError, match="neither"):
        export_batch(world[0], batch_of(world[0]), INSTRUCTION, tmp_path / "w47.xlsx")


def test_a_sheet_says_itself_who_filled_it_in(tmp_path):
    store, _ = review_store(tmp_path, rows=10)
    people = ("@ann", "bob@example.com")  # the first one's name looks like a formula
    batch = batch_of(store, settings=SETTINGS.model_copy(update={"annotators": people}))
    paths = export_batch(store, batch, INSTRUCTION, tmp_path / "w.csv")
    for path in paths[:2]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row | {"grade": "1"} for row in csv.DictReader(file)]
        with path.open("w", encoding="utf-8", newline="") as file:
            sheet = csv.DictWriter(file, rows[0].keys())
            sheet.writeheader()
            sheet.writerows(rows)
        import_batch(store, batch, path, "somebody else", "r")
    assert set(store.frame("select annotator from label where batch = 'w47'")["annotator"]) == set(people)


def filled(store, batch, folder):
    """One person's sheet, as it went out, with answers: names of its columns, and rows."""
    path = export_batch(store, batch, INSTRUCTION, folder / "w47.csv")[0]
    with path.open(encoding="utf-8-sig", newline="") as file:
        names, *rows = csv.reader(file)
    grade, comment = names.index("grade"), names.index("comment")
    for number, row in enumerate(rows):
        row[grade], row[comment] = "0123"[number % 4], f"Größe, {number}"
    return names, rows


def as_text(rows, delimiter=","):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def workbook(table, path):
    frame = pl.DataFrame(table[1:], schema=table[0], orient="row").with_columns(pl.col("grade").cast(pl.Int64))
    frame.write_excel(path)


SAVED = {
    "semicolons, as sep= says": lambda t, p: p.write_text("sep=;\r\n" + as_text(t, ";"), encoding="utf-8-sig"),
    "Unicode text": lambda t, p: p.write_bytes(as_text(t, "\t").encode("utf-16")),
    "the code page of Windows": lambda t, p: p.write_bytes(as_text(t, ";").encode("cp1252")),
    "numbers with decimals": lambda t, p: p.write_text(
        as_text([t[0], *([c + ".0" if i == t[0].index("grade") else c for i, c in enumerate(r)] for r in t[1:])])
    ),
    "blank rows and columns at the end": lambda t, p: p.write_text(
        as_text([[*row, "", ""] for row in t] + [[""] * (len(t[0]) + 2)] * 3)
    ),
    "a merged title above": lambda t, p: p.write_text(
        as_text([["Batch w47", *[""] * (len(t[0]) - 1)], [""] * len(t[0]), *t])
    ),
    "columns in another order and case": lambda t, p: p.write_text(
        as_text([[n.replace("_", " ").title() for n in t[0][::-1]], *(row[::-1] for row in t[1:])])
    ),
    "rows sorted, some twice": lambda t, p: p.write_text(as_text([t[0], *sorted([*t[1:], *t[1:4]])])),
    "a workbook": workbook,
}


@pytest.mark.parametrize("way", SAVED)
def test_a_sheet_is_read_as_any_program_saved_it(tmp_path, way):
    store, _ = review_store(tmp_path, rows=40)
    batch = batch_of(store)
    names, rows = filled(store, batch, tmp_path)
    path = tmp_path / ("back.xlsx" if way == "a workbook" else "back.csv")
    SAVED[way]([names, *rows], path)
    report = import_batch(store, batch, path, "", "r")
    assert (report.pulled, report.odd) == (len(rows), {})
    kept = store.frame("select sample_id, annotator, grade, comment from label where batch = 'w47'").rows()
    place = [names.index(name) for name in ("sample_key", "annotator", "grade", "comment")]
    assert sorted(kept) == sorted(tuple(row[i] for i in place) for row in rows)


def test_a_row_with_two_different_answers_counts_as_none_and_a_sheet_without_keys_says_what_it_has(tmp_path):
    store, _ = review_store(tmp_path, rows=40)
    batch = batch_of(store)
    names, rows = filled(store, batch, tmp_path)
    grade = names.index("grade")
    again = [*rows[0][:grade], "3" if rows[0][grade] != "3" else "0", *rows[0][grade + 1 :]]
    path = tmp_path / "back.csv"
    path.write_text(as_text([names, *rows, again]))
    report = import_batch(store, batch, path, "", "r")
    assert (report.pulled, report.odd) == (len(rows) - 1, {"row that is there twice with different answers": 1})
    path.write_text(as_text([["id", "title", "grade"], ["1", "a", "2"]]))
    with pytest.raises(PiarError, match=r"no column sample_key \(it has id, title, grade\)"):
        import_batch(store, batch, path, "", "r")
    path.write_text(as_text([[*names, "Grade"], *([*row, "3"] for row in rows)]))
    with pytest.raises(PiarError, match="two columns for grade: 'grade' and 'Grade_2'"):
        import_batch(store, batch, path, "", "r")


def written(path, names, rows):
    path.write_text(as_text([names, *rows]))
    return path


def test_who_answered_is_known_by_any_writing_of_their_name_and_otherwise_asked(tmp_path):
    store, _ = review_store(tmp_path, rows=40)
    batch = batch_of(store)
    names, rows = filled(store, batch, tmp_path)
    who = names.index("annotator")
    cells = [[*row[:who], ("Ann", "ANN@example.com")[i % 2], *row[who + 1 :]] for i, row in enumerate(rows)]
    assert import_batch(store, batch, written(tmp_path / "a.csv", names, cells), "", "r").annotators == {
        "ann@example.com": len(rows)
    }
    without = [[*row[:who], *row[who + 1 :]] for row in rows]
    path = written(tmp_path / "b.csv", [*names[:who], *names[who + 1 :]], without)
    with pytest.raises(PiarError, match="does not say who answered"):
        import_batch(store, batch, path, "", "r")


def test_a_sheet_sorted_in_part_gives_no_grade_to_another_row(tmp_path):
    store, _ = review_store(tmp_path, rows=40)
    batch = batch_of(store)
    names, rows = filled(store, batch, tmp_path)
    keys = sorted(row[0] for row in rows)
    moved = sum(row[0] != key for row, key in zip(rows, keys, strict=True))
    path = written(tmp_path / "a.csv", names, [[key, *row[1:]] for row, key in zip(rows, keys, strict=True)])
    report = import_batch(store, batch, path, "", "r")
    assert report.pulled == len(rows) - moved
    assert report.odd == {"row with a sample_key and the text of another row (sorted in part?)": moved}
    title = names.index("title")
    mended = [[*row[:title], f"{row[title]} (spelling mended)", *row[title + 1 :]] for row in rows]
    assert import_batch(store, batch, written(tmp_path / "b.csv", names, mended), "", "r").odd == {}


def test_a_sheet_of_another_batch_or_project_is_refused_with_its_name(tmp_path):
    store, _ = review_store(tmp_path, rows=40)
    batch = batch_of(store)
    names, rows = filled(store, batch, tmp_path)
    again = batch_of(store, "again", relabel=[row[0] for row in rows])
    path = written(tmp_path / "a.csv", names, rows)
    with pytest.raises(PiarError, match="is a sheet of batch w47, not of again") as refused:
        import_batch(store, again, path, "", "r")
    assert refused.value.fix == "Add --batch w47."
    bare = written(tmp_path / "b.csv", [names[0], *names[2:]], [[row[0], *row[2:]] for row in rows])  # as older ones
    assert import_batch(store, batch, bare, "", "r").pulled == len(rows)
    foreign = written(tmp_path / "c.csv", names, [["0000", *row[1:]] for row in rows])
    with pytest.raises(PiarError, match=r"No row of c\.csv is in a batch of this project"):
        import_batch(store, batch, foreign, "", "r")


def test_doubts_and_rules_are_read_as_people_write_them_and_an_emptied_row_is_told(tmp_path):
    store, _ = review_store(tmp_path, rows=40)
    batch = batch_of(store)
    names, rows = filled(store, batch, tmp_path)
    row, (rule, doubts) = rows[0], map(names.index, ("rule", "doubts"))
    row[rule], row[doubts] = "r02: Accessories", "A rule is unclear; AMBIGUOUS, tired"
    report = import_batch(store, batch, written(tmp_path / "a.csv", names, [row]), "", "r")
    assert report.odd == {"unknown doubt 'tired'": 1}
    assert store.frame("select rule, flags from label where batch = 'w47'").row(0) == (
        "R02",
        ["rule_unclear", "ambiguous"],
    )
    empty = [*row[: names.index("grade")], *[""] * (len(row) - names.index("grade"))]
    report = import_batch(store, batch, written(tmp_path / "b.csv", names, [empty]), "", "r")
    assert report.odd == {"empty row that was answered before: that answer stands": 1}


def test_fields_called_like_columns_of_ours_have_columns_of_their_own(tmp_path):
    task = TASK.model_copy(update={"fields": ("comment", "grade"), "group_by": "comment"})
    batch = Batch("w47", (), fresh=True)
    data = {"sample_key": "k", "f_comment": "you are late", "f_grade": "A"}
    names, row = csv.reader(io.StringIO(sheet_text([{"data": data}], task, batch, "ann").decode("utf-8-sig")))
    assert len(set(names)) == len(names)
    assert dict(zip(names, row, strict=True)) == {
        "sample_key": "k", "batch": "w47", "annotator": "ann", "f_comment": "you are late", "f_grade": "A",
        "grade": "", "rule": "", "doubts": "", "comment": "",
    }  # fmt: skip
