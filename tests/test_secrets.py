"""A key is read from the environment and is never seen again: not on screen, not in any file."""

import subprocess
import sys

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


def test_a_key_written_into_the_configuration_is_refused_without_repeating_it(tmp_path) -> None:
    folder = tmp_path / "toys"
    small_project(folder)
    (folder / "piar.toml").write_text(f'[teacher]\nmodel = "openai:m"\napi_key_env = "{KEY}"\n')
    run = subprocess.run([sys.executable, "-m", "piar", "label", "-C", str(folder)], capture_output=True, text=True)
    assert run.returncode == 2
    assert "teacher.api_key_env" in run.stderr
    assert KEY not in run.stdout + run.stderr
