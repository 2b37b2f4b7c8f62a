"""The commands of docs/teachers.md work as printed, against the endpoint that it starts."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.docs.test_readme import BLOCK

TEXT = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_the_pages_commands_work(tmp_path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "piar").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m piar "$@"\n')
    (tools / "piar").chmod(0o755)
    environment = {**os.environ, "MY_KEY": "sk-anything", "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    options = re.search(r"piar simulate (.*)", TEXT)[1].replace("8080", port).split()
    simulator = subprocess.Popen(
        [sys.executable, "-m", "piar", "simulate", *options], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert port in simulator.stderr.readline()
        blocks = BLOCK.findall(TEXT)
        assert len(blocks) == 8
        said = [run(block.replace("8080", port), tmp_path, environment) for block in blocks]
    finally:
        simulator.terminate()
        simulator.wait(30)
        simulator.stderr.close()
    assert "earlier answers under this instruction" in said[1]
    assert "at most" in said[2]
    assert (tmp_path / "graded.parquet").exists()
    assert "from now on" in said[3]
    assert "twice" in said[4]
    assert "downloaded" not in said[6]
    assert "labelled" in said[6]


def run(block: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return " ".join(done.stdout.split())


def test_what_it_names_exists() -> None:
    from piar.cli.docs import options, verbs
    from piar.llm.settings import ModelSettings

    known = {path.split()[1]: {flag for p in options(command) for flag in p.opts} for path, command in verbs()}
    shared = {"-C", "--set", "--json"}
    for verb, rest in re.findall(r"^piar (\w+)([^#\n]*)", TEXT, re.M):
        assert set(re.findall(r"(?<!\S)--?[a-zA-Z][a-z-]*", rest)) <= known[verb] | shared, rest
    assert {"concurrency", "timeout", "attempts", "patience", "extra", "price"} <= set(ModelSettings.model_fields)
