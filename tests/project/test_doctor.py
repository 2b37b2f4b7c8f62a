import subprocess
import sys

from piar.project.doctor import diagnose
from tests.small_project import small_project


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_healthy_project_passes_every_check(tmp_path) -> None:
    small_project(tmp_path / "toys")
    checks = by_name(diagnose(tmp_path / "toys"))
    assert [check for check in checks.values() if not check.ok] == []
    assert "5 samples, 16 labels" in checks["store"].detail
    assert checks["instruction.md"].detail.startswith("1 rule,")


def test_without_a_project_only_the_environment_is_checked(tmp_path) -> None:
    assert "store" not in by_name(diagnose(tmp_path))


def test_what_is_broken_is_named(tmp_path) -> None:
    small_project(tmp_path / "toys")
    (tmp_path / "toys" / "piar.toml").write_text("[label]\nvoters = 3\n")
    check = by_name(diagnose(tmp_path / "toys"))["project"]
    assert not check.ok
    assert "label.voters: unknown key" in check.detail


def test_a_stranger_named_mining_is_found_out(tmp_path) -> None:
    """A folder earlier on the path shadows ours: `doctor` says whose is found."""
    (tmp_path / "mining").mkdir()
    (tmp_path / "mining" / "__init__.py").write_text("")
    code = "from piar.project.doctor import diagnose; from pathlib import Path; print(diagnose(Path('nowhere')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "mining comes from" in run.stdout, run.stderr
