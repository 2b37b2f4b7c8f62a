"""docs/tutorials: every page's commands, in one shell from the first to the last, as printed."""

import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

from tests import ROOT
from tests.docs.test_readme import BLOCK
from tests.environments import ray_python
from tests.ray_env import environment

PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
TUTORIALS = [page for page in PAGES if page.stem != "README"]
NAMED = {"piar": "-m piar", "python": "", "torchrun": "-m torch.distributed.run"}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def walk(page, folder) -> str:
    """Run a page; ports are made free ones, and `python` knows Ray where the page needs it."""
    tools = folder / "bin"
    tools.mkdir()
    for name, module in NAMED.items():
        python = ray_python() if name == "python" and page.stem == "cluster" else sys.executable
        (tools / name).write_text(f'#!/bin/sh\nexec "{python}" {module} "$@"\n')
        (tools / name).chmod(0o755)
    text = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    for port in ("8080", "29512"):
        text = text.replace(port, free_port())
    stop = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", stop + text], cwd=folder, capture_output=True, text=True,
                          env=environment() | {"PATH": path})  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "tutorials" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\w+\.md)\)", index) == re.findall(r"^\| \[(\w+\.md)\]", index, re.M)
    assert {page.name for page in TUTORIALS} == set(re.findall(r"\]\((\w+\.md)\)", index))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_option_on_the_pages_exists(page) -> None:
    from piar.cli.docs import options, verbs

    known = {path: {flag for p in options(command) for flag in p.opts} for path, command in verbs()}
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^\s*(?:\w+=\S+ )?(?:torchrun .*-m )?(piar .*)", "\n".join(BLOCK.findall(text)), re.M):
        words = line.partition("#")[0].split()
        path = next((p for p in (" ".join(words[:3]), " ".join(words[:2])) if p in known), None)
        assert path, line
        flags = {w for w in words if re.fullmatch(r"--?[a-zA-Z][a-z-]*", w)}
        assert flags <= known[path] | {"-C", "--set", "--json"}, line


@pytest.mark.integration
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_works_as_printed(page, tmp_path) -> None:
    shutil.copy(ROOT / "docs" / "tutorials" / "ratings.csv", tmp_path / "ratings.csv")
    said = walk(page, tmp_path)
    assert "Traceback" not in said
