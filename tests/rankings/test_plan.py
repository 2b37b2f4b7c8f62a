"""Which documents to judge next: chances, the batch that they become, and an estimate without bias."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piar import Project
from piar.cli import main
from piar.project.comparing import Runs
from piar.rankings.plan import by_query, chances, systematic
from store.errors import PiarError, UsageError
from store.types import Label, Verdict
from tests.documents import check
from tests.rankings.world import World, make_world


@given(
    st.lists(st.just(0.0) | st.floats(1e-3, 100), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 10**6)
)
def test_chances_add_up_and_so_many_are_drawn(sizes, n, seed):
    chance = chances(np.array(sizes), n)
    able = sum(size > 0 for size in sizes)
    assert ((chance >= 0) & (chance <= 1)).all()
    assert chance.sum() == pytest.approx(min(n, able), abs=1e-6)
    drawn = systematic(chance, np.random.default_rng(seed))
    assert len(set(drawn)) == len(drawn)
    assert abs(len(drawn) - min(n, able)) <= 1
    assert all(chance[i] > 0 for i in drawn)


def test_every_pair_is_drawn_as_often_as_its_chance_says():
    chance = chances(np.array([1.0, 2, 3, 4, 10, 0]), 3)
    counts = np.zeros(6)
    for seed in range(3000):
        counts[systematic(chance, np.random.default_rng(seed))] += 1
    assert counts / 3000 == pytest.approx(chance, abs=0.04)


def test_the_estimate_is_right_on_average_however_wrong_the_teacher_is():
    rng = np.random.default_rng(0)
    n = 400
    c = rng.normal(size=n) * 0.1
    truth = rng.integers(0, 4, n).astype(float)
    pairs = pl.DataFrame({
        "sample_id": [str(i) for i in range(n)], "query": [f"q{i // 8}" for i in range(n)],
        "unit": [f"q{i // 8}" for i in range(n)], "c": c, "f": np.where(c > 0, 3.0, 0.0),
    })  # fmt: skip
    exact = by_query(pairs, {str(i): truth[i] for i in range(n)}, {})[2].mean()
    chance = chances(np.abs(c), 80)
    found = []
    for seed in range(300):
        drawn = {str(i): float(chance[i]) for i in systematic(chance, np.random.default_rng(seed))}
        found.append(by_query(pairs, {i: truth[int(i)] for i in drawn}, drawn)[2].mean())
    assert np.mean(found) == pytest.approx(exact, abs=4 * np.std(found) / np.sqrt(300))
    assert abs(by_query(pairs, {}, {})[2].mean() - exact) > 10 * np.std(found) / np.sqrt(300)


PEOPLE = 'review.annotators=["ann@example.com"]'


@pytest.fixture
def taught(tmp_path) -> tuple[World, Runs]:
    """No gold at all; a teacher that grades half of the rows one too high; one annotator."""
    world = make_world(tmp_path, queries=40, graded=0, grades=("0", "1", "2", "3"))
    project = Project.open(world.project.folder, [PEOPLE])
    judge, read = f"teacher:{project.config.teacher.model}", project.adopt_instruction().id
    rng = np.random.default_rng(1)
    truth = {(query, title): grade for query, _, title, grade in world.rows}
    said = []
    for sample in project.store.samples():
        grade = min(3, truth[sample.fields["query"], sample.fields["title"]] + int(rng.random() < 0.5))
        probs = tuple(0.7 if i == grade else 0.1 for i in range(4))
        said.append(Verdict(f"{sample.id}-v", sample.id, judge, read, 0, str(grade), probs))
    project.store.record_verdicts(said, "run")
    return replace(world, project=project), replace(world.runs, queries=world.a.parent / "queries.csv", weight="one")


def grade_batch(world: World, batch: str, ids: list[str]) -> None:
    """People say the truth of these samples of a batch."""
    truth = {(query, title): grade for query, _, title, grade in world.rows}
    samples = world.project.store.samples(ids=ids)
    said = [
        Label(s.id, "human", "ann@example.com", str(truth[s.fields["query"], s.fields["title"]]), batch=batch)
        for s in samples
    ]
    world.project.store.add_labels(said, "run")


def test_a_plan_becomes_a_batch_and_corrects_the_teacher_once_it_is_graded(taught):
    world, runs = taught
    project = world.project
    batch, made = project.plan(runs, 150, "ranks1")
    assert abs(len(batch.assignments) - 150) <= 1
    assert {a.role for a in batch.assignments} == {"planned"}
    assert made.known == 0
    again, _ = project.plan(runs, 150, "ranks1")
    assert again.assignments == batch.assignments
    grade_batch(world, "ranks1", [a.sample_id for a in batch.assignments])
    found = project.compare(runs, "nDCG@10,RR,P(rel=3)@5", by="corrected")
    assert [d.measure for d in found.differences] == ["nDCG@10", "P(rel=3)@5"]
    assert any("RR" in note for note in found.notes)
    claim = found.differences[0]
    assert claim.decided
    assert claim.difference.low < claim.difference.value < claim.difference.high
    # A second plan takes none of what people have said.
    second, later = project.plan(runs, 50, "ranks2")
    assert later.known == len(batch.assignments)
    assert not {a.sample_id for a in second.assignments} & {a.sample_id for a in batch.assignments}


def test_the_verb_plans_and_names_what_comes_next(taught, capsys):
    world, runs = taught
    asked = ["compare", str(runs.a), str(runs.b), "--queries", str(runs.queries)]
    asked += ["-C", str(world.project.folder), "--set", PEOPLE]
    assert main([*asked, "--plan", "40", "--batch", "r1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check("compare", document)
    assert document["batch"] == "r1"
    assert abs(document["documents"] - 40) <= 1
    assert main([*asked, "--plan", "40"]) == 2
    assert "--batch" in capsys.readouterr().err
    assert main([*asked, "--plan", "40", "--batch", "r2", "--measure", "AP"]) == 2
    assert "no sum over documents" in capsys.readouterr().err


def test_nothing_is_planned_where_nothing_could_change(taught):
    world, runs = taught
    with pytest.raises(PiarError, match="No document is left"):
        world.project.plan(replace(runs, b=runs.a), 10, "none")
    with pytest.raises(UsageError, match="no sum"):
        world.project.plan(runs, 10, "none", "ERR@10")
