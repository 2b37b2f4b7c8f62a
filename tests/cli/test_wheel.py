"""`pip install` of a built wheel gives every verb, without the repository."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from piar.cli.docs import verbs
from tests import ROOT

PACKAGES = ("piar", "synth", "mining", "curriculum", "trainers", "store")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the wheel was installed; its dependencies are those of this interpreter."""
    built, home = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", built, ROOT], check=True)
    [wheel] = built.glob("piar-*.whl")
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", home, wheel], check=True)
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(tracked.stdout.split()) <= held  # prompts, templates, SQL and markers too
    assert not [name for name in held if name.startswith(("tests/", "benchmarks/", "docs/"))]
    return home


def piar(installed: Path, folder: Path, *arguments: str, script: bool = False, stdin: str = "") -> str:
    """Run the installed `piar` where no repository is."""
    command = [sys.executable, str(installed / "bin" / "piar")] if script else [sys.executable, "-m", "piar"]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, input=stdin,
                          env={**os.environ, "PYTHONPATH": str(installed)})  # fmt: skip
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_module_and_the_script_are_those_of_the_wheel(installed, tmp_path):
    place = "import piar, store, trainers; print(piar.__file__, store.__file__, trainers.__file__)"
    found = subprocess.run([sys.executable, "-c", place], cwd=tmp_path, capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONPATH": str(installed)})  # fmt: skip
    assert all(path.startswith(str(installed)) for path in found.stdout.split())
    assert piar(installed, tmp_path, "--version") == piar(installed, tmp_path, "--version", script=True)


def test_every_verb_is_there(installed, tmp_path):
    script = "from piar.cli.docs import verbs; print(*(path for path, _ in verbs()), sep='\\n')"
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONPATH": str(installed)})  # fmt: skip
    assert found.stdout.splitlines() == [path for path, _ in verbs()]


def test_a_walk_needs_nothing_of_the_repository(installed, tmp_path):
    piar(installed, tmp_path, "init", "shop", "--example", "shop", "--pairs", "300")
    shop = tmp_path / "shop"
    for line in (
        "evolve --rounds 1 --accept auto", "label", "mine", "score --split test", "review here --lines --n 2 --by ann",
        "review export week.csv --batch week --hours 0.1 --set review.annotators=['ann']", "synth --n 5",
        "curriculum plan", "curriculum export shards", "report", "export labels labels.csv", "status", "schema --write",
    ):  # fmt: skip
        piar(installed, shop, *line.split(), stdin="1\n2\n")
    assert (shop / "report.html").stat().st_size > 10_000
    told = json.loads(piar(installed, shop, "sql", "select count(*) from label where annotator = 'ann'", "--json"))
    assert told["rows"] == [[2]]
