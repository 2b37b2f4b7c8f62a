"""The loop: learns what is there, promotes nothing else, resumes to the same end, keeps its budget."""

import pytest
from worlds import SEED, WordReviser, WordTeacher, world

from piar.evolve import EvolveSettings, Models, evolve
from piar.history import Event
from store.errors import UsageError

FAST = EvolveSettings(rounds=6, patience=3)


def run(store, journal, settings=FAST, teacher=None, reviser=None, **more):
    models = Models(teacher or WordTeacher(), reviser or WordReviser())
    return evolve(store, models, SEED, settings, journal=journal, **more)


def test_it_learns_what_is_there_and_proposes_it(tmp_path):
    store, journal = world(tmp_path)
    events: list[Event] = []
    report, standing = run(store, journal, on_event=events.append)
    assert report.proposal == standing.id == report.champion != SEED.id
    texts = {r.text: r.grade for r in standing.rules}
    assert texts["the title has w0"] == texts["the title has w1"] == "0"
    assert texts["the title has w2"] == "2"
    assert report.promotions[0]["passed"]
    assert report.promotions[0]["fixed"] > report.promotions[0]["broke"]
    assert report.test["gold"]["gain"]["low"] > 0.2
    assert {e.kind for e in events} >= {"opened", "inspected", "proposed", "survived", "promotion"}
    assert store.instruction(standing.id).rules == standing.rules
    with store.read() as con:
        assert con.execute("select kind, outcome from decisions").fetchall() == [("promotion", "proposed")]
