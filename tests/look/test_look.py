"""`piar look` on real data, on planted findings and on files of every shape."""

import json

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from piar.look import look, render
from store.errors import PiarError, UsageError
from tests.data import shared

KEYS = {"rows", "groups", "grades", "agreement", "suspects", "repeats", "detectable", "baselines", "columns", "sampled"}


def shown(report, width=100):
    console = Console(width=width, file=None, force_terminal=False, record=True, quiet=False)
    with console.capture() as capture:
        console.print(render(report))
    return capture.get()


@pytest.fixture(scope="module")
def chorus():
    return look(shared("chorus/chorus.csv"), gold="grade", raters="rater_*", group="query")


def test_chorus_figures(chorus):
    assert (chorus.rows, chorus.groups) == (3188, 135)
    assert [g.n for g in chorus.grades] == [1471, 198, 93, 1426]
    assert chorus.agreement.alpha.value == pytest.approx(0.6426, abs=1e-4)
    assert chorus.agreement.all_agree == pytest.approx(0.7146, abs=1e-4)
    assert (chorus.suspects.contradicts, chorus.suspects.unanimous) == (262, 92)
    assert [b.group for b in chorus.suspects.blocks[:4]] == ["camera", "projector", "desk", "digital camera"]
    assert (chorus.suspects.shifts[0].majority, chorus.suspects.shifts[0].gold) == ("0", "1")
    assert chorus.suspects.unwritten_rule
    assert (chorus.repeats.rows, chorus.repeats.conflicting) == (304, 8)
    assert [round(r.against_gold, 2) for r in chorus.agreement.raters] == [0.86, 0.83, 0.82]
    assert chorus.baselines[0].accuracy.value == pytest.approx(1471 / 3188)


def test_chorus_baselines_by_query_and_the_leak_of_a_split_by_rows(chorus):
    tfidf = chorus.baselines[1]
    assert 0.4 < tfidf.accuracy.low < tfidf.accuracy.value < 0.6
    assert tfidf.by_row > 0.8
    assert 0.5 < chorus.baselines[2].accuracy.value < 0.68


def test_chorus_power_is_by_query(chorus):
    found = chorus.detectable
    assert found.groups == 40
    assert found.basis == "measured"
    assert 0.04 < found.low < found.high < 0.2
    assert found.layout_high < 0.6 * found.high


@pytest.mark.parametrize("width", [80, 120])
def test_the_whole_fits_one_screen(chorus, width):
    lines = shown(chorus, width).splitlines()
    assert len(lines) <= 28
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for part in (
        "3,188 rows · 135 queries",
        "nothing written",
        "an unwritten rule?",
        "piar init DIR --from chorus.csv",
    ):
        assert part in text


def test_the_report_is_json_with_its_stable_keys(chorus):
    document = chorus.model_dump(mode="json")
    assert document.keys() >= KEYS
    json.dumps(document, allow_nan=False)


def write(path, rows, header="query,title,grade"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def products(n=240, queries=24, grades=3, seed=0):
    rng = np.random.default_rng(seed)
    return [(f"red shoe {i % queries:02d} kind", f"nice thing number {i}", rng.integers(grades)) for i in range(n)]


def test_columns_are_guessed_and_the_guess_is_shown(tmp_path):
    report = look(write(tmp_path / "f.csv", products()))
    assert (report.columns.gold, report.columns.group, report.columns.fields) == ("grade", "query", ["query", "title"])
    assert "guessed" in shown(report)
    said = look(tmp_path / "f.csv", gold="grade", group="query", fields=["query", "title"])
    assert "guessed" not in shown(said)


def test_the_same_file_and_seed_give_the_same_report(tmp_path):
    path = write(tmp_path / "f.csv", products(900, 90))
    assert look(path, sample=300, seed=4) == look(path, sample=300, seed=4)


def test_looking_writes_nothing(tmp_path):
    path = write(tmp_path / "f.csv", products())
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    look(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_odd_rater_is_named_and_none_where_all_are_alike(tmp_path):
    rng = np.random.default_rng(3)

    def votes(noise):
        truth = rng.integers(0, 3, 900)
        table = [np.where(rng.random(900) < n, rng.integers(0, 3, 900), truth) for n in noise]
        return [(f"red shoe {i % 60:02d} kind", f"thing number {i}", *(t[i] for t in table)) for i in range(900)]

    header = "query,title,rater_a,rater_b,rater_c"
    odd = look(write(tmp_path / "odd.csv", votes([0.05, 0.6, 0.05]), header))
    even = look(write(tmp_path / "even.csv", votes([0.2, 0.2, 0.2]), header))
    assert odd.agreement.odd_one == "rater_b"
    assert "rater_b is the odd one out" in shown(odd)
    assert even.agreement.odd_one is None
    assert odd.suspects is None


def test_an_unwritten_rule_is_suspected_only_where_it_is_concentrated_and_one_way(tmp_path):
    def rows(lifted):
        return [
            (f"red shoe {i % 40:02d} kind", f"thing number {i}", *[i % 3] * 3, 2 if i in lifted else i % 3)
            for i in range(1200)
        ]

    header = "query,title,rater_1,rater_2,rater_3,grade"
    block = look(write(tmp_path / "block.csv", rows({i for i in range(1200) if i % 40 == 7 and i % 3 == 0}), header))
    spread = look(write(tmp_path / "spread.csv", rows(set(range(0, 1200, 63))), header))
    assert block.suspects.unwritten_rule
    assert block.suspects.blocks[0].group == "red shoe 07 kind"
    assert spread.suspects.unanimous > 10
    assert not spread.suspects.unwritten_rule


def test_repeats_conflicts_single_grades_and_twin_groups(tmp_path):
    rows = [("led lamps", "a lamp", 1), ("led lamps", "a lamp", 2), ("lamp LED", "other lamp", 1)]
    rows += [("blue sky", f"sky {i}", 0) for i in range(5)]
    report = look(write(tmp_path / "f.csv", rows + products()))
    assert (report.repeats.rows, report.repeats.pairs, report.repeats.conflicting) == (1, 1, 1)
    assert report.shape.one_grade == 1
    assert report.shape.twins == [("lamp LED", "led lamps")]


def test_a_large_file_is_sampled_for_baselines_and_says_so(tmp_path):
    report = look(write(tmp_path / "f.csv", products(6000, 300)), sample=1000)
    assert 900 <= report.sampled <= 1200
    assert f"on a sample of {report.sampled:,} rows" in " ".join(shown(report).split())
    assert report.rows == 6000


def test_without_grades_it_still_says_what_it_can(tmp_path):
    report = look(write(tmp_path / "f.csv", [row[:2] for row in products()], "query,title"))
    assert report.grades == []
    assert report.baselines == []
    assert report.detectable.basis == "assumed"
    assert "--gold" in shown(report)


def test_one_grade_free_text_and_numbers_as_text(tmp_path):
    single = look(write(tmp_path / "single.csv", [(q, t, 1) for q, t, _ in products()]), gold="grade")
    assert "holds only one grade (1)" in " ".join(shown(single).split())
    assert "--grades LOWEST" in shown(single)
    means = look(write(tmp_path / "means.csv", [(q, t, 1 + g / 3) for q, t, g in products()]))
    assert "holds means of grades" in " ".join(shown(means).split())
    assert "means.csv --bucket-grades" in shown(means)
    words = look(write(tmp_path / "words.csv", [(q, t, ["bad", "good"][g % 2]) for q, t, g in products()]))
    assert [g.grade for g in words.grades] == ["bad", "good"]
    floats = look(write(tmp_path / "floats.csv", [(q, t, f"{g}.0") for q, t, g in products()]))
    assert [g.grade for g in floats.grades] == ["0", "1", "2"]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "tsv"])
def test_every_format_gives_the_same(tmp_path, suffix):
    csv = look(write(tmp_path / "f.csv", products()))
    frame = pl.read_csv(tmp_path / "f.csv")
    path = tmp_path / f"f.{suffix}"
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t")
    assert look(path) == csv.model_copy(update={"file": path.name})


def test_what_cannot_be_looked_at_is_said(tmp_path):
    path = write(tmp_path / "f.csv", products())
    for empty in ("", "query,title,grade\n"):
        (tmp_path / "empty.csv").write_text(empty)
        with pytest.raises(PiarError, match="empty"):
            look(tmp_path / "empty.csv")
    with pytest.raises(PiarError, match="does not exist"):
        look(tmp_path / "missing.csv")
    with pytest.raises(UsageError, match="no column 'label'"):
        look(path, gold="label")
    with pytest.raises(UsageError, match=r"no column 'rater_\*'"):
        look(path, raters="rater_*")
    with pytest.raises(UsageError, match="240 different values"):
        look(path, gold="title")


def test_text_from_data_is_never_markup_nor_control(tmp_path):
    hostile = "[bold]camera[/bold] \x1b[31mred\u202e"
    rows = [(f"{hostile}{i // 30}", f"thing number {i}", 0, 0, 0, 1 if i < 90 else i % 2 and 0) for i in range(900)]
    report = look(write(tmp_path / "f.csv", rows, "query,title,rater_1,rater_2,rater_3,grade"), gold="grade")
    text = shown(report)
    assert "[bold]camera[/bold]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
