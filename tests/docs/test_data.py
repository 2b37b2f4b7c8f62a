"""docs/data.md's commands work as printed, and it names reasons and signals that exist."""

import os
import re
import subprocess
import sys

import pytest

from mining import SIGNALS
from mining.computed import FROM_TEXTS, FROM_VERDICTS
from mining.select import REASONS
from store.manifest import read_manifest
from tests import ROOT

GUIDE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_guide_names_every_reason_and_only_signals_that_exist():
    mining = GUIDE.partition("## Mining")[2].partition("## ")[0]
    table = [line for line in mining.splitlines() if line.startswith("| ")][1:]
    named = {reason.strip() for line in table for reason in line.split("|")[1].split(",")}
    assert named - {"random"} == set(REASONS)
    signals = {signal for line in table for signal in re.findall(r"`([a-z_]+)`", line)}
    assert signals <= {*SIGNALS, *(function.__name__ for function in FROM_VERDICTS + FROM_TEXTS)}


@pytest.mark.integration
def test_the_guides_commands_work(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "piar").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m piar "$@"\n')
    (tools / "piar").chmod(0o755)
    [block] = re.findall(r"<!-- run -->\n```bash\n(.*?)```", GUIDE, re.S)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, capture_output=True, text=True,
                         env={**os.environ, "PATH": path})  # fmt: skip
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    assert sum(read_manifest(tmp_path / "corner" / "shards").rows.values()) > 500
