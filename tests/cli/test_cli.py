"""The frame of the command line: shared options, streams, exit codes, wrong usages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from piar.cli import main
from piar.cli.verb import Answer, Asked, perform, plain
from store.errors import PiarError


@pytest.fixture
def toys(toys) -> Path:
    return toys.folder


def piar(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m piar` as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "piar", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("-C", "{}", "--json", "sql", "select 1 as a"),
        ("sql", "select 1 as a", "-C", "{}", "--json"),
        ("-C", "{}", "sql", "--json", "select 1 as a"),
        ("--json", "-C", "nowhere", "sql", "select 1 as a", "-C", "{}"),
    ],
)
def test_shared_options_stand_before_or_after_the_verb(toys, capsys, arguments) -> None:
    assert main([a.format(toys) for a in arguments]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out) == {"columns": ["a"], "rows": [[1]]}
    assert out.err == ""


def test_overrides_before_and_after_both_hold(toys, capsys) -> None:
    assert main(["--set", "label.votes=3", "doctor", "-C", str(toys), "--set", "label.voters=1"]) == 1
    assert "label.voters: unknown key" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("exprt", "Did you mean 'export'"),
        ("doctr", "Did you mean 'doctor'"),
        ("sql", "Missing argument 'SQL'"),
        ("sql 'select 1' extra", "extra"),
        ("score baseline:tfidf", "Did you mean: --judge baseline:tfidf"),
        ("compare a.run b.run --by gold --split nowhere", "'--split': 'nowhere' is not one of 'train'"),
        ("score test", "Did you mean: --split test"),
        ("init shoes {toys}/piar.toml", "Did you mean: --from"),
        ("status extra", "extra argument(s) (extra)."),
        ("doctor --jsn", "--json"),
        ("doctor -C", "-C"),
        ("export labels", "Missing argument 'FILE'"),
        ("export rules out.csv", "rules"),
        ("export labels out.xls -C {toys}", ".parquet"),
        ("export labels out.qrels -C {toys}", "--format qrels"),
        ("export labels out.csv -C nowhere", "piar init"),
        ("sql 'select 1' -C nowhere", "piar init"),
        ("sql 'select 1' -C {toys} --set nonsense", "section.key=value"),
        ("sql 'select 1' -C {toys} --set nosuch.key=1", "nosuch: unknown key"),
        ("sql 'select 1' -C {toys} --set label.votes=many", "label.votes"),
        ("sql 'selec 1' -C {toys}", "syntax error"),
        ("sql 'select * from lables' -C {toys}", "labels"),
        ("init", "Missing argument 'DIR'"),
        ("init {toys}", "--force"),
        ("init {toys}/piar.toml/x", "piar.toml"),
    ],
)
def test_common_mistakes_end_with_2_and_words_that_mend_them(toys, capsys, arguments, says) -> None:
    import shlex

    assert main(shlex.split(arguments.format(toys=toys))) in {1, 2}
    out = capsys.readouterr()
    assert says in " ".join(out.err.replace("│", " ").split())
    assert out.out == ""
    assert "Traceback" not in out.err


def test_stray_prints_never_reach_a_json_document(capsys) -> None:
    def noisy() -> Answer:
        print("loading…")
        return Answer({"nan": float("nan"), "path": Path("a"), "text": "é"}, "")

    assert perform(noisy, Asked(as_json=True)) == 0
    out = capsys.readouterr()
    assert json.loads(out.out) == {"nan": None, "path": "a", "text": "é"}
    assert out.err == "loading…\n"


def test_exit_codes(capsys) -> None:
    def fails(error: BaseException):
        def action() -> Answer:
            raise error

        return action

    assert perform(fails(PiarError("no", "do this")), Asked()) == 1
    assert perform(fails(KeyboardInterrupt()), Asked()) == 130
    assert perform(fails(ModuleNotFoundError("x", name="torch")), Asked()) == 2
    assert perform(fails(PermissionError(13, "Permission denied", "/x")), Asked()) == 1
    assert perform(lambda: Answer({}, "worse", exit_code=3), Asked()) == 3
    err = capsys.readouterr().err
    assert "do this" in err
    assert "pip install 'piar[train]'" in err
    assert "is kept" in err


def test_text_from_data_is_neither_markup_nor_terminal_codes(toys, capsys) -> None:
    assert main(["sql", "select title from samples where title like '%doll%'", "-C", str(toys)]) == 0
    out = capsys.readouterr().out
    assert "[red]doll[/red] <b>" in out
    assert "\x1b" not in out


def test_plain_makes_json_of_anything() -> None:
    value = {"a": (1, {2}), Path("k"): float("inf"), "e": [Asked()]}
    assert plain(value) == {
        "a": [1, [2]],
        "k": None,
        "e": [{"folder": ".", "overrides": [], "as_json": False, "columns": []}],
    }


def test_a_closed_pipe_is_no_error(toys) -> None:
    query = "select a.range, b.range from range(200) a, range(200) b"
    command = f"{sys.executable} -m piar sql '{query}' --csv -C {toys} | head -1"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "range,range_2\n", "")


@pytest.mark.parametrize("output", ["", "--json"])
def test_a_terminal_that_knows_few_signs_gets_the_answer_too(toys, output) -> None:
    command = [sys.executable, "-m", "piar", "sql", "select 'é → ·' as x", "-C", str(toys), *output.split()]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["rows"] == [["é → ·"]] if output else "\\xe9 \\u2192 \\xb7" in run.stdout


def test_folders_named_like_our_packages_do_not_shadow_them(tmp_path) -> None:
    for name in ("store", "trainers", "mining", "synth", "curriculum"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    run = piar("doctor", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    packages = next(check for check in json.loads(run.stdout)["checks"] if check["name"] == "packages")
    assert packages["ok"], packages


def test_version_and_bare_command(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("piar ")
    assert main([]) == 0
    assert "piar look FILE" in capsys.readouterr().out
