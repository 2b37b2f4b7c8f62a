import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from piar.judging.parquet_files import Pool, score_files
from piar.judging.session import Respondent
from piar.judging.settings import LabelSettings
from piar.llm.cost import Budget
from store.calibration import Calibration
from store.errors import PiarError, UsageError
from tests.judging.test_label import INSTRUCTION, TASK, Scripted


def pool_file(path, count, **columns):
    table = {"query": [f"q{i // 3}" for i in range(count)], "title": [f"t{i}" for i in range(count)]}
    pq.write_table(pa.table({"row": list(range(count)), **table, **columns}), path, row_group_size=7)
    return path


def grade(fields):
    return str(int(fields["title"][1:] or 0) % 2)


def pool(client, **more):
    return Pool(TASK, Respondent(client, label=LabelSettings(chunk=5)), INSTRUCTION, **({"slice_rows": 10} | more))


def test_rows_come_out_in_order_with_their_own_columns(tmp_path):
    source, target, shown = pool_file(tmp_path / "in.parquet", 33), tmp_path / "out.parquet", []
    report = pool(Scripted(grade)).label(source, target, lambda now: shown.append((now.done, now.total)))
    rows = pq.read_table(target).to_pydict()
    assert rows["row"] == list(range(33))
    assert rows["piar_grade"] == [str(i % 2) for i in range(33)]
    assert rows["piar_probs"][0] == pytest.approx([0.25, 0.75])
    assert (report.rows, report.labelled, report.asked) == (33, 33, 33)
    assert [s for s in dict.fromkeys(shown) if s[0] in (10, 20, 30, 33)] == [(10, 33), (20, 33), (30, 33), (33, 33)]
    assert shown == sorted(shown)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_a_calibrated_teacher_grades_files_with_its_calibration(tmp_path):
    source, plain, better = pool_file(tmp_path / "in.parquet", 6), tmp_path / "a.parquet", tmp_path / "b.parquet"
    leans = Calibration(strategy="bias", temperature=2.0, bias=(5.0, 0.0))
    pool(Scripted(grade)).label(source, plain)
    pool(Scripted(grade), calibration=leans).label(source, better)
    raw, found = (pq.read_table(path).to_pydict() for path in (plain, better))
    assert found["piar_grade"] == ["0"] * 6
    assert found["piar_probs"] == [pytest.approx(row, abs=1e-5) for row in leans.apply(raw["piar_probs"]).tolist()]


def test_what_was_cut_short_goes_on_where_it_was(tmp_path):
    source, target = pool_file(tmp_path / "in.parquet", 40), tmp_path / "out.parquet"

    def dies(fields):
        if fields["title"] == "t27":
            raise KeyboardInterrupt
        return grade(fields)

    with pytest.raises(KeyboardInterrupt):
        pool(Scripted(dies)).label(source, target)
    assert not target.exists()
    report = pool(Scripted(grade)).label(source, target)
    assert report.asked == 40 - 27
    assert pq.read_table(target)["piar_grade"].to_pylist() == [str(i % 2) for i in range(40)]
    assert pool(Scripted(grade)).label(source, target).skipped == 1


def test_repeats_missing_values_and_failures_each_have_their_row(tmp_path):
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"query": ["a", "a", None], "title": ["t1", "t1", "t2"]}), source)
    client = Scripted(lambda fields: "1" if fields["query"] else "no idea")
    report = pool(client).label(source, target)
    rows = pq.read_table(target).to_pydict()
    assert rows["piar_grade"] == ["1", "1", None]
    assert rows["piar_failure"] == [None, None, "malformed"]
    assert len(client.asked) == 2
    assert report.failed == {"malformed": 1}


def test_a_spent_budget_writes_nothing_and_loses_nothing(tmp_path):
    source, target = pool_file(tmp_path / "in.parquet", 20), tmp_path / "out.parquet"
    with pytest.raises(PiarError, match="budget"):
        pool(Scripted(grade), budget=Budget(max_calls=8)).label(source, target)
    assert not target.exists()
    assert pool(Scripted(grade)).label(source, target).asked == 12


@pytest.mark.parametrize(
    ("columns", "words"), [({"title": None}, "no column 'title'"), ({"piar_grade": []}, "already")]
)
def test_files_that_do_not_fit_are_explained(tmp_path, columns, words):
    table = {"query": ["a"], "title": ["b"], **{k: (v and ["x"]) or ["x"] for k, v in columns.items()}}
    table = {k: v for k, v in table.items() if columns.get(k, 0) is not None}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    with pytest.raises(UsageError, match=words):
        pool(Scripted()).label(tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_what_is_no_parquet_is_explained(tmp_path):
    (tmp_path / "in.parquet").write_text("a,b")
    with pytest.raises(UsageError, match="Parquet"):
        pool(Scripted()).label(tmp_path / "in.parquet", tmp_path / "out.parquet")


def taught(tmp_path):
    """A student of random weights in a folder."""
    from tests.shards_fixture import TASK as SHOP
    from trainers.checkpoint import StudentCard, save
    from trainers.tiny import tiny_model, tiny_tokenizer

    words = tiny_tokenizer(["red lamp"], SHOP.symbols, 300)
    lm = tiny_model(len(words), hidden=64, layers=1)
    return save(tmp_path / "student", lm, words, StudentCard(task=SHOP))


@pytest.mark.exact
def test_a_student_grades_files_file_by_file(tmp_path):
    from trainers.scoring import Student

    student, out = Student.load(taught(tmp_path)), tmp_path / "out"
    files = [pool_file(tmp_path / f"{name}.parquet", 25) for name in "cab"]
    first = score_files(student, files, out, name="student:s", slice_rows=10, shard=(0, 2))
    assert (first.files, first.rows, first.skipped) == (2, 50, 0)
    assert sorted(path.name for path in out.iterdir()) == ["a.parquet", "c.parquet"]
    kept = (out / "a.parquet").stat().st_mtime_ns
    rest = score_files(student, files, out, name="student:s", slice_rows=10)
    assert (rest.files, rest.rows, rest.skipped) == (3, 25, 2)
    assert (out / "a.parquet").stat().st_mtime_ns == kept
    rows = pq.read_table(out / "b.parquet").to_pydict()
    assert rows["row"] == list(range(25))
    said = student.score([{"query": q, "title": t} for q, t in zip(rows["query"], rows["title"], strict=True)])
    assert rows["piar_grade"] == [one.grade for one in said]
    assert rows["piar_expected"] == pytest.approx([one.expected for one in said], abs=1e-5)
    assert rows["piar_evidence"] == [None] * 25


def test_a_students_file_that_was_cut_short_is_graded_again(tmp_path):
    from trainers.scoring import Student

    student, out = Student.load(taught(tmp_path)), tmp_path / "out"
    files = [pool_file(tmp_path / "a.parquet", 25)]

    def stops(progress):
        assert progress.total in (None, 25)
        if progress.done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_files(student, files, out, name="student:s", slice_rows=10, on_progress=stops)
    assert list(out.iterdir()) == []
    assert score_files(student, files, out, name="student:s", slice_rows=10, trace=True).rows == 25


def test_grades_of_another_judge_or_file_are_not_taken_for_its_own(tmp_path):
    from trainers.scoring import Student

    student, out, source = Student.load(taught(tmp_path)), tmp_path / "out", pool_file(tmp_path / "a.parquet", 3)

    def again(fingerprint="one", **more):
        return score_files(student, [source], out, name="student:s", fingerprint=fingerprint, **more).skipped

    assert (again(), again()) == (0, 1)
    for other in ({"fingerprint": "two"}, {"trace": True}):
        with pytest.raises(PiarError, match="another judge"):
            again(**other)
    pool_file(source, 4)
    with pytest.raises(PiarError, match=r"of another .*a\.parquet"):
        again()
    assert pq.read_table(out / "a.parquet")["row"].to_pylist() == [0, 1, 2]


def test_a_teachers_labels_are_known_by_its_instruction_and_votes(tmp_path):
    source, target = pool_file(tmp_path / "in.parquet", 3), tmp_path / "out.parquet"
    pool(Scripted(grade)).label(source, target)
    more = Respondent(Scripted(grade), label=LabelSettings(chunk=5, votes=3))
    for other in (
        Pool(TASK, more, INSTRUCTION),
        pool(Scripted(grade), calibration=Calibration(strategy="temperature")),
    ):
        with pytest.raises(PiarError, match="another judge"):
            other.label(source, target)


@pytest.mark.parametrize("metadata", [None, {b"piar": b"{"}])
def test_an_output_without_a_mark_is_left_as_it_is(tmp_path, metadata):
    source, target = pool_file(tmp_path / "in.parquet", 3), tmp_path / "out.parquet"
    pool(Scripted(grade)).label(source, target)
    pq.write_table(pq.read_table(target).replace_schema_metadata(metadata), target)  # as an earlier version wrote it
    assert pool(Scripted(grade), calibration=Calibration(strategy="temperature")).label(source, target).skipped == 1


def test_shares_and_names_that_make_no_sense_are_explained(tmp_path):
    from trainers.scoring import Student

    student = Student.load(taught(tmp_path))
    twins = [pool_file(tmp_path / "a.parquet", 3), tmp_path / "other" / "a.parquet"]
    with pytest.raises(UsageError, match=r"Two files are called a\.parquet"):
        score_files(student, twins, tmp_path / "out", name="student:s")
    with pytest.raises(UsageError, match="no share 2/2"):
        score_files(student, twins[:1], tmp_path / "out", name="student:s", shard=(2, 2))
