"""The README's commands work as printed: blocks under `<!-- run -->`, in order, beside a file like the reader's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from piar.shop import make_shop

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- run -->\n```bash\n(.*?)```", re.S)


@pytest.mark.integration
def test_the_readmes_commands_work(tmp_path) -> None:
    make_shop(300, seed=1).pairs.drop("pair").write_csv(tmp_path / "ratings.csv")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "piar").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m piar "$@"\n')
    (tools / "piar").chmod(0o755)
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    for block in blocks:
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        )
        assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"
    assert (tmp_path / "shoes" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "shoes" / "verdicts.parquet").exists()
