"""A key is read from the environment and is never seen again: not on screen, not in any file."""

import subprocess
import sys
import warnings
from contextlib import suppress

from piar.project.facade import Project
from store.errors import PiarError
from tests.faulty_server import FaultyServer
from tests.small_project import small_project

KEY = "sk-planted-7f3a91c05e"


def test_a_failing_endpoint_leaks_no_key(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "toys"
    small_project(folder)
    (folder / "piar.toml").write_text(
        '[teacher]\nmodel = "openai:m"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "PLANTED_KEY"\n'
        "timeout = 1.0\nattempts = 1\npatience = 1.0\n"
    )
    monkeypatch.setenv("PLANTED_KEY", KEY)
    for verb in (["label"], ["score"], ["doctor"], ["status"], ["show", "run"], ["report"], ["label", "--dry-run"]):
        run = subprocess.run(
            [sys.executable, "-m", "piar", *verb, "-C", str(folder)], capture_output=True, text=True, timeout=120
        )
        assert KEY not in run.stdout + run.stderr, verb
        assert "Traceback" not in run.stderr, run.stderr
    kept = [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert kept == []


def test_a_key_that_an_endpoint_echoes_is_nowhere(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    monkeypatch.setattr("piar.llm.openai.pacing.PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("piar.llm.openai.asking.BACKOFF_SECONDS", 0.02)
    small_project(tmp_path / "p")
    settings = [
        "teacher.model=openai:m",
        "teacher.api_key_env=PLANTED_KEY",
        "teacher.attempts=2",
        "teacher.timeout=0.3",
    ]
    notices = []
    for faults in ({"key": "another"}, {"key": KEY, "seed": 2, "faults": 0.5, "malformed": 0.4, "reject": ("seed",)}):
        with FaultyServer(latency=0, **faults).running() as server:
            project = Project.open(tmp_path / "p", [*settings, f"teacher.base_url={server.url}"])
            with warnings.catch_warnings(record=True) as said, suppress(PiarError):
                warnings.simplefilter("always")
                project.label("true", votes=4)
            notices += [str(notice.message) for notice in said]
    errors = project.store.frame("select error from completions where failure is not null")["error"].to_list()
    assert any("incorrect api key provided: bearer ***" in error.lower() for error in errors)
    page = project.report().path
    assert page.stat().st_size > 1000
    for text in [*errors, *notices, *capsys.readouterr()]:
        assert KEY not in text
    kept = [path for path in (tmp_path / "p").rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert kept == []


def test_a_key_written_into_the_configuration_is_refused_without_repeating_it(tmp_path) -> None:
    folder = tmp_path / "toys"
    small_project(folder)
    (folder / "piar.toml").write_text(f'[teacher]\nmodel = "openai:m"\napi_key_env = "{KEY}"\n')
    run = subprocess.run([sys.executable, "-m", "piar", "label", "-C", str(folder)], capture_output=True, text=True)
    assert run.returncode == 2
    assert "teacher.api_key_env" in run.stderr
    assert KEY not in run.stdout + run.stderr
