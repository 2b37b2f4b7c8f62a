"""The schemas accept what piar accepts and refuse what it refuses."""

import io
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from typer.main import get_command

from piar.cli import main
from piar.cli.app import build
from piar.project.config import load
from piar.project.schemas import names, schema
from tests import ROOT
from tests.documents import check


def verbs(command: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    """Every verb, its words joined by dashes."""
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from verbs(inner, (*before, name))
        else:
            yield "-".join((*before, name))


def test_every_verb_and_every_file_has_a_schema():
    assert sorted(names()) == sorted([*verbs(get_command(build())), "config", "task", "error"])
    for what in names():
        jsonschema.Draft202012Validator.check_schema(schema(what))
        assert "$schema" in schema(what)


def test_a_name_without_a_schema_is_told_what_there_is(capsys):
    assert main(["schema", "labels"]) == 2
    assert "review-status" in capsys.readouterr().err


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
    assert review["properties"]["overlap"]["description"] == "share of the rows that several people judge."
    assert "Attributes" not in review["description"]
    trust = schema("label")["$defs"]["Trust"]["properties"]
    assert trust["trusted"]["description"] == "labels without truth at or above it."


def test_a_key_that_is_always_there_is_required():
    assert "dry_run" in schema("label")["$defs"]["DryRun"]["required"]
    assert "decided" in schema("compare")["$defs"]["Decided"]["required"]
    assert "trust" not in schema("label")["$defs"]["Labelling"]["required"]


def test_documents_hold(tmp_path, capsys):
    file = tmp_path / "rows.csv"
    file.write_text("query,title,grade\n" + "".join(f"q{i % 7},a title of {i},{i % 2}\n" for i in range(40)))
    assert main(["look", str(file), "--json"]) == 0
    check("look", json.loads(capsys.readouterr().out))
    assert main(["status", "-C", str(tmp_path), "--json"]) == 2
    check("error", json.loads(capsys.readouterr().out))
    assert main(["schema", "task", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("task")


@pytest.fixture
def said(shop, capsys):
    """Run a verb in the shop and hold its document against the schema."""

    def run(line: str, at: bool = True) -> Any:
        capsys.readouterr()
        words = line.split()
        assert main([*words, *(["-C", str(shop.folder)] if at else []), "--json"]) in (0, 1, 3)
        document = json.loads(capsys.readouterr().out)
        check(line, document)
        return document

    return run


def test_what_verbs_print_before_anything_is_asked_holds(said, tmp_path, shop, monkeypatch):
    said("status")
    said("doctor")
    said(f"init {tmp_path / 'empty'}", at=False)
    file = tmp_path / "rows.csv"
    file.write_text("query,title,grade\n" + "".join(f"q{i % 7},a title of {i},{i % 2}\n" for i in range(40)))
    guideline = tmp_path / "guideline.md"
    guideline.write_text("Grade 1 where the title answers the query. Grade 0 otherwise.")
    said(f"init {tmp_path / 'rows'} --from {file} --gold grade --group query --guideline {guideline}", at=False)
    said(f"import {file} -C {tmp_path / 'rows'} --gold grade --group query", at=False)
    said("label --dry-run")
    said("score --dry-run")
    said("evolve --dry-run --rounds 1")
    said("synth --dry-run --n 5")
    said("sql SHOW")
    said("show instruction")
    said(f"export labels {tmp_path / 'labels.csv'}")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    said(f"label --export-requests {tmp_path / 'requests'} --set teacher.model=openai:some")
    said("schema task")


def test_what_review_prints_holds(said, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2\n"))
    said("review here --lines --n 3 --by ann")
    said("review status --enough 1%")
    said("review agenda")
    said(f"review hours {tmp_path / 'hours.csv'}")
    said("schema --write")


@pytest.mark.integration
def test_what_verbs_print_on_a_walk_holds(said, tmp_path, shop):
    said("label")
    said("label --target-precision 0.8")
    said("score --split dev")
    said("calibrate --strategy temperature")
    said("mine --top 20")
    key = said("show sample shop-0-000001")["sample"]["sample_id"]
    said(f"mine --explain {key}")
    said("evolve --rounds 1 --accept auto")
    said("status")
    said("check")
    said("show run")
    said("synth --n 3")
    said("curriculum plan")
    said("curriculum export")
    said("report")
    people = 'review.annotators=["ann@example.com"]'
    for batch in ("w1", "w2"):
        sheet = tmp_path / f"{batch}.csv"
        found = said(f"review export {sheet} --batch {batch} --hours 1 --set {people}")
    said(f"review import {found['files'][0]} --batch w2 --annotator ann@example.com")


def test_what_comparing_prints_holds(said, tmp_path, shop):
    rows = with_gold(shop)
    for name, sign in (("a", 1), ("b", -1)):
        lines = [f"{group},{key},{sign * i}" for i, (group, key) in enumerate(rows)]
        (tmp_path / f"{name}.csv").write_text("query,document,score\n" + "\n".join(lines))
    shutil.copy(tmp_path / "a.csv", tmp_path / "c.csv")
    a, b, c = (tmp_path / f"{name}.csv" for name in "abc")
    said(f"compare {a} {b}")
    said(f"compare {a} {b} {c} --by gold")


def with_gold(shop: Any) -> list[tuple[str, str]]:
    """Query and the owner's id of every sample with gold."""
    return list(
        shop.sql(
            "select group_key, external_id from samples join truth using (sample_id) where external_id is not null"
        ).iter_rows()
    )


def test_editors_find_the_schemas_by_a_line_that_is_written_once(shop, capsys):
    before = (shop.folder / "task.toml").read_text()
    for _ in range(2):
        assert main(["schema", "--write", "-C", str(shop.folder)]) == 0
    assert (shop.folder / "task.toml").read_text() == "#:schema ./.schema/task.json\n" + before
    assert json.loads((shop.folder / ".schema" / "config.json").read_text()) == schema("config")
    assert load(shop.folder)
    assert main(["status", "-C", str(shop.folder)]) == 0
    assert main(["schema"]) == main(["schema", "task", "--write"]) == 2
