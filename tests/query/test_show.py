from dataclasses import replace

import pytest

from piar.instructions.diff import rule_changes
from piar.project.facade import Project
from piar.query.show import difference, pair_of, show_run, show_sample, versions
from store.errors import PiarError, UsageError
from store.types import Instruction, Rule
from tests.small_project import copy_of, small_project

OLD = Instruction("p", (Rule("R01", "a", "1"), Rule("R02", "b", "0"), Rule("R03", "c"), Rule("R04", "d")))


def test_rules_added_dropped_changed_and_moved() -> None:
    new = replace(OLD, rules=(OLD.rules[3], OLD.rules[0], Rule("R02", "b!", "0"), Rule("R05", "e", "1")))
    changes = {change.id: (change.kind, change.before, change.after) for change in rule_changes(OLD, new)}
    assert changes == {
        "R04": ("moved", "R04: d", "R04: d"),
        "R02": ("changed", "R02 → 0: b", "R02 → 0: b!"),
        "R05": ("added", "", "R05 → 1: e"),
        "R03": ("dropped", "R03: c", ""),
    }
    assert rule_changes(OLD, OLD) == ()
    assert [c.id for c in rule_changes(OLD, replace(OLD, rules=OLD.rules[:2]))] == ["R03", "R04"]


@pytest.fixture(scope="module")
def judged(one_shop, tmp_path_factory) -> Project:
    """Two versions, both judged on train and dev."""
    project = copy_of(one_shop, tmp_path_factory.mktemp("show"))
    project.label("split in ('train', 'dev')")
    path = project.folder / "instruction.md"
    path.write_text(path.read_text().replace("- **R02** → 3", "- **R02** → 2"))
    project.label("split in ('train', 'dev')")
    return project


@pytest.fixture
def shop(judged, tmp_path) -> Project:
    return copy_of(judged, tmp_path)


def test_what_an_edit_changed_in_the_grades(shop) -> None:
    before, after = pair_of(shop.store, shop.instruction(), ())
    found = difference(shop.store, before, after)
    assert [(c.id, c.kind) for c in found.rules] == [("R02", "changed")]
    assert found.judge == "teacher:rulebook"
    assert {(f.before, f.after) for f in found.flips} == {("3", "2")}
    assert set(found.measured) == set(found.gained) == {"dev"}
    old, new = found.measured["dev"]
    difference_in_accuracy = new.scores.accuracy.value - old.scores.accuracy.value
    assert found.gained["dev"].gain.mean == pytest.approx(difference_in_accuracy)
    assert found.flipped
    assert all(
        row["split"] in {"train", "dev"} and (row["before"], row["after"]) == ("3", "2") for row in found.flipped
    )


def test_samples_of_closed_splits_are_never_shown(shop) -> None:
    before, after = pair_of(shop.store, shop.instruction(), ())
    shop.label("split = 'test'", instruction=before.id)
    shop.label("split = 'test'", instruction=after.id)
    found = difference(shop.store, before, after)
    assert "test" in found.gained
    assert any(flip.split == "test" for flip in found.flips)
    assert {row["split"] for row in found.flipped} <= {"train", "dev"}


def test_without_verdicts_only_the_rules_are_compared(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    seed = project.instruction()
    found = difference(project.store, seed, replace(seed, rules=()))
    assert (found.judge, found.flips, found.measured, [c.kind for c in found.rules]) == (None, (), {}, ["dropped"])
    with pytest.raises(UsageError, match="no parent"):
        pair_of(project.store, seed, ())


def test_versions_keep_their_lineage(shop) -> None:
    seed, edited = versions(shop.store)[:2]
    assert (seed.author, edited.parent, edited.rules, edited.outcome) == ("seed", seed.id, seed.rules, "")


def test_a_run_shows_its_configuration_its_steps_and_its_cost(shop) -> None:
    first = shop.sql("select run_id from runs where verb = 'label' order by started limit 1").item()
    run = show_run(shop.store, first)
    assert run["config"]["teacher"] == "rulebook"
    assert [step["status"] for step in run["steps"]] == ["done"]
    assert run["receipt"].calls == shop.sql("select count(*) as n from samples where split in ('train','dev')").item()
    newest = shop.sql("select run_id from runs order by started desc limit 1").item()
    assert show_run(shop.store)["run_id"] == newest
    latest = shop.sql("select run_id from runs where verb = 'label' order by started desc limit 1").item()
    assert show_run(shop.store, "label")["run_id"] == latest
    with pytest.raises(PiarError, match="No runs"):
        show_run(shop.store, "nope")


def test_a_sample_by_its_own_id(shop) -> None:
    own = shop.sql("select external_id from samples where split = 'dev' limit 1").item()
    found = show_sample(shop.store, own)
    assert found["sample"]["external_id"] == own
    assert len(found["labels"]) == 4
    assert {verdict["judge"] for verdict in found["verdicts"]} == {"teacher:rulebook"}
    assert show_sample(shop.store, found["sample"]["sample_id"]) == found
    with pytest.raises(PiarError):
        show_sample(shop.store, "")
