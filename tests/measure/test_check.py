"""The gate for CI: a worse instruction fails it, an equal or a better one passes."""

import json

import pytest

from piar.cli import main
from piar.measure.regression_gate import check, reference_id
from piar.project.facade import Project
from store.judges import Judge
from store.types import Verdict
from tests.small_project import small_project

GOOD = "Judge.\n\n## Rules\n- **R01** → 3: Every word of the query appears in the title.\n- **R02** → 0: No word of the query appears in the title.\n"  # noqa: E501
BAD = "Judge.\n\n## Rules\n- **R01** → 0: Every word of the query appears in the title.\n- **R02** → 3: No word of the query appears in the title.\n"  # noqa: E501


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check") / "shop"
    project = Project.init(folder, example="shop", pairs=400, seed=3)
    (folder / "instruction.md").write_text(GOOD)
    first = project.adopt_instruction().id
    return folder, first


def run(*arguments):
    return main([str(a) for a in arguments])


def test_the_committed_instruction_passes_against_itself(shop, capsys):
    folder, first = shop
    (folder / "instruction.md").write_text(GOOD)
    assert run("check", "-C", folder, "--against", first, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"]
    assert {d["drop"] for d in document["drops"]} == {0.0}


def test_a_worse_instruction_exits_3_with_a_markdown_summary(shop, tmp_path, capsys):
    folder, first = shop
    (folder / "instruction.md").write_text(BAD)
    assert run("check", "-C", folder, "--against", first, "--summary", tmp_path / "summary.md") == 3
    text = (tmp_path / "summary.md").read_text()
    assert "**regressed**" in text
    assert "| all rows |" in text
    assert capsys.readouterr().out.strip() == text.strip()


def test_known_verdicts_cost_nothing(shop, capsys):
    folder, first = shop
    (folder / "instruction.md").write_text(BAD)
    run("check", "-C", folder, "--against", first, "--json")
    capsys.readouterr()
    run("check", "-C", folder, "--against", first, "--max-calls", 0, "--json")
    assert json.loads(capsys.readouterr().out)["receipt"]["calls"] == 0


def test_the_reference_is_what_was_accepted_last_else_what_came_first(tmp_path):
    project = small_project(tmp_path / "toys")
    assert reference_id(project.store) is None
    first = project.adopt_instruction().id
    assert reference_id(project.store) == first


def test_a_small_part_fails_only_when_its_interval_shows_the_fall(tmp_path):
    project = small_project(tmp_path / "toys")
    store = project.store
    keys = store.frame(
        "select sample_id, t.grade from samples join truth t using (sample_id) where split = 'test'"
    ).rows()
    before = [Verdict(f"a{k}", k, "teacher:x", "old", 0, grade) for k, grade in keys]
    after = [Verdict(f"b{k}", k, "teacher:x", "new", 0, "0") for k, _ in keys]
    store.record_verdicts([*before, *after], "r")
    found = check(store, Judge("teacher:x", "new"), Judge("teacher:x", "old"), "test", 2.0)
    parts = {d.part: d for d in found.drops}
    assert parts["all rows"].failed  # the estimate alone decides
    assert parts["grade 1"].drop == 100.0
    assert not parts["grade 1"].failed  # one group: no interval, so nothing is shown


@pytest.mark.parametrize("verb", ["check", "score", "calibrate", "cascade"])
def test_what_was_to_be_measured_whole_is_no_figure_where_the_budget_ends(shop, capsys, verb):
    folder, _ = shop
    (folder / "instruction.md").write_text(GOOD.replace("Judge.", f"Judge for {verb}."))
    more = {"cascade": ["--tiers", "teacher"]}.get(verb, [])
    assert run(verb, "-C", folder, *more, "--max-calls", 3) == 1
    told = capsys.readouterr()
    assert not told.out
    assert "rows were not asked" in told.err
    assert not (folder / "cascade.json").exists()
