"""The schemas accept what piar accepts and refuse what it refuses."""

import io
import json
import re
import tomllib
from typing import get_args

import jsonschema
import pytest

from piar.cli import main
from piar.project.config import load
from piar.project.schemas import What, schema
from tests import ROOT


def check(what: str, document: object) -> None:
    jsonschema.Draft202012Validator(schema(what), format_checker=jsonschema.FormatChecker()).validate(
        json.loads(json.dumps(document))
    )


def test_the_schemas_are_schemas():
    for what in get_args(What):
        jsonschema.Draft202012Validator.check_schema(schema(what))


def test_the_proposed_files_and_those_of_the_docs_hold(shop, tmp_path):
    check("config", tomllib.loads((shop.folder / "piar.toml").read_text()))
    check("task", tomllib.loads((shop.folder / "task.toml").read_text()))
    shown = 0
    for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            (tmp_path / "piar.toml").write_text(block)
            try:
                load(tmp_path)
            except Exception:
                continue  # a task, or a part of one
            check("config", tomllib.loads(block))
            shown += 1
    assert shown >= 3


@pytest.mark.parametrize("text", ["[review]\nhours = 'x'", "[nothing]", "[label]\nvotez = 2", "[split]\ntrain = 3"])
def test_what_piar_refuses_is_refused(text):
    with pytest.raises(jsonschema.ValidationError):
        check("config", tomllib.loads(text))


def test_keys_are_explained_where_an_editor_looks():
    review = schema("config")["$defs"]["ReviewSettings"]
    assert review["properties"]["overlap"]["description"] == "share of the rows that two people judge."
    assert "Attributes" not in review["description"]


def test_documents_hold(tmp_path, capsys):
    file = tmp_path / "rows.csv"
    file.write_text("query,title,grade\n" + "".join(f"q{i % 7},a title of {i},{i % 2}\n" for i in range(40)))
    assert main(["look", str(file), "--json"]) == 0
    check("look", json.loads(capsys.readouterr().out))
    assert main(["status", "-C", str(tmp_path), "--json"]) == 2
    check("error", json.loads(capsys.readouterr().out))
    assert main(["schema", "task", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("task")


def test_what_verbs_print_on_a_walk_holds(shop, capsys, monkeypatch):
    def said(*line: str) -> object:
        capsys.readouterr()
        assert main([*line, "-C", str(shop.folder), "--json"]) in (0, 1)
        return json.loads(capsys.readouterr().out)

    check("status", said("status"))
    check("evolve", said("evolve", "--rounds", "1", "--accept", "auto"))
    check("status", said("status"))
    check("doctor", said("doctor"))
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2\n"))
    assert said("review", "here", "--lines", "--n", "3", "--by", "ann")
    check("review-status", said("review", "status"))


def test_editors_find_the_schemas_by_a_line_that_is_written_once(shop, capsys):
    before = (shop.folder / "task.toml").read_text()
    for _ in range(2):
        assert main(["schema", "--write", "-C", str(shop.folder)]) == 0
    assert (shop.folder / "task.toml").read_text() == "#:schema ./.schema/task.json\n" + before
    assert json.loads((shop.folder / ".schema" / "config.json").read_text()) == schema("config")
    assert load(shop.folder)
    assert main(["status", "-C", str(shop.folder)]) == 0
    assert main(["schema"]) == main(["schema", "task", "--write"]) == 2
