"""`piar review here`: keys on a real pseudo-terminal, and lines from a pipe."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from piar import Project
from piar.cli import main
from piar.cli.desk import command_keys, key_of_grades
from piar.offline import RulebookClient
from piar.offline.endpoint import Faults, running
from store.task import Grade, Task
from tests.terminal import Step, Terminal

if sys.platform == "win32":
    pytest.skip("single keys need a POSIX terminal", allow_module_level=True)


@pytest.fixture
def desk(monkeypatch):
    """Runs the verb on a terminal, playing steps; returns its exit code and the terminal."""
    made: list[Terminal] = []

    def run(project: Project, steps: Sequence[Step], *options: str, size: tuple[int, int] = (24, 80)):
        terminal = Terminal(*size)
        made.append(terminal)
        run.terminal = terminal
        before = terminal.modes
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stdin", terminal.stdin)
        monkeypatch.setattr(sys, "stderr", terminal.stderr)
        with terminal.played(steps):
            code = main(["review", "here", "-C", str(project.folder), "--by", "ann", *options])
        assert not terminal.missed, terminal.drawn[-3000:]
        assert terminal.modes == before
        return code, terminal

    yield run
    for terminal in made:
        terminal.close()


def lines(monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def labels(project: Project):
    query = "select grade, comment, flags, rule from label where annotator = 'ann' order by created_at"
    return project.store.frame(query).rows()


def test_one_key_a_grade_with_undo_skip_comment_doubt_and_rule(shop, desk, capsys):
    steps = [
        ("0 of 5", "3"),
        ("1 of 5", "s"),
        ("2 of 5", "\x7f"),
        ("taken back: skipped", "c"),
        ("comment: ", "grüße, 好\n"),
        ("noted: “grüße, 好”", "d"),
        ("2 truly ambiguous", "2\n"),
        ("noted: truly ambiguous", "r"),
        ("R01", "R02\n"),
        ("rule R02", "1"),
        ("2 of 5", "q"),
    ]
    code, terminal = desk(shop, steps, "--n", "5", "--json")
    assert code == 0
    told = json.loads(capsys.readouterr().out)
    assert {k: told[k] for k in ("answered", "skipped", "undone", "left", "by")} == {
        "answered": 2, "skipped": 0, "undone": 1, "left": 3, "by": "ann"}  # fmt: skip
    assert labels(shop) == [("3", "", [], None), ("1", "grüße, 好", ["ambiguous"], "R02")]
    assert "s a row" in terminal.drawn


def test_a_key_held_down_typed_ahead_or_pasted_gives_one_answer_at_most(shop, desk):
    steps = [
        ("0 of 4", "2222222"),
        ("1 of 4", "\x1b[200~0\n1\n2\x1b[201~"),
        ("pasted text is no answer", "x"),
        ("x is no grade: 0 1 2 3 · u undo · s skip", "é"),
        ("é is no grade", "\x1b[15~"),
        ("that key is no grade", "1"),
        ("2 of 4", "\x04"),
    ]
    assert desk(shop, steps, "--n", "4")[0] == 0
    assert [grade for grade, *_ in labels(shop)] == ["2", "1"]


def test_ctrl_c_and_a_closed_terminal_end_it_with_every_answer_kept(shop, desk, capsys):
    assert desk(shop, [("0 of 3", "1"), ("1 of 3", lambda: os.kill(os.getpid(), signal.SIGINT))], "--n", "3")[0] == 130
    steps = [("1 of 3", "1"), ("2 of 3", lambda: os.kill(os.getpid(), signal.SIGHUP))]
    assert desk(shop, steps, "--n", "3")[0] == 0
    assert len(labels(shop)) == 2
    assert "1 row left" in capsys.readouterr().out
    ended = shop.sql("select status from run_events join runs using (run_id) where verb = 'review-here'")
    assert set(ended["status"]) == {"done"}


def test_long_hostile_and_wide_texts_fit_any_terminal(tmp_path, desk):
    texts = [
        "[bold]not markup[/bold] \x1b[31mred\x1b[0m \x9b2J \u202eturned\r\n" + "long word " * 400,
        "好" * 2000,
        "مرحبا بالعالم " * 200,
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"text": t, "id": i} for i, t in enumerate(texts)]))
    assert main(["init", str(tmp_path / "p"), "--from", str(file), "--grades", "no,yes", "--fields", "text"]) == 0
    project = Project.open(tmp_path / "p")
    for size, on in (((24, 80), "lines 16–"), ((7, 34), "lines 3–")):
        with project.store.write() as con:
            con.execute("delete from labels")
        steps = [
            ("0 of 3 · lines 1–", " "), (on, "\x1b[5~"), ("lines 1–", "1"),
            ("1 of 3 · lines 1–", "\x1b[6~"), (on, "i"), ("the instruction", "z"), ("1 of 3", "2"), ("2 of 3", "1"),
        ]  # fmt: skip
        code, terminal = desk(project, steps, "--n", "3", size=size)
        assert code == 0
        assert "[bold]not" in terminal.drawn or size[1] < 80
        for control in ("\x1b[31mred", "\x9b", "\u202e"):
            assert control not in terminal.drawn
        for screen in terminal.drawn.split("\x1b[2J")[1:-1]:
            assert screen.count("\n") < size[0]


def test_a_resized_terminal_is_drawn_anew(shop, desk):
    def smaller() -> None:
        desk.terminal.size(10, 30)
        os.kill(os.getpid(), signal.SIGWINCH)

    _, terminal = desk(shop, [("u undo", smaller), ("lines 1", "1"), ("1 of 2", "q")], "--n", "2")
    assert all(screen.count("\n") < 10 for screen in terminal.drawn.split("\x1b[2J")[2:-1])


def test_without_a_terminal_it_says_what_else_there_is(shop, monkeypatch, capsys):
    lines(monkeypatch, "1\n")
    assert main(["review", "here", "-C", str(shop.folder)]) == 2
    told = capsys.readouterr().err
    assert "no terminal" in told
    assert "--lines" in told


def test_lines_from_a_pipe(shop, monkeypatch, capsys):
    lines(monkeypatch, "good\n9\n:undo\nper\ncomment\n[red]x\n0\nskip\n")
    assert main(["review", "here", "-C", str(shop.folder), "--by", "ann", "--n", "5", "--lines"]) == 0
    out = capsys.readouterr()
    assert "'9' is no grade: 0 1 2 3" in out.err
    titles = [title for (title,) in shop.store.frame("select title from samples").rows()]
    assert sum(line in titles for line in out.err.splitlines()) >= 3  # a text is a line
    assert "2 rows graded by ann" in out.out
    assert "next: piar review here --by ann" in out.out
    assert labels(shop)[:2] == [("3", "", [], None), ("0", "[red]x", [], None)]
    assert labels(shop)[2][2] == ["skipped"]


def test_a_store_that_is_held_costs_no_answer(shop, monkeypatch, capsys):
    from piar.review.sitting import Sitting
    from store.errors import PiarError

    keep, failed = Sitting.keep, []

    def busy(self, *what):
        if not failed:
            failed.append(what)
            raise PiarError("piar.duckdb is held by process 7.", "Let it finish.")
        keep(self, *what)

    monkeypatch.setattr(Sitting, "keep", busy)
    lines(monkeypatch, "1\n2\n")
    assert main(["review", "here", "-C", str(shop.folder), "--by", "ann", "--n", "3", "--lines"]) == 0
    assert "not kept: piar.duckdb is held by process 7." in capsys.readouterr().err
    assert [grade for grade, *_ in labels(shop)] == ["2"]


def scale(*symbols: str) -> Task:
    return Task(
        name="t", group_by="a", fields=("a",), grades=tuple(Grade(symbol=s, value=i) for i, s in enumerate(symbols))
    )


def test_every_command_has_a_key_that_no_grade_has():
    for symbols in (
        ("E", "S", "C", "I"),
        ("u", "s", "c", "d", "r", "i", "q"),
        ("a", "A"),
        ("no", "yes"),
        ("-", "+", "?"),
    ):
        grades = key_of_grades(scale(*symbols))
        keys = [*grades.values(), *command_keys(grades).values()]
        assert len(keys) == len(set(keys)) == len(symbols) + 7
        assert all(keys)
    assert key_of_grades(scale("E", "S", "C", "I")) == {"E": "e", "S": "s", "C": "c", "I": "i"}


def test_a_long_scale_is_typed(tmp_path, monkeypatch, capsys):
    file = tmp_path / "rows.csv"
    file.write_text("id,text\n" + "".join(f"{i},a row of words {w}\n" for i, w in enumerate("abcdefghijklm")))
    grades = ",".join(str(i) for i in range(12))
    assert main(["init", str(tmp_path / "p"), "--from", str(file), "--grades", grades]) == 0
    lines(monkeypatch, "1\n11\n:s\n")
    assert main(["review", "here", "-C", str(tmp_path / "p"), "--by", "ann", "--n", "4", "--lines"]) == 0
    assert [grade for grade, *_ in labels(Project.open(tmp_path / "p"))] == ["1", "11", None]


def test_a_key_that_is_no_name_is_refused(shop, capsys):
    assert main(["review", "here", "-C", str(shop.folder), "--by", "\x1b \n", "--lines"]) == 2
    assert "--by" in capsys.readouterr().err


@pytest.mark.integration
def test_twenty_rows_beside_a_running_label_one_taken_back_killed_and_resumed(shop):
    """Nothing is lost and nothing is there twice, on either side."""

    def piar(*arguments: str, **streams: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "TERM": "xterm", "DUMMY_KEY": "x"}
        return subprocess.Popen([sys.executable, "-m", "piar", *arguments], text=True, env=environment, **streams)

    def sit(steps: list[Step], kill: bool = False) -> str:
        terminal = Terminal()
        rows = ("-C", str(shop.folder), "--by", "ann", "--n", "20")
        desk = piar("review", "here", *rows, stdin=terminal.stdin, stderr=terminal.stderr, stdout=subprocess.PIPE)
        with terminal.played([*steps, ("10 of 20", desk.kill)] if kill else steps):
            said = desk.communicate()[0]
        assert not terminal.missed, terminal.drawn[-2000:]
        terminal.close()
        return said

    with running(RulebookClient(), faults=Faults(latency=0.3)) as simulator:
        endpoint = ["--set", "teacher.model=openai:rulebook", "--set", f"teacher.base_url={simulator.url}/v1"]
        endpoint += ["--set", "teacher.concurrency=4", "--set", "teacher.api_key_env=DUMMY_KEY"]
        label = piar("label", "-C", str(shop.folder), "--where", "true", *endpoint, stdout=subprocess.DEVNULL)
        sit([*((f"{i} of 20", "1") for i in range(10)), ("10 of 20", "u"), ("taken back", "3")], kill=True)
        assert "10 rows graded by ann" in sit([(f"{i} of 20", "2") for i in range(10, 20)])
        assert label.wait() == 0
    kept = "select grade, count(*), count(distinct sample_id) from label where annotator = 'ann' group by 1 order by 1"
    assert shop.store.frame(kept).rows() == [("1", 9, 9), ("2", 10, 10), ("3", 1, 1)]
    assert shop.store.frame("select count(*) from labels where annotator = 'ann'").item() == 22
    assert shop.store.frame("select count(*), count(distinct sample_id), count(grade) from verdict").rows() == [
        (300, 300, 300)
    ]
