"""`piar import` killed at random instants: the same command afterwards brings in everything, once."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from piar.cli import main
from piar.project.facade import Project
from store.db import Store
from store.task import load_task
from tests.data import shared

COLUMNS = ["--gold", "grade", "--raters", "rater_1,rater_2,rater_3", "--group", "query"]


def counts(project):
    tables = "(select count(*) from samples), (select count(*) from labels)"
    return project.store.frame(f"select {tables}, (select count(distinct label_id) from labels)").row(0)


@pytest.mark.integration
def test_thirty_kills_of_import_lose_and_double_nothing(tmp_path):
    chorus = str(shared("chorus/chorus.csv"))
    assert main(["init", str(tmp_path / "whole"), "--from", chorus, *COLUMNS]) == 0
    whole = counts(Project.open(tmp_path / "whole"))
    folder = tmp_path / "killed"
    assert main(["init", str(folder)]) == 0
    shutil.copy(tmp_path / "whole" / "task.toml", folder)
    Store.create(folder / "piar.duckdb", load_task(folder / "task.toml"))
    command = [sys.executable, "-m", "piar", "import", chorus, *COLUMNS, "-C", str(folder)]
    began = time.monotonic()
    subprocess.run([*command, "--help"], capture_output=True, check=True)
    least = time.monotonic() - began
    rng, killed = random.Random(0), 0
    for _ in range(30):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(least * rng.uniform(0.4, 1.5))
        if running.poll() is None:
            os.kill(running.pid, signal.SIGKILL)
            killed += 1
        running.wait()
        seen = counts(Project.open(folder))
        assert seen in ((0, 0, 0), whole)  # a file comes in whole or not at all
    assert killed > 10
    assert main(["import", chorus, *COLUMNS, "-C", str(folder)]) == 0
    assert counts(Project.open(folder)) == whole
