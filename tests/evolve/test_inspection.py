"""Errors are sorted by cause, clustered by what they share, and shown beside their nearest correct neighbour."""

from piar.evolve.inspection import Judged, contrast_evidence, hints, inspect, suspects, whole_evidence
from piar.evolve.truth import Truth
from store.types import Instruction, Rule, Sample, Trace, Verdict

INSTRUCTION = Instruction("Judge.", (Rule("R01", "bags", "0"), Rule("R02", "the rest", "1"), Rule("R03", "unused")))


def judged(title, truth, said, rules=(), votes=None, group=None):
    name = f"id {title}"
    sample = Sample(name, group or f"g {title}", {"query": "camera", "title": title})
    trace = Trace(said, rules=tuple(rules)) if said else None
    return Judged(sample, Truth(truth, votes or {}), Verdict("k", name, "j", "i", 0, said, trace=trace))


BATCH = [
    *[judged(f"leather case c{i}", "0", "1", ["R02"]) for i in range(4)],
    *[judged(f"canvas bag b{i}", "0", "0", ["R01"]) for i in range(4)],
    *[judged(f"zoom camera z{i}", "1", "1", ["R02"]) for i in range(8)],
    judged("canvas bag lost", "0", "1", ["R02"]),
    judged("silent", "1", None),
    judged("odd one", "1", "1", ["R02"]),
    judged("wrong label", "1", "0", ["R01"], {"0": 3}),
    judged("open question", "1", "0", ["R01"], {"0": 1, "1": 2}),
    judged("cites another", "1", "2", ["R01"]),
]


def causes():
    found = inspect(BATCH, INSTRUCTION)
    return {k.removeprefix("id "): v for k, v in found.causes.items()}


def test_causes_are_told_apart():
    found = causes()
    assert found["leather case c0"] == "knowledge"
    assert found["canvas bag lost"] == "not_applied"
    assert found["silent"] == found["cites another"] == "misread"
    assert found["wrong label"] == found["open question"] == "suspect"
    assert len(found) == 9
    assert [j.sample.fields["title"] for j in suspects(BATCH)] == ["wrong label"]


def test_recurring_knowledge_errors_are_clustered_and_said_in_words():
    found = inspect(BATCH, INSTRUCTION, {"cases": frozenset(f"id leather case c{i}" for i in range(4))})
    (cluster,) = found.clusters
    assert (cluster.cell, len(cluster.errors), cluster.groups) == (("0", "1"), 4, 4)
    assert cluster.term in {"leather", "case"}
    assert found.slices["cases"] == (4, 4)
    told = hints(found)
    assert "4 errors in 4 groups judged 1 where 0 is right" in told[0]
    assert "slice cases: 4 of 4 wrong" in told


def test_an_error_is_shown_with_its_nearest_correct_neighbour_and_suspects_are_not():
    found = inspect(BATCH, INSTRUCTION)
    shown = contrast_evidence(found, 20, seed=0)
    titles = [e.fields["title"] for e in shown]
    at = titles.index("canvas bag lost")
    assert shown[at + 1].kind == "neighbour"
    assert titles[at + 1].startswith("canvas bag b")
    assert not {"wrong label", "open question", "silent"} & set(titles)
    assert all(e.group.startswith("g") and "canvas" not in e.group for e in shown)
    few = contrast_evidence(found, 2, seed=0, focus=found.clusters[0])
    assert few[0].fields["title"].startswith("leather case")
    assert len(few) == 2


def test_whole_evidence_keeps_groups_whole_and_proportions_natural():
    batch = [judged(f"t{i}", "1", "1" if i % 3 else "0", group=f"g{i // 5}") for i in range(100)]
    shown = whole_evidence(batch, 50, seed=1)
    assert len(shown) == 50
    assert len({e.group for e in shown}) == 10
    assert sum(e.kind == "error" for e in shown) in range(14, 21)
    assert whole_evidence(batch, 50, seed=1) == shown
