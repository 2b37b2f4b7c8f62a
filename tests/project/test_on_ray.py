"""Pools and exported requests through Ray Data on one machine, two workers, one of them killed: as on one machine."""

import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from piar.judging.parquet_files import score_files
from piar.offline.endpoint import Faults, running
from piar.offline.teacher import RulebookClient
from piar.project.facade import Project
from piar.project.on_ray import score_on_ray
from store.errors import PiarError, UsageError
from tests.environments import ray_python
from tests.judging.test_pool import pool_file, taught
from tests.ray_env import INIT, environment
from tests.small_project import small_project

SCRIPT = f"""
import os, signal, sys, threading, time
from pathlib import Path
import psutil, ray
from piar.project.facade import Project
from piar.project.on_ray import label_on_ray, score_on_ray
from store.errors import PiarError

def workers():
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if line.startswith("ray::MapWorker"):
            yield process.pid

def kill_one_when(begun):
    while not begun():
        time.sleep(0.02)
    os.kill(next(workers()), signal.SIGKILL)
    print("killed", flush=True)

def killing(begun):
    threading.Thread(target=kill_one_when, args=(begun,), daemon=True).start()

if __name__ == "__main__":
    {INIT.replace(chr(10), chr(10) + "    ")}
    files = sorted(Path("logs").glob("*.parquet"))
    killing(lambda: any(Path("graded").glob("*.parquet")))
    report = score_on_ray(Path("student"), files, Path("graded"), workers=2)
    print("student", report.files, report.rows, report.skipped)
    project = Project.open("p", sys.argv[1:])
    killing(lambda: any(Path("labelled").glob("*.work/*/journal*")))
    report = label_on_ray(project, files, Path("labelled"), workers=2)
    print("teacher", report.files, report.rows, report.skipped)
    Path("logs/bad.parquet").write_text("no Parquet")
    try:
        label_on_ray(project, sorted(Path("logs").glob("*.parquet")), Path("labelled"), workers=2)
    except PiarError as error:
        print("refused", error)
"""


def same(one, other):
    """Row by row; probabilities within rounding, since processes may count their threads differently."""
    numbers = ["piar_probs", "piar_expected"]
    assert one.drop_columns(numbers).equals(other.drop_columns(numbers))
    for a, b in zip(one["piar_probs"].to_pylist(), other["piar_probs"].to_pylist(), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_a_killed_worker_changes_nothing_of_what_a_student_and_a_teacher_say(tmp_path):
    student = taught(tmp_path)
    (tmp_path / "logs").mkdir()
    files = [pool_file(tmp_path / "logs" / f"{name}.parquet", 40) for name in "abcd"]
    small_project(tmp_path / "p")
    (tmp_path / "script.py").write_text(SCRIPT)
    with running(RulebookClient(), faults=Faults(latency=0.05)) as simulator:
        told = ["teacher.model=openai:rulebook", f"teacher.base_url={simulator.url}/v1", "teacher.concurrency=4"]
        done = subprocess.run(
            [ray_python(), "script.py", *told],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        calls = simulator.ledger()["calls"]
        project = Project.open(tmp_path / "p", told)
        for file in files:
            project.label_pool(file, tmp_path / "local" / file.name)
    said = done.stdout.splitlines()
    assert said.count("killed") == 2
    told = {words[0]: list(map(int, words[1:])) for words in map(str.split, said) if words[0] in ("student", "teacher")}
    for files_told, rows, skipped in told.values():  # skipped: whole, but its worker died before it could say so
        assert (files_told, rows + 40 * skipped) == (4, 160)
    assert any(line.startswith("refused 1 of 5 files") and "bad.parquet" in line for line in said)
    assert 160 <= calls <= 160 + 8  # what was on its way when the worker was killed is asked again, and nothing else
    from trainers.students import load_student

    score_files(load_student(student), files, tmp_path / "alone", name="student:student")
    for file in files:
        for spread, alone in (("graded", "alone"), ("labelled", "local")):
            same(*(pq.read_table(tmp_path / folder / file.name) for folder in (spread, alone)))
    assert not list((tmp_path / "labelled").glob("[abcd].parquet.work"))


def test_without_ray_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PiarError, match="Ray Data") as caught:
        score_on_ray(tmp_path, [], tmp_path / "out")
    assert "piar[ray]" in caught.value.fix


class LocalRay:
    """Ray Data's calls that are used, in this process."""

    def __init__(self, rows=()):
        self.data, self.rows = self, list(rows)

    def from_items(self, rows, **how):
        return LocalRay(rows)

    def map(self, worker, *, fn_constructor_args, concurrency, **how):
        assert (concurrency, how) == (3, {"num_cpus": 1.0, "num_gpus": 0.5})
        judge = worker(*fn_constructor_args)
        return LocalRay(judge(row) for row in self.rows)

    def iter_rows(self):
        return iter(self.rows)


def test_files_are_judged_by_name_and_a_bad_one_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", LocalRay())
    student, out = taught(tmp_path), tmp_path / "out"
    files = [pool_file(tmp_path / f"{name}.parquet", 9) for name in "ab"]
    how = {"workers": 3, "num_gpus": 0.5}
    report = score_on_ray(student, files, out, **how)
    assert (report.files, report.rows, report.asked, report.skipped) == (2, 18, 18, 0)
    again = score_on_ray(student, files, out, **how)
    assert (again.files, again.rows, again.skipped) == (2, 0, 2)
    pq.write_table(pa.table({"query": ["x"]}), tmp_path / "c.parquet")
    with pytest.raises(PiarError, match=r"1 of 3 files could not be judged.*no column 'title'"):
        score_on_ray(student, [tmp_path / "c.parquet", *files], out, **how)
    (tmp_path / "more").mkdir()
    twin = shutil.copy(files[0], tmp_path / "more" / "a.parquet")
    with pytest.raises(UsageError, match=r"Two files are called a\.parquet"):
        score_on_ray(student, [*files, twin], out, **how)
