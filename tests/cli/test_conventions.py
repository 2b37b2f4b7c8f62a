"""What scripts and shells rely on: errors as documents, completion."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from piar.cli import main
from piar.cli.verb import Answer, Asked, perform
from store.errors import PiarError
from tests.small_project import small_project


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "No such command 'nope'"),
        (["label", "--votes", "x"], "--votes"),
        (["sql"], "Missing argument"),
        (["status", "--nope"], "--nope"),
        (["review"], "Missing command"),
        (["status", "-C", "no such folder"], "is not a piar project"),
    ],
)
def test_an_error_is_one_document_under_json_and_the_same_code_as_without(arguments, words, capsys):
    assert main([*arguments, "--json"]) == 2
    out = capsys.readouterr()
    told = json.loads(out.out)["error"]
    assert words in told["message"]
    assert told["fix"].startswith(("`piar", "Make"))
    assert told["exit_code"] == 2
    assert words in " ".join(out.err.split())
    assert main(arguments) == 2
    assert '"error"' not in capsys.readouterr().out


def raising(error: BaseException) -> Answer:
    raise error


def test_every_way_to_fail_is_told(capsys):
    asked = Asked(as_json=True)
    for error, code in (
        (PiarError("No.", "Do."), 1),
        (KeyboardInterrupt(), 130),
        (ModuleNotFoundError(name="openai"), 2),
        (FileNotFoundError(2, "No such file", "x.csv"), 1),
    ):
        assert perform(lambda error=error: raising(error), asked) == code
        assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == code
    with pytest.raises(KeyError):
        perform(lambda: raising(KeyError("of ours")), asked)
    assert "KeyError" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_ctrl_c_waits_until_a_module_is_whole(tmp_path, monkeypatch, capsys):
    """A compiled module that is stopped within says ImportError, or takes the process with it."""
    (tmp_path / "slow_to_load.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.2)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def verb(arguments):
        import slow_to_load

        assert slow_to_load.whole
        time.sleep(60)

    monkeypatch.setattr("piar.cli.app.run", verb)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        assert main(["status"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Interrupted" in capsys.readouterr().err
    assert sys.modules.pop("slow_to_load").whole


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json")])
@pytest.mark.parametrize(("stdout", "code"), [("a reader that has gone", 0), ("nowhere", 0), ("a full disk", 1)])
def test_where_stdout_leads_costs_no_traceback(tmp_path, arguments, stdout, code):
    toys = small_project(tmp_path / "toys").folder
    reader, writer = os.pipe()
    os.close(reader)
    into = {"a reader that has gone": f">&{writer}", "nowhere": ">&-", "a full disk": ">/dev/full"}[stdout]
    line = shlex.join([sys.executable, "-m", "piar", *arguments, "-C", str(toys)])
    try:
        run = subprocess.run(
            ["bash", "-c", f"{line} {into}"], stderr=subprocess.PIPE, text=True, pass_fds=[writer], check=False
        )
    finally:
        os.close(writer)
    assert run.returncode == code
    assert "Traceback" not in run.stderr
    assert bool(run.stderr) == bool(code)


@pytest.mark.parametrize(
    ("shell", "asked", "found"),
    [
        ("bash", {"COMP_WORDS": "piar rev", "COMP_CWORD": "1"}, "review"),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "piar review here --from "}, "random"),
        ("fish", {"_TYPER_COMPLETE_ARGS": "piar label --vo", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "--votes"),
    ],
)
def test_shells_complete_verbs_options_and_values(shell, asked, found, monkeypatch, capsys):
    for name, value in {"_PIAR_COMPLETE": f"complete_{shell}", **asked}.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 0
    assert found in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell, monkeypatch, capsys):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert main(["--show-completion", shell]) == 0
    assert "_PIAR_COMPLETE" in capsys.readouterr().out
