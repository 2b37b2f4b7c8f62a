"""docs/api.md names what exists, and its example runs."""

import importlib
import re

import pytest

from piar.project.facade import Project
from tests import ROOT

TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_it_names_every_method_and_only_those() -> None:
    table = TEXT.partition("methods of `Project`")[2].partition("Beside it")[0]
    public = {name for name in dir(Project) if not name.startswith("_")}
    inner = {"client", "encoder", "journal", "respondent", "run"}  # what the verbs are made of
    assert set(re.findall(r"`(\w+)`", table)) == public - inner


def test_what_it_names_beside_exists() -> None:
    for path in re.findall(r"`((?:piar|store|trainers)\.[\w.]+)`", TEXT):
        module, _, name = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), path


@pytest.mark.integration
def test_its_example_runs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"<!-- run -->\n```python\n(.*?)```", TEXT, re.S)
    exec(compile(block, "docs/api.md", "exec"), {})
    assert "value=" in capsys.readouterr().out
