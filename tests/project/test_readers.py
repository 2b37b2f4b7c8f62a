"""Verbs that look change nothing: after each of them every byte of the folder is as it was."""

import hashlib
import shlex
from pathlib import Path

import pytest

from piar.cli import main
from piar.llm.cost import Budget
from piar.measure.embeddings import embedder
from piar.project.facade import Project
from store.journal import Journal
from store.types import Completion, Usage
from tests.small_project import copy_of
from tests.tiny_encoder import make_tiny_encoder

READING = {  # command -> how it ends
    "--help": 0,
    "look FOLDER/shop.csv": 0,
    "status": 0,
    "doctor": 0,
    "sql 'select * from leaderboard'": 0,
    "show instruction": 0,
    "show diff": 0,
    "show run": 0,
    "show sample SAMPLE": 0,
    "show candidate": 2,
    "show proposal": 1,
    "label --dry-run": 0,
    "label --votes 5 --sure 0.9 --dry-run": 0,
    "label ELSEWHERE/pool.parquet --out ELSEWHERE/judged.parquet --dry-run": 0,
    "score --dry-run": 0,
    "evolve --dry-run": 0,
    "synth --dry-run": 0,
    "mine --explain SAMPLE": 0,
    "curriculum plan": 0,
    "review status": 0,
    "review agenda": 0,
    "review hours ELSEWHERE/hours.csv": 0,
    "report --out ELSEWHERE/page.html": 0,
    "export labels ELSEWHERE/labels.csv": 0,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A project that was asked and reviewed, whose instruction has been edited since, and with an answer that a killed
    process left in the journal; with the id of its first instruction."""
    project = Project.init(tmp_path_factory.mktemp("readers") / "shop", example="shop", pairs=200)
    seed = project.adopt_instruction().id
    project.label("split = 'dev'")
    project.mine()
    batch = ["review", "export", str(project.folder.parent / "w1.csv"), "--batch", "w1", "-C", str(project.folder)]
    assert main([*batch, "--set", "review.annotators=['ann']"]) == 0
    path = project.folder / "instruction.md"
    path.write_text(path.read_text() + "- **R90** → 0: The title is empty.\n")
    journal = Journal(project.folder / "journal")
    journal.append("reviser", "evolve-x", Completion("k", "m", "text", None, None, Usage(1, 0, 1), 0.1, 1.0, 1), None)
    journal.close()
    return project, seed


def contents(folder):
    """Every file of a folder by its name: what it holds, and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


@pytest.mark.parametrize(("command", "code"), READING.items(), ids=READING)
def test_a_verb_that_looks_changes_nothing(shop, tmp_path, command, code):
    project, _ = shop
    sample = project.sql("select min(sample_id) from difficulty").item()
    project.export("samples", tmp_path / "pool.parquet")
    for name, place in {"SAMPLE": sample, "FOLDER": project.folder, "ELSEWHERE": tmp_path}.items():
        command = command.replace(name, str(place))
    before = contents(project.folder)
    here = [] if command.startswith(("--help", "look")) else ["-C", str(project.folder)]
    assert main([*shlex.split(command), *here]) == code
    assert contents(project.folder) == before


def test_a_report_reads_the_vectors_that_are_kept_and_keeps_none(shop, tmp_path):
    project = copy_of(shop[0], tmp_path)
    project.score(split="test")
    page, kept = str(tmp_path / "page.html"), project.folder / "embeddings"
    settings = project.folder / "piar.toml"
    named = f"encoder = '{make_tiny_encoder(tmp_path / 'e')}'"
    settings.write_text(settings.read_text().replace('# encoder = "models/minilm"', named))
    for known in (None, "red thing", "damaged"):
        if known:
            embedder(Project.open(project.folder).config.baselines, project.folder)([known])
        for file in kept.glob("*.sqlite") if known == "damaged" else ():
            file.write_bytes(b"no database" * 100)
        before = contents(project.folder)
        assert main(["report", "--out", page, "-C", str(project.folder)]) == 0
        assert "baseline: probe" in Path(page).read_text()
        assert contents(project.folder) == before


def test_a_forecast_knows_answers_that_still_lie_in_the_journal(tmp_path, monkeypatch):
    project = Project.init(tmp_path / "shop", example="shop", pairs=60)
    most = project.forecast_label("split = 'dev'").asked
    with monkeypatch.context() as killed:
        killed.setattr(Journal, "fold", lambda journal, store: 0)
        project.label("split = 'dev'", budget=Budget(2))
    assert project.sql("select count(*) from verdicts").item() == 0
    before = contents(project.folder)
    assert project.forecast_label("split = 'dev'").asked == most - 2
    assert contents(project.folder) == before


def test_an_edit_is_a_version_once_somebody_asks_under_it(shop):
    project, seed = shop
    runs = "select count(*) from runs where verb = 'edit'"
    edited = project.instruction()
    assert (edited.parent, project.status().holds["instruction"]) == (seed, edited.id)
    assert (project.store.knows(edited.id), project.sql(runs).item()) == (False, 1)
    project.score(split="dev")
    assert project.sql("select instruction from in_force order by since")["instruction"].to_list() == [seed, edited.id]
    assert (project.instruction(), project.sql(runs).item()) == (edited, 2)
    project.score(split="dev")  # of verdicts that are known
    assert project.sql(runs).item() == 2
