"""Documented commands work as printed: blocks under `<!-- run -->`, in order, beside a file like the reader's."""

import os
import re
import subprocess
import sys

import polars as pl
import pytest

from piar.project.facade import Project
from piar.shop.world import make_shop
from tests import ROOT

BLOCK = re.compile(r"<!-- run -->\n```bash\n(.*?)```", re.S)


def run(block, folder, tmp_path) -> None:
    """Run a block of commands as a reader would, with this `piar` on the path."""
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "piar").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m piar "$@"\n')
    (tools / "piar").chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


@pytest.mark.integration
def test_the_readmes_commands_work(tmp_path) -> None:
    make_shop(300, seed=1).pairs.drop("pair").write_csv(tmp_path / "ratings.csv")
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    for block in blocks:
        run(block, tmp_path, tmp_path)
    assert (tmp_path / "shoes" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "shoes" / "verdicts.parquet").exists()


@pytest.mark.integration
def test_a_week_without_a_server_works(tmp_path) -> None:
    """The tutorial for people; between its first and second block two people fill in their sheets."""
    folder = tmp_path / "shop"
    world = Project.init(folder, example="shop", pairs=300)
    first, second, third = BLOCK.findall((ROOT / "docs" / "review.md").read_text(encoding="utf-8"))
    run(first, folder, tmp_path)
    gold = dict(world.sql("select sample_id, grade from label where source = 'gold'").rows())
    for person, wrong in (("ann", 0), ("bob", 4)):
        sheet = pl.read_csv(folder / f"w47-{person}.csv", infer_schema=False)
        said = [gold[key] if not wrong or i % wrong else "1" for i, key in enumerate(sheet["sample_key"])]
        sheet.with_columns(grade=pl.Series(said)).write_csv(folder / f"w47-{person}.csv")
    run(second, folder, tmp_path)
    assert (folder / "agenda.md").read_text().startswith("# Agenda of batch w47")
    run(third, folder, tmp_path)
    assert "bob" in (folder / "settle-ann.csv").read_text()
